"""Retries, checkpoints and resuming: a record that was read comes to one end, once."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import ferrule
from ferrule.flow import engine
from tests.process import raising
from tests.timely import timely

Record = dict[str, Any]


class Bench:
    """A folder with a flow in it: `lines` into `act` (or others) into `keep`."""

    def __init__(self, library: Path, folder: Path) -> None:
        self.library = library
        self.folder = folder
        self.source, self.out = folder / "in", folder / "out"
        self.dead, self.checkpoint = folder / "dead", folder / "checkpoint"

    def records(self, records: list[Record]) -> None:
        self.source.write_text("".join(json.dumps(record) + "\n" for record in records))

    def text(self, *, steps: str = "", head: str = "", delivery: str = "", policy: str = "fail") -> str:
        steps = steps or f'  - {{plugin: "{self.library}:act", on_error: {policy}}}'
        return f"""
{head}
source: {{plugin: "{self.library}:lines", config: {{path: "{self.source}"}}}}
steps:
{steps}
sink: {{plugin: "{self.library}:keep", config: {{path: "{self.out}"}}}}
delivery: {{dead_letter: "{self.dead}"{delivery}}}
"""

    def flow(self, **parts: str) -> ferrule.Flow:
        return ferrule.Flow.loads(self.text(**parts))

    def checkpointed(self, **parts: str) -> ferrule.Flow:
        return self.flow(delivery=f', checkpoint: "{self.checkpoint}"', **parts)

    def written(self) -> list[int]:
        return [json.loads(line)["n"] for line in self.out.read_text().splitlines()]

    def letters(self) -> list[Record]:
        return [json.loads(line) for line in self.dead.read_text().splitlines()]


@pytest.fixture
def bench(act_library: Path, tmp_path: Path) -> Bench:
    """A bench in an empty folder."""
    return Bench(act_library, tmp_path)


FAST = "{retry: {attempts: 3, backoff: {initial: 0.001, max: 0.01}}, then: dead_letter}"
_numbers: Iterator[int] = iter(range(1, 1 << 20))


def numbers(count: int) -> list[int]:
    """Record numbers that no test has used: the flaky plugin counts attempts a number."""
    return [next(_numbers) for _ in range(count)]


# ---- retries -------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", ["source", "any"])
@pytest.mark.parametrize("lanes", [1, 2])
def test_a_flaky_step_is_tried_again_until_it_succeeds(bench: Bench, order: str, lanes: int) -> None:
    """UNAVAILABLE is tried again after a wait; nothing is lost, and in order the order stays."""
    mine = numbers(40)
    bench.records([{"n": n, "act": "flaky" if n % 7 == 0 else "ok", "times": 2} for n in mine])
    summary = bench.flow(policy=FAST, head=f"lanes: {lanes}\norder: {order}").run()
    assert sorted(bench.written()) == mine
    if order == "source":
        assert bench.written() == mine
    assert (summary.read, summary.written, summary.dead, summary.waiting) == (40, 40, 0, 0)
    assert summary.steps[0].retries >= sum(n % 7 == 0 for n in mine)


@pytest.mark.parametrize("order", ["source", "any"])
def test_attempts_end_and_the_record_is_a_dead_letter(bench: Bench, order: str) -> None:
    """After the last attempt `then` decides; the letter says how often it was tried."""
    one, two = numbers(2)
    bench.records([{"n": one, "act": "flaky", "times": 99}, {"n": two, "act": "ok"}])
    summary = bench.flow(policy=FAST, head=f"order: {order}").run()
    assert bench.written() == [two]
    (letter,) = bench.letters()
    assert (letter["number"], letter["attempt"], letter["status"]) == (1, 4, "UNAVAILABLE")
    assert letter["record"] == {"n": one, "act": "flaky", "times": 99}
    assert (summary.read, summary.written, summary.dead) == (2, 1, 1)


@pytest.mark.parametrize("order", ["source", "any"])
def test_then_fail_ends_the_flow_at_that_record(bench: Bench, order: str) -> None:
    """`then: fail` is the default; the error names the step and the record."""
    one, two = numbers(2)
    bench.records([{"n": one, "act": "ok"}, {"n": two, "act": "flaky", "times": 99}])
    policy = "{retry: {attempts: 1, backoff: {initial: 0}}}"
    with pytest.raises(ferrule.UnavailableError) as caught:
        bench.flow(policy=policy, head=f"order: {order}").run()
    assert (caught.value.step, caught.value.record) == ("act", 2)
    assert bench.written() == [one]


@pytest.mark.timed
@pytest.mark.parametrize("order", ["source", "any"])
@pytest.mark.parametrize("written_in", ["c", "python"])
def test_what_waits_for_its_next_attempt_is_told(bench: Bench, order: str, written_in: str) -> None:
    """While a record waits, progress says so, whether it holds its lane up or not; afterwards none does."""
    (one,) = numbers(1)
    bench.records([{"n": one, "act": "flaky", "times": 1}])
    policy = "{retry: {attempts: 1, backoff: {initial: 0.5}}, then: fail}"
    steps = f'  - {{python: "{__name__}:Flaky", on_error: {policy}}}' if written_in == "python" else ""
    seen: list[int] = []
    flow = bench.flow(policy=policy, head=f"order: {order}", steps=steps)
    summary = flow.run(on_progress=lambda progress: seen.append(progress.waiting))
    timely(1 in seen, seen)
    assert seen[-1] == summary.waiting == 0
    assert bench.written() == [one]


def test_retry_after_is_waited_for(bench: Bench) -> None:
    """An error with retry_after_ms may be tried again whatever its status, and not before that time."""
    (one,) = numbers(1)
    bench.records([{"n": one, "act": "later", "times": 3}])
    began = time.monotonic()
    bench.flow(policy="{retry: {attempts: 3, backoff: {initial: 0}}, then: fail}").run()
    assert time.monotonic() - began >= 0.06
    assert bench.written() == [one]


def test_what_may_not_be_repeated_is_not_repeated(bench: Bench) -> None:
    """Invalid data stays invalid: it is tried once."""
    (one,) = numbers(1)
    bench.records([{"n": one, "act": "invalid"}])
    summary = bench.flow(policy=FAST).run()
    assert [letter["attempt"] for letter in bench.letters()] == [1]
    assert (summary.steps[0].calls, summary.steps[0].retries) == (1, 0)


class AfterOthers:
    """A step in Python that lets the record that was tried again go on when the others are written."""

    written = threading.Event()

    def process(self, record: Record) -> Record:
        if record["act"] == "later":
            AfterOthers.written.wait(10)
        return record


def test_in_any_order_a_waiting_record_holds_nobody_up(bench: Bench) -> None:
    """With order any the others are written while one waits."""
    mine = numbers(5)
    bench.records([{"n": n, "act": "later" if n == mine[0] else "ok", "times": 2} for n in mine])
    policy = "{retry: {attempts: 3, backoff: {initial: 0.05}}, then: fail}"
    AfterOthers.written.clear()

    def told(progress: ferrule.Progress) -> None:
        if progress.written == 4:
            AfterOthers.written.set()

    steps = f'  - {{plugin: "{bench.library}:act", on_error: {policy}}}\n  - {{python: "{__name__}:AfterOthers"}}'
    bench.flow(steps=steps, head="order: any").run(on_progress=told)
    assert AfterOthers.written.is_set()
    assert bench.written() == [*mine[1:], mine[0]]


class Flaky:
    """A step in Python that is unavailable once for each record."""

    def __init__(self) -> None:
        self.seen: set[int] = set()

    def process(self, record: Record) -> Record:
        if record["n"] not in self.seen:
            self.seen.add(record["n"])
            raise ferrule.UnavailableError("not yet")
        return record


def test_a_python_step_is_tried_again_too(bench: Bench) -> None:
    """Retries are the flow's, whatever the step is written in, and counted."""
    mine = numbers(3)
    bench.records([{"n": n} for n in mine])
    summary = bench.flow(steps=f'  - {{python: "{__name__}:Flaky", on_error: {FAST}}}').run()
    assert bench.written() == mine
    assert (summary.steps[0].calls, summary.steps[0].retries) == (6, 3)


