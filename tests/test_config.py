"""Configurations: completed with defaults, checked, and explained where they do not fit."""

from __future__ import annotations

import copy
import datetime
import enum
import json
import time
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from ferrule.errors import InvalidConfigError
from ferrule.plugins.config import complete_config

RETRY = {
    "type": "object",
    "properties": {"attempts": {"type": "integer", "default": 3, "minimum": 1}, "backoff": {"type": "number"}},
    "additionalProperties": False,
}
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "path": {"type": "string"},
        "delimiter": {"type": "string", "default": ",", "minLength": 1, "maxLength": 1},
        "mode": {"enum": ["fast", "careful"], "default": "fast"},
        "limit": {"type": ["integer", "null"], "default": None},
        "ratio": {"type": "number", "exclusiveMinimum": 0, "maximum": 1},
        "header": {"type": "boolean", "default": True},
        "password": {"type": "string", "minLength": 8},
        "pin": {"type": "integer", "writeOnly": True, "maximum": 9999},
        "retry": {"$ref": "#/$defs/Retry"},
        "retries": {"type": "array", "items": {"$ref": "#/$defs/Retry"}, "maxItems": 3, "default": [{}]},
        "by_name": {"type": "object", "additionalProperties": {"$ref": "#/$defs/Retry"}},
        "maybe": {"anyOf": [{"$ref": "#/$defs/Retry"}, {"type": "null"}]},
        "target": {
            "oneOf": [
                {
                    "type": "object",
                    "properties": {"kind": {"const": "file"}, "name": {"type": "string", "default": "out"}},
                    "required": ["kind"],
                    "additionalProperties": False,
                },
                {
                    "type": "object",
                    "properties": {"kind": {"const": "socket"}, "port": {"type": "integer"}},
                    "required": ["kind", "port"],
                    "additionalProperties": False,
                },
            ]
        },
    },
    "required": ["path"],
    "additionalProperties": False,
    "$defs": {"Retry": RETRY},
}
DEFAULTS = {"delimiter": ",", "mode": "fast", "limit": None, "header": True, "retries": [{"attempts": 3}]}


def faults(config: Any, schema: dict[str, Any] = SCHEMA) -> dict[str, str]:
    """What is said of each field, by its path as JSON."""
    with pytest.raises(InvalidConfigError) as caught:
        complete_config(schema, config, plugin="csv-source")
    error = caught.value
    assert error.plugin == "csv-source"
    for fault in error.details["errors"]:
        assert fault["message"] in error.message
    return {json.dumps(fault["path"]): fault["message"] for fault in error.details["errors"]}


# ---- defaults --------------------------------------------------------------------------------------------------


def test_defaults_are_filled_in() -> None:
    """Every field with a default is there; one without is left out."""
    assert complete_config(SCHEMA, {"path": "x"}) == {"path": "x", **DEFAULTS}


def test_what_is_given_wins() -> None:
    """A given value is not overwritten, null neither."""
    given_values = {"path": "x", "delimiter": ";", "mode": "careful", "limit": 5, "header": False, "retries": []}
    assert complete_config(SCHEMA, given_values) == given_values


@pytest.mark.parametrize(
    ("field", "value", "filled"),
    [
        ("retry", {}, {"attempts": 3}),
        ("retry", {"backoff": 1.5}, {"backoff": 1.5, "attempts": 3}),
        ("retries", [{}, {"attempts": 5}], [{"attempts": 3}, {"attempts": 5}]),
        ("by_name", {"a": {}, "b": {"attempts": 1}}, {"a": {"attempts": 3}, "b": {"attempts": 1}}),
        ("maybe", {}, {"attempts": 3}),
        ("maybe", None, None),
        ("target", {"kind": "file"}, {"kind": "file", "name": "out"}),
        ("target", {"kind": "socket", "port": 1}, {"kind": "socket", "port": 1}),
    ],
)
def test_nested_defaults(field: str, value: Any, filled: Any) -> None:
    """Defaults reach into objects, arrays, maps, references, and the alternative that fits."""
    assert complete_config(SCHEMA, {"path": "x", field: value})[field] == filled


