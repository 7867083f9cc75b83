"""The flow engine: Python's part of a flow, limits, progress, Ctrl-C, dead letters, chunk borders, and what it costs.

Sources, steps and sinks in Python are the classes and functions of this module; native ones are tests/plugins/act.c,
tests/plugins/tell.c and plugins of the zoo.
"""

from __future__ import annotations

import base64
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar

import orjson
import pytest
from pydantic import BaseModel

import ferrule
from tests.process import raising, resident
from tests.timely import timely

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = ROOT / "example_plugins"
BUILT = ROOT / "build" / "plugins"
SUFFIX = {"darwin": ".dylib", "win32": ".dll"}.get(sys.platform, ".so")

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the plugins are built with cc")

Compile = Callable[..., Path]
Library = Callable[[str], Path]


@pytest.fixture(scope="session")
def library(compile_c: Compile) -> Library:
    """``library(name)``: an example plugin in C, a plugin of the zoo, or one of tests/plugins."""
    folders = (EXAMPLES / "faulty", ROOT / "tests" / "plugins", *(EXAMPLES / "c").iterdir())

    def library(name: str) -> Path:
        (source,) = [path for folder in folders if (path := folder / f"{name}.c").exists()]
        return compile_c(source.read_text(encoding="utf-8"), name, "-O2", "-pthread", f"-I{EXAMPLES / 'faulty'}")

    return library


# ---- plugins in Python ---------------------------------------------------------------------------


class Plain(BaseModel):
    """A record as a model."""

    n: int


class Rows:
    """A source of what it is told: ``rows`` numbers, or ``items``; a class of its own marks what it is to raise."""

    closed: ClassVar[int] = 0

    def __init__(self, config: dict[str, Any]) -> None:
        self.config = config

    def read_data(self, position: Any) -> Iterator[Any]:
        """A generator of dicts, models, bytes and errors, as the configuration says."""
        for number in range(1, self.config.get("rows", 3) + 1):
            if number == self.config.get("bad"):
                yield ferrule.InvalidDataError("row without a number", details={"record": "??"})
            elif number == self.config.get("raises"):
                raise {"value": ValueError("cannot go on"), "os": OSError("the line is dead")}[self.config["how"]]
            elif number == self.config.get("unfit"):
                yield {"n": object()}
            elif number == self.config.get("split"):
                yield b'{"n":1,\n"m":2}'
            else:
                yield {0: {"n": number}, 1: Plain(n=number), 2: b'{"n":%d}\n' % number}[number % 3]

    def close(self) -> None:
        """Counts."""
        Rows.closed += 1


class Picky:
    """An iterable whose iterator raises for an item, and can go on."""

    def read_data(self) -> Picky:
        """Itself, from the start."""
        self.at = 0
        return self

    def __iter__(self) -> Picky:
        return self

    def __next__(self) -> dict[str, int]:
        self.at += 1
        if self.at > 5:
            raise StopIteration
        if self.at == 3:
            raise ValueError("the third is bad")
        return {"n": self.at}


class Add:
    """A step with a state: counts, and does what the record asks for."""

    def __init__(self, config: dict[str, Any]) -> None:
        self.config = config
        self.count = 0

    def process(self, record: dict[str, Any]) -> Any:
        """The record with its count."""
        self.count += 1
        if record["n"] in self.config.get("bad", ()):
            raise ValueError(f"no {record['n']} please")
        if record["n"] in self.config.get("skip", ()):
            return None
        if record["n"] in self.config.get("answer", ()):
            return str(record["n"])
        time.sleep(self.config.get("sleep", 0))
        return {**record, "count": self.count}


def same(record: dict[str, Any]) -> dict[str, Any]:
    """A step that changes nothing."""
    return record


def boom(record: dict[str, Any]) -> dict[str, Any]:
    """A step with a mistake in it."""
    if record["n"] == 3:
        raise AttributeError("a typo")
    return record


def garble(record: dict[str, Any]) -> bytes:
    """A step that answers with bytes; for the second record they are no UTF-8."""
    return b'{"n":"\xff"}' if record["n"] == 2 else b'{"n":%d}' % record["n"]


def leave(record: dict[str, Any]) -> dict[str, Any]:
    """A step that wants to end the process."""
    sys.exit(7)


class Holds:
    """A step whose first record waits for others."""

    seen: ClassVar[int] = 0
    reached: ClassVar[int] = 0

    def __init__(self, config: dict[str, Any]) -> None:
        self.until, self.still = config["until"], config.get("still", False)

    def process(self, record: dict[str, Any]) -> dict[str, Any]:
        """The record; 1 comes back once `until` was seen, and if `still`, nothing new for half a second."""
        Holds.seen = max(Holds.seen, record["n"])
        if record["n"] == 1:
            end, last = time.monotonic() + 30, 0
            while Holds.seen < self.until and time.monotonic() < end:
                time.sleep(0.001)
            while self.still and Holds.seen != last:
                last = Holds.seen
                time.sleep(0.5)
            Holds.reached = Holds.seen
        return record


class Shared:
    """A step that goes on once two lanes are in it, and with the last record once some are told to be written."""

    threads: ClassVar[set[int]] = set()
    told: ClassVar[threading.Event] = threading.Event()

    def __init__(self, config: dict[str, Any]) -> None:
        self.last = config["last"]

    def process(self, record: dict[str, Any]) -> dict[str, Any]:
        """The record."""
        Shared.threads.add(threading.get_ident())
        end = time.monotonic() + 10
        while len(Shared.threads) < 2 and time.monotonic() < end:
            time.sleep(0.001)
        if record["n"] == self.last:
            Shared.told.wait(10)
        time.sleep(0.02)
        return record


class Padded:
    """A source of 5,000 records of which the second to the ninth have 17 MB."""

    def read_data(self) -> Iterator[bytes]:
        """A generator."""
        for n in range(1, 5_001):
            yield b'{"n":%d,"pad":"%b"}' % (n, b"x" * (17_000_000 if 2 <= n <= 9 else 0))


class Watch:
    """A sink that notes how much memory the process has, in bytes, at some records."""

    resident: ClassVar[dict[int, int]] = {}

    def __init__(self, config: dict[str, Any]) -> None:
        self.at = config["at"]

    def write(self, record: dict[str, Any]) -> None:
        """Notes it."""
        if record["n"] in self.at:
            Watch.resident[record["n"]] = resident()


