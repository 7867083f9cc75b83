"""Streams: what ``open`` answers with, whoever gives the items."""

from __future__ import annotations

import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Any, Final, Literal, Protocol, Self

import orjson

from ferrule.errors import (
    InternalError,
    InvalidDataError,
    InvalidStateError,
    PluginError,
    PluginTimeoutError,
    UnavailableError,
    UnsupportedError,
)
from ferrule.manifest import Method, Plugin
from ferrule.plugins.deadlines import shown
from ferrule.plugins.values import JSON, LINES, RAW, encode

__all__ = ["GOES_ON", "Filled", "Port", "Stream", "json_object"]

Filled = tuple[list[Any], PluginError | Literal["end", "pending"] | None]
"""Items, and what came after them: an error, the end, nothing for now; None where more may be there."""

GOES_ON: Final = (InvalidDataError, UnavailableError, PluginTimeoutError)
"""What a stream lives on after: one bad item, nothing now, nothing in time. Any other error ends it."""


class Port(Protocol):
    """What a stream's items come through: a plugin's own stream, with bytes or values.

    `wakes`: it never waits, but says when it has something. `locked`: its calls wait for others of its instance. One
    thread fills, asks for metadata and position; one may feed beside it; any may cancel.
    """

    wakes: bool
    locked: bool
    takes_feed: bool
    has_metadata: bool
    opened: bytes

    def fill(self, timeout: float | None, *, lines: bool = False) -> Filled:
        """Items as they come: waits for the first, at most `timeout` seconds (None: without end, 0: only asks).
        `lines`: an item is lines, which come one by one."""

    def feed(
        self, data: bytes | bytearray | memoryview, *, final: bool, timeout: float | None
    ) -> Literal["taken", "pending", "end"]:
        """Give it data; "pending" only with a timeout of 0."""

    def metadata(self) -> bytes:
        """A JSON object about the last item, or about the stream once it has ended; or nothing."""

    def position(self) -> bytes:
        """A JSON value to resume from."""

    def cancel(self) -> None:
        """Ask it to end soon."""

    def close(self) -> None:
        """Cancel and free it. Twice is harmless; in two threads, both come back when it is freed."""