# ---- many from one, many at once -----------------------------------------------------------------


def test_a_step_may_make_several_records_of_one_or_none(bench: Bench) -> None:
    """A function whose output is lines: each line is a record; none at all is a skip."""
    bench.records([{"n": 1, "times": 2}, {"n": 2, "times": 0}, {"n": 3, "times": 1}])
    for order in ("source", "any"):
        several = f'  - {{plugin: "{bench.library}:several"}}\n  - {{plugin: "{bench.library}:act"}}'
        summary = bench.flow(steps=several, head=f"order: {order}").run()
        assert bench.written() == [1, 1, 3]
        assert (summary.read, summary.written, summary.skipped) == (3, 3, 1)


def test_a_step_that_panics_when_it_is_blamed(bench: Bench) -> None:
    """What a step made of a record is no UTF-8, which is seen after the step that makes several of it; called again to
    find who it was, it panics. The record is a dead letter, and the next one meets a new instance."""
    mine = numbers(3)
    bench.records([{"n": n, "act": "relapse" if n == mine[0] else "ok"} for n in mine])
    steps = [f'  - {{plugin: "{bench.library}:{name}", on_error: dead_letter}}' for name in ("act", "several")]
    bench.flow(steps="\n".join(steps)).run()
    assert bench.written() == mine[1:]
    assert [(letter["number"], letter["step"]) for letter in bench.letters()] == [(1, "act")]


