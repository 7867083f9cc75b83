"""Dead letters: a JSON line for each record that failed, with what it was when it came from the source."""

from __future__ import annotations

import base64
import os
import threading
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO, Self

import orjson

from ferrule.errors import FlowError, PluginIOError, error_class
from ferrule.native import Parked, error_object

__all__ = ["DeadLetters"]


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
        ends: dict[tuple[int, int, bytes, int], bytes] = {}
        lines: list[bytes] = []
        second, stamp = -1, b""
        # Few calls a letter, and few objects: a flow with many of them shares the GIL with its host.
        for record, time_ns, data, error, status, _, step, attempt in rows:
            if (key := (step, status, error, attempt)) not in ends:
                ends[key] = self._end(*key)
            if second != time_ns // 1_000_000_000:
                second = time_ns // 1_000_000_000
                stamp = datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%S").encode()
            micros = time_ns // 1000 % 1_000_000
            try:
                orjson.loads(data)
                begin = b'"record":%b,' % (data.replace(b"\n", b" ") if b"\n" in data else data)
            except orjson.JSONDecodeError:
                begin = b'"record_base64":"%b",' % base64.b64encode(data) if data else b""
            lines += (b'{%b%b,"number":%d,"time":"%b.%06dZ"}\n' % (begin, ends[key], record, stamp, micros),)
        try:
            with self._lock:
                self._file.write(b"".join(lines))
                self._file.flush()
        except OSError as error:
            raise PluginIOError(f"the dead-letter file {self.path} cannot be written: {error.strerror}") from error

    def _end(self, step: int, status: int, error: bytes, attempt: int) -> bytes:
        """What letters of the same fault have in common: a piece of their lines."""
        told = {
            "step": self._names[step],
            "status": error_class(status).status_name,
            "error": error_object(status, error),
            "attempt": attempt,
        }
        return orjson.dumps(told)[1:-1]

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
