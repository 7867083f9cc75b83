"""Native streams: two sides and their gates, wakes and event loops, timeouts, cancel, close; and what becomes of a call
that waits or is cancelled. tests/plugins/lab.c does what each test says."""

from __future__ import annotations

import os
import resource
import select
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ferrule
from ferrule.native import CallTicket, NativeObject, NativeStream, NativeWakes
from ferrule.plugins.instance import NativeInstance
from tests.process import held
from tests.timely import timely, until

ROOT = Path(__file__).resolve().parents[1]
LAB = ROOT / "tests" / "plugins" / "lab.c"

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the plugins are built with cc")

Compile = Callable[..., Path]
Make = Callable[..., NativeObject]
linux = pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="looks into /proc")


@pytest.fixture
def make(lab_library: Path) -> Iterator[Make]:
    """Makes an instance of a plugin of lab.c, as the layer above C sees it."""
    with ferrule.Host() as host:

        def make(plugin: str = "lab") -> NativeObject:
            made = host.create(f"{lab_library}:{plugin}")
            assert isinstance(made, NativeInstance)
            return made.target

        yield make


def opened(lab: NativeObject, method: str = "script", **about: Any) -> NativeStream:
    """A stream that does what `about` says."""
    return lab.open(method, orjson.dumps(about))


def read_on(stream: NativeStream) -> list[bytes]:
    """Every item up to the end."""
    found: list[bytes] = []
    after: object = None
    while after != "end":
        items, after = stream.fill(None)
        assert after in (None, "end")
        found += items
    return found


def counts(lab: NativeObject) -> dict[str, int]:
    """How often the functions of the instance's streams were called."""
    found: dict[str, int] = orjson.loads(lab.call("counts", b"{}")[0] or b"")
    return found


def wake(lab: NativeObject, stream: NativeStream | int, times: int = 1) -> None:
    """As the plugin would."""
    number = stream if isinstance(stream, int) else stream.id
    lab.call("wake", orjson.dumps({"id": number, "times": times}))


def processor_seconds() -> float:
    """What this process has used."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def thread(work: Callable[[], Any]) -> tuple[threading.Thread, list[Any]]:
    """Run it beside; what it returned, or raised, is in the list once it has ended."""
    found: list[Any] = []

    def run() -> None:
        try:
            found.append(work())
        except Exception as error:
            found.append(error)

    started = threading.Thread(target=run, daemon=True)
    started.start()
    return started, found


def asleep(lab: NativeObject) -> bool:
    """Whether a call of `sleep` is under way, or was."""
    try:
        return bool(orjson.loads(lab.call("counts", b"{}", timeout=0.001)[0] or b"")["sleep"])
    except ferrule.PluginTimeoutError:  # a serial instance is in it
        return True


def filled(stream: NativeStream, timeout: float | None, **options: Any) -> tuple[list[bytes], object]:
    """What fills give up to an end, an error or a pause: a thread that is held up takes less at a time."""
    found: list[bytes] = []
    while True:
        items, after = stream.fill(timeout, **options)
        found += items
        if after is not None:
            return found, after


# ---- the next side -------------------------------------------------------------------------------


@pytest.mark.timed
def test_items_come_many_at_once_and_then_the_end(make: Make) -> None:
    """One fill takes what is there; the end comes behind the items, and again however often one asks; the plugin is
    not asked again."""
    lab = make()
    stream = opened(lab, next="OOOE")
    assert stream.opened == b'{"opened":true}'
    timely(stream.fill(None) == ([b"0", b"1", b"2"], "end"))
    assert stream.fill(None) == ([], "end")
    assert stream.fill(0) == ([], "end")
    assert counts(lab)["next"] == 4
    assert stream.position() == b"3"


@settings(max_examples=60, deadline=None)
@given(size=st.integers(1, 3000), newline=st.integers(-1, 40), count=st.integers(1, 50))
def test_an_item_is_what_the_plugin_gave(lab_library: Path, size: int, newline: int, count: int) -> None:
    """Whatever is in it, newlines too, and however long it is."""
    with ferrule.Host() as host:
        made = host.create(f"{lab_library}:lab")
        assert isinstance(made, NativeInstance)
        found = read_on(opened(made.target, next="O" * count + "E", size=size, newline=newline))
    for i, item in enumerate(found):
        number = str(i).encode()
        rest = bytearray(b"x" * max(0, size - len(number)))
        if len(number) <= newline < size:
            rest[newline - len(number)] = 10
        assert item == number + rest
    assert len(found) == count


def test_lines_come_one_by_one(make: Make) -> None:
    """An item of several lines is several; an empty line is none."""
    stream = opened(make(), next="OOE", size=4, newline=3)
    assert filled(stream, None, lines=True) == ([b"0xx", b"1xx"], "end")
    stream = opened(make(), next="OE", size=5, newline=2)
    assert filled(stream, None, lines=True) == ([b"0x", b"xx"], "end")


def test_metadata_belongs_to_the_item_given_last(make: Make) -> None:
    """A stream that tells of its items gives one at a time; after the end the metadata are the stream's."""
    stream = opened(make(), next="OOE", metadata=1)
    assert stream.has_metadata
    assert stream.fill(None) == ([b"0"], None)
    assert stream.metadata() == b'{"given":1}'
    assert stream.fill(None) == ([b"1"], None)
    assert stream.metadata() == b'{"given":2}'
    assert stream.fill(None) == ([], "end")
    assert stream.metadata() == b'{"given":2}'
    assert opened(make(), next="OE").metadata() == b""