def test_a_step_may_take_a_chunk_of_lines(bench: Bench) -> None:
    """Lines both ways: an empty line skips; when the chunk fails, the culprit alone is the dead letter."""
    acts = ["ok", "skip", "ok", "invalid", "ok"]
    bench.records([{"n": n, "act": act} for n, act in enumerate(acts, 1)])
    text = bench.text(steps=f'  - {{plugin: "{bench.library}:whole", on_error: dead_letter}}')
    bench.source.write_text(bench.source.read_text().replace(": ", ":").replace(", ", ","))
    summary = ferrule.Flow.loads(text).run()
    assert bench.written() == [1, 3, 5]
    assert [letter["number"] for letter in bench.letters()] == [4]
    assert (summary.read, summary.written, summary.skipped, summary.dead) == (5, 3, 1, 1)


# ---- checkpoints ---------------------------------------------------------------------------------


@pytest.mark.parametrize("lanes", [1, 2])
@pytest.mark.parametrize("order", ["source", "any"])
def test_a_flow_goes_on_where_it_stopped(bench: Bench, monkeypatch: pytest.MonkeyPatch, lanes: int, order: str) -> None:
    """Run in pieces, a flow writes what it writes in one run: nothing lost, nothing doubled, dead letters too."""
    monkeypatch.setattr(engine, "FILL_BYTES", 100)
    bench.records([{"n": n, "act": "invalid" if n % 10 == 0 else "ok"} for n in range(1, 101)])
    head = f"lanes: {lanes}\norder: {order}"
    pieces = [bench.checkpointed(policy="dead_letter", head=head).run(limit=30) for _ in range(4)]
    assert sorted(bench.written()) == [n for n in range(1, 101) if n % 10]
    if order == "source":
        assert bench.written() == sorted(bench.written())
    assert sorted(letter["number"] for letter in bench.letters()) == list(range(10, 101, 10))
    assert [piece.read for piece in pieces] == [30, 30, 30, 10]
    assert [piece.resumed_at for piece in pieces] == [None, 30, 60, 90]
    again = bench.checkpointed(policy="dead_letter", head=head).run()
    assert (again.read, again.resumed_at) == (0, 100)
    assert len(bench.written()) == 90


def test_what_a_crash_left_behind_the_checkpoint_is_cut(bench: Bench) -> None:
    """Output and dead letters behind the last checkpoint are written again, once."""
    bench.records([{"n": n, "act": "invalid" if n == 2 else "ok"} for n in range(1, 7)])
    bench.checkpointed(policy="dead_letter").run(limit=3)
    with bench.out.open("a") as out, bench.dead.open("a") as dead:
        out.write('{"n": 99}\n{"torn')
        dead.write('{"torn')
    bench.checkpointed(policy="dead_letter").run()
    assert bench.written() == [1, 3, 4, 5, 6]
    assert [letter["number"] for letter in bench.letters()] == [2]


def test_a_failed_flow_goes_on_at_the_record_that_failed(bench: Bench) -> None:
    """A failure leaves a checkpoint in which the failing record and those behind it wait."""
    mine = numbers(5)
    bench.records([{"n": n, "act": "flaky" if n == mine[2] else "ok", "times": 1} for n in mine])
    with pytest.raises(ferrule.UnavailableError):
        bench.checkpointed().run()
    assert bench.written() == mine[:2]
    summary = bench.checkpointed().run()
    assert bench.written() == mine
    assert summary.read == 3


