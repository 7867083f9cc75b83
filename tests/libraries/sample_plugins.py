"""Python plugins, and things that are none, for the registry's tests. Importing it is noted in IMPORTS_FILE."""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel

if os.environ.get("IMPORTS_FILE"):
    with Path(os.environ["IMPORTS_FILE"]).open("a", encoding="utf-8") as file:
        file.write("imported\n")

__version__ = "1.2.3"


class AddHTTPHeader:
    """Adds a header.

    More about it.
    """

    class Config(BaseModel):
        name: str
        value: str = "x"

    def process(self, record: dict[str, Any]) -> dict[str, Any]:
        return record


class Ticks:
    name = "ticks"
    description = "Counts."
    threading = "concurrent"
    config_schema = {"type": "object", "properties": {"n": {"type": "integer", "default": 3}}}

    def connect(self) -> None: ...

    def read_data(self, position: Any) -> Iterator[dict[str, Any]]:
        yield {"n": 1}


class Memory:
    def write(self, record: dict[str, Any]) -> None: ...

    def flush(self) -> dict[str, Any]:
        return {}


class Runner:
    kind = "runner"

    def run(self, value: Any) -> Any:
        return value

    def chunks(self, value: Any) -> Iterator[Any]:
        yield value


class Both:
    def process(self, record: Any) -> Any: ...

    def write(self, record: Any) -> Any: ...


class BothButSink(Both):
    kind = "sink"


class WrongKind:
    kind = "filter"

    def process(self, record: Any) -> Any: ...


class SourceWithoutRead:
    kind = "source"

    def process(self, record: Any) -> Any: ...


class WrongName:
    name = "Not A Name"

    def process(self, record: Any) -> Any: ...


class WrongSchema:
    config_schema = 3

    def process(self, record: Any) -> Any: ...


class Nothing:
    pass


class Outer:
    class Inner:
        def process(self, record: Any) -> Any: ...


def stamp_it(record: dict[str, Any]) -> dict[str, Any]:
    """Stamps."""
    return record


partial_stamp = functools.partial(stamp_it)
number = 3
