"""What ``ferrule bench`` measures with: a plain C loop, and ends that cost nothing."""

from __future__ import annotations

from typing import cast

from ferrule.native.answers import CallAnswer
from ferrule.native.door import STATUS, ffi, introduce, lib, plugin_error
from ferrule.native.library import Library, NativeObject

__all__ = ["cheap_end", "timed_calls"]


def timed_calls(target: NativeObject, method: str, data: bytes, *, calls: int, samples: int) -> list[int]:
    """Call a method in a plain C loop, with nothing of the host around it.

    Args:
        target: The instance; its lock is held all the while.
        method: A name that it was made with.
        data: The input of every call.
        calls: How many a sample.
        samples: How often that.

    Returns:
        Nanoseconds that each sample took.

    Raises:
        PluginError: A call failed; it was the last.
    """
    answer = CallAnswer()
    times = ffi.new("int64_t[]", samples)
    result = lib.fh_bench_calls(target._c, target.methods[method], data, len(data), calls, samples, times, answer.c)
    if result < 0:
        raise plugin_error(result - STATUS, answer.error(), plugin=target.plugin, method=method)
    return list(times)


def cheap_end(record: bytes = b"", count: int = 0) -> NativeObject:
    """An end of a flow that costs next to nothing: a source whose ``read_data`` gives ``record`` ``count`` times, and a
    sink whose ``write`` takes lines and drops them."""
    number = introduce("(bench)")
    c = lib.fh_bench_end(number, record, len(record), count)
    if c == ffi.NULL:
        raise MemoryError("no memory for a record")
    made = NativeObject(cast(Library, None), "(bench)", number, ffi.gc(c, lib.fh_instance_free))  # it is the host's own
    made.methods.update(read_data=0, write=0)
    return made
