"""A plugin's configuration: completed with its schema's defaults, and checked against it.

A plugin's create receives every field that its schema knows a default for, so no plugin fills defaults in itself. The
check says all that is wrong at once, each fault with the place of its field.
"""

from __future__ import annotations

import difflib
import functools
import json
import math
import re
from collections.abc import Iterator, Mapping
from datetime import date, datetime, time
from enum import Enum
from pathlib import PurePath
from typing import Any

import jsonschema_rs
import orjson
from jsonschema_rs import ValidationErrorKind as Kind
from pydantic import BaseModel

from ferrule.errors import InvalidConfigError

__all__ = ["complete_config"]

_NOTHING = {"type": "object", "additionalProperties": False}
_MAX_DEPTH = 100
_MAX_SHOWN = 40
_SECRET = re.compile(r"passw|passphrase|secret|token|api_?-?key|private_?-?key|credential", re.IGNORECASE)

_Path = tuple[str | int, ...]


def complete_config(schema: Mapping[str, Any], config: object, *, plugin: str | None = None) -> dict[str, Any]:
    """The configuration with every default filled in, in plain JSON types, checked against the plugin's schema.

    Args:
        schema: The JSON Schema of the plugin's manifest; an empty one takes only the empty configuration.
        config: A mapping, a pydantic model, or None for the empty one. It is not changed.
        plugin: The plugin's name, for errors.

    Raises:
        InvalidConfigError: A value is no JSON, or does not fit; the message names each field with what was expected
            and what was found, and ``details["errors"]`` holds a ``{"path": [...], "message": ...}`` for each.

    >>> complete_config({"properties": {"n": {"type": "integer"}, "name": {"default": "x"}}}, {"n": 1})
    {'n': 1, 'name': 'x'}
    """
    faults: list[tuple[_Path, str]] = []
    value = _plain({} if config is None else config, (), faults)
    if not faults and not isinstance(value, dict):
        faults.append(((), f"expected an object, got {_described(value)}"))
    if faults:
        raise _error(faults, plugin)
    if "media_type" in schema and "text" in schema:  # a schema in another language than JSON Schema: the plugin judges
        return dict(value)
    root = dict(schema) or _NOTHING
    validator = _validator(orjson.dumps(root), plugin)  # first: it refuses a schema that is none
    value = _Filler(root, plugin).fill(root, value)
    for error in validator.iter_errors(value):
        faults += _explain(error, root, value)
    if faults:
        raise _error(sorted(dict.fromkeys(faults), key=lambda fault: [str(part) for part in fault[0]]), plugin)
    return dict(value)


def _error(faults: list[tuple[_Path, str]], plugin: str | None) -> InvalidConfigError:
    lines = [f"{_dotted(path)}: {message}" if path else message for path, message in faults]
    return InvalidConfigError(
        "; ".join(lines),
        plugin=plugin,
        details={"errors": [{"path": list(path), "message": message} for path, message in faults]},
    )


@functools.lru_cache(maxsize=256)
def _validator(schema: bytes, plugin: str | None) -> Any:
    try:
        # Offline: a plugin's schema makes nobody fetch anything.
        return jsonschema_rs.validator_for(json.loads(schema), offline=True)
    except (ValueError, TypeError, jsonschema_rs.ValidationError, jsonschema_rs.ReferencingError) as error:
        raise InvalidConfigError(f"the plugin's own schema is wrong: {_first_line(error)}", plugin=plugin) from None


def _first_line(error: BaseException) -> str:
    return str(getattr(error, "message", "") or error).splitlines()[0]


# ---- plain JSON ------------------------------------------------------------------------------------------------


def _plain(value: Any, path: _Path, faults: list[tuple[_Path, str]]) -> Any:
    """A copy in JSON's own types; what has none is a fault."""
    if len(path) > _MAX_DEPTH:
        faults.append((path[:3], f"is nested deeper than {_MAX_DEPTH} levels, or contains itself"))
        return None
    if isinstance(value, Enum):
        value = value.value
    if isinstance(value, BaseModel):
        value = value.model_dump(mode="json")
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:
            faults.append((path, "is text that UTF-8 cannot hold"))
        return str(value)
    if isinstance(value, int):
        if not -(2**63) <= value < 2**64:
            faults.append((path, "is a number of more than 64 bits"))
        return int(value)
    if isinstance(value, float):
        if not math.isfinite(value):
            faults.append((path, f"is {value}, which JSON cannot say"))
        return float(value)
    if isinstance(value, PurePath):
        return _plain(str(value), path, faults)
    if isinstance(value, date | datetime | time):
        return value.isoformat()
    if isinstance(value, Mapping):
        plain = {}
        for key, item in value.items():
            if not isinstance(key, str):
                faults.append((path, f"has the key {key!r}; a key is a string"))
                continue
            plain[str(key)] = _plain(item, (*path, str(key)), faults)
        return plain
    if isinstance(value, list | tuple):
        return [_plain(item, (*path, index), faults) for index, item in enumerate(value)]
    faults.append((path, f"is a {type(value).__name__}, which is no JSON value"))
    return None


