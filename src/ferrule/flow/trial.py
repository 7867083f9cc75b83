"""The tests that a flow file holds: its steps and policies, run by the engine, between a source and a sink in memory.

Records keep the source's order and there is one lane, whatever the flow says, so that a test has one outcome. Each test
has instances of its own. The flow's source and sink are looked up and their configurations checked, and that is all:
nothing of theirs is read or written.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import orjson

from ferrule.errors import PluginError
from ferrule.flow.engine import run
from ferrule.flow.lint import ResolvedFlow
from ferrule.flow.memory import sink_into, source_of
from ferrule.flow.spec import ExpectedError, TrialSpec

__all__ = ["TrialResult", "try_flow"]

_MISSING = object()
_MOST_SHOWN = 120


@dataclass(frozen=True, slots=True)
class TrialResult:
    """How one test of a flow went.

    Attributes:
        name: The test's name.
        problems: What was not as it was expected; none if the test passed.
        line: Where the test begins in the flow file; None if the flow is not in a file.
    """

    name: str
    problems: tuple[str, ...]
    line: int | None

    @property
    def ok(self) -> bool:
        """Whether it passed."""
        return not self.problems


@dataclass(frozen=True, slots=True)
class _Error:
    """An error that a test met: a dead letter, or what ended the flow."""

    record: int | None
    step: str | None
    status: str
    message: str

    def __str__(self) -> str:
        where = [] if self.record is None else [f"record {self.record}"]
        where += [] if self.step is None else [f"step {self.step!r}"]
        return f"{' at '.join(where)}: {self.status}: {self.message}" if where else f"{self.status}: {self.message}"


def try_flow(flow: ResolvedFlow) -> list[TrialResult]:
    """Run a flow's tests, in the file's order."""
    return [TrialResult(test.name, tuple(_problems(flow, test)), test.mark.line) for test in flow.spec.tests]


def _problems(flow: ResolvedFlow, test: TrialSpec) -> list[str]:
    written: list[Any] = []
    with tempfile.TemporaryDirectory(prefix="ferrule-test-") as folder:
        letters = Path(folder, "dead.jsonl") if flow.spec.dead_letter is not None else None
        spec = replace(flow.spec, dead_letter=letters, checkpoint=None, durable=False, in_order=True)
        source, sink = source_of(flow.source, test.given), sink_into(flow.sink, written)
        met: list[_Error] = []
        fatal: list[_Error] = []
        try:
            run(replace(flow, spec=spec, source=source, sink=sink), lanes=1)
        except PluginError as error:
            fatal = [_Error(error.record, error.step, error.status_name, error.message)]
        if letters is not None and letters.exists():
            for line in letters.read_bytes().splitlines():
                letter = orjson.loads(line)
                message = str(letter["error"].get("message", ""))
                met.append(_Error(letter["number"], letter["step"], letter["status"], message))
    problems = _compare_errors([*met, *fatal], test.errors)
    if test.expect is not None:
        problem = _compare_records(written, test.expect, test.ignore)
        # What an unexpected error left out is no second fault.
        if problem is not None and not (problems and len(written) < len(test.expect)):
            problems.append(problem)
    return problems


def _compare_errors(met: list[_Error], expected: Sequence[ExpectedError]) -> list[str]:
    problems = []
    for error, wanted in zip(met, expected, strict=False):
        for what, got, want in (
            ("record", error.record, wanted.record),
            ("step", error.step, wanted.step),
            ("status", error.status, wanted.status),
        ):
            if want is not None and got != want:
                problems.append(f"an error's {what} is {got}, expected {want} ({error})")
        if wanted.message is not None and wanted.message not in error.message:
            problems.append(f"an error's message is {error.message!r}, expected {wanted.message!r} in it ({error})")
    problems += [f"an error that was not expected: {error}" for error in met[len(expected) :]]
    problems += [f"no error, expected one: {_told(wanted)}" for wanted in expected[len(met) :]]
    return problems


def _told(wanted: ExpectedError) -> str:
    known = {key: getattr(wanted, key) for key in ("record", "step", "status", "message")}
    return ", ".join(f"{key} {value}" for key, value in known.items() if value is not None)


def _compare_records(written: list[Any], expected: Sequence[dict[str, Any]], ignore: Sequence[str]) -> str | None:
    """The first difference, or None."""
    for number, (got, want) in enumerate(zip(written, expected, strict=False), 1):
        left_out = set(ignore)
        got = {key: value for key, value in got.items() if key not in left_out}
        want = {key: value for key, value in want.items() if key not in left_out}
        difference = _difference(got, want, "")
        if difference is not None:
            return f"written record {number}: {difference}"
    if len(written) == len(expected):
        return None
    count = f"{len(written)} record{'' if len(written) == 1 else 's'} written, expected {len(expected)}"
    if len(written) > len(expected):
        return f"{count}; the first too many is {_shown(written[len(expected)])}"
    return f"{count}; the first that is missing is {_shown(expected[len(written)])}"


def _difference(got: Any, want: Any, path: str) -> str | None:
    """The first difference of two JSON values, in words; 1 and 1.0 are the same number, 1 and true are not."""
    if isinstance(got, dict) and isinstance(want, dict):
        for key in [*want, *(key for key in got if key not in want)]:
            found = _difference(got.get(key, _MISSING), want.get(key, _MISSING), f"{path}.{key}")
            if found is not None:
                return found
        return None
    if isinstance(got, list) and isinstance(want, list):
        for index in range(max(len(got), len(want))):
            one, other = (each[index] if index < len(each) else _MISSING for each in (got, want))
            found = _difference(one, other, f"{path}[{index}]")
            if found is not None:
                return found
        return None
    numbers = isinstance(got, int | float) and isinstance(want, int | float)
    if got == want and (type(got) is type(want) or (numbers and bool not in (type(got), type(want)))):
        return None
    name = path.removeprefix(".") or "it"
    if got is _MISSING:
        return f"{name} is missing, expected {_shown(want)}"
    if want is _MISSING:
        return f"{name} is {_shown(got)}, expected none"
    return f"{name} is {_shown(got)}, expected {_shown(want)}"


def _shown(value: Any) -> str:
    text = orjson.dumps(value).decode()
    return text if len(text) <= _MOST_SHOWN else text[:_MOST_SHOWN] + "…"
