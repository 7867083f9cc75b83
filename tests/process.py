"""What a test asks of the process that it runs in."""

from __future__ import annotations

import gc
import os
from pathlib import Path

__all__ = ["held", "raising", "resident"]


def resident() -> int:
    """Bytes of memory that it holds, without what only the collector frees; 0 where the system does not say."""
    gc.collect()
    status = Path("/proc/self/statm")
    return int(status.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") if status.exists() else 0


def held() -> tuple[int, int, int]:
    """Bytes, threads and descriptors, on Linux."""
    return resident(), len(os.listdir("/proc/self/task")), len(os.listdir("/proc/self/fd"))


def raising(number: int, frame: object) -> None:
    """A program's own handler of Ctrl-C."""
    raise KeyboardInterrupt
