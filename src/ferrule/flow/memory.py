"""A source and a sink in memory, for flows that the engine runs on records that somebody has at hand."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Self

from ferrule.flow.lint import ResolvedItem
from ferrule.manifest import Manifest, Plugin
from ferrule.plugins.registry import Found

__all__ = ["sink_into", "source_at", "source_of"]


class _Records:
    """A source of records, which stands still behind them."""

    def __init__(self, records: Sequence[Any], position: Any) -> None:
        self._records = records
        self._position = position

    def read_data(self, _: Any) -> _Reading:
        return _Reading(iter(self._records), self._position)


class _Reading:
    def __init__(self, records: Iterator[Any], position: Any) -> None:
        self._records = records
        self._position = position

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Any:
        return next(self._records)

    def position(self) -> Any:
        return self._position


class _Collecting:
    """A sink that keeps what it is given."""

    def __init__(self, found: list[Any]) -> None:
        self._found = found

    def write(self, record: Any) -> None:
        self._found.append(record)


def source_of(item: ResolvedItem, records: Sequence[Any]) -> ResolvedItem:
    """`item`'s place in the flow, with `records` coming from it."""
    return _in_place_of(item, "read_data", "stream", partial(_Records, records, None))


def source_at(item: ResolvedItem, position: Any) -> ResolvedItem:
    """`item`'s place in the flow, with nothing coming from it any more: it stands at `position`."""
    return _in_place_of(item, "read_data", "stream", partial(_Records, (), position))


def sink_into(item: ResolvedItem, found: list[Any]) -> ResolvedItem:
    """`item`'s place in the flow, with what it is given going to the end of `found`."""
    return _in_place_of(item, "write", "unary", partial(_Collecting, found))


def _in_place_of(item: ResolvedItem, method: str, mode: str, target: Callable[[], Any]) -> ResolvedItem:
    plugin = Plugin.model_validate(
        {
            "name": "memory",
            "kind": item.spec.kind,
            "language": "python",
            "methods": [{"name": method, "mode": mode}],
        }
    )
    manifest = Manifest(name="memory", version="0", plugins=[plugin])
    return replace(item, found=Found(plugin, manifest, "memory", target=target), config={})
