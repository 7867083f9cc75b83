"""The pump against a model: whatever the records make the plugins do, each ends where the policy says."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import ferrule
from ferrule.flow import engine

GOOD = ("ok", "big")
FAULTS = {
    "invalid": "INVALID_DATA",
    "unavailable": "UNAVAILABLE",
    "panic": "PANIC",
    "internal": "INTERNAL",
    "newline": "INVALID_DATA",
    "utf8": "INVALID_DATA",
    "text": "INVALID_DATA",
}
ACTS = (*GOOD, "skip", *FAULTS, "unkept", "!")
POLICIES = ("fail", "skip", "dead_letter")


@dataclass
class Outcome:
    """What a flow is to leave behind."""

    written: list[int] = field(default_factory=list)
    dead: list[tuple[int, str, str]] = field(default_factory=list)
    skipped: int = 0
    failed: tuple[int, str] | None = None

    def fault(self, policy: str, number: int, step: str, status: str) -> bool:
        """A record failed; whether that ends the flow."""
        if policy == "dead_letter":
            self.dead.append((number, step, status))
        elif policy == "skip":
            self.skipped += 1
        else:
            self.failed = (number, step)
        return policy == "fail"


def model(acts: list[str], policies: dict[str, str], steps: list[str]) -> Outcome:
    """Ten lines of Python that say what the pump does."""
    outcome = Outcome()
    for number, act in enumerate(acts, 1):
        if act == "!":
            if outcome.fault(policies["source"], number, "lines", "INVALID_DATA"):
                break
        elif "act" in steps and act == "skip":
            outcome.skipped += 1
        elif "act" in steps and act in FAULTS:
            if outcome.fault(policies["act"], number, "act", FAULTS[act]):
                break
        elif act == "unkept":
            if outcome.fault(policies["sink"], number, "keep", "INVALID_DATA"):
                break
        else:
            outcome.written.append(number)
    return outcome


def run(
    library: Path,
    folder: Path,
    acts: list[str],
    policies: dict[str, str],
    steps: list[str],
    sink: str,
    lanes: int = 1,
    order: str = "source",
) -> Outcome:
    """The same, by the real engine."""
    source, out, dead = folder / "in", folder / "out", folder / "dead"
    source.write_text("".join("!\n" if act == "!" else f'{{"n":{n},"act":"{act}"}}\n' for n, act in enumerate(acts, 1)))
    kinds = {
        "act": f'{{plugin: "{library}:act", name: act, on_error: {policies["act"]}}}',
        "python": f'{{python: "{__name__}:same", name: py{{}}, on_error: fail}}',
    }
    listing = "\n".join("  - " + kinds[step].replace("py{}", f"py{at}") for at, step in enumerate(steps))
    flow = ferrule.Flow.loads(
        f"""
