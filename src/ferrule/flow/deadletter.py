"""Dead letters: a JSON line for each record that failed, with what it was when it came from the source."""

from __future__ import annotations

import base64
import os
import threading
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, BinaryIO, Self

import orjson

from ferrule.errors import FlowError, PluginIOError, error_class
from ferrule.native import Parked, error_object

__all__ = ["DeadLetters"]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class DeadLetters:
    """A file of dead letters, begun anew, or gone on with from a mark.

    A line is ``{"record": …, "step": …, "status": …, "error": {…}, "attempt": …, "number": …, "time": …}``, with
    ``record_base64`` in place of ``record`` where the source's bytes are no JSON text, and neither where the source
    itself could not make a record (its error's details may have one).

    Args:
        path: The file; folders that are missing are made.
        names: The steps' names, by the pump's numbers.
        mark: Where an earlier :meth:`flush` stood; what was written after it is cut. None: begin anew.

    Raises:
        PluginIOError: The file cannot be written.
        FlowError: It is shorter than the mark.
    """

    def __init__(self, path: Path, names: Mapping[int, str], mark: int | None = None) -> None:
        self.path = path
        self._names = names
        self._lock = threading.Lock()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file: BinaryIO = path.open("wb" if mark is None else "r+b")
            if mark is not None:
                size = self._file.seek(0, os.SEEK_END)
                if size < mark:
                    self._file.close()
                    raise FlowError(
                        f"the dead-letter file has {size} bytes, and the checkpoint knows {mark}: it was changed since",
                        path=path,
                        hint="Put it back, or begin anew (--fresh)",
                    )
                self._file.truncate(mark)
                self._file.seek(mark)
        except OSError as error:
            raise PluginIOError(f"the dead-letter file {path} cannot be written: {error.strerror}") from error

    def write(self, rows: list[Parked]) -> None:
        """Write rows, and hand them to the system. Any thread.

        Raises:
            PluginIOError: They could not be written.
        """
        dumps, names = orjson.dumps, self._names
        errors: dict[tuple[int, bytes], Any] = {}
        statuses: dict[int, str] = {}
        lines: list[bytes] = []
        # Few calls a letter: a flow with many of them shares the GIL with its host.
        for record, time_ns, data, error, status, _, step, attempt in rows:
            if (status, error) not in errors:
                errors[status, error] = error_object(status, error)
            if status not in statuses:
                statuses[status] = error_class(status).status_name
            line: dict[str, Any] = {}
            if data:
                try:
                    orjson.loads(data)
                    line["record"] = orjson.Fragment(data.replace(b"\n", b" ") if b"\n" in data else data)
                except orjson.JSONDecodeError:
                    line["record_base64"] = base64.b64encode(data).decode()
            line["step"] = names[step]
            line["status"] = statuses[status]
            line["error"] = errors[status, error]
            line["attempt"] = attempt
            line["number"] = record
            line["time"] = _EPOCH + timedelta(microseconds=time_ns // 1000)
            lines += (dumps(line, None, orjson.OPT_APPEND_NEWLINE | orjson.OPT_UTC_Z),)
        try:
            with self._lock:
                self._file.write(b"".join(lines))
                self._file.flush()
        except OSError as error:
            raise PluginIOError(f"the dead-letter file {self.path} cannot be written: {error.strerror}") from error

    def flush(self, *, durable: bool) -> int:
        """The file's length, which is its mark; with `durable`, once it is on the disk."""
        with self._lock:
            if durable:
                os.fsync(self._file.fileno())
            return self._file.tell()

    def close(self) -> None:
        """Close the file. Twice is harmless."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
