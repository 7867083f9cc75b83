"""Manifests: what is refused, field by field, and what is kept."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from ferrule.errors import LibraryError, NotFoundError
from ferrule.manifest import KIND_METHODS, KINDS, Manifest, parse_manifest

GOOD: dict[str, Any] = {
    "name": "csv-tools",
    "version": "0.1.0",
    "description": "Reads CSV.",
    "license": "Apache-2.0 OR MIT",
    "plugins": [
        {
            "name": "csv-source",
            "kind": "source",
            "language": "rust",
            "config": {"type": "object", "properties": {"path": {"type": "string"}}},
            "methods": [
                {"name": "connect", "mode": "unary"},
                {"name": "read_data", "mode": "stream", "output": "application/x-ndjson", "cancellable": True},
            ],
        },
        {
            "name": "stamp",
            "kind": "function",
            "threading": "concurrent",
            "entry_point": "make_stamp",
            "methods": [{"name": "process", "mode": "both", "args": True, "result": {"type": "object"}}],
        },
    ],
}


def parse(value: object) -> Manifest:
    return parse_manifest(json.dumps(value).encode(), "libx.so")


def changed(*path: str | int, to: Any = None, drop: bool = False) -> dict[str, Any]:
    """GOOD with one thing else."""
    value = copy.deepcopy(GOOD)
    place: Any = value
    for part in path[:-1]:
        place = place[part]
    if drop:
        del place[path[-1]]
    else:
        place[path[-1]] = to
    return value


def test_a_manifest_is_read_with_its_defaults() -> None:
    """Every field has the value that the manifest gives, or its documented default."""
    manifest = parse(GOOD)
    source, stamp = manifest.plugins
    assert (manifest.name, manifest.version, manifest.license) == ("csv-tools", "0.1.0", "Apache-2.0 OR MIT")
    assert (source.kind, source.language, source.threading, source.entry_point) == ("source", "rust", "serial", None)
    assert (stamp.language, stamp.threading, stamp.config) == ("native", "concurrent", {})
    connect, read_data = source.methods
    assert (connect.input, connect.output, connect.args) == ("application/json", "application/json", None)
    assert (read_data.stream, read_data.unary, read_data.cancellable) == (True, False, True)
    assert stamp.method("process").unary and stamp.method("process").stream
    assert stamp.method("process").args is True
    assert source.symbols == ("ferrule_plugin_manifest", "ferrule_plugin_create", "ferrule_plugin_destroy")
    assert stamp.symbols == ("ferrule_plugin_manifest", "make_stamp", "ferrule_plugin_destroy")


def test_plugins_and_methods_are_found_by_name() -> None:
    """A plugin is found by name and kind, a method by name; an unknown method names the nearest."""
    manifest = parse(GOOD)
    source = manifest.plugin("csv-source")
    assert source is manifest.plugins[0]
    assert manifest.plugin("csv-source", "sink") is None
    assert manifest.plugin("other") is None
    assert source is not None and source.has("connect") and not source.has("close")
    with pytest.raises(NotFoundError, match="did you mean 'read_data'") as caught:
        source.method("read_date")
    assert (caught.value.plugin, caught.value.method) == ("csv-source", "read_date")
    with pytest.raises(NotFoundError, match="it has connect, read_data"):
        source.method("zzz")


def test_unknown_keys_are_kept() -> None:
    """What a newer SDK says beyond this host is no error, and not lost."""
    value = changed("plugins", 0, "methods", 0, "priority", to=3)
    value["signed_by"] = "somebody"
    manifest = parse(value)
    assert manifest.model_extra == {"signed_by": "somebody"}
    assert manifest.plugins[0].methods[0].model_extra == {"priority": 3}


def test_a_manifest_does_not_change() -> None:
    """Models are frozen."""
    with pytest.raises(ValidationError):
        parse(GOOD).plugins[0].name = "other"


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (changed("name", drop=True), "name: missing"),
        (changed("name", to="CSV Tools"), 'name: expected lower-case letters, digits, - and _ (at most 128), got "CSV'),
        (changed("name", to="x\n"), "name: expected lower-case letters"),
        (changed("name", to="x" * 129), "name: expected lower-case letters"),
        (changed("version", to=1), "version: expected a string, got 1"),
        (changed("plugins", to=[]), "plugins: expected at least one item, got none"),
        (changed("plugins", to={}), "plugins: expected an array, got {}"),
        (changed("plugins", 0, to="x"), 'plugins[0]: expected an object, got "x"'),
        (changed("plugins", 0, "kind", to="filter"), "plugins[0].kind: expected one of 'source', 'function', 'sink'"),
        (changed("plugins", 0, "kind", to=None), "plugins[0].kind: expected one of 'source'"),
        (
            changed("plugins", 0, "threading", to="fast"),
            "plugins[0].threading: expected one of 'serial' or 'concurrent'",
        ),
        (changed("plugins", 0, "entry_point", to="a b"), 'plugins[0].entry_point: expected a C name, got "a b"'),
        (changed("plugins", 0, "config", to=[]), "plugins[0].config: expected an object, got []"),
        (changed("plugins", 0, "config", "type", to="array"), 'plugins[0].config.type: expected "object", got "array"'),
        (changed("plugins", 0, "methods", to=[]), "plugins[0].methods: expected at least one item"),
        (changed("plugins", 0, "methods", 1, "name", drop=True), "plugins[0].methods[1].name: missing"),
        (
            changed("plugins", 0, "methods", 1, "mode", to="streaming"),
            "plugins[0].methods[1].mode: expected one of 'unary', 'stream', 'both' or 'none', got \"streaming\"",
        ),
        (
            changed("plugins", 0, "methods", 1, "args", to=3),
            "plugins[0].methods[1].args: expected a JSON Schema, got 3",
        ),
        (
            changed("plugins", 0, "methods", 1, "cancellable", to="yes"),
            'plugins[0].methods[1].cancellable: expected true or false, got "yes"',
        ),
        (
            changed("plugins", 0, "methods", 1, "name", to="connect"),
            "plugins[0].methods[1]: 'connect' is there already, as methods[0]",
        ),
        (
            changed("plugins", 1, to=GOOD["plugins"][0]),
            "plugins[1]: 'source csv-source' is there already, as plugins[0]",
        ),
        (
            changed("plugins", 0, "methods", 1, "mode", to="unary"),
            "plugins[0].methods[1].mode: 'read_data' of a source is 'stream' or 'both', got 'unary'",
        ),
        (
            changed("plugins", 0, "methods", 0, "mode", to="stream"),
            "plugins[0].methods[0].mode: 'connect' of a source is 'unary' or 'both', got 'stream'",
        ),
        ([], "is no JSON object but []"),
        (None, "is no JSON object but null"),
    ],
)
def test_what_is_wrong_is_named(value: object, said: str) -> None:
    """Each wrong field is named by its path, with what was expected and what was found."""
    with pytest.raises(LibraryError) as caught:
        parse(value)
    assert said in caught.value.problem
    assert str(caught.value).startswith("libx.so: its manifest is ")


def test_several_faults_are_said_at_once() -> None:
    """All faults are listed, up to five."""
    value = changed("version", drop=True)
    value["plugins"][0]["kind"] = "x"
    value["plugins"][1]["methods"] = [{"name": "process", "mode": "x"}] * 9
    with pytest.raises(LibraryError) as caught:
        parse(value)
    assert caught.value.problem.startswith("its manifest is wrong: version: missing; plugins[0].kind: expected")
    assert caught.value.problem.endswith("; and 6 more")


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind in KIND_METHODS])
def test_a_kind_needs_its_methods(kind: str) -> None:
    """A source needs read_data, a function process, a sink write; the rest of their contracts may be missing."""
    ways = KIND_METHODS[kind]
    needed = [{"name": name, "mode": way} for name, (way, required) in ways.items() if required]
    plugin = {"name": "x", "kind": kind, "methods": needed}
    assert parse({"name": "x", "version": "1", "plugins": [plugin]}).plugins[0].kind == kind
    with pytest.raises(LibraryError, match=f"a {kind} needs a method '{needed[0]['name']}'"):
        parse({"name": "x", "version": "1", "plugins": [{**plugin, "methods": [{"name": "other", "mode": "unary"}]}]})


def test_one_name_for_several_kinds() -> None:
    """A name may stand for plugins of different kinds in one library."""
    value = changed("plugins", 1, "name", to="csv-source")
    assert [plugin.kind for plugin in parse(value).plugins] == ["source", "function"]


@pytest.mark.parametrize("data", [b"", b"{", b"\xff\xfe", b"{'name': 1}", b"[" * 100_000, b"{}{}", b'{"a": NaN}'])
def test_what_is_no_json(data: bytes) -> None:
    """Text that is no JSON is a LibraryError that says where."""
    with pytest.raises(LibraryError, match="its manifest is no JSON"):
        parse_manifest(data, "libx.so")


def test_a_manifest_that_is_too_long() -> None:
    """More than 16 MiB is refused unparsed."""
    with pytest.raises(LibraryError, match="16,777,216 is the most"):
        parse_manifest(b" " * ((16 << 20) + 1), "libx.so")


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**40), 2**40)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
PATHS = [
    ("name",),
    ("version",),
    ("plugins",),
    ("plugins", 0),
    ("plugins", 1, "kind"),
    ("plugins", 1, "name"),
    ("plugins", 0, "config"),
    ("plugins", 0, "methods"),
    ("plugins", 0, "methods", 1),
    ("plugins", 0, "methods", 1, "mode"),
    ("plugins", 0, "methods", 0, "feed"),
    ("plugins", 1, "entry_point"),
    ("depends",),
]


@settings(max_examples=300, deadline=None)
@given(path=st.sampled_from(PATHS), value=JSON)
def test_any_json_is_read_or_refused(path: tuple[str | int, ...], value: object) -> None:
    """Whatever stands in a field, the manifest is read or refused with one line."""
    try:
        parse(changed(*path, to=value))
    except LibraryError as error:
        assert "its manifest is wrong: " in str(error)
        assert len(str(error)) < 2000


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_are_refused(data: bytes) -> None:
    """Bytes that are no manifest are a LibraryError."""
    with pytest.raises(LibraryError):
        parse_manifest(data, "libx.so")
