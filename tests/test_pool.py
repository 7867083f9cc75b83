"""Pools: leases of real instances, their order, their reset, and what becomes of a broken one."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import ferrule
from ferrule.manifest import Plugin
from ferrule.plugins.instance import PythonInstance
from ferrule.plugins.pool import Lease, Pool
from tests.timely import timely, until


@pytest.fixture
def host() -> Iterator[ferrule.Host]:
    with ferrule.Host() as host:
        yield host


@pytest.fixture
def jobs(jobs_library: Path) -> str:
    return f"{jobs_library}:jobs"


@pytest.fixture
def serial(jobs_library: Path) -> str:
    return f"{jobs_library}:jobs-serial"


def number(lease: Lease) -> int:
    with lease as instance:
        return int(instance.call("sleep"))


def test_an_instance_is_made_once_and_used_again(host: ferrule.Host, serial: str) -> None:
    """Leases one after another share one instance, so what is dear to load is loaded once."""
    with host.pool(serial, size=3) as pool:
        assert len({number(pool.lease()) for _ in range(10)}) == 1


def test_leases_of_a_serial_plugin_have_an_instance_each(host: ferrule.Host, serial: str) -> None:
    """Two leases at a time are two instances, and no third is made when one of them is free again."""
    with host.pool(serial, size=2) as pool:
        with pool.lease() as one, pool.lease() as two:
            assert one is not two
            numbers = {one.call("sleep"), two.call("sleep")}
        assert {number(pool.lease()) for _ in range(4)} <= numbers


def test_leases_of_a_concurrent_plugin_share_one_instance(host: ferrule.Host, jobs: str) -> None:
    """A plugin whose calls may overlap is loaded once for all leases."""
    with host.pool(jobs, size=2) as pool, pool.lease() as one, pool.lease() as two:
        assert one is two


def test_a_concurrent_plugin_that_is_reset_is_not_shared(host: ferrule.Host, jobs: str) -> None:
    """A reset under somebody else's call would take its state away: then each lease has an instance of its own."""
    with host.pool(jobs, size=2, reset=True) as pool, pool.lease() as one, pool.lease() as two:
        assert one is not two


def test_a_lease_sees_nothing_of_the_one_before(host: ferrule.Host, serial: str) -> None:
    """With reset=True the same instance comes back without the first lease's state; without, with it."""
    for reset, expected in ((True, 0), (False, 1)):
        with host.pool(serial, size=1, reset=reset) as pool:
            number(pool.lease())
            with pool.lease() as instance:
                assert instance.call("count") == expected


def test_an_instance_whose_reset_fails_is_replaced(host: ferrule.Host, serial: str) -> None:
    """The next lease gets a new instance, and the failing reset is nobody's error."""
    with host.pool(serial, {"bad_reset": True}, size=1, reset=True) as pool:
        first = number(pool.lease())
        assert number(pool.lease()) != first


@pytest.mark.parametrize("plugin", ["jobs", "jobs-serial"])
def test_a_poisoned_instance_is_replaced(host: ferrule.Host, jobs_library: Path, plugin: str) -> None:
    """A fault costs one instance, shared or not; the pool goes on with another."""
    with host.pool(f"{jobs_library}:{plugin}", size=2) as pool:
        first = number(pool.lease())
        with pytest.raises(ferrule.InternalError), pool.lease() as instance:
            instance.call("poison")
        assert number(pool.lease()) != first


def test_no_more_leases_than_its_size(host: ferrule.Host, serial: str) -> None:
    """A third lease of two waits as long as it is told to, and says what it waited for."""
    with (
        host.pool(serial, size=2) as pool,
        pool.lease(),
        pool.lease(),
        pytest.raises(ferrule.PluginTimeoutError, match=r"all 2 of the pool were leased for 0\.05 s"),
        pool.lease(timeout=0.05),
    ):
        pass


def test_whoever_came_first_is_served_first(host: ferrule.Host, serial: str) -> None:
    """Leases are granted in the order in which they were asked for, whatever the threads' speed."""
    order: list[int] = []
    with host.pool(serial, size=1) as pool:

        def work(index: int) -> None:
            with pool.lease():
                order.append(index)

        threads = [threading.Thread(target=work, args=(index,)) for index in range(8)]
        with pool.lease():
            for waiting, thread in enumerate(threads, 1):
                thread.start()
                while len(pool._waiting) < waiting:
                    time.sleep(0.001)
        for thread in threads:
            thread.join()
    assert order == list(range(8))


def test_one_who_gives_up_leaves_the_turn_to_the_next(host: ferrule.Host, serial: str) -> None:
    """After timeouts and cancelled tasks all leases are there again."""

    async def impatient(pool: Pool) -> None:
        async with pool.lease():
            await asyncio.sleep(0.001)

    async def main() -> None:
        with host.pool(serial, size=2) as pool:
            for _ in range(20):
                tasks = [asyncio.create_task(impatient(pool)) for _ in range(10)]
                await asyncio.sleep(0.002)
                for task in tasks[::2]:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
            async with pool.lease(timeout=5), pool.lease(timeout=5):
                pass

    asyncio.run(main())


@pytest.mark.timed
def test_awaited_leases_do_not_block_the_loop(host: ferrule.Host, serial: str) -> None:
    """While tasks wait for a lease, others run; each gets its own in turn."""

    async def main() -> None:
        with host.pool(serial, size=1, reset=True) as pool:
            beats = 0

            async def beat() -> None:
                nonlocal beats
                while True:
                    beats += 1
                    await asyncio.sleep(0.001)

            async def work() -> int:
                async with pool.lease() as instance:
                    return int(await instance.aio.call("sleep", {"ms": 20}))

            beating = asyncio.create_task(beat())
            assert len(set(await asyncio.gather(*(work() for _ in range(4))))) == 1
            beating.cancel()
            timely(beats > 20, beats)

    asyncio.run(main())


def test_closing_waits_for_leases(host: ferrule.Host, serial: str) -> None:
    """close() comes back when the last lease has ended; those who wait for one learn that the pool is closed."""
    pool = host.pool(serial, size=1)
    leased, outcome = threading.Event(), []

    def hold() -> None:
        with pool.lease() as instance:
            leased.set()
            until(lambda: pool.closed)
            instance.call("sleep", {"ms": 100})
        outcome.append("done")

    def wait() -> None:
        try:
            number(pool.lease())
        except ferrule.InvalidStateError as error:
            outcome.append(str(error))

    threads = [threading.Thread(target=hold), threading.Thread(target=wait)]
    threads[0].start()
    leased.wait()
    threads[1].start()
    while not pool._waiting:
        time.sleep(0.001)
    pool.close()
    for thread in threads:
        thread.join()
    assert sorted(outcome) == ["done", "the pool is closed (plugin 'jobs-serial')"]
    with pytest.raises(ferrule.InvalidStateError, match="closed"):
        number(pool.lease())


def test_a_pool_says_what_it_needs(host: ferrule.Host, jobs_library: Path) -> None:
    """No size of 0, and no reset of a plugin that has none."""
    with pytest.raises(ValueError, match="size: expected at least 1, got 0"):
        host.pool(f"{jobs_library}:jobs", size=0)
    with pytest.raises(ferrule.UnsupportedError, match="needs a plugin with a method 'reset'"):
        host.pool(f"{jobs_library}:jobs-one", reset=True)


def test_a_plugin_that_cannot_be_made_costs_no_turn(host: ferrule.Host, serial: str) -> None:
    """A lease whose instance cannot be made raises, again and again, and never eats a place of the pool."""
    with host.pool(serial, {"bad_reset": "yes"}, size=1) as pool:
        for _ in range(3):
            with pytest.raises(ferrule.InvalidConfigError):
                number(pool.lease(timeout=1))


def test_a_lease_that_is_free_needs_no_time(host: ferrule.Host, serial: str) -> None:
    """With a timeout of 0 a lease that nobody has is given, to threads and to tasks; one that somebody has is not."""

    async def main() -> None:
        with host.pool(serial, size=1) as pool:
            async with pool.lease(timeout=0):
                with pytest.raises(ferrule.PluginTimeoutError):
                    async with pool.lease(timeout=0):
                        pass
            with pool.lease(timeout=0):
                pass

    asyncio.run(main())


def test_a_pool_is_closed_while_tasks_wait(host: ferrule.Host, serial: str) -> None:
    """A task that closes it does not wait for those of its own loop that have no lease yet; they are told."""

    async def main() -> None:
        pool, leased = host.pool(serial, size=1), threading.Event()

        def hold() -> None:
            with pool.lease() as instance:
                leased.set()
                until(lambda: pool.closed)
                instance.call("sleep", {"ms": 100})

        holding = threading.Thread(target=hold)
        holding.start()
        leased.wait()
        waiting = [asyncio.create_task(pool.lease().__aenter__()) for _ in range(3)]
        await asyncio.sleep(0.01)
        pool.close(timeout=5)
        assert pool._leased == 0
        for task in waiting:
            with pytest.raises(ferrule.InvalidStateError, match="closed"):
                await task
        holding.join()

    asyncio.run(main())


class Slow:
    """A plugin that takes its time to be made, and whose reset can be interrupted."""

    interrupted = False
    goes_on = threading.Event()

    def __init__(self) -> None:
        Slow.goes_on.wait()

    def process(self, record: object) -> object:
        return record

    def reset(self) -> None:
        if Slow.interrupted:
            raise KeyboardInterrupt


def slow_pool() -> Pool:
    plugin = Plugin.model_validate(
        {
            "name": "slow",
            "kind": "function",
            "language": "python",
            "methods": [{"name": "process", "mode": "unary"}, {"name": "reset", "mode": "unary"}],
        }
    )
    return Pool(plugin, lambda: PythonInstance(plugin, Slow, {}), size=1, reset=True)


def test_a_loop_that_ends_while_an_instance_is_made(host: ferrule.Host) -> None:
    """The lease that nobody waits for any more comes back, although its loop is gone."""

    async def main(pool: Pool) -> None:
        task = asyncio.create_task(pool.lease().__aenter__())
        await asyncio.sleep(0.05)
        assert not task.done()

    Slow.goes_on.clear()
    with slow_pool() as pool:
        asyncio.run(main(pool))
        Slow.goes_on.set()
        with pool.lease(timeout=5):
            pass


def test_a_reset_that_is_interrupted_costs_no_turn() -> None:
    """Ctrl-C during a reset is the caller's, and the pool makes another instance for the next one."""
    Slow.goes_on.set()
    with slow_pool() as pool:
        Slow.interrupted = True
        try:
            with pytest.raises(KeyboardInterrupt), pool.lease() as first:
                pass
        finally:
            Slow.interrupted = False
        with pool.lease(timeout=5) as second:
            assert second is not first


def test_a_shared_instance_that_is_poisoned_is_leased_to_nobody_else(host: ferrule.Host, jobs: str) -> None:
    """Who has it still has it; the next lease gets a good one."""
    with host.pool(jobs, size=3) as pool, pool.lease() as first, pool.lease() as same:
        assert first is same
        with pytest.raises(ferrule.InternalError):
            first.call("poison")
        with pool.lease() as other:
            assert other is not first
            assert other.call("sleep") > 0


def test_leases_that_outlive_their_pool_are_closed_as_they_come_back(host: ferrule.Host, jobs_library: Path) -> None:
    """A pool that is closed without waiting takes nothing away from those who have it, shared or not."""
    for plugin in ("jobs", "jobs-serial"):
        pool = host.pool(f"{jobs_library}:{plugin}", size=2)
        with pool.lease() as instance:
            pool.close(timeout=0)
            assert instance.call("sleep") > 0
        with pytest.raises(ferrule.InvalidStateError):
            instance.call("sleep")
