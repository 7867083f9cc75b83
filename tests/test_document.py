"""Flow files: tests/flows/valid and tests/flows/invalid are the specification, and this holds the reader to them.

A valid file has a ``.json`` beside it, which says what it must be read as. An invalid file says on top, one comment an
error, what must be found: ``# expect: LINE:COLUMN fragment of the message``, with ``-`` for an error that concerns the
whole file.
"""

from __future__ import annotations

import json
import os
import re
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ferrule.errors import FlowError
from ferrule.flow.document import Document, FlowSpec, read_document, read_text

FLOWS = Path(__file__).parent / "flows"
ENVIRON = {"DATA": "/data", "NUMBER": "42", "EMPTY": "", "TEMPLATE": "${NUMBER}"}

SMALL = (
    "source: {plugin: hello-source}\nsteps:\n  - {plugin: redact}\n  - {plugin: redact}\nsink: {plugin: jsonl-sink}\n"
)
EKB = (FLOWS / "valid" / "ekb.yaml").read_text(encoding="utf-8")


def as_json(spec: FlowSpec) -> dict[str, Any]:
    """What a `.json` beside a valid file says. The file's folder is written FOLDER."""

    def item(one: Any) -> dict[str, Any]:
        found = {"name": one.name, "config": one.config, "on_error": one.on_error}
        if one.retry is not None:
            found["retry"] = asdict(one.retry)
        if one.plugin is not None:
            found["plugin"] = one.plugin.replace(str(FLOWS / "valid"), "FOLDER")
        if one.python is not None:
            found["python"] = one.python
        if one.language is not None:
            found["language"] = one.language
        return found

    found = {
        "name": spec.name,
        "source": item(spec.source),
        "steps": [item(step) for step in spec.steps],
        "sink": item(spec.sink),
        "dead_letter": None if spec.dead_letter is None else str(spec.dead_letter),
    }
    if spec.checkpoint is not None:
        found["delivery"] = {"checkpoint": str(spec.checkpoint), "durable": spec.durable}
    if (spec.lanes, spec.in_order) != (1, True):
        found["lanes"] = {"lanes": spec.lanes, "in_order": spec.in_order}
    if spec.tests:
        found["tests"] = [without_marks(asdict(test)) for test in spec.tests]
    return found


def without_marks(value: Any) -> Any:
    """What is left when nothing says where it stands."""
    if isinstance(value, dict):
        return {key: without_marks(inner) for key, inner in value.items() if key != "mark"}
    return [without_marks(inner) for inner in value] if isinstance(value, list | tuple) else value


def problems(document: Document) -> list[str]:
    return [str(error) for error in document.errors]


@pytest.mark.parametrize("path", sorted((FLOWS / "valid").glob("*.yaml")), ids=lambda path: path.stem)
def test_a_valid_flow_is_read_as_its_json_says(path: Path) -> None:
    """Every file in flows/valid gives exactly the spec that stands beside it, types of values included."""
    document = read_document(path, environ=ENVIRON)
    assert problems(document) == []
    expected = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    # Compared as text, so that 1, 1.0 and true are three things.
    assert json.dumps(as_json(document.require()), indent=1) == json.dumps(expected, indent=1)


@pytest.mark.parametrize("path", sorted((FLOWS / "invalid").glob("*.yaml")), ids=lambda path: path.stem)
def test_an_invalid_flow_gives_every_error_where_it_stands(path: Path) -> None:
    """Every file in flows/invalid gives exactly the errors that its first lines expect: all of them, in order."""
    expected = []
    for line in path.read_bytes().decode("utf-8", "replace").splitlines():
        if line.startswith("# expect: "):
            where, _, fragment = line.removeprefix("# expect: ").partition(" ")
            expected.append((where, fragment))
    assert expected, "the file expects nothing"
    document = read_document(path, environ={})
    found = [("-" if error.line is None else f"{error.line}:{error.column}", error) for error in document.errors]
    assert [where for where, _ in found] == [where for where, _ in expected], problems(document)
    for (_, fragment), (_, error) in zip(expected, found, strict=True):
        assert fragment in error.problem
        assert error.path == path
    assert document.spec is None


def test_the_first_error_is_raised_and_the_others_are_its_notes() -> None:
    """`require` raises one FlowError that carries the rest, so nothing is lost to who only catches it."""
    document = read_document(FLOWS / "invalid" / "several.yaml")
    with pytest.raises(FlowError) as caught:
        document.require()
    assert [str(caught.value), *caught.value.__notes__] == problems(document)
    assert len(document.errors) == 6


def test_items_that_are_good_are_given_although_others_are_not() -> None:
    """A file with an error in one step still gives the other items, so that they can be checked further."""
    document = read_text(SMALL.replace("- {plugin: redact}", "- {plugn: redact}", 1))
    assert document.spec is None
    assert [item.name for item in document.items] == ["hello-source", "step", "redact", "jsonl-sink"]