def test_a_bad_item_that_ends_the_flow_is_met_again(bench: Bench) -> None:
    """The source stands behind its bad item, and yet nothing passes it: the flow fails at it each time that it goes on,
    until its policy says what becomes of it."""
    bench.source.write_text('{"n": 1}\n!\n{"n": 3}\n')
    for _ in range(3):
        with pytest.raises(ferrule.InvalidDataError, match="bad item") as caught:
            bench.checkpointed().run()
        assert (caught.value.step, caught.value.record) == ("lines", 2)
        assert bench.written() == [1]
    source = f'config: {{path: "{bench.source}"}}'
    text = bench.text(delivery=f', checkpoint: "{bench.checkpoint}"')
    ferrule.Flow.loads(text.replace(source, f"{source}, on_error: dead_letter")).run()
    assert bench.written() == [1, 3]
    (letter,) = bench.letters()
    assert (letter["number"], letter["error"]["details"]) == (2, {"record": "!"})


def test_a_limit_counts_what_waits(bench: Bench) -> None:
    """An item may hold more lines than the limit leaves: the others wait, and count when they are read."""
    bench.records([{"n": n} for n in range(1, 8)])
    text = bench.text(delivery=f', checkpoint: "{bench.checkpoint}"').replace(":lines", ":packs")
    pieces = [ferrule.Flow.loads(text).run(limit=2) for _ in range(4)]
    assert [(piece.read, piece.written) for piece in pieces] == [(2, 2), (2, 2), (2, 2), (1, 1)]
    assert bench.written() == list(range(1, 8))


def test_an_older_checkpoint_is_read(bench: Bench) -> None:
    """Version 1 knew records that wait before the first step: they go on as they did."""
    mine = numbers(4)
    bench.records([{"n": n, "act": "flaky" if n == mine[1] else "ok", "times": 1} for n in mine])
    with pytest.raises(ferrule.UnavailableError):
        bench.checkpointed().run()
    found = json.loads(bench.checkpoint.read_bytes())
    assert [list(each) for each in found["waiting"]] == [["number", "record"]] * 3
    bench.checkpoint.write_text(json.dumps(found | {"ferrule_checkpoint": 1}))
    bench.checkpointed().run()
    assert bench.written() == mine


def test_a_changed_flow_does_not_go_on(bench: Bench) -> None:
    """The checkpoint of another flow is refused with what to do; --fresh begins anew."""
    bench.records([{"n": n} for n in range(1, 5)])
    bench.checkpointed().run(limit=2)
    other = f'  - {{plugin: "{bench.library}:several"}}'
    with pytest.raises(ferrule.FlowError, match=r"belongs to another flow.*--fresh"):
        bench.checkpointed(steps=other).run()
    assert bench.written() == [1, 2]
    bench.checkpointed(steps=other).run(fresh=True)
    assert bench.written() == [1, 2, 3, 4]


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b'{"ferrule_checkpoint": 99}', b"\xff"])
def test_a_file_that_is_no_checkpoint_is_refused(bench: Bench, content: bytes) -> None:
    """Whatever stands at the checkpoint's path, it is an error and not a silent new beginning."""
    bench.records([{"n": 1}])
    bench.checkpoint.write_bytes(content)
    with pytest.raises(ferrule.FlowError, match="checkpoint"):
        bench.checkpointed().run()


def generated() -> Iterator[Record]:
    """A source without positions."""
    yield {"n": 1}


class Generated:
    """A source in Python without positions."""

    def read_data(self) -> Iterator[Record]:
        return generated()


def test_a_source_without_positions_has_no_checkpoint(bench: Bench) -> None:
    """It is said before the first record, with the line in the file."""
    text = bench.checkpointed().spec
    assert text.checkpoint is not None
    flow = ferrule.Flow.loads(
        f"""
source: {{python: "{__name__}:Generated"}}
sink: {{plugin: "{bench.library}:keep", config: {{path: "{bench.out}"}}}}
delivery: {{checkpoint: "{bench.checkpoint}"}}
"""
    )
    with pytest.raises(ferrule.FlowError, match="has no positions") as caught:
        flow.run()
    assert caught.value.line == 2


class Counting:
    """A source in Python with positions: the numbers from 1 to 50."""

    def read_data(self, position: int | None) -> Iterator[Record]:
        return CountingReader(position or 0)


class CountingReader:
    """Its stream."""

    def __init__(self, at: int) -> None:
        self.at = at

    def __iter__(self) -> CountingReader:
        return self

    def __next__(self) -> Record:
        if self.at == 50:
            raise StopIteration
        self.at += 1
        return {"n": self.at}

    def position(self) -> int:
        return self.at


