"""Streams of plugins that misbehave, and readers who do: by blocking calls and by asyncio alike."""

from __future__ import annotations

import asyncio
import gc
import os
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import ferrule
from ferrule.manifest import Plugin
from ferrule.plugins.instance import NativeInstance, PythonInstance
from tests.process import held
from tests.timely import timely, until

ROOT = Path(__file__).resolve().parents[1]
SUFFIX = {"darwin": ".dylib", "win32": ".dll"}.get(sys.platform, ".so")
PANICS = ROOT / "build" / "plugins" / "faulty" / f"libfaulty_rust{SUFFIX}"

Open = Callable[..., Any]
linux = pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="looks into /proc")
rust = pytest.mark.skipif(not PANICS.exists(), reason="not built: run make plugins (it needs cargo)")


@pytest.fixture
def host() -> Iterator[ferrule.Host]:
    with ferrule.Host() as host:
        yield host


@pytest.fixture
def faulty(host: ferrule.Host, compile_c: Callable[..., Path]) -> Callable[..., ferrule.Instance]:
    """An instance of a plugin of the zoo's."""

    def faulty(name: str, **config: int) -> ferrule.Instance:
        source = (ROOT / "example_plugins" / "faulty" / f"{name}.c").read_text(encoding="utf-8")
        library = compile_c(source, name, "-O2", "-pthread", f"-I{ROOT / 'example_plugins' / 'faulty'}")
        return host.create(str(library), config)

    return faulty


@pytest.fixture(params=["lab", "lab-serial"])
def lab(request: pytest.FixtureRequest, host: ferrule.Host, lab_library: Path) -> ferrule.Instance:
    return host.create(f"{lab_library}:{request.param}")


# ---- plugins that misbehave --------------------------------------------------------------------------


@rust
@pytest.mark.parametrize(
    ("method", "items", "text"),
    [
        ("opened", 0, "open panics"),
        ("streamed", 1, "a stream panics"),
        ("beside", 0, "a thread beside panics"),
        ("written", 0, "an item panics"),
        ("fed", 0, "a block panics"),
    ],
)
def test_a_panic_ends_a_stream(host: ferrule.Host, open_stream: Open, method: str, items: int, text: str) -> None:
    """Wherever it happens, its items come, then PANIC with place and text; the instance is poisoned, and no other."""
    with host.create(f"{PANICS}:panics-in-runner") as other, host.create(f"{PANICS}:panics-in-runner") as instance:
        found: list[Any] = []
        with (
            pytest.raises(ferrule.PanicError, match=rf"lib\.rs:\d+.*{text}|{text}.*lib\.rs:\d+"),
            open_stream(instance, method) as stream,
        ):
            if method == "fed":
                stream.feed(b"x", final=True)
            for item in stream:
                found.append(item)
        assert len(found) == items
        assert instance.poisoned
        assert other.call("fine") is True


@rust
@pytest.mark.timed
@pytest.mark.parametrize("let_go", ["cancel", "close"])
def test_a_stream_whose_thread_hears_nothing(host: ferrule.Host, open_stream: Open, let_go: str) -> None:
    """It ends at once when it is cancelled or closed, and its instance serves the next."""
    with host.create(f"{PANICS}:deaf", {"seconds": 2}) as instance:
        began = time.monotonic()
        stream = open_stream(instance, "deaf")
        with pytest.raises(ferrule.PluginTimeoutError):
            stream.next(timeout=0.02)
        if let_go == "cancel":
            stream.cancel()
            with pytest.raises((StopIteration, ferrule.CancelledError)):
                stream.next()
        stream.close()
        assert instance.call("fine") is True
        timely(time.monotonic() - began < 1)


def test_an_endless_stream_ends_with_its_reader(faulty: Callable[..., ferrule.Instance], open_stream: Open) -> None:
    """Whoever leaves the loop has taken what he took, and may close or not."""
    with faulty("endless") as instance:
        with open_stream(instance, "read_data") as stream:
            for number, record in enumerate(stream):
                assert record == {"id": number}
                if number == 3000:
                    break
        assert list(stream) == []
        for record in open_stream(instance, "read_data"):
            assert record == {"id": 0}
            break


