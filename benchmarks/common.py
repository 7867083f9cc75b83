"""What the measuring programs share: the record, where what they need lies, and how a run is timed."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from itertools import repeat
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
BUILT = ROOT / "build" / "bench"
PLUGINS = ROOT / "build" / "plugins"
FLIGHTS = ROOT / "examples" / "flights"

RECORD = (
    b'{"year":2013,"month":1,"dep_time":517,"sched_dep_time":515,"dep_delay":12,"arr_time":830,"carrier":"UA",'
    b'"flight":1545,"tailnum":"N14228","origin":"EWR","dest":"IAH","air_time":227,"distance":1400}'
)
CHUNK = 1000
LINES = (RECORD + b"\n") * CHUNK
NAME = "benchmark"

ITEM = 16
"""Bytes of a stream's small items."""

REPEATS = 5
"""Of a measurement within a process, which prints the least of them, unless it is asked turn by turn; as c_loop.c."""

LIBRARY = {
    "ends": BUILT / "libends.so",
    "functions": BUILT / "libfunctions.so",
    "c": PLUGINS / "libadd_metadata_c.so",
    "rust": PLUGINS / "libadd_metadata.so",
    "identity": PLUGINS / "libidentity_c.so",
}

CONFIG: dict[str, dict[str, Any]] = {"add": {"plugin_name": NAME}, "rust": {"plugin_name": NAME}, "tag": {"name": NAME}}

STEPS: dict[str, tuple[Path, str]] = {
    "add": (LIBRARY["c"], "add-metadata"),
    "rust": (LIBRARY["rust"], "add-metadata"),
    "tag": (LIBRARY["functions"], "tag"),
    "id": (LIBRARY["identity"], "identity"),
    "reject": (LIBRARY["functions"], "reject"),
    "lines": (LIBRARY["functions"], "stamp-lines"),
}
"""Short names of the functions that are measured."""


def clock() -> float:
    """Seconds; the processor's where BENCH_CLOCK says `cpu`, so that other processes do not count. Of one thread."""
    return time.process_time() if os.environ.get("BENCH_CLOCK") == "cpu" else time.perf_counter()


def timed(call: Callable[[], Any], calls: int, records: int = 1) -> float:
    """Nanoseconds a record of a call that takes so many: the least of some runs, after one that warms up."""
    call()
    return repeated(lambda: once(call, calls, records))


def once(call: Callable[[], Any], calls: int, records: int = 1) -> float:
    """Nanoseconds a record of so many calls, measured now."""
    began = clock()
    for _ in repeat(None, calls):
        call()
    return (clock() - began) / calls / records * 1e9


def started(command: Sequence[str], env: dict[str, str] | None = None) -> subprocess.Popen[str]:
    """A process that gives a figure whenever it is asked: see :func:`repeated`, and c_loop.c under BENCH_TURNS."""
    return subprocess.Popen(command, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1)


def ask(process: subprocess.Popen[str]) -> float:
    """Its next figure.

    Raises:
        OSError, ValueError: It has ended, or said something that is no figure.
    """
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write("\n")
    return float(process.stdout.readline())


def repeated(run: Callable[[], float]) -> float:
    """The least of some runs. Under BENCH_TURNS each line of stdin asks for one run, whose figure is printed at once;
    the process is over when nobody asks any more."""
    if os.environ.get("BENCH_TURNS"):
        for _ in sys.stdin:
            print(run(), flush=True)
        raise SystemExit
    return min(run() for _ in range(REPEATS))


def best(run: Callable[[int], float], count: int) -> float:
    """The least of some runs of so many items, after a short one that warms up."""
    run(max(1, count // 10))
    return repeated(lambda: run(count))


def scaled(count: int) -> int:
    """A count of calls or records, less of them for a quick look (BENCH_SCALE)."""
    return max(1, int(count * float(os.environ.get("BENCH_SCALE", "1"))))
