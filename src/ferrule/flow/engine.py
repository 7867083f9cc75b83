"""Runs a flow: the lane sits in C, and comes back here for every decision.

The calling thread waits, so that it can be interrupted and can report; the lane is a thread of its own. Native steps
cost no Python per record; a source, step or sink in Python gets a chunk of records at a time.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import orjson

from ferrule.errors import InternalError, InvalidDataError, PluginError
from ferrule.flow.deadletter import DeadLetters
from ferrule.flow.lint import ResolvedFlow, ResolvedItem
from ferrule.native import POLICY, SINK, SOURCE, Event, NativeFlow, Parked, plugin_error
from ferrule.plugins.instance import LINES, Instance, NativeInstance, Stream, encode
from ferrule.plugins.kinds import Sink, Source
from ferrule.plugins.loading import instantiate, remake

__all__ = ["FlowInterrupted", "Progress", "StepSummary", "Summary", "run"]

PROGRESS_SECONDS = 0.1
BATCH_ROWS = 1000
BATCH_BYTES = 64 * 1024
BATCH_SECONDS = 0.05
"""A Python source hands its records on after that many rows, bytes or seconds, whichever comes first."""


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a running flow is.

    Attributes:
        read: Records taken from the source, bad ones included.
        written: Records that the sink has.
        skipped: Records that a step, or an ``on_error: skip``, left out.
        dead: Records that became dead letters.
        seconds: Since the flow began.
    """

    read: int
    written: int
    skipped: int
    dead: int
    seconds: float

    @property
    def rate(self) -> float:
        """Records read a second."""
        return self.read / self.seconds if self.seconds > 0 else 0.0


@dataclass(frozen=True, slots=True)
class StepSummary:
    """What one step did.

    Attributes:
        name: The step's name in the flow.
        plugin: The plugin's name.
        calls: Records it was given.
        skipped: Records it skipped.
        errors: Records it failed on.
    """

    name: str
    plugin: str
    calls: int
    skipped: int
    errors: int


@dataclass(frozen=True, slots=True)
class Summary(Progress):
    """What a flow did: every record that was read was written, skipped, or is a dead letter.

    Attributes:
        name: The flow's name.
        steps: One entry a step, in order.
        dead_letter: The file that the dead letters are in, or None.
        stopped: Whether it was interrupted before the source's end.
    """

    name: str
    steps: tuple[StepSummary, ...]
    dead_letter: str | None
    stopped: bool