# ---- defaults --------------------------------------------------------------------------------------------------


class _Filler:
    """Fills defaults in, following what a schema refers to within itself.

    A value is copied only where something is added, and each pair of schema and value is looked at once: so schemas
    that contain themselves, and alternatives within alternatives, cost no more than the configuration is long.
    """

    def __init__(self, root: dict[str, Any], plugin: str | None) -> None:
        self.root = root
        self.plugin = plugin
        self.done: dict[tuple[int, int], tuple[Any, Any]] = {}  # the value is kept, so that its id stays its own
        self.inserting: set[int] = set()  # fields whose defaults are being filled in themselves

    def fill(self, schema: Any, value: Any) -> Any:
        """`value` with the defaults of `schema`, which it need not fit; validation comes after."""
        if not isinstance(schema, dict) or not isinstance(value, dict | list):
            return value
        key = (id(schema), id(value))
        if key not in self.done:
            self.done[key] = (value, value)  # while it is under way: a schema that refers to itself ends here
            self.done[key] = (value, self._fill(schema, value))
        return self.done[key][1]

    def _fill(self, schema: dict[str, Any], value: Any) -> Any:
        value = self.fill(self._referred(schema), value)
        for part in schema.get("allOf", ()):
            value = self.fill(part, value)
        for branches in (schema.get("anyOf", ()), schema.get("oneOf", ())):
            # The first that the value fits once it is filled: a variant's defaults are its own.
            for branch in branches:
                filled = self.fill(branch, value)
                if self._fits(branch, filled):
                    value = filled
                    break
        return self._fill_object(schema, value) if isinstance(value, dict) else self._fill_array(schema, value)

    def _fill_object(self, schema: dict[str, Any], value: dict[str, Any]) -> dict[str, Any]:
        properties = schema.get("properties", {})
        others = schema.get("additionalProperties")
        added = {}
        for name, item in value.items():
            filled = self.fill(properties.get(name, others), item)
            if filled is not item:
                added[name] = filled
        for name, field in properties.items():
            if name not in value:
                default, given = self._default(field)
                if given:
                    added[name] = self._insert(name, field, default)
        return {**value, **added} if added else value

    def _fill_array(self, schema: dict[str, Any], value: list[Any]) -> list[Any]:
        first, rest = schema.get("prefixItems", []), schema.get("items")
        filled = [self.fill(first[index] if index < len(first) else rest, item) for index, item in enumerate(value)]
        return filled if any(new is not old for new, old in zip(filled, value, strict=True)) else value

    def _insert(self, name: str, field: dict[str, Any], default: Any) -> Any:
        """A default, with the defaults of its own fields."""
        if id(field) in self.inserting:
            raise InvalidConfigError(
                f"the plugin's own schema is wrong: the default of {name!r} contains itself", plugin=self.plugin
            )
        self.inserting.add(id(field))
        try:
            return self.fill(field, default)
        finally:
            self.inserting.discard(id(field))

    def _default(self, field: Any) -> tuple[Any, bool]:
        """A field's default, its own or that of what it refers to; and whether it has one."""
        for _ in range(_MAX_DEPTH):
            if not isinstance(field, dict):
                break
            if "default" in field:
                return json.loads(json.dumps(field["default"])), True  # a copy of its own
            field = self._referred(field)
        return None, False

    def _referred(self, schema: dict[str, Any]) -> Any:
        """What a ``$ref`` within the schema points to; None without one."""
        reference = schema.get("$ref")
        if not isinstance(reference, str) or not reference.startswith("#"):
            return None
        target: Any = self.root
        for part in reference[1:].split("/")[1:]:
            part = part.replace("~1", "/").replace("~0", "~")
            target = target.get(part) if isinstance(target, dict) else None
        return target

    def _fits(self, branch: Any, value: Any) -> bool:
        if isinstance(branch, dict):
            branch = {key: self.root[key] for key in ("$schema", "$defs", "definitions") if key in self.root} | branch
        try:
            return bool(jsonschema_rs.is_valid(branch, value, offline=True))
        except (ValueError, TypeError, jsonschema_rs.ValidationError, jsonschema_rs.ReferencingError):
            return False  # the validator of the whole schema says what is wrong


