"""From what the registry found to an instance: the library is loaded once, the instance made.

Nothing else loads a library. What is loaded is what was read and checked: the image's bytes, from a private copy.
"""

from __future__ import annotations

import threading
from typing import Any

import orjson

from ferrule.manifest import Plugin
from ferrule.native import Library
from ferrule.native.cache import private_copy
from ferrule.native.image import Image, read_image
from ferrule.plugins.instance import Instance, NativeInstance, PythonInstance
from ferrule.plugins.registry import Found

__all__ = ["instantiate"]

_libraries: dict[str, Library] = {}
"""Loaded libraries by their hash. They stay until the process ends, so this is the process's, not a host's."""

_loading = threading.Lock()


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
    plugin = found.plugin
    image = read_image(found.path)
    library = _load(image, plugin)
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


def _load(image: Image, plugin: Plugin) -> Library:
    image.require_loadable()
    image.require_symbols(plugin.symbols)
    with _loading:
        library = _libraries.get(image.sha256)
        if library is None:
            library = Library(private_copy(image), image.manifest_json, shown_as=image.path)
            _libraries[image.sha256] = library
        return library
