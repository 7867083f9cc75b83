"""The one door to C: no other module imports the compiled ``_native``.

What comes through it are Python objects that own their C ones and raise ``ferrule.errors``: a
:class:`Library` makes :class:`NativeObject` s, which are called and opened; a :class:`NativeStream` is read;
a :class:`NativeFlow` is the pump. Bytes go in and out; JSON is the layer above.
"""

from __future__ import annotations

import atexit
import logging
import os
import struct
import sys
import threading
from array import array
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Final, NamedTuple, cast

import orjson

from ferrule.errors import FerruleError, LibraryError, PluginError, error_class
from ferrule.native._native import ffi, lib

__all__ = [
    "ABI",
    "Answer",
    "Counters",
    "Event",
    "Library",
    "NativeFlow",
    "NativeLane",
    "NativeObject",
    "NativeStream",
    "Parked",
    "Results",
    "Retry",
    "StepCounters",
    "Stopping",
    "cheap_end",
    "error_object",
    "logs_dropped",
    "plugin_error",
    "timed_calls",
]

ABI: Final[tuple[int, int]] = (lib.FERRULE_ABI_MAJOR, lib.FERRULE_ABI_MINOR)
"""The ABI that this host speaks: (major, minor)."""

OK: Final = lib.FERRULE_OK
END: Final = lib.FERRULE_END
SKIP: Final = lib.FERRULE_SKIP
INVALID_DATA: Final = lib.FERRULE_INVALID_DATA
TIMEOUT: Final = lib.FERRULE_TIMEOUT
UNAVAILABLE: Final = lib.FERRULE_UNAVAILABLE

_MOVED: Final[int] = lib.FH_MOVED
_STATUS: Final[int] = lib.FH_STATUS
_NONE: Final[int] = lib.FH_NONE
_RESULT: Final = struct.Struct("=iI")
_ANSWER_BYTES: Final = 16 * 1024
_ANSWER_LIMIT: Final = 1 << 30
_ANSWER_KEPT: Final = 16 << 20  # a buffer that grew past it goes back to the system after its call


# ---- who is who ----------------------------------------------------------------------------------

_names: dict[int, str] = {0: "library"}
"""Instances and streams by the id under which they speak to the host's services; 0 is a library itself."""

_retired: deque[int] = deque()
"""Ids of what is closed or gone. Each leaves the names once all that it said while it lived was heard."""

_RETIRED_MOST: Final = 1000


