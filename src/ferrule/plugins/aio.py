"""The same methods, awaited.

Calls run on threads of ferrule's own. Streams that wake their readers need none: what is there is taken in one go, and
when nothing is, the event loop hears of the next item by the descriptor of its :class:`~ferrule.native.NativeWakes`.
"""

from __future__ import annotations

import asyncio
import time
import weakref
from collections.abc import Callable, Coroutine
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar

from ferrule.errors import InvalidStateError, PluginTimeoutError
from ferrule.manifest import Plugin
from ferrule.native import NativeWakes
from ferrule.plugins.deadlines import GRACE, Request, current, shown
from ferrule.plugins.stream import Stream
from ferrule.plugins.threads import run_in_thread

if TYPE_CHECKING:
    from ferrule.plugins.instance import Answer

__all__ = ["Aio", "AsyncStream", "in_thread", "tell"]

T = TypeVar("T")

_AT_ONCE: Final = 64
"""Calls of one concurrent instance that run at a time; a serial one has one."""


# ---- calls -----------------------------------------------------------------------------------------


async def in_thread(
    function: Callable[[], T],
    *,
    timeout: float | None = None,
    name: str = "",
    over: Callable[[], None] = lambda: None,
) -> T:
    """Run what blocks on a thread, and wait for it here.

    When the task is cancelled, or the time is over, a plugin's call in it is asked to stop. A cancelled task does not
    wait for that; one whose time is over waits for another second. `over` is called on the loop once the function has
    come back, which may be long after this has.

    Raises:
        PluginTimeoutError: It did not come back in time.
    """
    loop = asyncio.get_running_loop()
    done: asyncio.Future[T] = loop.create_future()
    request = Request()
    outcome: tuple[Any, BaseException | None] = (None, None)

    def settle() -> None:
        nonlocal outcome
        (answer, error), outcome = outcome, (None, None)  # an error holds on to `work`, and so to this
        over()
        if done.done():
            return
        if error is None:
            done.set_result(answer)
        else:
            done.set_exception(error)

    def work() -> None:
        nonlocal outcome
        current.request = request
        try:
            outcome = function(), None
        except StopIteration:  # cannot be raised into a future
            outcome = None, RuntimeError("StopIteration out of a call")
        except BaseException as error:
            outcome = None, error
        current.request = None

    try:
        run_in_thread(work, lambda: tell(loop, settle))
    except BaseException:  # no thread to be had
        over()
        raise
    try:
        if timeout is None:
            return await done
        async with asyncio.timeout(timeout + GRACE):
            return await done
    except TimeoutError:
        if done.done() and not done.cancelled():
            raise
        raise PluginTimeoutError(
            f"not back {shown(GRACE)} after its {shown(timeout)} were over, though it was asked to stop: it may be "
            "stuck (Host.stuck() tells), and keeps its thread",
            plugin=request.plugin or name or None,
            method=request.method or None,
        ) from None
    except asyncio.CancelledError:
        request.cancel()
        raise


