"""Instances of one plugin that are made once, leased, and given back."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Self

from ferrule.errors import InvalidStateError, PluginError, PluginTimeoutError, UnsupportedError
from ferrule.manifest import Plugin
from ferrule.plugins.deadlines import shown
from ferrule.plugins.instance import Instance

if TYPE_CHECKING:
    import asyncio

__all__ = ["Lease", "Pool"]


class Pool:
    """At most `size` leases of a plugin at a time; whoever came first gets the next one.

    An instance is made when it is first needed, and used again. One that is poisoned, or whose ``reset`` fails, is
    closed, and the next lease makes another. Instances of a ``serial`` plugin are one lease's alone; those of a
    ``concurrent`` one can be shared, so all leases have the same, unless it is to be reset between them.

    >>> pool = host.pool("my-runner", size=2, reset=True)
    >>> with pool.lease() as runner:
    ...     runner.call("run", {"input_data": "x"})
    'Processed: x'
    """

    def __init__(self, plugin: Plugin, make: Callable[[], Instance], *, size: int, reset: bool) -> None:
        if size < 1:
            raise ValueError(f"size: expected at least 1, got {size}")
        if reset and not plugin.has("reset"):
            raise UnsupportedError(
                "a pool with reset=True needs a plugin with a method 'reset', and this one has none",
                plugin=plugin.name,
                method="reset",
            )
        self.plugin = plugin
        self.size = size
        self.resets = reset
        self._make = make
        self._shares = plugin.threading == "concurrent" and not reset
        self._lock = threading.Lock()
        self._making = threading.Lock()
        self._idle: list[Instance] = []
        self._waiting: deque[_Turn] = deque()
        self._leased = 0
        self._nobody = threading.Condition(self._lock)
        self._closed = False

    def lease(self, *, timeout: float | None = None) -> Lease:
        """An instance for the time of a ``with`` or an ``async with``.

        Args:
            timeout: Seconds to wait for one; None waits as long as it takes.

        Raises (entering does):
            PluginTimeoutError: All were leased all the time.
            InvalidStateError: The pool is closed.
            PluginError: A new instance was needed, and could not be made.
        """
        return Lease(self, timeout)

    @property
    def closed(self) -> bool:
        """Whether somebody closed it."""
        return self._closed

    # ---- turns -----------------------------------------------------------------------------------

    def _queue(self, granted: Callable[[], None]) -> _Turn:
        """A place among those who wait; `granted` is called once, from any thread, when it is its turn."""
        turn = _Turn(granted)
        with self._lock:
            self._require_open()
            self._waiting.append(turn)
            ready = self._grant()
        _call(ready)
        return turn

    def _grant(self) -> list[_Turn]:
        """The turns that begin now. Holding the lock."""
        ready = []
        while self._waiting and (self._leased < self.size or self._closed):
            turn = self._waiting.popleft()
            turn.begun = True
            self._leased += 1
            ready.append(turn)
        return ready

    def _leave(self, turn: _Turn) -> None:
        """A turn that nobody waits for any more."""
        with self._lock:
            if not turn.begun:
                self._waiting.remove(turn)
                return
        self._done(None)

    def _require_open(self) -> None:
        if self._closed:
            raise InvalidStateError("the pool is closed", plugin=self.plugin.name)

    # ---- instances ---------------------------------------------------------------------------------

    def _take(self) -> Instance:
        """An instance, for a turn that has begun."""
        try:
            with self._making if self._shares else self._lock:
                self._require_open()
                if self._shares:
                    if not self._idle:
                        self._idle.append(self._make())
                    return self._idle[0]
                if self._idle:
                    return self._idle.pop()
            return self._make()
        except BaseException:
            self._done(None)
            raise

    def _give_back(self, instance: Instance) -> None:
        """The end of a lease: reset, or closed and forgotten."""
        good = not instance.poisoned
        if self._shares:
            if not good:
                with self._making:
                    if instance in self._idle:
                        self._idle.remove(instance)
                self._discard(instance)
            self._done(None)
            return
        if good and self.resets and not self._closed:
            try:
                instance.call("reset")
            except PluginError:
                good = False
        if good and not self._closed:
            self._done(instance)
        else:
            self._discard(instance)
            self._done(None)

    def _done(self, instance: Instance | None) -> None:
        with self._lock:
            if instance is not None:
                self._idle.append(instance)
            self._leased -= 1
            if not self._leased:
                self._nobody.notify_all()
            ready = self._grant()
        _call(ready)

    def _discard(self, instance: Instance) -> None:
        try:
            instance.close()
        except PluginError:  # a stream of it may still be read: then the last of them closes it
            pass

    def close(self, *, timeout: float | None = None) -> None:
        """Take no new leases, wait for those there are, and close the instances. Twice is harmless.

        Args:
            timeout: Seconds to wait for leases; those that are out still then are closed when they come back.
        """
        until = None if timeout is None else time.monotonic() + timeout
        with self._lock:
            self._closed = True
            ready = self._grant()
        _call(ready)  # they learn that it is closed
        with self._lock:
            while self._leased:
                if not self._nobody.wait(None if until is None else max(0.0, until - time.monotonic())):
                    break
            idle, self._idle = self._idle, []
        for instance in idle:
            self._discard(instance)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Pool of {self.plugin.kind} {self.plugin.name!r}, {self._leased} of {self.size} leased>"


class _Turn:
    """Somebody's place among those who wait for a lease."""

    def __init__(self, granted: Callable[[], None]) -> None:
        self.granted = granted
        self.begun = False


def _call(turns: list[_Turn]) -> None:
    for turn in turns:
        turn.granted()


class Lease:
    """An instance of a :class:`Pool` for the time of a ``with``, or of an ``async with``."""

    def __init__(self, pool: Pool, timeout: float | None) -> None:
        self._pool = pool
        self._timeout = timeout
        self._instance: Instance | None = None

    def _late(self) -> PluginTimeoutError:
        return PluginTimeoutError(
            f"all {self._pool.size} of the pool were leased for {shown(self._timeout)}", plugin=self._pool.plugin.name
        )

    def _return(self) -> None:
        instance, self._instance = self._instance, None
        if instance is not None:
            self._pool._give_back(instance)

    def __enter__(self) -> Instance:
        begun = threading.Event()
        turn = self._pool._queue(begun.set)
        try:
            if not begun.wait(self._timeout):
                raise self._late()
        except BaseException:
            self._pool._leave(turn)
            raise
        self._instance = self._pool._take()
        return self._instance

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._return()

    async def __aenter__(self) -> Instance:
        import asyncio

        from ferrule.plugins.aio import in_thread, tell

        loop = asyncio.get_running_loop()
        begun = asyncio.Event()
        turn = self._pool._queue(lambda: tell(loop, begun.set))
        try:
            await asyncio.wait_for(begun.wait(), self._timeout)
        except TimeoutError:
            self._pool._leave(turn)
            raise self._late() from None
        except BaseException:
            self._pool._leave(turn)
            raise

        # Making one may take long. When the task is cancelled meanwhile, it goes straight back.
        taking = asyncio.ensure_future(in_thread(self._pool._take))
        try:
            self._instance = await asyncio.shield(taking)
        except asyncio.CancelledError:
            taking.add_done_callback(self._hand_back)
            raise
        return self._instance

    def _hand_back(self, taking: asyncio.Future[Instance]) -> None:
        from ferrule.plugins.threads import run_in_thread

        if not taking.cancelled() and taking.exception() is None:
            self._instance = taking.result()
            run_in_thread(self._return)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        from ferrule.plugins.aio import in_thread

        await in_thread(self._return)