@pytest.mark.parametrize(
    ("letter", "error", "ends"),
    [
        ("D", ferrule.InvalidDataError, False),
        ("U", ferrule.UnavailableError, False),
        ("I", ferrule.PluginIOError, True),
        ("C", ferrule.CancelledError, True),
        ("X", ferrule.PanicError, True),
        ("S", ferrule.InternalError, True),
        ("?", ferrule.InternalError, True),
    ],
)
def test_an_error_of_next(make: Make, letter: str, error: type[Exception], ends: bool) -> None:
    """It stands behind the items before it. A bad item and a source that has nothing now end nothing; after any other
    error the plugin is not asked again; a fault poisons."""
    lab = make()
    stream = opened(lab, next=f"O{letter}OE")
    items, after = filled(stream, None)
    assert items == [b"0"]
    assert type(after) is error
    poisons = letter in "XS?"
    assert lab.poisoned == poisons
    if not ends:
        assert filled(stream, None) == ([b"1"], "end")
    elif not poisons:
        assert stream.fill(None) == ([], "end")
        assert counts(lab)["next"] == 2
        assert stream.position() == b"1"
    else:
        assert isinstance(stream.fill(None)[1], ferrule.InvalidStateError)
        with pytest.raises(ferrule.InvalidStateError, match="poisoned"):
            stream.position()
    stream.close()


def test_a_timeout_that_next_gives_early_is_an_error_and_a_late_one_the_end_of_the_wait(make: Make) -> None:
    """The plugin's own words come through where it gave up before its time."""
    stream = opened(make(), next="TE", flags=1)
    reader, found = thread(lambda: stream.fill(None))  # no slice of a wait that is over there, as in the main thread
    reader.join()
    _, after = found[0]
    assert isinstance(after, ferrule.PluginTimeoutError)
    assert "too slow" in str(after)
    assert stream.fill(None) == ([], "end")
    _, after = opened(make(), "waiter").fill(0.05)
    assert isinstance(after, ferrule.PluginTimeoutError)
    assert "nothing came within 0.05 s" in str(after)


def test_a_slow_stream_is_not_held_back(make: Make) -> None:
    """Items that take their time are handed on as they come, not once there are many."""
    stream = opened(make(), next="O", wait=20)
    assert [len(stream.fill(None)[0]) for _ in range(3)] == [1, 1, 1]


@pytest.mark.parametrize("timeout", [0, 0.0004, 0.05])
@pytest.mark.parametrize("flags", [0, 1, 2, 3])
def test_no_item_in_time(make: Make, flags: int, timeout: float) -> None:
    """Asked alone it is "pending"; else the wait lasts its time, rounded up to milliseconds, and the stream goes on."""
    stream = opened(make(), next="P" * (40 if flags & 2 else 1), flags=flags)
    began = time.monotonic()
    items, after = stream.fill(timeout)
    assert items == []
    if timeout == 0:
        assert after == "pending"
    else:
        assert isinstance(after, ferrule.PluginTimeoutError)
        assert time.monotonic() - began >= timeout
    assert stream.fill(0)[1] == "pending"


