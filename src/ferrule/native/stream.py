"""Streams of native instances, as Python objects that own their C ones."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from ferrule.errors import PluginError
from ferrule.native.answers import CallAnswer
from ferrule.native.door import (
    END,
    INVALID_DATA,
    MOVED,
    OK,
    STATUS,
    TIMEOUT,
    UNAVAILABLE,
    ffi,
    lib,
    plugin_error,
    retired,
)

if TYPE_CHECKING:
    from ferrule.native.library import NativeObject

__all__ = ["NativeStream"]


class NativeStream:
    """A stream of an instance. One thread reads; any may cancel."""

    def __init__(self, owner: NativeObject, method: str, number: int, c: Any) -> None:
        self.owner = owner
        self.method = method
        self._c = c
        self._id = number
        self._answer = CallAnswer()

    def __del__(self, retire: Callable[[int], None] = retired.append) -> None:
        retire(self._id)

    def batches(self, *, many: bool) -> Iterator[list[bytes] | PluginError]:
        """Read on: lists of items as they come, and in its place the error of an item that is bad, or of a source
        that has nothing now.

        Args:
            many: Whether the manifest says that an item is lines (``application/x-ndjson``).

        Raises:
            PluginError: The stream failed as such.
        """
        reader = ffi.gc(lib.fh_reader_new(self._c, many), lib.fh_reader_free)
        if reader == ffi.NULL:
            raise MemoryError("no memory for a stream's buffers")
        rows, length, error_len = ffi.new("uint32_t *"), ffi.new("size_t *"), ffi.new("size_t *")
        data, error = ffi.new("uint8_t **"), ffi.new("uint8_t **")
        while True:
            status = lib.fh_reader_fill(reader, -1, rows, data, length, error, error_len)
            if rows[0]:
                yield bytes(ffi.buffer(data[0], length[0] - 1)).split(b"\n")
            if status == END:
                return
            if status != OK:
                fault = plugin_error(
                    status,
                    bytes(ffi.buffer(error[0], error_len[0])) if error_len[0] else b"",
                    plugin=self.owner.plugin,
                    method=self.method,
                )
                if status not in (INVALID_DATA, UNAVAILABLE, TIMEOUT):
                    raise fault
                yield fault

    def position(self) -> bytes:
        """Where to resume: right after the last item that was read.

        Raises:
            PluginError: The stream has no positions, or none now.
        """
        result = lib.fh_stream_position(self._c, self._answer.c)
        if result < MOVED:
            raise plugin_error(result - STATUS, self._answer.error(), plugin=self.owner.plugin, method=self.method)
        return self._answer.output(result)

    def cancel(self) -> None:
        """Ask the stream to end soon. Any thread."""
        lib.fh_stream_cancel(self._c)

    def close(self) -> None:
        """Cancel and free it. Twice is harmless."""
        lib.fh_stream_close(self._c)
        retired.append(self._id)
