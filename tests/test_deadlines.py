"""Deadlines and cancelled calls in this process: requests, and reports of who does not heed them."""

from __future__ import annotations

import asyncio
import gc
import logging
import subprocess
import sys
import textwrap
import threading
import time
import weakref
from collections.abc import Iterator
from pathlib import Path

import pytest

import ferrule
from ferrule.plugins.deadlines import GRACE
from tests.timely import timely, until


@pytest.fixture
def host() -> Iterator[ferrule.Host]:
    with ferrule.Host() as host:
        yield host


@pytest.fixture(params=["jobs", "jobs-serial"])
def jobs(request: pytest.FixtureRequest, jobs_library: Path) -> str:
    return f"{jobs_library}:{request.param}"


@pytest.mark.timed
def test_a_call_is_asked_to_stop_when_its_time_is_over(host: ferrule.Host, jobs: str) -> None:
    """A plugin that looks at its flag stops at once, the caller gets a timeout, and the instance serves the next."""
    with host.create(jobs) as instance:
        began = time.monotonic()
        with pytest.raises(ferrule.PluginTimeoutError, match=r"stopped after the 0\.1 s that it had: ") as raised:
            instance.call("sleep", {"ms": 60_000}, timeout=0.1)
        timely("woken" in str(raised.value), raised.value)  # else it was over before the call began
        timely(time.monotonic() - began < 1)
        assert instance.call("sleep", {"ms": 1}) == instance.call("sleep", {"ms": 1}, timeout=5)


def test_a_late_request_does_not_reach_the_next_call(host: ferrule.Host, jobs: str) -> None:
    """Calls that end just when their time does never cancel the one that follows on the same instance."""
    with host.create(jobs) as instance:
        for _ in range(50):
            try:
                instance.call("sleep", {"ms": 3}, timeout=0.0035)
            except ferrule.PluginTimeoutError:
                pass
            instance.call("sleep", {"ms": 2})


@pytest.mark.timed
def test_a_cancelled_task_cancels_the_plugins_work(host: ferrule.Host, jobs: str) -> None:
    """The task ends at once, and so does what the plugin did for it; the instance serves the next."""

    async def main() -> None:
        with host.create(jobs) as instance:
            task = asyncio.create_task(instance.aio.call("sleep", {"ms": 60_000}))
            await asyncio.sleep(0.05)
            began = time.monotonic()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await instance.aio.call("sleep", {"ms": 1})
            timely(time.monotonic() - began < 1)

    asyncio.run(main())


def test_awaited_calls_of_a_serial_instance_need_one_thread(host: ferrule.Host, jobs_library: Path) -> None:
    """A hundred tasks wait for their turn in the loop, in their order, and not in a hundred threads."""

    async def main() -> None:
        with host.create(f"{jobs_library}:jobs-serial") as instance:
            before = threading.active_count()
            calls = [asyncio.create_task(instance.aio.call("sleep", {"ms": 1})) for _ in range(100)]
            most = 0
            while not all(call.done() for call in calls):
                most = max(most, threading.active_count())
                await asyncio.sleep(0.002)
            assert most <= before + 3

    asyncio.run(main())


@pytest.mark.timed
def test_awaited_calls_of_a_concurrent_instance_overlap(host: ferrule.Host, jobs_library: Path) -> None:
    """Ten calls of 100 ms take far less than a second."""

    async def main() -> None:
        with host.create(f"{jobs_library}:jobs") as instance:
            began = time.monotonic()
            await asyncio.gather(*(instance.aio.call("sleep", {"ms": 100}) for _ in range(10)))
            timely(time.monotonic() - began < 0.7)

    asyncio.run(main())