# ---- faults in words -------------------------------------------------------------------------------------------


def _explain(error: Any, root: dict[str, Any], config: Any) -> list[tuple[_Path, str]]:
    """What one error of the validator says, in our words, with the paths of the fields that are meant."""
    path: _Path = tuple(error.instance_path)
    kind = error.kind
    value = error.instance
    match kind:
        case Kind.Required():
            return [((*path, kind.property), f"missing{_about_field(error, root, kind.property)}")]
        case Kind.AdditionalProperties() | Kind.UnevaluatedProperties():
            known = list(_properties(root, error))
            return [((*path, name), _unknown(name, known)) for name in kind.unexpected]
        case Kind.FalseSchema() if error.schema_path[-1:] == ["additionalProperties"]:
            # Of an object that may have no properties at all: the path is the object's, and the names are not given.
            for part in path:
                config = config[part]
            return [((*path, name), _unknown(name, [])) for name in config]
        case Kind.FalseSchema() if path:
            return [(path, "is not allowed")]
        case Kind.AnyOf() | Kind.OneOfNotValid():
            return _explain_branches(kind.context, path, value, root, config)
    got = _got(path, value, error, root)
    match kind:
        case Kind.Type():
            return [(path, f"expected {_either(_type_words(kind.types))}, got {got}")]
        case Kind.Enum():
            options = [_json(option) for option in kind.options]
            texts = [option for option in kind.options if isinstance(option, str)]
            near = difflib.get_close_matches(value, texts, 1) if isinstance(value, str) else []
            advice = f"; did you mean {_json(near[0])}?" if near else ""
            return [(path, f"expected {_either(options)}, got {got}{advice}")]
        case Kind.Constant():
            return [(path, f"expected {_json(kind.expected_value)}, got {got}")]
        case Kind.Minimum():
            return [(path, f"expected at least {kind.limit}, got {got}")]
        case Kind.Maximum():
            return [(path, f"expected at most {kind.limit}, got {got}")]
        case Kind.ExclusiveMinimum():
            return [(path, f"expected more than {kind.limit}, got {got}")]
        case Kind.ExclusiveMaximum():
            return [(path, f"expected less than {kind.limit}, got {got}")]
        case Kind.MultipleOf():
            return [(path, f"expected a multiple of {kind.multiple_of:g}, got {got}")]
        case Kind.MinLength():
            return [(path, f"expected at least {_count(kind.limit, 'character')}, got {got}")]
        case Kind.MaxLength():
            return [(path, f"expected at most {_count(kind.limit, 'character')}, got {got}")]
        case Kind.MinItems():
            return [(path, f"expected at least {_count(kind.limit, 'item')}, got {got}")]
        case Kind.MaxItems():
            return [(path, f"expected at most {_count(kind.limit, 'item')}, got {got}")]
        case Kind.MinProperties():
            return [(path, f"expected at least {_count(kind.limit, 'field')}, got {got}")]
        case Kind.MaxProperties():
            return [(path, f"expected at most {_count(kind.limit, 'field')}, got {got}")]
        case Kind.UniqueItems():
            return [(path, "holds an item twice")]
        case Kind.Pattern():
            return [(path, f"expected text that matches {kind.pattern}, got {got}")]
        case Kind.Format():
            return [(path, f"expected the format {kind.format!r}, got {got}")]
        case Kind.PropertyNames():
            return [(path, f"has a key that is not allowed: {_cut(_first_line(kind.error))}")]
    return [(path, f"does not fit its schema's {kind.name!r}, got {got}")]


