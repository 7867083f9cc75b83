"""Runs a flow: lanes sit in C, and come back for every decision.

The calling thread waits, so that it can be interrupted and can report; each lane is a thread of its own
(:mod:`ferrule.flow.lane`). This module owns what lanes share: source, sink, dead letters, checkpoint, the rows that
wait for another attempt, and how it all ends.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from types import TracebackType

import orjson

from ferrule.errors import FlowError, InternalError, OutOfMemoryError, PluginError, UnsupportedError
from ferrule.flow.checkpoint import Checkpoint, flow_hash, in_turn
from ferrule.flow.deadletter import DeadLetters
from ferrule.flow.lane import Lane, naming, told
from ferrule.flow.lint import ResolvedFlow, ResolvedItem
from ferrule.flow.retry import Row, WaitingRows, delay
from ferrule.flow.telemetry import telemetry
from ferrule.native import (
    POLICY,
    SINK,
    SOURCE,
    NativeFlow,
    NativeStream,
    Parked,
    StepCounters,
    Stopping,
    Waiting,
    plugin_error,
)
from ferrule.plugins.instance import Instance, NativeInstance
from ferrule.plugins.kinds import Sink, Source
from ferrule.plugins.loading import instantiate
from ferrule.plugins.stream import Stream
from ferrule.plugins.threads import join
from ferrule.plugins.values import LINES

__all__ = ["FlowInterrupted", "Progress", "StepSummary", "Summary", "cores", "run"]

PROGRESS_SECONDS = 0.1
CHECKPOINT_SECONDS = 1.0
FILL_BYTES = 64 * 1024
"""A chunk is handed on when its records have that many bytes; it stays in the second-level cache."""


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a running flow is. A record counts once the chunk that it came in is drained.

    Attributes:
        read: Records taken from the source, bad ones included.
        written: Records that the sink has; a step that makes several of one can make this more than `read`.
        skipped: Records that a step, or an ``on_error: skip``, left out.
        dead: Records that became dead letters.
        waiting: Records that wait for another attempt: beside the lanes, or each holding one up.
        seconds: Since the flow began.
        resumed_at: The number of the source's record behind which it went on, or None if it began anew.
        steps: One entry a step, in order.
    """

    read: int
    written: int
    skipped: int
    dead: int
    waiting: int
    seconds: float
    resumed_at: int | None
    steps: tuple[StepSummary, ...]

    @property
    def rate(self) -> float:
        """Records read a second."""
        return self.read / self.seconds if self.seconds > 0 else 0.0


@dataclass(frozen=True, slots=True)
class StepSummary:
    """What one step did, in all lanes.

    Attributes:
        name: The step's name in the flow.
        plugin: The plugin's name.
        calls: Records it was given, repeated attempts included.
        skipped: Records it skipped.
        errors: Records it failed on.
        retries: Attempts after the first.
        mean_ns: Of the sampled calls (one in 64), nanoseconds; None before the first.
        p99_ns: Likewise: 99 % of them took at most that long, to a factor of 2.
    """

    name: str
    plugin: str
    calls: int
    skipped: int
    errors: int
    retries: int
    mean_ns: float | None
    p99_ns: int | None


@dataclass(frozen=True, slots=True)
class Summary(Progress):
    """What a flow did: every record that was read was written, skipped, or is a dead letter.

    Attributes:
        name: The flow's name.
        lanes: How many there were.
        dead_letter: The file that the dead letters are in, or None.
        checkpoint: The file that says how far it is, or None.
        stopped: Whether it was interrupted before the source's end.
    """

    name: str
    lanes: int
    dead_letter: str | None
    checkpoint: str | None
    stopped: bool


class FlowInterrupted(KeyboardInterrupt):
    """Ctrl-C ended a flow. It stopped after the records under way, and what it had read is written, or waits in the
    checkpoint.

    Attributes:
        summary: What it did until then.
    """

    def __init__(self, summary: Summary) -> None:
        super().__init__(f"flow {summary.name!r} was interrupted after {summary.read} records")
        self.summary = summary