def test_one_thread_reads(make: Make) -> None:
    """A second one is told so; so is one that asks for the position meanwhile."""
    stream = opened(make(), "waiter")
    reader, found = thread(lambda: stream.fill(None))
    until(stream._reading.locked)
    for use in (lambda: stream.fill(0), stream.position):
        with pytest.raises(ferrule.InvalidStateError, match="another thread is reading"):
            use()
    stream.cancel()
    reader.join(10)
    assert isinstance(found[0][1], ferrule.CancelledError)


# ---- the feed side -------------------------------------------------------------------------------


def test_what_is_fed_comes_out(make: Make) -> None:
    """A reader that sleeps is woken by a feed, a feeder that sleeps by the reader, without a wake of the plugin's; in
    order, with newlines and the last piece; then the end."""
    stream = opened(make(), "pipe", room=3)
    blocks = [f"block\n{i}".encode() for i in range(2000)]

    def feed() -> list[str]:
        told = [stream.feed(block, final=False, timeout=None) for block in blocks]
        return [*told, stream.feed(b"", final=True, timeout=None)]

    feeder, told = thread(feed)
    found: list[bytes] = []
    after: object = None
    while after != "end":
        items, after = stream.fill(20)
        assert after in (None, "end")
        found += items
    feeder.join(20)
    assert found == blocks
    assert set(told[0]) == {"taken"}


def test_a_full_stream_takes_nothing(make: Make) -> None:
    """Asked alone the feed is "pending", with a timeout an error; neither the piece nor its `final` is in."""
    stream = opened(make(), "pipe", room=1)
    assert stream.feed(b"a", final=False, timeout=None) == "taken"
    assert stream.feed(b"b", final=True, timeout=0) == "pending"
    began = time.monotonic()
    with pytest.raises(ferrule.PluginTimeoutError, match=r"no room within 0\.05 s; nothing was taken"):
        stream.feed(b"b", final=True, timeout=0.05)
    assert time.monotonic() - began >= 0.05
    assert filled(stream, 0) == ([b"a"], "pending")
    assert stream.feed(bytearray(b"b"), final=False, timeout=0) == "taken"
    assert filled(stream, 0) == ([b"b"], "pending")
    assert stream.feed(memoryview(b""), final=True, timeout=0) == "taken"
    assert stream.fill(0) == ([], "end")


def test_feed_after_final_and_after_the_end(make: Make) -> None:
    """The first is the caller's mistake; the second says that no more is wanted. The plugin sees neither."""
    lab = make()
    stream = opened(lab, next="E")
    assert stream.feed(b"a", final=True, timeout=None) == "taken"
    with pytest.raises(ferrule.InvalidStateError, match="the final piece was fed already"):
        stream.feed(b"b", final=False, timeout=None)
    stream = opened(lab, next="OE")
    assert filled(stream, None)[1] == "end"
    assert stream.feed(b"a", final=False, timeout=None) == "end"
    stream = opened(lab, next="OE", feed="EO")
    assert stream.feed(b"a", final=False, timeout=None) == "end"
    assert stream.feed(b"a", final=False, timeout=None) == "end"
    assert filled(stream, None) == ([b"0"], "end")
    assert counts(lab)["feed"] == 2


@pytest.mark.parametrize("letter", "DUT")
def test_an_error_of_feed_that_ends_nothing(make: Make, letter: str) -> None:
    """The piece is refused, the next one is taken, and the reader sees nothing of it."""
    stream = opened(make(), next="OE", feed=f"{letter}O")
    with pytest.raises(ferrule.PluginError):
        stream.feed(b"a", final=False, timeout=None)
    assert stream.feed(b"a", final=False, timeout=None) == "taken"
    assert filled(stream, None) == ([b"0"], "end")


