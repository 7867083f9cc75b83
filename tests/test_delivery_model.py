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
        fails: Steps, by number, and "sink": where a record that fails ends the run; the next run may think otherwise.
            Not the source: its bad item cannot be asked for again, so a failure at it is its end.
        cut: What ends it early, and when: records, progress reports or checkpoints.
    """

    lanes: int
    order: str
    fill: int
    every: float
    fails: frozenset[int | str]
    cut: tuple[str, int]


def model(acts: list[str], policies: dict[str, str]) -> dict[int, str]:
    """Where each record, from 1, is to end: ten lines of Python that know nothing of lanes, chunks and crashes."""
    ends = {}
    for number, act in enumerate(acts, 1):
        if act == "!":
            ends[number] = policies["source"]
        elif act in DEAD:
            ends[number] = policies["act"]
        elif act == "unkept":
            ends[number] = policies["sink"]
        else:
            ends[number] = "skip" if act == "skip" else "out"
    return ends


def same(record: dict[str, object]) -> dict[str, object]:
    """A step in Python that changes nothing."""
    return record


def text(library: Path, folder: Path, steps: list[str], policies: dict[str, str], run: Run) -> str:
    """The flow's file."""
    retry = f"retry: {{attempts: {RETRIES}, backoff: {{initial: 0.0005, max: 0.001}}}}"
    listing = ""
    for number, step in enumerate(steps):
        then = f"{{{retry}, then: {'fail' if number in run.fails else policies['act']}}}"
        plugin = f'python: "{__name__}:same"' if step == "python" else f'plugin: "{library}:{step}", on_error: {then}'
        listing += f"\n  - {{{plugin}}}"
    sink = "fail" if "sink" in run.fails else policies["sink"]
    return f"""
lanes: {run.lanes}
order: {run.order}
source: {{plugin: "{library}:lines", config: {{path: "{folder}/in"}}, on_error: {policies["source"]}}}
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


def read_back(folder: Path) -> tuple[Counter[int], Counter[int], list[int]]:
    """How often each record is in the output and in the dead letters, and the output's order."""
    out = [json.loads(line)["at"] for line in (folder / "out").read_bytes().splitlines()]
    letters = [json.loads(line) for line in (folder / "dead").read_bytes().splitlines()]
    for letter in letters:
        assert "record" not in letter or letter["record"]["at"] == letter["number"]
    return Counter(out), Counter(letter["number"] for letter in letters), out


def write_source(path: Path, acts: list[str]) -> None:
    """A line a record: its number in the flow, and one that no other example has."""
    base = next(_base)
    lines = []
    for at, act in enumerate(acts, 1):
        record: dict[str, Any] = {"at": at, "n": base + at, "act": "flaky" if act == "never" else act}
        record["times"] = {"flaky": RETRIES, "later": 1, "never": 1_000_000}.get(act, 1)
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
    fails=st.frozensets(st.sampled_from((0, 1, "sink"))),
    cut=st.tuples(
        st.sampled_from(("none", "limit", "stop", "crash", "crash-before-save", "crash-after-save")), st.integers(1, 8)
    ),
)


@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    acts=st.lists(st.sampled_from(ACTS), max_size=40),
    policies=st.fixed_dictionaries(
        {name: st.sampled_from(("skip", "dead_letter")) for name in ("source", "act", "sink")}
    ),
    steps=st.sampled_from(
        (["act"], ["act", "python"], ["python", "act"], ["act", "act"], ["act", "whole"], ["whole", "act"])
    ),
    runs=st.lists(RUNS, max_size=5),
    last=RUNS,
)
@example(  # stopped while a record waited for its next attempt, then gone before the last checkpoint
    acts=["invalid", "flaky"],
    policies={"source": "skip", "act": "skip", "sink": "skip"},
    steps=["act"],
    runs=[
        Run(1, "source", 1, -0.001, frozenset((0,)), ("none", 0)),
        Run(2, "source", 1, -0.001, frozenset(), ("crash", 1)),
    ],
    last=Run(1, "source", 1, -0.001, frozenset(), ("none", 0)),
)
def test_every_record_comes_to_one_end(
    act_library: Path,
    tmp_path: Path,
    acts: list[str],
    policies: dict[str, str],
    steps: list[str],
    runs: list[Run],
    last: Run,
) -> None:
    """Whatever cuts the runs short (limits, stops, failures, crashes at a checkpoint or anywhere) and however the next
    ones go on (more lanes, another order, other chunks): written, dead or skipped, once, as the model says."""
    empty(tmp_path)
    write_source(tmp_path / "in", acts)
    for run in runs:
        attempt(text(act_library, tmp_path, steps, policies, run), run)
    end = Run(last.lanes, last.order, last.fill, last.every, frozenset(), ("none", 0))
    assert attempt(text(act_library, tmp_path, steps, policies, end), end)

    ends = model(acts, policies)
    out, dead, order = read_back(tmp_path)
    assert out == Counter(number for number, end in ends.items() if end == "out")
    assert dead == Counter(number for number, end in ends.items() if end == "dead_letter")
    if all(run.order == "source" for run in [*runs, last]):
        assert order == sorted(order)


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
    """One step had already refused records behind the one that ends the flow in a later step; they wait with it, and
    a bad item of the source, which cannot be asked for again, is a dead letter at once."""
    write_source(tmp_path / "in", ["panic", "invalid", "!", "ok"])
    whole = f'{{plugin: "{act_library}:whole", on_error: dead_letter}}'
    with pytest.raises(ferrule.PluginError) as caught:
        flow_of(act_library, tmp_path, f'{whole}, {{plugin: "{act_library}:act", on_error: fail}}').run()
    assert caught.value.record == 1
    out, dead, _ = read_back(tmp_path)
    assert (out, dead) == (Counter(), Counter([3]))
    flow_of(act_library, tmp_path, f'{whole}, {{plugin: "{act_library}:act", on_error: dead_letter}}').run()
    out, dead, _ = read_back(tmp_path)
    assert (out, dead) == (Counter([4]), Counter([1, 2, 3]))


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
    assert read_back(tmp_path)[2] == [1, 2, 3, 4]


def write_again(folder: Path, times: int) -> None:
    """Let the records that wait in the checkpoint fail that often."""
    path = folder / "checkpoint"
    found = json.loads(path.read_bytes())
    for each in found["waiting"]:
        record = json.loads(each["record"]) | {"times": times if each["number"] == 1 else 0}
        each["record"] = json.dumps(record, separators=(",", ":"))
    path.write_text(json.dumps(found))
