"""The host's C and the SDK's, without Python, under sanitizers and a fuzzer; each is shown to find a planted bug."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
HOST = ROOT / "src" / "ferrule" / "native"
HERE = ROOT / "tests" / "native"
PROVE = bool(os.environ.get("FERRULE_PROVE"))
ROUNDS = 3000 if PROVE else 60
FUZZ_SECONDS = 600 if PROVE else 5

CHECKS = {"asan": "address,undefined", "tsan": "thread"}
FLAGS = ["-std=gnu11", "-g", "-O1", "-fno-omit-frame-pointer", "-fno-wrapv", "-Wall", "-Wextra"]
INCLUDES = [f"-I{ROOT / 'native_sdk' / 'include'}", f"-I{ROOT / 'native_sdk' / 'c'}"]
OPTIONS = {
    # What was freed keeps its content: who reads a pointer of it just then is told of it, and ends by no SEGV.
    "ASAN_OPTIONS": "detect_leaks=1:max_free_fill_size=0:exitcode=66",
    "UBSAN_OPTIONS": "halt_on_error=1:print_stacktrace=1:exitcode=66",
    "TSAN_OPTIONS": "halt_on_error=1:exitcode=66",
}

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="gcc's sanitizers on Linux")

Plant = Callable[[Path], None]
Built = Callable[..., Path]


def cc(compiler: str, check: str, host: Path, *arguments: str) -> None:
    """Compile, with the sanitizers of `check` (a -fsanitize list)."""
    command = [compiler, *FLAGS, f"-fsanitize={check}", "-fno-sanitize-recover=all", *INCLUDES, f"-I{host}", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def can_compile(compiler: str, check: str, folder: Path) -> bool:
    """Whether the compiler is there, and has what the sanitizers link with."""
    source = folder / "nothing.c"
    main = "int LLVMFuzzerTestOneInput(const char *a, unsigned long b) { return a == 0 && b; }"
    source.write_text(main if "fuzzer" in check else "int main(void) { return 0; }")
    command = [compiler, f"-fsanitize={check}", str(source), "-o", str(folder / "nothing")]
    return shutil.which(compiler) is not None and subprocess.run(command, capture_output=True).returncode == 0


def copy_host(to: Path) -> None:
    """A copy of the host's C, to plant a bug in."""
    to.mkdir()
    for path in [*HOST.glob("*.c"), *HOST.glob("*.h")]:
        shutil.copy(path, to)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """``built(check, plant, program)``: a folder with that program of tests/native, the host's C and the plugins, all
    instrumented. `plant` changes a copy of the host's C before it is compiled."""
    done: dict[tuple[str, Plant | None, str], Path] = {}

    def build(check: str, plant: Plant | None = None, program: str = "flows") -> Path:
        if (check, plant, program) in done:
            return done[check, plant, program]
        folder = tmp_path_factory.mktemp(check)
        if not can_compile("gcc", CHECKS[check], folder):
            pytest.skip(f"gcc, or its {check}, is not here")
        host = HOST if plant is None else folder / "host"
        if plant is not None:
            copy_host(host)
            plant(host)
        sources = [str(HERE / f"{program}.c"), *(str(path) for path in sorted(host.glob("*.c")))]
        cc("gcc", CHECKS[check], host, *sources, "-o", str(folder / program), "-ldl", "-lpthread")
        plugins = ROOT / "tests" / "plugins"
        for path in {"flows": (plugins / "act.c", HERE / "noisy.c"), "streams": (plugins / "lab.c",)}[program]:
            cc("gcc", CHECKS[check], host, "-shared", "-fPIC", str(path), "-o", str(folder / f"lib{path.stem}.so"))
        done[check, plant, program] = folder
        return folder

    return build


def flows(folder: Path, work: Path, seed: int, lanes: int, order: str, rounds: int) -> subprocess.CompletedProcess[str]:
    """Run generated flows; exit status 66 is a sanitizer's."""
    command = [str(folder / "flows"), str(folder / "libact.so"), str(folder / "libnoisy.so"), str(work)]
    command += [str(seed), str(rounds), str(lanes), order]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | OPTIONS)


def streams(folder: Path, seed: int, rounds: int) -> subprocess.CompletedProcess[str]:
    """Run streams that are read, fed, woken, watched and ended at once; exit status 66 is a sanitizer's."""
    command = [str(folder / "streams"), str(folder / "liblab.so"), str(seed), str(rounds)]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | OPTIONS)


