"""The pump: a flow that lanes share, and a lane. See flow.c and lane.c."""

from __future__ import annotations

import struct
from array import array
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from ferrule.errors import FerruleError
from ferrule.native.door import OK, ffi, lib
from ferrule.native.library import NativeObject
from ferrule.native.stream import NativeStream

__all__ = [
    "BUCKETS",
    "LINES",
    "ONE",
    "POLICY",
    "SEVERAL",
    "SINK",
    "SOURCE",
    "Answer",
    "Counters",
    "Event",
    "NativeFlow",
    "NativeLane",
    "Parked",
    "Retry",
    "StepCounters",
    "Stopping",
    "Waiting",
]

_NONE: Final[int] = lib.FH_NONE
BUCKETS: Final[int] = lib.FH_BUCKETS


class Event:
    """Why a lane came back: the ``FH_EVENT_…`` of native.h."""

    END: Final[int] = lib.FH_EVENT_END
    BROKEN: Final[int] = lib.FH_EVENT_BROKEN
    RETRY: Final[int] = lib.FH_EVENT_RETRY
    CHECKPOINT: Final[int] = lib.FH_EVENT_CHECKPOINT
    SOURCE: Final[int] = lib.FH_EVENT_SOURCE
    STEP: Final[int] = lib.FH_EVENT_STEP
    SINK: Final[int] = lib.FH_EVENT_SINK


class Answer:
    """What becomes of a call that may be repeated: the answers to :attr:`Event.RETRY`."""

    GIVE_UP: Final[int] = lib.FH_GIVE_UP
    AGAIN: Final[int] = lib.FH_AGAIN
    TAKEN: Final[int] = lib.FH_TAKEN


class Stopping:
    """Why a flow ends before its source does."""

    STOPPED: Final = 1
    FAILED: Final = 2
    ABORTED: Final = 3


SOURCE: Final[int] = lib.FH_SOURCE
SINK: Final[int] = lib.FH_SINK
POLICY: Final[dict[str, int]] = {"fail": lib.FH_FAIL, "skip": lib.FH_SKIP, "dead_letter": lib.FH_DEAD_LETTER}
ONE: Final[int] = lib.FH_ONE
SEVERAL: Final[int] = lib.FH_SEVERAL
LINES: Final[int] = lib.FH_LINES


Parked = tuple[int, int, bytes, bytes, int, bool, int, int]
"""A row that failed: its number from 1, wall-clock ns, the source record's bytes, the error object, the status, whether
it ends the flow, the step's number (or SOURCE, SINK), and the attempt. A plain tuple: making one costs no call."""


class Counters(NamedTuple):
    """Records of a flow, as far as their chunks are drained."""

    read: int
    written: int
    skipped: int
    dead: int
    failed: int
    taken: int
    added: int


class StepCounters(NamedTuple):
    """What one lane's step did so far; of BUCKETS, ``histogram[i]`` counts sampled calls of 2**i to 2**(i+1)
    nanoseconds."""

    calls: int
    skipped: int
    errors: int
    retries: int
    sampled_ns: int
    histogram: tuple[int, ...]


class Retry(NamedTuple):
    """A call that failed and may be repeated: what the step was given, and which record it began as."""

    record: int
    input: bytes
    source: bytes
    error: bytes
    status: int
    attempt: int


class Waiting(NamedTuple):
    """A row that waits for another day.

    Attributes:
        record: Its number, from 1.
        data: The source record's bytes; empty where the source itself made none.
        step: It enters before this step, or, by its number of steps, before the sink.
        given: What that step is given: bytes of a record. Empty before step 0, which is given `data`.
        status: OK; else it has failed in `step` (which may be SOURCE or SINK), `given` is the error object, and what
            becomes of that is to be decided.
        attempt: Of the failure.
    """

    record: int
    data: bytes
    step: int = 0
    given: bytes = b""
    status: int = OK
    attempt: int = 1


_PARKED: Final = struct.Struct("=QqQIIiiII")


