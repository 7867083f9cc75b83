"""What a test asks of a clock."""

from __future__ import annotations

import time
from collections.abc import Callable

__all__ = ["TooSlowError", "timely", "until"]


class TooSlowError(AssertionError):
    """It took longer than it may: the one failure for which a test that is marked ``timed`` is run again."""


def timely(holds: bool, found: object = None) -> None:
    """Asks for something that a machine which stands still for a moment breaks."""
    if not holds:
        raise TooSlowError(found)


def until(holds: Callable[[], bool], seconds: float = 30) -> None:
    """Waits for what another thread or process brings about."""
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, f"it did not come about within {seconds:g} s"
        time.sleep(0.001)