def test_all_of_and_prefix_items() -> None:
    """Defaults of allOf's parts and of an array's first items are filled in."""
    schema = {
        "allOf": [{"properties": {"a": {"default": 1}}}, {"properties": {"b": {"default": 2}}}],
        "properties": {"pair": {"prefixItems": [{"properties": {"x": {"default": 0}}}, {"type": "integer"}]}},
    }
    assert complete_config(schema, {"pair": [{}, 1]}) == {"a": 1, "b": 2, "pair": [{"x": 0}, 1]}


def test_neither_schema_nor_configuration_is_changed() -> None:
    """Both are the caller's; the answer shares nothing with them."""
    schema, config = copy.deepcopy(SCHEMA), {"path": "x", "retry": {}}
    answer = complete_config(schema, config)
    answer["retries"].append("mine")
    answer["retry"]["attempts"] = 9
    assert schema == SCHEMA
    assert config == {"path": "x", "retry": {}}
    assert complete_config(schema, config)["retries"] == [{"attempts": 3}]


def test_no_schema_takes_nothing() -> None:
    """An empty schema accepts only the empty configuration."""
    assert complete_config({}, {}) == {}
    assert complete_config({}, None) == {}
    message = "unknown; there is nothing to configure here"
    assert faults({"a": 1, "b": 2}, {}) == {'["a"]': message, '["b"]': message}


def test_a_schema_in_another_language_is_left_to_the_plugin() -> None:
    """A schema that is no JSON Schema checks nothing here."""
    assert complete_config({"media_type": "text/x-proto", "text": "message X {}"}, {"a": 1}) == {"a": 1}


# ---- faults ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("config", "path", "message"),
    [
        ({}, ["path"], "missing (a string is required)"),
        ({"path": "x", "delimeter": ";"}, ["delimeter"], "unknown; did you mean 'delimiter'?"),
        ({"path": "x", "zzz": ";"}, ["zzz"], "unknown; expected 'path', 'delimiter', 'mode', 'limit', 'ratio', "),
        ({"path": 5}, ["path"], "expected a string, got 5"),
        ({"path": True}, ["path"], "expected a string, got true"),
        ({"path": ["a"]}, ["path"], "expected a string, got an array of 1 item"),
        ({"path": "x", "delimiter": ""}, ["delimiter"], 'expected at least 1 character, got ""'),
        ({"path": "x", "delimiter": ";;"}, ["delimiter"], 'expected at most 1 character, got ";;"'),
        ({"path": "x", "mode": "fats"}, ["mode"], 'expected "fast" or "careful", got "fats"; did you mean "fast"?'),
        ({"path": "x", "limit": 1.5}, ["limit"], "expected an integer or null, got 1.5"),
        ({"path": "x", "ratio": 0}, ["ratio"], "expected more than 0, got 0"),
        ({"path": "x", "ratio": 1.5}, ["ratio"], "expected at most 1, got 1.5"),
        ({"path": "x", "retry": {"attempts": 0}}, ["retry", "attempts"], "expected at least 1, got 0"),
        ({"path": "x", "retry": {"atempts": 1}}, ["retry", "atempts"], "unknown; did you mean 'attempts'?"),
        ({"path": "x", "retries": [{}, 3]}, ["retries", 1], "expected an object, got 3"),
        ({"path": "x", "retries": [{}] * 4}, ["retries"], "expected at most 3 items, got an array of 4 items"),
        ({"path": "x", "by_name": {"a": {"b": 1}}}, ["by_name", "a", "b"], "unknown; expected 'attempts' or 'backoff'"),
        ({"path": "x", "maybe": 3}, ["maybe"], "expected an object or null, got 3"),
        ({"path": "x", "maybe": {"attempts": "x"}}, ["maybe", "attempts"], 'expected an integer, got "x"'),
        ({"path": "x", "target": {"kind": "socket"}}, ["target", "port"], "missing (an integer is required)"),
        ({"path": "x", "target": {"kind": "pipe"}}, ["target", "kind"], 'expected "file" or "socket", got "pipe"'),
        ({"path": "x", "target": 3}, ["target"], "expected an object, got 3"),
    ],
)
def test_each_fault_is_named(config: dict[str, Any], path: list[str | int], message: str) -> None:
    """A field that does not fit is named with what was expected, what was found, and the nearest name."""
    said = faults(config)
    assert list(said) == [json.dumps(path)]
    assert said[json.dumps(path)].startswith(message)


