"""Instances of one plugin that are made once, leased, and given back."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import Self

from ferrule.errors import InvalidStateError, PluginError, PluginTimeoutError, UnsupportedError
from ferrule.manifest import Plugin
from ferrule.plugins.deadlines import shown
from ferrule.plugins.instance import Instance

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
        self._closed = self._given_up = False

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
        while self._waiting and self._leased < self.size:
            turn = self._waiting.popleft()
            turn.begun = True
            self._leased += 1
            ready.append(turn)
        return ready

    def _leave(self, turn: _Turn) -> None:
        """A turn that nobody waits for any more."""
        with self._lock:
            if not turn.begun:
                if not self._closed:  # else it waits no longer
                    self._waiting.remove(turn)
                return
        self._done(None)

    def _require_open(self) -> None:
        if self._closed:
            raise InvalidStateError("the pool is closed", plugin=self.plugin.name)

    # ---- instances ---------------------------------------------------------------------------------

    def _take(self, turn: _Turn) -> Instance:
        """An instance, for a turn that has begun, or that never will."""
        if not turn.begun:
            self._require_open()
        try:
            with self._making if self._shares else self._lock:
                self._require_open()
                while self._idle and self._idle[-1].poisoned:  # it is closed when whoever still has it gives it back
                    self._idle.pop()
                if self._shares:
                    if not self._idle:
                        self._idle.append(self._make())
                    return self._idle[-1]
                if self._idle:
                    return self._idle.pop()
            return self._make()
        except BaseException:
            self._done(None)
            raise

    def _give_back(self, instance: Instance) -> None:
        """The end of a lease: reset, or closed and forgotten."""
        kept = None
        try:
            if self._shares and not instance.poisoned:
                return
            if not (instance.poisoned or self._closed) and self._reset(instance):
                kept = instance
            else:
                self._discard(instance)
        finally:
            self._done(kept)

    def _reset(self, instance: Instance) -> bool:
        """Whether it can be used again."""
        try:
            if self.resets:
                instance.call("reset")
        except PluginError:
            return False
        return True

    def _done(self, instance: Instance | None) -> None:
        with self._lock:
            if instance is not None:
                self._idle.append(instance)
            self._leased -= 1
            if not self._leased:
                self._nobody.notify_all()
            late = self._idle_if_closed() if self._given_up else []
            ready = self._grant()
        _call(ready)
        for each in late:
            self._discard(each)

    def _discard(self, instance: Instance) -> None:
        try:
            instance.close()
        except PluginError:  # given back from inside of a call of its own: it goes with whoever holds it last
            pass

    def close(self, *, timeout: float | None = None) -> None:
        """Take no new leases, wait for those there are, and close the instances. Twice is harmless.

        Args:
            timeout: Seconds to wait for leases; those that are out still then are closed when they come back.
        """
        with self._lock:
            self._closed = True
            waiting = list(self._waiting)
            self._waiting.clear()
        _call(waiting)  # they learn that it is closed
        with self._lock:
            self._given_up = not self._nobody.wait_for(lambda: not self._leased, timeout)
            idle = self._idle_if_closed()
        for instance in idle:
            self._discard(instance)

    def _idle_if_closed(self) -> list[Instance]:
        """The instances that can be closed at the pool's end. Holding the lock."""
        if self._shares and self._leased:
            return []
        idle, self._idle = self._idle, []
        return idle

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
        self._instance = self._pool._take(turn)
        return self._instance

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._return()

    async def __aenter__(self) -> Instance:
        import asyncio

        from ferrule.plugins.aio import in_thread, tell
        from ferrule.plugins.threads import run_in_thread

        loop = asyncio.get_running_loop()
        begun = asyncio.Event()
        turn = self._pool._queue(lambda: tell(loop, begun.set))
        try:
            if not turn.begun:
                async with asyncio.timeout(self._timeout):
                    await begun.wait()
        except TimeoutError:
            self._pool._leave(turn)
            raise self._late() from None
        except BaseException:
            self._pool._leave(turn)
            raise

        # Making one may take long. Whoever has left meanwhile, perhaps with his loop, hands it straight back.
        left = False

        def take() -> Instance:
            instance = self._pool._take(turn)
            with self._pool._lock:
                self._instance, unwanted = (None, instance) if left else (instance, None)
            if unwanted is not None:
                self._pool._give_back(unwanted)
            return instance

        try:
            return await in_thread(take)
        except BaseException:
            with self._pool._lock:
                left = True
            if self._instance is not None:
                run_in_thread(self._return, lambda: None)
            raise

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        from ferrule.plugins.aio import in_thread

        await in_thread(self._return)
