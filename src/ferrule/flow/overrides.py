"""Values that are set from outside a flow file, put in where the file's own would stand."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

from ferrule.flow.names import is_ekb, step_entries, step_names, text_of
from ferrule.flow.nodes import Branch, Listing, Mark, Node, Scalar, describe, is_null, node_of, read_nodes

__all__ = ["Overrides", "apply"]

Overrides = Mapping[str, Any] | Iterable[str]
"""``{"source.config.path": "x"}``, or ``["source.config.path=x"]`` with values as they are typed on a command line."""


class Fail(Protocol):
    """Told of a problem: where it is, what it is, and what to do about it."""

    def __call__(self, mark: Mark, problem: str, hint: str | None = None) -> None: ...


def apply(root: Branch, overrides: Overrides, fail: Fail) -> Branch:
    """A flow's tree with `overrides` in it.

    Args:
        root: The tree; it stays as it is.
        overrides: A step is named by its number from 0, or by its name.
        fail: Told of what cannot be set.
    """
    return _Applier(fail).apply(root, overrides)


class _Applier:
    def __init__(self, fail: Fail) -> None:
        self._fail = fail
        self._names: list[str] = []

    def apply(self, root: Branch, overrides: Overrides) -> Branch:
        pairs: Iterable[tuple[str, Node]]
        if isinstance(overrides, Mapping):
            pairs = [(key, node_of(value, Mark(None, None, f"{key}={value}"))) for key, value in overrides.items()]
        else:
            pairs = [pair for text in overrides if (pair := self._typed(text)) is not None]
        self._names = step_names(root)
        for key, value in pairs:
            changed = self._put(root, _keys(root, key), value, ())
            if isinstance(changed, Branch):
                root = changed
        return root

    def _typed(self, text: str) -> tuple[str, Node] | None:
        """``KEY=VALUE`` as it is typed: VALUE is a plain word of YAML, or a list, mapping or quoted text in YAML."""
        mark = Mark(None, None, text)
        key, equals, value = text.partition("=")
        if not equals or not key.strip() or any(not part.strip() for part in key.split(".")):
            self._fail(mark, "a value is set by KEY=VALUE", "For example 'source.config.path=data.csv'.")
            return None
        if value[:1] not in ("[", "{", '"', "'"):
            return key.strip(), Scalar(value, mark)
        node, errors = read_nodes(value)
        if node is None or errors:
            self._fail(mark, f"{value!r} cannot be read: {errors[0].problem if errors else 'it is empty'}")
            return None
        return key.strip(), _moved(node, mark)

    def _put(self, node: Node | None, keys: Sequence[str], value: Node, done: tuple[str, ...]) -> Node | None:
        if not keys:
            return value
        key, *rest = keys
        mark = value.mark
        if node is None or is_null(node):
            node = Branch({}, mark)
        if isinstance(node, Branch):
            old = node.entries.get(key)
            inner = self._put(old[1] if old else None, rest, value, (*done, key))
            if inner is None:
                return None
            at = mark if old is None or not rest else old[0]
            return replace(node, entries={**node.entries, key: (at, inner)})
        where = ".".join(done)
        if isinstance(node, Scalar):
            self._fail(mark, f"{where} is {describe(node)}, which has nothing inside it")
            return None
        index = int(key) if key.isascii() and key.isdigit() and len(key) < 9 else -1
        if not 0 <= index < len(node.items):
            has = f"{len(node.items)} entries, numbered from 0" if node.items else "no entries"
            hint = f"Their names are {', '.join(self._names)}." if where == "steps" and self._names else None
            self._fail(mark, f"{where} has no entry {key!r}; it has {has}", hint)
            return None
        inner = self._put(node.items[index], rest, value, (*done, key))
        if inner is None:
            return None
        return replace(node, items=(*node.items[:index], inner, *node.items[index + 1 :]))


def _keys(root: Branch, key: str) -> list[str]:
    """A dotted key with a step's name made its number, and EKB's source and sink found among its steps."""
    parts = key.split(".")
    steps = step_entries(root)
    if is_ekb(root) and parts[0] in ("source", "sink"):
        for index, entries in enumerate(steps):
            if text_of(entries, "connector_type").endswith(f"_{parts[0]}_connector"):
                return ["steps", str(index), *parts[1:]]
    names = step_names(root)
    if parts[0] == "steps" and len(parts) > 1 and not parts[1].isdigit() and parts[1] in names:
        parts[1] = str(names.index(parts[1]))
    return parts


def _moved(node: Node, mark: Mark) -> Node:
    """The node as if all of it stood at `mark`."""
    if isinstance(node, Scalar):
        return replace(node, mark=mark)
    if isinstance(node, Listing):
        return replace(node, mark=mark, items=tuple(_moved(item, mark) for item in node.items))
    entries = {key: (mark, _moved(inner, mark)) for key, (_, inner) in node.entries.items()}
    return replace(node, mark=mark, entries=entries)
