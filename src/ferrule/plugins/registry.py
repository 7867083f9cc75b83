"""Finds plugins: in libraries, by reading them, and in Python packages, by their entry points.

Scanning runs nothing: a library is read, not loaded, and a Python plugin is known by its entry point until somebody
asks for it. The places, in order; the first plugin of a kind, name and language wins, and later ones are reported:

1. folders and libraries given by hand,
2. ``FERRULE_PLUGIN_PATH``,
3. ``{sys.prefix}/share/ferrule/plugins``,
4. entry points of group ``ferrule.plugins``,
5. the user's folder,
6. the system's folders.

An entry point is one of two things. ``"source.ticks" = "package.module:Ticks"`` is a Python class or function; its name
is ``KIND.NAME``, ``KIND:NAME`` or only ``NAME``, which means a function. ``"anything" = "package"`` is a package whose
folder holds libraries. The package is found, not imported.
"""

from __future__ import annotations

import difflib
import importlib
import importlib.metadata
import importlib.util
import inspect
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import platformdirs
from pydantic import BaseModel, ValidationError

from ferrule.errors import LibraryError, PluginNotFoundError
from ferrule.manifest import KIND_METHODS, KINDS, Manifest, Plugin, parse_manifest
from ferrule.native.image import read_image

__all__ = ["Found", "Place", "Registry", "Rejected", "Scan", "python_plugin"]

ENTRY_POINT_GROUP = "ferrule.plugins"
LIBRARY_SUFFIXES = (".so", ".dylib", ".dll")

_LIBRARY_NAME = re.compile(r"(?P<path>.+\.(?:so|dylib|dll))(?::(?P<plugin>[^:/\\]+))?\Z", re.DOTALL)
_PLUGIN_OF_PATH = re.compile(r"(?P<path>.*[/\\][^:/\\]*):(?P<plugin>[^:/\\]+)\Z", re.DOTALL)


_RELATIVE = "is relative, and plugins are not looked for in whatever folder one stands in"


@dataclass(frozen=True)
class Place:
    """A folder, or a library, where plugins are looked for; it need not exist.

    Attributes:
        path: Absolute.
        origin: Who named it: "given", "FERRULE_PLUGIN_PATH", "environment", "entry point NAME", "user" or "system".
    """

    path: Path
    origin: str


@dataclass(frozen=True)
class Found:
    """A plugin that was found; nothing of it has run, unless it is a Python one that somebody asked for.

    Attributes:
        plugin: What it says of itself. For a Python plugin in a scan, only what its entry point tells.
        manifest: Its library's manifest; for a Python plugin, one made from its package.
        origin: The place's origin.
        path: The library, or None for a Python plugin.
        reference: ``module:name`` of a Python plugin, else None.
        target: The Python class or function, once it is imported, else None.
    """

    plugin: Plugin
    manifest: Manifest
    origin: str
    path: Path | None = None
    reference: str | None = None
    target: Callable[..., Any] | None = None


@dataclass(frozen=True)
class Rejected:
    """A file, folder or entry point in which plugins were expected, and why there is none.

    Attributes:
        path: The file; for an entry point, its name.
        problem: What is wrong, in one sentence.
        hint: What to do about it, or None.
        origin: The place's origin.
    """

    path: Path
    problem: str
    hint: str | None
    origin: str


@dataclass(frozen=True)
class Scan:
    """What the search path holds.

    Attributes:
        found: In the order of the search path, by file name within a folder.
        rejected: Files that hold no plugin for this host.
        shadowed: Plugins of the same kind, name and language as one that comes before them.
    """

    found: list[Found] = field(default_factory=list)
    rejected: list[Rejected] = field(default_factory=list)
    shadowed: list[Found] = field(default_factory=list)

    def nearest(self, name: str, kind: str | None = None) -> str | None:
        """The name most like `name` among the plugins of a kind, or of all kinds."""
        names = {found.plugin.name for found in self.found if kind in (None, found.plugin.kind)}
        plain = {each.replace("_", "-"): each for each in sorted(names)}
        near = difflib.get_close_matches(name.lower().replace("_", "-"), plain, 1)
        return plain[near[0]] if near else None


