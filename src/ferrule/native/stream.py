"""Streams of native instances, as Python objects that own their C ones; and who is woken when one has something."""

from __future__ import annotations

import os
import socket
import sys
import threading
from collections.abc import Callable
from time import monotonic
from typing import TYPE_CHECKING, Any, Final, Literal

from ferrule.errors import InvalidStateError, PluginError, PluginTimeoutError
from ferrule.native.answers import CallAnswer
from ferrule.native.door import (
    END,
    MOVED,
    OK,
    PENDING,
    STATUS,
    ffi,
    lib,
    milliseconds,
    plugin_error,
    retired,
)

if TYPE_CHECKING:
    from ferrule.native.library import NativeObject

__all__ = ["NativeStream", "NativeWakes", "takes_signals"]

_MANY: Final = 0xFFFFFFFF


def takes_signals() -> bool:
    """Whether this is the thread that has to come back to Python for Ctrl-C."""
    return threading.get_ident() == threading.main_thread().ident


def _limits(timeout: float | None) -> tuple[float | None, bool]:
    """When a wait is over, and whether it has to come back for Ctrl-C."""
    if timeout == 0:
        return None, False
    return None if timeout is None else monotonic() + timeout, takes_signals()


class NativeWakes:
    """Wakes of many streams on their way to one event loop: a descriptor that becomes readable, and who they are."""

    def __init__(self) -> None:
        self._sockets: tuple[socket.socket, socket.socket] | None = None
        if sys.platform == "linux":
            self._read = write = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        else:
            self._sockets = socket.socketpair()
            for each in self._sockets:
                each.setblocking(False)
            self._read, write = (each.fileno() for each in self._sockets)
        self._c: Any = ffi.gc(lib.fh_loop_new(write), lib.fh_loop_free)
        if self._c == ffi.NULL:
            raise MemoryError("no memory for an event loop's wakes")
        self._ids = ffi.new("uint64_t[]", 64)
        self._closed = False

    def fileno(self) -> int:
        """Readable when a stream that is watched was woken since ``take``."""
        return self._read

    def take(self) -> list[int]:
        """Ids of streams that were woken since the last take, each once. Those that were closed meanwhile may be among
        them. One thread, the loop's."""
        if self._closed:
            return []
        try:
            os.read(self._read, 8) if self._sockets is None else self._sockets[0].recv(4096)
        except BlockingIOError:
            pass
        while (count := lib.fh_loop_take(self._c, self._ids, len(self._ids))) > len(self._ids):
            self._ids = ffi.new("uint64_t[]", 2 * count)
        return ffi.unpack(self._ids, count) if count else []

    def close(self) -> None:
        """Nothing arrives here any more. Twice is harmless."""
        if not self._closed:
            self._closed = True
            lib.fh_loop_close(self._c)
            if self._sockets is None:
                os.close(self._read)
            else:
                for each in self._sockets:
                    each.close()

    def __del__(self) -> None:
        if hasattr(self, "_closed"):
            self.close()