lanes: {lanes}
order: {order}
source: {{plugin: "{library}:lines", name: lines, config: {{path: "{source}"}}, on_error: {policies["source"]}}}
steps:{" []" if not steps else ""}
{listing}
sink: {{plugin: "{library}:{sink}", name: keep, config: {{path: "{out}"}}, on_error: {policies["sink"]}}}
delivery: {{dead_letter: "{dead}"}}
"""
    )
    outcome = Outcome()
    try:
        summary = flow.run()
    except ferrule.PluginError as error:
        assert error.record is not None and error.step is not None
        outcome.failed = (error.record, error.step)
    else:
        outcome.skipped = summary.skipped
        assert summary.read == len(acts)
        assert summary.read == summary.written + summary.skipped + summary.dead
    outcome.written = [json.loads(line)["n"] for line in out.read_bytes().splitlines()]
    letters = [json.loads(line) for line in dead.read_bytes().splitlines()]
    outcome.dead = [(letter["number"], letter["step"], letter["status"]) for letter in letters]
    for letter in letters:
        if "record" in letter:
            assert letter["record"]["n"] == letter["number"]
    return outcome


def same(record: dict[str, object]) -> dict[str, object]:
    """A step in Python that changes nothing."""
    return record


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    acts=st.lists(st.sampled_from(ACTS), max_size=60),
    policies=st.fixed_dictionaries({name: st.sampled_from(POLICIES) for name in ("source", "act", "sink")}),
    steps=st.sampled_from((["act"], ["python", "act"], ["act", "python"], ["python", "act", "python"], ["act", "act"])),
    sink=st.sampled_from(("keep", "keep-one")),
    lanes=st.integers(1, 3),
    fill=st.sampled_from((1, 50, 200, 65536)),
)
def test_every_record_ends_where_the_policy_says(
    act_library: Path,
    tmp_path: Path,
    acts: list[str],
    policies: dict[str, str],
    steps: list[str],
    sink: str,
    lanes: int,
    fill: int,
) -> None:
    """Written, skipped, dead or fatal: the pump and ten lines of Python agree on every record, in order."""
    if steps == ["act", "act"]:  # the second one has the name act-2 and sees only what the first one left
        steps = ["act"]
    expected = model(acts, policies, steps)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine, "FILL_BYTES", fill)
        got = run(act_library, tmp_path, acts, policies, steps, sink, lanes)
    assert got.written == expected.written
    assert got.failed == expected.failed
    if expected.failed is None:
        assert (got.dead, got.skipped) == (expected.dead, expected.skipped)
    else:  # rows after the fatal one in the same chunk may be dead letters of an earlier segment
        assert got.dead[: len(expected.dead)] == expected.dead or set(expected.dead) <= set(got.dead)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    acts=st.lists(st.sampled_from(ACTS), max_size=60),
    policies=st.fixed_dictionaries(
        {name: st.sampled_from(("skip", "dead_letter")) for name in ("source", "act", "sink")}
    ),
    steps=st.sampled_from((["act"], ["python", "act"])),
    fill=st.sampled_from((1, 50, 200)),
)
def test_in_any_order_the_same_records_end_the_same_way(
    act_library: Path, tmp_path: Path, acts: list[str], policies: dict[str, str], steps: list[str], fill: int
) -> None:
    """``order: any`` changes the order and nothing else."""
    expected = model(acts, policies, steps)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine, "FILL_BYTES", fill)
        got = run(act_library, tmp_path, acts, policies, steps, "keep", 3, "any")
    assert sorted(got.written) == expected.written
    assert (sorted(got.dead), got.skipped) == (expected.dead, expected.skipped)


@pytest.mark.parametrize("act", sorted(FAULTS))
def test_a_fault_names_step_record_and_status(act_library: Path, tmp_path: Path, act: str) -> None:
    """The error of a failing record says which step and which record, and what came before it is written."""
    policies = dict.fromkeys(("source", "act", "sink"), "fail")
    got = run(act_library, tmp_path, ["ok", "ok", act, "ok"], policies, ["act"], "keep")
    assert got.failed == (3, "act")
    assert got.written == [1, 2]


def test_a_source_that_breaks_ends_the_flow_after_what_it_gave(act_library: Path, tmp_path: Path) -> None:
    """An error of the source as such is the flow's, whatever on_error says; its earlier records are written."""
    (tmp_path / "in").write_text('{"n":1}\n{"n":2}\n?\n')
    flow = ferrule.Flow.loads(
        f"""
source: {{plugin: "{act_library}:lines", config: {{path: "{tmp_path / "in"}"}}, on_error: skip}}
sink: {{plugin: "{act_library}:keep", config: {{path: "{tmp_path / "out"}"}}}}
"""
    )
    with pytest.raises(ferrule.PluginIOError, match="the source broke") as caught:
        flow.run()
    assert caught.value.step == "lines"
    assert (tmp_path / "out").read_text() == '{"n":1}\n{"n":2}\n'


def test_a_full_sink_ends_the_flow_with_the_sink_s_words(act_library: Path, tmp_path: Path) -> None:
    """A write that fails as such is fatal under on_error fail, and names the sink."""
    (tmp_path / "in").write_text('{"n":1}\n{"n":2,"act":"full"}\n')
    flow = ferrule.Flow.loads(
        f"""
source: {{plugin: "{act_library}:lines", config: {{path: "{tmp_path / "in"}"}}}}
sink: {{plugin: "{act_library}:keep", config: {{path: "{tmp_path / "out"}"}}}}
"""
    )
    with pytest.raises(ferrule.PluginIOError, match="told to be full") as caught:
        flow.run()
    assert caught.value.step == "keep"
