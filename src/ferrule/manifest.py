"""A library's manifest: which plugins it offers, with which methods and configurations.

The models are strict about what the host acts on (kinds, names, modes, threading, the methods that a kind needs) and
keep whatever they do not know, so that a newer SDK may say more than an older host understands.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args

import orjson
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator
from pydantic_core import ErrorDetails

from ferrule.errors import LibraryError, NotFoundError

__all__ = ["KINDS", "KIND_METHODS", "Kind", "Manifest", "Method", "Mode", "Plugin", "Threading", "parse_manifest"]

Kind = Literal["source", "function", "sink", "endpoint", "format", "processor", "runner"]
Mode = Literal["unary", "stream", "both", "none"]
Threading = Literal["serial", "concurrent"]

KINDS: tuple[Kind, ...] = get_args(Kind)

KIND_METHODS: dict[str, dict[str, tuple[Literal["unary", "stream"], bool]]] = {
    "source": {
        "connect": ("unary", False),
        "schema": ("unary", False),
        "read_data": ("stream", True),
        "close": ("unary", False),
    },
    "function": {"process": ("unary", True)},
    "sink": {
        "open": ("unary", False),
        "write": ("unary", True),
        "flush": ("unary", False),
        "close": ("unary", False),
    },
}
"""The methods that a kind's contract names: how each is called, and whether a plugin of that kind must have it."""

Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_-]{0,127}\z")]
MethodName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_.-]{0,127}\z")]
Symbol = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,1023}\z")]
Schema = dict[str, Any] | bool
"""A JSON Schema, or ``{"media_type": …, "text": …}`` for one in another language."""

_MAX_MANIFEST_BYTES = 16 << 20
_MAX_FAULTS_SHOWN = 5


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="allow", strict=True)


class Method(_Model):
    """A method that a plugin offers.

    Attributes:
        name: What it is called by.
        mode: "unary" (one answer), "stream", "both", or "none" (named, but not to be called).
        input: Media type of what it takes.
        output: Media type of each answer.
        args: Schema of what it takes, or None.
        result: Schema of each answer, or None.
        feed: Schema of what is fed to its stream, or None.
        feed_input: Media type of what is fed to its stream; without one, JSON where ``feed`` is a JSON Schema, else
            bytes.
        metadata: Whether its stream says something beside its items, which are then read one by one.
        cancellable: Whether it heeds a cancel while it runs.
        need_feed: Whether its stream waits to be fed.
    """

    name: MethodName
    mode: Mode
    input: str = "application/json"
    output: str = "application/json"
    args: Schema | None = None
    result: Schema | None = None
    feed: Schema | None = None
    feed_input: str | None = None
    metadata: bool = False
    cancellable: bool = False
    need_feed: bool = False
    description: str = ""

    @property
    def unary(self) -> bool:
        """Whether it can be called for one answer."""
        return self.mode in ("unary", "both")

    @property
    def stream(self) -> bool:
        """Whether it can be opened as a stream."""
        return self.mode in ("stream", "both")

    @property
    def feed_type(self) -> str:
        """Media type of what is fed to its stream."""
        if self.feed_input is not None:
            return self.feed_input
        if self.feed is None:
            return "application/octet-stream"
        named = self.feed.get("media_type") if isinstance(self.feed, dict) else None
        return named if isinstance(named, str) else "application/json"


class Plugin(_Model):
    """A plugin that a library, or Python code, offers.

    Attributes:
        name: Unique, together with the kind, in its library.
        kind: Which contract its methods keep.
        language: What it is written in: "rust", "c", "python", …
        threading: "serial": calls come one at a time; "concurrent": they may overlap.
        entry_point: Its create symbol, where that is not the usual one.
        config: JSON Schema of its configuration; ``{}`` takes only the empty one.
        methods: What can be called.
    """

    name: Name
    kind: Kind
    language: str = "native"
    description: str = ""
    threading: Threading = "serial"
    entry_point: Symbol | None = None
    config: dict[str, Any] = Field(default_factory=dict)
    methods: Annotated[list[Method], Field(min_length=1)]
    subscriptions: list[Any] = Field(default_factory=list)
    extensions: list[Any] = Field(default_factory=list)
    capabilities: list[Any] = Field(default_factory=list)
    permissions: list[Any] = Field(default_factory=list)

    def method(self, name: str) -> Method:
        """The method of that name.

        Raises:
            NotFoundError: It has none; the message names the nearest.
        """
        for method in self.methods:
            if method.name == name:
                return method
        names = [method.name for method in self.methods]
        near = difflib.get_close_matches(name, names, 1)
        advice = f"did you mean {near[0]!r}?" if near else f"it has {', '.join(names)}"
        raise NotFoundError(f"no such method; {advice}", plugin=self.name, method=name)

    def has(self, name: str) -> bool:
        """Whether there is a method of that name."""
        return any(method.name == name for method in self.methods)

    @property
    def symbols(self) -> tuple[str, str, str]:
        """What its library must export for it: manifest, create, destroy."""
        return ("ferrule_plugin_manifest", self.entry_point or "ferrule_plugin_create", "ferrule_plugin_destroy")

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.config.get("type", "object") != "object":
            raise ValueError(f'config.type: expected "object", got {_shown(self.config["type"])}')
        _require_unique("methods", (method.name for method in self.methods))
        for name, (way, required) in KIND_METHODS.get(self.kind, {}).items():
            method = next((method for method in self.methods if method.name == name), None)
            if method is None:
                if required:
                    raise ValueError(f"methods: a {self.kind} needs a method {name!r} of mode {way!r}")
            elif not (method.unary if way == "unary" else method.stream):
                index = self.methods.index(method)
                raise ValueError(
                    f"methods[{index}].mode: {name!r} of a {self.kind} is {way!r} or 'both', got {method.mode!r}"
                )
        return self


