"""YAML text as a tree of nodes that know where they stand. Knows YAML 1.2, and nothing of flows.

The tree is built from ruamel.yaml's events rather than by its constructors, because a flow file needs what
those throw away: the position of every key, whether a scalar was quoted, and all faults instead of the first.
It is also where a file is held to a size: depth, and the number of nodes that aliases expand to.

Positions are a line and a column, both from 1.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.events import (
    AliasEvent,
    DocumentStartEvent,
    MappingEndEvent,
    MappingStartEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
)
from ruamel.yaml.reader import ReaderError

from ferrule.errors import FlowError

__all__ = [
    "Branch",
    "Listing",
    "Mark",
    "Node",
    "Scalar",
    "describe",
    "describe_value",
    "is_null",
    "node_of",
    "plain_value",
    "read_nodes",
    "scalar_value",
]

MAX_DEPTH = 64
"""Collections inside one another. A flow needs five or six."""

MAX_NODES = 100_000
"""Nodes of a file with its aliases written out; ten lines of nested aliases can make billions."""


@dataclass(frozen=True, slots=True)
class Mark:
    """Where something stands.

    Attributes:
        line: From 1; None for what was not in the file.
        column: From 1; None likewise.
        override: ``KEY=VALUE``, when it was set from outside the file.
    """

    line: int | None
    column: int | None
    override: str | None = None


@dataclass(frozen=True, slots=True)
class Scalar:
    """One value: its text, and whether it was written without quotes."""

    text: str
    mark: Mark
    plain: bool = True
    tag: str | None = None
    size: int = 1


@dataclass(frozen=True, slots=True)
class Listing:
    """A sequence."""

    items: tuple[Node, ...]
    mark: Mark
    size: int = 1


@dataclass(frozen=True, slots=True)
class Branch:
    """A mapping, its keys in the file's order; each key once."""

    entries: dict[str, tuple[Mark, Node]]
    mark: Mark
    size: int = 1


Node = Scalar | Listing | Branch


@dataclass(slots=True)
class _Open:
    """A collection whose end has not been read."""

    mark: Mark
    anchor: str | None
    is_mapping: bool
    items: list[Node] = field(default_factory=list)
    entries: dict[str, tuple[Mark, Node]] = field(default_factory=dict)
    key: tuple[str, Mark] | None = None
    complex_key: bool = False
    size: int = 1


class _Fault(Exception):
    """Reading cannot go on."""

    def __init__(self, mark: Mark, problem: str, hint: str | None = None) -> None:
        super().__init__(problem)
        self.mark = mark
        self.problem = problem
        self.hint = hint


def read_nodes(text: str, path: Path | None = None) -> tuple[Node | None, list[FlowError]]:
    """Read one YAML document.

    Args:
        text: The document.
        path: For the errors.

    Returns:
        The root, or None if the text cannot be read or holds no document; and every fault that was found.
    """
    reader = _NodeReader(path)
    try:
        return reader.read(text), reader.errors
    except _Fault as fault:
        reader.report(fault.mark, fault.problem, fault.hint)
    except MarkedYAMLError as error:
        reader.report(*_explain(error, text))
    except ReaderError as error:
        # The reader counts characters from the start of the text, not lines.
        mark = _mark_at(text, int(error.position))
        code = error.character if isinstance(error.character, int) else ord(str(error.character)[:1] or "\0")
        reader.report(mark, f"character U+{code:04X} is not allowed in YAML", "Take it out, or write it as \\u.")
    except YAMLError as error:
        reader.report(Mark(None, None), f"this is no YAML: {error}", None)
    return None, reader.errors