class FlowInterrupted(KeyboardInterrupt):
    """Ctrl-C ended a flow. It stopped after the record under way, and what it had read is written.

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
    on_progress: Callable[[Progress], None] | None = None,
) -> Summary:
    """Run a flow to its end.

    Args:
        flow: Plugins found, configurations complete.
        limit: Read at most that many records.
        on_progress: Called about ten times a second, and once at the end, in the calling thread.

    Raises:
        PluginError: A record failed under ``on_error: fail``, or a plugin as such did; with step and record number.
            What came before that record is written.
        FlowInterrupted: Ctrl-C. A second one does not wait for the record under way.
    """
    if limit is not None and limit < 1:
        raise ValueError(f"limit must be at least 1, got {limit}")
    began = time.monotonic()
    with _Owned() as owned:
        lane = _Lane(flow, limit, owned)
        done = threading.Event()
        fault: list[BaseException] = []

        def sit() -> None:
            try:
                lane.run()
            except BaseException as error:  # it is raised again by the thread that waits
                fault.append(error)
            finally:
                done.set()

        def report() -> None:
            if on_progress is not None:
                on_progress(lane.progress(time.monotonic() - began))

        interrupted = False
        thread = threading.Thread(target=sit, name=f"ferrule-lane-{flow.spec.name}", daemon=True)
        thread.start()
        while not done.is_set():
            try:
                if not done.wait(PROGRESS_SECONDS):
                    report()
            except KeyboardInterrupt:
                if interrupted:
                    owned.pop_all()  # the lane still uses all of it: leave it to the end of the process
                    raise
                interrupted = True
                lane.stop()
            except BaseException:
                lane.stop()
                thread.join()
                raise
        thread.join()
        report()
        if fault:
            raise fault[0]
        lane.finish()
    summary = lane.summary(time.monotonic() - began, stopped=interrupted)
    if interrupted:
        raise FlowInterrupted(summary)
    return summary


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


class _Lane:
    """The instances of a flow, and what it answers to the pump's events."""

    def __init__(self, flow: ResolvedFlow, limit: int | None, owned: ExitStack) -> None:
        self.flow = flow
        self.limit = limit
        self.pump = NativeFlow(len(flow.steps))
        self.ended = False
        self.stopping = False
        self.fatal: PluginError | None = None
        self.cause: PluginError | None = None
        if limit is not None:
            self.pump.limit(limit)

        self.letters: DeadLetters | None = None
        if flow.spec.dead_letter is not None:
            self.letters = owned.enter_context(DeadLetters(flow.spec.dead_letter, _names(flow)))
        self.steps: list[Instance] = []
        owned.callback(self._close_steps)
        for number, step in enumerate(flow.steps):
            with _naming(step):
                self.steps.append(instantiate(step.plugin, step.config))
            self._place(number)
        with _naming(flow.source):
            self.source = owned.enter_context(Source(instantiate(flow.source.plugin, flow.source.config)))
        with _naming(flow.sink):
            self.sink = owned.enter_context(Sink(instantiate(flow.sink.plugin, flow.sink.config)))
        policy = POLICY[flow.sink.spec.on_error]
        instance = self.sink.instance
        if isinstance(instance, NativeInstance):
            lines = instance.plugin.method("write").input == LINES
            self.pump.sink(instance.target, "write", lines=lines, on_error=policy)
        else:
            self.pump.sink(None, "write", lines=False, on_error=policy)
        self.items: Stream | None = None
        self._open_source(owned)

    def _open_source(self, owned: ExitStack) -> None:
        policy = POLICY[self.flow.source.spec.on_error]
        instance = self.source.instance
        with _naming(self.flow.source):
            if isinstance(instance, NativeInstance):
                stream = instance.target.open("read_data", b"{}")
                owned.callback(stream.close)
                many = instance.plugin.method("read_data").output == LINES
                self.pump.source(stream, many=many, on_error=policy)
            else:
                self.items = owned.enter_context(self.source.read())
                self.pump.source(None, many=False, on_error=policy)

    def _place(self, number: int) -> None:
        instance = self.steps[number]
        target = instance.target if isinstance(instance, NativeInstance) else None
        self.pump.step(number, target, "process", on_error=POLICY[self.flow.steps[number].spec.on_error])

    def _close_steps(self) -> None:
        with ExitStack() as owned:
            for instance in self.steps:
                owned.callback(instance.close)

    # ---- the loop --------------------------------------------------------------------------------

    def run(self) -> None:
        """Sit in the pump until the flow ends.

        Raises:
            PluginError: It failed.
        """
        answers = {
            Event.SOURCE: self._fill,
            Event.STEP: self._step,
            Event.SINK: self._drain,
            Event.BROKEN: self._replace,
            Event.PARKED: self._take_parked,
        }
        while (event := self.pump.run()) in answers:
            answers[event]()
        self._take_parked()
        if event == Event.FAILED:
            fault = self.fatal or InternalError("the flow failed, and its pump does not say why")
            raise fault from (self.cause if self.cause and self.cause.message == fault.message else None)

    def stop(self) -> None:
        self.stopping = True
        self.pump.stop()

    def finish(self) -> None:
        """Bring what was written to where it belongs."""
        with _naming(self.flow.sink):
            self.sink.close()

    def _take_parked(self) -> None:
        parked = self.pump.parked()
        ends = [at for at, row in enumerate(parked) if row[5]]
        if ends:
            # The first of them ends the flow; what failed behind it in the same chunk is as if it was never read.
            self.fatal = self._error(parked[ends[0]])
            del parked[ends[0] :]
        if parked and self.letters is not None:
            self.letters.write(parked)

    def _error(self, row: Parked) -> PluginError:
        record, _, _, error, status, _, number, _ = row
        item = self._item(number)
        method = {SOURCE: "read_data", SINK: "write"}.get(number, "process")
        return plugin_error(
            status,
            error,
            plugin=item.plugin.plugin.name,
            method=method,
            step=item.spec.name,
            record=record or None,
        )

    def _item(self, number: int) -> ResolvedItem:
        if number == SOURCE:
            return self.flow.source
        return self.flow.sink if number == SINK else self.flow.steps[number]

    def _replace(self) -> None:
        """A fault has poisoned a step's instance: throw it away and make it again, before the next record."""
        number = self.pump.event_step
        step = self.flow.steps[number]
        self.steps[number].close()
        try:
            self.steps[number] = remake(self.steps[number], step.config)
        except PluginError as error:
            error.message = f"the instance broke, and a new one cannot be made: {error.message}"
            self.pump.abandon(error.status, _told(error))
        else:
            self._place(number)

    # ---- Python's part ---------------------------------------------------------------------------

    def _fill(self) -> None:
        assert self.items is not None
        until = time.monotonic() + BATCH_SECONDS
        room = BATCH_ROWS if self.limit is None else min(BATCH_ROWS, self.limit - self.pump.counters().read)
        batch: list[bytes | None] = []
        size = 0
        while len(batch) < room and size < BATCH_BYTES and not self.stopping:
            try:
                item = _line(next(self.items))
            except StopIteration:
                self.ended = True
                break
            except PluginError as error:
                batch.append(None)
                going_on = isinstance(error, InvalidDataError) and not self.items.closed
                if self._rejected(len(batch) - 1, SOURCE, error, fatal=not going_on):
                    self.ended = True
                    break
                continue
            batch.append(item)
            size += len(item)
            if time.monotonic() > until:
                break
        self.pump.filled(batch, ended=self.ended)

    def _step(self) -> None:
        number = self.pump.event_step
        process = self.steps[number].method("process")
        answers: list[bytes | None] = []
        for row, line in enumerate(self.pump.rows()):
            if self.stopping:
                break
            try:
                record = _record(line)
                if type(record) is not dict:
                    raise InvalidDataError("Data must be a JSON object")
                answer = process(record)
                answers.append(None if answer is None else _object(answer))
            except PluginError as error:
                answers.append(None)
                if self._rejected(row, number, error):
                    break
        self.pump.stepped(answers)

    def _drain(self) -> None:
        write = self.sink.instance.method("write")
        done = 0
        stopped_before = self.stopping  # then these rows are what is to be written yet
        for row, line in enumerate(self.pump.rows()):
            if self.stopping and not stopped_before:
                break
            done += 1
            try:
                write(_record(line))
            except PluginError as error:
                if self._rejected(row, SINK, error):
                    break
        self.pump.drained(done)

    def _rejected(self, row: int, number: int, error: PluginError, *, fatal: bool = False) -> bool:
        ends = self.pump.reject(row, number, error.status, _told(error), fatal=fatal)
        if ends:
            self.cause = error
        return ends

    # ---- what it did -----------------------------------------------------------------------------

    def progress(self, seconds: float) -> Progress:
        counters = self.pump.counters()
        return Progress(counters.read, counters.written, counters.skipped, counters.dead, seconds)

    def summary(self, seconds: float, *, stopped: bool) -> Summary:
        counters = self.pump.counters()
        return Summary(
            counters.read,
            counters.written,
            counters.skipped,
            counters.dead,
            seconds,
            self.flow.spec.name,
            tuple(
                StepSummary(step.spec.name, step.plugin.plugin.name, *self.pump.step_counters(number))
                for number, step in enumerate(self.flow.steps)
            ),
            None if self.flow.spec.dead_letter is None else str(self.flow.spec.dead_letter),
            stopped,
        )


