"""A lane: a thread that sits in C, with instances of the steps that are its own, and what it answers to the pump.

Native steps cost no Python per record; a source, step or sink in Python gets a chunk of records at a time.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import orjson

from ferrule.errors import InvalidDataError, PluginError
from ferrule.flow.lint import ResolvedItem
from ferrule.flow.retry import Row, delay
from ferrule.native import BUCKETS, ONE, SEVERAL, SINK, SOURCE, Answer, Event, NativeLane, StepCounters, plugin_error
from ferrule.native import LINES as WHOLE_CHUNK
from ferrule.plugins.instance import Instance, NativeInstance
from ferrule.plugins.loading import instantiate, remake
from ferrule.plugins.values import LINES, encode

if TYPE_CHECKING:
    from ferrule.flow.engine import _Run

__all__ = ["Lane", "naming", "told"]

BATCH_BYTES = 64 * 1024
BATCH_SECONDS = 0.05
"""A Python source hands its records on after that many bytes or seconds, if the lane has room for so many."""
SAMPLE = 64
"""One in so many records of a chunk is timed, as in C."""


class Lane:
    """One of a run's lanes. A context manager that owns its steps' instances."""

    def __init__(self, run: _Run) -> None:
        self.run = run
        self.waits = False
        self.over = True
        """Whether no thread is in it: before it starts, and once it has come to its end."""
        self.native = NativeLane(run.pump)
        self.steps: list[Instance] = []
        self._tallies = [_Tally() for _ in run.flow.steps]
        self._owned = ExitStack()
        try:
            for number in range(len(run.flow.steps)):
                self.steps.append(self._make(number))
                self._place(number)
        except BaseException:
            self.close()
            raise
        self._answers = {
            Event.SOURCE: self._fill,
            Event.STEP: self._step,
            Event.SINK: self._drain,
            Event.BROKEN: self._replace,
            Event.RETRY: self._retry,
            Event.CHECKPOINT: run.checkpoint,
        }

    def _make(self, number: int) -> Instance:
        step = self.run.flow.steps[number]
        with naming(step):
            return instantiate(step.plugin, step.config)

    def _place(self, number: int) -> None:
        instance = self.steps[number]
        self.native.step(number, instance.target if isinstance(instance, NativeInstance) else None, "process")

    def answers(self, number: int) -> int:
        """What step `number` makes of its input: ONE record, SEVERAL, or LINES of lines."""
        method = self.steps[number].plugin.method("process")
        if method.output != LINES:
            return ONE
        return WHOLE_CHUNK if method.input == LINES else SEVERAL

    def counters(self, number: int) -> StepCounters:
        """What step `number` did so far, up to this record."""
        c, own = self.native.step_counters(number), self._tallies[number]
        if not own.calls:
            return c
        return StepCounters(own.calls, c.skipped, c.errors, own.retries, own.sampled_ns, tuple(own.histogram))

    def close(self) -> None:
        """Give the instances back. Twice is harmless."""
        with ExitStack() as owned:
            for instance in self.steps:
                owned.callback(instance.close)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def start(self, number: int, done: Callable[[], None]) -> None:
        """Run on a thread of its own until the flow ends, and call `done`. Whatever goes wrong is the run's."""
        self.over = False
        try:
            threading.Thread(target=self._sit, args=(done,), name=f"ferrule-lane-{number}", daemon=True).start()
        except RuntimeError as error:  # no thread is to be had
            self.over = True
            self.run.failed(error)

    def _sit(self, done: Callable[[], None]) -> None:
        try:
            while (event := self.native.run()) != Event.END:
                self._answers[event]()
        except BaseException as error:  # it is raised again by the thread that waits
            self.run.failed(error)
        finally:
            self.over = True
            done()

    def process(self, number: int, data: bytes) -> list[bytes]:
        """Take one record through one step, outside the pump: the records that it answers with.

        Raises:
            PluginError: It failed. A poisoned instance has been replaced.
        """
        instance = self.steps[number]
        try:
            if isinstance(instance, NativeInstance):
                answers = self.answers(number)
                answer = instance.method("process")(data + b"\n" if answers == WHOLE_CHUNK else data)
                return [] if answer is None else _lines(answer, answers)
            return _objects(instance.method("process")(_object(data)))
        except PluginError:
            if instance.poisoned:
                instance.close()
                self.steps[number] = remake(instance, self.run.flow.steps[number].config)
            raise

    # ---- events ----------------------------------------------------------------------------------

    def _replace(self) -> None:
        """A fault has poisoned a step's instance: throw it away and make it again, before the next record."""
        number = self.native.event_step
        self.steps[number].close()
        try:
            self.steps[number] = remake(self.steps[number], self.run.flow.steps[number].config)
        except PluginError as error:
            error.message = f"the instance broke, and a new one cannot be made: {error.message}"
            self.native.abandon(error.status, told(error))
        else:
            self._place(number)

    def _retry(self) -> None:
        number = self.native.event_step
        item = self.run.item(number)
        asked = self.native.retrying()
        error = plugin_error(asked.status, asked.error)
        assert item.spec.retry is not None, "C asks only where there are attempts left"
        if not error.may_retry:
            self.native.retry(Answer.GIVE_UP)
            return
        wait = delay(item.spec.retry, asked.attempt, error)
        if number not in (SOURCE, SINK):
            row = Row(time.monotonic() + wait, asked.record, asked.source, asked.input, number, asked.attempt)
            if self.run.let_wait(row):
                self.native.retry(Answer.TAKEN)
                return
        self._wait(wait)
        self.native.retry(Answer.AGAIN)

    def _wait(self, seconds: float) -> None:
        """Let time pass before a record's next attempt; less where the flow is to end."""
        self.waits = True
        self.run.stopping.wait(seconds)
        self.waits = False

    # ---- Python's part ---------------------------------------------------------------------------

    def _fill(self) -> None:
        run = self.run
        items = run.items
        assert items is not None
        until = time.monotonic() + BATCH_SECONDS
        room = min(self.native.chunk_rows, run.pump.room())
        batch: list[bytes | None] = []
        size, ended = 0, False
        while len(batch) < room and size < BATCH_BYTES and not run.stopping.is_set():
            try:
                item = _line(next(items))
            except StopIteration:
                ended = True
                break
            except PluginError as error:
                if self._again(SOURCE, error, run.source_attempt + 1):
                    run.source_attempt += 1
                    continue
                row, going_on = len(batch), isinstance(error, InvalidDataError) and not items.closed
                if going_on:
                    batch.append(None)
                if self._rejected(row, SOURCE, error, fatal=not going_on):
                    ended = True
                    break
                continue
            run.source_attempt = 0
            batch.append(item)
            size += len(item)
            if time.monotonic() > until:
                break
        self.native.filled(batch, ended=ended, position=run.where())

    def _step(self) -> None:
        number = self.native.event_step
        tally = self._tallies[number]
        process = self.steps[number].method("process")
        timed = tally.timed(process)
        answers: list[bytes | None] = []
        for row, line in enumerate(self.native.rows()):
            if self.run.stopping.is_set():
                break
            call = process if row % SAMPLE else timed
            attempt = 0
            while True:
                attempt += 1
                tally.calls += 1
                tally.retries += attempt > 1
                try:
                    answers.append(b"\n".join(_objects(call(_object(line)))) or None)
                except PluginError as error:
                    if self._again(number, error, attempt):
                        if self.run.stopping.is_set():
                            self.native.stepped(answers)
                            return
                        continue
                    if self._rejected(row, number, error, attempt=attempt):
                        self.native.stepped(answers)
                        return
                    answers.append(None)
                break
        self.native.stepped(answers)

    def _drain(self) -> None:
        write = self.run.sink.instance.method("write")
        lines = self.native.rows()
        stopped_before = self.run.stopping.is_set()  # then these rows are what is to be written yet
        for row, line in enumerate(lines):
            if self.run.stopping.is_set() and not stopped_before:
                self.native.drained(row)
                return
            attempt = 0
            while True:
                attempt += 1
                try:
                    write(_record(line))
                except PluginError as error:
                    if self._again(SINK, error, attempt):
                        if self.run.stopping.is_set():
                            self.native.drained(row)
                            return
                        continue
                    if self._rejected(row, SINK, error, attempt=attempt):
                        self.native.drained(row)
                        return
                break
        self.native.drained(len(lines))

    def _again(self, number: int, error: PluginError, attempt: int) -> bool:
        """Whether a call of a Python plugin is to be repeated, after the wait."""
        retry = self.run.item(number).spec.retry
        if retry is None or attempt > retry.attempts or not error.may_retry:
            return False
        self._wait(delay(retry, attempt, error))
        return True

    def _rejected(self, row: int, number: int, error: PluginError, *, fatal: bool = False, attempt: int = 1) -> bool:
        ends = self.native.reject(row, number, error.status, told(error), fatal=fatal, attempt=attempt)
        if ends:
            self.run.cause = error
        return ends


