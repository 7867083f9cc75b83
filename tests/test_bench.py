"""`ferrule bench`, and the programs that the benchmarks compare it with: what they measure is the same work.

Nothing here looks at how long anything takes.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ferrule import Flow, Host, InvalidDataError
from ferrule.native import Event, NativeFlow, NativeLane, NativeObject, cheap_end, timed_calls
from ferrule.plugins.instance import NativeInstance

ROOT = Path(__file__).resolve().parents[1]
BENCHMARKS = ROOT / "benchmarks"
INCLUDES = [f"-I{ROOT / 'native_sdk' / 'include'}", f"-I{ROOT / 'native_sdk' / 'c'}"]
STRICT = ["-O2", "-Wall", "-Wextra", "-Werror", "-pthread", *INCLUDES]
RECORD = '{"id":1,"text":"a \\"quoted\\" \\\\ word, ü","nested":{"n":[1,2.5,null]}}'

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the plugins are built with cc")

Ferrule = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the benchmarks' C programs and libraries and the C plugins, compiled with warnings as errors."""
    compiler = shlex.split(os.environ.get("CC", "cc"))
    if shutil.which(compiler[0]) is None:
        pytest.skip(f"no C compiler: {compiler[0]}")
    folder = tmp_path_factory.mktemp("bench")
    library = ["-shared", "-fPIC", "-std=c99", "-pedantic"]
    plugins = ROOT / "example_plugins" / "c"
    for target, flags, sources in (
        ("c_loop", [], ["c_loop.c"]),
        ("pipe", [], ["pipe.c", "grpc_server/plugin.c"]),
        ("libends.so", library, ["ends.c"]),
        ("libfunctions.so", library, ["functions.c"]),
        ("libadd_metadata.so", library, [plugins / "add_metadata" / "add_metadata.c"]),
        ("libidentity.so", library, [plugins / "identity" / "identity.c"]),
    ):
        paths = [str(BENCHMARKS / source) for source in sources]
        command = [*compiler, *STRICT, *flags, "-o", str(folder / target), *paths, "-ldl"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{shlex.join(command)}\n{done.stderr}"
        assert done.stderr == ""
    return folder


@pytest.fixture
def ferrule(tmp_path: Path) -> Ferrule:
    """``ferrule(*arguments)``: the command, run in an empty folder."""

    def ferrule(*arguments: object) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "ferrule", *map(str, arguments)]
        environ = {**os.environ, "FERRULE_PLUGIN_PATH": "", "COLUMNS": "200"}
        return subprocess.run(command, cwd=tmp_path, env=environ, capture_output=True, text=True, check=False)

    return ferrule


def without_times(data: bytes) -> bytes:
    """Timestamps of the same length, so that bytes compare."""
    return re.sub(rb"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", b"TIME", data)


# ---- ferrule bench -------------------------------------------------------------------------------


def test_bench_shows_each_way_beside_the_c_loop(ferrule: Ferrule, built: Path) -> None:
    """The table has the C loop first, whose ratio is 1, then the pump, its lanes, a batch, and calls from Python."""
    arguments = ["-i", '{"id": 1}', "--seconds", "0.1", "--lanes", "2"]
    done = ferrule("bench", built / "libadd_metadata.so", "process", *arguments)
    assert (done.returncode, done.stderr) == (0, "")
    title, _, head, *rows = done.stdout.splitlines()
    assert title.startswith("add-metadata (function, c): process, 9 bytes in, ")
    assert head.split() == ["WAY", "MEDIAN", "NS", "P99", "NS", "A", "SECOND", "×", "C", "LOOP"]
    assert [re.split(r"\s{2,}", row)[0] for row in rows] == [
        "C loop",
        "pump, 1,024 records a chunk",
        "pump, 2 lanes",
        "process_many, 1,000 at once",
        "call, prepared, bytes",
        "call, by name, bytes",
        "call, prepared, dict",
    ]
    assert rows[0].split()[-1] == "1.00"


