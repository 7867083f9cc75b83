"""process_many: many records through one crossing are what they are one by one."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import ferrule

ROOT = Path(__file__).resolve().parents[1]
ACTS = ("ok", "skip", "invalid", "unavailable", "newline", "big")


@pytest.fixture(scope="module")
def act(act_library: Path) -> Iterator[ferrule.Function]:
    """The function that does what its record says."""
    with ferrule.Host() as host:
        yield host.function(f"{act_library}:act")


@pytest.fixture(scope="module")
def identity(compile_c: Callable[..., Path]) -> Iterator[ferrule.Function]:
    """The function that gives its input back."""
    source = ROOT / "example_plugins" / "c" / "identity" / "identity.c"
    with ferrule.Host() as host:
        yield host.function(str(compile_c(source.read_text(encoding="utf-8"), "identity")))


def one_by_one(act: ferrule.Function, records: list[Any]) -> list[Any]:
    """The same, a call a record."""
    answers: list[Any] = []
    for record in records:
        try:
            answers.append(act.process(record))
        except ferrule.PluginError as error:
            answers.append((type(error), error.message))
    return answers


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(acts=st.lists(st.sampled_from(ACTS), max_size=30), lines=st.booleans())
def test_many_are_what_they_are_one_by_one(act: ferrule.Function, acts: list[str], lines: bool) -> None:
    """Answers, skips and errors stand in their records' places, as a list and as a lazy sequence."""
    records = [orjson.dumps({"n": n, "act": each}) for n, each in enumerate(acts)]
    expected = one_by_one(act, records)
    given: Any = b"".join(record + b"\n" for record in records) if lines else records
    for lazy in (False, True):
        got = act.process_many(given, errors="return", lazy=lazy)
        assert len(got) == len(records)
        plain = [(type(each), each.message) if isinstance(each, ferrule.PluginError) else each for each in got]
        assert plain == expected
        by_index = [got[at] for at in range(len(got))]
        assert [each if not isinstance(each, ferrule.PluginError) else None for each in by_index] == [
            each if not isinstance(each, tuple) else None for each in expected
        ]
        numbers = [each.record for each in got if isinstance(each, ferrule.PluginError)]
        assert numbers == [n for n, each in enumerate(expected, 1) if isinstance(each, tuple)]


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    records=st.lists(st.lists(st.sampled_from([b"\n", b"a", b"\x00"]), max_size=4).map(b"".join), max_size=6),
    kind=st.sampled_from([bytes, bytearray, memoryview]),
)
def test_bytes_of_any_kind_are_taken_as_they_are(identity: ferrule.Function, records: list[bytes], kind: type) -> None:
    """Newlines within a record do not shift the others, nor does what is only like bytes; no answer is an error, as it
    is for one call."""
    given = [record if at % 2 == 0 else kind(record) for at, record in enumerate(records)]
    expected = [record or "the plugin answered with nothing, where a record or SKIP is expected" for record in records]

    def told(answers: Any) -> list[Any]:
        return [each.message if isinstance(each, ferrule.InvalidDataError) else each for each in answers]

    assert told(identity.process_many(given, errors="return")) == expected
    lazy = identity.process_many(given, lazy=True, errors="return")
    assert told(lazy) == told(lazy[at] for at in range(len(records))) == expected
    assert lazy.data == b"".join(record + b"\n" for record in records if record)


def test_what_begins_with_bytes_may_go_on_otherwise(identity: ferrule.Function) -> None:
    """A list of bytes and dicts is answered with bytes, all of it."""
    assert identity.process_many([b'{"n":1}', {"n": 2}, "x", None]) == [b'{"n":1}', b'{"n":2}', b'"x"', b"{}"]


def test_dicts_are_answered_with_dicts(act: ferrule.Function) -> None:
    """What goes in decoded comes out decoded; a generator will do."""
    assert act.process_many({"n": n} for n in range(3)) == [{"n": 0}, {"n": 1}, {"n": 2}]
    assert act.process_many([]) == []
    assert act.process_many(b"") == []


def test_the_first_error_is_raised_with_its_number(act: ferrule.Function) -> None:
    """errors="raise" is the default: which record failed is on the error."""
    with pytest.raises(ferrule.InvalidDataError, match="told to refuse") as caught:
        act.process_many([{"n": 1}, {"n": 2, "act": "invalid"}, {"n": 3}])
    assert caught.value.record == 2


def test_a_poisoned_instance_fails_the_rest(act_library: Path) -> None:
    """After a panic the records behind it say so, each with its own error."""
    with ferrule.Host() as host:
        mine = host.function(f"{act_library}:act")
        got = mine.process_many([{"n": 1}, {"n": 2, "act": "panic"}, {"n": 3}], errors="return")
    assert got[0] == {"n": 1}
    assert isinstance(got[1], ferrule.PanicError)
    assert isinstance(got[2], ferrule.InvalidStateError)


def test_a_python_plugin_takes_many_too() -> None:
    """The same method on a function in Python."""
    with ferrule.Host() as host:
        double = host.function(f"python:{__name__}:double")
        assert double.process_many([{"n": 1}, {"n": 2}]) == [{"n": 2}, {"n": 4}]
        assert double.process_many(b'{"n":1}\r\n{"n":\r2}\n') == [
            b'{"n":2}',
            b'{"n":4}',
        ]  # a line ends at a newline alone


def double(record: dict[str, int]) -> dict[str, int]:
    """A function plugin."""
    return {"n": record["n"] * 2}


@pytest.mark.skipif(sys.platform != "linux" or sys.maxsize < 1 << 32 or shutil.which("gcc") is None, reason="no memfd")
@pytest.mark.parametrize("what", ["many", "spoilt"])
def test_counters_are_not_overrun(tmp_path: Path, what: str) -> None:
    """The lines of more than 4 GiB are counted in full: room is made for as many as there are, or they are refused. As
    many bytes beyond ASCII as a counter of one byte cannot hold are no text."""
    program, host = tmp_path / "lines", ROOT / "src" / "ferrule" / "native"
    sources = [ROOT / "tests" / "native" / "lines.c", *host.glob("*.c")]
    folders = [f"-I{host}", f"-I{ROOT / 'native_sdk' / 'include'}"]
    subprocess.run(["gcc", "-std=gnu11", "-O3", *folders, *sources, "-o", program, "-ldl", "-lpthread"], check=True)
    done = subprocess.run([program, what], capture_output=True, text=True, check=False)
    if done.returncode == 77:
        pytest.skip("no room for 4 GiB of addresses")
    assert done.returncode == 0, done.stderr


def test_wrong_use_is_said(act: ferrule.Function) -> None:
    """An unknown errors= is the caller's mistake."""
    with pytest.raises(ValueError, match="'raise' or 'return'"):
        act.process_many([], errors="ignore")  # type: ignore[arg-type]