class Aio:
    """What an instance, or a view of one, can do, awaited: each method takes what the blocking one takes.

    >>> async def main():
    ...     with ferrule.Host() as host:
    ...         stamp = host.function("add-metadata", {"plugin_name": "demo"})
    ...         return (await stamp.aio.process({"id": 1}))["processed_by_rust_plugin"]
    >>> asyncio.run(main())
    'demo'
    """

    def __init__(self, target: Any, plugin: Plugin) -> None:
        self._target = target
        self._plugin = plugin
        # A loop's callers wait for their turn there, without a thread.
        self._turns: dict[asyncio.AbstractEventLoop, asyncio.Semaphore] = {}

    if TYPE_CHECKING:  # what every instance has; a view's own methods are untyped here

        async def call(
            self,
            method: str,
            value: object = None,
            *,
            metadata: dict[str, Any] | None = None,
            timeout: float | None = None,
            returns: Any = None,
        ) -> Any: ...

        async def answer(
            self,
            method: str,
            value: object = None,
            *,
            metadata: dict[str, Any] | None = None,
            timeout: float | None = None,
            returns: Any = None,
        ) -> Answer: ...

        async def open(
            self,
            method: str,
            value: object = None,
            *,
            metadata: dict[str, Any] | None = None,
            timeout: float | None = None,
        ) -> AsyncStream: ...

    def __getattr__(self, name: str) -> Callable[..., Coroutine[Any, Any, Any]]:
        method = None if name.startswith("_") else getattr(self._target, name)
        if not callable(method):
            raise AttributeError(f"{self._plugin.name!r} has no method {name!r} to await")

        async def awaited(*args: Any, **options: Any) -> Any:
            timeout, began = options.get("timeout"), time.monotonic()
            loop = asyncio.get_running_loop()
            turn = self._turn(loop)
            try:
                async with asyncio.timeout(timeout):
                    await turn.acquire()
            except TimeoutError:
                raise PluginTimeoutError(
                    f"other calls of the instance took all of its {shown(timeout)}; it was not called",
                    plugin=self._plugin.name,
                ) from None
            if timeout is not None:
                options["timeout"] = timeout = max(0.0, timeout - (time.monotonic() - began))
            # The turn ends with the call, and not with the awaiting of it: one that is stuck keeps its turn.
            answer = await in_thread(
                lambda: method(*args, **options), timeout=timeout, name=self._plugin.name, over=turn.release
            )
            return AsyncStream(answer) if isinstance(answer, Stream) else answer

        return awaited

    def _turn(self, loop: asyncio.AbstractEventLoop) -> asyncio.Semaphore:
        turn = self._turns.get(loop)
        if turn is None:
            turn = self._turns[loop] = asyncio.Semaphore(1 if self._plugin.threading == "serial" else _AT_ONCE)
            for other in list(self._turns):
                if other.is_closed():
                    self._turns.pop(other, None)
        return turn

    def __dir__(self) -> list[str]:
        return [name for name in dir(self._target) if not name.startswith("_")]


def tell(loop: asyncio.AbstractEventLoop, function: Callable[..., None], *arguments: Any) -> None:
    """Call a function on a loop's thread, from any; a loop that is closed has nobody who waits any more."""
    try:
        loop.call_soon_threadsafe(function, *arguments)
    except RuntimeError:
        pass


# ---- streams ---------------------------------------------------------------------------------------