def run(
    flow: ResolvedFlow,
    *,
    limit: int | None = None,
    lanes: int | None = None,
    fresh: bool = False,
    on_progress: Callable[[Progress], None] | None = None,
) -> Summary:
    """Run a flow to its end.

    Args:
        flow: Plugins found, configurations complete.
        limit: Read at most that many records.
        lanes: Instead of the flow's own number; 0 for one a core.
        fresh: Begin anew, whatever the checkpoint says.
        on_progress: Called about ten times a second, and once at the end, in the calling thread.

    Raises:
        PluginError: A record failed under ``on_error: fail``, or a plugin as such did; with step and record number.
            What came before that record is written.
        FlowError: The checkpoint is another flow's, or the source has no positions.
        FlowInterrupted: Ctrl-C. A second one does not wait for the records under way.
    """
    if limit is not None and limit < 1:
        raise ValueError(f"limit must be at least 1, got {limit}")
    count = flow.spec.lanes if lanes is None else lanes
    if count < 0:
        raise ValueError(f"lanes must be at least 1, or 0 for one a core, got {count}")
    with _Owned() as owned:
        running = _Run(flow, limit, count or cores(), fresh, owned)
        try:
            with _heard_by(running.interrupt):
                running.wait(on_progress)
                interrupted = running.interrupted  # by whatever came before all was written
                running.end()
        except KeyboardInterrupt:
            if running.busy:
                running.stop()
                owned.pop_all()  # lanes still use all of it: leave it to the end of the process
            raise
        summary = running.summary(stopped=interrupted)
    if interrupted:
        raise FlowInterrupted(summary)
    return summary


@contextmanager
def _heard_by(heard: Callable[..., None]) -> Iterator[None]:
    """A signal that would raise KeyboardInterrupt in this thread, as Python's own handler does, calls `heard` instead.

    That handler raises between any two instructions, also of ``threading``'s, where it can leave a lock held for ever.
    """
    taken = []
    if threading.current_thread() is threading.main_thread():
        ours = signal.default_int_handler
        taken = [each for each in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(each) is ours]
    try:
        for each in taken:
            signal.signal(each, heard)
        yield
    finally:
        for each in taken:
            signal.signal(each, signal.default_int_handler)