class NativeStream:
    """A stream of an instance. One thread reads, one feeds, at once; any may cancel or close.

    In the main thread a wait comes back for Ctrl-C. A wait costs no time of the processor's.
    """

    def __init__(self, owner: NativeObject, method: str, number: int, c: Any, opened: bytes) -> None:
        traits = lib.fh_stream_traits(c)
        self.owner = owner
        self.method = method
        self.id = number
        self.opened = opened
        """What the plugin said as it opened the stream: a JSON object, or nothing."""
        self.wakes = bool(traits & lib.FERRULE_STREAM_WAKES)
        """Whether it never waits in the plugin, but says when it has something."""
        self.takes_feed = bool(traits & lib.FH_STREAM_FEEDS)
        self.has_metadata = bool(traits & lib.FH_STREAM_TELLS)
        """Whether items may carry metadata: then they come one at a time."""
        self.locked = bool(traits & lib.FH_STREAM_LOCKED)
        """Whether it waits for other calls of its instance. A fill or a feed with timeout 0 is then "pending" too where
        such a call is under way, and no wake follows."""
        self._c = c
        self._answer: CallAnswer | None = None
        self._items, self._refused = ffi.new("fh_items *"), ffi.new("fh_text *")
        self._reading, self._feeding = threading.Lock(), threading.Lock()

    def __del__(self, retire: Callable[[int], None] = retired.append) -> None:
        retire(self.id)

    def _error(self, status: int, error: Any) -> PluginError:
        told = bytes(ffi.buffer(error.bytes, error.length)) if error.length else b""
        return plugin_error(status, told, plugin=self.owner.plugin, method=self.method)

    def _late(self, text: str) -> PluginTimeoutError:
        return PluginTimeoutError(text, plugin=self.owner.plugin, method=self.method)

    def _alone(self, side: threading.Lock, doing: str) -> None:
        if not side.acquire(False):
            raise InvalidStateError(
                f"another thread is {doing} this stream; one at a time", plugin=self.owner.plugin, method=self.method
            )

    def fill(
        self, timeout: float | None, *, lines: bool = False
    ) -> tuple[list[bytes], PluginError | Literal["end", "pending"] | None]:
        """The items that are there, after a wait for the first.

        Args:
            timeout: Seconds to wait at most, 0 to ask alone, None to wait for ever.
            lines: Whether an item is lines (``application/x-ndjson``), which then come one by one, empty ones left out.

        Returns:
            The items, and what came after them: None, more may be there; "pending", nothing now (only with timeout 0);
            "end"; or the error in an item's place. ``InvalidDataError``, ``UnavailableError`` and
            ``PluginTimeoutError`` (also for a wait that is over) do not end the stream; any other does.

        Raises:
            InvalidStateError: Another thread is reading.
        """
        items, left, until, signals = self._items, timeout, *_limits(timeout)
        self._alone(self._reading, "reading")
        try:
            while True:
                status = lib.fh_stream_fill(
                    self._c, milliseconds(left), signals, 1 if self.has_metadata else _MANY, items
                )
                if status != PENDING or items.count or left == 0:
                    break
                if until is not None and (left := until - monotonic()) <= 0:
                    return [], self._late(f"nothing came within {timeout:g} s")
            found = _split(items, lines) if items.count else []
            if status == OK or (status == PENDING and timeout != 0):
                return found, None
            if status == PENDING:
                return found, "pending"
            return found, "end" if status == END else self._error(status, items.error)
        finally:
            self._reading.release()

    def feed(
        self, data: bytes | bytearray | memoryview, *, final: bool, timeout: float | None
    ) -> Literal["taken", "pending", "end"]:
        """Give the stream a piece of its input.

        Args:
            data: The piece, which may be empty.
            final: Whether it is the last one.
            timeout: Seconds to wait for room at most, 0 to ask alone, None to wait for ever. What makes room is that
                somebody reads on, perhaps another thread.

        Returns:
            "taken"; "pending", neither the piece nor `final` was taken (only with timeout 0); "end", no more is wanted.

        Raises:
            PluginTimeoutError: There was no room in time; nothing was taken.
            InvalidStateError: The final piece was fed already, the stream is closed, or another thread is feeding.
            PluginError: The plugin refuses. Any but invalid data, unavailable and a timeout ends the stream, and its
                reader is given that error too.
        """
        lent = data if type(data) is bytes else ffi.from_buffer(data)
        self._alone(self._feeding, "feeding")
        try:
            # Asked first: there is room for most pieces, and then nobody needs to know how long to wait.
            status = lib.fh_stream_feed(self._c, lent, len(lent), final, 0, False, self._refused)
            if status == PENDING and timeout != 0:
                left, (until, signals) = timeout, _limits(timeout)
                while status == PENDING:
                    if left is not None and left <= 0:
                        raise self._late(f"the stream had no room within {timeout:g} s; nothing was taken")
                    wait = milliseconds(left)
                    status = lib.fh_stream_feed(self._c, lent, len(lent), final, wait, signals, self._refused)
                    left = None if until is None else until - monotonic()
            if status == OK:
                return "taken"
            if status == END:
                return "end"
            if status == PENDING:
                return "pending"
            raise self._error(status, self._refused)
        finally:
            self._feeding.release()

    def position(self) -> bytes:
        """Where to resume, as JSON: right after the last item that was read.

        Raises:
            PluginError: The stream has no positions, or none now.
        """
        return self._ask(lib.fh_stream_position)

    def metadata(self) -> bytes:
        """The last item's, or after its end the stream's: a JSON object, or nothing.

        Raises:
            PluginError: The plugin refuses, or the stream is closed.
        """
        return self._ask(lib.fh_stream_metadata) if self.has_metadata else b""

    def _ask(self, function: Any) -> bytes:
        answer = self._answer = self._answer or CallAnswer()
        self._alone(self._reading, "reading")
        try:
            result = function(self._c, answer.c)
            if result < MOVED:
                raise plugin_error(result - STATUS, answer.error(), plugin=self.owner.plugin, method=self.method)
            return answer.output(result)
        finally:
            self._reading.release()

    def watch(self, wakes: NativeWakes | None) -> None:
        """From now on its wakes arrive there, those of its reader and of its feeder alike (None: nowhere).

        A wake that came before, and that nobody waited for, arrives at once: none is lost between a "pending" and this.
        Cancel and close arrive too, and after a "pending" the progress of the other side.
        """
        if lib.fh_stream_watch(self._c, ffi.NULL if wakes is None else wakes._c) != OK:
            raise MemoryError("no memory for an event loop's wakes")

    def cancel(self) -> None:
        """Ask the stream to end soon. Any thread, at any time."""
        lib.fh_stream_cancel(self._c)

    def close(self) -> None:
        """Cancel and free it, once the plugin's functions have returned. Twice is harmless."""
        signals = takes_signals()
        while lib.fh_stream_close(self._c, signals) == PENDING:
            pass
        retired.append(self.id)


def _split(items: Any, lines: bool) -> list[bytes]:
    if items.count == 1 and not lines:
        return [bytes(ffi.buffer(items.bytes, items.length - 1))]
    data = bytes(ffi.buffer(items.bytes, items.length - 1))
    if lines:
        return [line for line in data.split(b"\n") if line]
    if items.plain:
        return data.split(b"\n")
    found, at = [], 0
    for length in ffi.unpack(items.lengths, items.count):
        found.append(data[at : at + length])
        at += length + 1
    return found