class Manifest(_Model):
    """What a library says of itself."""

    name: Name
    version: str
    description: str = ""
    license: str | None = None
    plugins: Annotated[list[Plugin], Field(min_length=1)]
    depends: list[Any] = Field(default_factory=list)

    def plugin(self, name: str, kind: str | None = None) -> Plugin | None:
        """The first plugin of that name, and of that kind if one is given; None if there is none."""
        return next((one for one in self.plugins if one.name == name and kind in (None, one.kind)), None)

    @model_validator(mode="after")
    def _check(self) -> Self:
        _require_unique("plugins", (f"{plugin.kind} {plugin.name}" for plugin in self.plugins))
        return self


def parse_manifest(data: bytes, path: Path | str) -> Manifest:
    """The manifest that a library's JSON says.

    Args:
        data: The JSON, as :attr:`ferrule.native.image.Image.manifest_json` holds it.
        path: The library, for error messages.

    Raises:
        LibraryError: It is no JSON, or a field is missing, wrong or there twice; the message names each field.

    >>> parse_manifest(b'{"name": "x", "version": "1.0.0", "plugins": []}', "libx.so")
    Traceback (most recent call last):
    ...
    ferrule.errors.LibraryError: libx.so: its manifest is wrong: plugins: expected at least one item, got none
    """
    if len(data) > _MAX_MANIFEST_BYTES:
        raise LibraryError(path, f"its manifest has {len(data):,} bytes; {_MAX_MANIFEST_BYTES:,} is the most")
    try:
        value = orjson.loads(data)
    except ValueError as error:
        raise LibraryError(path, f"its manifest is no JSON: {error}") from None
    if not isinstance(value, dict):
        raise LibraryError(path, f"its manifest is no JSON object but {_shown(value)}")
    try:
        return Manifest.model_validate(value)
    except ValidationError as error:
        faults = [_fault_text(fault) for fault in error.errors(include_url=False)]
    # The two branches of a schema (object or true/false) each complain of the same field.
    faults = list(dict.fromkeys(faults))
    shown = "; ".join(faults[:_MAX_FAULTS_SHOWN])
    more = f"; and {len(faults) - _MAX_FAULTS_SHOWN} more" if len(faults) > _MAX_FAULTS_SHOWN else ""
    raise LibraryError(path, f"its manifest is wrong: {shown}{more}")


def _require_unique(field: str, names: Iterable[str]) -> None:
    seen: dict[str, int] = {}
    for index, name in enumerate(names):
        if seen.setdefault(name, index) != index:
            raise ValueError(f"{field}[{index}]: {name!r} is there already, as {field}[{seen[name]}]")


_EXPECTED = {
    "string_type": "a string",
    "bool_type": "true or false",
    "dict_type": "an object",
    "list_type": "an array",
    "model_type": "an object",
    "tuple_type": "an array",
}
_PATTERNS = {
    "^[a-z0-9][a-z0-9_-]{0,127}\\z": "lower-case letters, digits, - and _ (at most 128)",
    "^[A-Za-z_][A-Za-z0-9_.-]{0,127}\\z": "letters, digits, _, . and - (at most 128)",
    "^[A-Za-z_][A-Za-z0-9_]{0,1023}\\z": "a C name",
}


def _fault_text(fault: ErrorDetails) -> str:
    """One of pydantic's complaints, as `plugins[0].methods[1].mode: expected …, got …`."""
    parts = [part for part in fault["loc"] if part not in ("dict[str,any]", "bool")]
    field = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in parts).lstrip(".")
    kind, context = fault["type"], fault.get("ctx", {})
    if kind == "value_error":  # our own, which begins with the field below this one
        text = str(context["error"])
        return f"{field}.{text}" if field else text
    if kind == "missing":
        return f"{field}: missing"
    if kind == "too_short":
        return f"{field}: expected at least one item, got none"
    got = _shown(fault["input"])
    if kind == "literal_error":
        return f"{field}: expected one of {context['expected']}, got {got}"
    if kind == "string_pattern_mismatch":
        return f"{field}: expected {_PATTERNS.get(str(context['pattern']), context['pattern'])}, got {got}"
    if fault["loc"] and fault["loc"][-1] in ("dict[str,any]", "bool"):
        return f"{field}: expected a JSON Schema, got {got}"
    return f"{field}: expected {_EXPECTED.get(kind, fault['msg'])}, got {got}"


def _shown(value: Any) -> str:
    """A JSON value as JSON, cut short."""
    text = orjson.dumps(value).decode()
    return text if len(text) <= 60 else text[:57] + "…"