class _naming:
    """Puts the step's name on an error that comes from making or closing its plugin."""

    def __init__(self, resolved: ResolvedItem) -> None:
        self.name = resolved.spec.name

    def __enter__(self) -> None:
        pass

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        if isinstance(error, PluginError) and error.step is None:
            error.step = self.name


def _told(error: PluginError) -> bytes:
    """An error as the object that a native plugin would have sent."""
    told: dict[str, Any] = {"message": error.message}
    if error.details:
        told["details"] = error.details
    if error.retry_after is not None:
        told["retry_after_ms"] = round(error.retry_after * 1000)
    return orjson.dumps(told, default=repr)


def _names(flow: ResolvedFlow) -> dict[int, str]:
    names = {number: step.spec.name for number, step in enumerate(flow.steps)}
    return names | {SOURCE: flow.source.spec.name, SINK: flow.sink.spec.name}


def _line(item: Any) -> bytes:
    """An item of a Python source as a record's bytes."""
    line = encode(item)
    if b"\n" in line:
        line = line.strip()
        if b"\n" in line:
            raise InvalidDataError("a record of bytes must be one line of JSON, but it holds a newline")
    return line


def _object(answer: Any) -> bytes:
    """A Python step's answer as a record's bytes."""
    line = _line(answer)
    if not (line.startswith(b"{") and line.endswith(b"}")):
        raise InvalidDataError(
            "a step answers with a record (a dict or a pydantic model), or with None to skip it; "
            f"got {type(answer).__name__}"
        )
    if isinstance(answer, bytes):
        try:
            answer.decode()
        except UnicodeDecodeError as error:
            raise InvalidDataError(f"a step answers with UTF-8: {error}") from None
    return line


def _record(line: bytes) -> Any:
    try:
        return orjson.loads(line)
    except orjson.JSONDecodeError as error:
        raise InvalidDataError(f"Data is not valid JSON: {error}") from None
