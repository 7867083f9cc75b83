"""Tests that stand in a flow's own file: the flow's real steps and policies, between a source and a sink in memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import ferrule
from ferrule.flow import TrialResult

Record = dict[str, Any]


class Tally:
    """A step that adds what it has seen, and refuses what has no number."""

    def __init__(self) -> None:
        self.seen = 0

    def process(self, record: Record) -> Record | list[Record] | None:
        if record.get("act") == "skip":
            return None
        if record.get("act") == "twice":
            return [{"n": record["n"]}] * 2
        self.seen += record["n"]
        return {**record, "seen": self.seen, "deep": {"list": [1, {"a": None}]}}


class Explosive:
    """A step whose instances cannot be made."""

    def __init__(self) -> None:
        raise RuntimeError("not today")

    def process(self, record: Record) -> Record:
        return record


def trial(library: Path, test: str, *, policy: str = "fail", step: str = "Tally", head: str = "") -> TrialResult:
    """The result of one test of a flow whose source and sink do not exist as files."""
    flow = ferrule.Flow.loads(
        f"""
{head}
source: {{plugin: "{library}:lines", config: {{path: /nowhere/in}}}}
steps:
  - {{plugin: "{library}:act"}}
  - {{python: "{__name__}:{step}"}}
sink: {{plugin: "{library}:keep", config: {{path: /nowhere/out}}}}
on_error: {policy}
delivery: {{dead_letter: /nowhere/dead, checkpoint: /nowhere/checkpoint}}
tests:
  - {test}
"""
    )
    (result,) = flow.test()
    return result


GIVEN = "given: [{n: 1}, {n: 2}]"
DEEP = "deep: {list: [1, {a: null}]}"


@pytest.mark.parametrize(
    ("policy", "test"),
    [
        ("fail", f"{{name: a, {GIVEN}, expect: [{{n: 1, seen: 1, {DEEP}}}, {{n: 2, seen: 3.0, {DEEP}}}]}}"),
        ("fail", f"{{name: a, {GIVEN}, expect: [{{n: 1}}, {{n: 2}}], ignore: [seen, deep]}}"),
        ("fail", "{name: a, given: [], expect: []}"),
        ("fail", "{name: a, given: [{n: 1, act: skip}], expect: []}"),
        ("fail", "{name: a, given: [{n: 1, act: twice}], expect: [{n: 1}, {n: 1}]}"),
        ("fail", "{name: a, given: [{n: 1}, {act: invalid}], errors: [{record: 2, step: act, status: INVALID_DATA}]}"),
        ("fail", "{name: a, given: [{}], errors: [{step: Tally, message: \"KeyError: 'n'\"}]}"),
        (
            "dead_letter",
            "{name: a, given: [{act: invalid}, {n: 2}, {}], expect: [{n: 2, seen: 2}], ignore: [deep], "
            "errors: [{record: 1, step: act, message: refuse}, {record: 3, step: Tally}]}",
        ),
        ("skip", "{name: a, given: [{act: invalid}, {}], expect: []}"),
        (
            "{retry: {attempts: 2, backoff: {initial: 0}}, then: skip}",
            "{name: a, given: [{n: 777001, act: flaky, times: 2}], expect: [{n: 777001, act: flaky, times: 2}], "
            "ignore: [seen, deep]}",
        ),
    ],
)
def test_a_test_that_is_right_passes(act_library: Path, policy: str, test: str) -> None:
    """Records, skips, errors by every policy, retries; nothing of the flow's own files is touched."""
    assert trial(act_library, test, policy=policy).problems == ()


