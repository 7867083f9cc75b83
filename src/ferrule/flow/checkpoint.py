"""Checkpoints: one file that says how far a flow is, replaced atomically.

It is written when nothing is in flight: every record that was read is behind the sink's mark, in the dead-letter file
before its mark, or in the checkpoint itself, waiting. So a flow that goes on from it loses nothing, and doubles nothing
where the sink has a mark.
"""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from ferrule.errors import FlowError, PluginIOError
from ferrule.flow.lint import ResolvedFlow, ResolvedItem
from ferrule.native import Waiting

__all__ = ["Checkpoint", "flow_hash", "in_turn", "same_sink", "same_steps", "sync_folder"]

_VERSION = 2
"""Version 1 held records that wait before the first step, and nothing else that waits."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """How far a flow is.

    Attributes:
        flow: The hash of the flow that wrote it.
        records: Records of the source that it stands behind.
        position: Where the source stands: JSON as the source gave it, or None before its first record.
        mark: Where the sink stands, or None if it has no marks.
        dead_letter_mark: Length of the dead-letter file, or None.
        waiting: What was read and came to no end yet, in order: before which step, and what that step is given; or what
            failed and is no dead letter yet.
    """

    flow: str
    records: int
    position: Any
    mark: Any
    dead_letter_mark: int | None
    waiting: list[Waiting] = field(default_factory=list)

    def save(self, path: Path, *, durable: bool) -> None:
        """Replace the file by this one, in one step.

        Args:
            path: The file.
            durable: Whether to return only when the file and its name are on the disk.

        Raises:
            PluginIOError: It cannot be written; the old file is as it was.
        """
        content = {
            "ferrule_checkpoint": _VERSION,
            "flow": self.flow,
            "records": self.records,
            "position": self.position,
            "mark": self.mark,
            "dead_letter_mark": self.dead_letter_mark,
            "waiting": [_told(row) for row in self.waiting],
        }
        temporary = path.with_name(path.name + ".new")
        try:
            with temporary.open("wb") as file:
                file.write(orjson.dumps(content, option=orjson.OPT_APPEND_NEWLINE))
                file.flush()
                if durable:
                    os.fsync(file.fileno())
            os.replace(temporary, path)
            if durable:
                sync_folder(path.parent)
        except OSError as error:
            raise PluginIOError(f"the checkpoint {path} cannot be written: {error.strerror or error}") from error

    @classmethod
    def load(cls, path: Path, flow: str | None, flow_file: Path | None) -> Checkpoint | None:
        """Read the file; None if there is none.

        Args:
            path: The file.
            flow: The hash of the flow that it must belong to; None for any.
            flow_file: For errors.

        Raises:
            FlowError: It is no checkpoint, or another flow's.
        """
        hint = f"Delete {path} to begin anew (or run with --fresh)"
        try:
            found = orjson.loads(path.read_bytes())
            version = found["ferrule_checkpoint"]
        except FileNotFoundError:
            return None
        except OSError as error:
            raise FlowError(f"the checkpoint {path} cannot be read: {error.strerror}", path=flow_file) from error
        except (ValueError, TypeError, KeyError):
            raise FlowError(f"{path} is no checkpoint of ferrule's", path=flow_file, hint=hint) from None
        if version not in (1, _VERSION):
            raise FlowError(
                f"the checkpoint {path} has version {version}, this ferrule reads {_VERSION} and older ones",
                path=flow_file,
                hint=hint,
            )
        if flow is not None and found["flow"] != flow:
            raise FlowError(
                f"the checkpoint {path} belongs to another flow: {_changed(found['flow'], flow)} changed since it was "
                "written",
                path=flow_file,
                hint=f"Undo the change to go on where it stopped; or {hint[0].lower()}{hint[1:]}",
            )
        return cls(
            found["flow"],
            found["records"],
            found["position"],
            found["mark"],
            found["dead_letter_mark"],
            [
                Waiting(
                    each["number"],
                    _bytes(each, "record"),
                    each.get("step", 0),
                    _bytes(each, "given"),
                    each.get("status", 0),
                    each.get("attempt", 1),
                )
                for each in found["waiting"]
            ],
        )


def in_turn(rows: Iterable[Waiting]) -> list[Waiting]:
    """Rows that wait, in the order of their records. Of one record's, those that are further on come first: they were
    before the others when something kept them from going on. Else they stay as they are."""
    return sorted(rows, key=lambda row: (row.record, -row.step))


def _told(row: Waiting) -> dict[str, Any]:
    told: dict[str, Any] = {"number": row.record, **_text("record", row.data)}
    if row.step or row.status:
        told |= {"step": row.step, **_text("given", row.given)}
    if row.status:
        told |= {"status": row.status, "attempt": row.attempt}
    return told


def _text(name: str, data: bytes) -> dict[str, str]:
    try:
        return {name: data.decode()}
    except UnicodeDecodeError:
        return {f"{name}_base64": base64.b64encode(data).decode()}


def _bytes(told: dict[str, Any], name: str) -> bytes:
    text: str = told.get(name, "")
    return base64.b64decode(told[f"{name}_base64"]) if f"{name}_base64" in told else text.encode()


def flow_hash(flow: ResolvedFlow) -> str:
    """What makes two flows the same: their plugins, in order, and complete configurations.

    It is three hashes, of the source, the steps and the sink, with ``-`` between them.
    """
    if flow.identity is not None:
        return flow.identity
    return "-".join(_hash(items) for items in ((flow.source,), flow.steps, (flow.sink,)))


def _hash(items: tuple[ResolvedItem, ...]) -> str:
    told = [
        [item.plugin.plugin.kind, item.plugin.plugin.name, item.plugin.plugin.language, item.config] for item in items
    ]
    return hashlib.sha256(orjson.dumps(told, option=orjson.OPT_SORT_KEYS)).hexdigest()


def same_sink(one: str, other: str) -> bool:
    """Whether two flows of these hashes write to the same place."""
    return one.rpartition("-")[2] == other.rpartition("-")[2]


def same_steps(one: str, other: str) -> bool:
    """Whether two flows of these hashes have the same steps."""
    return one.split("-")[1:2] == other.split("-")[1:2]


def _changed(one: Any, other: str) -> str:
    """Which parts of a flow differ, by two hashes."""
    pairs = zip(str(one).split("-"), other.split("-"), strict=False)
    parts = (
        "its source's plugin or configuration",
        "its steps or their configuration",
        "its sink's plugin or configuration",
    )
    return " and ".join(part for part, (a, b) in zip(parts, pairs, strict=False) if a != b) or "it"


def sync_folder(folder: Path) -> None:
    """Wait until a folder's entries are on the disk, where the system has that."""
    if os.name != "posix":
        return
    number = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)