def test_all_faults_are_said_at_once() -> None:
    """Several faults make one error, its message with the path of each."""
    with pytest.raises(InvalidConfigError) as caught:
        complete_config(SCHEMA, {"retries": [{"attempts": 0}], "mode": 1})
    assert caught.value.message == (
        'mode: expected "fast" or "careful", got 1; path: missing (a string is required); '
        "retries[0].attempts: expected at least 1, got 0"
    )


def test_long_values_are_cut_and_secrets_not_shown() -> None:
    """No message holds more than a piece of a value, and none of one that may be a secret."""
    assert len(faults({"path": "x", "mode": "y" * 1000})['["mode"]']) < 100
    said = faults({"path": "x", "password": "hunter2", "pin": 12345})
    assert said == {
        '["password"]': "expected at least 8 characters, got a string of 7 characters",
        '["pin"]': "expected at most 9999, got an integer",
    }


@pytest.mark.parametrize("config", [[], "x", 3, True])
def test_what_is_no_object(config: Any) -> None:
    """A configuration is an object."""
    assert faults(config)["[]"].startswith("expected an object, got ")


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "no-type"},
        {"properties": {"a": {"$ref": "https://example.com/schema.json"}}},
        {"properties": {"a": {"$ref": "file:///etc/passwd"}}},
        {"properties": {"a": {"$ref": "#/$defs/none"}}},
        {"properties": {"a": {"pattern": "("}}},
    ],
)
def test_a_schema_that_is_wrong_itself(schema: dict[str, Any]) -> None:
    """A plugin's schema that cannot be used is said to be the plugin's fault; nothing is fetched for it."""
    with pytest.raises(InvalidConfigError, match="the plugin's own schema is wrong"):
        complete_config(schema, {"a": {}})


# ---- values that are no JSON yet -----------------------------------------------------------------------------------


class Colour(enum.Enum):
    RED = "red"


class Settings(BaseModel):
    path: Path
    limit: int | None = None


def test_pythons_values_become_json() -> None:
    """Paths, models, enums, dates, tuples and mappings of any kind become JSON's own types."""
    anything = {"type": "object"}
    value = OrderedDict(
        path=Path("a/b"), colour=Colour.RED, day=datetime.date(2013, 1, 1), pair=(1, 2), model=Settings(path=Path("c"))
    )
    answer = complete_config(anything, value)
    assert answer == {
        "path": str(Path("a/b")),
        "colour": "red",
        "day": "2013-01-01",
        "pair": [1, 2],
        "model": {"path": "c", "limit": None},
    }
    assert type(answer) is dict
    assert complete_config(SCHEMA, Settings(path=Path("x")))["path"] == "x"


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (float("nan"), "is nan, which JSON cannot say"),
        (float("-inf"), "is -inf, which JSON cannot say"),
        (2**64, "is a number of more than 64 bits"),
        (b"x", "is a bytes, which is no JSON value"),
        ({1, 2}, "is a set, which is no JSON value"),
        (object, "is a type, which is no JSON value"),
        ("\ud800", "is text that UTF-8 cannot hold"),
        ({1: 2}, "has the key 1; a key is a string"),
    ],
)
def test_what_has_no_json(value: Any, message: str) -> None:
    """A value that JSON cannot hold is a fault of its field."""
    assert faults({"a": {"b": value}}, {"type": "object"}) == {'["a", "b"]': message}


def test_a_value_that_contains_itself() -> None:
    """A loop ends in an error."""
    loop: dict[str, Any] = {}
    loop["again"] = loop
    assert "contains itself" in next(iter(faults(loop, {"type": "object"}).values()))


# ---- schemas that contain themselves ---------------------------------------------------------------------------------


