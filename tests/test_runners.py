"""JobWorkerP's scenarios JW-1, JW-2 and JW-3: jobs that answer in chunks, take input while they run, and are cancelled.

Each through the Rust and the C twin of ``my-runner``, by blocking calls and by asyncio.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

import ferrule
from tests.timely import timely

GAP_MS = (80, 200)


@pytest.fixture
def host() -> Iterator[ferrule.Host]:
    with ferrule.Host() as host:
        yield host


@pytest.fixture
def runner(host: ferrule.Host, my_runner: Path) -> Iterator[ferrule.Instance]:
    with host.create(str(my_runner)) as instance:
        yield instance


def check_chunks(texts: list[str], stamps: list[int], received_ns: list[int]) -> None:
    """What JW-1 asks of a stream's five chunks."""
    assert texts == [f"Stream chunk {number} for x" for number in range(5)]
    gaps = [(after - before) / 1e6 for before, after in pairwise(stamps)]
    assert all(GAP_MS[0] <= gap for gap in gaps), gaps
    timely(all(gap <= GAP_MS[1] for gap in gaps), gaps)
    timely(received_ns[0] < stamps[4], "chunk 0 came after chunk 4 was made")


# ---- JW-1 ------------------------------------------------------------------------------------------


@pytest.mark.timed
def test_jw_1_blocking(runner: ferrule.Instance) -> None:
    """``run`` answers once; opened, it gives five chunks about 100 ms apart, each as it is made, and one end."""
    assert runner.call("run", {"input_data": "x"}) == "Processed: x"
    texts, stamps, received = [], [], []
    with runner.open("run", {"input_data": "x"}) as stream:
        for text in stream:
            received.append(time.monotonic_ns())
            texts.append(text)
            stamps.append(stream.metadata["monotonic_ns"])
        assert stream.closed
        with pytest.raises(StopIteration):
            next(stream)
    check_chunks(texts, stamps, received)


@pytest.mark.timed
def test_jw_1_asyncio(runner: ferrule.Instance) -> None:
    """The same, awaited."""

    async def main() -> None:
        assert await runner.aio.call("run", {"input_data": "x"}) == "Processed: x"
        texts, stamps, received = [], [], []
        async with await runner.aio.open("run", {"input_data": "x"}) as stream:
            async for text in stream:
                received.append(time.monotonic_ns())
                texts.append(text)
                stamps.append(stream.metadata["monotonic_ns"])
            with pytest.raises(StopAsyncIteration):
                await stream.next()
        check_chunks(texts, stamps, received)

    asyncio.run(main())


# ---- JW-2 ------------------------------------------------------------------------------------------

SENT = [b"a greeting", b"audio chunk 1", b"audio chunk 2"]


def test_jw_2_blocking(runner: ferrule.Instance) -> None:
    """What was fed before the first read is kept; an empty final ends it once; feeding after that is refused."""
    with runner.open("echo") as stream:
        assert stream.feed(SENT[0])
        assert next(stream) == SENT[0]
        assert stream.feed(SENT[1])
        assert stream.feed(SENT[2])
        assert stream.feed(final=True)
        with pytest.raises(ferrule.InvalidStateError):
            stream.feed(b"too late")
        assert list(stream) == SENT[1:]
        assert stream.closed


def test_jw_2_asyncio(runner: ferrule.Instance) -> None:
    """The same, awaited; and the last block may be final itself."""

    async def main() -> None:
        async with await runner.aio.open("echo") as stream:
            assert await stream.feed(SENT[0])
            assert await stream.next() == SENT[0]
            assert await stream.feed(SENT[1])
            assert await stream.feed(SENT[2], final=True)
            with pytest.raises(ferrule.InvalidStateError):
                await stream.feed(b"too late")
            assert [item async for item in stream] == SENT[1:]

    asyncio.run(main())