@pytest.mark.parametrize("letter", "ICXS?")
@pytest.mark.parametrize("plugin", ["lab", "lab-serial"])
def test_an_error_of_feed_that_ends_the_stream(make: Make, plugin: str, letter: str) -> None:
    """The reader is given it too, once, so that he does not take the end for a good one; the plugin is not asked."""
    lab = make(plugin)
    stream = opened(lab, next="O", feed=letter)
    with pytest.raises(ferrule.PluginError) as raised:
        stream.feed(b"a", final=False, timeout=None)
    _, after = stream.fill(None)
    assert type(after) is type(raised.value)
    assert str(after) == str(raised.value)
    assert lab.poisoned == (letter in "XS?")
    if not lab.poisoned:
        assert stream.fill(None) == ([], "end")
        assert stream.feed(b"a", final=False, timeout=None) == "end"
        assert counts(lab)["next"] == 0


def test_a_feed_that_fails_reaches_a_reader_that_sleeps(make: Make) -> None:
    """And the end reaches a feeder that sleeps."""
    stream = opened(make(), next="P", feed="I")
    reader, found = thread(lambda: stream.fill(None))
    until(stream._reading.locked)
    time.sleep(0.05)
    with pytest.raises(ferrule.PluginIOError):
        stream.feed(b"a", final=False, timeout=None)
    reader.join(10)
    assert isinstance(found[0][1], ferrule.PluginIOError)

    stream = opened(make(), next="PE", feed="P")
    feeder, told = thread(lambda: stream.feed(b"a", final=False, timeout=None))
    until(stream._feeding.locked)
    time.sleep(0.05)
    assert stream.fill(0)[1] == "pending"
    assert stream.fill(0)[1] == "end"
    feeder.join(10)
    assert told == ["end"]


def test_a_stream_that_takes_no_input(make: Make) -> None:
    """It says so."""
    stream = opened(make(), "waiter")
    assert (stream.takes_feed, stream.wakes, stream.locked, stream.has_metadata) == (False, False, False, False)
    with pytest.raises(ferrule.UnsupportedError, match="takes no input"):
        stream.feed(b"a", final=False, timeout=None)


def test_one_thread_feeds(make: Make) -> None:
    """A second one is told so; one may read meanwhile."""
    stream = opened(make(), next="OP", feed="P")
    feeder, found = thread(lambda: stream.feed(b"a", final=False, timeout=None))
    until(stream._feeding.locked)
    with pytest.raises(ferrule.InvalidStateError, match="another thread is feeding"):
        stream.feed(b"a", final=False, timeout=0)
    assert filled(stream, 0) == ([b"0"], "pending")
    stream.close()
    feeder.join(10)
    assert isinstance(found[0], ferrule.InvalidStateError)


# ---- wakes ---------------------------------------------------------------------------------------


def test_a_wake_ends_the_sleep(make: Make) -> None:
    """At once, one that came before included; and the sleep is a sleep."""
    lab = make()
    stream = opened(lab, next="PO")
    reader, found = thread(lambda: stream.fill(None))
    until(lambda: counts(lab)["next"] == 1)
    time.sleep(0.02)
    assert counts(lab)["next"] == 1
    wake(lab, stream)
    reader.join(10)
    assert found[0][0][0] == b"0"


@pytest.mark.timed
def test_an_idle_wait_costs_nothing(make: Make) -> None:
    """Two seconds in the main thread and in another one: a hundredth of a processor at most."""
    lab = make()
    stream, other = opened(lab, next="P"), opened(lab, "pipe")
    beside, _ = thread(lambda: other.fill(None))
    before = processor_seconds()
    stream.fill(2)
    timely(processor_seconds() - before < 0.02)
    other.close()
    beside.join(10)


def test_wakes_for_ever_and_for_nobody(make: Make) -> None:
    """A thousand wakes without an item leave the timeout as it is; those for a closed stream, for no stream and for an
    instance are ignored."""
    lab = make()
    stream = opened(lab, next="P")
    done = threading.Event()

    def keep_waking() -> None:
        while not done.is_set():
            wake(lab, stream, 1000)

    waker, _ = thread(keep_waking)
    assert isinstance(stream.fill(0.3)[1], ferrule.PluginTimeoutError)
    done.set()
    waker.join(10)
    stream.close()
    for number in (stream.id, 0, 2**62, lab._id):
        wake(lab, number)