def test_a_default_that_contains_itself() -> None:
    """A schema whose defaults have no end is refused, and at once."""
    schema = {"properties": {"a": {"$ref": "#", "default": {}}, "b": {"$ref": "#", "default": {}}}}
    with pytest.raises(InvalidConfigError, match="the default of 'a' contains itself"):
        complete_config(schema, {})


def test_a_tree_is_filled_in_linear_time() -> None:
    """A schema of a tree with several alternatives at each node costs no more than the tree is large."""
    node: dict[str, Any] = {
        "anyOf": [
            {
                "type": "object",
                "properties": {"not": {"$ref": "#/$defs/Node"}, "x": {"default": 1}},
                "required": ["not"],
            },
            {"type": "object", "properties": {"all": {"type": "array", "items": {"$ref": "#/$defs/Node"}}}},
        ]
    }
    schema = {"type": "object", "properties": {"where": {"$ref": "#/$defs/Node"}}, "$defs": {"Node": node}}
    value: dict[str, Any] = {"all": []}
    for _ in range(30):
        value = {"not": {"all": [value]}}
    begin = time.thread_time()
    answer = complete_config(schema, {"where": value})
    assert time.thread_time() - begin < 2
    assert answer["where"]["x"] == answer["where"]["not"]["all"][0]["x"] == 1


@pytest.mark.parametrize(
    "schema", [{"$ref": "#"}, {"allOf": [{"$ref": "#"}, {"$ref": "#"}], "properties": {"a": {"default": 1}}}]
)
def test_a_schema_that_refers_to_itself_ends(schema: dict[str, Any]) -> None:
    """A reference that leads back to itself ends, one way or the other."""
    try:
        complete_config(schema, {"b": 1})
    except InvalidConfigError:
        pass


# ---- properties --------------------------------------------------------------------------------------------------

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=10,
)
FIELDS = st.dictionaries(st.sampled_from([*SCHEMA["properties"], "other"]), JSON, max_size=6)


@settings(max_examples=300, deadline=None)
@given(FIELDS)
def test_any_configuration_is_completed_or_explained(config: dict[str, Any]) -> None:
    """Any JSON object is completed, or refused with a message for each field; what is completed stays so."""
    try:
        answer = complete_config(SCHEMA, config)
    except InvalidConfigError as error:
        assert error.details["errors"]
        json.dumps(error.details)
        return
    assert json.loads(json.dumps(answer)) == answer
    assert complete_config(SCHEMA, answer) == answer
    assert config.items() <= answer.items() or any(isinstance(value, dict | list) for value in config.values())


@settings(max_examples=200, deadline=None)
@given(st.dictionaries(st.text(max_size=5), JSON, max_size=4))
def test_an_open_schema_keeps_everything(config: dict[str, Any]) -> None:
    """A schema without fields changes nothing."""
    assert complete_config({"type": "object"}, config) == config


KEYWORDS = ["type", "properties", "items", "prefixItems", "additionalProperties", "anyOf", "oneOf", "allOf", "$ref"]
KEYWORDS += ["default", "enum", "const", "required", "not", "if", "then", "minimum", "$defs", "path", "a"]
LEAVES = st.sampled_from(
    ["object", "array", "string", "integer", "null", "#", "#/$defs/a", "#/properties/path", "path"]
)
SCHEMAS: st.SearchStrategy[Any] = st.recursive(
    st.booleans() | st.integers(0, 2) | LEAVES | st.just({}),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYWORDS), inner, max_size=4),
    max_leaves=20,
)


@settings(max_examples=300, deadline=None)
@given(schema=st.dictionaries(st.sampled_from(KEYWORDS), SCHEMAS, max_size=5), config=FIELDS)
def test_any_schema_answers_or_refuses(schema: dict[str, Any], config: dict[str, Any]) -> None:
    """No schema makes anything but a configuration or an InvalidConfigError, or takes long."""
    began = time.thread_time()
    try:
        complete_config(schema, config)
    except InvalidConfigError as error:
        assert str(error)
    assert time.thread_time() - began < 2
