"""Deadlines of calls in this process: requests to stop, and who did not heed one.

A call of native code cannot be stopped from outside. When its time is over its plugin is told so, by the flag that it
looks at; one that still does not come back is stuck, and is reported as that. One thread sees to all calls; it sleeps
until the next of their times.
"""

from __future__ import annotations

import heapq
import logging
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import count
from typing import Final, NamedTuple

from ferrule.native import CallTicket

__all__ = ["GRACE", "Request", "Stuck", "current", "shown", "stuck"]

GRACE: Final = 1.0
"""Seconds that a call has to come back once it was asked to."""

_AGAIN: Final = 4.0
"""How much longer it takes from one report of a stuck call to the next."""


class Stuck(NamedTuple):
    """A call that was asked to stop and has not come back.

    Attributes:
        plugin: The plugin's name.
        method: The method that it is in.
        seconds: Since it was called.
    """

    plugin: str
    method: str
    seconds: float


def shown(seconds: float | None) -> str:
    """A time that somebody was given, less what was waited before, as they gave it."""
    return f"{float(f'{seconds or 0:.2g}'):g} s"


class Request:
    """A call, from before it begins until it has come back, as somebody who may want it to stop holds it."""

    def __init__(self) -> None:
        self.ticket = CallTicket()
        self.plugin = self.method = ""
        self.began = 0.0
        self.asked: float | None = None
        self.expired = False
        """Whether its time was over before it came back."""
        self.under_way = False

    def cancel(self) -> None:
        """Ask the call to stop: the one under way, or the one that is about to begin. Any thread."""
        self.ticket.cancel()
        with _changed:
            if self.asked is None:
                self.asked = time.monotonic()
                if self.under_way:
                    _plan(self.asked + GRACE, self)

    @contextmanager
    def limited(self, plugin: str, method: str, timeout: float | None) -> Iterator[None]:
        """Around the call: ask it to stop when `timeout` seconds are over (None: only when somebody cancels it)."""
        self.plugin, self.method, self.began = plugin, method, time.monotonic()
        with _changed:
            self.under_way = True
            if self.asked is not None:
                _plan(self.began + GRACE, self)
            elif timeout is not None:
                # Without any time it is to answer with what is there; who cannot is late a moment later.
                _plan(self.began + (timeout if timeout > 0 else GRACE), self)
        try:
            yield
        finally:
            self.under_way = False
            if self.asked is not None:
                with _changed:
                    _late.discard(self)


class _Current(threading.local):
    request: Request | None = None


current: Final = _Current()
"""The request that this thread's next call belongs to, where whoever started the thread may want it to stop."""

_changed = threading.Condition()
_due: list[tuple[float, int, Request]] = []
_crowded = 1000
_late: set[Request] = set()
_numbers = count()
_thread: threading.Thread | None = None


def stuck() -> list[Stuck]:
    """The calls of this process that were asked to stop, have had a second to do so, and are still under way."""
    now = time.monotonic()
    with _changed:
        late = sorted(_late, key=lambda request: request.began)
    return [Stuck(request.plugin, request.method, now - request.began) for request in late]


def _plan(when: float, request: Request) -> None:
    """Look at a request at that time. Holding the lock."""
    global _thread, _due, _crowded
    if len(_due) >= _crowded:  # most calls come back long before their time
        _due = [entry for entry in _due if entry[2].under_way]
        heapq.heapify(_due)
        _crowded = max(1000, 2 * len(_due))
    heapq.heappush(_due, (when, next(_numbers), request))
    if _thread is None:
        _thread = threading.Thread(target=_watch, name="ferrule-deadlines", daemon=True)
        _thread.start()
    elif _due[0][2] is request:
        _changed.notify()


def _watch() -> None:
    while True:
        with _changed:
            while _due and not _due[0][2].under_way:
                heapq.heappop(_due)
            now = time.monotonic()
            if not _due or _due[0][0] > now:
                _changed.wait(min(_due[0][0] - now, threading.TIMEOUT_MAX) if _due else None)
                continue
            request = heapq.heappop(_due)[2]
            if request.asked is not None:
                _late.add(request)
                _plan(now + (now - request.began) * _AGAIN, request)
        if request.asked is None:
            request.expired = True
            request.cancel()
        else:
            with suppress(Exception):  # a filter or handler of somebody's that fails must not end all deadlines
                _report(request, now)


def _report(request: Request, now: float) -> None:
    assert request.asked is not None
    logging.getLogger(f"ferrule.plugin.{request.plugin}").error(
        "method %r of plugin %r is stuck: called %.1f s ago, asked to stop %.1f s ago, and still running. "
        "It keeps its thread; a call cannot be stopped from outside in this process",
        request.method,
        request.plugin,
        now - request.began,
        now - request.asked,
    )


def _after_fork() -> None:
    global _changed, _thread
    _changed = threading.Condition()
    _due.clear()
    _late.clear()
    _thread = None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
