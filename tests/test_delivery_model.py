"""Delivery against a model: runs that end, stop, fail or crash anywhere, one after the other, bring every record to
exactly one end."""

from __future__ import annotations

import itertools
import json
import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

import ferrule
from ferrule.flow import checkpoint, engine

EXAMPLES = 1500 if os.environ.get("FERRULE_PROVE") else 80

RETRIES = 2
ACTS = (
    "ok",
    "ok",
    "ok",
    "skip",
    "invalid",
    "panic",
    "internal",
    "utf8",
    "newline",
    "flaky",
    "never",
    "later",
    "!",
    "unkept",
)
DEAD = {"invalid", "panic", "internal", "utf8", "newline", "never"}
PLAIN = ("ok", "ok", "skip", "invalid", "panic", "flaky", "never", "later", "!")
"""What a record may do before it is split: it is whole when it comes to that."""
PARTS = tuple(act for act in ACTS if act != "!")

_base = itertools.count(500_000, 200)
"""The flaky plugin counts attempts a record, in all flows of the process: each example has numbers of its own."""


class Crash(Exception):
    """The process is gone: nothing after it was done."""


@dataclass(frozen=True)
class Run:
    """One run of the flow, and how it is cut short.

    Attributes:
        lanes: How many.
        order: The flow's.
        fill: Bytes of a chunk.
        every: Seconds between checkpoints; a negative one is due at every chunk.
        fails: Steps, by number, "source" and "sink": where a record that fails ends the run; the next run may think
            otherwise.
        cut: What ends it early, and when: records, progress reports or checkpoints.
    """

    lanes: int
    order: str
    fill: int
    every: float
    fails: frozenset[int | str]
    cut: tuple[str, int]


def end(act: str, policies: dict[str, str]) -> str:
    """Where a record with this act is to end, once a step has looked at it."""
    if act == "!":
        return policies["source"]
    if act in DEAD:
        return policies["act"]
    if act == "unkept":
        return policies["sink"]
    return "skip" if act == "skip" else "out"


def model(
    acts: list[str], parts: list[list[str]] | None, steps: list[str], policies: dict[str, str]
) -> dict[tuple[int, int], str]:
    """Where each record, from 1, and each of its parts, from 0, is to end (-1: the record was not split): a few lines
    of Python that know nothing of lanes, chunks and crashes."""
    split = next((at for at, step in enumerate(steps) if step in SPLITS), None)
    ends = {}
    for number, act in enumerate(acts, 1):
        own = act if act == "!" or split is None or "act" in steps[:split] else "ok"
        if parts is None or split is None or end(own, policies) != "out":
            ends[number, -1] = end(own, policies)
            continue
        ends |= {(number, part): end(each, policies) for part, each in enumerate(parts[number - 1])}
    return ends


SPLITS = ("split", "python-split")


def split(record: dict[str, Any]) -> list[dict[str, object]]:
    """A step in Python that does as the plugin `split`."""
    given = enumerate(part.split(":") for part in record["parts"].split(",") if part)
    return [
        {"at": record["at"], "part": at, "n": record["n"] + 40 * (at + 1), "act": act, "times": int(times)}
        for at, (act, times) in given
    ]


class Lines:
    """A source in Python: the lines of a file, and bad items that begin with '!'."""

    def __init__(self, config: dict[str, str]) -> None:
        self._path = config["path"]

    def read_data(self, position: int | None) -> LinesReader:
        return LinesReader(self._path, position or 0)


class LinesReader:
    """Its stream."""

    def __init__(self, path: str, position: int) -> None:
        self._file = Path(path).open("rb")  # noqa: SIM115 - closed with the stream
        self._file.seek(position)

    def __iter__(self) -> LinesReader:
        return self

    def __next__(self) -> bytes | ferrule.InvalidDataError:
        line = self._file.readline()
        if not line:
            raise StopIteration
        return ferrule.InvalidDataError("bad item") if line.startswith(b"!") else line

    def position(self) -> int:
        return self._file.tell()

    def close(self) -> None:
        self._file.close()


def same(record: dict[str, object]) -> dict[str, object]:
    """A step in Python that changes nothing."""
    return record