def _introduce(name: str) -> int:
    """A new id, known before its plugin can use it."""
    if len(_retired) > _RETIRED_MOST:
        _forget(_RETIRED_MOST // 2)
    number: int = lib.fh_new_id()
    _names[number] = name
    return number


def _forget(count: int) -> None:
    for _ in range(count):
        try:
            _names.pop(_retired.popleft(), None)
        except IndexError:  # another thread forgets too
            return


# ---- answers and errors --------------------------------------------------------------------------


class _Answer:
    """The host's buffers for one call, and a view of the output that is made again only when it moves."""

    __slots__ = ("c", "view")

    def __init__(self) -> None:
        self.c: Any = ffi.gc(lib.fh_answer_new(_ANSWER_BYTES, _ANSWER_LIMIT), lib.fh_answer_free)
        if self.c == ffi.NULL:
            raise MemoryError("no memory for a call's buffers")
        self.view: Any = None

    def output(self, result: int) -> bytes:
        """The bytes behind a result >= 0 of ``fh_call`` or ``fh_next``."""
        if result >= _MOVED:
            result -= _MOVED
            self.view = ffi.buffer(self.c.out.data, self.c.out.capacity)
        return bytes(self.view[:result])

    def free(self) -> None:
        self.view = None
        ffi.release(self.c)

    def error(self) -> bytes:
        return bytes(ffi.buffer(self.c.error.data, self.c.error.lent.len))

    def metadata(self) -> bytes:
        length = self.c.metadata.lent.len
        return bytes(ffi.buffer(self.c.metadata.data, length)) if length else b""


def error_object(status: int, error: bytes) -> dict[str, Any]:
    """What came with a status, as an object that has a message.

    Text that is no JSON object is the message; no text at all is the status's own name. Bytes that are no UTF-8 are
    replaced.
    """
    text = error.decode("utf-8", "replace")
    try:
        parsed = orjson.loads(text)
    except orjson.JSONDecodeError:
        parsed = None
    if not isinstance(parsed, dict):
        parsed = {"message": text}
    return parsed | {"message": str(parsed.get("message") or error_class(status).status_name)}


def plugin_error(status: int, error: bytes, **context: Any) -> PluginError:
    """The exception for a status and the error object that came with it: see :func:`error_object`."""
    told = error_object(status, error)
    details, after = told.get("details"), told.get("retry_after_ms")
    if not isinstance(after, int | float) or isinstance(after, bool) or after < 0:
        after = None
    return error_class(status)(
        told["message"],
        details=details if isinstance(details, dict) else None,
        retry_after=None if after is None else after / 1000,
        **context,
    )


# ---- libraries and instances ---------------------------------------------------------------------


class Library:
    """A library that is loaded. It stays mapped until the process ends: unloading means ending a worker."""

    def __init__(self, path: Path, manifest: bytes, *, shown_as: Path | None = None) -> None:
        """Load what ``read_image`` has checked.

        Args:
            path: The private copy, absolute.
            manifest: The JSON that was read from the file; the library must answer the same.
            shown_as: The file that errors name, where it is not ``path``.

        Raises:
            LibraryError: The system's loader refuses it, a symbol is missing, or the manifest differs.
        """
        self.path = path
        self.shown_as = shown_as or path
        error = ffi.new("char[1024]")
        self._c = lib.fh_library_open(os.fsencode(path), manifest, len(manifest), error, 1024)
        if self._c == ffi.NULL:
            problem = ffi.string(error).decode("utf-8", "replace").replace(str(path), self.shown_as.name)
            raise LibraryError(
                self.shown_as, problem, hint="Rebuild it against the ferrule.h of `ferrule sdk --include-dir`"
            )

    def create(
        self, plugin: str, config: bytes, *, serial: bool, methods: Sequence[str], entry_point: str | None = None
    ) -> NativeObject:
        """Make an instance and resolve its methods.

        Args:
            plugin: A name of the manifest.
            config: A JSON object, complete and checked.
            serial: Whether calls are to come one after another.
            methods: Names that the manifest promises; each must exist.
            entry_point: A create symbol other than the usual one.

        Raises:
            PluginError: The plugin refuses, or breaks a rule of the ABI.
        """
        _start_logging()
        answer = _Answer()
        status = ffi.new("int32_t *")
        name = plugin.encode()
        number = _introduce(plugin)
        c = lib.fh_instance_new(
            self._c,
            number,
            ffi.NULL if entry_point is None else entry_point.encode(),
            name,
            len(name),
            config,
            len(config),
            serial,
            answer.c,
            status,
        )
        if c == ffi.NULL:
            _retired.append(number)
            raise plugin_error(status[0], answer.error(), plugin=plugin)
        made = NativeObject(self, plugin, number, ffi.gc(c, lib.fh_instance_free))
        for method in methods:
            encoded = method.encode()
            number = lib.fh_instance_method(c, encoded, len(encoded))
            if number < 0:
                made.close()
                raise plugin_error(
                    lib.FERRULE_INTERNAL,
                    orjson.dumps(
                        {
                            "message": f"the manifest names the method {method!r}, which the instance lacks: "
                            f"it answered {number} instead of a number >= 0"
                        }
                    ),
                    plugin=plugin,
                )
            made.methods[method] = number
        return made


class Results:
    """What became of many calls; unpacked when somebody asks."""

    def __init__(self, packed: array[int], called: int) -> None:
        self._packed = packed
        self._called = called

    def __len__(self) -> int:
        return self._called

    def __iter__(self) -> Iterator[tuple[int, int]]:
        """A status and a length a call."""
        return islice(_RESULT.iter_unpack(self._packed), self._called)


class NativeObject:
    """An instance in this process. Any thread; a serial one takes its callers in their order."""

    def __init__(self, library: Library, plugin: str, number: int, c: Any) -> None:
        self.plugin = plugin
        self.methods: dict[str, int] = {}
        self.library = library
        self._c = c
        self._answers: list[_Answer] = []
        self._id = number

    def __del__(self, retire: Callable[[int], None] = _retired.append) -> None:
        retire(self._id)

    @property
    def poisoned(self) -> bool:
        """Whether a fault has made it unusable."""
        return bool(lib.fh_instance_poisoned(self._c))

    def caller(self, method: str) -> Callable[[bytes], bytes | None]:
        """A function for a hot loop: bytes in; bytes out, or None where the plugin skips.

        Raises (the function does):
            PluginError: The status was below OK.
        """
        fh_call, c, number, answers = lib.fh_call, self._c, self.methods[method], self._answers

        def call(data: bytes) -> bytes | None:
            answer = answers.pop() if answers else _Answer()
            result = fh_call(c, number, data, len(data), answer.c)
            if 0 <= result < _MOVED:
                output: bytes = answer.view[:result]
                answers.append(answer)
                return output
            return self._unusual(result, answer, method)

        return call

    def call(
        self, method: str, data: bytes, *, timeout: float | None = None, metadata: bytes = b""
    ) -> tuple[bytes | None, bytes]:
        """One call with everything that it may carry.

        Args:
            method: A name that the instance was made with.
            data: The input.
            timeout: Seconds that the plugin is told it has; None for no limit. In process, a request.
            metadata: A JSON object, or nothing.

        Returns:
            The output (None where the plugin skips) and its metadata (a JSON object, or nothing).

        Raises:
            PluginError: The status was below OK.
        """
        answer = self._answers.pop() if self._answers else _Answer()
        result = lib.fh_call_with(
            self._c,
            self.methods[method],
            data,
            len(data),
            -1 if timeout is None else max(0, round(timeout * 1000)),
            metadata or ffi.NULL,
            len(metadata),
            answer.c,
        )
        about = answer.metadata() if result >= 0 or result - _STATUS == SKIP else b""
        return self._unusual(result, answer, method), about

    def _unusual(self, result: int, answer: _Answer, method: str) -> bytes | None:
        try:
            if result >= 0:
                return answer.output(result)
            status = result - _STATUS
            if status == SKIP:
                return None
            metadata = None
            if about := answer.metadata():
                try:
                    metadata = orjson.loads(about)
                except orjson.JSONDecodeError:
                    metadata = None
            raise plugin_error(
                status,
                answer.error(),
                plugin=self.plugin,
                method=method,
                metadata=metadata if isinstance(metadata, dict) else None,
            )
        finally:
            if answer.c.out.capacity <= _ANSWER_KEPT:
                self._answers.append(answer)
            else:  # now, for an exception's traceback would hold it
                answer.free()

    def call_many(
        self, method: str, inputs: Sequence[bytes] | bytes, *, stop_at_error: bool
    ) -> tuple[bytes, Results, bool, bytes]:
        """Call a method with each of many inputs, in one crossing.

        Args:
            method: A name that the instance was made with.
            inputs: The inputs; or bytes, of which each line is one.
            stop_at_error: Whether to call no more once one has failed.

        Returns:
            The outputs, each with a newline behind it; for each call its status and the length of its output or of its
            error object; whether all are OK; the error objects, end to end.
        """
        if isinstance(inputs, bytes):
            data, lengths = inputs, ffi.NULL
            count = data.count(b"\n") + (not data.endswith(b"\n") and bool(data))
        else:
            data = b"".join(inputs)
            count = len(inputs)
            lengths = ffi.from_buffer("uint32_t[]", array("I", list(map(len, inputs))))
        results = array("q", bytes(8 * count))
        unusual = ffi.new("uint32_t *")
        answer = self._answers.pop() if self._answers else _Answer()
        try:
            called = lib.fh_call_many(
                self._c,
                self.methods[method],
                data,
                len(data),
                lengths,
                count,
                stop_at_error,
                answer.c,
                ffi.from_buffer("fh_result[]", results),
                unusual,
            )
            output = bytes(ffi.buffer(answer.c.out.data, answer.c.out.lent.len)) if answer.c.out.lent.len else b""
            answer.view = ffi.buffer(answer.c.out.data, answer.c.out.capacity)
            answer.c.out.moved = 0
            return output, Results(results, called), not unusual[0], answer.metadata()
        finally:
            self._answers.append(answer)

    def open(self, method: str, data: bytes, *, metadata: bytes = b"") -> NativeStream:
        """Start a stream.

        Raises:
            PluginError: The plugin refuses, or breaks a rule of the ABI.
        """
        answer = _Answer()
        status = ffi.new("int32_t *")
        number = _introduce(self.plugin)
        c = lib.fh_stream_open(
            self._c,
            number,
            self.methods[method],
            data,
            len(data),
            metadata or ffi.NULL,
            len(metadata),
            answer.c,
            status,
        )
        if c == ffi.NULL:
            _retired.append(number)
            raise plugin_error(status[0], answer.error(), plugin=self.plugin, method=method)
        return NativeStream(self, method, number, ffi.gc(c, lib.fh_stream_free))

    def close(self) -> None:
        """Destroy the plugin's object, after calls under way. Twice is harmless.

        Raises:
            InvalidStateError: A stream of it is open, or the call comes from inside one of its own.
        """
        status = lib.fh_instance_close(self._c)
        if status != OK:
            raise plugin_error(
                status, b"close the instance's streams first, and not from inside one of its calls", plugin=self.plugin
            )
        _retired.append(self._id)


class NativeStream:
    """A stream of an instance. One thread reads; any may cancel."""

    def __init__(self, owner: NativeObject, method: str, number: int, c: Any) -> None:
        self.owner = owner
        self.method = method
        self._c = c
        self._id = number
        self._answer = _Answer()

    def __del__(self, retire: Callable[[int], None] = _retired.append) -> None:
        retire(self._id)

    def batches(self, *, many: bool) -> Iterator[list[bytes] | PluginError]:
        """Read on: lists of items as they come, and in its place the error of an item that is bad, or of a source
        that has nothing now.

        Args:
            many: Whether the manifest says that an item is lines (``application/x-ndjson``).

        Raises:
            PluginError: The stream failed as such.
        """
        reader = ffi.gc(lib.fh_reader_new(self._c, many), lib.fh_reader_free)
        if reader == ffi.NULL:
            raise MemoryError("no memory for a stream's buffers")
        rows, length, error_len = ffi.new("uint32_t *"), ffi.new("size_t *"), ffi.new("size_t *")
        data, error = ffi.new("uint8_t **"), ffi.new("uint8_t **")
        while True:
            status = lib.fh_reader_fill(reader, -1, rows, data, length, error, error_len)
            if rows[0]:
                yield bytes(ffi.buffer(data[0], length[0] - 1)).split(b"\n")
            if status == END:
                return
            if status != OK:
                fault = plugin_error(
                    status,
                    bytes(ffi.buffer(error[0], error_len[0])) if error_len[0] else b"",
                    plugin=self.owner.plugin,
                    method=self.method,
                )
                if status not in (INVALID_DATA, UNAVAILABLE, TIMEOUT):
                    raise fault
                yield fault

    def position(self) -> bytes:
        """Where to resume: right after the last item that was read.

        Raises:
            PluginError: The stream has no positions, or none now.
        """
        result = lib.fh_stream_position(self._c, self._answer.c)
        if result < 0:
            raise plugin_error(result - _STATUS, self._answer.error(), plugin=self.owner.plugin, method=self.method)
        return self._answer.output(result)

    def cancel(self) -> None:
        """Ask the stream to end soon. Any thread."""
        lib.fh_stream_cancel(self._c)

    def close(self) -> None:
        """Cancel and free it. Twice is harmless."""
        lib.fh_stream_close(self._c)
        _retired.append(self._id)


# ---- the pump ------------------------------------------------------------------------------------


class Event:
    """Why a lane came back: the ``FH_EVENT_…`` of native.h."""

    END: Final[int] = lib.FH_EVENT_END
    PARKED: Final[int] = lib.FH_EVENT_PARKED
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
    """What one lane's step did so far; ``histogram[i]`` counts sampled calls of 2**i to 2**(i+1) nanoseconds."""

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


_PARKED: Final = struct.Struct("=QqQIIiiII")


class NativeFlow:
    """What the lanes of a flow share: see flow.c. Any thread may stop it and read its counters."""

    def __init__(self, steps: int, *, in_order: bool = True, fill_bytes: int = 64 * 1024) -> None:
        self._c: Any = ffi.gc(lib.fh_flow_new(steps, fill_bytes, in_order), lib.fh_flow_free)
        if self._c == ffi.NULL:
            raise MemoryError("no memory for a flow")
        self._held: dict[str, object] = {}  # what C points at must live as long
        self._waiting: list[tuple[int, bytes]] = []

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
        """Read at most that many."""
        lib.fh_flow_limit(self._c, records)

    def begin_at(self, records: int) -> None:
        """The source goes on behind that many records."""
        lib.fh_flow_begin_at(self._c, records)

    def waiting(self, record: int, data: bytes) -> None:
        """Begin with this record, number ``record``. In the order of numbers."""
        _check(lib.fh_flow_waiting(self._c, record, data, len(data)))
        self._waiting.append((record, data))

    def unbegun(self) -> list[tuple[int, bytes]]:
        """Of the records that it was to begin with, those that no lane has taken yet."""
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
        """Take the rows that failed since the last time, in the order of their numbers within a chunk."""
        return self._parcel(lib.fh_flow_parked)

    def left(self) -> list[tuple[int, bytes]]:
        """After a stop or a failure: number and bytes of each record that was read and came to no end."""
        return [(row[0], row[2]) for row in self._parcel(lib.fh_flow_left)]

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
        found = [
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
        found.sort()
        return found


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

    def step_counters(self, number: int) -> StepCounters:
        """One step's counters as they are at this moment."""
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
        rows: the others were not processed."""
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


# ---- measuring -----------------------------------------------------------------------------------


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
    answer = _Answer()
    times = ffi.new("int64_t[]", samples)
    result = lib.fh_bench_calls(target._c, target.methods[method], data, len(data), calls, samples, times, answer.c)
    if result < 0:
        raise plugin_error(result - _STATUS, answer.error(), plugin=target.plugin, method=method)
    return list(times)


def cheap_end(record: bytes = b"", count: int = 0) -> NativeObject:
    """An end of a flow that costs next to nothing: a source whose ``read_data`` gives ``record`` ``count`` times, and a
    sink whose ``write`` takes lines and drops them."""
    number = _introduce("(bench)")
    c = lib.fh_bench_end(number, record, len(record), count)
    if c == ffi.NULL:
        raise MemoryError("no memory for a record")
    made = NativeObject(cast(Library, None), "(bench)", number, ffi.gc(c, lib.fh_instance_free))  # it is the host's own
    made.methods.update(read_data=0, write=0)
    return made


# ---- logs, fork and exit -------------------------------------------------------------------------

_logger = logging.getLogger("ferrule.plugin")
_ENTRY: Final = struct.Struct("=IiQqII")
_log_thread: threading.Thread | None = None
_log_lock = threading.Lock()


def logs_dropped() -> int:
    """Log entries of plugins that were lost since the process began, for Python was behind."""
    return int(lib.fh_log_dropped())


def _start_logging() -> None:
    """Pass plugins' log entries on to ``logging`` (logger ``ferrule.plugin.NAME``), at the levels set by now.

    Plugins see one level for all, the lowest of these loggers; each logger's own holds when the entry arrives.
    """
    global _log_thread
    with _log_lock:
        lib.fh_log_level(min(each.getEffectiveLevel() for each in (_logger, *_children())))
        if _log_thread is None:
            _log_thread = threading.Thread(target=_pass_logs_on, name="ferrule-log", daemon=True)
            _log_thread.start()


def _children() -> Iterator[logging.Logger]:
    prefix = _logger.name + "."
    for name, found in list(logging.Logger.manager.loggerDict.items()):
        if name.startswith(prefix) and isinstance(found, logging.Logger):
            yield found


def _pass_logs_on() -> None:
    room = ffi.new("uint8_t[]", 1 << 17)
    told = 0
    while lib.fh_log_wait(-1) >= 0:
        _emit_logs(room)
        if (dropped := logs_dropped()) > told:
            _logger.warning("%d log entries of plugins were dropped: they came faster than they go", dropped - told)
            told = dropped


def _emit_logs(room: Any) -> None:
    gone = len(_retired)  # what these said, they said before
    while taken := lib.fh_log_take(room, len(room)):
        data = bytes(ffi.buffer(room, taken))
        at = 0
        while at < taken:
            size, level, owner, time_ns, message_len, fields_len = _ENTRY.unpack_from(data, at)
            message = data[at + _ENTRY.size :][:message_len]
            fields = data[at + _ENTRY.size + message_len :][:fields_len]
            at += size
            name = _names.get(owner)
            if name is None:
                continue
            logger = _logger.getChild(name)
            if logger.isEnabledFor(level):
                _emit(logger, level, time_ns, message, fields)
    _forget(gone)


def _emit(logger: logging.Logger, level: int, time_ns: int, message: bytes, fields: bytes) -> None:
    record = logger.makeRecord(logger.name, level, "(plugin)", 0, message.decode("utf-8", "replace"), (), None)
    record.created = time_ns / 1e9
    record.msecs = time_ns // 1_000_000 % 1000
    if fields:
        try:
            record.__dict__["fields"] = orjson.loads(fields)
        except orjson.JSONDecodeError:
            record.__dict__["fields"] = {}
    try:
        logger.handle(record)
    except Exception:  # a filter's or a handler's own fault: the next entry must still arrive
        if logging.raiseExceptions:
            sys.excepthook(*sys.exc_info())


def _at_exit() -> None:
    """Nothing of a plugin may reach Python once it finalises: pass on what is there, then shut the gate."""
    if _log_thread is not None:
        _emit_logs(ffi.new("uint8_t[]", 1 << 17))
        lib.fh_gate_shut()
        _log_thread.join(timeout=1)


def _after_fork() -> None:
    global _log_thread, _log_lock
    lib.fh_after_fork()
    _log_thread = None
    _log_lock = threading.Lock()


atexit.register(_at_exit)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)

if (_PARKED.size, _ENTRY.size) != (ffi.sizeof("fh_parked"), 32):
    raise FerruleError("the compiled module is of another version than its Python: install ferrule again")
