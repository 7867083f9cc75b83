"""The host's buffers for one call, as a Python object that owns the C ones."""

from __future__ import annotations

from typing import Any

from ferrule.native.door import MOVED, ffi, lib

__all__ = ["CallAnswer"]


class CallAnswer:
    """The host's buffers for one call, and a view of the output that is made again only when it moves."""

    __slots__ = ("c", "view")

    def __init__(self) -> None:
        self.c: Any = ffi.gc(lib.fh_answer_new(lib.FH_ANSWER_BYTES, lib.FH_ANSWER_LIMIT), lib.fh_answer_free)
        if self.c == ffi.NULL:
            raise MemoryError("no memory for a call's buffers")
        self.view: Any = None

    def output(self, result: int) -> bytes:
        """The bytes behind a result >= MOVED of ``fh_call_with`` and its like."""
        if result == MOVED:
            result = self.c.out.lent.len
            self.view = ffi.buffer(self.c.out.data, self.c.out.capacity)
        return bytes(self.view[:result])

    def free(self) -> None:
        self.view = None
        ffi.release(self.c)

    def error(self) -> bytes:
        return bytes(ffi.buffer(self.c.error.data, self.c.error.lent.len))

    def metadata(self) -> bytes:
        length = self.c.metadata.lent.len
        return bytes(ffi.buffer(self.c.metadata.data, length)) if length else b""