def test_a_fed_stream_that_is_read_while_it_is_fed(runner: ferrule.Instance) -> None:
    """Far more than any buffer holds goes through: a slow reader stops whoever feeds, and nothing is lost."""
    blocks = [bytes([number % 256]) * 64_000 for number in range(200)]
    with runner.open("echo") as stream:
        stream.feed_from(blocks)
        assert b"".join(stream) == b"".join(blocks)

    async def main() -> None:
        async with await runner.aio.open("echo") as stream:

            async def feed() -> None:
                for block in blocks:
                    await stream.feed(block)
                await stream.feed(final=True)

            feeding = asyncio.create_task(feed())
            assert b"".join([item async for item in stream]) == b"".join(blocks)
            await feeding

    asyncio.run(main())


def test_a_feed_without_room_waits_as_long_as_it_may(runner: ferrule.Instance) -> None:
    """When nobody reads, feeding ends with a timeout; what was taken until then comes out, and only that."""
    with runner.open("echo") as stream:
        taken = 0
        with pytest.raises(ferrule.PluginTimeoutError):
            while True:
                stream.feed(bytes(64_000), timeout=0.2)
                taken += 1
        assert taken >= 4
        stream.feed_from([])
        assert sum(map(len, stream)) == taken * 64_000


# ---- JW-3 ------------------------------------------------------------------------------------------


@pytest.mark.timed
def test_jw_3_a_run_that_is_cancelled(runner: ferrule.Instance) -> None:
    """Five seconds of work, cancelled, end in under one: by a deadline, and with the task that awaits it."""
    began = time.monotonic()
    with pytest.raises(ferrule.PluginTimeoutError):
        runner.call("run", {"input_data": "x", "work_ms": 5000}, timeout=0.2)
    timely(time.monotonic() - began < 1)

    async def main() -> None:
        task = asyncio.create_task(runner.aio.call("run", {"input_data": "x", "work_ms": 5000}))
        await asyncio.sleep(0.2)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    began = time.monotonic()
    asyncio.run(main())
    assert runner.call("run", {"input_data": "y"}) == "Processed: y"
    timely(time.monotonic() - began < 1)


@pytest.mark.timed
def test_jw_3_a_stream_that_is_cancelled(runner: ferrule.Instance) -> None:
    """Fifty chunks of 100 ms, cancelled after the second, end in under 1.5 s: with one end, or with CANCELLED."""
    began = time.monotonic()
    with runner.open("run", {"input_data": "x", "chunks": 50}) as stream:
        received = [next(stream), next(stream)]
        assert stream.cancel()
        try:
            received += stream
        except ferrule.CancelledError:
            pass
    timely(len(received) <= 4, received)
    timely(time.monotonic() - began < 1.5)

    async def main() -> None:
        stream = await runner.aio.open("run", {"input_data": "x", "chunks": 50, "interval_ms": 60_000})
        async with stream:
            assert await stream.next() == "Stream chunk 0 for x"
            reading = asyncio.create_task(stream.next())
            await asyncio.sleep(0.01)
            reading.cancel()
            with pytest.raises(asyncio.CancelledError):
                await reading
            assert stream.cancelled

    began = time.monotonic()
    asyncio.run(main())
    timely(time.monotonic() - began < 1.5)


def test_jw_3_a_timed_out_static_worker_serves_the_next_job(host: ferrule.Host, my_runner: Path) -> None:
    """A pooled instance whose job ran out of time is reset, and the same one does the next job."""
    with host.pool(str(my_runner), size=1, reset=True) as pool:
        with pool.lease() as runner:
            first = runner
            assert runner.call("run", {"input_data": "a"}) == "Processed: a"
            with pytest.raises(ferrule.PluginTimeoutError):
                runner.call("run", {"input_data": "b", "work_ms": 5000}, timeout=0.1)
        with pool.lease() as runner:
            assert runner is first
            assert runner.call("count") == 0
            assert runner.call("run", {"input_data": "c"}) == "Processed: c"

    async def main() -> None:
        with host.pool(str(my_runner), size=1, reset=True) as pool:
            async with pool.lease() as runner:
                with pytest.raises(ferrule.PluginTimeoutError):
                    await runner.aio.call("run", {"input_data": "b", "work_ms": 5000}, timeout=0.1)
            async with pool.lease() as runner:
                assert await runner.aio.call("run", {"input_data": "c"}) == "Processed: c"

    asyncio.run(main())