def test_an_end_comes_once(faulty: Callable[..., ferrule.Instance], open_stream: Open) -> None:
    """A plugin that would give more after its end is not asked again."""
    stream = open_stream(faulty("ends_twice"), "read_data")
    assert next(stream) == {"id": 1}
    for _ in range(3):
        with pytest.raises(StopIteration):
            next(stream)


def test_a_broken_buffer_is_not_given_out(faulty: Callable[..., ferrule.Instance], open_stream: Open) -> None:
    """What came before is given, then INTERNAL; the instance is poisoned."""
    instance = faulty("next_breaks_buffer", items=3)
    stream = open_stream(instance, "read_data")
    assert [next(stream)["id"] for _ in range(3)] == [1, 2, 3]
    with pytest.raises(ferrule.InternalError):
        next(stream)
    assert instance.poisoned
    assert list(stream) == []


def test_wakes_without_end(faulty: Callable[..., ferrule.Instance], open_stream: Open) -> None:
    """None of the records is lost, times are kept, and it can be closed before its end."""
    with faulty("wakes_for_ever", every=200) as instance:
        assert list(open_stream(instance, "read_data")) == [{"id": 1}, {"id": 2}]
    with (
        faulty("wakes_for_ever", every=1 << 40) as instance,
        open_stream(instance, "read_data") as stream,
        pytest.raises(ferrule.PluginTimeoutError),
    ):
        stream.next(timeout=0.05)


@pytest.mark.timed
def test_a_storm_of_wakes_leaves_a_loop_to_others(lab: ferrule.Instance) -> None:
    """While a thread wakes a stream that has nothing, the loop's other tasks run, and times are kept."""

    async def main() -> None:
        stream = await lab.aio.open("script", {"next": "P"})
        port: Any = stream.stream.port
        over, beats = threading.Event(), 0

        def storm() -> None:
            while not over.is_set():
                lab.call("wake", {"id": port.id, "times": 100})

        waking = threading.Thread(target=storm)
        waking.start()
        try:
            reading = asyncio.create_task(stream.next(timeout=0.3))
            while not reading.done():
                beats += 1
                await asyncio.sleep(0.001)
            with pytest.raises(ferrule.PluginTimeoutError):
                await reading
        finally:
            over.set()
            waking.join()
        timely(beats > 10, beats)
        await stream.close()

    asyncio.run(main())


@pytest.mark.parametrize("flags", [0, 1, 2, 3])
def test_a_wake_that_never_comes(lab: ferrule.Instance, open_stream: Open, flags: int) -> None:
    """Times are kept, and cancel ends the wait, whatever the stream promised."""
    with open_stream(lab, "script", {"next": "PPPO" if flags < 2 else "P", "flags": flags, "wait": 1}) as stream:
        if flags >= 2:
            with pytest.raises(ferrule.PluginTimeoutError):
                stream.next(timeout=0.05)
            close = stream.close if isinstance(stream, ferrule.Stream) else stream.stream.close
            timer = threading.Timer(0.05, close)
            timer.start()
            with pytest.raises((StopIteration, ferrule.InvalidStateError)):
                stream.next()
            timer.join()


WAKES = """
import asyncio, sys, time, ferrule

async def main(instance):
    for _ in range(5):
        await (await instance.aio.open("read_data")).close()
        assert [item async for item in await instance.aio.open("read_data")] == [{"id": 1}]
        await asyncio.sleep(0.005)

with ferrule.Host() as host:
    for _ in range(2):
        with host.create(sys.argv[1]) as instance:
            asyncio.run(main(instance))
"""


