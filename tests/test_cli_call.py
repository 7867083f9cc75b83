"""``ferrule call`` on jobs: streams as they come, what is fed as it comes, and Ctrl-C. Processes, pipes and signals."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.timely import timely

ROOT = Path(__file__).resolve().parents[1]
ZOO = ROOT / "example_plugins" / "faulty"

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="it sends signals")

Start = Callable[..., "subprocess.Popen[bytes]"]
SLOWLY = '{"input_data": "x", "chunks": 3, "interval_ms": 400}'
LONG = '{"input_data": "x", "chunks": 1000, "interval_ms": 50, "work_ms": 60000}'


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts ``ferrule call`` in an empty folder, with pipes."""
    started = []

    def start(*arguments: str | Path, **options: Any) -> subprocess.Popen[bytes]:
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        process: subprocess.Popen[bytes] = subprocess.Popen(
            [sys.executable, "-m", "ferrule", "call", *map(str, arguments)],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT / "src"), "XDG_CACHE_HOME": str(tmp_path / ".cache")},
            bufsize=0,  # communicate would miss what was read ahead
            **{**pipes, **options},
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def ended(process: subprocess.Popen[bytes]) -> tuple[int, bytes, str]:
    out, err = process.communicate(timeout=30)
    assert b"Traceback" not in err and b"Fatal" not in err, err.decode()
    return process.returncode, out, err.decode()


def line(pipe: Any) -> bytes:
    found: bytes = pipe.readline()
    return found


@pytest.fixture(scope="session")
def lab(lab_library: Path) -> str:
    return f"{lab_library}:lab"


@pytest.fixture
def zoo(compile_c: Callable[..., Path]) -> Callable[[str], Path]:
    def zoo(name: str) -> Path:
        return compile_c((ZOO / f"{name}.c").read_text(encoding="utf-8"), name, "-O2", "-pthread", f"-I{ZOO}")

    return zoo


# ---- what is printed -------------------------------------------------------------------------------


@pytest.mark.timed
def test_chunks_are_printed_as_they_are_made(start: Start, my_runner: Path) -> None:
    """Each is in the pipe when it is made, on a line of its own, and not all of them at the end."""
    process = start(my_runner, "run", "--stream", "-i", SLOWLY)
    came = []
    for number in range(3):
        assert json.loads(line(process.stdout)) == f"Stream chunk {number} for x"
        came.append(time.monotonic())
    timely(came[2] - came[0] > 0.5)  # the first of them may have been read late
    assert ended(process) == (0, b"", "")


def test_a_method_of_both_modes_answers_once_unless_it_is_to_stream(start: Start, my_runner: Path) -> None:
    """Without --stream there is one answer; with --json one document, with the stream's metadata if it has some."""
    assert ended(start(my_runner, "run", "-i", '{"input_data": "x"}')) == (0, b'"Processed: x"\n', "")
    status, out, _ = ended(start(my_runner, "run", "--stream", "--json", "-i", SLOWLY.replace("400", "1")))
    assert (status, json.loads(out)["items"]) == (0, [f"Stream chunk {number} for x" for number in range(3)])


def test_bytes_are_written_as_they_are(start: Start, my_runner: Path, tmp_path: Path) -> None:
    """A file that is fed comes out byte for byte, without a newline more, whatever its size."""
    blob = bytes(range(256)) * 4000
    (tmp_path / "blob").write_bytes(blob)
    assert ended(start(my_runner, "echo", "--feed", "blob")) == (0, blob, "")
    assert ended(start(my_runner, "echo", "--feed", "/dev/null")) == (0, b"", "")