class _NodeReader:
    def __init__(self, path: Path | None) -> None:
        self.path = path
        self.errors: list[FlowError] = []
        self._anchors: dict[str, Node] = {}
        self._stack: list[_Open] = []
        self._root: Node | None = None
        self._total = 0

    def report(self, mark: Mark, problem: str, hint: str | None = None) -> None:
        self.errors.append(FlowError(problem, path=self.path, line=mark.line, column=mark.column, hint=hint))

    def read(self, text: str) -> Node | None:
        documents = 0
        for event in _events(text):
            mark = Mark(event.start_mark.line + 1, event.start_mark.column + 1)
            if isinstance(event, DocumentStartEvent):
                documents += 1
                if documents > 1:
                    raise _Fault(mark, "a second document starts here", "A flow file holds one; split the file.")
            elif isinstance(event, ScalarEvent):
                tag = None if event.tag is None else str(event.tag)
                # A long text counts for more, so that aliases cannot make much of it either.
                size = 1 + len(event.value) // 100
                self._add(Scalar(event.value, mark, plain=not event.style, tag=tag, size=size), event.anchor)
            elif isinstance(event, AliasEvent):
                self._add(self._alias(str(event.anchor), mark), None)
            elif isinstance(event, MappingStartEvent | SequenceStartEvent):
                if len(self._stack) >= MAX_DEPTH:
                    raise _Fault(mark, f"more than {MAX_DEPTH} lists and mappings inside one another")
                self._check_tag(event.tag, mark)
                self._stack.append(_Open(mark, event.anchor, isinstance(event, MappingStartEvent)))
            elif isinstance(event, MappingEndEvent | SequenceEndEvent):
                done = self._stack.pop()
                node: Node
                if done.is_mapping:
                    node = Branch(done.entries, done.mark, done.size)
                else:
                    node = Listing(tuple(done.items), done.mark, done.size)
                self._add(node, done.anchor)
        return self._root

    def _check_tag(self, tag: object, mark: Mark) -> None:
        if tag is not None and str(tag) not in ("tag:yaml.org,2002:map", "tag:yaml.org,2002:seq", "!"):
            self.report(mark, f"tag {_short_tag(str(tag))} is not known here", "Leave it out.")

    def _alias(self, name: str, mark: Mark) -> Node:
        node = self._anchors.get(name)
        if node is None:
            raise _Fault(mark, f"alias *{name} has no anchor &{name} above it")
        return node

    def _add(self, node: Node, anchor: str | None) -> None:
        if anchor is not None:
            self._anchors[anchor] = node
        if not self._stack:
            self._root = node
            return
        parent = self._stack[-1]
        parent.size += node.size
        if parent.size > MAX_NODES:
            raise _Fault(node.mark, f"more than {MAX_NODES:,} values, with the aliases written out")
        if not parent.is_mapping:
            parent.items.append(node)
        elif parent.complex_key:
            parent.complex_key = False
        elif parent.key is None:
            if isinstance(node, Scalar):
                parent.key = (node.text, node.mark)
            else:
                self.report(node.mark, "a key must be a word, not a list or a mapping")
                parent.complex_key = True
        else:
            self._add_entry(parent, *parent.key, node)
            parent.key = None

    def _add_entry(self, parent: _Open, key: str, mark: Mark, node: Node) -> None:
        if key in parent.entries:
            first = parent.entries[key][0]
            self.report(mark, f"key {key!r} is here a second time", f"The first is in line {first.line}; keep one.")
        elif key == "<<":
            self.report(mark, "merge keys (<<) are not part of YAML 1.2", "Write the keys out.")
        else:
            parent.entries[key] = (mark, node)


def _events(text: str) -> Iterator[Any]:
    yield from YAML(typ="safe", pure=True).parse(text)


def _explain(error: MarkedYAMLError, text: str) -> tuple[Mark, str, str | None]:
    """A scanner's or parser's message in the words of a flow's author."""
    at = error.problem_mark or error.context_mark
    mark = Mark(None, None) if at is None else Mark(at.line + 1, at.column + 1)
    problem = str(error.problem or "this is no YAML").strip()
    lines = text.splitlines()
    line = lines[mark.line - 1] if mark.line is not None and mark.line <= len(lines) else ""
    if "'\\t'" in problem:
        return mark, "a tab stands where YAML takes only spaces", "Indent with spaces."
    if problem == "mapping values are not allowed here":
        return mark, "a second ':' in one value", "Put a value that holds ': ' in quotes, and check the indentation."
    if "\\x00" in problem or "<stream end>" in problem or "end of stream" in problem:
        begun = (
            f" at line {error.context_mark.line + 1}, column {error.context_mark.column + 1}"
            if (error.context_mark is not None)
            else ""
        )
        return mark, f"the file ends {_context(error)}", f"Close what was opened{begun}."
    hint = None
    if "<block end>" in problem or "could not find expected ':'" in problem:
        return mark, "this line does not fit the lines above it", "Check the indentation, and that a key ends in ': '."
    if re.search(r"[\[{,:]\s*[^\s'\",]*\$\{", line):
        # YAML itself forbids braces in an unquoted value inside { } and [ ].
        hint = 'Inside { } and [ ] write a variable in quotes: "${NAME}".'
    return mark, f"this is no YAML: {problem}, {_context(error)}", hint


def _context(error: MarkedYAMLError) -> str:
    return str(error.context).strip() if error.context else "in the middle of a value"