def test_wakes_of_streams_that_are_gone(faulty: Callable[..., ferrule.Instance]) -> None:
    """They reach nobody: those that are opened meanwhile give what is theirs, in this loop and in the next."""
    instance = faulty("wakes_after_close")  # its threads never end, so they have a process of their own
    assert isinstance(instance, NativeInstance)
    program = [sys.executable, "-c", WAKES, str(instance.target.library.shown_as)]
    done = subprocess.run(
        program,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("status", "error", "ends"),
    [
        (1, None, False),
        (2, ferrule.PluginTimeoutError, False),
        (-3, ferrule.InvalidDataError, False),
        (-9, ferrule.UnavailableError, False),
        (-10, ferrule.PluginTimeoutError, False),
        (-13, ferrule.PluginIOError, True),
        (-15, ferrule.PanicError, True),
        (3, ferrule.InternalError, True),
    ],
)
def test_what_feed_may_answer(
    faulty: Callable[..., ferrule.Instance], open_stream: Open, status: int, error: type[Exception] | None, ends: bool
) -> None:
    """END is 'no more', PENDING is waited for; an error is the feeder's, and the reader's too where it ends it all."""
    instance = faulty("feed_status", status=status)
    with open_stream(instance, "read_data") as stream:
        if error is None:
            assert stream.feed(b"x") is False
        else:
            with pytest.raises(error):
                stream.feed(b"x", timeout=0.05)
        if ends:
            with pytest.raises(error or Exception):
                list(stream)
        else:
            assert next(stream) == {"id": 1}
            with pytest.raises(ferrule.PluginTimeoutError):
                stream.next(timeout=0.02)
            stream.cancel()
            with pytest.raises(ferrule.CancelledError):
                next(stream)
            assert stream.feed(b"x") is False


@pytest.mark.parametrize("status", [-13, -3])
def test_metadata_that_fails(faulty: Callable[..., ferrule.Instance], open_stream: Open, status: int) -> None:
    """The item is given, its metadata's error after it; the end comes once."""
    stream, found = open_stream(faulty("metadata_fails", status=status), "read_data"), list[object]()
    for _ in range(10):
        try:
            found.append(next(stream)["id"])
        except ferrule.PluginError as error:
            found.append(error.status)
        except StopIteration:
            break
    assert found == ([1, -13] if status == -13 else [1, -3, 2, -3, -3])


# ---- a host that closes, and readers that walk away -----------------------------------------------------


@pytest.mark.parametrize("close", ["stream", "instance"])
def test_closing_while_a_feed_is_under_way(faulty: Callable[..., ferrule.Instance], close: str) -> None:
    """It waits until feed has returned; the feeder is answered, the reader is let go, and the plugin does not abort."""
    instance = faulty("feed_slow", ms=300)
    stream = instance.open("read_data")
    found: list[object] = []

    def feed() -> None:
        try:
            while stream.feed(b"x"):
                pass
            found.append("no more")
        except ferrule.InvalidStateError:
            found.append("closed")

    def read() -> None:
        try:
            found.extend(stream)
        except ferrule.PluginError as error:
            found.append(type(error))

    threads = [threading.Thread(target=feed), threading.Thread(target=read)]
    for thread in threads:
        thread.start()
    time.sleep(0.1)
    (stream if close == "stream" else instance).close()
    for thread in threads:
        thread.join(10)
        assert not thread.is_alive()
    assert "closed" in found


@pytest.mark.parametrize("close", ["stream", "instance"])
def test_closing_while_another_thread_closes(
    faulty: Callable[..., ferrule.Instance], open_stream: Open, close: str
) -> None:
    """Whoever closes it too comes back when the plugin is done with it: the instance can be given back."""
    instance = faulty("close_slow", ms=300)
    stream = open_stream(instance, "read_data")
    closing = threading.Thread(target=stream.close if isinstance(stream, ferrule.Stream) else stream.stream.close)
    closing.start()
    until(lambda: stream.closed)
    if close == "stream":
        stream.close()
    instance.close()
    closing.join()


def test_closing_while_another_thread_drops(faulty: Callable[..., ferrule.Instance]) -> None:
    """A stream that nobody holds any more, and that another thread is giving back, is waited for."""
    instance = faulty("close_slow", ms=300)
    held_by = [instance.open("read_data")]
    gone = weakref.ref(held_by[0])
    dropping = threading.Thread(target=held_by.clear)
    dropping.start()
    while gone() is not None:
        time.sleep(0.001)
    instance.close()
    dropping.join()


def test_closing_while_another_thread_opens(lab: ferrule.Instance) -> None:
    """Every stream is closed, of those that were open and of those that are opened meanwhile; then none is opened."""
    streams = [lab.open("pipe") for _ in range(3000)]
    opened = threading.Event()

    def open_more() -> None:
        with pytest.raises(ferrule.InvalidStateError, match="the instance is closed"):
            while True:
                streams.append(lab.open("pipe"))
                opened.set()

    opening = threading.Thread(target=open_more)
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        opening.start()
        opened.wait()
        lab.close()
    finally:
        sys.setswitchinterval(before)
        opening.join()
    for stream in streams:
        assert isinstance(stream.port.fill(0)[1], ferrule.InvalidStateError)


