"""Retries: how long to wait, and the rows that wait beside the lanes when the order may change."""

from __future__ import annotations

import heapq
import random
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from ferrule.errors import PluginError
from ferrule.flow.document import Retry
from ferrule.native import Waiting
from ferrule.plugins.threads import join

__all__ = ["Row", "WaitingRows", "delay"]

MOST_ROWS = 1000
MOST_BYTES = 64 << 20
"""Of the rows that wait beside the lanes. Beyond it a lane waits itself, as it does in order."""


def delay(retry: Retry, attempt: int, error: PluginError) -> float:
    """Seconds to wait after attempt number `attempt` (from 1), at least what the plugin asked for."""
    wait = min(retry.initial * retry.factor ** min(attempt - 1, 1000), retry.max)
    wait *= 1 + retry.jitter * random.uniform(-1, 1)
    return max(wait, error.retry_after or 0.0)


@dataclass(order=True, slots=True)
class Row:
    """A record that waits for its next attempt.

    Attributes:
        due: When, on the monotonic clock.
        record: Its number.
        source: Its bytes as the source gave it.
        input: What the step is given.
        step: The step that failed.
        attempt: How often that step was tried; 0 if it is that step's turn.
    """

    due: float
    record: int
    source: bytes = field(compare=False)
    input: bytes = field(compare=False)
    step: int = field(compare=False)
    attempt: int = field(compare=False)

    def left(self) -> Waiting:
        """The row for another day: its attempts begin anew."""
        return Waiting(self.record, self.source, self.step, self.input if self.step else b"")


class WaitingRows:
    """Rows that wait beside the lanes, and the thread that takes them up again.

    Args:
        process: Takes a row through the steps that are left and into the sink. It returns the row when it is to wait
            again, or the rows that it became, or none when it has come to an end.
        failed: Told of an exception out of `process` that is not the row's own; the thread has then ended.
    """

    def __init__(self, process: Callable[[Row], Sequence[Row]], failed: Callable[[BaseException], None]) -> None:
        self._process = process
        self._failed = failed
        self._rows: list[Row] = []
        self._bytes = 0
        self._busy = False
        self._ended = False
        self._changed = threading.Condition()
        self.steady = threading.Lock()
        """Held while a row is processed: whoever holds it sees every row either waiting or done."""
        self._thread: threading.Thread | None = None

    def take(self, row: Row) -> bool:
        """Let a row wait here; False if there is no room."""
        with self._changed:
            if self._ended or len(self._rows) >= MOST_ROWS or self._bytes >= MOST_BYTES:
                return False
            self._push(row)
            if self._thread is None:
                self._thread = threading.Thread(target=self._sit, name="ferrule-retry", daemon=True)
                self._thread.start()
        return True

    def _push(self, row: Row) -> None:
        heapq.heappush(self._rows, row)
        self._bytes += len(row.source) + len(row.input)
        self._changed.notify_all()

    def rows(self) -> list[Waiting]:
        """The rows that wait. While :attr:`steady` is held."""
        with self._changed:
            return [row.left() for row in self._rows]

    def __len__(self) -> int:
        with self._changed:
            return len(self._rows) + self._busy

    def wait_empty(self, seconds: float) -> bool:
        """Wait at most that long until no row waits; whether that is so."""
        with self._changed:
            return self._changed.wait_for(lambda: self._ended or not (self._rows or self._busy), seconds)

    def end(self) -> None:
        """Take up no more rows; those that wait stay in :meth:`rows`. Waits for the one under way."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()
        if self._thread is not None and self._thread is not threading.current_thread():
            join(self._thread)

    @property
    def busy(self) -> bool:
        """Whether a row is under way."""
        return self._busy

    def _sit(self) -> None:
        try:
            while True:
                with self._changed:
                    while not self._ended and (not self._rows or self._rows[0].due > time.monotonic()):
                        self._changed.wait(self._rows[0].due - time.monotonic() if self._rows else None)
                    if self._ended:
                        return
                with self.steady:
                    with self._changed:
                        row = heapq.heappop(self._rows)
                        self._bytes -= len(row.source) + len(row.input)
                        self._busy = True
                    again = self._process(row)
                    with self._changed:
                        self._busy = False
                        for each in again:
                            self._push(each)
                        self._changed.notify_all()
        except BaseException as error:
            with self._changed:
                self._busy = False
                self._ended = True
                self._changed.notify_all()
            self._failed(error)
