"""From what the registry found to an instance: the library is loaded once, the instance made.

Nothing else loads a library. What is loaded is what was read and checked: the image's bytes, from a private copy.
"""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from typing import Any

import orjson

from ferrule.manifest import Plugin
from ferrule.native import Library
from ferrule.native.cache import private_copy
from ferrule.native.image import read_image
from ferrule.plugins.instance import Instance, NativeInstance, PythonInstance
from ferrule.plugins.registry import Found

__all__ = ["instantiate", "remake"]

_libraries: dict[str, Library] = {}
"""Loaded libraries by their hash. They stay until the process ends, so this is the process's, not a host's."""

_loading = threading.Lock()

Stamp = tuple[int, int, int, int, int]
SETTLED_NS = 2_000_000_000

_known: dict[tuple[Path, tuple[str, ...]], tuple[Stamp, Library]] = {}
"""Files that were read and have not changed since, with the symbols that were asked of them: they need not be read for
every instance."""


def _after_fork() -> None:
    """Another thread of the parent may have held it."""
    global _loading
    _loading = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def instantiate(found: Found, config: dict[str, Any]) -> Instance:
    """Make an instance of a plugin.

    Args:
        found: What the registry found.
        config: The complete configuration (``ferrule.plugins.config.complete_config``).

    Raises:
        LibraryError: The library is for another platform or ABI, lacks a symbol, or changed since it was read.
        PluginError: The plugin refuses to be created.
    """
    if found.target is not None:
        return PythonInstance(found.plugin, found.target, config)
    assert found.path is not None
    return _make(_load(found.path, found.plugin), found.plugin, config)


def remake(broken: Instance, config: dict[str, Any]) -> Instance:
    """Make an instance like one that is broken, of the very library that it came from.

    Raises:
        PluginError: The plugin refuses to be created.
    """
    assert isinstance(broken, NativeInstance)
    library = broken.target.library
    assert library is not None, "instances that flows make come from libraries"
    return _make(library, broken.plugin, config)


def _make(library: Library, plugin: Plugin, config: dict[str, Any]) -> NativeInstance:
    return NativeInstance(
        plugin,
        library.create(
            plugin.name,
            orjson.dumps(config),
            serial=plugin.threading == "serial",
            methods=[method.name for method in plugin.methods if method.mode != "none"],
            entry_point=plugin.entry_point,
        ),
    )


def _load(path: Path, plugin: Plugin) -> Library:
    stamp = _stamp(path)
    known = _known.get((path, plugin.symbols))
    if known is not None and stamp is not None and known[0] == stamp:
        return known[1]
    image = read_image(path)
    image.require_loadable()
    image.require_symbols(plugin.symbols)
    with _loading:
        library = _libraries.get(image.sha256)
        if library is None:
            library = Library(private_copy(image), image.manifest_json, shown_as=image.path)
            _libraries[image.sha256] = library
    if stamp is not None and stamp == _stamp(path):
        _known[path, plugin.symbols] = stamp, library
    return library


def _stamp(path: Path) -> Stamp | None:
    """What of a file changes when its bytes do; None where that cannot be told yet, for clocks tick slowly."""
    try:
        found = path.stat()
    except OSError:
        return None
    changed = max(found.st_mtime_ns, found.st_ctime_ns)
    if time.time_ns() - changed < SETTLED_NS:
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns
