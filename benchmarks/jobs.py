"""Measures streams, one thing a process: `python benchmarks/jobs.py CASE` prints one number."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Callable
from statistics import median

from common import BUILT, ITEM, best, scaled

import ferrule
from ferrule import Host, Instance

BLOCK = bytes(64 * 1024)
FED = 64 << 20
GAP_US = 300


def jobs(host: Host) -> Instance:
    return host.create(str(BUILT / "libjobs.so"))


def blocking(method: str) -> float:
    """Nanoseconds an item of a stream of small items, read by a `for`."""
    with Host() as host, jobs(host) as instance:

        def run(count: int) -> float:
            seen = 0
            began = time.perf_counter()
            for _ in instance.open(method, {"count": count, "bytes": ITEM}):
                seen += 1
            took = time.perf_counter() - began
            assert seen == count
            return took / count * 1e9

        return best(run, scaled(1_000_000))


def awaited(method: str) -> float:
    """Nanoseconds an item of a stream of small items, read by an `async for`."""
    with Host() as host, jobs(host) as instance:

        async def read(count: int) -> float:
            seen = 0
            began = time.perf_counter()
            async for _ in await instance.aio.open(method, {"count": count, "bytes": ITEM}):
                seen += 1
            took = time.perf_counter() - began
            assert seen == count
            return took / count * 1e9

        return best(lambda count: asyncio.run(read(count)), scaled(1_000_000))


def latency() -> float:
    """Median nanoseconds from a plugin's thread into an `async for`, on a loop that has nothing else to do."""

    async def read(instance: Instance) -> list[int]:
        stream = await instance.aio.open("stamps", {"count": scaled(2000), "gap_us": GAP_US})
        return [time.monotonic_ns() - int.from_bytes(stamp, sys.byteorder) async for stamp in stream]

    with Host() as host, jobs(host) as instance:
        return median(asyncio.run(read(instance)))


def bare() -> float:
    """The same through a pipe that the loop itself watches: what asyncio and the machine take of it."""

    async def read(instance: Instance) -> list[int]:
        reading, writing = os.pipe()
        os.set_blocking(reading, False)
        loop = asyncio.get_running_loop()
        found: list[int] = []
        ready = loop.create_future()
        loop.add_reader(reading, lambda: ready.done() or ready.set_result(os.read(reading, 8)))
        with instance.open("stamps", {"count": scaled(2000), "gap_us": GAP_US, "fd": writing}):
            while len(found) < scaled(2000):
                stamp = await ready
                found.append(time.monotonic_ns() - int.from_bytes(stamp, sys.byteorder))
                ready = loop.create_future()
        loop.remove_reader(reading)
        os.close(reading)
        os.close(writing)
        return found

    with Host() as host, jobs(host) as instance:
        return median(asyncio.run(read(instance)))


def feed() -> float:
    """Nanoseconds a KiB of feeding 64 MiB in blocks of 64 KiB, until the plugin has taken the last."""
    with Host() as host, jobs(host) as instance:

        def run(size: int) -> float:
            with instance.open("eat") as stream:
                began = time.perf_counter()
                for _ in range(size // len(BLOCK)):
                    stream.feed(BLOCK)
                stream.feed(final=True)
                assert next(stream) == size // len(BLOCK) * len(BLOCK)
                return (time.perf_counter() - began) / (size / 1024) * 1e9

        return best(run, scaled(FED))


def copied() -> float:
    """Nanoseconds a KiB of memcpy in blocks of 64 KiB into 64 MiB that are there already."""
    room = memoryview(bytearray(FED))

    def run(size: int) -> float:
        began = time.perf_counter()
        for at in range(0, size // len(BLOCK) * len(BLOCK), len(BLOCK)):
            room[at : at + len(BLOCK)] = BLOCK
        return (time.perf_counter() - began) / (size / 1024) * 1e9

    return best(run, scaled(FED))


def cancel() -> float:
    """Median nanoseconds from cancel to a stream's end, of a plugin that looks each millisecond."""

    def once(instance: Instance) -> float:
        with instance.open("looks") as stream:
            time.sleep(0.002)
            began = time.perf_counter()
            stream.cancel()
            try:
                next(stream, None)
            except ferrule.CancelledError:
                pass
            return (time.perf_counter() - began) * 1e9

    with Host() as host, jobs(host) as instance:
        return median(once(instance) for _ in range(scaled(200)))


def thousand() -> float:
    """Nanoseconds an item of a thousand streams at once on one event loop, each pushed by a thread of its own."""
    items = scaled(200)

    async def read(instance: Instance) -> int:
        seen = 0
        async for _ in await instance.aio.open("pushed", {"count": items, "bytes": ITEM}):
            seen += 1
        return seen

    async def main(instance: Instance) -> float:
        began = time.perf_counter()
        found = await asyncio.gather(*(read(instance) for _ in range(1000)))
        assert set(found) == {items}
        return (time.perf_counter() - began) / (1000 * items) * 1e9

    with Host() as host, jobs(host) as instance:
        return asyncio.run(main(instance))


CASES: dict[str, Callable[..., float]] = {
    case.__name__: case for case in (blocking, awaited, latency, bare, feed, copied, cancel, thousand)
}

if __name__ == "__main__":
    print(CASES[sys.argv[1]](*sys.argv[2:]))