def test_a_loop_feeds_while_the_stream_is_closed(lab: ferrule.Instance) -> None:
    """A task that waits for room is told when another closes the stream; so is one that reads."""

    async def main() -> None:
        for close in ("stream", "instance"):
            fed = await lab.aio.open("pipe", {"room": 0})
            read = await lab.aio.open("pipe", {"room": 0})
            feeding, reading = asyncio.create_task(fed.feed(b"x")), asyncio.create_task(read.next())
            await asyncio.sleep(0.02)
            if close == "stream":
                await fed.close()
                await read.close()
            else:
                await asyncio.to_thread(lab.close)
            with pytest.raises(ferrule.InvalidStateError):
                await asyncio.wait_for(feeding, 5)
            with pytest.raises((StopAsyncIteration, ferrule.InvalidStateError)):
                await asyncio.wait_for(reading, 5)

    asyncio.run(main())


def test_one_task_reads_and_one_feeds(lab: ferrule.Instance) -> None:
    """A second one is refused, and the first is still served."""

    async def main() -> None:
        async with await lab.aio.open("pipe", {"room": 1}) as stream:
            reading = [asyncio.create_task(stream.next()) for _ in range(2)]
            await asyncio.sleep(0.01)
            with pytest.raises(ferrule.InvalidStateError, match="another task is reading"):
                await reading[1]
            await stream.feed(b"1")
            assert await asyncio.wait_for(reading[0], 5) == 1
            await stream.feed(b"2")
            feeding = [asyncio.create_task(stream.feed(block)) for block in (b"3", b"4")]
            await asyncio.sleep(0.01)
            with pytest.raises(ferrule.InvalidStateError, match="another task is feeding"):
                await feeding[1]
            assert [await stream.next(), await stream.next()] == [2, 3]
            assert await asyncio.wait_for(feeding[0], 5)

    asyncio.run(main())


@pytest.mark.timed
def test_the_end_of_a_stream_leaves_its_loop_to_others(host: ferrule.Host, lab_library: Path) -> None:
    """Where a stream waits for its serial instance, its end and its closing wait on a thread, not in the loop."""

    async def main() -> None:
        with host.create(f"{lab_library}:lab-serial") as lab:
            stream = await lab.aio.open("script", {"next": "OE", "flags": 1})
            assert await stream.next() == 0
            calling = threading.Thread(target=lambda: lab.call("sleep", {"ms": 600}))
            calling.start()
            await asyncio.sleep(0.05)
            ending, longest = asyncio.create_task(stream.next()), 0.0
            while not ending.done():
                began = time.monotonic()
                await asyncio.sleep(0.005)
                longest = max(longest, time.monotonic() - began)
            with pytest.raises(StopAsyncIteration):
                await ending
            calling.join()
            timely(longest < 0.3, longest)

    asyncio.run(main())


def test_a_feeder_outlives_no_reader(host: ferrule.Host, my_runner: Path) -> None:
    """Blocks that nobody reads any more keep neither the stream nor the thread that feeds it."""
    with host.create(str(my_runner)) as instance:
        stream = instance.open("echo")
        stream.feed_from(bytes(60_000) for _ in range(1_000_000))
        assert next(stream)
        gone = weakref.ref(stream)
        del stream
        until(lambda: gc.collect() >= 0 and gone() is None)
        until(lambda: not any("ferrule-feed" in thread.name for thread in threading.enumerate()))


def test_what_feed_from_raises_is_the_readers(host: ferrule.Host, my_runner: Path) -> None:
    """A source of blocks that fails ends the stream, and whoever reads it is told why, once."""

    def blocks() -> Iterator[bytes]:
        yield b"one"
        raise OSError("the microphone is gone")

    with host.create(str(my_runner)) as instance:
        stream = instance.open("echo")
        stream.feed_from(blocks())
        with pytest.raises(OSError, match="the microphone is gone"):
            list(stream)
        assert list(stream) == []
        stream = instance.open("echo")
        stream.feed_from([b"one", object()])
        with pytest.raises(ferrule.InvalidDataError, match="expected bytes"):
            list(stream)