class NativeFlow:
    """What the lanes of a flow share: see flow.c. Any thread may stop it and read its counters."""

    def __init__(self, steps: int, *, in_order: bool = True, fill_bytes: int = 64 * 1024) -> None:
        self._c: Any = ffi.gc(lib.fh_flow_new(steps, fill_bytes, in_order), lib.fh_flow_free)
        if self._c == ffi.NULL:
            raise MemoryError("no memory for a flow")
        self._held: dict[str, object] = {}  # what C points at must live as long
        self._waiting: Sequence[Waiting] = ()

    def source(self, stream: NativeStream | None, *, many: bool, on_error: int, retries: int = 0) -> None:
        """Say where records come from; None: from Python, by :attr:`Event.SOURCE`."""
        self._held["source"] = stream
        lib.fh_flow_source(self._c, ffi.NULL if stream is None else stream._c, many, on_error, retries)

    def step(self, number: int, *, on_error: int, retries: int = 0, answers: int = ONE) -> None:
        """Say what becomes of step ``number``'s failures, and what its answers are: ONE, SEVERAL or LINES."""
        lib.fh_flow_step(self._c, number, on_error, retries, answers)

    def sink(self, instance: NativeObject | None, method: str, *, lines: bool, on_error: int, retries: int = 0) -> None:
        """Say where records go; None: to Python, by :attr:`Event.SINK`."""
        self._held["sink"] = instance
        c, number = (ffi.NULL, 0) if instance is None else (instance._c, instance.methods[method])
        lib.fh_flow_sink(self._c, c, number, lines, on_error, retries)

    def limit(self, records: int) -> None:
        """Begin at most that many: of those that wait, and of the source's."""
        lib.fh_flow_limit(self._c, records)

    def room(self) -> int:
        """At :attr:`Event.SOURCE`: how many records may be read yet."""
        return int(lib.fh_flow_room(self._c))

    def begin_at(self, records: int) -> None:
        """The source goes on behind that many records."""
        lib.fh_flow_begin_at(self._c, records)

    def waiting(self, rows: Sequence[Waiting]) -> None:
        """Begin with these, before the source's records. In the order in which they were left."""
        c = ffi.new("fh_parked *")
        for row in rows:
            c.record, c.step, c.status, c.attempt = row.record, row.step, row.status, row.attempt
            c.record_len, c.error_len = len(row.data), len(row.given)
            _check(lib.fh_flow_waiting(self._c, c, row.data, row.given))
        self._waiting = rows

    def unbegun(self) -> Sequence[Waiting]:
        """Of the rows that it was to begin with, those that no lane has taken yet."""
        return self._waiting[lib.fh_flow_waiting_begun(self._c) :]

    def checkpoints(self, seconds: float) -> None:
        """Give an :attr:`Event.CHECKPOINT` about that often, while records come."""
        lib.fh_flow_checkpoints(self._c, round(seconds * 1000))

    def stop(self) -> None:
        """End after the records under way. Any thread."""
        lib.fh_flow_stop(self._c)

    def abort(self) -> None:
        """A lane cannot go on: let no other wait for it, and drain nothing more."""
        lib.fh_flow_abort(self._c)

    @property
    def stopping(self) -> int:
        """0, or a :class:`Stopping`."""
        return int(lib.fh_flow_stopping(self._c))

    def counters(self) -> Counters:
        """The counters as they are at this moment."""
        c = lib.fh_flow_counters(self._c)
        return Counters(c.read, c.written, c.skipped, c.dead, c.failed, c.taken, c.added)

    def settled(self, *, written: int = 0, skipped: int = 0, dead: int = 0) -> None:
        """A row that Python had taken came to its end."""
        lib.fh_flow_settled(self._c, written, skipped, dead)

    def abandon(self, status: int, error: bytes) -> None:
        """Answer :attr:`Event.BROKEN` where no new instance can be made: what came before is drained, then it fails."""
        lib.fh_lane_abandon(self._c, status, error, len(error))

    def parked(self) -> list[Parked]:
        """Wait for rows that failed, and take them, in the order of their numbers within a chunk; the ones before are
        dealt with. Empty: no more come. One thread, beside the lanes."""
        return sorted(self._parcel(lib.fh_flow_parked))

    def all_parked(self) -> None:
        """Every lane has ended: :meth:`parked` gives what is left, and then no more."""
        lib.fh_flow_all_parked(self._c)

    def left(self) -> list[Waiting]:
        """When every lane has ended: the rows that were read and came to no end, in the order of their chunks."""
        return [
            Waiting(record, data, step, given, status, attempt)
            for record, _, data, given, status, _, step, attempt in self._parcel(lib.fh_flow_left)
        ]

    def position(self) -> tuple[bytes, int]:
        """Where the source stands behind the last drained record (empty if it has no positions), and its number."""
        length, records = ffi.new("size_t *"), ffi.new("uint64_t *")
        data = lib.fh_flow_position(self._c, length, records)
        return (bytes(ffi.buffer(data, length[0])) if length[0] else b""), records[0]

    def _parcel(self, take: Any) -> list[Parked]:
        rows, data, length = ffi.new("uint32_t *"), ffi.new("uint8_t **"), ffi.new("size_t *")
        entries = take(self._c, rows, data, length)
        if not rows[0]:
            return []
        table = ffi.buffer(entries, rows[0] * _PARKED.size)
        text = bytes(ffi.buffer(data[0], length[0])) if length[0] else b""
        fail = lib.FH_FAIL
        return [
            (
                record,
                time_ns,
                text[offset : offset + record_len],
                text[offset + record_len : offset + record_len + error_len],
                status,
                policy == fail,
                step,
                attempt,
            )
            for record, time_ns, offset, record_len, error_len, status, policy, step, attempt in _PARKED.iter_unpack(
                table
            )
        ]


