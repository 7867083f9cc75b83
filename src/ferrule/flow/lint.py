"""Everything that can be known of a flow without running plugin code, and the one place where plugins are looked up.

:func:`resolve` turns a spec into plugins and complete configurations; the engine runs what it gives. :func:`examine`
is the same work for somebody who wants every error instead of the first, and who wants nothing to run: libraries are
read, not loaded, and a Python plugin's module is found and read, not imported.
"""

from __future__ import annotations

import ast
import difflib
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ferrule.errors import FerruleError, FlowError, InvalidConfigError, LibraryError, PluginNotFoundError
from ferrule.flow.document import Document, FlowSpec, ItemSpec, Overrides, in_order, raise_all, read_document
from ferrule.plugins.config import complete_config
from ferrule.plugins.registry import Found, Registry

__all__ = ["Examination", "ResolvedFlow", "ResolvedItem", "examine", "examine_document", "resolve"]


@dataclass(frozen=True, slots=True)
class ResolvedItem:
    """An item of a flow with everything that is needed to make an instance of it.

    Attributes:
        spec: What the file says.
        found: The plugin; None only in an :class:`Examination`, for a Python plugin, which it does not import.
        config: Checked against the plugin's schema, defaults filled in.
    """

    spec: ItemSpec
    found: Found | None
    config: dict[str, Any]

    @property
    def plugin(self) -> Found:
        """The plugin of a resolved flow's item."""
        assert self.found is not None, "only resolve() imports Python items"
        return self.found


@dataclass(frozen=True, slots=True)
class ResolvedFlow:
    """A flow whose plugins all exist and whose configurations all fit.

    Attributes:
        spec: What the file says.
        source: Where records come from.
        steps: In order.
        sink: Where they go.
        identity: What its checkpoints know it by, if that is not to be made of the items here.
    """

    spec: FlowSpec
    source: ResolvedItem
    steps: tuple[ResolvedItem, ...]
    sink: ResolvedItem
    identity: str | None = None


@dataclass(frozen=True, slots=True)
class Examination:
    """What :func:`examine` found.

    Attributes:
        spec: The flow, or None if its file has errors.
        items: Those whose plugin was found and whose configuration fits.
        errors: Sorted by position.
    """

    spec: FlowSpec | None
    items: tuple[ResolvedItem, ...]
    errors: tuple[FlowError, ...]


def resolve(spec: FlowSpec, registry: Registry) -> ResolvedFlow:
    """Find each item's plugin and complete its configuration.

    ``python:`` modules are imported, from the flow file's folder if they are nowhere else: the folder goes to the end
    of ``sys.path``.

    Raises:
        FlowError: With file, line and column; further ones are its notes.
    """
    items, errors = _resolve_items(spec.items, spec.path, registry, run=True)
    if errors:
        raise_all(in_order(errors))
    source, *steps, sink = items
    return ResolvedFlow(spec, source, tuple(steps), sink)


def examine(
    path: Path | str,
    *,
    registry: Registry | None = None,
    environ: Mapping[str, str] | None = None,
    set: Overrides | None = None,
) -> Examination:
    """Find everything that is wrong with a flow file without running any of it.

    Args:
        path: The file.
        registry: Where plugins are looked for; None makes one.
        environ: For ``${NAME}``; None is the process's environment.
        set: Values that replace the file's: see :func:`~ferrule.flow.document.read_document`.
    """
    return examine_document(read_document(path, environ=environ, set=set), registry or Registry())


def examine_document(document: Document, registry: Registry) -> Examination:
    """As :func:`examine`, for a document that has been read."""
    items, errors = _resolve_items(document.items, document.path, registry, run=False)
    return Examination(document.spec, tuple(items), in_order([*document.errors, *errors]))


def _resolve_items(
    specs: tuple[ItemSpec, ...], path: Path | None, registry: Registry, *, run: bool
) -> tuple[list[ResolvedItem], list[FlowError]]:
    items, errors = [], []
    for spec in specs:
        if spec.plugin is None and spec.python is None:
            continue  # the document has an error for it
        found = _Item(spec, path, registry).resolve(run=run)
        if isinstance(found, ResolvedItem):
            items.append(found)
        else:
            errors += found
    return items, errors