class Keep:
    """A sink that keeps."""

    kept: ClassVar[list[Any]] = []
    log: ClassVar[list[str]] = []

    def __init__(self, config: dict[str, Any]) -> None:
        self.config = config
        Keep.kept, Keep.log = [], []

    def open(self) -> None:
        """Notes it."""
        Keep.log.append("open")

    def write(self, record: dict[str, Any]) -> None:
        """Keeps it, unless it is told not to."""
        if record["n"] in self.config.get("bad", ()):
            raise ValueError("not this one")
        if record["n"] in self.config.get("full", ()):
            raise OSError(28, "No space left on device")
        time.sleep(self.config.get("sleep", 0))
        Keep.kept.append(record)

    def flush(self) -> None:
        """Notes it."""
        Keep.log.append("flush")
        if self.config.get("stuck"):
            raise OSError("flush is stuck")

    def close(self) -> None:
        """Notes it."""
        Keep.log.append("close")


def kept() -> list[int]:
    return [record["n"] for record in Keep.kept]


# ---- helpers -------------------------------------------------------------------------------------


def here(name: str, config: dict[str, Any] | None = None, on_error: str = "fail", called: str | None = None) -> str:
    """An item of a flow that is a plugin of this module."""
    named = f", name: {called}" if called else ""
    return f'{{python: "{__name__}:{name}", config: {json.dumps(config or {})}, on_error: {on_error}{named}}}'


def native(
    path: Path, plugin: str, config: dict[str, Any] | None = None, on_error: str = "fail", called: str = ""
) -> str:
    """An item of a flow that is a plugin of a library."""
    named = f", name: {called}" if called else ""
    return f'{{plugin: "{path}:{plugin}", config: {json.dumps(config or {})}, on_error: {on_error}{named}}}'


def flow(source: str, steps: list[str], sink: str, dead: Path | None = None, order: str = "source") -> ferrule.Flow:
    """A flow of such items."""
    listed = "".join(f"\n  - {step}" for step in steps) or " []"
    letters = f'\ndelivery: {{dead_letter: "{dead}"}}' if dead else ""
    return ferrule.Flow.loads(f"name: test\norder: {order}\nsource: {source}\nsteps:{listed}\nsink: {sink}{letters}\n")