class Registry:
    """The plugins of a search path. Scans once, at the first question, and again when something is missing.

    Args:
        paths: Folders and libraries to look in before the usual places; they may be relative.
        environ: The environment to read; None is the process's.
        only: Whether `paths` are all, and the usual places are left out.

    >>> Registry([], only=True).scan().found
    []
    """

    def __init__(
        self,
        paths: Iterable[Path | str] | None = None,
        *,
        environ: Mapping[str, str] | None = None,
        only: bool = False,
    ) -> None:
        self._given = [Path(os.path.expanduser(path)).absolute() for path in paths or ()]
        self._environ = os.environ if environ is None else environ
        self._only = only
        self._scan: Scan | None = None

    def search_path(self) -> list[Place]:
        """Where plugins are looked for, in order. Entry points that are Python code have no place."""
        return [place for place in self._places() if isinstance(place, Place)]

    def scan(self, *, refresh: bool = False) -> Scan:
        """What the search path holds: read, and not run.

        Args:
            refresh: Look again, although it was looked before.
        """
        if self._scan is None or refresh:
            self._scan = self._look()
        return self._scan

    def find(self, kind: str | None, name: str, language: str | None = None) -> Found:
        """The plugin that is meant.

        Args:
            kind: Its kind; None if the name alone tells.
            name: A plugin's name; or a library's path, with ``:NAME`` where it holds several plugins (what has a
                slash or ends in .so, .dylib or .dll); or ``python:module:name``.
            language: Its language, where there are twins; None takes the first.

        Raises:
            PluginNotFoundError: There is none, or several are meant; the message says where was looked.
            LibraryError: `name` is a path, and the file is no library for this host.
        """
        name = name.strip()
        if name.startswith("python:"):
            return _of_kind(python_plugin(name), kind)
        path, plugin = split_library(name)
        if path is not None:
            return self._find_in_library(path, plugin, kind)
        fresh = self._scan is None
        found = self._find_named(kind, name, language)
        if found is None and not fresh:  # built or installed since?
            self.scan(refresh=True)
            found = self._find_named(kind, name, language)
        if found is None:
            raise self._not_found(kind, name, language)
        if found.reference is None:
            return found
        loaded = python_plugin(found.reference, origin=found.origin, name=found.plugin.name, kind=found.plugin.kind)
        return replace(loaded, manifest=_python_manifest(loaded.plugin, found.manifest.version))

    # ---- scanning ----

    def _places(self) -> Iterator[Place | Rejected | Found]:
        """The search path, with the Python plugins among its entry points, and what is wrong with it."""
        for path in self._given:
            yield Place(path, "given")
        if self._only:
            return
        for text in self._environ.get("FERRULE_PLUGIN_PATH", "").split(os.pathsep):
            path = Path(os.path.expanduser(text))
            if path.is_absolute():
                yield Place(path, "FERRULE_PLUGIN_PATH")
            elif text:
                problem = _RELATIVE
                yield Rejected(Path(text), problem, "Write the whole path", "FERRULE_PLUGIN_PATH")
        yield Place(Path(sys.prefix, "share", "ferrule", "plugins"), "environment")
        yield from _entry_points()
        yield Place(Path(platformdirs.user_data_dir("ferrule", appauthor=False), "plugins"), "user")
        for folder in platformdirs.site_data_dir("ferrule", appauthor=False, multipath=True).split(os.pathsep):
            yield Place(Path(folder, "plugins"), "system")

    def _look(self) -> Scan:
        scan = Scan()
        first: set[tuple[str, str, str]] = set()
        seen: set[str] = set()

        def add(found: Found) -> None:
            key = (found.plugin.kind, found.plugin.name, found.plugin.language)
            (scan.shadowed if key in first else scan.found).append(found)
            first.add(key)

        for place in self._places():
            if isinstance(place, Rejected):
                scan.rejected.append(place)
            elif isinstance(place, Found):
                add(place)
            else:
                try:
                    files = _library_files(place)
                except OSError as error:
                    missing = isinstance(error, FileNotFoundError)
                    problem = "does not exist" if missing else f"cannot be read: {error.strerror or error}"
                    scan.rejected.append(Rejected(place.path, problem, None, place.origin))
                    continue
                for path in files:
                    if (real := os.path.realpath(path)) in seen:  # a folder that is named twice hides nothing
                        continue
                    seen.add(real)
                    try:
                        for found in _read_library(path, place.origin):
                            add(found)
                    except LibraryError as error:
                        scan.rejected.append(Rejected(path, error.problem, error.hint, place.origin))
        return scan

    # ---- finding ----

    def _find_named(self, kind: str | None, name: str, language: str | None) -> Found | None:
        matches = [
            found
            for found in self.scan().found
            if found.plugin.name == name
            and kind in (None, found.plugin.kind)
            and language in (None, found.plugin.language)
        ]
        kinds = sorted({found.plugin.kind for found in matches})
        if len(kinds) > 1:
            raise PluginNotFoundError(
                f"{name!r} is the name of several plugins: a {' and a '.join(kinds)}. Say which kind", name=name
            )
        return matches[0] if matches else None

    def _find_in_library(self, path: Path, name: str | None, kind: str | None) -> Found:
        all_of_it = _read_library(path, "given")
        matches = [
            found for found in all_of_it if name in (None, found.plugin.name) and kind in (None, found.plugin.kind)
        ]
        if len(matches) == 1:
            return matches[0]
        listed = ", ".join(f"{found.plugin.kind} {found.plugin.name}" for found in all_of_it)
        wanted = f"{kind or 'plugin'}{'' if name is None else f' {name!r}'}"
        if not matches:
            near = difflib.get_close_matches(name or "", [found.plugin.name for found in all_of_it], 1)
            raise PluginNotFoundError(
                f"{path} holds no {wanted}; it holds {listed}",
                name=name or str(path),
                nearest=near[0] if near else None,
            )
        raise PluginNotFoundError(
            f"{path} holds several plugins: {listed}. Say which: {path}:{matches[0].plugin.name}", name=str(path)
        )

    def _not_found(self, kind: str | None, name: str, language: str | None) -> PluginNotFoundError:
        scan = self.scan()
        what = " ".join(word for word in (language, kind, "plugin") if word)
        near = scan.nearest(name, kind)
        parts = [f"there is no {what} {name!r}"]
        same = [found.plugin for found in scan.found if found.plugin.name == name]
        if same:
            parts.append(f"{name!r} is " + " and ".join(sorted({f"a {one.language} {one.kind}" for one in same})))
        elif near is not None:
            parts.append(f"did you mean {near!r}?")
        plain = name.lower().replace("_", "-")
        for rejected in scan.rejected:
            stem = rejected.path.name.split(".")[0].removeprefix("lib").lower().replace("_", "-")
            if stem == plain or (name in rejected.path.name and rejected.origin.startswith("entry point")):
                its = "" if rejected.problem.startswith("its ") else "it "
                parts.append(f"{rejected.path} was passed over: {its}{rejected.problem}")
            elif rejected.problem == _RELATIVE:
                parts.append(f"{rejected.path} in {rejected.origin} was passed over: it {_RELATIVE}")
        places = [str(place.path) for place in self.search_path() if place.path.exists()]
        parts.append(f"looked in {', '.join(places)}" if places else "no folder of the search path exists")
        text = parts[0]
        for part in parts[1:]:
            text += ("; " if not text.endswith("?") else " ") + part
        return PluginNotFoundError(text, name=name, nearest=near)