def text(library: Path, folder: Path, source: str, steps: list[str], policies: dict[str, str], run: Run) -> str:
    """The flow's file."""
    retry = f"retry: {{attempts: {RETRIES}, backoff: {{initial: 0.0005, max: 0.001}}}}"
    listing = ""
    for number, step in enumerate(steps):
        then = f"{{{retry}, then: {'fail' if number in run.fails else policies['act']}}}"
        plugin = {
            "python": f'python: "{__name__}:same"',
            "python-split": f'python: "{__name__}:split"',
        }.get(step, f'plugin: "{library}:{step}", on_error: {then}')
        listing += f"\n  - {{{plugin}}}"
    sink = "fail" if "sink" in run.fails else policies["sink"]
    reads = "fail" if "source" in run.fails else policies["source"]
    begin = f'python: "{__name__}:Lines"' if source == "python" else f'plugin: "{library}:{source}"'
    return f"""
lanes: {run.lanes}
order: {run.order}
source: {{{begin}, config: {{path: "{folder}/in"}}, on_error: {reads}}}
steps:{listing}
sink: {{plugin: "{library}:keep", config: {{path: "{folder}/out"}}, on_error: {sink}}}
delivery: {{dead_letter: "{folder}/dead", checkpoint: "{folder}/checkpoint"}}
"""


def attempt(flow: str, run: Run) -> bool:
    """Run once. Returns whether the source's end was reached."""
    how, when = run.cut
    progresses, saves = itertools.count(1), itertools.count(1)
    save: Any = checkpoint.Checkpoint.save

    def on_progress(_: ferrule.flow.Progress) -> None:
        if how in ("stop", "crash") and next(progresses) == when:
            raise KeyboardInterrupt if how == "stop" else Crash

    def save_or_crash(self: checkpoint.Checkpoint, path: Path, *, durable: bool) -> None:
        number = next(saves)
        if how == "crash-before-save" and number == when:
            raise Crash
        save(self, path, durable=durable)
        if how == "crash-after-save" and number == when:
            raise Crash

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine, "FILL_BYTES", run.fill)
        patch.setattr(engine, "CHECKPOINT_SECONDS", run.every)
        patch.setattr(engine, "PROGRESS_SECONDS", 0.001)
        patch.setattr(checkpoint.Checkpoint, "save", save_or_crash)
        limit = when if how == "limit" else None
        try:
            ferrule.Flow.loads(flow).run(limit=limit, on_progress=on_progress)
        except (Crash, KeyboardInterrupt):
            return False
        except ferrule.PluginError:
            assert run.fails
            return False
    return limit is None


def read_back(folder: Path) -> tuple[Counter[tuple[int, int]], list[int], list[tuple[int, int]]]:
    """How often each record or part is in the output, the dead letters' numbers, and the output's order."""
    written = [json.loads(line) for line in (folder / "out").read_bytes().splitlines()]
    out = [(record["at"], record.get("part", -1)) for record in written]
    letters = [json.loads(line) for line in (folder / "dead").read_bytes().splitlines()]
    for letter in letters:
        assert "record" not in letter or letter["record"]["at"] == letter["number"]
    return Counter(out), [letter["number"] for letter in letters], out


def told(act: str) -> tuple[str, int]:
    """An act as the plugin knows it, and how often it fails."""
    return "flaky" if act == "never" else act, {"flaky": RETRIES, "later": 1, "never": 1_000_000}.get(act, 1)


def write_source(path: Path, acts: list[str], parts: list[list[str]] | None = None) -> None:
    """A line a record: its number in the flow, and one that no other example has."""
    base = next(_base)
    lines = []
    for at, act in enumerate(acts, 1):
        record: dict[str, Any] = {"at": at, "n": base + at}
        record["act"], record["times"] = told(act)
        if parts is not None:
            record["parts"] = ",".join(f"{name}:{times}" for name, times in map(told, parts[at - 1]))
        lines.append("!" if act == "!" else json.dumps(record, separators=(",", ":")))
    path.write_text("".join(line + "\n" for line in lines))


def empty(folder: Path) -> None:
    """Away with what another example left."""
    for name in ("out", "dead", "checkpoint"):
        (folder / name).unlink(missing_ok=True)


