"""``bench``: what a method costs, by every way there is to it, beside a plain C loop that calls the same function."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import repeat
from statistics import median, quantiles
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ferrule.cli.calling import AROUND
from ferrule.cli.options import AsJson, given_bytes, given_object
from ferrule.cli.output import FAILED, Failure, describe, error_json, print_error, print_json, print_table, write

if TYPE_CHECKING:
    from ferrule.native import NativeObject
    from ferrule.plugins.instance import NativeInstance

__all__ = ["bench"]

ROUNDS = 15
"""Every way is measured that often, in turns, so that a busy moment of the machine meets all of them alike."""

BATCH = 1000
"""Records of a `process_many`."""

SINGLE_SHARE = 0.2
"""Of the time, for calls that are timed one by one: the p99 comes from those, the median from whole runs."""


def bench(
    target: Annotated[str, typer.Argument(metavar="LIB[:PLUGIN]|NAME", help="A library file, or a plugin's name.")],
    method: Annotated[str, typer.Argument(help="The method's name.")],
    input_: Annotated[
        str, typer.Option("--input", "-i", metavar="JSON|@FILE|-", help="Every call's input; - is standard input.")
    ] = "{}",
    config: Annotated[str, typer.Option("--config", metavar="JSON|@FILE", help="The plugin's configuration.")] = "{}",
    seconds: Annotated[float, typer.Option("--seconds", min=0.01, help="How long to measure, about.")] = 3.0,
    lanes: Annotated[
        int | None,
        typer.Option("--lanes", min=1, max=256, help="The pump's lanes, beside one; the default: the cores."),
    ] = None,
    kind: Annotated[str | None, typer.Option("--kind", help="Which kind, if several have the name.")] = None,
    language: Annotated[str | None, typer.Option("--language", help="Which language, likewise.")] = None,
    as_json: AsJson = False,
) -> None:
    """Measure a method: from a C loop, through the pump, from Python.

    The C loop calls the plugin's function with nothing around it; what else there is, is ferrule's.
    """
    from ferrule.errors import FerruleError
    from ferrule.plugins.host import Host
    from ferrule.plugins.instance import NativeInstance

    settings = given_object(config, "--config")
    data = given_bytes(input_, "--input")
    try:
        with Host() as host, host.create(target, settings, kind=kind, language=language) as instance:
            if not isinstance(instance, NativeInstance):
                raise Failure(
                    f"{target} is written in Python; bench compares with a C loop, so it takes native plugins."
                )

            def another() -> NativeObject:
                made = host.create(target, settings, kind=kind, language=language)
                assert isinstance(made, NativeInstance)
                return made.target

            result = _bench(instance, method, data, seconds, lanes, another)
    except FerruleError as error:
        if not as_json:
            raise
        for message in describe(error):
            print_error(message)
        print_json({"error": error_json(error)})
        raise typer.Exit(FAILED) from None
    if as_json:
        print_json(result)
    else:
        _show(result)


@dataclass
class _Way:
    """One way to the method.

    Attributes:
        name: For the table.
        run: Makes so many calls and returns the nanoseconds that they took.
        singles: Makes so many calls and returns the nanoseconds of each, without the clock's own; None where they
            cannot be seen one by one.
        at_once: Calls at least, where beginning costs something.
        runs: Nanoseconds a call, one entry a round.
    """

    name: str
    run: Callable[[int], float]
    singles: Callable[[int], list[float]] | None = None
    at_once: int = 1
    runs: list[float] = field(default_factory=list)


def _bench(
    instance: NativeInstance,
    method: str,
    data: bytes,
    seconds: float,
    lanes: int | None,
    another: Callable[[], NativeObject],
) -> dict[str, Any]:
    entry = instance.plugin.method(method)  # or NotFoundError, with the nearest
    if entry.mode == "stream":
        raise Failure(
            f"{method} answers with a stream; bench measures methods that answer once. "
            "For a source, run a flow of it: its summary has the rate."
        )
    before, after = AROUND.get((instance.plugin.kind, method), ("", ()))
    if before and instance.plugin.has(before):
        instance.call(before)
    if entry.input == "application/x-ndjson" and not data.endswith(b"\n"):
        data += b"\n"  # such a method takes whole lines
    answer = instance.call(method, data)
    from ferrule.flow.engine import cores

    ways = _ways(instance, method, data, cores() if lanes is None else lanes, another)
    _measure(ways, seconds)
    for name in after:
        if instance.plugin.has(name):
            instance.call(name)
    base = ways[0].runs
    for_singles = seconds * SINGLE_SHARE / sum(way.singles is not None for way in ways)
    return {
        "plugin": instance.plugin.name,
        "kind": instance.plugin.kind,
        "language": instance.plugin.language,
        "method": method,
        "input_bytes": len(data),
        "output_bytes": len(answer) if isinstance(answer, bytes) else None,
        "ways": [
            {
                "way": way.name,
                "median_ns": round(median(way.runs), 1),
                "p99_ns": None if way.singles is None else _p99(way.singles, for_singles, median(way.runs)),
                "calls_per_second": round(1e9 / max(median(way.runs), 1e-3)),
                "ratio": round(median(way / loop for way, loop in zip(way.runs, base, strict=True)), 3),
            }
            for way in ways
        ],
    }


def _ways(
    instance: NativeInstance, method: str, data: bytes, lanes: int, another: Callable[[], NativeObject]
) -> list[_Way]:
    """The C loop first; the pump where a flow would call the method, a record a call."""
    import orjson

    from ferrule.native import timed_calls

    entry = instance.plugin.method(method)
    target = instance.target

    def loop(calls: int) -> float:
        return timed_calls(target, method, data, calls=calls, samples=1)[0]

    def loop_singles(calls: int) -> list[float]:
        clock = median(timed_calls(target, method, data, calls=0, samples=1000))
        return [max(each - clock, 0) for each in timed_calls(target, method, data, calls=1, samples=calls)]

    ways = [_Way("C loop", loop, loop_singles)]
    prepared = instance.method(method)
    if instance.plugin.kind == "function" and method == "process" and entry.input == entry.output == "application/json":
        records = max(1, min(1024, 64 * 1024 // max(1, len(data))))
        ways.append(
            _Way(f"pump, {records:,} records a chunk", lambda calls: _pump([target], data, calls), None, records)
        )
        if lanes > 1:
            targets = [target, *(another() for _ in range(lanes - 1))]
            ways.append(
                _Way(f"pump, {lanes} lanes", lambda calls: _pump(targets, data, calls), None, 4 * lanes * records)
            )
        ways.append(
            _Way(f"process_many, {BATCH:,} at once", lambda calls: _batches(instance, data, calls), None, BATCH)
        )
    ways.append(_python("call, prepared, bytes", prepared, data))
    ways.append(_python("call, by name, bytes", lambda value: instance.call(method, value), data))
    if entry.input == "application/json":
        try:
            value = orjson.loads(data)
        except orjson.JSONDecodeError:
            return ways  # it is measured as it is
        if isinstance(value, dict):
            ways.append(_python("call, prepared, dict", prepared, value))
    return ways


def _pump(targets: list[NativeObject], record: bytes, count: int) -> float:
    """Nanoseconds of a flow: the record so many times, through the function, to nowhere; a lane an instance."""
    from ferrule.native import POLICY, NativeFlow, NativeLane, cheap_end

    source, sink = cheap_end(record, count), cheap_end()
    stream = source.open("read_data", b"")
    try:
        flow = NativeFlow(1)
        flow.source(stream, many=False, on_error=POLICY["fail"])
        flow.step(0, on_error=POLICY["skip"])  # the call before has shown that it works
        flow.sink(sink, "write", lines=True, on_error=POLICY["fail"])
        lanes = [NativeLane(flow) for _ in targets]
        for lane, target in zip(lanes, targets, strict=True):
            lane.step(0, target, "process")
        others = [threading.Thread(target=lane.run) for lane in lanes[1:]]
        began = time.perf_counter_ns()
        for thread in others:
            thread.start()
        lanes[0].run()
        for thread in others:
            thread.join()
        return time.perf_counter_ns() - began
    finally:
        stream.close()
        source.close()
        sink.close()


def _batches(instance: NativeInstance, record: bytes, count: int) -> float:
    """Nanoseconds of so many records, a batch of them a crossing, as lists of bytes."""
    from ferrule.plugins.kinds import Function

    function, records = Function(instance), [record] * BATCH
    batches = max(1, count // BATCH)
    began = time.perf_counter_ns()
    for _ in range(batches):
        function.process_many(records)
    return (time.perf_counter_ns() - began) * count / (batches * BATCH)


def _python(name: str, call: Callable[[Any], Any], value: Any) -> _Way:
    def run(calls: int) -> float:
        began = time.perf_counter_ns()
        for _ in repeat(None, calls):
            call(value)
        return time.perf_counter_ns() - began

    def singles(calls: int) -> list[float]:
        clock = time.perf_counter_ns
        empty = median(-(clock() - clock()) for _ in range(1000))
        times = []
        for _ in repeat(None, calls):
            began = clock()
            call(value)
            times.append(clock() - began - empty)
        return times

    return _Way(name, run, singles)


def _measure(ways: list[_Way], seconds: float) -> None:
    """Fill in the ways' runs: all of them in turns, about as long as was asked for."""
    share = seconds * 1e9 * (1 - SINGLE_SHARE) / len(ways) / (ROUNDS + 1)
    calls = [_calls_within(way, share) for way in ways]  # it warms up, too
    long = sum(way.run(way.at_once) > 2 * share for way in ways)
    for _ in range(3 if long else ROUNDS):
        for way, count in zip(ways, calls, strict=True):
            way.runs.append(way.run(count) / count)