def test_the_readme_s_flow_is_one() -> None:
    """What the README shows can be read."""
    readme = (FLOWS.parents[1] / "README.md").read_text(encoding="utf-8")
    (text,) = re.findall(r"```yaml\n(.*?)```", readme, re.DOTALL)
    spec = read_text(text).require()
    assert [test.name for test in spec.tests] == ["a flight without a departure is a dead letter"]


# --- files ----------------------------------------------------------------------------------------


def test_a_file_that_is_missing_names_a_near_one(tmp_path: Path) -> None:
    """The error names the file that was probably meant."""
    (tmp_path / "flights.yaml").touch()
    assert problems(read_document(tmp_path / "flihgts.yaml")) == [
        f"{tmp_path}/flihgts.yaml: there is no such file. Did you mean {tmp_path}/flights.yaml?"
    ]


def test_what_is_no_readable_file_is_one_error(tmp_path: Path) -> None:
    """A folder, an empty file, a pipe, a loop of links, a name with NUL and too large a file are one error each."""
    (tmp_path / "empty").touch()
    (tmp_path / "large").write_bytes(b"# x\n" * (1 << 20))
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    os.mkfifo(tmp_path / "pipe")
    for name, fragment in {
        "": "this is a folder",
        "empty": "the file is empty",
        "large": "larger than 1 MiB",
        "loop": "there is no such file",
        "pipe": "no regular file",
        "a\0b": "there is no such file",
    }.items():
        (error,) = read_document(tmp_path / name).errors
        assert fragment in error.problem
        assert error.line is None


def test_an_unreadable_file_says_why(tmp_path: Path) -> None:
    """What the operating system refuses is told in its words."""
    path = tmp_path / "secret.yaml"
    path.touch(mode=0o000)
    if os.access(path, os.R_OK):
        pytest.skip("this user may read everything")
    (error,) = read_document(path).errors
    assert error.problem == "cannot be read: Permission denied"


def test_a_byte_order_mark_is_skipped(tmp_path: Path) -> None:
    """Editors on Windows write one; columns are counted without it."""
    (tmp_path / "bom.yaml").write_bytes(b"\xef\xbb\xbf" + SMALL.encode())
    assert read_document(tmp_path / "bom.yaml").require().name == "bom"


def test_a_flow_without_a_file_takes_libraries_from_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Text has no folder, so `read_text` resolves a library's path like a shell would."""
    monkeypatch.chdir(tmp_path)
    spec = read_text(SMALL.replace("hello-source", "./libhello.so:hello")).require()
    assert spec.source.plugin == f"{tmp_path}/libhello.so:hello"
    assert (spec.name, spec.path) == ("flow", None)


# --- positions ------------------------------------------------------------------------------------


def test_every_part_of_an_item_knows_where_it_stands() -> None:
    """`mark_of` gives the line and column of a key or a list's item, or of what is around it."""
    text = "source:\n  plugin: a\n  config:\n    b:\n      - c: 1\n      - 2\nsink: {plugin: s, config: {}}\n"
    source = read_text(text).require().source

    def at(*where: str | int) -> tuple[int | None, int | None]:
        mark = source.mark_of(*where)
        return mark.line, mark.column

    assert at() == (1, 1)
    assert at("plugin") == (2, 3)
    assert at("config") == (3, 3)
    assert at("config", "b") == (4, 5)
    assert at("config", "b", 0) == (5, 9)
    assert at("config", "b", 0, "c") == (5, 9)
    assert at("config", "b", 1) == (6, 9)
    assert at("config", "b", 7, "nowhere") == (4, 5)
    assert at("on_error") == (1, 1)


# --- values from outside --------------------------------------------------------------------------


def config_of(spec: FlowSpec, name: str) -> dict[str, Any]:
    return next(item.config for item in spec.items if item.name == name)


@pytest.mark.parametrize(
    ("text", "name", "config"),
    [
        ("source.config.path=x.csv", "hello-source", {"path": "x.csv"}),
        ("source.config.a.b.c=1", "hello-source", {"a": {"b": {"c": 1}}}),
        ("steps.0.config.n=0x10", "redact", {"n": 16}),
        ("steps.1.config.n=yes", "redact-2", {"n": "yes"}),
        ("steps.redact-2.config.n=true", "redact-2", {"n": True}),
        ("steps.redact.config.n=", "redact", {"n": None}),
        ('steps.redact.config.n=""', "redact", {"n": ""}),
        ("steps.redact.config.fields=[a, b]", "redact", {"fields": ["a", "b"]}),
        ("steps.redact.config={a: {b: '1'}}", "redact", {"a": {"b": "1"}}),
        ("sink.config.path=a=b: c", "jsonl-sink", {"path": "a=b: c"}),
        ("sink.config.path=${NOT_A_VARIABLE}", "jsonl-sink", {"path": "${NOT_A_VARIABLE}"}),
        ("sink.config.path=*.csv", "jsonl-sink", {"path": "*.csv"}),
    ],
)
def test_a_value_set_from_outside_takes_the_place_of_the_files(text: str, name: str, config: dict[str, Any]) -> None:
    """Dotted keys reach everything; a value is a plain word unless it begins like a list, a mapping or quotes."""
    assert config_of(read_text(SMALL, set=[text]).require(), name) == config


