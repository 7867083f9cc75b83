"""Threads for blocking calls that somebody awaits, and the wait for a thread's end.

Daemon threads of our own, for the interpreter joins those of ``concurrent.futures`` before it ends, and a call that is
stuck would hold it up for ever.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable
from typing import Final

__all__ = ["join", "run_in_thread"]

_HEARD_WITHIN: Final = 0.1
"""How long the main thread may wait in one go, in seconds. A signal that comes just before a wait begins is heard when
that ends; on Windows none is heard sooner."""

_KEPT_SECONDS: Final = 10.0

_Work = tuple[Callable[[], None], Callable[[], None]]

_idle: deque[_Worker] = deque()


class _Worker:
    def __init__(self, work: _Work) -> None:
        self._work: _Work | None = work
        self._given = threading.Semaphore(0)
        threading.Thread(target=self._run, name="ferrule-call", daemon=True).start()

    def give(self, work: _Work) -> None:
        self._work = work
        self._given.release()

    def _run(self) -> None:
        while self._work is not None:
            (work, tell), self._work = self._work, None
            work()
            _idle.append(self)
            tell()
            del work, tell
            if not self._given.acquire(timeout=_KEPT_SECONDS):
                try:
                    _idle.remove(self)
                except ValueError:  # it is being given work right now
                    self._given.acquire()


def run_in_thread(work: Callable[[], None], tell: Callable[[], None]) -> None:
    """Run `work` on a thread that has nothing to do, or on a new one; then `tell`. Neither may raise, nor `tell` block.

    Whoever is told may ask for the next at once and gets the same thread, for it counts as idle already.
    """
    try:
        worker = _idle.pop()
    except IndexError:
        _Worker((work, tell))
    else:
        worker.give((work, tell))


def join(thread: threading.Thread) -> None:
    """Wait for a thread's end, and hear signals meanwhile."""
    while thread.is_alive():
        thread.join(_HEARD_WITHIN)


def _after_fork() -> None:
    _idle.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
