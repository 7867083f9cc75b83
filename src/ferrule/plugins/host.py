"""The host: where a Python program gets its plugins from."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Self

from ferrule.errors import InvalidStateError
from ferrule.plugins.config import complete_config
from ferrule.plugins.deadlines import Stuck, stuck
from ferrule.plugins.instance import Instance
from ferrule.plugins.kinds import Function, Runner, Sink, Source
from ferrule.plugins.loading import instantiate
from ferrule.plugins.pool import Pool
from ferrule.plugins.registry import Found, Registry

__all__ = ["Host"]


class Host:
    """Finds plugins, makes instances of them, and closes those when it is closed.

    A source or a sink is the host's too: it lives until one of them closes it. Any other instance that the program
    drops goes at once.

    Args:
        search_path: Folders and libraries to look in, before the usual places (``ferrule doctor`` shows those).

    >>> with Host() as host:
    ...     stamp = host.function("add-metadata", {"plugin_name": "demo"})
    ...     stamp.process({"id": 1})["processed_by_rust_plugin"]
    'demo'
    """

    def __init__(self, search_path: Iterable[Path | str] | None = None) -> None:
        self.registry = Registry(None if search_path is None else [Path(each) for each in search_path])
        self._owned: list[weakref.ref[Instance] | Source | Sink | Pool] = []
        self._crowded = 64
        self._lock = threading.Lock()
        self._closed = False

    def plugins(self) -> list[Found]:
        """What is on the search path. Reads files; runs nothing of them.

        >>> "add-metadata" in [found.plugin.name for found in host.plugins()]
        True
        """
        return self.registry.scan().found

    def create(
        self,
        name: str,
        config: dict[str, Any] | None = None,
        *,
        kind: str | None = None,
        language: str | None = None,
    ) -> Instance:
        """Make an instance of any plugin.

        Args:
            name: A plugin's name; a library's path, with ``:NAME`` where it holds several plugins; or
                ``python:module:name``.
            config: Its configuration; defaults of its schema are filled in.
            kind: Where one name stands for plugins of several kinds.
            language: Where there are twins.

        Raises:
            PluginNotFoundError: Nothing of that name; the error has the nearest one.
            LibraryError: The library cannot be loaded here.
            InvalidConfigError: The configuration does not fit the plugin's schema.

        >>> host.create("add-metadata", kind="function").call("process", {"id": 1})["id"]
        1
        """
        instance = self._make(name, config, kind, language)
        self._own(weakref.ref(instance))
        return instance

    def function(self, name: str, config: dict[str, Any] | None = None, *, language: str | None = None) -> Function:
        """Make an instance of a function plugin: see :meth:`create` and :class:`~ferrule.Function`."""
        view = Function(self._make(name, config, "function", language))
        self._own(weakref.ref(view.instance))
        return view

    def source(self, name: str, config: dict[str, Any] | None = None, *, language: str | None = None) -> Source:
        """Make and connect an instance of a source plugin: see :meth:`create` and :class:`~ferrule.Source`."""
        view = Source(self._make(name, config, "source", language))
        self._own(view)
        return view

    def sink(
        self, name: str, config: dict[str, Any] | None = None, *, language: str | None = None, mark: Any = None
    ) -> Sink:
        """Make and open an instance of a sink plugin: see :meth:`create` and :class:`~ferrule.Sink`.

        Args:
            name: As for :meth:`create`.
            config: As for :meth:`create`.
            language: As for :meth:`create`.
            mark: Where an earlier ``flush`` stood: what was written after it is cut.
        """
        view = Sink(self._make(name, config, "sink", language), mark=mark)
        self._own(view)
        return view

    def runner(self, name: str, config: dict[str, Any] | None = None, *, language: str | None = None) -> Runner:
        """Make an instance of a runner plugin: see :meth:`create` and :class:`~ferrule.Runner`."""
        view = Runner(self._make(name, config, "runner", language))
        self._own(weakref.ref(view.instance))
        return view

    def pool(
        self,
        name: str,
        config: dict[str, Any] | None = None,
        *,
        size: int = 4,
        reset: bool = False,
        kind: str | None = None,
        language: str | None = None,
    ) -> Pool:
        """Instances of one plugin that are leased and given back: see :class:`~ferrule.Pool`.

        Args:
            name: As for :meth:`create`.
            config: As for :meth:`create`.
            size: Leases at a time.
            reset: Call the plugin's method ``reset`` after each lease.
            kind: As for :meth:`create`.
            language: As for :meth:`create`.

        Raises:
            UnsupportedError: The plugin has no method ``reset``, and it is asked for.
        """
        found = self.registry.find(kind, name, language)
        made = Pool(found.plugin, lambda: self._make(name, config, found.plugin.kind, language), size=size, reset=reset)
        self._own(made)
        return made

    def stuck(self) -> list[Stuck]:
        """The calls of this process that were asked to stop (their time was over, or their task was cancelled), had a
        second to do so, and are still under way."""
        return stuck()

    def _make(self, name: str, config: dict[str, Any] | None, kind: str | None, language: str | None) -> Instance:
        if self._closed:
            raise InvalidStateError("the host is closed")
        found = self.registry.find(kind, name, language)
        return instantiate(found, complete_config(found.plugin.config, config or {}, plugin=found.plugin.name))

    def _own(self, made: weakref.ref[Instance] | Source | Sink | Pool) -> None:
        """Close it with the host; at once where another thread has closed that meanwhile.

        Raises:
            InvalidStateError: It has.
        """
        with self._lock:
            self._owned.append(made)
            if len(self._owned) > self._crowded:  # forget what is gone
                self._owned = [each for each in self._owned if not _gone(each)]
                self._crowded = max(64, 2 * len(self._owned))
        if self._closed:
            _close(made)
            raise InvalidStateError("the host is closed")

    def close(self) -> None:
        """Close everything it made, last made first. Twice is harmless.

        Raises:
            ExceptionGroup: Some of it did not close well; all of it was tried.
        """
        self._closed = True
        faults: list[Exception] = []
        while True:
            try:
                last = self._owned.pop()
            except IndexError:
                break
            try:
                _close(last)
            except Exception as error:
                faults.append(error)
        if faults:
            raise faults[0] if len(faults) == 1 else ExceptionGroup("closing the host's plugins failed", faults)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _gone(made: weakref.ref[Instance] | Source | Sink | Pool) -> bool:
    return made() is None if isinstance(made, weakref.ref) else made.closed


def _close(made: weakref.ref[Instance] | Source | Sink | Pool) -> None:
    if isinstance(made, Pool) and made.closed:
        return  # it may have leases that it was told not to wait for
    if (held := made() if isinstance(made, weakref.ref) else made) is not None:
        held.close()  # also where it is closed: another thread may be at it
