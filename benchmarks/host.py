"""Measures ferrule, one thing a process: `python benchmarks/host.py CASE [ARGUMENT]...` prints one number."""

from __future__ import annotations

import ctypes
import json
import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from common import (
    CHUNK,
    CONFIG,
    FLIGHTS,
    LIBRARY,
    LINES,
    RECORD,
    STEPS,
    ask,
    clock,
    once,
    repeated,
    scaled,
    started,
    timed,
)

from ferrule import Host
from ferrule.flow import Flow, Summary


def reference(step: str) -> str:
    library, plugin = STEPS[step]
    return f"{library}:{plugin}"


def chain(count: int, steps: list[str], **more: Any) -> Flow:
    """A flow from the cheap source through functions to the cheap sink."""
    return Flow.loads(
        json.dumps(
            {
                "name": "bench",
                "source": {
                    "plugin": f"{LIBRARY['ends']}:repeat",
                    "config": {"record": RECORD.decode(), "count": count},
                },
                "steps": [{"plugin": reference(step), "config": CONFIG.get(step, {})} for step in steps],
                "sink": {"plugin": f"{LIBRARY['ends']}:discard"},
                **more,
            }
        )
    )


def ran(flow: Flow, count: int) -> Summary:
    summary = flow.run()
    if summary.read != count or summary.written + summary.dead != count:
        raise SystemExit(f"the flow lost records: {summary}")
    return summary


def pump(lanes: str, records: str, *steps: str) -> float:
    """Nanoseconds a record of a flow, without what making its instances costs."""
    more: dict[str, Any] = {} if lanes == "1" else {"lanes": int(lanes)}
    count = scaled(int(records))
    ran(chain(count // 10, list(steps), **more), count // 10)

    def seconds(records: int) -> float:
        flow = chain(records, list(steps), **more)
        began = time.perf_counter() if lanes != "1" else clock()
        ran(flow, records)
        return (time.perf_counter() if lanes != "1" else clock()) - began

    return repeated(lambda: (seconds(count) - min(seconds(1), seconds(1))) / count * 1e9)


def prepared(step: str) -> float:
    """Nanoseconds of a call of `instance.method("process")`, bytes in and out."""
    with Host() as host:
        call = host.create(reference(step), CONFIG.get(step, {})).method("process")
        return _called(lambda: call(RECORD))


def public(step: str) -> float:
    """Nanoseconds of a call of `function.process`, bytes in and out."""
    with Host() as host:
        function = host.function(reference(step), CONFIG.get(step, {}))
        return _called(lambda: function.process(RECORD))


def _called(call: Callable[[], Any]) -> float:
    """Nanoseconds of a call, without what the measurement's own lambda costs."""
    count = scaled(200_000)
    once(call, count // 10)
    return repeated(lambda: once(call, count) - once(lambda: None, count))


def lines() -> float:
    """Nanoseconds a record of a chunk of lines in one call."""
    with Host() as host:
        call = host.create(reference("lines"), {"plugin_name": "benchmark"}).method("process")
        return timed(lambda: call(LINES), scaled(200), CHUNK)


def many(form: str) -> float:
    """Nanoseconds a record of `process_many`, a thousand bytes records at once; answered with a list, or lazily."""
    with Host() as host:
        function = host.function(reference("add"), CONFIG["add"])
        records = [RECORD] * CHUNK
        return timed(lambda: function.process_many(records, lazy=form == "lazy"), scaled(200), CHUNK)


def flights(lanes: str, data: str) -> float:
    """Nanoseconds a row of the flights flow, all of it."""
    with tempfile.TemporaryDirectory() as folder:
        environ = {
            "FLIGHTS_CSV": data,
            "FLIGHTS_AIRLINES": str(FLIGHTS / "airlines.csv"),
            "FLIGHTS_OUT": str(Path(folder, "flights.jsonl")),
        }
        settings: dict[str, Any] = {} if lanes == "1" else {"lanes": int(lanes)}
        runs = []
        for _ in range(3):
            flow = Flow.load(FLIGHTS / "flights.yaml", environ=environ, set=settings or None)
            began = time.perf_counter()
            summary = flow.run()
            runs.append((time.perf_counter() - began) / summary.read * 1e9)
        return min(runs)


def plain_python(data: str) -> float:
    """Nanoseconds a row of the same in plain Python."""
    sys.path.insert(0, str(FLIGHTS))
    import plain_python as plain

    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        read, _ = plain.run(Path(data), FLIGHTS / "airlines.csv", Path(folder, "flights.jsonl"))
        return (time.perf_counter() - began) / read * 1e9


def dead(busy: str) -> float:
    """Nanoseconds a record where one in fifty becomes a dead letter; `busy`: beside a thread that only computes."""
    few, count = scaled(100_000), scaled(5_000_000)
    with tempfile.TemporaryDirectory() as folder:
        policy = {"on_error": "dead_letter", "delivery": {"dead_letter": str(Path(folder, "dead.jsonl"))}}

        def seconds(records: int) -> float:
            return ran(chain(records, ["reject"], **policy), records).seconds

        def once_more() -> float:  # beginning and end, which wait for the GIL some times, are not its rate
            return (seconds(count) - min(seconds(few), seconds(few))) / (count - few) * 1e9

        seconds(few)
        return repeated(lambda: _beside(once_more) if busy == "busy" else once_more())


def beside(*command: str) -> float:
    """What a C loop says, in a process of its own, beside a thread of this one that only computes."""
    with started(command) as loop:
        return repeated(lambda: _beside(lambda: ask(loop)))


def _beside(measure: Callable[[], float]) -> float:
    """Measures something while a thread computes."""
    end = threading.Event()
    thread = threading.Thread(target=_compute, args=(end,), daemon=True)
    thread.start()
    try:
        return measure()
    finally:
        end.set()
        thread.join()


def _compute(end: threading.Event) -> None:
    total = 0
    while not end.is_set():
        for number in range(10_000):
            total += number * number % 7


def allocated() -> float:
    """Bytes that a record takes from malloc in steady state, of the whole process; under count_malloc.c."""
    counted = ctypes.CDLL(None).counted_bytes
    counted.restype = ctypes.c_uint64

    def bytes_of(count: int) -> int:
        before: int = counted()
        ran(chain(count, ["add", "tag"]), count)
        return int(counted()) - before

    few = scaled(200_000)
    bytes_of(few)  # what is made once
    small = bytes_of(few)
    return max(0.0, (bytes_of(3 * few) - small) / (2 * few))


def memory(count: str) -> float:
    """The process's peak resident memory in bytes, after a flow of so many records."""
    records = scaled(int(count))
    ran(chain(records, ["add", "tag"]), records)
    with open("/proc/self/status", encoding="ascii") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM:"))


def show(*steps: str) -> float:
    """Writes what a flow makes of three records to stdout, in place of a figure."""
    with Host() as host:
        for _ in range(3):
            data = RECORD
            for step in steps:
                data = host.create(reference(step), CONFIG.get(step, {})).call("process", data)
            sys.stdout.buffer.write(data + b"\n")
    raise SystemExit


CASES: dict[str, Callable[..., float]] = {
    case.__name__: case
    for case in (pump, prepared, public, lines, many, flights, plain_python, dead, beside, allocated, memory, show)
}

if __name__ == "__main__":
    os.environ.setdefault("FERRULE_PLUGIN_PATH", str(STEPS["add"][0].parent))
    print(CASES[sys.argv[1]](*sys.argv[2:]))