def test_a_feeder_learns_of_the_end_as_of_no_more(host: ferrule.Host, my_runner: Path, open_stream: Open) -> None:
    """Whoever feeds a stream that its reader has read to its end is told that no more is wanted: he did no wrong."""
    with host.create(str(my_runner)) as instance:
        stream = open_stream(instance, "echo")
        stream.cancel()
        with pytest.raises((StopIteration, ferrule.CancelledError)):
            next(stream)
        assert stream.feed(b"x") is False
        stream = open_stream(instance, "echo")
        stream.close()
        with pytest.raises(ferrule.InvalidStateError, match="closed"):
            stream.feed(b"x")


class Slow:
    """A source in Python that takes its time."""

    asked, goes_on = threading.Event(), threading.Event()

    def read_data(self) -> Iterator[dict[str, int]]:
        for number in range(3):
            self.asked.set()
            self.goes_on.wait()
            yield {"id": number}


def test_a_python_stream_is_closed_while_it_is_read() -> None:
    """Closing waits for the item under way; a second reader is refused."""

    async def main() -> None:
        plugin = Plugin.model_validate(
            {"name": "slow", "kind": "source", "methods": [{"name": "read_data", "mode": "stream"}]}
        )
        instance = PythonInstance(plugin, Slow, {})
        stream = await instance.aio.open("read_data")
        reading = asyncio.create_task(stream.next())
        await asyncio.to_thread(Slow.asked.wait)
        with pytest.raises(ferrule.InvalidStateError, match="another thread is reading"):
            await stream.next()
        reading.cancel()
        closing = asyncio.create_task(stream.close())
        await asyncio.sleep(0.1)
        assert not closing.done()
        Slow.goes_on.set()
        await closing
        assert stream.closed

    asyncio.run(main())


class Leaves:
    """A source in Python whose iterator takes its time to end."""

    over = 0

    def read_data(self) -> Iterator[dict[str, int]]:
        try:
            yield {"id": 1}
        finally:
            time.sleep(0.3)
            Leaves.over += 1


def test_a_python_stream_is_closed_while_another_thread_closes(host: ferrule.Host) -> None:
    """Whoever closes it too comes back when its iterator is over, which ends once."""
    source = host.source(f"python:{__name__}:Leaves")
    stream = source.read()
    assert next(stream) == {"id": 1}
    closing = threading.Thread(target=stream.close)
    closing.start()
    until(lambda: stream.closed)
    stream.close()
    assert Leaves.over == 1
    closing.join()
    assert Leaves.over == 1


HOW = pytest.mark.parametrize("how", ["closed", "dropped", "read a little"])


@linux
@HOW
def test_ten_thousand_streams(lab: ferrule.Instance, how: str) -> None:
    """Opened, and closed, dropped or left half read: memory, threads and descriptors stay as they were."""

    def rounds(count: int) -> None:
        for _ in range(count):
            stream = lab.open("script", {"next": "OOOOP"})
            if how == "read a little":
                assert next(stream) == 0
            if how == "closed":
                stream.close()

    rounds(2_000)
    before = held()
    rounds(8_000)
    check_flat(before, lab)


@linux
@HOW
def test_ten_thousand_streams_of_one_loop(lab: ferrule.Instance, how: str) -> None:
    """The same, awaited."""

    async def rounds(count: int) -> None:
        for _ in range(count):
            stream = await lab.aio.open("script", {"next": "OOOOP"})
            if how == "read a little":
                assert await stream.next() == 0
            if how == "closed":
                await stream.close()

    async def main() -> None:
        await rounds(2_000)
        before = held()
        await rounds(8_000)
        await asyncio.sleep(0)  # what the loop has just handled holds the last one
        check_flat(before, lab)

    asyncio.run(main())


def check_flat(before: tuple[int, int, int], lab: ferrule.Instance) -> None:
    after = held()
    assert after[1] <= before[1]
    assert after[2] == before[2]
    assert after[0] - before[0] < 4 << 20
    # A call's thread may hold the last one for a moment.
    until(lambda: gc.collect() >= 0 and bool(lab.call("counts")["close"] == 10_000))