class Stream:
    """What ``open`` answers with: an iterator of items, and a context manager.

    A bad item raises :class:`~ferrule.InvalidDataError` out of ``next``; the iterator lives on, so that the caller
    may go on with the next item. So it does after :class:`~ferrule.UnavailableError` and
    :class:`~ferrule.PluginTimeoutError`, for a source that has nothing now. Any other error ends it.

    One thread reads; another may feed; any may cancel. In asyncio, ``await instance.aio.open(…)`` gives one that is
    awaited.

    >>> with host.source("hello-source").read() as records:
    ...     next(records)
    {'id': 1, 'message': 'Hello from Rust Source 1'}
    """

    def __init__(self, port: Port, plugin: Plugin, method: Method, *, raw: bool, timeout: float | None = None) -> None:
        """Over a port that has just been opened.

        Args:
            port: What gives the items.
            plugin: Its manifest entry.
            method: The method that was opened.
            raw: Whether items stay bytes.
            timeout: Seconds that the whole stream may take; None for no limit.
        """
        self.port = port
        self.plugin = plugin
        self.method = method
        self.ready: deque[Any] = deque()
        self._told = json_object(port.opened)
        self._opened_as = self._told.get("media_type")
        self._lines = self.media_type == LINES
        self._raw = raw or self.media_type not in (JSON, LINES)
        self._timeout = timeout
        self._until = None if timeout is None else time.monotonic() + timeout
        self._after: PluginError | Literal["end"] | None = None
        self._later: deque[tuple[list[Any], PluginError | Literal["end"] | None]] = deque()
        self._position: Callable[[], bytes] = port.position
        self._feed_fault: BaseException | None = None
        self._cancelled = self._closed = self._ended = self._final = False
        self.freed = False
        """Whether the plugin is done with it; a stream may be closed a little before."""

    # ---- reading ---------------------------------------------------------------------------------

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Any:
        try:
            return self.ready.popleft()
        except IndexError:
            return self._wait(None)

    def next(self, *, timeout: float | None = None) -> Any:
        """The next item.

        Args:
            timeout: Seconds to wait for it; None waits as long as it takes.

        Raises:
            StopIteration: The stream is at its end.
            PluginTimeoutError: Nothing came in time; the stream lives on.
            PluginError: As iteration does.
        """
        return self._wait(timeout)

    def _wait(self, timeout: float | None) -> Any:
        until = None if timeout is None else time.monotonic() + timeout
        while True:
            try:
                return self.ready.popleft()
            except IndexError:  # asked this way, for another thread may close it
                pass
            if not self.step(until):
                raise StopIteration

    def step(self, until: float | None) -> bool:
        """With nothing ready: take what comes next, until a moment of the monotonic clock; False at the end."""
        if self.over():
            return False
        left = self.left(until)
        if not self.pull(left) and left == 0:
            raise self._late("nothing came in time")
        return True

    def _late(self, text: str) -> PluginTimeoutError:
        return PluginTimeoutError(text, plugin=self.plugin.name, method=self.method.name)

    def pull(self, timeout: float | None) -> bool:
        """With nothing ready: take what the port gives next; False where there is nothing for now.

        Raises:
            PluginError: The stream failed as such; it is closed.
        """
        try:
            return self._keep(self.port.fill(timeout, lines=self._lines))
        except GOES_ON:  # raised, and not in an item's place: there will be no next one
            self.close()
            raise

    def left(self, until: float | None = None) -> float | None:
        """Seconds left to wait, for whatever ends first: a moment of the monotonic clock, or the stream's own time.

        Raises:
            PluginTimeoutError: The stream's own time is over; it is cancelled and closed.
        """
        if self._until is None:
            return None if until is None else max(0.0, until - time.monotonic())
        now = time.monotonic()
        if now >= self._until:
            self.close()
            raise self._late(f"not at its end after {shown(self._timeout)}, the time that the stream was opened with")
        return max(0.0, (self._until if until is None else min(until, self._until)) - now)

    def over(self) -> bool:
        """With nothing ready: whether it is at its end.

        Raises:
            PluginError: What came after the last item.
        """
        after, self._after = self._after, None
        if after is None:
            if self._later:
                self._put(*self._later.popleft())
                return not self.ready and self.over()
            return self._closed
        if isinstance(after, GOES_ON):
            raise after
        self._end()
        if self._feed_fault is not None:
            fault, self._feed_fault = self._feed_fault, None
            raise fault
        if after == "end":
            return True
        raise after

    def _keep(self, filled: Filled) -> bool:
        items, after = filled
        if self.port.has_metadata and (items or after == "end"):
            try:
                self._told = json_object(self.port.metadata())
            except PluginError as error:  # told after the item, which is good, and in front of the end
                if after == "end":
                    self._later.append(([], after))
                after = error
        if after == "pending":
            after = None
        elif isinstance(after, PluginTimeoutError):
            self.left()  # the stream's own time may be what is over
        self._put(items, after)
        return bool(items) or after is not None

    def _put(self, items: list[Any], after: PluginError | Literal["end"] | None) -> None:
        if not self._raw:
            try:
                items = list(map(orjson.loads, items))
            except orjson.JSONDecodeError:
                bad, fault = self._find_bad(items)
                self._later.appendleft((items[bad + 1 :], after))
                items, after = list(map(orjson.loads, items[:bad])), fault
        self.ready.extend(items)
        self._after = after

    def _find_bad(self, items: list[bytes]) -> tuple[int, InvalidDataError]:
        for index, item in enumerate(items):
            try:
                orjson.loads(item)
            except orjson.JSONDecodeError as error:
                shown = item[:80].decode("utf-8", "replace")
                return index, InvalidDataError(
                    f"the plugin's item is no JSON: {error}; it begins {shown!r}",
                    plugin=self.plugin.name,
                    method=self.method.name,
                )
        raise AssertionError("every item is JSON by itself")

    # ---- writing ---------------------------------------------------------------------------------

    def feed(self, value: object = b"", *, final: bool = False, timeout: float | None = None) -> bool:
        """Give the plugin data while it runs. Any thread, one at a time; also before anything is read.

        It waits while the plugin has no room. A plugin whose answers nobody reads may have none for ever: read from
        another thread, or let :meth:`feed_from` feed.

        Args:
            value: Bytes, sent as they are; or what the method's feed takes as JSON.
            final: Whether this is the last of it. ``feed(final=True)`` ends it without more.
            timeout: Seconds to wait for room; None waits as long as it takes.

        Returns:
            Whether the plugin took it: False when it wants no more, or the stream is at its end.

        Raises:
            InvalidStateError: After the final one, or when somebody closed the stream.
            PluginTimeoutError: There was no room in time; nothing was taken.
            UnsupportedError: The method takes no feed.
        """
        data = self.fed(value)
        left = self.left(None if timeout is None else time.monotonic() + timeout)
        taken = self.give(data, final=final, timeout=left)
        if taken == "pending":  # with no time to wait
            raise self._late("the plugin has no room now; nothing was taken")
        return taken == "taken"

    def give(
        self, data: bytes | bytearray | memoryview, *, final: bool, timeout: float | None
    ) -> Literal["taken", "pending", "end"]:
        """Feed what :meth:`fed` made: see :meth:`Port.feed`."""
        try:
            taken = self.port.feed(data, final=final, timeout=timeout)
        except InvalidStateError:
            if self._ended and not self._final:  # its reader was given the end meanwhile, which closed it
                return "end"
            raise
        self._final = self._final or (final and taken == "taken")
        return taken

    def fed(self, value: object) -> bytes | bytearray | memoryview:
        """What is fed, as bytes.

        Raises:
            UnsupportedError: The method takes no feed.
            InvalidDataError: It is fed bytes, and the value is something else; or the value cannot be written as JSON.
        """
        if not self.port.takes_feed:
            raise UnsupportedError("this method takes no feed", plugin=self.plugin.name, method=self.method.name)
        if isinstance(value, RAW):
            return value
        if (expected := self.method.feed_type) != JSON:
            raise InvalidDataError(
                f"expected bytes, for the method is fed {expected}, got {type(value).__name__}",
                plugin=self.plugin.name,
                method=self.method.name,
            )
        return encode(value)

    def feed_from(self, blocks: Iterable[object]) -> None:
        """Feed each of `blocks`, and the end, from a thread of its own, while this one reads.

        What goes wrong in it cancels the stream and is raised to whoever reads. It ends when nobody has the stream any
        more.
        """
        self.fed(b"")
        weakref.finalize(self, self.port.close).atexit = False
        reference = weakref.ref(self)

        def feed(block: object, *, final: bool = False) -> bool:
            if (stream := reference()) is None:
                return False
            data, left, port = stream.fed(block), stream.left(), stream.port
            del stream  # which whoever reads may walk away from meanwhile
            return port.feed(data, final=final, timeout=left) == "taken"

        def run() -> None:
            try:
                for block in blocks:
                    if not feed(block):
                        return
                feed(b"", final=True)
            except BaseException as error:
                stream = reference()
                if stream is not None and not (stream._closed or stream._cancelled):
                    stream._feed_fault = error
                    stream.cancel()

        threading.Thread(target=run, name=f"ferrule-feed-{self.plugin.name}", daemon=True).start()

    # ---- what is known of it -----------------------------------------------------------------------

    @property
    def metadata(self) -> dict[str, Any]:
        """What the plugin says beside its items: of the stream as it was opened, of the item given last, and of the
        stream again once it has ended."""
        return self._told

    @property
    def media_type(self) -> str:
        """Of its items: the method's in the manifest, unless the plugin named another as it opened."""
        told = self._opened_as
        return told if isinstance(told, str) else self.method.output

    @property
    def closed(self) -> bool:
        """Whether it is over: read to its end, failed, or closed."""
        return self._closed

    @property
    def cancelled(self) -> bool:
        """Whether somebody asked it to end."""
        return self._cancelled

    def position(self) -> Any:
        """Where to resume, as the plugin says it: after the last item that was taken from it, which may be ahead of
        the last one that this iterator gave. At the end, after the last item of all.

        Raises:
            UnsupportedError: The stream has no positions.
            InvalidStateError: It was closed before its end.
        """
        told = self._position()
        try:
            return orjson.loads(told)
        except orjson.JSONDecodeError as error:
            raise InternalError(
                f"the plugin's position is no JSON: {error}; it begins {told[:80].decode('utf-8', 'replace')!r}",
                plugin=self.plugin.name,
                method=self.method.name,
            ) from None

    # ---- ending ----------------------------------------------------------------------------------

    def cancel(self) -> bool:
        """Ask the plugin to end its work soon. Any thread. What it had ready may still be read.

        Returns:
            Whether the manifest says that the method heeds it.
        """
        self._cancelled = True
        self.port.cancel()
        return self.method.cancellable

    def close(self) -> None:
        """Cancel and free it; what was read ahead is dropped. Twice is harmless; in two threads, both come back when it
        is freed."""
        if not self._closed:
            self._closed = True
            self.ready.clear()
            self._later.clear()
            self._after = None
        if not self.freed:
            self.port.close()
            self.freed = True

    def _end(self) -> None:
        """Free it at its end; where it stood stays known."""
        if not self._closed:
            self._ended = True
            try:
                told = self.port.position()
                self._position = lambda: told
            except PluginError as error:
                fault = error
                self._position = lambda: _raise(fault)
            self.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Stream of {self.plugin.kind} {self.plugin.name!r}, method {self.method.name!r}>"


def json_object(data: bytes) -> dict[str, Any]:
    """A JSON object; nothing, or what is none, is an empty one."""
    try:
        found = orjson.loads(data) if data else {}
    except orjson.JSONDecodeError:
        found = {}
    return found if isinstance(found, dict) else {}


def _raise(error: PluginError) -> bytes:
    raise error