def _explain_branches(
    branches: list[list[Any]], path: _Path, value: Any, root: dict[str, Any], config: Any
) -> list[tuple[_Path, str]]:
    """Why none of several schemas fits: the reason of the one that is meant, where type or tag tell which."""
    # An error in the value's own type, or in a constant (a variant's tag), means: not this variant.
    meant = [branch for branch in branches if branch and not any(_tells_apart(error, path) for error in branch)]
    if len(meant) == 1:
        return [fault for error in meant[0] for fault in _explain(error, root, config)]
    choices: dict[_Path, list[str]] = {}
    first: dict[_Path, Any] = {}
    for error in (error for branch in branches for error in branch if _tells_apart(error, path)):
        match error.kind:
            case Kind.Type():
                words = _type_words(error.kind.types)
            case Kind.Enum():
                words = [_json(option) for option in error.kind.options]
            case _:
                words = [_json(error.kind.expected_value)]
        where = tuple(error.instance_path)
        choices.setdefault(where, []).extend(words)
        first.setdefault(where, error)
    if meant or not choices:
        return [(path, f"fits none of the {len(branches)} forms that it may have, got {_described(value)}")]
    where = max(choices, key=len)  # the tag, rather than the object around it
    error = first[where]
    words = list(dict.fromkeys(choices[where]))
    return [(where, f"expected {_either(words)}, got {_got(where, error.instance, error, root)}")]


def _tells_apart(error: Any, path: _Path) -> bool:
    at_value = len(error.instance_path) == len(path)
    return isinstance(error.kind, Kind.Constant) or (at_value and isinstance(error.kind, Kind.Type | Kind.Enum))


_TYPE_WORDS = {
    "string": "a string",
    "integer": "an integer",
    "number": "a number",
    "boolean": "true or false",
    "object": "an object",
    "array": "an array",
    "null": "null",
}


def _type_words(types: list[str]) -> list[str]:
    """Types in words, null last."""
    return [_TYPE_WORDS.get(name, name) for name in sorted(types, key=lambda name: name == "null")]


def _parent_schema(root: dict[str, Any], error: Any) -> dict[str, Any]:
    """The schema whose keyword made the error."""
    target: Any = root
    location = error.absolute_keyword_location
    parts = list(error.schema_path)[:-1]
    if isinstance(location, str) and "#" in location:
        parts = [part.replace("~1", "/").replace("~0", "~") for part in location.split("#", 1)[1].split("/")[1:-1]]
    for part in parts:
        if isinstance(target, list):
            part = int(part)
            target = target[part] if part < len(target) else None
        elif isinstance(target, dict):
            target = target.get(part, target.get(str(part)))
    return target if isinstance(target, dict) else {}


def _properties(root: dict[str, Any], error: Any) -> Iterator[str]:
    schema = _parent_schema(root, error)
    yield from schema.get("properties", {})


def _about_field(error: Any, root: dict[str, Any], name: str) -> str:
    """The type of a missing field, in brackets, where the schema says it."""
    field = _parent_schema(root, error).get("properties", {}).get(name)
    if isinstance(field, dict) and isinstance(field.get("type"), str):
        return f" ({_TYPE_WORDS.get(field['type'], field['type'])} is required)"
    return ""


def _unknown(name: str, known: list[str]) -> str:
    if not known:
        return "unknown; there is nothing to configure here"
    near = difflib.get_close_matches(name, known, 1) or [
        each for each in known if each.lower().replace("-", "_") == name.lower().replace("-", "_")
    ]
    return f"unknown; did you mean {near[0]!r}?" if near else f"unknown; expected {_either([repr(k) for k in known])}"


def _got(path: _Path, value: Any, error: Any, root: dict[str, Any]) -> str:
    """A value for a message: cut short, and not at all where it may be a secret."""
    secret = any(isinstance(part, str) and _SECRET.search(part) for part in path)
    if not secret and error is not None:
        schema = _parent_schema(root, error)
        secret = bool(schema.get("writeOnly")) or schema.get("format") == "password"
    return _described(value) if secret or isinstance(value, dict | list) else _cut(_json(value))


def _described(value: Any) -> str:
    """A value's type and size, and nothing of what it holds."""
    match value:
        case None:
            return "null"
        case bool():
            return "true or false"
        case str():
            return f"a string of {_count(len(value), 'character')}"
        case int():
            return "an integer"
        case float():
            return "a number"
        case dict():
            return f"an object of {_count(len(value), 'field')}"
    return f"an array of {_count(len(value), 'item')}"


def _json(value: Any) -> str:
    return orjson.dumps(value).decode()


def _cut(text: str) -> str:
    return text if len(text) <= _MAX_SHOWN else text[: _MAX_SHOWN - 1] + "…"


def _count(number: int, thing: str) -> str:
    return f"{number} {thing}{'' if number == 1 else 's'}"


def _either(words: list[str]) -> str:
    if len(words) > 12:
        return ", ".join(words[:12]) + ", …"
    if not words:
        return "nothing at all"
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} or {words[-1]}"


def _dotted(path: _Path) -> str:
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).lstrip(".")