class AsyncStream:
    """A :class:`~ferrule.Stream` that is awaited: ``async for``, ``await feed``, ``async with``.

    One task reads, another may feed. A task that is cancelled while it reads cancels the plugin's work.
    """

    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self._ready = stream.ready
        self._port = stream.port
        self._reading: asyncio.Future[None] | None = None
        self._feeding: asyncio.Future[None] | None = None
        self._rested = True
        self._loop = asyncio.get_running_loop()
        self._wakes = _Wakes.of(self._loop, self) if stream.port.wakes and not stream.port.locked else None

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Any:
        if self._ready:
            return self._ready.popleft()
        return await self._wait(None)

    async def next(self, *, timeout: float | None = None) -> Any:
        """The next item: see :meth:`ferrule.Stream.next`.

        Raises:
            StopAsyncIteration: The stream is at its end.
            PluginTimeoutError: Nothing came in time; the stream lives on.
        """
        return self._ready.popleft() if self._ready else await self._wait(timeout)

    async def _wait(self, timeout: float | None) -> Any:
        stream = self.stream
        until = None if timeout is None else time.monotonic() + timeout
        try:
            while not self._ready:
                if self._wakes is None:  # all of it may wait, the end too
                    if not await in_thread(lambda: stream.step(until)):
                        raise StopAsyncIteration
                    continue
                if stream.over():
                    raise StopAsyncIteration
                left = stream.left(until)
                if stream.pull(0):
                    _wake(self._feeding)
                    if not self._rested:  # a stream that always has more must not keep the loop from others
                        await asyncio.sleep(0)
                    self._rested = False
                    continue
                self._rested = True
                self._alone(self._reading, "reading")
                self._reading = self._loop.create_future()
                try:
                    await _within(left, self._reading)
                except TimeoutError:
                    stream.left()
                    raise PluginTimeoutError(
                        f"nothing came in {shown(timeout)}", plugin=stream.plugin.name, method=stream.method.name
                    ) from None
                finally:
                    self._reading = None
        except asyncio.CancelledError:
            stream.cancel()
            raise
        return self._ready.popleft()

    async def feed(self, value: object = b"", *, final: bool = False, timeout: float | None = None) -> bool:
        """Give the plugin data while it runs: see :meth:`ferrule.Stream.feed`."""
        stream = self.stream
        data = stream.fed(value)
        until = None if timeout is None else time.monotonic() + timeout
        if self._wakes is None:
            left = stream.left(until)
            return await in_thread(lambda: stream.feed(data, final=final, timeout=left))
        while (taken := stream.give(data, final=final, timeout=0)) == "pending":
            left = stream.left(until)
            self._alone(self._feeding, "feeding")
            self._feeding = self._loop.create_future()
            try:
                await _within(left, self._feeding)
            except TimeoutError:
                stream.left()
                raise PluginTimeoutError(
                    f"the plugin had no room in {shown(timeout)}; nothing was taken",
                    plugin=stream.plugin.name,
                    method=stream.method.name,
                ) from None
            finally:
                self._feeding = None
        _wake(self._reading)
        return taken == "taken"

    def _alone(self, other: asyncio.Future[None] | None, doing: str) -> None:
        if other is not None:
            stream = self.stream
            raise InvalidStateError(
                f"another task is {doing} this stream; one at a time",
                plugin=stream.plugin.name,
                method=stream.method.name,
            )

    def woken(self) -> None:
        """The plugin has something, or room for something."""
        _wake(self._reading)
        _wake(self._feeding)

    def __getattr__(self, name: str) -> Any:
        """Whatever of :class:`~ferrule.Stream` does not wait: ``metadata``, ``position``, ``cancel``, ``closed``, …"""
        if name in _AWAITED or name.startswith("_"):
            raise AttributeError(name)
        return getattr(self.stream, name)

    async def close(self) -> None:
        """Cancel and free it. Twice is harmless."""
        if not self.stream.freed:
            await in_thread(self.stream.close)
        self.woken()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def __repr__(self) -> str:
        return f"<Async{repr(self.stream)[1:]}"


_AWAITED = ("stream", "feed_from")


async def _within(left: float | None, waiting: asyncio.Future[None]) -> None:
    """Wait, for ever without what wait_for costs.

    Raises:
        TimeoutError: `left` seconds went by.
    """
    if left is None:
        await waiting
    else:
        await asyncio.wait_for(waiting, left)


def _wake(waiting: asyncio.Future[None] | None) -> None:
    if waiting is not None and not waiting.done():
        waiting.set_result(None)


class _Wakes:
    """An event loop's descriptor, and the streams that it hears of."""

    _all: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, _Wakes] = weakref.WeakKeyDictionary()

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._native = NativeWakes()
        self._streams: weakref.WeakValueDictionary[int, AsyncStream] = weakref.WeakValueDictionary()
        loop.add_reader(self._native.fileno(), self._heard)

    @classmethod
    def of(cls, loop: asyncio.AbstractEventLoop, stream: AsyncStream) -> _Wakes | None:
        """Those of the loop, with the stream among them; None for a loop that cannot watch descriptors."""
        found = cls._all.get(loop)
        if found is None:
            try:
                found = cls._all[loop] = cls(loop)
            except NotImplementedError:  # Windows' proactor
                return None
        port: Any = stream.stream.port
        found._streams[port.id] = stream
        port.watch(found._native)
        return found

    def _heard(self) -> None:
        for number in self._native.take():
            if (stream := self._streams.get(number)) is not None:
                stream.woken()
