"""The door to C, and the Python objects behind it that own their C ones and raise ``ferrule.errors``.

A :class:`Library` makes :class:`NativeObject` s, which are called and opened; a :class:`NativeStream` is read; a
:class:`NativeFlow` and its :class:`NativeLane` s are the pump. Bytes go in and out; JSON is the layer above. Only
``ferrule.native.door`` imports the compiled module.
"""

from __future__ import annotations

from ferrule.native.door import ABI, error_object, plugin_error
from ferrule.native.library import CallTicket, Library, NativeObject, Results
from ferrule.native.logs import logs_dropped
from ferrule.native.measure import cheap_end, timed_calls
from ferrule.native.pump import (
    BUCKETS,
    LINES,
    ONE,
    POLICY,
    SEVERAL,
    SINK,
    SOURCE,
    Answer,
    Counters,
    Event,
    NativeFlow,
    NativeLane,
    Parked,
    Retry,
    StepCounters,
    Stopping,
    Waiting,
)
from ferrule.native.stream import NativeStream, NativeWakes

__all__ = [
    "ABI",
    "BUCKETS",
    "LINES",
    "ONE",
    "POLICY",
    "SEVERAL",
    "SINK",
    "SOURCE",
    "Answer",
    "CallTicket",
    "Counters",
    "Event",
    "Library",
    "NativeFlow",
    "NativeLane",
    "NativeObject",
    "NativeStream",
    "NativeWakes",
    "Parked",
    "Results",
    "Retry",
    "StepCounters",
    "Stopping",
    "Waiting",
    "cheap_end",
    "error_object",
    "logs_dropped",
    "plugin_error",
    "timed_calls",
]