class _Tally:
    """What a step in Python did. C sees a chunk of its records go and come back, and counts what became of them."""

    def __init__(self) -> None:
        self.calls = self.retries = self.sampled_ns = 0
        self.histogram = [0] * BUCKETS

    def timed(self, process: Callable[[Any], Any]) -> Callable[[Any], Any]:
        """The same call, as a sample."""

        def call(record: Any) -> Any:
            began = time.perf_counter_ns()
            try:
                return process(record)
            finally:
                took = time.perf_counter_ns() - began
                self.sampled_ns += took
                self.histogram[min(max(took, 1).bit_length(), BUCKETS) - 1] += 1

        return call


class naming:
    """Puts the step's name on an error that comes from making or closing its plugin."""

    def __init__(self, resolved: ResolvedItem) -> None:
        self.name = resolved.spec.name

    def __enter__(self) -> None:
        pass

    def __exit__(self, _: type[BaseException] | None, error: BaseException | None, __: TracebackType | None) -> None:
        if isinstance(error, PluginError) and error.step is None:
            error.step = self.name


def told(error: PluginError) -> bytes:
    """An error as the object that a native plugin would have sent."""
    content: dict[str, Any] = {"message": error.message}
    if error.details:
        content["details"] = error.details
    if error.retry_after is not None:
        content["retry_after_ms"] = round(error.retry_after * 1000)
    return orjson.dumps(content, default=repr)