class _Item:
    """One item while it is looked up: turns whatever goes wrong into errors that stand in the file."""

    def __init__(self, spec: ItemSpec, path: Path | None, registry: Registry) -> None:
        self.spec = spec
        self.path = path
        self.folder = Path.cwd() if path is None else path.absolute().parent
        self.registry = registry

    def error(self, problem: str, *where: str | int, hint: str | None = None) -> FlowError:
        mark = self.spec.mark_of(*where)
        if mark.override is not None:
            problem = f"{problem} (set by {mark.override!r})"
        return FlowError(problem, path=self.path, line=mark.line, column=mark.column, hint=hint)

    def resolve(self, *, run: bool) -> ResolvedItem | list[FlowError]:
        if not run and (reference := self.spec.python or self.installed_reference()) is not None:
            problem = self.python_problem(*reference.split(":"))
            return ResolvedItem(self.spec, None, self.spec.config) if problem is None else [problem]
        try:
            found = self.find()
        except FlowError as error:
            return [error]
        try:
            config = complete_config(found.plugin.config, self.spec.config, plugin=found.plugin.name)
        except InvalidConfigError as error:
            return self.config_errors(error)
        return ResolvedItem(self.spec, found, config)

    def installed_reference(self) -> str | None:
        """``module:name`` if the plugin's name is that of an installed Python plugin, which `find` would import."""
        if self.spec.plugin is None or os.path.isabs(self.spec.plugin):
            return None  # a library's path
        for found in self.registry.scan().found:
            plugin = found.plugin
            meant = (plugin.kind, plugin.name) == (self.spec.kind, self.spec.plugin)
            if meant and self.spec.language in (None, plugin.language):
                return found.reference
        return None

    def find(self) -> Found:
        """The plugin.

        Raises:
            FlowError: There is none, or its library cannot be loaded here.
        """
        key = "plugin" if self.spec.python is None else "python"
        try:
            if self.spec.python is not None:
                if str(self.folder) not in sys.path:
                    sys.path.append(str(self.folder))
                return self.registry.find(self.spec.kind, f"python:{self.spec.python}", None)
            assert self.spec.plugin is not None
            return self.registry.find(self.spec.kind, self.spec.plugin, self.spec.language)
        except LibraryError as error:
            raise self.error(f"{error.path}: {error.problem}", key, hint=error.hint) from error
        except PluginNotFoundError as error:
            raise self.error(str(error), key) from error
        except FerruleError as error:
            raise self.error(str(error), key) from error

    def config_errors(self, error: InvalidConfigError) -> list[FlowError]:
        """An error for each field that its schema refuses, where that field stands."""
        fields = error.details.get("errors")
        if not isinstance(fields, list) or not fields:
            return [self.error(error.message, "config")]
        found = []
        for field in fields:
            where: list[str | int] = list(field["path"])
            name = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in where)
            found.append(self.error(f"{error.plugin}: config{name}: {field['message']}", "config", *where))
        return found

    # --- Python that is not imported ---

    def python_problem(self, module: str, name: str) -> FlowError | None:
        """What would keep `module:name` from being imported, as far as its source tells; None if nothing."""
        key = "plugin" if self.spec.python is None else "python"
        spec, missing = _find_module(module, self.folder)
        if spec is None:
            hint: str | None = f"It is looked for like any import, and then in {self.folder}."
            return self.error(f"there is no Python module {missing!r}", key, hint=hint)
        if spec.origin is None or not spec.origin.endswith(".py"):
            return None
        try:
            tree = ast.parse(Path(spec.origin).read_bytes(), spec.origin)
        except (OSError, SyntaxError, ValueError) as error:
            return self.error(f"Python module {module!r} cannot be read: {error}", key)
        names = _names(tree)
        first = name.split(".")[0]
        if names is None or first in names:
            return None
        near = difflib.get_close_matches(first, names, n=1)
        hint = f"Did you mean {module}:{near[0]}?" if near else None
        return self.error(f"Python module {module!r} has no {first!r}", key, hint=hint)


def _find_module(module: str, folder: Path) -> tuple[ModuleSpec | None, str]:
    """The module's spec without importing anything, packages around it included; else the part that is missing."""
    parts = module.split(".")
    try:
        spec = find_spec(parts[0]) or PathFinder.find_spec(parts[0], [str(folder)])
    except (ImportError, ValueError):  # ValueError: a module without a spec, such as __main__
        spec = None
    for length in range(2, len(parts) + 1):
        if spec is None:
            break
        spec = PathFinder.find_spec(".".join(parts[:length]), spec.submodule_search_locations or [])
        if spec is None:
            return None, ".".join(parts[:length])
    return spec, parts[0]


def _names(tree: ast.Module) -> set[str] | None:
    """The names that a module's top level makes; None if its source does not tell them all."""
    names: set[str] = set()
    pending: list[ast.stmt] = list(tree.body)
    while pending:
        node = pending.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
            continue
        if isinstance(node, ast.Import | ast.ImportFrom):
            names.update(alias.asname or alias.name.split(".")[0] for alias in node.names)
            continue
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.stmt):
                pending.append(child)
            elif isinstance(child, ast.ExceptHandler | ast.match_case):
                pending.extend(child.body)
        names.update(
            inner.id for inner in ast.walk(node) if isinstance(inner, ast.Name) and isinstance(inner.ctx, ast.Store)
        )
    return None if names & {"*", "__getattr__"} else names