def edit(path: Path, pattern: str, replacement: str) -> None:
    """Change the one place of a file where the pattern is."""
    text, count = re.subn(pattern, replacement, path.read_text(), flags=re.DOTALL)
    assert count == 1, f"{path.name} has {count} places to plant a bug in by {pattern!r}, expected 1: mend the pattern"
    path.write_text(text)


def read_past_the_end(host: Path) -> None:
    """A chunk that grows copies more than it held."""
    edit(host / "chunk.c", r"\(size_t\)was->length\)", "(size_t)was->length + 4096)")


def unlocked_counters(host: Path) -> None:
    """The counters of rows that waited are changed beside those of the lane that drains."""
    edit(
        host / "flow.c",
        r"(void fh_flow_settled\([^{]*\{)\s*fh_mutex_lock[^\n]*\n(.*?)\s*fh_mutex_unlock[^\n]*\n\}",
        r"\1\n\2\n}",
    )


def unlocked_list(host: Path) -> None:
    """A stream is listed for an event loop beside the thread that takes the list."""
    edit(
        host / "wakes.c", r"(static void list\([^{]*\{.*?)fh_mutex_lock[^\n]*\n(.*?)fh_mutex_unlock[^\n]*\n\}", r"\1\2}"
    )


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("order", ["source", "any"])
@pytest.mark.parametrize(("check", "lanes"), [("asan", 1), ("asan", 3), ("tsan", 3)])
def test_generated_flows_run_clean(built: Built, tmp_path: Path, check: str, lanes: int, order: str) -> None:
    """Lanes, retries, replaced instances, checkpoints, stops, logs and wakes from plugins' threads: no memory fault, no
    undefined behaviour, no race, no leak; and the counters agree with the output."""
    done = flows(built(check), tmp_path, 1, lanes, order, ROUNDS)
    assert done.returncode == 0, done.stderr[:4000]


@pytest.mark.parametrize(
    ("check", "plant", "said"),
    [
        ("asan", read_past_the_end, "heap-buffer-overflow"),
        ("tsan", unlocked_counters, "data race"),
    ],
)
def test_a_planted_bug_is_found(built: Built, tmp_path: Path, check: str, plant: Plant, said: str) -> None:
    """The same run over host's C with a bug in it fails, and says what it is."""
    for seed in range(1, 20):
        done = flows(built(check, plant), tmp_path, seed, 3, "any", 60)
        if done.returncode:
            break
    assert done.returncode == 66, done.stderr[:4000]
    assert said in done.stderr


# ---- the SDK's pusher ----------------------------------------------------------------------------


def pusher(folder: Path, check: str, rounds: int, plant: Plant | None = None) -> subprocess.CompletedProcess[str]:
    """Run tests/native/pusher.c over ferrule_pusher.h, or over a copy that `plant` has changed."""
    if not can_compile("gcc", CHECKS[check], folder):
        pytest.skip(f"gcc, or its {check}, is not here")
    for path in (HERE / "pusher.c", ROOT / "native_sdk" / "c" / "ferrule_pusher.h"):
        shutil.copy(path, folder)
    if plant is not None:
        plant(folder)
    cc("gcc", CHECKS[check], folder, str(folder / "pusher.c"), "-o", str(folder / "pusher"), "-lpthread")
    command = [str(folder / "pusher"), "rounds", "1", str(rounds)]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | OPTIONS)


def feed_without_the_lock(sdk: Path) -> None:
    """feed appends beside the work, which changes the halves."""
    edit(
        sdk / "ferrule_pusher.h",
        r"(ferrule__pusher_feed\([^{]*\{.*?)ferrule__lock\([^\n]*(.*?)ferrule__unlock\([^\n]*",
        r"\1\2",
    )


def state_of_a_closed_pusher(sdk: Path) -> None:
    """close frees it, though its work goes on. (Were it the work that frees it, ASan could take what it writes into
    freed memory for the address of the stream's functions, and end without a word of that.)"""
    edit(
        sdk / "ferrule_pusher.h",
        r"(void ferrule__pusher_close\([^}]*)(ferrule__pusher_let_go)",
        r"\1((ferrule_pusher *)(void *)stream)->holders = 1;\n    \2",
    )


def forgotten_wake(sdk: Path) -> None:
    """The work takes what was fed, and does not say that there is room."""
    edit(sdk / "ferrule_pusher.h", r"(ferrule__pusher_unlock\(pusher, 0), status == FERRULE_OK", r"\1, 0")


