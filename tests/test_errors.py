"""Exceptions: one class a status, and what stands on them."""

from __future__ import annotations

import inspect
import pickle
import re
from pathlib import Path

import pytest

import ferrule
from ferrule import errors
from ferrule.native import error_object, plugin_error

HEADER = Path(__file__).resolve().parents[1] / "native_sdk" / "include" / "ferrule.h"
STATUSES = {
    name: int(value)
    for name, value in re.findall(
        r"^#define FERRULE_(\w+) \((-\d+)\)", HEADER.read_text(encoding="utf-8"), re.MULTILINE
    )
}
CLASSES = {cls.status_name: cls for cls in errors.PluginError.__subclasses__()}


def test_every_status_of_the_header_has_a_class() -> None:
    """The header and the exceptions name the same statuses with the same numbers, and each class is public."""
    assert len(STATUSES) == 15
    assert {name: cls.status for name, cls in CLASSES.items()} == STATUSES
    for cls in CLASSES.values():
        assert getattr(ferrule, cls.__name__) is cls
        assert cls.__doc__


@pytest.mark.parametrize("name", sorted(STATUSES))
def test_a_status_raises_its_class(name: str) -> None:
    """By its number, named by itself where the plugin said nothing."""
    error = plugin_error(STATUSES[name], b"", plugin="p", method="m")
    assert type(error) is CLASSES[name]
    assert error.message == name
    assert str(error) == f"{name} (plugin 'p', method 'm')"
    assert errors.error_class(STATUSES[name]) is CLASSES[name]


@pytest.mark.parametrize("status", [0, 1, 2, 3, 4, -16, -1000, 2**31 - 1])
def test_a_number_without_a_status_is_internal(status: int) -> None:
    """The host's own last resort."""
    assert errors.error_class(status) is errors.InternalError


def test_some_are_python_s_own_too() -> None:
    """Whoever catches TimeoutError, MemoryError, OSError or LookupError catches them."""
    assert issubclass(ferrule.PluginTimeoutError, TimeoutError)
    assert issubclass(ferrule.OutOfMemoryError, MemoryError)
    assert issubclass(ferrule.PluginIOError, OSError)
    assert issubclass(ferrule.PluginNotFoundError, LookupError)
    for name in ferrule.__all__:
        found = getattr(ferrule, name)
        if inspect.isclass(found) and issubclass(found, Exception) and name != "FerruleError":
            assert issubclass(found, ferrule.FerruleError), name


@pytest.mark.parametrize(
    ("text", "message", "details", "retry_after"),
    [
        (b'{"message":"m","details":{"a":1},"retry_after_ms":250}', "m", {"a": 1}, 0.25),
        (b'{"message":"m","retry_after_ms":0}', "m", {}, 0.0),
        (b'{"message":"m","retry_after_ms":-1}', "m", {}, None),
        (b'{"message":"m","retry_after_ms":true}', "m", {}, None),
        (b'{"message":"m","retry_after_ms":"soon"}', "m", {}, None),
        (b'{"message":"m","details":[1]}', "m", {}, None),
        (b'{"message":null}', "IO", {}, None),
        (b'{"message":7}', "7", {}, None),
        (b"{}", "IO", {}, None),
        (b"", "IO", {}, None),
        (b"plain", "plain", {}, None),
        (b'"a string"', '"a string"', {}, None),
        (b"[1]", "[1]", {}, None),
        (b'{"message":', '{"message":', {}, None),
        (b'{"message":"\xff"}', "\N{REPLACEMENT CHARACTER}", {}, None),
        (b"\xff", "\N{REPLACEMENT CHARACTER}", {}, None),
        (b"{" * 5000, "{" * 5000, {}, None),
    ],
)
def test_an_error_is_read_whatever_it_is(
    text: bytes, message: str, details: dict[str, object], retry_after: float | None
) -> None:
    """An object as ferrule.h has it; else the text is the message, and nothing is the status's name."""
    error = plugin_error(STATUSES["IO"], text)
    assert (error.message, error.details, error.retry_after) == (message, details, retry_after)
    assert error_object(STATUSES["IO"], text)["message"] == message


def test_what_may_be_tried_again() -> None:
    """UNAVAILABLE, TIMEOUT, and whatever says when; nothing else."""
    may = {name for name, cls in CLASSES.items() if cls("x").may_retry}
    assert may == {"UNAVAILABLE", "TIMEOUT"}
    assert errors.PluginIOError("x", retry_after=0.0).may_retry


def test_an_error_says_where() -> None:
    """Step, plugin, method and record, as far as they are known, and a step's name only if it is another."""
    error = errors.InvalidDataError("bad", plugin="p", method="process", step="s", record=3)
    assert str(error) == "bad (step 's', plugin 'p', method 'process', record 3)"
    assert str(errors.InvalidDataError("bad", plugin="p", step="p", record=3)) == "bad (plugin 'p', record 3)"
    assert str(errors.InvalidDataError("bad")) == "bad"
    assert str(errors.PluginIOError("bad", plugin="p")) == "bad (plugin 'p')"
    library = errors.LibraryError("x/y.so", "is a folder", hint="Name a file")
    assert str(library) == f"{Path('x/y.so')}: is a folder. Name a file"
    flow = errors.FlowError("wrong", path="f.yaml", line=3, column=7, hint="Do that")
    assert str(flow) == "f.yaml:3:7: wrong. Do that"
    assert str(errors.FlowError("wrong")) == "flow: wrong"


def test_errors_travel_between_processes() -> None:
    """A plugin error survives pickling with all that stands on it: a pool of processes may raise it."""
    for cls in CLASSES.values():
        error = cls(
            "bad", plugin="p", method="m", step="s", record=3, details={"a": 1}, retry_after=0.5, metadata={"b": 2}
        )
        again = pickle.loads(pickle.dumps(error))
        assert type(again) is cls
        assert str(again) == str(error)
        assert vars(again) == vars(error)
    others: list[errors.FerruleError] = [
        errors.LibraryError("x/y.so", "is a folder", hint="Name a file"),
        errors.FlowError("wrong", path="f.yaml", line=3, column=7, hint="Do that"),
        errors.PluginNotFoundError("none", name="a", nearest="b"),
    ]
    for other in others:
        again = pickle.loads(pickle.dumps(other))
        assert str(again) == str(other)
        assert vars(again) == vars(other)