def test_an_event_loop_learns_who_was_woken(make: Make) -> None:
    """Each stream once, one whose wake came before it was watched included; then the descriptor is quiet again."""
    lab = make()
    streams = [opened(lab, next="P") for _ in range(300)]
    wake(lab, streams[7])
    wakes = NativeWakes()
    for stream in streams:
        stream.watch(wakes)
    assert select.select([wakes], [], [], 0)[0]
    assert wakes.take() == [streams[7].id]
    assert wakes.take() == []
    assert not select.select([wakes], [], [], 0)[0]
    for stream in [*streams, *reversed(streams)]:
        wake(lab, stream, 3)
    assert wakes.take() == [stream.id for stream in streams]
    streams[0].watch(None)
    wake(lab, streams[0])
    assert not select.select([wakes], [], [], 0)[0]
    streams[1].watch(wakes)
    wakes.take()
    streams[1].cancel()
    streams[2].close()
    assert sorted(wakes.take()) == [streams[1].id, streams[2].id]
    wake(lab, streams[2])
    assert not wakes.take()
    wakes.close()
    wakes.close()
    wake(lab, streams[3])
    assert wakes.take() == []
    del wakes
    wake(lab, streams[4])
    streams[4].watch(None)


def test_an_event_loop_learns_of_the_other_side(make: Make) -> None:
    """Once a fill was "pending" a feed is news, and once a feed was "pending" a fill; else neither is."""
    stream = opened(make(), "pipe", room=1)
    wakes = NativeWakes()
    stream.watch(wakes)
    assert stream.feed(b"a", final=False, timeout=0) == "taken"
    assert not wakes.take()
    assert stream.feed(b"b", final=False, timeout=0) == "pending"
    assert not wakes.take()
    assert filled(stream, 0) == ([b"a"], "pending")
    assert wakes.take() == [stream.id]
    assert stream.feed(b"b", final=False, timeout=0) == "taken"
    assert wakes.take() == [stream.id]
    assert filled(stream, 0) == ([b"b"], "pending")
    assert not wakes.take()


def test_no_wake_is_lost_among_many(make: Make) -> None:
    """A thousand streams on one descriptor, woken from four threads while they are taken: after the last wake each was
    seen at least once since it."""
    lab = make()
    wakes = NativeWakes()
    streams = [opened(lab, next="P") for _ in range(1000)]
    for stream in streams:
        stream.watch(wakes)

    def wake_some(part: int) -> None:
        for _ in range(3):
            for stream in streams[part::4]:
                wake(lab, stream)

    wakers = [threading.Thread(target=wake_some, args=(part,)) for part in range(4)]
    for waker in wakers:
        waker.start()
    seen: set[int] = set()
    while any(waker.is_alive() for waker in wakers):
        if select.select([wakes], [], [], 0.01)[0]:
            seen.update(wakes.take())
    seen.update(wakes.take())
    assert seen == {stream.id for stream in streams}
    for stream in streams:
        wake(lab, stream)
    assert set(wakes.take()) == seen


# ---- locked streams, tickets, time ---------------------------------------------------------------


def test_a_locked_stream_waits_for_calls_no_longer_than_it_is_told(make: Make) -> None:
    """And one that waits holds no call of its instance up for long, nor does a stream without the lock."""
    lab = make("lab-serial")
    stream = opened(lab, next="O", flags=2)
    assert stream.locked
    ticket = CallTicket()
    call, _ = thread(lambda: lab.call("sleep", b'{"ms": 60000}', ticket=ticket))
    until(lambda: asleep(lab))
    assert stream.fill(0) == ([], "pending")
    assert isinstance(stream.fill(0.05)[1], ferrule.PluginTimeoutError)
    assert opened(make("lab-serial"), next="O", flags=1).fill(0)[0]
    free = make("lab-serial")
    waiting = opened(free, "waiter")
    reader, _ = thread(lambda: waiting.fill(None))
    until(lambda: counts(free)["next"] == 1)
    assert reader.is_alive()
    waiting.close()
    reader.join(10)
    ticket.cancel()
    call.join(10)
    assert stream.fill(0)[0]