def split_library(name: str) -> tuple[Path | None, str | None]:
    """Path and plugin of ``PATH``, ``PATH:PLUGIN``; (None, None) for a plain name.

    >>> split_library("./libcsv.so:csv-source")
    (PosixPath('libcsv.so'), 'csv-source')
    >>> split_library("csv-source")
    (None, None)
    """
    match = _LIBRARY_NAME.match(name)
    if match is None and ("/" in name or os.sep in name):
        if not Path(name).exists():
            match = _PLUGIN_OF_PATH.match(name)
        if match is None:
            return Path(os.path.expanduser(name)), None
    if match is None:
        return None, None
    return Path(os.path.expanduser(match["path"])), match["plugin"]


def _library_files(place: Place) -> list[Path]:
    """The libraries of a place, by name; none if it does not exist."""
    path = place.path
    if path.suffix in LIBRARY_SUFFIXES and not path.is_dir():
        return [path]
    try:
        return sorted(Path(entry.path) for entry in os.scandir(path) if entry.name.endswith(LIBRARY_SUFFIXES))
    except FileNotFoundError:
        if place.origin == "given":
            raise
        return []


def _read_library(path: Path, origin: str) -> list[Found]:
    """The plugins of a library that this host can load.

    Raises:
        LibraryError: It is none.
    """
    image = read_image(path)
    image.require_loadable()
    manifest = parse_manifest(image.manifest_json, image.path)
    for plugin in manifest.plugins:
        image.require_symbols(plugin.symbols)
    return [Found(plugin, manifest, origin, path=image.path) for plugin in manifest.plugins]


# ---- entry points ----------------------------------------------------------------------------------------------


