"""The plugins of flights-python.yaml: what its compiled twins do, in Python.

A class with a kind's methods is a plugin, and so is a function for a step. Records are dicts here; a step that
answers None skips its record.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

Record = dict[str, Any]

INTEGER = re.compile(r"-?(0|[1-9][0-9]*)")
NUMBER = re.compile(r"-?(0|[1-9][0-9]*)\.[0-9]+([eE][-+]?[0-9]+)?")


class CsvSource:
    """Reads a CSV file with a header: {path, null_values}."""

    def __init__(self, config: dict[str, Any]) -> None:
        self.path = Path(config["path"])
        self.nulls = frozenset(config.get("null_values", [""]))
        self.file: io.TextIOWrapper | None = None

    def connect(self) -> None:
        self.file = self.path.open(newline="", encoding="utf-8")

    def read_data(self) -> Iterator[Record]:
        if self.file is None:
            raise ValueError("read_data before connect")
        self.file.seek(0)
        for row in csv.DictReader(self.file):
            yield {name: self._value(text) for name, text in row.items()}

    def _value(self, text: str) -> Any:
        if text in self.nulls:
            return None
        if INTEGER.fullmatch(text):
            return int(text)
        return float(text) if NUMBER.fullmatch(text) else text

    def close(self) -> None:
        if self.file is not None:
            self.file.close()
            self.file = None


class Lookup:
    """Joins columns of a CSV file by key: {path, key, field, columns: {column: new field}}."""

    def __init__(self, config: dict[str, Any]) -> None:
        self.field: str = config["field"]
        self.columns: dict[str, str] = config["columns"]
        with Path(config["path"]).open(newline="", encoding="utf-8") as file:
            self.rows = {row[config["key"]]: row for row in csv.DictReader(file)}

    def process(self, record: Record) -> Record:
        row = self.rows.get(record[self.field], {})
        return record | {new: row.get(column) for column, new in self.columns.items()}


class JsonlSink:
    """Writes a JSON object a line: {path}. Its mark is the file's length."""

    def __init__(self, config: dict[str, Any]) -> None:
        self.path = Path(config["path"])
        self.file: io.BufferedWriter | None = None

    def open(self) -> None:
        self.file = self.path.open("wb")

    def write(self, record: Record) -> None:
        assert self.file is not None
        self.file.write(json.dumps(record, ensure_ascii=False, separators=(",", ":")).encode() + b"\n")

    def flush(self) -> dict[str, Any]:
        assert self.file is not None
        self.file.flush()
        return {"mark": self.file.tell()}

    def close(self) -> None:
        if self.file is not None:
            self.file.close()
            self.file = None


def flown(record: Record) -> Record | None:
    """A flight that has a departure; a cancelled one is skipped."""
    return record if record["dep_time"] is not None else None


def private(record: Record) -> Record:
    """Masks the tail number."""
    if record["tailnum"] is not None:
        record["tailnum"] = "***"
    return record