@pytest.mark.timed
def test_a_call_runs_out_of_time_before_its_turn(make: Make) -> None:
    """It is not made; those behind it have their turns; and the plugin is told what is left at entry."""
    lab = make("lab-serial")
    ticket = CallTicket()
    first, _ = thread(lambda: lab.call("sleep", b'{"ms": 60000}', ticket=ticket))
    until(lambda: asleep(lab))
    late = [thread(lambda: lab.call("sleep", b"{}", timeout=0.05)) for _ in range(3)]
    behind = [thread(lambda: lab.call("sleep", b"{}", timeout=30)) for _ in range(3)]
    for waiting, found in late:
        waiting.join(10)
        assert isinstance(found[0], ferrule.PluginTimeoutError)
        assert "it was not called" in str(found[0])
    assert first.is_alive()
    time.sleep(0.3)
    ticket.cancel()
    for waiting, found in behind:
        waiting.join(10)
        assert 1000 < int(found[0][0]) <= 30_000
        timely(int(found[0][0]) < 29_900)
    assert lab.call("sleep", b"{}", timeout=0.0004)[0] == b"1"
    assert lab.call("sleep", b"{}")[0] == b"-1"


@pytest.mark.parametrize("plugin", ["lab", "lab-serial"])
def test_a_ticket_cancels_its_own_call(make: Make, plugin: str) -> None:
    """Not the one beside it or after it; before the call it is never made, after it nothing happens."""
    lab = make(plugin)
    ticket, other = CallTicket(), CallTicket()
    call, found = thread(lambda: lab.call("sleep", b'{"ms": 60000}', ticket=ticket))
    until(lambda: asleep(lab))
    beside, whole = thread(lambda: lab.call("sleep", b'{"ms": 100}', ticket=other))
    ticket.cancel()
    call.join(10)
    beside.join(10)
    assert isinstance(found[0], ferrule.CancelledError)
    assert "cancelled inside" in str(found[0])
    assert whole[0][0] == b"-1"
    other.cancel()
    assert lab.call("sleep", b'{"ms": 5}')[0] == b"-1"
    for attempt in (lambda: lab.call("sleep", b"{}", ticket=other), lambda: lab.open("pipe", b"{}", ticket=other)):
        with pytest.raises(ferrule.CancelledError, match="it was not called"):
            attempt()


# ---- cancel and close ----------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["pipe", "waiter", "script"])
@pytest.mark.parametrize("side", ["next", "feed"])
def test_close_while_a_side_waits(make: Make, method: str, side: str) -> None:
    """The waiting thread comes back and is told; close is called once, after that, and twice is harmless."""
    lab = make()
    stream = opened(lab, method, next="P", feed="P", room=0)
    if side == "feed" and not stream.takes_feed:
        return
    if side == "next":
        waiting, found = thread(lambda: stream.fill(None))
    else:
        waiting, found = thread(lambda: stream.feed(b"a", final=False, timeout=None))
    time.sleep(0.05)
    closers = [thread(stream.close) for _ in range(3)]
    for closer, _ in closers:
        closer.join(10)
    waiting.join(10)
    assert not waiting.is_alive()
    told = found[0][1] if side == "next" else found[0]
    assert isinstance(told, ferrule.InvalidStateError | ferrule.CancelledError)
    assert counts(lab)["close"] == 1
    assert counts(lab)["cancel"] == 1
    stream.cancel()
    assert counts(lab)["cancel"] == 1
    after = stream.fill(None)[1]
    if isinstance(after, ferrule.CancelledError):  # what feed ended it with, where cancel came while it was asked
        after = stream.fill(None)[1]
    assert isinstance(after, ferrule.InvalidStateError)
    with pytest.raises(ferrule.InvalidStateError, match="closed"):
        stream.feed(b"a", final=False, timeout=None)
    for ask in (stream.position, stream.metadata):
        if stream.has_metadata or ask == stream.position:
            with pytest.raises(ferrule.InvalidStateError, match="closed"):
                ask()
    lab.close()