def read(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def numbers(path: Path) -> list[int]:
    return [record["n"] for record in read(path)]


# ---- sources, steps and sinks in Python ----------------------------------------------------------


@pytest.mark.parametrize("rows", [0, 1, 999, 1000, 1001, 2500])
def test_a_flow_may_be_all_python(rows: int) -> None:
    """Dicts, models and bytes in; classes keep their state, functions are steps; each is opened and closed once."""
    Rows.closed = 0
    summary = flow(here("Rows", {"rows": rows}), [here("Add", {"skip": [2]}), here("same")], here("Keep")).run()
    skipped = int(rows >= 2)
    assert (summary.read, summary.written, summary.skipped, summary.dead) == (rows, rows - skipped, skipped, 0)
    assert kept() == [n for n in range(1, rows + 1) if n != 2]
    assert [record["count"] for record in Keep.kept] == kept()
    assert Keep.log == ["open", "flush", "close"]
    assert Rows.closed == 1
    assert [(step.name, step.plugin, step.calls, step.skipped) for step in summary.steps] == [
        ("Add", "add", rows, skipped),
        ("same", "same", rows - skipped, 0),
    ]
    assert summary.name == "test"
    assert not summary.stopped


@pytest.mark.parametrize("ends", ["source", "step", "sink", "none"])
def test_python_and_native_mix(library: Library, tmp_path: Path, ends: str) -> None:
    """Whichever part is written in Python, the records are the same."""
    rows = 3000
    (tmp_path / "in").write_text("".join(f'{{"n":{n}}}\n' for n in range(1, rows + 1)))
    act = library("act")
    source = here("Rows", {"rows": rows}) if ends == "source" else native(act, "lines", {"path": str(tmp_path / "in")})
    sink = here("Keep") if ends == "sink" else native(act, "keep", {"path": str(tmp_path / "out")})
    steps = [native(act, "act"), here("same") if ends == "step" else native(act, "act", called="again")]
    summary = flow(source, steps, sink).run()
    assert (summary.read, summary.written) == (rows, rows)
    assert (kept() if ends == "sink" else numbers(tmp_path / "out")) == list(range(1, rows + 1))


def test_a_value_error_is_the_record_s(tmp_path: Path) -> None:
    """Under fail the flow ends with the step's words, step and record; what came before is written; the step's own
    exception is the cause. Under dead_letter it is a letter, under skip it is counted."""
    with pytest.raises(ferrule.InvalidDataError, match=r"^no 3 please") as caught:
        flow(here("Rows", {"rows": 5}), [here("Add", {"bad": [3]}, called="adding")], here("Keep")).run()
    assert (caught.value.step, caught.value.record, caught.value.method) == ("adding", 3, "process")
    assert kept() == [1, 2]
    assert Keep.log == ["open", "flush", "close"]
    cause = caught.value.__cause__
    assert cause is not None
    assert isinstance(cause.__cause__, ValueError)

    add = here("Add", {"bad": [3, 5], "answer": [4]}, on_error="dead_letter")
    summary = flow(here("Rows", {"rows": 6}), [add], here("Keep"), tmp_path / "dead").run()
    assert (summary.read, summary.written, summary.dead) == (6, 3, 3)
    assert kept() == [1, 2, 6]
    assert [(each["number"], each["status"], each["record"]["n"]) for each in read(tmp_path / "dead")] == [
        (n, "INVALID_DATA", n) for n in (3, 4, 5)
    ]
    assert "a step answers with a record" in read(tmp_path / "dead")[1]["error"]["message"]
    assert flow(here("Rows", {"rows": 6}), [add.replace("dead_letter", "skip")], here("Keep")).run().skipped == 3


def test_any_other_exception_is_a_panic() -> None:
    """A mistake in a step names its class, and sys.exit is one; neither ends the process; on_error holds for them."""
    with pytest.raises(ferrule.PanicError, match=r"^AttributeError: a typo") as caught:
        flow(here("Rows", {"rows": 5}), [here("boom")], here("Keep")).run()
    assert (caught.value.step, caught.value.record) == ("boom", 3)
    assert kept() == [1, 2]
    assert flow(here("Rows", {"rows": 5}), [here("boom", on_error="skip")], here("Keep")).run().written == 4
    with pytest.raises(ferrule.PanicError, match=r"^SystemExit: 7"):
        flow(here("Rows", {"rows": 5}), [here("leave")], here("Keep")).run()


def test_bytes_of_a_step_are_utf_8(library: Library, tmp_path: Path) -> None:
    """A step in Python may answer with bytes; what is no UTF-8 is its fault, and reaches no sink."""
    sink = native(library("act"), "keep", {"path": str(tmp_path / "out")})
    summary = flow(here("Rows"), [here("garble", on_error="dead_letter")], sink, tmp_path / "dead").run()
    assert (summary.written, summary.dead) == (2, 1)
    assert numbers(tmp_path / "out") == [1, 3]
    assert "a step answers with UTF-8" in read(tmp_path / "dead")[0]["error"]["message"]


def test_a_source_in_python_may_give_a_bad_item(tmp_path: Path) -> None:
    """A generator yields the error of an item; an iterator may raise it; what is no record is that item's fault."""
    for config, message in (
        ({"bad": 3}, "row without a number"),
        ({"unfit": 3}, "cannot be written as JSON"),
        ({"split": 3}, "one line of JSON"),
    ):
        source = here("Rows", {"rows": 5, **config}, on_error="dead_letter", called="from")
        summary = flow(source, [here("same")], here("Keep"), tmp_path / "dead").run()
        assert (summary.read, summary.written, summary.dead) == (5, 4, 1)
        assert kept() == [1, 2, 4, 5]
        (letter,) = read(tmp_path / "dead")
        assert (letter["number"], letter["step"], letter["status"]) == (3, "from", "INVALID_DATA")
        assert message in letter["error"]["message"]
        if "bad" in config:
            assert letter["error"]["details"] == {"record": "??"}
        with pytest.raises(ferrule.InvalidDataError, match=message) as caught:
            flow(source.replace("dead_letter", "fail"), [here("same")], here("Keep")).run()
        assert (caught.value.step, caught.value.record) == ("from", 3)
        assert kept() == [1, 2]
    assert flow(here("Picky", on_error="skip"), [], here("Keep")).run().skipped == 1
    assert kept() == [1, 2, 4, 5]


@pytest.mark.parametrize(("how", "kind"), [("value", ferrule.InvalidDataError), ("os", ferrule.PluginIOError)])
@pytest.mark.parametrize("on_error", ["fail", "skip"])
def test_a_generator_that_raises_is_over(how: str, kind: type[ferrule.PluginError], on_error: str) -> None:
    """There is nothing to go on with, so the flow fails whatever on_error says, after what was given."""
    source = here("Rows", {"rows": 9, "raises": 6, "how": how}, on_error=on_error, called="from")
    with pytest.raises(kind, match=r"cannot go on|the line is dead") as caught:
        flow(source, [here("same")], here("Keep")).run()
    assert (caught.value.step, caught.value.record) == ("from", 6)
    assert kept() == [1, 2, 3, 4, 5]


def test_a_sink_in_python_may_refuse(tmp_path: Path) -> None:
    """A record by on_error; a full disk by on_error too, for each record is a write of its own."""
    keep = here("Keep", {"bad": [2], "full": [4]}, on_error="dead_letter", called="to")
    summary = flow(here("Rows", {"rows": 5}), [], keep, tmp_path / "dead").run()
    assert (summary.written, summary.dead) == (3, 2)
    assert [(each["number"], each["step"], each["status"]) for each in read(tmp_path / "dead")] == [
        (2, "to", "INVALID_DATA"),
        (4, "to", "IO"),
    ]
    with pytest.raises(ferrule.PluginIOError, match="No space left") as caught:
        flow(here("Rows", {"rows": 5}), [], here("Keep", {"full": [4]}, called="to")).run()
    assert (caught.value.step, caught.value.record, caught.value.method) == ("to", 4, "write")
    assert kept() == [1, 2, 3]


def test_a_fault_of_closing_does_not_hide_the_first() -> None:
    """What ended the flow is raised; what closing said then is a note on it. Alone, closing's fault is the flow's."""
    with pytest.raises(ferrule.InvalidDataError, match="no 2 please") as caught:
        flow(here("Rows"), [here("Add", {"bad": [2]})], here("Keep", {"stuck": True})).run()
    assert caught.value.record == 2
    assert any("flush is stuck" in note for note in caught.value.__notes__)
    with pytest.raises(ferrule.PluginIOError, match="flush is stuck") as alone:
        flow(here("Rows"), [], here("Keep", {"stuck": True}, called="to")).run()
    assert alone.value.step == "to"


@pytest.mark.parametrize("first", ["step", "sink", "native step", "native sink"])
def test_a_native_source_s_bad_lines_are_its_own(library: Library, tmp_path: Path, first: str) -> None:
    """A raw newline and bytes that are no UTF-8 are the source's fault, whoever is next, and nothing is shifted by
    them; what is no object is refused by the step that reads it."""
    act, tell = library("act"), library("tell")
    steps = {"step": [here("same", on_error="dead_letter")], "native step": [native(act, "act", None, "dead_letter")]}
    sink = here("Keep") if first in ("step", "sink") else native(act, "keep", {"path": str(tmp_path / "out")})
    source = native(tell, "spoilt", None, "dead_letter", "from")
    if first in ("sink", "native sink"):
        source += "\n"  # the sink is handed a list, which no sink of records takes
        sink = sink.replace("on_error: fail", "on_error: dead_letter")
    summary = flow(source, steps.get(first, []), sink, tmp_path / "dead").run()
    found = [(each["number"], each["step"], each["status"]) for each in read(tmp_path / "dead")]
    assert found[:2] == [(2, "from", "INVALID_DATA"), (3, "from", "INVALID_DATA")]
    written = kept() if first in ("step", "sink") else [r["n"] for r in read(tmp_path / "out") if isinstance(r, dict)]
    assert written == [1, 5]
    assert summary.read == 5 == summary.written + summary.dead
    lines = (tmp_path / "dead").read_bytes().splitlines()
    assert len(lines) == summary.dead
    second, third = json.loads(lines[0]), json.loads(lines[1])
    assert second["record"] == {"n": 2, "m": 2}
    assert base64.b64decode(third["record_base64"]) == b'{"n":"\xff"}'
    if first == "step":
        assert json.loads(lines[2])["error"]["message"] == "Data must be a JSON object"


@pytest.mark.parametrize("seed", range(8))
def test_spoilt_answers_among_many_are_found(library: Library, tmp_path: Path, seed: int) -> None:
    """Newlines and bytes that are no UTF-8 become dead letters wherever they are among records of many lengths, beside
    answers that are not ASCII, or hold control characters; all others are written as they came."""
    dice = random.Random(seed)
    texts = ["x", "é", "\t", "😀"] if seed % 2 else ["x"]
    rows: list[dict[str, Any]] = []
    for n in range(1, 1200):
        what = dice.choice(["newline", "utf8"]) if dice.random() < 0.01 else "ok"
        text = dice.choice(texts) * dice.choice([0, 3, 40, 200, 2000])
        rows.append({"n": n, "act": what, "text": text})
    (tmp_path / "in").write_bytes(b"".join(orjson.dumps(row).replace(b"\\t", b"\t") + b"\n" for row in rows))
    act = library("act")
    source, sink = (
        native(act, plugin, {"path": str(tmp_path / name)}) for plugin, name in (("lines", "in"), ("keep", "out"))
    )
    steps = [native(act, "act", None, "dead_letter"), native(act, "act", None, "dead_letter", "again")]
    flow(source, steps, sink, tmp_path / "dead").run()
    spoilt = [row["n"] for row in rows if row["act"] != "ok"]
    assert [each["number"] for each in read(tmp_path / "dead")] == spoilt
    given = (tmp_path / "in").read_bytes().splitlines()
    assert (tmp_path / "out").read_bytes().splitlines() == [given[row["n"] - 1] for row in rows if row["act"] == "ok"]


SPOILS = r"""
#include "ferrule_sdk.h"
FERRULE_MANIFEST({"name": "spoils", "version": "0.1.0", "plugins": [
    {"name": "spoils", "kind": "function", "language": "c", "methods": [{"name": "process", "mode": "unary"}]}
]});
struct spoils { ferrule_instance base; int64_t seen; int panicked; };
FERRULE_CALL(process) {
    struct spoils *self_ = self;
    int64_t n = ferrule_json_int(in, in_len, "n", 0);
    if (self_->panicked) abort();
    if (n <= self_->seen) {
        self_->panicked = 1;
        return ferrule_fail(error, FERRULE_PANIC, "asked about %lld again", (long long)n);
    }
    self_->seen = n;
    return n % 3 == 0 ? ferrule_append_text(out, "{\"a\":1,\n\"b\":2}") : ferrule_append(out, in, in_len);
}
FERRULE_PLUGINS(FERRULE_PLUGIN("spoils", struct spoils, NULL, NULL, FERRULE_UNARY("process", process)));
"""


def test_a_step_that_breaks_as_it_is_blamed_is_not_called_again(
    library: Library, compile_c: Compile, tmp_path: Path
) -> None:
    """Rows with a newline are asked about again to name the step that spoilt them; one that panics then has answered
    the question, is left alone (it would abort the process), and is made anew for the next chunk."""
    spoils = native(compile_c(SPOILS, "spoils"), "spoils", None, "dead_letter")
    act = library("act")
    source = native(library("tell"), "large", {"bytes": 100, "count": 3000})
    sink = native(act, "keep", {"path": str(tmp_path / "out")})
    identity = native(library("identity"), "identity")
    summary = flow(source, [spoils, identity], sink, tmp_path / "dead").run()
    assert (summary.read, summary.written, summary.dead) == (3000, 2000, 1000)
    assert {(each["step"], each["status"]) for each in read(tmp_path / "dead")} == {("spoils", "INVALID_DATA")}
    assert numbers(tmp_path / "out") == [n for n in range(1, 3001) if n % 3]


# ---- limits --------------------------------------------------------------------------------------


@pytest.mark.parametrize("limit", [1, 2, 999, 1000, 1001, 1023, 1024, 1025, 2048, 3000, 5000])
@pytest.mark.parametrize("kind", ["native", "lines", "python"])
def test_a_limit_is_exact(library: Library, tmp_path: Path, kind: str, limit: int) -> None:
    """So many records are read and no more, also at the borders of chunks and inside an item of several lines."""
    rows = 3000
    (tmp_path / "in").write_text("".join(f'{{"n":{n}}}\n' for n in range(1, rows + 1)))
    source = {
        "native": native(library("act"), "lines", {"path": str(tmp_path / "in")}),
        "lines": native(library("tell"), "several", {"count": rows, "each": 7}),
        "python": here("Rows", {"rows": rows}),
    }[kind]
    sink = native(library("act"), "keep", {"path": str(tmp_path / "out")})
    summary = flow(source, [native(library("act"), "act")], sink).run(limit=limit)
    assert summary.read == summary.written == min(limit, rows)
    assert numbers(tmp_path / "out") == list(range(1, min(limit, rows) + 1))


def test_a_limit_counts_bad_records_too(tmp_path: Path) -> None:
    """It is a limit of what is read, not of what is written."""
    source = here("Rows", {"rows": 9, "bad": 2}, on_error="skip")
    summary = flow(source, [here("Add", {"skip": [3]})], here("Keep")).run(limit=4)
    assert (summary.read, summary.written, summary.skipped) == (4, 2, 2)
    with pytest.raises(ValueError, match="limit must be at least 1"):
        flow(source, [], here("Keep")).run(limit=0)


# ---- progress ------------------------------------------------------------------------------------


@pytest.mark.timed
def test_progress_is_told_as_it_goes() -> None:
    """About ten times a second, in the calling thread, growing; the last one is the end's."""
    seen: list[tuple[ferrule.Progress, int]] = []
    add = here("Add", {"sleep": 0.01})
    summary = flow(here("Rows", {"rows": 60}), [add], here("Keep")).run(
        on_progress=lambda progress: seen.append((progress, threading.get_ident()))
    )
    timely(len(seen) >= 4, len(seen))
    assert {ident for _, ident in seen} == {threading.get_ident()}
    last = seen[-1][0]
    assert (last.read, last.written) == (summary.read, summary.written) == (60, 60)
    assert [each.seconds for each, _ in seen] == sorted(each.seconds for each, _ in seen)
    assert len(seen) <= 12 * last.seconds + 2
    timely(last.rate > 5, last.rate)


@pytest.mark.timed
@pytest.mark.parametrize("written_in", ["python", "c"])
def test_progress_moves_within_a_chunk(library: Library, tmp_path: Path, written_in: str) -> None:
    """While no record of a chunk is drained, what a slow step has been given and how long it takes is told already."""
    (tmp_path / "in").write_text("".join(f'{{"n":{n}}}\n' for n in range(20)))
    act = library("act")
    slow = here("Add", {"sleep": 0.06}) if written_in == "python" else native(library("slow"), "slow", {"ms": 60})
    source, sink = (
        native(act, plugin, {"path": str(tmp_path / name)}) for plugin, name in (("lines", "in"), ("keep", "out"))
    )
    seen: list[ferrule.Progress] = []
    summary = flow(source, [slow], sink).run(on_progress=seen.append)
    under_way = [each.steps[0] for each in seen if each.read == 0]
    timely(len({step.calls for step in under_way}) > 2, under_way)
    for step in (under_way[-1], *summary.steps):
        assert step.mean_ns is not None
        assert step.p99_ns is not None
        assert 0.06e9 <= step.mean_ns <= step.p99_ns
    assert summary.steps[0].calls == 20


def test_slow_steps_get_short_chunks(library: Library, tmp_path: Path) -> None:
    """Few records of a slow step are work for every lane, and the first are written long before the last are read; a
    source in Python and one in C alike."""

    def told(progress: ferrule.Progress) -> None:
        if 0 < progress.written < 80:
            Shared.told.set()

    (tmp_path / "in").write_text("".join(f'{{"n":{n}}}\n' for n in range(80)))
    for source in (here("Rows", {"rows": 80}), native(library("act"), "lines", {"path": str(tmp_path / "in")})):
        Shared.threads.clear()
        Shared.told.clear()
        assert flow(source, [here("Shared", {"last": 79})], here("Keep")).run(lanes=2, on_progress=told).written == 80
        assert len(Shared.threads) == 2
        assert Shared.told.is_set()


@pytest.mark.parametrize("still", [False, True])
def test_in_order_other_lanes_work_on_beside_a_record_that_takes_long(
    library: Library, tmp_path: Path, still: bool
) -> None:
    """Records far behind one that is not through yet are worked on, though not without end: some chunks wait for it,
    and the sink gets all of them in their order."""
    Holds.seen = Holds.reached = 0
    keep = native(library("act"), "keep", {"path": str(tmp_path / "out")})
    holds = here("Holds", {"until": 1_000, "still": still})
    summary = flow(here("Rows", {"rows": 40_000}), [holds], keep).run(lanes=2)
    assert summary.written == 40_000
    assert numbers(tmp_path / "out") == list(range(1, 40_001))
    assert 1_000 <= Holds.reached <= 18 * 1024  # 16 that wait, and one in each lane


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="no /proc/self/statm here")
def test_large_records_that_waited_for_their_turn_are_not_kept() -> None:
    """Records of 17 MB are ready behind one that is not; when small ones have followed, their chunks' memory is the
    system's again."""
    Holds.seen = Holds.reached = 0
    Watch.resident = {}
    summary = flow(here("Padded"), [here("Holds", {"until": 10})], here("Watch", {"at": [1, 5_000]})).run(lanes=2)
    assert summary.written == 5_000
    assert Watch.resident[1] - Watch.resident[5_000] > 7 * 17_000_000