class NativeLane:
    """A thread's place in a flow: see lane.c. One thread at a time."""

    def __init__(self, flow: NativeFlow) -> None:
        self._flow = flow
        self._c: Any = ffi.gc(lib.fh_lane_new(flow._c), lib.fh_lane_free)
        if self._c == ffi.NULL:
            raise MemoryError("no memory for a lane's chunk")
        self._held: dict[int, NativeObject | None] = {}

    def step(self, number: int, instance: NativeObject | None, method: str) -> None:
        """Say what step ``number`` calls; None: Python, by :attr:`Event.STEP`. Again, to replace a broken one."""
        self._held[number] = instance
        c, method_number = (ffi.NULL, 0) if instance is None else (instance._c, instance.methods[method])
        lib.fh_lane_step(self._c, number, c, method_number)

    def run(self) -> int:
        """Run, without the GIL, until something needs Python: an :class:`Event`."""
        return int(lib.fh_lane_run(self._c))

    @property
    def event_step(self) -> int:
        """The step that the last event is about; SOURCE or SINK."""
        return int(lib.fh_lane_event_step(self._c))

    @property
    def chunk_rows(self) -> int:
        """How many records to answer :attr:`Event.SOURCE` with, at most."""
        return int(lib.fh_lane_chunk_rows(self._c))

    def step_counters(self, number: int) -> StepCounters:
        """One step's counters as they are at this moment; of a step in Python without its calls."""
        c = lib.fh_lane_step_counters(self._c, number)
        return StepCounters(c.calls, c.skipped, c.errors, c.retries, c.sampled_ns, tuple(c.histogram))

    def retrying(self) -> Retry:
        """What :attr:`Event.RETRY` is about."""
        c = ffi.new("fh_retry *")
        lib.fh_lane_retrying(self._c, c)

        def data(pointer: Any, length: int) -> bytes:
            return bytes(ffi.buffer(pointer, length)) if length else b""

        return Retry(
            c.record,
            data(c.input, c.input_len),
            data(c.source, c.source_len),
            data(c.error, c.error_len),
            c.status,
            c.attempt,
        )

    def retry(self, answer: int) -> None:
        """Answer it: an :class:`Answer`."""
        lib.fh_lane_retry(self._c, answer)

    def rows(self) -> list[bytes]:
        """The records that a Python step or sink is to take now."""
        length, rows = ffi.new("size_t *"), ffi.new("uint32_t *")
        data = lib.fh_lane_rows(self._c, length, rows)
        return bytes(ffi.buffer(data, length[0] - 1)).split(b"\n") if rows[0] else []

    def filled(self, items: Sequence[bytes | None], *, ended: bool, position: bytes = b"") -> None:
        """Answer :attr:`Event.SOURCE`: the next records, None where an item was rejected; where the source stands."""
        joined, lengths = _joined(items)
        _check(lib.fh_lane_filled(self._c, joined, lengths, len(items), ended, position, len(position)))

    def stepped(self, answers: Sequence[bytes | None]) -> None:
        """Answer :attr:`Event.STEP`: an answer a row; None where it was skipped, rejected or kept. Fewer answers than
        rows: the others, from a fatal one on, wait for another day."""
        _check(lib.fh_lane_stepped(self._c, *_joined(answers), len(answers)))

    def drained(self, rows: int) -> None:
        """Answer :attr:`Event.SINK`: the first ``rows`` rows are dealt with: written, rejected or kept."""
        lib.fh_lane_drained(self._c, rows)

    def reject(self, row: int, step: int, status: int, error: bytes, *, fatal: bool = False, attempt: int = 1) -> bool:
        """Before the answer: this row failed. Returns whether the rest must not be processed."""
        return bool(lib.fh_lane_reject(self._c, row, step, status, fatal, attempt, error, len(error)))

    def abandon(self, status: int, error: bytes) -> None:
        """Answer :attr:`Event.BROKEN` where no new instance can be made: what came before is drained, then it fails."""
        lib.fh_lane_abandon(self._c, status, error, len(error))

    def keep(self, row: int) -> None:
        """Before the answer: Python keeps this row, and tells :meth:`NativeFlow.settled` of its end."""
        lib.fh_lane_keep(self._c, row)


def _joined(items: Sequence[bytes | None]) -> tuple[bytes, Any]:
    lengths = array("I", [_NONE if item is None else len(item) for item in items])
    return b"".join([item for item in items if item is not None]), ffi.from_buffer("uint32_t[]", lengths)


def _check(status: int) -> None:
    if status != OK:
        raise MemoryError("no memory for a chunk's records: they exceed 4 GiB, or the machine has no more")


if _PARKED.size != ffi.sizeof("fh_parked"):
    raise FerruleError("the compiled module is of another version than its Python: install ferrule again")