@settings(max_examples=80, deadline=None)
@given(st.lists(st.sampled_from(["fill", "feed", "final", "cancel", "take", "wake", "position"]), max_size=12))
def test_cancel_at_each_moment(lab_library: Path, steps: list[str]) -> None:
    """Whatever is done before and after it, with wakes and an event loop: no step hangs, what was taken comes out in
    order, and the stream has one end."""
    with ferrule.Host() as host:
        made = host.create(f"{lab_library}:lab")
        assert isinstance(made, NativeInstance)
        lab = made.target
        stream, wakes = opened(lab, "pipe", room=2), NativeWakes()
        stream.watch(wakes)
        fed: list[bytes] = []
        found: list[bytes] = []
        final = cancelled = ended = False
        for i, step in enumerate(steps):
            if step == "fill":
                items, after = filled(stream, 0)
                found += items
                if ended:
                    assert (items, after) == ([], "end")
                elif isinstance(after, Exception):
                    assert isinstance(after, ferrule.CancelledError)
                    assert cancelled
                    ended = True
                else:
                    assert (after == "end") == (final and not cancelled)
                    ended = after == "end"
            elif step in ("feed", "final"):
                block = str(i).encode()
                try:
                    told = stream.feed(block, final=step == "final", timeout=0)
                except ferrule.InvalidStateError:
                    assert final
                except ferrule.CancelledError:
                    assert cancelled
                    assert not ended
                    assert isinstance(stream.fill(0)[1], ferrule.CancelledError)
                    ended = True
                else:
                    assert not final
                    if told == "taken":
                        fed.append(block)
                        final = step == "final"
                    else:
                        assert told == ("end" if ended else "pending")
            elif step == "cancel":
                stream.cancel()
                cancelled = True
            elif step == "take":
                assert set(wakes.take()) <= {stream.id}
            elif step == "wake":
                wake(lab, stream)
                assert wakes.take() == [stream.id]
            else:
                with pytest.raises(ferrule.UnsupportedError):
                    stream.position()
        assert found == fed[: len(found)]
        stream.close()
        wakes.close()


def test_a_reader_that_walks_away(make: Make) -> None:
    """A stream that nobody holds any more is closed, and so is its instance behind it."""
    lab = make()
    stream = opened(lab, next="O")
    assert stream.fill(None)[0]
    assert counts(lab)["close"] == 0
    del stream
    assert counts(lab)["close"] == 1
    lab.close()


@linux
def test_ten_thousand_streams(make: Make) -> None:
    """At once, each woken and read; and opened and dropped again: memory, threads and descriptors stay as they were."""
    lab = make()

    def round_() -> None:
        streams = [opened(lab, next="POE") for _ in range(10_000)]
        wakes = NativeWakes()
        for stream in streams:
            stream.watch(wakes)
            assert stream.fill(0) == ([], "pending")
        for stream in streams:
            wake(lab, stream)
        assert wakes.take() == [stream.id for stream in streams]
        for stream in streams:
            assert read_on(stream) == [b"0"]

    round_()
    before = held()
    for _ in range(3):
        round_()
    after = held()
    assert after[1] <= before[1]  # another test's idle threads may have ended
    assert after[2] == before[2]
    assert after[0] - before[0] < 10 << 20


# ---- signals, fork, exit -------------------------------------------------------------------------


def program(script: str, *arguments: str, timeout: float = 60) -> subprocess.CompletedProcess[str]:
    """A program of its own."""
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), *arguments],
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


INTERRUPTED = """
    import os, signal, sys, threading, time
    import ferrule
    library, method, about, what = sys.argv[1:]
    stream = ferrule.Host().create(library + ":lab").target.open(method, about.encode())
    sent = []

    def interrupt():
        time.sleep(0.3)
        sent.append(time.monotonic())
        os.kill(os.getpid(), signal.SIGINT)

    for _ in range(5):
        try:
            threading.Thread(target=interrupt).start()
            stream.fill(None) if what == "fill" else stream.feed(b"a", final=False, timeout=None)
        except KeyboardInterrupt:
            print(time.monotonic() - sent[-1])
    stream.close()
"""


@pytest.mark.timed
@pytest.mark.parametrize(
    ("method", "about", "what"),
    [
        ("script", '{"next": "P"}', "fill"),
        ("script", '{"next": "P", "flags": 1}', "fill"),
        ("waiter", "{}", "fill"),
        ("pipe", '{"room": 0}', "feed"),
    ],
)
def test_control_c_ends_a_wait(lab_library: Path, method: str, about: str, what: str) -> None:
    """Within a tenth of a second (half of the times on a machine that is busy), whatever it waits for; the stream
    is as it was."""
    done = program(INTERRUPTED, str(lab_library), method, about, what)
    assert done.returncode == 0, done.stderr
    late = sorted(map(float, done.stdout.split()))
    assert len(late) == 5
    timely(late[2] < 0.15, late)