@pytest.mark.timed
def test_a_flow_that_is_stopped_leaves_what_waits_for_its_turn(library: Library, tmp_path: Path) -> None:
    """A slow sink is not given a full shelf of chunks once the flow is stopped: the one under way is the last."""
    act, source, sink = library("act"), tmp_path / "in", tmp_path / "out"
    source.write_bytes(b"".join(b'{"n":%d,"act":"heavy"}\n' % n for n in range(40_000)))
    written: list[int] = []

    def enough(progress: ferrule.Progress) -> None:
        if progress.written:
            written.append(progress.written)
            raise RuntimeError("enough")

    slow = flow(native(act, "lines", {"path": str(source)}), [], native(act, "keep", {"path": str(sink)}))
    with pytest.raises(RuntimeError, match="enough"):
        slow.run(lanes=2, on_progress=enough)
    lines = sink.read_bytes().splitlines()
    assert written[0] <= len(lines)
    timely(len(lines) <= written[0] + 3 * 1024, len(lines))  # of 16 that waited
    assert lines == source.read_bytes().splitlines()[: len(lines)]


@pytest.mark.timed
@pytest.mark.parametrize(("sink", "act", "records"), [("keep", "heavy", 25 * 1024), ("keep-one", "weighty", 400)])
def test_checkpoints_keep_up_with_a_slow_sink(
    library: Library, tmp_path: Path, sink: str, act: str, records: int
) -> None:
    """A sink that takes 0.2 s over a chunk, or 0.02 s over a record, with two lanes in order: about each second there
    is a checkpoint, for chunks do not pile up before the sink, and are short where it takes record after record."""
    checkpoint, lines, out = tmp_path / "checkpoint", tmp_path / "in", tmp_path / "out"
    lines.write_bytes(b"".join(b'{"n":%d,"act":"%b"}\n' % (n, act.encode()) for n in range(records)))
    source, kept = (
        native(library("act"), "lines", {"path": str(lines)}),
        native(library("act"), sink, {"path": str(out)}),
    )
    saved = [time.time()]

    def look(progress: ferrule.Progress) -> None:
        if checkpoint.exists() and checkpoint.stat().st_mtime > saved[-1]:
            saved.append(checkpoint.stat().st_mtime)

    slow = ferrule.Flow.loads(f'source: {source}\nsink: {kept}\nsteps: []\ndelivery: {{checkpoint: "{checkpoint}"}}\n')
    assert slow.run(lanes=2, on_progress=look).written == records
    timely(max(after - before for before, after in pairwise([*saved, time.time()])) < 2.2)