def test_a_python_source_with_positions_goes_on(bench: Bench) -> None:
    """A Python source whose stream has a position is resumed as a native one is."""
    flow = f"""
source: {{python: "{__name__}:Counting"}}
sink: {{plugin: "{bench.library}:keep", config: {{path: "{bench.out}"}}}}
delivery: {{checkpoint: "{bench.checkpoint}"}}
"""
    ferrule.Flow.loads(flow).run(limit=20)
    ferrule.Flow.loads(flow).run()
    assert bench.written() == list(range(1, 51))


def ignore_ctrl_c() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)


@pytest.mark.parametrize("order", ["source", "any"])
@pytest.mark.parametrize(
    ("number", "first"), [(signal.SIGINT, None), (signal.SIGTERM, None), (signal.SIGTERM, ignore_ctrl_c)]
)
def test_a_signal_ends_at_a_checkpoint(
    bench: Bench, order: str, number: signal.Signals, first: Callable[[], None] | None
) -> None:
    """Ctrl-C and SIGTERM end within 100 ms of the slowest record, exit 1, and the flow goes on from there; SIGTERM too
    where Ctrl-C is ignored, as it is in what a shell starts in the background."""
    bench.records([{"n": n, "act": "slow"} for n in range(1, 1001)])
    path = bench.folder / "flow.yaml"
    path.write_text(bench.text(delivery=f', checkpoint: "{bench.checkpoint}"', head=f"lanes: 2\norder: {order}"))
    command = [sys.executable, "-m", "ferrule", "run", str(path)]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ, preexec_fn=first
    )
    while not (bench.checkpoint.exists() or process.poll()):  # some are written, and some under way
        time.sleep(0.01)
    process.send_signal(number)
    _, errors = process.communicate(timeout=20)
    assert process.returncode == 1, errors
    assert "resume" in errors
    before = len(bench.written())
    assert 0 < before < 1000
    bench.source.write_text(bench.source.read_text().replace('"slow"', '"ok"  '))  # every line where it was
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert sorted(bench.written()) == list(range(1, 1001))


@pytest.mark.parametrize("handler", [signal.default_int_handler, raising])
def test_a_signal_while_records_wait_for_another_attempt(bench: Bench, handler: Callable[..., None]) -> None:
    """All is read, and one record waits for an hour: Ctrl-C ends the flow at once, the checkpoint holds that record,
    and the program's handler is the one that it was."""
    bench.records([{"n": n, "act": "flaky" if at == 1 else "ok", "times": 1} for at, n in enumerate(numbers(4))])
    policy = "{retry: {attempts: 3, backoff: {initial: 3600, max: 3600}}, then: fail}"
    flow = bench.flow(policy=policy, delivery=f', checkpoint: "{bench.checkpoint}"', head="order: any")
    beats = []
    timer = threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGINT))

    def interrupt(progress: ferrule.Progress) -> None:
        if progress.waiting == 1 and progress.written == 3:
            beats.append(time.monotonic())
            if len(beats) == 3:
                timer.start()

    before = signal.signal(signal.SIGINT, handler)
    try:
        with pytest.raises(ferrule.FlowInterrupted) as caught:
            flow.run(on_progress=interrupt)
        assert signal.getsignal(signal.SIGINT) is handler
    finally:
        timer.cancel()
        signal.signal(signal.SIGINT, before)
    assert time.monotonic() - beats[2] < 10
    assert (caught.value.summary.written, caught.value.summary.waiting) == (3, 1)
    assert [row["number"] for row in json.loads(bench.checkpoint.read_bytes())["waiting"]] == [2]


def test_durable_is_written_the_same(bench: Bench) -> None:
    """durable: true changes when a checkpoint returns, not what is in it."""
    bench.records([{"n": n} for n in range(1, 5)])
    delivery = f', checkpoint: "{bench.checkpoint}", durable: true'
    bench.flow(delivery=delivery).run(limit=2)
    bench.flow(delivery=delivery).run()
    assert bench.written() == [1, 2, 3, 4]


def twice(record: Record) -> list[Record]:
    """A step in Python that answers with a record for each of its input's times."""
    return [record] * record["times"]


def test_a_python_step_may_answer_with_several_records(bench: Bench) -> None:
    """A list is as many records; an empty one is a skip."""
    bench.records([{"n": 1, "times": 2}, {"n": 2, "times": 0}, {"n": 3, "times": 1}])
    summary = bench.flow(steps=f'  - {{python: "{__name__}:twice"}}').run()
    assert bench.written() == [1, 1, 3]
    assert (summary.read, summary.written, summary.skipped) == (3, 3, 1)
