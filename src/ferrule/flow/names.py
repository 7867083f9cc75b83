"""What the items of a flow file are called, in both dialects, also while the file is not known to be well-formed."""

from __future__ import annotations

import re
from collections.abc import Mapping

from ferrule.flow.nodes import Branch, Listing, Mark, Node, Scalar

__all__ = ["LIBRARY", "is_ekb", "numbered", "short_name", "step_entries", "step_names", "text_of"]

LIBRARY = re.compile(r"(?P<path>.*\.(?:so|dylib|dll)|.*[/\\][^:]*)(?::(?P<plugin>[^:/\\]+))?", re.DOTALL)
"""A plugin's name that is a library's path, with or without the plugin in it."""


def is_ekb(root: Branch) -> bool:
    """Whether a step has one of EKB's keys, and nothing at the top says that the file is ferrule's own."""
    steps = root.entries.get("steps")
    if steps is None or not isinstance(steps[1], Listing) or "source" in root.entries or "sink" in root.entries:
        return False
    keys = {"connector_type", "processor_type"}
    return any(isinstance(item, Branch) and not keys.isdisjoint(item.entries) for item in steps[1].items)


def step_entries(root: Branch) -> list[Mapping[str, tuple[Mark, Node]]]:
    """What each entry of ``steps`` holds; nothing for one that is no mapping."""
    steps = root.entries.get("steps")
    if steps is None or not isinstance(steps[1], Listing):
        return []
    return [item.entries if isinstance(item, Branch) else {} for item in steps[1].items]


def step_names(root: Branch) -> list[str]:
    """The names that the entries of ``steps`` will have; the document's reader says the same of checked items."""
    steps = step_entries(root)
    if is_ekb(root):
        taken: dict[str, Mark] = {}
        return [numbered(short_name(text_of(entries, "name")), taken) for entries in steps]
    source, sink = (
        node.entries if isinstance(node, Branch) else {}
        for node in (root.entries.get(role, (None, None))[1] for role in ("source", "sink"))
    )
    taken = {text_of(entries, "name"): Mark(None, None) for entries in (source, *steps, sink)}
    if not text_of(source, "name"):
        _default_name(source, taken)
    return [text_of(entries, "name") or _default_name(entries, taken) for entries in steps]


def text_of(entries: Mapping[str, tuple[Mark, Node]], key: str) -> str:
    """The text at a key as it is written, or nothing."""
    found = entries.get(key)
    return found[1].text if found is not None and isinstance(found[1], Scalar) else ""


def _default_name(entries: Mapping[str, tuple[Mark, Node]], taken: dict[str, Mark]) -> str:
    return numbered(short_name(text_of(entries, "plugin") or text_of(entries, "python")), taken)


def numbered(name: str, taken: dict[str, Mark]) -> str:
    """`name`, or `name` with the first free number from 2; it is taken from now on."""
    count, found = 1, name
    while found in taken:
        count += 1
        found = f"{name}-{count}"
    taken[found] = Mark(None, None)
    return found


def short_name(reference: str) -> str:
    """What to call an item after its plugin: for a library the plugin in it, or the file without lib and ending."""
    library = LIBRARY.fullmatch(reference)
    if library is None:
        return reference.rpartition(":")[2]
    stem = re.split(r"[/\\]", library["path"])[-1]
    return library["plugin"] or re.sub(r"\.(so|dylib|dll)$", "", stem).removeprefix("lib") or reference