@pytest.mark.timed
def test_a_program_may_stop_a_flow_from_its_progress() -> None:
    """What on_progress raises ends the flow after the record under way, and arrives; all is closed."""

    def enough(progress: ferrule.Progress) -> None:
        raise RuntimeError("enough")

    Rows.closed = 0
    began = time.monotonic()
    with pytest.raises(RuntimeError, match="enough"):
        flow(here("Rows", {"rows": 1000}), [here("Add", {"sleep": 0.02})], here("Keep")).run(on_progress=enough)
    timely(time.monotonic() - began < 5)
    assert Keep.log == ["open", "flush", "close"]
    assert Rows.closed == 1


# ---- Ctrl-C --------------------------------------------------------------------------------------


@pytest.mark.parametrize("handler", [signal.default_int_handler, raising])
def test_ctrl_c_when_all_is_written(handler: Callable[..., None]) -> None:
    """It is heard, and all is closed as ever."""
    heard: list[ferrule.Progress] = []

    def interrupt(progress: ferrule.Progress) -> None:
        if progress.written == 3 and not heard:
            heard.append(progress)
            signal.raise_signal(signal.SIGINT)

    before = signal.signal(signal.SIGINT, handler)
    try:
        with pytest.raises(ferrule.FlowInterrupted) as caught:
            flow(here("Rows", {"rows": 3}), [], here("Keep")).run(on_progress=interrupt)
        assert signal.getsignal(signal.SIGINT) is handler
    finally:
        signal.signal(signal.SIGINT, before)
    assert caught.value.summary.written == 3
    assert Keep.log == ["open", "flush", "close"]