@pytest.mark.parametrize(
    ("test", "problems"),
    [
        ("{name: a, given: [{n: 1}], expect: [{n: 1}]}", ["written record 1: seen is 1, expected none"]),
        (
            f"{{name: a, given: [{{n: 1}}], expect: [{{n: 1, seen: true, {DEEP}}}]}}",
            ["written record 1: seen is 1, expected true"],
        ),
        (
            "{name: a, given: [{n: 1}], expect: [{n: 1, seen: 1, deep: {list: [1, {a: 0}]}}]}",
            ["written record 1: deep.list[1].a is null, expected 0"],
        ),
        (
            "{name: a, given: [{n: 1}], expect: [{n: 1, seen: 1, deep: {list: [1, {a: null}, 2]}}]}",
            ["written record 1: deep.list[2] is missing, expected 2"],
        ),
        (
            "{name: a, given: [{n: 1}], expect: [{n: 1, id: 4}], ignore: [seen, deep]}",
            ["written record 1: id is missing, expected 4"],
        ),
        (
            f"{{name: a, {GIVEN}, expect: [{{n: 1}}], ignore: [seen, deep]}}",
            ['2 records written, expected 1; the first too many is {"n":2,"seen":3,"deep":{"list":[1,{"a":null}]}}'],
        ),
        (
            f"{{name: a, {GIVEN}, expect: [{{n: 1}}, {{n: 2}}, {{n: 3}}], ignore: [seen, deep]}}",
            ['2 records written, expected 3; the first that is missing is {"n":3}'],
        ),
        (
            "{name: a, given: [{n: 1, act: invalid}], expect: [{n: 1}]}",
            ["an error that was not expected: record 1 at step 'act': INVALID_DATA: told to refuse"],
        ),
        (
            "{name: a, given: [{n: 1}], errors: [{record: 1, message: no}]}",
            ["no error, expected one: record 1, message no"],
        ),
        (
            "{name: a, given: [{n: 1, act: invalid}], errors: [{step: Tally, status: IO, message: no}]}",
            [
                "an error's step is act, expected Tally (record 1 at step 'act': INVALID_DATA: told to refuse)",
                "an error's status is INVALID_DATA, expected IO (record 1 at step 'act': INVALID_DATA: told to refuse)",
                "an error's message is 'told to refuse', expected 'no' in it "
                "(record 1 at step 'act': INVALID_DATA: told to refuse)",
            ],
        ),
    ],
)
def test_a_test_that_is_wrong_says_what_differs(act_library: Path, test: str, problems: list[str]) -> None:
    """The first difference of the records by its path, with what it is and what was expected; and every error's."""
    assert list(trial(act_library, test).problems) == problems


def test_a_step_that_cannot_be_made_is_a_problem_of_the_test(act_library: Path) -> None:
    """Not an exception: the other tests are still run."""
    (problem,) = trial(act_library, "{name: a, given: [{n: 1}], expect: []}", step="Explosive").problems
    assert "an error that was not expected: step 'Explosive': PANIC: RuntimeError: not today" in problem


def test_tests_are_told_apart_and_do_not_meet(act_library: Path) -> None:
    """Each has instances of its own, its name and its line; lanes and order are one and the source's."""
    one = "{name: one, given: [{n: 1}], expect: [{n: 1, seen: 1}], ignore: [deep]}"
    text = f"{one}\n  - {one.replace('one', 'two')}\n  - {{name: bad, given: [{{n: 1}}], expect: []}}"
    flow = ferrule.Flow.loads(
        f"""
source: {{plugin: "{act_library}:lines", config: {{path: x}}}}
steps: [{{python: "{__name__}:Tally"}}]
sink: {{plugin: "{act_library}:keep", config: {{path: x}}}}
lanes: 4
order: any
tests:
  - {text}
"""
    )
    assert [(result.name, result.ok, result.line) for result in flow.test()] == [
        ("one", True, 8),
        ("two", True, 9),
        ("bad", False, 10),
    ]


def test_a_flow_without_tests_has_no_results(act_library: Path) -> None:
    """No tests, no results."""
    flow = ferrule.Flow.loads(
        f'source: {{plugin: "{act_library}:lines", config: {{path: x}}}}\n'
        f'sink: {{plugin: "{act_library}:keep", config: {{path: x}}}}\n'
    )
    assert flow.test() == []