def _line(item: Any) -> bytes:
    """An item of a Python source as a record's bytes."""
    line = encode(item)
    if b"\n" in line:
        line = line.strip()
        if b"\n" in line:
            raise InvalidDataError("a record of bytes must be one line of JSON, but it holds a newline")
    return line


def _objects(answer: Any) -> list[bytes]:
    """A Python step's answer as records' bytes: none for None, several for a list of them."""
    if answer is None:
        return []
    if isinstance(answer, list):
        return [line for each in answer for line in _objects(each)]
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
    return [line]


def _lines(answer: bytes, answers: int) -> list[bytes]:
    """A native step's answer as records' bytes, held to what the pump holds it to."""
    lines = [answer] if answers == ONE else [line for line in answer.split(b"\n") if line]
    if answers == WHOLE_CHUNK and len(lines) > 1:
        raise InvalidDataError("the plugin answered a chunk of lines with another number of lines")
    for line in lines:
        if not (line.startswith(b"{") and line.endswith(b"}")):
            raise InvalidDataError("the plugin answered with something that is no JSON object ({...}) of one line")
        try:
            one = b"\n" not in line and line.decode()
        except UnicodeDecodeError:
            one = False
        if not one:
            raise InvalidDataError("the plugin answered with bytes that are not one line of UTF-8")
    return lines


def _object(line: bytes) -> dict[str, Any]:
    """A record for a Python step."""
    record = _record(line)
    if type(record) is not dict:
        raise InvalidDataError("Data must be a JSON object")
    return record


def _record(line: bytes) -> Any:
    """A record for a Python sink."""
    try:
        return orjson.loads(line)
    except orjson.JSONDecodeError as error:
        raise InvalidDataError(f"Data is not valid JSON: {error}") from None
