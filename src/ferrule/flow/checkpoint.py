"""Checkpoints: one file that says how far a flow is, replaced atomically.

It is written when nothing is in flight: every record that was read is behind the sink's mark, in the dead-letter file
before its mark, or in the checkpoint itself, waiting. So a flow that goes on from it loses nothing, and doubles nothing
where the sink has a mark.
"""

from __future__ import annotations

import base64
import hashlib
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from ferrule.errors import FlowError, PluginIOError
from ferrule.flow.lint import ResolvedFlow, ResolvedItem

__all__ = ["Checkpoint", "flow_hash", "same_sink", "sync_folder"]

_VERSION = 1


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """How far a flow is.

    Attributes:
        flow: The hash of the flow that wrote it.
        records: Records of the source that it stands behind.
        position: Where the source stands: JSON as the source gave it, or None before its first record.
        mark: Where the sink stands, or None if it has no marks.
        dead_letter_mark: Length of the dead-letter file, or None.
        waiting: Number and bytes of each record that was read and came to no end yet, in order.
    """

    flow: str
    records: int
    position: Any
    mark: Any
    dead_letter_mark: int | None
    waiting: list[tuple[int, bytes]] = field(default_factory=list)

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
            "waiting": [_waiting(number, data) for number, data in self.waiting],
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
        if version != _VERSION:
            raise FlowError(
                f"the checkpoint {path} has version {version}, this ferrule reads {_VERSION}", path=flow_file, hint=hint
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
                (
                    each["number"],
                    each["record"].encode() if "record" in each else base64.b64decode(each["record_base64"]),
                )
                for each in found["waiting"]
            ],
        )


def _waiting(number: int, data: bytes) -> dict[str, Any]:
    try:
        return {"number": number, "record": data.decode()}
    except UnicodeDecodeError:
        return {"number": number, "record_base64": base64.b64encode(data).decode()}


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