def _mark_at(text: str, position: int) -> Mark:
    before = text[:position]
    return Mark(before.count("\n") + 1, position - (before.rfind("\n") + 1) + 1)


def _short_tag(tag: str) -> str:
    return tag.replace("tag:yaml.org,2002:", "!!")


# --- values ---------------------------------------------------------------------------------------

_NULL = {"", "~", "null", "Null", "NULL"}
_TRUE = {"true", "True", "TRUE"}
_FALSE = {"false", "False", "FALSE"}
_INTEGER = re.compile(r"[-+]?[0-9]+")
_OCTAL = re.compile(r"0o[0-7]+")
_HEXADECIMAL = re.compile(r"0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_NOT_FINITE = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")


def plain_value(text: str) -> Any:
    """What an unquoted scalar is by YAML 1.2's core schema: None, a bool, an int, a float, or the text itself.

    Raises:
        ValueError: It is an infinity, not a number, or too large, none of which JSON can hold.
    """
    if text in _NULL:
        return None
    if text in _TRUE:
        return True
    if text in _FALSE:
        return False
    if _INTEGER.fullmatch(text):
        if len(text) > 40:
            raise ValueError(f"number {text[:20]}… is too long")
        return int(text)
    if _OCTAL.fullmatch(text):
        return int(text[2:], 8)
    if _HEXADECIMAL.fullmatch(text):
        return int(text[2:], 16)
    if _FLOAT.fullmatch(text):
        number = float(text)
        if math.isinf(number):
            raise ValueError(f"number {text} is too large")
        return number
    if _NOT_FINITE.fullmatch(text):
        raise ValueError(f"{text} cannot be a value here: JSON has no such number")
    return text


_TAGGED = {"str", "int", "float", "bool", "null"}


def scalar_value(scalar: Scalar) -> Any:
    """The value of a scalar, by its tag, its quotes and the core schema.

    Raises:
        ValueError: It has no value that JSON can hold, or its tag is not known.
    """
    if scalar.tag is None:
        return plain_value(scalar.text) if scalar.plain else scalar.text
    name = scalar.tag.removeprefix("tag:yaml.org,2002:")
    if name in ("str", "!"):
        return scalar.text
    if name not in _TAGGED:
        raise ValueError(f"tag {_short_tag(scalar.tag)} is not known here")
    value = plain_value(scalar.text)
    if name == "float" and type(value) is int:
        return float(value)
    found = "null" if value is None else type(value).__name__
    if found != name:
        raise ValueError(f"{scalar.text!r} is no {_short_tag(scalar.tag)}")
    return value


def node_of(value: Any, mark: Mark) -> Node:
    """A node for a plain Python value, all of it standing at `mark`.

    Raises:
        TypeError: The value is nothing that JSON can hold.
    """
    if isinstance(value, str):
        return Scalar(value, mark, plain=False)
    if value is None or isinstance(value, bool):
        return Scalar({None: "null", True: "true", False: "false"}[value], mark)
    if isinstance(value, int):
        return Scalar(str(value), mark)
    if isinstance(value, float) and math.isfinite(value):
        return Scalar(repr(value), mark, tag="tag:yaml.org,2002:float")
    if isinstance(value, Mapping):
        return Branch({str(key): (mark, node_of(inner, mark)) for key, inner in value.items()}, mark)
    if isinstance(value, list | tuple):
        return Listing(tuple(node_of(inner, mark) for inner in value), mark)
    raise TypeError(f"a flow takes what JSON can hold, not {type(value).__name__}")


def is_null(node: Node) -> bool:
    """Whether a node is an empty value."""
    return isinstance(node, Scalar) and node.plain and node.tag is None and "${" not in node.text and node.text in _NULL


def describe(node: Node) -> str:
    """What a node is, for an error message."""
    if isinstance(node, Branch):
        return "a mapping"
    if isinstance(node, Listing):
        return "a list"
    if is_null(node):
        return "an empty value"
    try:
        return describe_value(scalar_value(node))
    except ValueError:
        return repr(node.text)


def describe_value(value: Any) -> str:
    """What a scalar's value is, for an error message."""
    if value is None:
        return "an empty value"
    if isinstance(value, bool):
        return f"the boolean {str(value).lower()}"
    if isinstance(value, int | float):
        return f"the number {value}"
    return f"the text {_shorten(str(value))!r}"


def _shorten(text: str) -> str:
    return text if len(text) <= 40 else text[:40] + "…"