INTERRUPT = """
    import json, sys, time
    import ferrule

    def tell(progress):
        begun = sum(step.calls for step in progress.steps)
        print(json.dumps({"at": time.monotonic(), "begun": begun, "written": progress.written}), flush=True)

    try:
        ferrule.Flow.load(sys.argv[1]).run(on_progress=tell)
    except ferrule.FlowInterrupted as interrupted:
        found = interrupted.summary
        assert found.stopped
        print(json.dumps({"read": found.read, "written": found.written, "skipped": found.skipped, "dead": found.dead}))
        sys.exit(5)
    except KeyboardInterrupt:
        print("twice")
        sys.exit(6)
"""


def interrupted(path: Path, begun: Callable[[Any], bool], *, times: int = 1) -> tuple[int, str, float]:
    """Runs a flow file in a process, and interrupts it once it has begun by its own word; its status, its last line,
    and how long it took to end."""
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(INTERRUPT), str(path)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT / "tests")])},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    told = map(json.loads, process.stdout or ())
    next(each for each in told if begun(each))
    began = time.monotonic()
    process.send_signal(signal.SIGINT)
    for _ in range(times - 1):
        sent = time.monotonic()
        next(each for each in told if each["at"] > sent)  # the one before was heard
        process.send_signal(signal.SIGINT)
    out, error = process.communicate(timeout=30)
    assert error == ""
    return process.returncode, out.splitlines()[-1], time.monotonic() - began


@pytest.mark.timed
@pytest.mark.parametrize(
    ("source", "step"),
    [
        ("endless", None),
        ("endless", "slow"),
        ("endless", "python"),
        ("waits", None),
        ("wakes", None),
        ("python", "slow"),
        ("python", "python"),
    ],
)
@pytest.mark.parametrize("sink", ["native", "python"])
def test_ctrl_c_ends_a_flow_after_the_record_under_way(
    library: Library, tmp_path: Path, source: str, step: str | None, sink: str
) -> None:
    """A busy source, one that waits inside next, one that waits for a wake, slow steps, native or not: within a second
    it is FlowInterrupted with a summary, and the file holds whole lines, every one that was written."""
    sources = {
        "endless": native(library("endless"), "endless"),
        "waits": native(library("next_waits"), "next-waits", {"items": 3}),
        "wakes": native(library("tell"), "ticks", {"count": 0}),
        "python": '{python: "interrupted:Endless"}',
    }
    steps = {
        "slow": native(library("slow"), "slow", {"ms": 50}),
        "python": '{python: "interrupted:slow"}',
    }
    (tmp_path / "interrupted.py").write_text(
        textwrap.dedent("""
        import itertools, json, time

        class Endless:
            def read_data(self):
                for number in itertools.count():
                    yield {"id": number}

        def slow(record):
            time.sleep(0.05)
            return record

        class Keep:
            def __init__(self, config):
                self.file = open(config["path"], "w")
            def write(self, record):
                self.file.write(json.dumps(record) + "\\n")
            def close(self):
                self.file.close()
        """)
    )
    out = {"path": str(tmp_path / "out")}
    keep = (
        native(library("act"), "keep", out)
        if sink == "native"
        else f'{{python: "interrupted:Keep", config: {json.dumps(out)}}}'
    )
    listed = f"[{steps[step]}]" if step else "[]"
    path = tmp_path / "flow.yaml"
    path.write_text(f"source: {sources[source]}\nsteps: {listed}\nsink: {keep}\n")
    begun: dict[str, Callable[[Any], bool]] = {
        "waits": lambda told: told["written"] == 3,
        "wakes": lambda told: True,
        "endless": lambda told: bool(told["written"] or told["begun"]),
    }
    status, last, took = interrupted(path, begun.get(source, begun["endless"]))
    assert status == 5, last
    timely(took < 3)
    found = json.loads(last)
    lines = (tmp_path / "out").read_bytes().split(b"\n")
    assert lines.pop() == b""
    assert len(lines) == found["written"] == found["read"]
    if source in ("waits", "wakes"):
        assert found["written"] == {"waits": 3, "wakes": 0}[source]
    else:
        assert found["written"] > 0
        assert [json.loads(line)["id"] for line in (lines[0], lines[-1])] == [0, len(lines) - 1]


@pytest.mark.timed
def test_a_second_ctrl_c_does_not_wait(library: Library, tmp_path: Path) -> None:
    """A step that sleeps for half a minute, native or in Python, is left behind; the process ends at once."""
    (tmp_path / "idle.py").write_text(
        "import pathlib, time\nclass Idle:\n    def read_data(self):\n"
        "        pathlib.Path(__file__).with_name('idle').touch()\n        time.sleep(30)\n        yield {}\n"
    )
    keep = native(library("act"), "keep", {"path": str(tmp_path / "out")})
    slow = native(library("slow"), "slow", {"ms": 30_000})
    cases: list[tuple[str, str, Callable[[Any], bool]]] = [
        (native(library("endless"), "endless"), f"[{slow}]", lambda told: told["begun"] > 0),
        ('{python: "idle:Idle"}', "[]", lambda told: (tmp_path / "idle").exists()),
    ]
    for source, steps, begun in cases:
        path = tmp_path / "flow.yaml"
        path.write_text(f"source: {source}\nsteps: {steps}\nsink: {keep}\n")
        status, last, took = interrupted(path, begun, times=2)
        assert (status, last) == (6, "twice")
        timely(took < 5)


# ---- dead letters --------------------------------------------------------------------------------


def test_a_dead_letter_says_all(library: Library, tmp_path: Path) -> None:
    """What it was at the source, number, step, status, the plugin's error as it is, the attempt, and when."""
    lines = [
        '{"n":1}',
        '{"n":2,"act":"invalid"}',
        "!",
        '{"n":4}',
        '{"n":5,"act":"unavailable"}',
        '{"n":6,"act":"unkept"}',
    ]
    (tmp_path / "in").write_text("\n".join(lines) + "\n")
    act = library("act")
    began = datetime.now(UTC)
    summary = flow(
        native(act, "lines", {"path": str(tmp_path / "in")}, "dead_letter"),
        [here("Add", {}), native(act, "act", None, "dead_letter", "acting")],
        native(act, "keep", {"path": str(tmp_path / "out")}, "dead_letter"),
        tmp_path / "deep" / "er" / "dead.jsonl",
    ).run()
    ended = datetime.now(UTC)
    assert summary.dead_letter == str(tmp_path / "deep" / "er" / "dead.jsonl")
    assert (summary.read, summary.written, summary.dead) == (6, 2, 4)
    found = read(tmp_path / "deep" / "er" / "dead.jsonl")
    for letter in found:
        when = datetime.fromisoformat(letter["time"])
        assert letter.pop("time").endswith("Z")
        assert began <= when <= ended
    error = {"message": "told to refuse"}
    assert found == [
        {"record": {"n": 2, "act": "invalid"}, "step": "acting", "status": "INVALID_DATA", "error": error, "attempt": 1,
         "number": 2},
        {"step": "lines", "status": "INVALID_DATA", "error": {"message": "bad item", "details": {"record": "!"}},
         "attempt": 1, "number": 3},
        {"record": {"n": 5, "act": "unavailable"}, "step": "acting", "status": "UNAVAILABLE",
         "error": {"message": "told to wait"}, "attempt": 1, "number": 5},
        {"record": {"n": 6, "act": "unkept"}, "step": "keep", "status": "INVALID_DATA",
         "error": {"message": "told not to keep"}, "attempt": 1, "number": 6},
    ]  # fmt: skip