def _calls_within(way: _Way, nanoseconds: float) -> int:
    """How many calls take about that long."""
    calls = way.at_once
    while (took := way.run(calls)) < nanoseconds / 2:
        calls = max(calls + 1, min(10 * calls, int(calls * nanoseconds / max(took, 1.0))))
    return calls


def _p99(singles: Callable[[int], list[float]], seconds: float, once: float) -> float | None:
    """Of calls that are timed one by one; None where there is no time for a hundred."""
    count = min(20_000, int(seconds * 1e9 / max(once, 50)))
    return round(quantiles(singles(count), n=100)[98], 1) if count >= 100 else None


def _show(result: dict[str, Any]) -> None:
    made = result["output_bytes"]
    write(
        f"{result['plugin']} ({result['kind']}, {result['language']}): {result['method']}, "
        f"{result['input_bytes']:,} bytes in, {'skipped' if made is None else f'{made:,} bytes out'}\n"
    )
    rows = []
    for way in result["ways"]:
        p99 = "" if way["p99_ns"] is None else f"{way['p99_ns']:,.0f}"
        rows.append(
            (way["way"], f"{way['median_ns']:,.0f}", p99, f"{way['calls_per_second']:,}", f"{way['ratio']:.2f}")
        )
    print_table(("way", "median ns", "p99 ns", "a second", "× C loop"), rows, right=(1, 2, 3, 4))