@pytest.mark.parametrize("check", ["asan", "tsan"])
def test_pushers_run_clean(tmp_path: Path, check: str) -> None:
    """Push, pull, next, feed, cancel and close on threads of their own, beside works that fail and works that ignore
    cancel: no race, no leak, no lost wake; every item comes in order, the bound holds, each stream ends once."""
    done = pusher(tmp_path, check, 20 * ROUNDS)
    assert done.returncode == 0, done.stderr[:4000]
    print(done.stdout, end="")


@pytest.mark.parametrize(
    ("check", "plant", "status", "said"),
    [
        ("tsan", feed_without_the_lock, 66, "data race"),
        ("asan", state_of_a_closed_pusher, 66, "heap-use-after-free"),
        ("asan", forgotten_wake, 1, "a wake was lost"),
    ],
)
def test_a_bug_planted_in_the_pusher_is_found(tmp_path: Path, check: str, plant: Plant, status: int, said: str) -> None:
    """The same run over a header with a bug in it fails, and says what it is."""
    done = pusher(tmp_path, check, 1000, plant)
    assert done.returncode == status, done.stderr[:4000]
    assert said in done.stderr


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("check", ["asan", "tsan"])
def test_both_sides_of_a_stream_run_clean(built: Built, check: str) -> None:
    """Next, feed, wakes, a loop, cancel and close at once: no memory fault, no race, no leak; in order and whole."""
    done = streams(built(check, None, "streams"), 1, 10 * ROUNDS)
    assert done.returncode == 0, done.stderr[:4000]


def test_a_planted_race_of_a_stream_is_found(built: Built) -> None:
    """The same run over host's C that forgets a lock fails, and says what it is."""
    done = streams(built("tsan", unlocked_list, "streams"), 1, 600)
    assert done.returncode == 66, done.stderr[:4000]
    assert "data race" in done.stderr


# ---- the fuzzer ----------------------------------------------------------------------------------


def fuzz(folder: Path, seconds: int, host: Path = HOST) -> subprocess.CompletedProcess[str]:
    """Fuzz tests/native/fuzz.c over the kept seeds: by libFuzzer where clang has it, else by its own mutator."""
    sources = [str(HERE / "fuzz.c"), *(str(path) for path in sorted(host.glob("*.c")))]
    output = ["-o", str(folder / "fuzz"), "-ldl", "-lpthread"]
    corpus = HERE / "corpus"
    if can_compile("clang", "fuzzer,address,undefined", folder):
        print("libFuzzer: ", end="")
        cc("clang", "fuzzer,address,undefined", host, *sources, *output)
        (folder / "found").mkdir()
        arguments = [
            f"-max_total_time={seconds}",
            "-max_len=4096",
            "-print_final_stats=1",
            f"-artifact_prefix={folder}/",
        ]
        command = [str(folder / "fuzz"), *arguments, str(folder / "found"), str(corpus)]
    elif can_compile("gcc", "address,undefined", folder):
        print("clang with libFuzzer is not here, so gcc and a plain mutator: ", end="")
        cc("gcc", "address,undefined", host, "-DFUZZ_MAIN", *sources, *output)
        command = [str(folder / "fuzz"), str(seconds), "1", str(corpus)]
    else:
        pytest.skip("neither clang with libFuzzer nor gcc with AddressSanitizer is here")
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | OPTIONS)
    runs = re.search(r"^(?:stat::number_of_executed_units: +|Done )(\d+)", done.stderr, re.MULTILINE)
    print(f"{runs[1] if runs else '?'} inputs")
    return done


@pytest.mark.timeout(FUZZ_SECONDS + 300)
def test_the_fuzzer_finds_nothing(tmp_path: Path) -> None:
    """Whatever a plugin writes, answers or breaks, the host reads nothing outside, what reaches the sink are lines as
    the ABI promises them, and every record is counted once."""
    done = fuzz(tmp_path, FUZZ_SECONDS)
    assert done.returncode == 0, f"inputs are in {tmp_path}\n{done.stderr[-6000:]}"


def test_the_fuzzer_finds_a_planted_bug(tmp_path: Path) -> None:
    """A guard that forgets the capacity lets a plugin's length past it, and the fuzzer sees that within seconds."""
    host = tmp_path / "host"
    copy_host(host)
    edit(host / "internal.h", r" && buffer->lent\.len <= buffer->capacity &&", " &&")
    done = fuzz(tmp_path, 20, host)
    assert done.returncode != 0
    assert "AddressSanitizer" in done.stderr or "runtime error" in done.stderr or "not so" in done.stderr