@pytest.mark.timed
def test_a_call_that_does_not_come_back_is_reported(
    host: ferrule.Host, jobs: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The caller who awaits gets a timeout; plugin, method and seconds are logged and listed until it comes back.

    Other instances go on meanwhile.
    """

    async def main() -> None:
        with host.create(jobs) as other, host.create(jobs) as instance:
            began = time.monotonic()
            with pytest.raises(ferrule.PluginTimeoutError, match="not back 1 s after its ") as raised:
                await instance.aio.call("stubborn", {"ms": 2500}, timeout=0.1)
            timely("its 0.1 s were over" in str(raised.value), raised.value)  # else some went by before the call
            timely(time.monotonic() - began < 2)
            while not (stuck := host.stuck()) and time.monotonic() - began < 2.4:
                await asyncio.sleep(0.01)
            timely(len(stuck) == 1, stuck)
            [found] = stuck
            assert (found.plugin, found.method) == (instance.plugin.name, "stubborn")
            assert found.seconds >= GRACE
            assert await other.aio.call("sleep")
            while host.stuck():
                await asyncio.sleep(0.05)
            assert await instance.aio.call("sleep")

    with caplog.at_level(logging.ERROR, "ferrule.plugin"):
        asyncio.run(main())
    [record] = [record for record in caplog.records if "stuck" in record.message]
    assert "method 'stubborn' of plugin 'jobs" in record.message


@pytest.mark.timed
def test_a_blocking_call_that_does_not_come_back_is_reported(
    host: ferrule.Host, jobs: str, caplog: pytest.LogCaptureFixture
) -> None:
    """In process the caller cannot be freed; but the log says who keeps it."""
    with caplog.at_level(logging.ERROR, "ferrule.plugin"), host.create(jobs) as instance:
        instance.call("stubborn", {"ms": 1500}, timeout=0.1)
    timely(any("is stuck: called" in record.message for record in caplog.records))
    assert host.stuck() == []


@pytest.mark.timed
def test_a_stuck_call_does_not_hold_up_the_process(jobs_library: Path) -> None:
    """A process whose awaited call never comes back ends all the same, with its own status."""
    program = textwrap.dedent(
        f"""
        import asyncio, ferrule, sys
        async def main():
            host = ferrule.Host()
            instance = host.create({f"{jobs_library}:jobs-serial"!r})
            try:
                await instance.aio.call("stubborn", {{"ms": 60000}}, timeout=0.05)
            except ferrule.PluginTimeoutError:
                sys.exit(7)
        asyncio.run(main())
        """
    )
    began = time.monotonic()
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 7, done.stderr
    timely(time.monotonic() - began < 10)
    assert "Traceback" not in done.stderr and "Fatal" not in done.stderr


def test_metadata_goes_in_and_comes_out_also_beside_an_error(host: ferrule.Host, jobs: str) -> None:
    """What the caller sends beside the input reaches the plugin; what that says beside its answer or error returns."""
    with host.create(jobs) as instance:
        assert instance.answer("told", metadata={"n": 1}) == (True, {"told": {"n": 1}})
        assert instance.answer("told").metadata == {"told": None}
        with pytest.raises(ferrule.PluginIOError) as caught:
            instance.answer("told", {"fail": -13}, metadata={"n": 2})
        assert caught.value.metadata == {"told": {"n": 2}}


def test_using_names_the_method_and_is_needed_only_where_there_are_several(
    host: ferrule.Host, jobs_library: Path
) -> None:
    """A runner with one method is run without naming it; one with several says which there are."""
    with host.runner(f"{jobs_library}:jobs-one") as one:
        assert one.run({"ms": 1}).value > 0
    with host.runner(f"{jobs_library}:jobs") as many:
        assert many.run({}, {"n": 1}, "told") == (True, {"told": {"n": 1}})
        with pytest.raises(ferrule.InvalidArgumentError, match="it has sleep, stubborn, told, count, reset, poison"):
            many.run({})
        with pytest.raises(ferrule.InvalidArgumentError, match="it has none of that mode"):
            many.open({})


def test_an_awaited_call_without_any_time_is_called(host: ferrule.Host, jobs: str) -> None:
    """A timeout of 0 asks for what is there at once, as in a blocking call; it does not mean 'never'."""

    async def main() -> None:
        with host.create(jobs) as instance:
            assert await instance.aio.call("sleep", timeout=0) > 0

    asyncio.run(main())


class _Refuses(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        raise RuntimeError("a filter that fails")


@pytest.mark.parametrize("seconds", [float("inf"), 1e12])
def test_no_time_is_too_long(host: ferrule.Host, jobs: str, seconds: float) -> None:
    """A time without end is no limit, and those who ask for a short one afterwards still get it."""
    with host.create(jobs) as instance:
        assert instance.call("sleep", {"ms": 50}, timeout=seconds) > 0
        with pytest.raises(ferrule.PluginTimeoutError):
            instance.call("sleep", {"ms": 5000}, timeout=0.05)


@pytest.mark.timed
def test_a_report_that_fails_ends_nobodys_deadline(host: ferrule.Host, jobs: str) -> None:
    """Logging is the application's: when it raises as a stuck call is reported, later deadlines are still kept."""
    with host.create(jobs) as instance:
        logger, refuses = logging.getLogger(f"ferrule.plugin.{instance.plugin.name}"), _Refuses()
        logger.addFilter(refuses)
        try:
            instance.call("stubborn", {"ms": 1300}, timeout=0.05)
        finally:
            logger.removeFilter(refuses)
        began = time.monotonic()
        with pytest.raises(ferrule.PluginTimeoutError):
            instance.call("sleep", {"ms": 60_000}, timeout=0.05)
        timely(time.monotonic() - began < 3)


def test_an_instance_keeps_no_loop(host: ferrule.Host, jobs: str) -> None:
    """One that is awaited in one event loop after another holds on to none of those that are closed."""
    loops = []

    async def main() -> None:
        loops.append(weakref.ref(asyncio.get_running_loop()))
        await asyncio.gather(*(instance.aio.call("sleep", {"ms": 1}) for _ in range(3)))

    with host.create(jobs) as instance:
        for _ in range(5):
            asyncio.run(main())
        # A call's thread may linger.
        until(lambda: gc.collect() >= 0 and sum(loop() is not None for loop in loops) <= 1)


def test_two_loops_in_two_threads_share_an_instance(host: ferrule.Host, jobs: str) -> None:
    """Each loop's calls are answered, a serial plugin's one after another."""

    async def main() -> None:
        for _ in range(20):
            await asyncio.gather(*(instance.aio.call("sleep", {"ms": 1}) for _ in range(3)))

    with host.create(jobs) as instance:
        threads = [threading.Thread(target=lambda: asyncio.run(main())) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert instance.call("count") == 120


@pytest.mark.skipif(sys.platform != "linux", reason="it limits the address space")
def test_without_a_thread_a_call_fails_and_its_turn_goes_on(jobs_library: Path) -> None:
    """Where the system gives no more threads, an awaited call says so, and the next one is served once it does."""
    program = textwrap.dedent(
        f"""
        import asyncio, ferrule, resource, threading
        async def main():
            with ferrule.Host() as host, host.create({f"{jobs_library}:jobs-serial"!r}) as instance:
                used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
                threading.stack_size(256 << 20)
                resource.setrlimit(resource.RLIMIT_AS, (used + (128 << 20), resource.RLIM_INFINITY))
                for _ in range(3):
                    try:
                        await instance.aio.call("sleep", timeout=5)
                    except RuntimeError as error:
                        assert "thread" in str(error)
                    else:
                        raise SystemExit("there was a thread")
                threading.stack_size(0)
                resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY,) * 2)
                print(await instance.aio.call("sleep"))
        asyncio.run(main())
        """
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=False)
    assert (done.returncode, done.stderr) == (0, "")