def test_dead_letters_come_in_the_records_order(library: Library, tmp_path: Path) -> None:
    """Python and native steps in turn, over many chunks, more letters than the pump parks: in order, each once."""
    rows = 10_000
    acts = {5: "invalid", 7: "panic", 11: "newline"}
    with (tmp_path / "in").open("w") as file:
        for n in range(1, rows + 1):
            act = next((act for every, act in acts.items() if n % every == 0), "ok")
            file.write(f'{{"n":{n},"act":"{act}"}}\n')
    act_library = library("act")
    bad = list(range(13, rows + 1, 13))
    steps = [
        here("Add", {"bad": bad[::2]}, "dead_letter", "one"),
        native(act_library, "act", None, "dead_letter", "two"),
        here("Add", {"bad": bad[1::2]}, "dead_letter", "three"),
    ]
    summary = flow(
        native(act_library, "lines", {"path": str(tmp_path / "in")}),
        steps,
        native(act_library, "keep", {"path": str(tmp_path / "out")}),
        tmp_path / "dead",
    ).run()
    letters = read(tmp_path / "dead")
    dead = [n for n in range(1, rows + 1) if n % 5 == 0 or n % 7 == 0 or n % 11 == 0 or n % 13 == 0]
    assert [letter["number"] for letter in letters] == dead
    assert [letter["record"]["n"] for letter in letters] == dead
    assert {letter["step"] for letter in letters} == {"one", "two", "three"}
    assert summary.dead == len(dead)
    assert numbers(tmp_path / "out") == sorted(set(range(1, rows + 1)) - set(dead))


def test_an_error_without_text_is_named_in_its_letter(library: Library, tmp_path: Path) -> None:
    """The letter's message is the status's name, as the exception's would be."""
    empty = native(library("error_empty"), "error-empty", None, "dead_letter")
    flow(here("Rows", {"rows": 1}), [empty], here("Keep"), tmp_path / "dead").run()
    assert read(tmp_path / "dead")[0]["error"] == {"message": "UNAVAILABLE"}


def test_a_dead_letter_file_that_cannot_be_written_is_an_error(library: Library, tmp_path: Path) -> None:
    """Before anything runs if it cannot be opened; at the first letters if the disk is full."""
    with pytest.raises(ferrule.PluginIOError, match=r"dead-letter file .* cannot be written"):
        flow(here("Rows"), [], here("Keep"), tmp_path).run()
    if Path("/dev/full").exists():
        add = here("Add", {"bad": [2]}, "dead_letter")
        with pytest.raises(ferrule.PluginIOError, match="dead-letter file /dev/full cannot be written"):
            flow(here("Rows"), [add], here("Keep"), Path("/dev/full")).run()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full here")
def test_lanes_that_wait_for_their_letters_to_be_written_end_when_they_cannot_be(library: Library) -> None:
    """Far more letters than two parks hold, and the disk is full at the first: the flow ends with that, long before its
    source does."""
    source = native(library("tell"), "large", {"bytes": 40, "count": 1_000_000})
    every = native(library("fails_some"), "fails-some", {"every": 1}, "dead_letter")
    running = flow(source, [every], here("Keep"), Path("/dev/full"))
    with pytest.raises(ferrule.PluginIOError, match="dead-letter file /dev/full cannot be written"):
        running.run(lanes=2)


@pytest.mark.parametrize("order", ["source", "any"])
def test_letters_are_all_there_beside_a_thread_that_only_computes(library: Library, tmp_path: Path, order: str) -> None:
    """Nineteen parks of letters, while another thread has the GIL and gives it back when it must: each letter is in the
    file once, in order where there is one."""
    rows = 80_000
    source = native(library("tell"), "large", {"bytes": 40, "count": rows})
    half = native(library("fails_some"), "fails-some", {"every": 2}, "dead_letter")
    sink = native(library("act"), "keep", {"path": str(tmp_path / "out")})
    running = flow(source, [half], sink, tmp_path / "dead", order)
    end = threading.Event()

    def compute() -> None:
        while not end.is_set():
            sum(range(1000))

    thread = threading.Thread(target=compute)
    thread.start()
    try:
        summary = running.run(lanes=2)
    finally:
        end.set()
        thread.join()
    found = [letter["number"] for letter in read(tmp_path / "dead")]
    assert (summary.read, summary.dead) == (rows, len(found))
    assert len(found) > rows / 2 - 2
    assert found == sorted(found) or order == "any"
    assert sorted([*found, *numbers(tmp_path / "out")]) == list(range(1, rows + 1))


# ---- chunks --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "count"),
    [(40, 10_000), (65_535, 5), (65_536, 5), (65_537, 5), (32_768, 9), (131_072, 4), (5_000_000, 3)],
)
@pytest.mark.parametrize("steps", ["none", "native", "native native", "python"])
def test_records_of_every_size_pass(library: Library, tmp_path: Path, size: int, count: int, steps: str) -> None:
    """Around the chunk's 64 KiB, far above it, and far below: every byte arrives, in order."""
    act = library("act")
    kinds = {"native": native(act, "act"), "python": here("same")}
    listed = (
        [kinds[step] if at == 0 else native(act, "act", called="b") for at, step in enumerate(steps.split())]
        if steps != "none"
        else []
    )
    source = native(library("tell"), "large", {"bytes": size, "count": count})
    summary = flow(source, listed, native(act, "keep", {"path": str(tmp_path / "out")})).run()
    assert (summary.read, summary.written) == (count, count)
    text = (tmp_path / "out").read_bytes()
    lines = text.split(b"\n")
    assert lines.pop() == b""
    assert [len(line) for line in lines] == [size] * count
    assert [int(line[5 : line.index(b",")]) for line in lines] == list(range(1, count + 1))
    assert all(line.endswith(b'x"}') for line in lines)