def test_bench_json(ferrule: Ferrule, built: Path) -> None:
    """`--json` prints one document with every way's figures as numbers."""
    done = ferrule("bench", built / "libidentity.so", "process", "--seconds", "0.1", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    told = json.loads(done.stdout)
    assert {key: told[key] for key in ("plugin", "kind", "language", "method", "input_bytes", "output_bytes")} == {
        "plugin": "identity",
        "kind": "function",
        "language": "c",
        "method": "process",
        "input_bytes": 2,
        "output_bytes": 2,
    }
    assert told["ways"][0]["way"] == "C loop"
    assert told["ways"][0]["ratio"] == 1
    for way in told["ways"]:
        assert way["median_ns"] > 0
        assert way["calls_per_second"] > 0
        assert way["p99_ns"] is None or way["p99_ns"] >= 0


def test_bench_takes_input_and_config_from_files(ferrule: Ferrule, built: Path, tmp_path: Path) -> None:
    """`@FILE` is a file's content, for the input and for the configuration."""
    (tmp_path / "in.json").write_text('{"id": 12345}', encoding="utf-8")
    (tmp_path / "config.json").write_text('{"plugin_name": "somebody"}', encoding="utf-8")
    arguments = ["-i", "@in.json", "--config", "@config.json", "--seconds", "0.05", "--json"]
    done = ferrule("bench", f"{built / 'libadd_metadata.so'}:add-metadata", "process", *arguments)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["input_bytes"] == 13
    assert told["output_bytes"] == 12 + len(',"processed_by_rust_plugin":"somebody"') + len(
        ',"rust_enriched_timestamp":"2026-01-01T00:00:00.000000Z"}'
    )


def test_bench_of_lines_and_of_a_sink(ferrule: Ferrule, built: Path) -> None:
    """A method that takes lines gets a whole line, and has no way through the pump, which calls it otherwise."""
    done = ferrule("bench", f"{built / 'libfunctions.so'}:stamp-lines", "process", "--seconds", "0.05", "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["input_bytes"] == 3
    assert [way["way"] for way in told["ways"]] == ["C loop", "call, prepared, bytes", "call, by name, bytes"]
    done = ferrule("bench", f"{built / 'libends.so'}:discard", "write", "-i", '{"id": 1}', "--seconds", "0.05")
    assert (done.returncode, done.stderr) == (0, "")
    assert "discard (sink, c): write, 10 bytes in" in done.stdout


@pytest.mark.parametrize(
    ("library", "arguments", "status", "message"),
    [
        ("libidentity.so", ["proces"], 1, "did you mean 'process'"),
        ("libidentity.so", ["process", "-i", "@missing.json"], 2, "--input: missing.json"),
        ("libidentity.so", ["process", "--config", "[]"], 2, "--config is a JSON object"),
        ("libidentity.so", ["process", "--config", '{"a": 1}'], 1, "error:"),
        ("libidentity.so", ["process", "--seconds", "0"], 2, "--seconds"),
        ("libidentity.so", ["process", "--lanes", "0"], 2, "--lanes"),
        ("libidentity.so", [], 2, "Missing argument 'method'"),
        ("libadd_metadata.so", ["process", "-i", "[1]"], 1, "Data must be a JSON object"),
        ("libends.so:repeat", ["read_data", "--config", '{"record": "{}", "count": 1}'], 1, "answers with a stream"),
        ("libnothing.so", ["process"], 1, "libnothing.so"),
    ],
)
def test_bench_says_what_is_wrong(
    ferrule: Ferrule, built: Path, library: str, arguments: list[str], status: int, message: str
) -> None:
    """A fault is one message on stderr and the status of its kind, as with every other command."""
    done = ferrule("bench", built / library, *arguments)
    assert done.returncode == status
    assert done.stdout == ""
    assert done.stderr.startswith("error: ")
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_bench_json_of_an_error(ferrule: Ferrule, built: Path) -> None:
    """With `--json` an error is a document too."""
    done = ferrule("bench", built / "libadd_metadata.so", "process", "-i", "1", "--json")
    assert done.returncode == 1
    assert json.loads(done.stdout)["error"]["status"] == "INVALID_DATA"


def test_bench_takes_no_python(ferrule: Ferrule, tmp_path: Path) -> None:
    """A plugin in Python has no function that a C loop could call."""
    (tmp_path / "mine.py").write_text("def same(record):\n    return record\n", encoding="utf-8")
    done = ferrule("bench", "python:mine:same", "process")
    assert done.returncode == 1
    assert "is written in Python" in done.stderr


# ---- what it measures with -----------------------------------------------------------------------


def instance(host: Host, library: Path, config: dict[str, Any] | None = None) -> NativeObject:
    made = host.create(str(library), config)
    assert isinstance(made, NativeInstance)
    return made.target


def test_timed_calls_makes_the_calls_it_was_asked_for(built: Path) -> None:
    """So many samples of so many calls reach the plugin, and none more: this one refuses every seventh."""
    with Host() as host:
        target = instance(host, Path(f"{built / 'libfunctions.so'}:reject"), {"every": 7})
        assert len(timed_calls(target, "process", b"{}", calls=3, samples=2)) == 2
        with pytest.raises(InvalidDataError, match="one record in 7 is refused"):
            timed_calls(target, "process", b"{}", calls=1, samples=1)
        assert timed_calls(target, "process", b"{}", calls=0, samples=3)
        assert len(timed_calls(target, "process", b"{}", calls=6, samples=1)) == 1
        with pytest.raises(InvalidDataError):
            timed_calls(target, "process", b"{}", calls=100, samples=100)


def test_cheap_ends_give_and_take_every_record(built: Path) -> None:
    """The source gives its record as often as was asked for, byte for byte; a flow between the two loses none."""
    source, sink = cheap_end(RECORD.encode(), 2500), cheap_end()
    stream = source.open("read_data", b"")
    items, after = [], None
    while after != "end":
        batch, after = stream.fill(None)
        items += batch
    assert items == [RECORD.encode()] * 2500
    stream.close()
    with Host() as host:
        target = instance(host, built / "libadd_metadata.so")
        stream = source.open("read_data", b"")
        flow = NativeFlow(1)
        flow.source(stream, many=False, on_error=0)
        flow.step(0, on_error=0)
        flow.sink(sink, "write", lines=True, on_error=0)
        lane = NativeLane(flow)
        lane.step(0, target, "process")
        assert lane.run() == Event.END
        assert (flow.counters().read, flow.counters().written) == (2500, 2500)
        stream.close()
    source.close()
    source.close()
    sink.close()


def test_cheap_ends_of_nothing() -> None:
    """An empty record is an empty item, and no record is no item."""
    for record, count in ((b"", 3), (b"{}", 0)):
        source = cheap_end(record, count)
        stream = source.open("read_data", b"")
        assert stream.fill(None) == ([record] * count, "end")
        stream.close()
        source.close()


# ---- the programs that it is compared with -------------------------------------------------------


@pytest.mark.parametrize("steps", [["add-metadata"], ["add-metadata", "tag"], ["identity", "add-metadata", "identity"]])
def test_the_pump_and_the_c_loop_make_the_same_bytes(built: Path, tmp_path: Path, steps: list[str]) -> None:
    """What the C loop's functions make of a record is what the same steps make of it in a flow, times apart."""
    places = {"add-metadata": "libadd_metadata.so", "tag": "libfunctions.so", "identity": "libidentity.so"}
    words = [word for step in steps for word in (str(built / places[step]), step, "{}")]
    looped = subprocess.run([str(built / "c_loop"), "show", RECORD, "3", *words], capture_output=True, check=True)
    out = tmp_path / "out.jsonl"
    document = {
        "name": "same",
        "source": {"plugin": f"{built / 'libends.so'}:repeat", "config": {"record": RECORD, "count": 3}},
        "steps": [{"plugin": f"{built / places[step]}:{step}"} for step in steps],
        "sink": {"plugin": f"{built / 'libends.so'}:keep", "config": {"path": str(out)}},
    }
    assert Flow.loads(json.dumps(document)).run().written == 3
    assert without_times(out.read_bytes()) == without_times(looped.stdout)


@pytest.mark.parametrize("threads", [1, 2])
def test_the_c_loop_measures(built: Path, threads: int) -> None:
    """Both of its measurements print one number; a function that fails ends it."""
    function = [str(built / "libadd_metadata.so"), "add-metadata", "{}"]
    chain = [str(built / "c_loop"), "chain", str(threads), str(built / "libends.so"), RECORD, "1000"]
    call = [str(built / "c_loop"), "call", RECORD, "1000", *function]
    for command in (chain, [*chain, *function], call):
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        assert float(done.stdout) > 0
    call[2] = "[1]"
    done = subprocess.run(call, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "Data must be a JSON object" in done.stderr


def test_the_pipe_answers_line_for_line(built: Path) -> None:
    """The subprocess peer answers every line, however its input is cut."""
    command = [str(built / "pipe"), str(built / "libadd_metadata.so"), "add-metadata", '{"plugin_name": "x"}']
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdin is not None and child.stdout is not None
        text = (RECORD + "\n").encode() * 3
        for piece in (text[:10], text[10:100], text[100:]):
            child.stdin.write(piece)
            child.stdin.flush()
        child.stdin.close()
        answers = [json.loads(line) for line in child.stdout]
    assert [answer["processed_by_rust_plugin"] for answer in answers] == ["x"] * 3
    assert child.returncode == 0