RUNS = st.builds(
    Run,
    lanes=st.integers(1, 3),
    order=st.sampled_from(("source", "any")),
    fill=st.sampled_from((1, 60, 250, 65536)),
    every=st.sampled_from((-0.001, 0.001, 60.0)),
    fails=st.frozensets(st.sampled_from((0, 1, 2, "source", "sink"))),
    cut=st.tuples(
        st.sampled_from(("none", "limit", "stop", "crash", "crash-before-save", "crash-after-save")), st.integers(1, 8)
    ),
)


STEPS = (["act"], ["act", "python"], ["python", "act"], ["act", "act"], ["act", "whole"], ["whole", "act"])
STEPS_THAT_SPLIT = (
    ["split", "act"],
    ["act", "split", "act"],
    ["split", "python", "act"],
    ["python-split", "act"],
    ["split", "act", "whole"],
    ["split", "whole", "act"],
    ["act", "python-split", "act"],
)
EXACT = {"source": "dead_letter", "act": "dead_letter", "sink": "dead_letter"}


@st.composite
def flows(draw: st.DrawFn) -> tuple[list[str], list[str], list[list[str]] | None]:
    """Steps, each record's act, and where the steps split them each record's parts."""
    if draw(st.booleans()):
        return draw(st.sampled_from(STEPS)), draw(st.lists(st.sampled_from(ACTS), max_size=40)), None
    acts = draw(st.lists(st.sampled_from(PLAIN), max_size=12))
    some = st.lists(st.sampled_from(PARTS), min_size=1, max_size=3)
    return draw(st.sampled_from(STEPS_THAT_SPLIT)), acts, draw(st.lists(some, min_size=len(acts), max_size=len(acts)))


@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    flow=flows(),
    source=st.sampled_from(("lines", "packs", "python")),
    policies=st.fixed_dictionaries(
        {name: st.sampled_from(("skip", "dead_letter")) for name in ("source", "act", "sink")}
    ),
    runs=st.lists(RUNS, max_size=5),
    last=RUNS,
)
@example(  # stopped while a record waited for its next attempt, then gone before the last checkpoint
    flow=(["act"], ["invalid", "flaky"], None),
    source="lines",
    policies={"source": "skip", "act": "skip", "sink": "skip"},
    runs=[
        Run(1, "source", 1, -0.001, frozenset((0,)), ("none", 0)),
        Run(2, "source", 1, -0.001, frozenset(), ("crash", 1)),
    ],
    last=Run(1, "source", 1, -0.001, frozenset(), ("none", 0)),
)
@example(  # the source's own bad item ended the run, and it cannot be asked for again
    flow=(["act"], ["ok", "!", "ok"], None),
    source="lines",
    policies=EXACT,
    runs=[Run(1, "source", 65536, 60.0, frozenset(("source",)), ("none", 0))],
    last=Run(1, "source", 65536, 60.0, frozenset(), ("none", 0)),
)
@example(  # the limit was reached in the middle of an item of several lines
    flow=(["act"], ["ok"] * 6, None),
    source="packs",
    policies=EXACT,
    runs=[Run(1, "source", 65536, 60.0, frozenset(), ("limit", 1))],
    last=Run(1, "source", 65536, 60.0, frozenset(), ("none", 0)),
)
@example(  # one part of a record was written, and the one behind it ended the run
    flow=(["split", "act"], ["ok"], [["ok", "invalid", "ok"]]),
    source="lines",
    policies=EXACT,
    runs=[Run(1, "source", 65536, 60.0, frozenset((1,)), ("none", 0))],
    last=Run(1, "source", 65536, 60.0, frozenset(), ("none", 0)),
)
@example(  # a record is split when it is tried again, beside the lanes, and its parts come to different ends
    flow=(["act", "split", "act"], ["flaky"], [["utf8", "newline", "ok"]]),
    source="lines",
    policies=EXACT,
    runs=[Run(1, "any", 65536, 60.0, frozenset((2,)), ("none", 0))],
    last=Run(1, "any", 65536, 60.0, frozenset(), ("none", 0)),
)
def test_every_record_comes_to_one_end(
    act_library: Path,
    tmp_path: Path,
    flow: tuple[list[str], list[str], list[list[str]] | None],
    source: str,
    policies: dict[str, str],
    runs: list[Run],
    last: Run,
) -> None:
    """Whatever cuts the runs short (limits, stops, failures, crashes at a checkpoint or anywhere) and however the next
    ones go on (more lanes, another order, other chunks): written, dead or skipped, once, as the model says. So is each
    record that a step makes of one, and each line of a source that gives several at once."""
    empty(tmp_path)
    steps, acts, parts = flow
    write_source(tmp_path / "in", acts, parts)
    for run in runs:
        attempt(text(act_library, tmp_path, source, steps, policies, run), run)
    whole = Run(last.lanes, last.order, last.fill, last.every, frozenset(), ("none", 0))
    assert attempt(text(act_library, tmp_path, source, steps, policies, whole), whole)

    ends = model(acts, parts, steps, policies)
    out, dead, order = read_back(tmp_path)
    assert out == Counter(each for each, end in ends.items() if end == "out")
    assert Counter(dead) == Counter(number for (number, _), end in ends.items() if end == "dead_letter")
    if all(run.order == "source" for run in [*runs, last]):
        assert order == sorted(order)
        assert dead == sorted(dead)