STUCK = """
    import atexit, sys, threading, time

    @atexit.register  # before ferrule's own, so after it
    def last():
        try:
            lab.close() if how == "call" else stream.close()
        except ferrule.PluginTimeoutError as error:
            assert "does not come back" in str(error)
        print("closed", flush=True)

    import ferrule
    library, how = sys.argv[1:]
    host = ferrule.Host()
    lab = host.create(library).target
    stream = None
    if how == "call":
        work = lambda: lab.call("stick", b"{}")
    else:
        stream = lab.open("waiter" if how == "next" else "script", b'{"wait": 3600000, "next": "O", "flags": 0}')
        work = lambda: stream.fill(None)
    threading.Thread(target=work, daemon=True).start()
    time.sleep(0.3)
    print("leaving", flush=True)
"""


@pytest.mark.parametrize("plugin", ["lab", "lab-serial"])
@pytest.mark.parametrize("how", ["call", "next", "script"])
def test_a_stuck_plugin_does_not_hold_the_process_up(lab_library: Path, plugin: str, how: str) -> None:
    """A thread never comes back from a call, or from next, and at the end of the program somebody closes what it is in:
    the program ends."""
    done = program(STUCK, f"{lab_library}:{plugin}", how, timeout=30)
    assert (done.returncode, done.stdout) == (0, "leaving\nclosed\n"), done.stderr


FORKED = """
    import json, os, sys, threading, time
    import ferrule
    from ferrule.native import NativeWakes
    host = ferrule.Host()
    lab = host.create(sys.argv[1] + ":lab").target
    stream, other, wakes = lab.open("pipe", b"{}"), lab.open("pipe", b'{"room": 0}'), NativeWakes()
    stream.watch(wakes)


    def feed():
        try:
            other.feed(b"a", final=False, timeout=None)
        except ferrule.InvalidStateError:
            pass

    for work in (lambda: stream.fill(None), feed):
        threading.Thread(target=work, daemon=True).start()
    while not all(json.loads(lab.call("counts", b"{}")[0])[side] for side in ("next", "feed")):
        time.sleep(0.001)
    time.sleep(0.1)
    if (child := os.fork()) == 0:
        for each in (stream, other):
            each.cancel(); each.watch(wakes); each.watch(None); each.close()
        assert wakes.take() == []
        wakes.close()
        own = ferrule.Host().create(sys.argv[1] + ":lab").target
        mine, loop = own.open("pipe", b"{}"), NativeWakes()
        mine.watch(loop)
        assert mine.fill(0) == ([], "pending")
        mine.feed(b"a", final=True, timeout=0)
        assert loop.take() == [mine.id]
        assert mine.fill(0)[0] == [b"a"]
        assert mine.fill(0) == ([], "end")
        del stream, other, lab
        sys.exit(0)
    assert os.waitpid(child, 0)[1] == 0
    assert stream.feed(b"a", final=True, timeout=0) == "taken"
    assert wakes.take() == [stream.id]
    stream.close(); other.close()
"""


def test_a_child_has_wakes_of_its_own(lab_library: Path) -> None:
    """A fork while both sides sleep: the child leaves them alone and works with its own, and the parent goes on."""
    done = program(FORKED, str(lab_library))
    assert (done.returncode, done.stderr) == (0, "")


def test_signals_that_come_all_the_time_end_no_wait(make: Make) -> None:
    """A timer that goes off each millisecond, with a handler in Python: the timeout is kept all the same."""
    stream = opened(make(), next="P")
    ticks: list[int] = []
    before = signal.signal(signal.SIGALRM, lambda number, _: ticks.append(number))
    signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
    try:
        began = time.monotonic()
        assert isinstance(stream.fill(0.3)[1], ferrule.PluginTimeoutError)
        assert time.monotonic() - began >= 0.3
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert ticks