@pytest.mark.timed
def test_a_stream_has_a_time_of_its_own(runner: ferrule.Instance) -> None:
    """A stream that is opened with a timeout is cancelled when that is over, and its reader is told."""
    began = time.monotonic()
    with pytest.raises(ferrule.PluginTimeoutError) as raised:
        list(runner.open("run", {"input_data": "x", "chunks": 50}, timeout=0.25))
    timely("not at its end after 0.25 s" in str(raised.value), raised.value)  # else it was over as it was opened
    timely(time.monotonic() - began < 1.5)

    async def main() -> None:
        stream = await runner.aio.open("run", {"input_data": "x", "chunks": 50}, timeout=0.25)
        with pytest.raises(ferrule.PluginTimeoutError, match=r"not at its end after 0\.25 s"):
            async for _ in stream:
                pass

    asyncio.run(main())


def test_an_item_that_does_not_come_in_time_is_no_end(runner: ferrule.Instance) -> None:
    """``next(timeout=…)`` raises, and the stream goes on where it was."""
    with runner.open("echo") as stream:
        stream.feed(b"0")
        assert next(stream) == b"0"
        with pytest.raises(ferrule.PluginTimeoutError, match=r"in time|nothing came"):
            stream.next(timeout=0.05)
        stream.feed(b"1", final=True)
        assert list(stream) == [b"1"]


def test_no_time_to_wait_is_no_end(runner: ferrule.Instance) -> None:
    """With ``timeout=0``, next and feed raise at once where nothing or no room is there, and the stream goes on."""
    with runner.open("echo") as stream:
        with pytest.raises(ferrule.PluginTimeoutError):
            stream.next(timeout=0)
        with pytest.raises(ferrule.PluginTimeoutError):
            while True:
                assert stream.feed(bytes(64_000), timeout=0)
        assert stream.next(timeout=5) == bytes(64_000)

    async def main() -> None:
        async with await runner.aio.open("echo") as stream:
            with pytest.raises(ferrule.PluginTimeoutError):
                await stream.next(timeout=0)
            with pytest.raises(ferrule.PluginTimeoutError):
                while True:
                    assert await stream.feed(bytes(64_000), timeout=0)
            assert await stream.next(timeout=5) == bytes(64_000)

    asyncio.run(main())


@pytest.mark.timed
def test_a_thread_may_cancel_what_another_reads(runner: ferrule.Instance) -> None:
    """A reader that waits for the next chunk comes back when another thread cancels."""
    with runner.open("run", {"input_data": "x", "chunks": 2, "interval_ms": 60_000}) as stream:
        next(stream)
        timer = threading.Timer(0.1, stream.cancel)
        timer.start()
        began = time.monotonic()
        with pytest.raises((StopIteration, ferrule.CancelledError)):
            next(stream)
        timer.join()
        timely(time.monotonic() - began < 1)


@pytest.mark.timed
def test_an_idle_stream_costs_nothing_and_delays_nobody(runner: ferrule.Instance) -> None:
    """While a reader waits for a chunk that does not come, calls of the instance go on, and no CPU is used."""
    with runner.open("run", {"input_data": "x", "chunks": 2, "interval_ms": 60_000}) as stream:
        next(stream)

        def wait() -> None:
            with contextlib.suppress(ferrule.CancelledError):
                next(stream, None)

        waiting = threading.Thread(target=wait)
        waiting.start()
        time.sleep(0.1)
        began = time.monotonic()
        assert runner.call("run", {"input_data": "y"}) == "Processed: y"
        timely(time.monotonic() - began < 0.2)
        before = time.process_time()
        time.sleep(1)
        timely(time.process_time() - before < 0.02)
        stream.cancel()
        waiting.join()


def test_many_streams_at_once_on_one_loop(runner: ferrule.Instance) -> None:
    """A thousand streams are read by as many tasks of one event loop, each to its own end."""

    async def read(number: int) -> list[str]:
        arguments = {"input_data": str(number), "chunks": 3, "interval_ms": 50}
        async with await runner.aio.open("run", arguments) as stream:
            return [text async for text in stream]

    async def main() -> None:
        found = await asyncio.gather(*(read(number) for number in range(1000)))
        assert found == [[f"Stream chunk {chunk} for {n}" for chunk in range(3)] for n in range(1000)]

    asyncio.run(main())