def _entry_points() -> Iterator[Place | Rejected | Found]:
    """What the installed packages offer, sorted by name; nothing is imported."""
    points = importlib.metadata.entry_points(group=ENTRY_POINT_GROUP)
    for point in sorted(points, key=lambda each: (each.name, each.value)):
        package = f" of {point.dist.name}" if point.dist is not None else ""
        origin = f"entry point {point.name}{package}"
        try:
            if point.attr:
                yield _python_entry_point(point, origin)
            else:
                yield from (Place(folder, origin) for folder in _package_folders(point.module))
        except Exception as error:  # finders are anybody's code
            yield Rejected(Path(point.name), f"is an entry point that is wrong: {error}", None, origin)


def _python_entry_point(point: importlib.metadata.EntryPoint, origin: str) -> Found:
    kind, _, name = point.name.replace(":", ".", 1).rpartition(".")
    kind = kind or "function"
    if kind not in KINDS:
        raise ValueError(f"its name begins with {kind!r}; a kind is one of {', '.join(KINDS)}")
    methods = _contract(kind, lambda _: False)
    known = {"name": name, "kind": kind, "language": "python", "config": {"type": "object"}}
    try:
        plugin = Plugin.model_validate(known | {"methods": methods or [{"name": "unknown", "mode": "none"}]})
    except ValidationError:
        raise ValueError(f"{name!r} is no plugin's name: lower-case letters, digits, - and _") from None
    if not methods:  # a kind without a contract: its methods are known once it is imported
        plugin = plugin.model_copy(update={"methods": []})
    version = point.dist.version if point.dist is not None else "0"
    reference = f"{point.module}:{point.attr}"
    return Found(plugin, _python_manifest(plugin, version), origin, reference=reference)


def _package_folders(module: str) -> list[Path]:
    """The folders of a package, or a module's folder, found without importing it or those around it.

    Raises:
        ImportError: There is none.
    """
    path: Any = None
    spec = None
    for index in range(1, module.count(".") + 2):
        part = ".".join(module.split(".")[:index])
        # Not importlib.util.find_spec, which imports the packages around a module.
        spec = next((spec for finder in sys.meta_path if (spec := finder.find_spec(part, path, None))), None)
        if spec is None:
            raise ImportError(f"there is no module {part!r}")
        path = spec.submodule_search_locations
    if path:
        return [Path(folder) for folder in path]
    if spec is None or spec.origin is None or not os.path.isabs(spec.origin):
        raise ImportError(f"module {module!r} has no folder")
    return [Path(spec.origin).parent]


# ---- Python plugins --------------------------------------------------------------------------------------------


def python_plugin(reference: str, *, origin: str = "python", name: str | None = None, kind: str | None = None) -> Found:
    """The plugin that a Python class or function is. This imports its module.

    A function is the ``process`` of a function plugin. A class is told by its methods: ``process`` makes it a function,
    ``read_data`` a source, ``write`` a sink. What a class may say of itself: ``name`` (else its own name in
    kebab-case), ``kind``, ``description`` (else its docstring's first line), ``threading``, and its configuration by
    ``config_schema`` (a JSON Schema) or ``Config`` (a pydantic model); with neither, it takes any object.

    Args:
        reference: ``module:name``, with or without ``python:`` before it; the name may have dots.
        origin: For the answer.
        name: The plugin's name, where an entry point gives it.
        kind: Its kind, where an entry point gives it.

    Raises:
        PluginNotFoundError: The module or the name does not exist, the import fails, or it is no plugin.
    """
    reference = reference.strip().removeprefix("python:").strip()
    module_name, _, attribute = (part.strip() for part in reference.partition(":"))

    def refuse(problem: str, nearest: str | None = None, cause: BaseException | None = None) -> PluginNotFoundError:
        error = PluginNotFoundError(f"python:{reference}: {problem}", name=reference, nearest=nearest)
        error.__cause__ = cause
        return error

    if not module_name or not attribute or ":" in attribute:
        raise refuse("expected python:module:name, such as python:my_package.steps:stamp")
    try:
        target: Any = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is not None and (module_name == error.name or module_name.startswith(f"{error.name}.")):
            raise refuse(f"there is no module {error.name!r}; Python looks in sys.path", cause=error) from error
        raise refuse(f"module {module_name!r} cannot be imported: {error}", cause=error) from error
    except Exception as error:
        raise refuse(f"importing {module_name!r} fails: {type(error).__name__}: {error}", cause=error) from error
    for part in attribute.split("."):
        names = [each for each in dir(target) if not each.startswith("_")]
        try:
            target = getattr(target, part)
        except AttributeError:
            near = difflib.get_close_matches(part, names, 1)
            advice = f"; did you mean {near[0]!r}?" if near else ""
            raise refuse(f"{module_name!r} has no {part!r}{advice}", near[0] if near else None) from None
    try:
        plugin = _describe(target, name, kind)
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        place = ".".join(str(part) for part in fault["loc"])
        raise refuse(f"it says something wrong of itself: {place}: {fault['msg']}") from None
    except ValueError as error:
        raise refuse(str(error)) from None
    manifest = _python_manifest(plugin, _module_version(module_name))
    return Found(plugin, manifest, origin, reference=f"{module_name}:{attribute}", target=target)