def test_a_library_set_from_outside_is_relative_to_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is typed at a prompt means what it means there; what stands in the file goes with the file."""
    (tmp_path / "flows").mkdir()
    (tmp_path / "flows" / "flow.yaml").write_text(SMALL.replace("hello-source", "./libhello.so"))
    monkeypatch.chdir(tmp_path)
    spec = read_document("flows/flow.yaml", set=["sink.plugin=./libsink.so"]).require()
    assert (spec.source.plugin, spec.sink.plugin) == (f"{tmp_path}/flows/libhello.so", f"{tmp_path}/libsink.so")


def test_values_set_from_python_keep_their_types() -> None:
    """A mapping of overrides takes values as they are, with no text in between."""
    values = {"a": "1", "b": 1, "c": 1.0, "d": None, "e": [True, {"f": "${X}"}]}
    spec = read_text(SMALL, set={f"source.config.{key}": value for key, value in values.items()}).require()
    assert json.dumps(spec.source.config) == json.dumps(values)


def test_setting_a_value_replaces_a_variable_that_is_missing() -> None:
    """What is not used is not asked for."""
    text = SMALL.replace("hello-source}", "hello-source, config: {path: '${FERRULE_TEST_MISSING}'}}")
    assert read_text(text, environ={}).spec is None
    assert read_text(text, environ={}, set=["source.config.path=x"]).spec is not None


def test_ekbs_source_and_sink_are_reached_by_their_role_number_and_name() -> None:
    """EKB's flow has only steps, and `source`, `sink` still mean what they say."""
    overrides = ["source.config.a=1", "steps.1.config.plugin_name=x", "steps.jsonl-sink.config.path=y", "name=n"]
    spec = read_text(EKB, set=overrides).require()
    assert (spec.name, spec.source.config, spec.sink.config) == ("n", {"a": 1}, {"path": "y"})
    assert spec.steps[0].config == {"plugin_name": "x"}


@pytest.mark.parametrize(
    ("text", "fragment"),
    [
        ("nothing", "a value is set by KEY=VALUE"),
        ("=x", "a value is set by KEY=VALUE"),
        ("a..b=x", "a value is set by KEY=VALUE"),
        ("sorce.config.path=x", "a flow has no key 'sorce'"),
        ("steps.2.config.a=x", "steps has no entry '2'; it has 2 entries, numbered from 0"),
        ("steps.mask.config.a=x", "steps has no entry 'mask'"),
        ("source.plugin.name=x", "source.plugin is the text 'hello-source', which has nothing inside it"),
        ("source.config=x", "config is a mapping, not the text 'x'"),
        ("source.config.a=[1", "'[1' cannot be read"),
        ("steps.0.on_error=never", "on_error is fail, skip or dead_letter, not 'never'"),
        ("source.config.a=.nan", "JSON has no such number"),
    ],
)
def test_what_cannot_be_set_is_an_error_that_names_it(text: str, fragment: str) -> None:
    """The error repeats what was asked for, since it stands in no line of the file."""
    (error,) = read_text(SMALL, set=[text]).errors
    assert fragment in error.problem
    assert f"(set by {text!r})" in error.problem
    assert error.line is None


# --- whatever comes -------------------------------------------------------------------------------

YAML_PIECES = st.sampled_from(
    ["source", "steps", "sink", "plugin", "config", "a", ": ", ":", "- ", "\n", "\n  ", "{", "}", "[", "]", ", ", "&a ",
     "*a", "!!str ", "!x ", "${X}", "${", "'", '"', "|", ">", "#", "---\n", "...", "%YAML 1.1\n", "? ", "\t", "<<", "~"]
)  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(st.one_of(st.lists(YAML_PIECES, max_size=40).map("".join), st.text(max_size=60)))
def test_no_text_makes_the_reader_fail(text: str) -> None:
    """Any text gives a spec or at least one FlowError, and no other exception."""
    document = read_text(text, environ={"X": "1"})
    assert (document.spec is None) == bool(document.errors)


def test_brackets_without_end_are_refused_at_once() -> None:
    """A thousand opening brackets, which cost the YAML scanner quadratic time, are cut off by their depth."""
    (error,) = read_text("[" * 100_000).errors
    assert "more than 64" in error.problem