def test_a_large_record_may_be_a_dead_letter(library: Library, tmp_path: Path) -> None:
    """5 MB that fail are parked, written, and the flow goes on."""
    source = native(library("tell"), "large", {"bytes": 5_000_000, "count": 6})
    some = native(library("fails_some"), "fails-some", {"every": 2}, "dead_letter")
    sink = native(library("act"), "keep", {"path": str(tmp_path / "out")})
    summary = flow(source, [some], sink, tmp_path / "dead").run()
    assert (summary.written, summary.dead) == (3, 3)
    letters = read(tmp_path / "dead")
    assert [(letter["number"], len(letter["record"]["pad"])) for letter in letters] == [
        (n, 5_000_000 - len('{"n":1,"pad":""}')) for n in (2, 4, 6)
    ]


@pytest.mark.parametrize("steps", ["native", "python"])
def test_a_record_that_grows_past_its_chunk_does_not_hurt_the_others(
    library: Library, tmp_path: Path, steps: str
) -> None:
    """Every tenth answer is 120 KB: the chunk moves while a step writes into it, and all records are whole."""
    rows = 300
    (tmp_path / "in").write_text(
        "".join(f'{{"n":{n},"act":"{"big" if n % 10 == 0 else "ok"}"}}\n' for n in range(1, rows + 1))
    )
    act = library("act")
    listed = (
        [native(act, "act"), native(act, "act", called="b")]
        if steps == "native"
        else [native(act, "act"), here("same")]
    )
    source = native(act, "lines", {"path": str(tmp_path / "in")})
    summary = flow(source, listed, native(act, "keep", {"path": str(tmp_path / "out")})).run()
    assert summary.written == rows
    assert numbers(tmp_path / "out") == list(range(1, rows + 1))
    assert sum(len(record.get("pad", "")) == 120_000 for record in read(tmp_path / "out")) >= 30


# ---- what it costs -------------------------------------------------------------------------------


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="looks into /proc")
def test_memory_is_flat_over_two_million_records(library: Library, tmp_path: Path) -> None:
    """A native flow with dead letters holds a few chunks, however much goes through it."""

    def run(records: int) -> ferrule.Summary:
        return flow(
            native(library("endless"), "endless"),
            [
                native(library("identity"), "identity"),
                native(library("fails_some"), "fails-some", {"every": 997}, "dead_letter"),
            ],
            native(library("sink_full"), "sink-full", {"records": 10**12}),
            tmp_path / "dead",
        ).run(limit=records)

    run(100_000)
    before = resident()
    summary = run(2_000_000)
    assert (summary.read, summary.dead) == (2_000_000, 2_000_000 // 997)
    assert resident() - before < 20 << 20


COUNT = """
    import collections, json, sys, threading
    import ferrule
    from ferrule.flow.engine import run
    from ferrule.flow.lint import resolve
    from ferrule.plugins.registry import Registry

    flow = resolve(ferrule.Flow.load(sys.argv[1]).spec, Registry())
    run(flow, limit=1)  # libraries are loaded, modules imported
    seen = collections.Counter()
    threading.setprofile(lambda frame, event, argument: seen.update([event]))
    sys.setprofile(lambda frame, event, argument: seen.update([event]))
    summary = run(flow)
    sys.setprofile(None)
    threading.setprofile(None)
    print(json.dumps({"read": summary.read, "written": summary.written, "dead": summary.dead,
                      "calls": seen["call"], "builtin": seen["c_call"]}))
"""


def count(path: Path, **settings: str) -> dict[str, int]:
    """Runs a flow and counts the calls that Python makes meanwhile, in every thread."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(COUNT), str(path)],
        env={**os.environ, "PYTHONPATH": str(ROOT / "src"), **settings},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, int] = json.loads(done.stdout)
    return found


def test_a_native_flow_makes_few_python_calls(library: Library, tmp_path: Path) -> None:
    """27,004 records, 521 of them dead letters: fewer than 2,000 calls, all threads counted, and a handful of builtin
    ones a letter."""
    with (tmp_path / "in").open("w") as file:
        for n in range(1, 27_005):
            act = "invalid" if n % 51 == 0 and n <= 521 * 51 else "ok"
            file.write(f'{{"n":{n},"act":"{act}","carrier":"UA","flight":{n % 1000},"origin":"EWR"}}\n')
    act_library = library("act")
    path = tmp_path / "flow.yaml"
    stamp = native(library("add_metadata"), "add-metadata")
    path.write_text(
        f"source: {native(act_library, 'lines', {'path': str(tmp_path / 'in')})}\n"
        f"steps: [{native(act_library, 'act', None, 'dead_letter')}, {stamp}]\n"
        f"sink: {native(act_library, 'keep', {'path': str(tmp_path / 'out')})}\n"
        f'delivery: {{dead_letter: "{tmp_path / "dead"}"}}\n'
    )
    found = count(path)
    assert (found["read"], found["written"], found["dead"]) == (27_004, 26_483, 521)
    assert found["calls"] < 2000
    assert found["builtin"] < 2000 + 5 * 521


RUST = [
    BUILT / f"lib{name}{SUFFIX}" for name in ("csv_source", "require", "lookup", "redact", "add_metadata", "jsonl_sink")
]


@pytest.mark.skipif(shutil.which("cargo") is None, reason="without cargo there are no Rust plugins")
@pytest.mark.skipif(not all(path.exists() for path in RUST), reason="the Rust plugins are not built: make plugins")
def test_the_flights_make_few_python_calls(tmp_path: Path) -> None:
    """The January flow: 27,004 flights, the 521 cancelled ones as dead letters, fewer than 2,000 calls."""
    found = count(
        ROOT / "examples" / "flights" / "flights-dead-letters.yaml",
        FERRULE_PLUGIN_PATH=str(BUILT),
        FLIGHTS_OUT=str(tmp_path / "out"),
        FLIGHTS_DEAD=str(tmp_path / "dead"),
        FLIGHTS_CSV=str(ROOT / "examples" / "flights" / "flights-2013-01.csv"),
        FLIGHTS_AIRLINES=str(ROOT / "examples" / "flights" / "airlines.csv"),
    )
    assert (found["read"], found["written"], found["dead"]) == (27_004, 26_483, 521)
    assert found["calls"] < 2000
    assert len(read(tmp_path / "dead")) == 521