def _describe(target: Any, name: str | None, kind: str | None) -> Plugin:
    """A Python object's manifest.

    Raises:
        ValueError: It is no plugin; the message says what is missing.
    """
    is_class = inspect.isclass(target)
    if not is_class and not inspect.isfunction(target):
        raise ValueError(f"is a {type(target).__name__}; a plugin is a class, or a function written in Python")
    if is_class:
        kinds = _kinds_of(target)
        own = getattr(target, "kind", None) or kind
        if own is None and len(kinds) > 1:
            raise ValueError(f"has the methods of a {' and of a '.join(kinds)}; its attribute 'kind' has to say which")
        kind = own or (kinds[0] if kinds else None)
        if kind is None:
            raise ValueError("has none of the methods process (a function), read_data (a source), write (a sink)")
        if kind in KIND_METHODS and kind not in kinds:
            needed = next(method for method, (_, must) in KIND_METHODS[kind].items() if must)
            raise ValueError(f"is said to be a {kind}, and has no method {needed!r}")
    elif kind not in (None, "function"):
        raise ValueError(f"is said to be a {kind}, and is a plain function; a {kind} is a class")
    else:
        kind = "function"
    methods = _contract(kind, lambda method: is_class and callable(getattr(target, method, None)))
    if not methods:  # a kind whose contract is not known yet: whatever is public
        methods = [
            {"name": method, "mode": "stream" if inspect.isgeneratorfunction(value) else "unary"}
            for method, value in inspect.getmembers(target, callable)
            if not method.startswith("_") and method != "Config"
        ]
    return Plugin.model_validate(
        {
            "name": name or (getattr(target, "name", None) if is_class else None) or _kebab(target),
            "kind": kind,
            "language": "python",
            "description": getattr(target, "description", None) or (inspect.getdoc(target) or "").partition("\n")[0],
            "threading": getattr(target, "threading", None) or "serial",
            "config": _python_schema(target) if is_class else {},
            "methods": methods,
        }
    )


def _kinds_of(target: Any) -> list[str]:
    """The kinds whose required methods a class has."""
    return [
        kind
        for kind, methods in KIND_METHODS.items()
        if all(callable(getattr(target, method, None)) for method, (_, required) in methods.items() if required)
    ]


def _contract(kind: str, has: Callable[[str], bool]) -> list[dict[str, Any]]:
    """A kind's methods: the required ones, and those that are there."""
    return [
        {"name": method, "mode": way}
        for method, (way, required) in KIND_METHODS.get(kind, {}).items()
        if required or has(method)
    ]


def _python_schema(target: Any) -> dict[str, Any]:
    schema = getattr(target, "config_schema", None)
    if callable(schema):
        schema = schema()
    if schema is None:
        model = getattr(target, "Config", None)
        if inspect.isclass(model) and issubclass(model, BaseModel):
            schema = model.model_json_schema()
    if schema is None:
        return {"type": "object"}
    if not isinstance(schema, dict):
        raise ValueError(f"has a config_schema that is a {type(schema).__name__}; a JSON Schema is a dict")
    return schema


def _python_manifest(plugin: Plugin, version: str) -> Manifest:
    return Manifest(name=plugin.name, version=version, description=plugin.description, plugins=[plugin])


def _module_version(module: str) -> str:
    """The version of the module, as it says itself; "0" for one that says none."""
    version = getattr(sys.modules.get(module.partition(".")[0]), "__version__", None)
    return version if isinstance(version, str) else "0"


def _kebab(target: Any) -> str:
    """A class's or function's own name, as a plugin would be named.

    >>> class AddHTTPHeader: ...
    >>> _kebab(AddHTTPHeader)
    'add-http-header'
    """
    name = getattr(target, "__name__", None) or type(target).__name__
    name = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "-", name)
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "plugin"


def _of_kind(found: Found, kind: str | None) -> Found:
    if kind in (None, found.plugin.kind):
        return found
    raise PluginNotFoundError(
        f"python:{found.reference} is a {found.plugin.kind}, and a {kind} is wanted", name=str(found.reference)
    )