# ---- what the model has found --------------------------------------------------------------------


def flow_of(library: Path, folder: Path, steps: str, head: str = "") -> ferrule.Flow:
    """A flow with these steps, over the folder's source."""
    return ferrule.Flow.loads(
        f"""
{head}
source: {{plugin: "{library}:lines", config: {{path: "{folder}/in"}}, on_error: dead_letter}}
steps: [{steps}]
sink: {{plugin: "{library}:keep", config: {{path: "{folder}/out"}}}}
delivery: {{dead_letter: "{folder}/dead", checkpoint: "{folder}/checkpoint"}}
"""
    )


def test_what_failed_behind_the_record_that_ends_the_flow_is_not_lost(act_library: Path, tmp_path: Path) -> None:
    """One step had already refused records behind the one that ends the flow in a later step, and the source had a bad
    item; they wait with it, and become dead letters in their order."""
    write_source(tmp_path / "in", ["panic", "invalid", "!", "ok"])
    whole = f'{{plugin: "{act_library}:whole", on_error: dead_letter}}'
    with pytest.raises(ferrule.PluginError) as caught:
        flow_of(act_library, tmp_path, f'{whole}, {{plugin: "{act_library}:act", on_error: fail}}').run()
    assert caught.value.record == 1
    out, dead, _ = read_back(tmp_path)
    assert (out, dead) == (Counter(), [])
    flow_of(act_library, tmp_path, f'{whole}, {{plugin: "{act_library}:act", on_error: dead_letter}}').run()
    out, dead, _ = read_back(tmp_path)
    assert (out, dead) == (Counter([(4, -1)]), [1, 2, 3])


def test_records_that_waited_go_on_waiting_when_one_before_them_fails(
    act_library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A resumed flow begins with the records that wait. When the first of them fails again, others are on their way in
    another lane's chunk already: they are as if never taken, and wait on."""
    write_source(tmp_path / "in", ["later", "ok", "ok", "ok"])
    act = f'plugin: "{act_library}:act"'
    with pytest.raises(ferrule.PluginError):
        flow_of(act_library, tmp_path, f"{{{act}}}").run()
    monkeypatch.setattr(engine, "FILL_BYTES", 1)
    slowly = "{retry: {attempts: 1, backoff: {initial: 0.2}}}"
    write_again(tmp_path, times=1_000_000)
    with pytest.raises(ferrule.PluginError):
        flow_of(act_library, tmp_path, f"{{{act}, on_error: {slowly}}}", "lanes: 2").run()
    write_again(tmp_path, times=0)
    flow_of(act_library, tmp_path, f"{{{act}}}", "lanes: 2").run()
    assert read_back(tmp_path)[2] == [(1, -1), (2, -1), (3, -1), (4, -1)]


def write_again(folder: Path, times: int) -> None:
    """Let the records that wait in the checkpoint fail that often."""
    path = folder / "checkpoint"
    found = json.loads(path.read_bytes())
    for each in found["waiting"]:
        record = json.loads(each["record"]) | {"times": times if each["number"] == 1 else 0}
        each["record"] = json.dumps(record, separators=(",", ":"))
    path.write_text(json.dumps(found))