def test_a_reader_who_has_seen_enough(my_runner: Path, tmp_path: Path) -> None:
    """``| head -1`` prints a line, ends the endless stream, and nobody complains."""
    command = f"'{sys.executable}' -m ferrule call '{my_runner}' run --stream -i '{LONG}' | head -1"
    done = subprocess.run(
        command,
        shell=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert (done.stdout, done.stderr) == ('"Stream chunk 0 for x"\n', "")


# ---- what is fed -----------------------------------------------------------------------------------


def test_standard_input_is_fed_as_it_comes(start: Start, my_runner: Path) -> None:
    """What is typed is answered at once, long before the end of the input, which ends the stream."""
    process = start(my_runner, "echo", "--feed", "-")
    assert process.stdin is not None
    for text in (b"one\n", b"two\n"):
        process.stdin.write(text)
        process.stdin.flush()
        assert line(process.stdout) == text
    assert ended(process) == (0, b"", "")


def test_a_stream_that_ends_before_its_feed_does(start: Start, lab: str) -> None:
    """The command ends with the stream, though nobody closes its input."""
    process = start(lab, "script", "--feed", "-", "-i", '{"next": "OE"}')
    assert line(process.stdout) == b"0\n"
    assert process.wait(30) == 0
    assert ended(process) == (0, b"", "")


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["echo"], 2, "method 'echo' works on what it is fed: give --feed FILE, or --feed - for standard input"),
        (["encode", "--stream"], 2, "--stream: method 'encode' answers once: call it without"),
        (["encode", "--feed", "/dev/null"], 2, "--feed: method 'encode' answers once: call it without"),
        (["echo", "--feed", "nowhere.wav"], 2, "--feed: nowhere.wav: No such file"),
        (["echo", "--feed", "."], 2, "--feed: .: Is a directory"),
        (["echo", "--feed", "-", "-i", "-"], 2, "--input and --feed cannot both be standard input"),
        (["run", "--feed", "/dev/null", "-i", SLOWLY], 1, "this method takes no feed"),
        (["ecoh"], 1, "did you mean 'echo'"),
    ],
)
def test_a_wrong_use_says_what_is_right(
    start: Start, my_runner: Path, arguments: list[str], status: int, message: str
) -> None:
    """One message and nothing on stdout."""
    code, out, err = ended(start(my_runner, *arguments, stdin=subprocess.DEVNULL))
    assert (code, out) == (status, b"")
    assert message in err
    assert len(err.splitlines()) == 1


# ---- Ctrl-C ----------------------------------------------------------------------------------------


def under_way(process: subprocess.Popen[bytes]) -> None:
    """Wait until the plugin works: on a third thread, after the main one and the one that hears its logs."""
    tasks = Path(f"/proc/{process.pid}/task")
    if not tasks.exists():
        time.sleep(3)
        return
    deadline = time.monotonic() + 30
    while len(list(tasks.iterdir())) < 3:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def interrupt(process: subprocess.Popen[bytes]) -> None:
    """Ctrl-C, once it is seen to have been heard."""
    process.send_signal(signal.SIGINT)
    assert line(process.stderr) == b"asked to stop; Ctrl-C once more leaves at once\n"


def test_an_interrupt_cancels_a_stream(start: Start, my_runner: Path) -> None:
    """It ends soon, says so, and has status 1; what came before was printed; nothing else is asked of the operator."""
    process = start(my_runner, "run", "--stream", "-i", LONG)
    assert json.loads(line(process.stdout)) == "Stream chunk 0 for x"
    began = time.monotonic()
    interrupt(process)
    status, _, err = ended(process)
    assert (status, err) == (1, "error: cancelled\n")
    assert time.monotonic() - began < 10


def test_an_interrupt_ends_a_stream_that_waits_for_its_input(start: Start, my_runner: Path) -> None:
    """Also while nobody types anything: the thread that reads standard input does not hold the process up."""
    process = start(my_runner, "echo", "--feed", "-")
    assert process.stdin is not None
    process.stdin.write(b"one\n")
    process.stdin.flush()
    assert line(process.stdout) == b"one\n"
    interrupt(process)
    assert process.wait(30) == 1
    assert ended(process)[2] == "error: cancelled\n"


def test_an_interrupt_cancels_a_call(start: Start, my_runner: Path) -> None:
    """A call that heeds it ends soon, with the plugin's own word for it."""
    process = start(my_runner, "run", "-i", LONG)
    under_way(process)
    interrupt(process)
    status, out, err = ended(process)
    assert (status, out) == (1, b"")
    assert err.startswith("error: ") and "method 'run'" in err


@pytest.mark.parametrize("what", ["a stream", "next", "a call"])
def test_a_second_interrupt_leaves_at_once(start: Start, zoo: Callable[[str], Path], lab: str, what: str) -> None:
    """Whatever the plugin ignores, and wherever it is stuck: status 130."""
    if what == "a stream":
        process = start(zoo("cancel_ignored"), "read_data")
        assert line(process.stdout) == b'{"id":1}\n'
    elif what == "next":
        process = start(lab, "script", "-i", '{"next": "OOP", "flags": 2, "wait": 3600000}')
        under_way(process)
    else:
        process = start(lab, "stick")
        under_way(process)
    interrupt(process)
    process.send_signal(signal.SIGINT)
    assert process.wait(10) == 130


def test_inspect_tells_what_a_method_is_fed_and_heeds(my_runner: Path) -> None:
    """Which methods are fed, are cancellable and tell metadata stands beside them; a protobuf's text stays text."""
    done = subprocess.run(
        [sys.executable, "-m", "ferrule", "inspect", my_runner],
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    words = {row[0]: row[1:] for row in map(str.split, done.stdout.splitlines()) if "→" in row}
    assert words["echo"][:7] == ["stream", "json", "→", "bytes", "fed", "bytes,", "cancellable"]
    assert words["run"][:6] == ["both", "json", "→", "json", "cancellable,", "metadata"]
    assert '\n      syntax = "proto3";' in done.stdout