class _Owned(ExitStack):
    """Closes what a flow has. A fault of that never hides the one that ended the flow."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> bool:
        try:
            return bool(super().__exit__(kind, error, trace))
        except Exception as closing:
            if error is None:
                raise
            error.add_note(f"Closing failed too: {closing}")
            return False


class _Run:
    """What the lanes of one run share."""

    def __init__(self, flow: ResolvedFlow, limit: int | None, lanes: int, fresh: bool, owned: ExitStack) -> None:
        self.flow = flow
        self.telemetry = telemetry(flow)
        self.began = time.monotonic()
        self.stopping = threading.Event()
        self.interrupted = False
        self._faults = threading.Thread(target=self._take_parked, name="ferrule-faults", daemon=True)
        self.source_attempt = 0
        """Of a source in Python; the lane that fills has them."""
        self.fault: BaseException | None = None
        self.failure: PluginError | None = None
        self.cause: PluginError | None = None
        """The exception of a Python plugin that ended the flow: its traceback is worth showing."""
        self.unfinished: list[Waiting] = []
        """Rows that failed beside the lanes, and ended the flow."""
        spec = flow.spec
        self.pump = NativeFlow(len(flow.steps), in_order=spec.in_order, fill_bytes=FILL_BYTES)

        self.hash = flow_hash(flow)
        resumed = None
        if spec.checkpoint is not None and not fresh:
            resumed = Checkpoint.load(spec.checkpoint, self.hash, spec.path)
        self.resumed = resumed
        if limit is not None:
            self.pump.limit(limit)
        self.start: bytes | None = None

        self.letters: DeadLetters | None = None
        if spec.dead_letter is not None:
            mark = None if resumed is None else resumed.dead_letter_mark
            self.letters = owned.enter_context(DeadLetters(spec.dead_letter, _names(flow), mark))
        self.lanes: list[Lane] = []
        for _ in range(lanes):
            self.lanes.append(owned.enter_context(Lane(self)))
        for number, step in enumerate(flow.steps):
            retries = step.spec.retry.attempts if step.spec.retry else 0
            answers = self.lanes[0].answers(number)
            self.pump.step(number, on_error=POLICY[step.spec.on_error], retries=retries, answers=answers)

        with naming(flow.source):
            self.source = owned.enter_context(Source(instantiate(flow.source.plugin, flow.source.config)))
        with naming(flow.sink):
            instance = instantiate(flow.sink.plugin, flow.sink.config)
            self.sink = owned.enter_context(Sink(instance, mark=None if resumed is None else resumed.mark))
        self._place_sink(instance)
        self.items: Stream | None = None
        self.stream: NativeStream | None = None
        self._open_source(owned)
        self.waiting = WaitingRows(self._take_up, self.failed)
        owned.callback(self.waiting.end)
        self._spare: Lane | None = None
        self._owned = owned

    def _place_sink(self, instance: Instance) -> None:
        spec = self.flow.sink.spec
        retries = spec.retry.attempts if spec.retry else 0
        native = instance.target if isinstance(instance, NativeInstance) else None
        lines = native is not None and instance.plugin.method("write").input == LINES
        self.pump.sink(native, "write", lines=lines, on_error=POLICY[spec.on_error], retries=retries)

    def _open_source(self, owned: ExitStack) -> None:
        spec, instance, resumed = self.flow.source.spec, self.source.instance, self.resumed
        retries = spec.retry.attempts if spec.retry else 0
        policy = POLICY[spec.on_error]
        position = None if resumed is None else resumed.position
        with naming(self.flow.source):
            if isinstance(instance, NativeInstance):
                wanted = b"{}" if position is None else orjson.dumps({"position": position})
                self.stream = instance.target.open("read_data", wanted)
                owned.callback(self.stream.close)
                many = instance.plugin.method("read_data").output == LINES
                self.pump.source(self.stream, many=many, on_error=policy, retries=retries)
            else:
                self.items = owned.enter_context(self.source.read(position))
                self.pump.source(None, many=False, on_error=policy, retries=retries)
        if self.flow.spec.checkpoint is None:
            return
        self.start = self._position()
        if self.start is None:
            raise FlowError(
                f"the source {spec.name!r} has no positions, so a checkpoint could not say where to go on",
                path=self.flow.spec.path,
                line=spec.mark.line,
                column=spec.mark.column,
                hint="Take 'checkpoint' out of 'delivery', or use a source that has them",
            )
        self.pump.checkpoints(CHECKPOINT_SECONDS)
        if resumed is not None:
            self.pump.begin_at(resumed.records)
            self.pump.waiting(resumed.waiting)

    def _position(self) -> bytes | None:
        try:
            if self.stream is not None:
                return self.stream.position()
            assert self.items is not None
            return orjson.dumps(self.items.position())
        except UnsupportedError:
            return None

    def where(self) -> bytes:
        """Where a source in Python stands; nothing if nobody asks."""
        return b"" if self.flow.spec.checkpoint is None else self._position() or b""

    # ---- while it runs ---------------------------------------------------------------------------

    def wait(self, on_progress: Callable[[Progress], None] | None) -> None:
        """Let the lanes run, and wait until all is written, is to be left, or cannot go on.

        Raises:
            KeyboardInterrupt: Somebody interrupted it twice.
        """
        fault: BaseException | None = None
        changed = threading.Semaphore(0)

        def report() -> None:
            if self.telemetry is not None:
                steps = [self._of_step(number) for number in range(len(self.flow.steps))]
                self.telemetry.report(self.pump.counters(), steps)
            if on_progress is not None and fault is None:
                on_progress(self.progress())

        def attend() -> None:
            while not all(lane.over for lane in self.lanes):
                if not changed.acquire(timeout=PROGRESS_SECONDS):
                    report()
            while not (self.stopping.is_set() or self.waiting.wait_empty(PROGRESS_SECONDS)):
                report()
            self.pump.all_parked()
            join(self._faults)
            self.waiting.end()
            report()

        self._faults.start()
        for number, lane in enumerate(self.lanes):
            lane.start(number, changed.release)
        while True:
            try:
                attend()
                break
            except KeyboardInterrupt:  # a handler of somebody's own raised it, or it is the second
                self.interrupt()
            except BaseException as error:
                if fault is not None:
                    raise
                fault = error
                self.interrupted = True  # whoever interrupts from here on is not to wait
                self.stop()
        if fault is not None:
            raise fault

    def interrupt(self, *_: object) -> None:
        """Ctrl-C: the first one ends the flow after the records under way, the second one leaves them."""
        if self.interrupted:
            raise KeyboardInterrupt
        self.interrupted = True
        self.stop()

    @property
    def busy(self) -> bool:
        """Whether a thread still uses what the run has."""
        return not all(lane.over for lane in self.lanes) or self._faults.is_alive() or self.waiting.busy

    def stop(self) -> None:
        """End after the records under way."""
        self.pump.stop()
        self.stopping.set()

    def failed(self, error: BaseException) -> None:
        """A lane, or a row that waited, cannot go on."""
        if self.fault is None:
            self.fault = error
        self.pump.abort()
        self.stopping.set()

    def _take_parked(self) -> None:
        """Take the rows that failed, until there are no more."""
        try:
            while parked := self.pump.parked():
                self._end_rows(parked)
        except BaseException as error:  # it is raised again by the thread that waits
            self.failed(error)

    def _end_rows(self, parked: list[Parked]) -> None:
        """Write rows that failed as dead letters; the first that ends the flow is its failure."""
        ends = [row for row in parked if row[5]]
        if ends:
            if self.failure is None:
                self.failure = self._error(ends[0])
            parked = [row for row in parked if not row[5]]
        if parked and self.letters is not None:
            self.letters.write(parked)

    def _error(self, row: Parked) -> PluginError:
        record, _, _, error, status, _, number, _ = row
        item = self.item(number)
        method = {SOURCE: "read_data", SINK: "write"}.get(number, "process")
        return plugin_error(
            status,
            error,
            plugin=item.plugin.plugin.name,
            method=method,
            step=item.spec.name,
            record=record or None,
        )

    def item(self, number: int) -> ResolvedItem:
        """The item that a step's number stands for."""
        if number == SOURCE:
            return self.flow.source
        return self.flow.sink if number == SINK else self.flow.steps[number]

    # ---- checkpoints -----------------------------------------------------------------------------

    def checkpoint(self, left: Sequence[Waiting] = ()) -> None:
        """Say how far the flow is. Nothing is in flight, and the caller holds the source.

        Args:
            left: At the end: rows that were read and came to no end.
        """
        path = self.flow.spec.checkpoint
        if path is None:
            return
        with self.waiting.steady:
            waiting = in_turn([*self.waiting.rows(), *self.unfinished, *left, *self.pump.unbegun()])
            durable = self.flow.spec.durable
            with naming(self.flow.sink):
                mark = self.sink.flush(durable=durable)
            letters = None if self.letters is None else self.letters.flush(durable=durable)
            position, records = self.pump.position()
            if not position and records != (0 if self.resumed is None else self.resumed.records):
                raise InternalError(f"the source gave record {records}, and could not say where it stands then")
            known = orjson.loads(position or self.start or b"null")
            Checkpoint(self.hash, records, known, mark, letters, waiting).save(path, durable=durable)

    # ---- rows that wait beside the lanes ---------------------------------------------------------

    def let_wait(self, row: Row) -> bool:
        """Let a row wait beside the lanes; False where the order forbids it, or there is no room."""
        return not self.flow.spec.in_order and self.waiting.take(row)

    def _take_up(self, row: Row) -> Sequence[Row]:
        """Take a row through the steps that are left and into the sink, with instances that no lane has. Where a step
        makes several of it, each goes on as a row."""
        if self._spare is None:
            self._spare = self._owned.enter_context(Lane(self))
        number, data = row.step, row.input
        while number < len(self.flow.steps):
            try:
                answers = self._spare.process(number, data)
            except PluginError as error:
                return self._not_again(row, number, data, error, row.attempt + 1 if number == row.step else 1)
            number += 1
            if len(answers) != 1:
                self.pump.settled(skipped=int(not answers))
                return [Row(row.due, row.record, row.source, each, number, 0) for each in answers]
            data = answers[0]
        try:
            self.sink.write(data)
        except PluginError as error:
            return self._not_again(row, number, data, error, row.attempt + 1 if number == row.step else 1)
        self.pump.settled(written=1)
        return ()

    def _not_again(self, row: Row, number: int, data: bytes, error: PluginError, attempt: int) -> Sequence[Row]:
        """What becomes of a row that failed: it waits again, or comes to the end that its policy says."""
        step = number if number < len(self.flow.steps) else SINK
        spec = self.item(step).spec
        if spec.retry and error.may_retry and attempt <= spec.retry.attempts:
            due = time.monotonic() + delay(spec.retry, attempt, error)
            return [Row(due, row.record, row.source, data, number, attempt)]
        if spec.on_error == "skip":
            self.pump.settled(skipped=1)
        elif spec.on_error == "dead_letter" and self.letters is not None:
            parked = (row.record, time.time_ns(), row.source, told(error), error.status, False, step, attempt)
            self.letters.write([parked])
            self.pump.settled(dead=1)
        else:
            # Lanes end after their records under way, and this one waits for another day.
            error.step, error.record = spec.name, row.record
            if self.failure is None:
                self.failure = error
            self.unfinished.append(replace(row, step=number, input=data).left())
            self.stop()
        return ()

    # ---- how it ends -----------------------------------------------------------------------------

    def end(self) -> None:
        """Bring what was written to where it belongs, and raise what went wrong. What went wrong first is raised; what
        goes wrong after it is a note on it."""
        if self.fault is not None:
            raise self.fault
        if self.pump.stopping == Stopping.ABORTED:
            raise OutOfMemoryError("no memory for the flow's records")
        failure = self.failure
        if self.pump.stopping == Stopping.FAILED and failure is None:
            failure = InternalError("the flow failed, and its pump does not say why")
        try:
            self.checkpoint(self.pump.left())
            with naming(self.flow.sink):
                self.sink.close()
        except Exception as closing:
            if failure is None:
                raise
            failure.add_note(f"Closing failed too: {closing}")
        if failure is not None:
            raise failure from (self.cause if self.cause and self.cause.message == failure.message else None)

    def progress(self) -> Progress:
        """Where it is."""
        return Progress(*self._counts())

    def _counts(self) -> tuple[int, int, int, int, int, float, int | None, tuple[StepSummary, ...]]:
        """What :class:`Progress` holds, in its order."""
        c = self.pump.counters()
        steps = tuple(self._step(number) for number in range(len(self.flow.steps)))
        seconds = time.monotonic() - self.began
        at = None if self.resumed is None else self.resumed.records
        waiting = len(self.waiting) + sum(lane.waits for lane in self.lanes)
        return c.read, c.written, c.skipped, c.dead, waiting, seconds, at, steps

    def summary(self, *, stopped: bool) -> Summary:
        """What it did."""
        spec = self.flow.spec
        return Summary(
            *self._counts(),
            spec.name,
            len(self.lanes),
            None if spec.dead_letter is None else str(spec.dead_letter),
            None if spec.checkpoint is None else str(spec.checkpoint),
            stopped,
        )

    def _of_step(self, number: int) -> StepCounters:
        """What a step did in all lanes."""
        lanes = [lane.counters(number) for lane in self.lanes]
        return StepCounters(
            sum(each.calls for each in lanes),
            sum(each.skipped for each in lanes),
            sum(each.errors for each in lanes),
            sum(each.retries for each in lanes),
            sum(each.sampled_ns for each in lanes),
            tuple(map(sum, zip(*(each.histogram for each in lanes), strict=True))),
        )

    def _step(self, number: int) -> StepSummary:
        step, counters = self.flow.steps[number], self._of_step(number)
        samples = sum(counters.histogram)
        p99, seen = None, 0
        for bucket, count in enumerate(counters.histogram):
            seen += count
            if samples and seen >= 0.99 * samples:
                p99 = 2 ** (bucket + 1)
                break
        return StepSummary(
            step.spec.name,
            step.plugin.plugin.name,
            counters.calls,
            counters.skipped,
            counters.errors,
            counters.retries,
            counters.sampled_ns / samples if samples else None,
            p99,
        )


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _names(flow: ResolvedFlow) -> dict[int, str]:
    names = {number: step.spec.name for number, step in enumerate(flow.steps)}
    return names | {SOURCE: flow.source.spec.name, SINK: flow.sink.spec.name}
