"""What a test asks of a clock."""

from __future__ import annotations

__all__ = ["TooSlowError", "timely"]


class TooSlowError(AssertionError):
    """It took longer than it may: the one failure for which a test that is marked ``timed`` is run again."""


def timely(holds: bool, found: object = None) -> None:
    """Asks for something that a machine which stands still for a moment breaks."""
    if not holds:
        raise TooSlowError(found)
