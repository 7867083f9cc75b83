"""Instances: values in and out, methods by their modes, streams, threads, and what happens after close."""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

import ferrule
from ferrule.native import NativeStream
from ferrule.plugins.instance import Instance, NativeInstance, PythonInstance
from tests.process import resident
from tests.timely import timely, until

ROOT = Path(__file__).resolve().parents[1]
GOOD = ROOT / "example_plugins" / "c"

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the plugins are built with cc")

Compile = Callable[..., Path]
Make = Callable[..., ferrule.Instance]


@pytest.fixture(scope="session")
def tell_library(compile_c: Compile) -> Path:
    """tests/plugins/tell.c, compiled."""
    return compile_c((ROOT / "tests" / "plugins" / "tell.c").read_text(encoding="utf-8"), "tell", "-O1", "-pthread")


@pytest.fixture(scope="session")
def twins(compile_c: Compile) -> dict[str, Path]:
    """The C example plugins."""
    return {
        name: compile_c((GOOD / name / f"{name}.c").read_text(encoding="utf-8"), name, "-O1")
        for name in ("add_metadata", "hello_source", "identity")
    }


@pytest.fixture
def make(tell_library: Path) -> Iterator[Make]:
    """Makes an instance of a plugin of tell.c."""
    with ferrule.Host() as host:

        def make(plugin: str = "tell", config: dict[str, Any] | None = None) -> ferrule.Instance:
            return host.create(f"{tell_library}:{plugin}", config)

        yield make


class Stamped(BaseModel):
    """A record that add-metadata made."""

    id: int
    processed_by_rust_plugin: str


class Plain(BaseModel):
    """A record."""

    id: int


class Python:
    """A plugin in Python with methods of every mode."""

    def __init__(self) -> None:
        self.calls = 0

    def process(self, record: dict[str, Any]) -> Any:
        """What the record asks for."""
        if (error := record.get("raise")) is not None:
            raise {"value": ValueError("a bad value"), "os": FileNotFoundError(2, "gone"), "key": KeyError("k")}.get(
                error, error if isinstance(error, BaseException) else RuntimeError(error)
            )
        before = self.calls
        time.sleep(record.get("sleep", 0))
        self.calls = before + 1
        return {"id": record.get("id"), "calls": self.calls}


# ---- values --------------------------------------------------------------------------------------


def test_values_go_in_and_come_out_alike(twins: dict[str, Path]) -> None:
    """A dict or a model gives a dict, bytes give bytes, and `returns` gives what it names."""
    with ferrule.Host() as host:
        instance = host.create(str(twins["add_metadata"]), {"plugin_name": "demo"})
        for call in (lambda value, **options: instance.call("process", value, **options), instance.method("process")):
            assert call({"id": 1})["processed_by_rust_plugin"] == "demo"
            assert call(Plain(id=2))["id"] == 2
            for data in (b'{"id":3}', bytearray(b'{"id":3}'), memoryview(b'{"id":3}')):
                answer = call(data)
                assert isinstance(answer, bytes)
                assert answer.startswith(b'{"id":3,')
        made = instance.call("process", {"id": 4}, returns=Stamped)
        assert made == Stamped(id=4, processed_by_rust_plugin="demo")
        assert instance.call("process", b'{"id":5}', returns=Stamped).id == 5
        assert instance.call("process", {"id": 6}, returns=dict[str, Any])["id"] == 6
        with pytest.raises(ferrule.InvalidDataError, match=r"no Stamped: .*\n.*id.*\n.*integer") as caught:
            instance.call("process", {"id": "x"}, returns=Stamped)
        assert (caught.value.plugin, caught.value.method) == ("add-metadata", "process")


def test_input_that_is_no_json_is_invalid_data(twins: dict[str, Path]) -> None:
    """Bytes are the plugin's to judge, and its words arrive; objects that JSON cannot say are refused before it."""
    with ferrule.Host() as host:
        instance = host.create(str(twins["add_metadata"]))
        calls: list[Callable[[Any], Any]] = [lambda value: instance.call("process", value), instance.method("process")]
        for call in calls:
            for data in (b"", b"[1]", b"7", b"null", b'{"id":', b"\xff\xfe", b'{"a":1}}'):
                with pytest.raises(ferrule.InvalidDataError, match="JSON") as caught:
                    call(data)
                assert caught.value.plugin == "add-metadata"
            for value in ({"id": object()}, {"id": {1, 2}}, {1j: 2}, "\ud800"):
                with pytest.raises(ferrule.InvalidDataError, match="cannot be written as JSON"):
                    call(value)
        assert not instance.poisoned
        assert instance.call("process", {"id": 1})["id"] == 1


def test_a_method_may_take_and_give_other_things_than_json(make: Make) -> None:
    """Text in, text out, byte for byte; lines come as a list; an answer of any JSON value is that value."""
    instance = make()
    assert instance.call("reverse", b"\x00abc\xff") == b"\xffcba\x00"
    assert instance.call("lines", {"count": 3}) == [{"line": 0}, {"line": 1}, {"line": 2}]
    assert instance.call("lines", {"count": 0}) == []
    assert instance.call("lines", b'{"count":1}') == b'{"line":0}\n'
    assert instance.call("both") == "once"
    assert instance.call("sleep") == 1


def test_a_call_carries_time_and_metadata(make: Make) -> None:
    """The plugin is told what time is left, in ms, and gets the metadata as it was given."""
    instance = make()
    assert instance.call("about") == {"timeout_ms": -1, "cancelled": 0, "same_id": True, "input": "{}"}
    told = instance.call("about", {"a": 1}, timeout=1.5, metadata={"trace": "abc", "tries": [1]})
    assert told["timeout_ms"] == 1500
    assert told["metadata"] == {"trace": "abc", "tries": [1]}
    assert told["input"] == '{"a":1}'
    assert instance.call("about", timeout=0)["timeout_ms"] == 0
    assert instance.call("about", timeout=-3)["timeout_ms"] == 0


@pytest.mark.parametrize("size", [0, 64, 16 * 1024, 1 << 20, 48 << 20])
def test_an_answer_grows_by_reserve(make: Make, size: int) -> None:
    """An answer may be larger than any buffer was, and the next one is right again."""
    instance = make()
    for _ in range(2):
        answer = instance.call("grow", f'{{"bytes":{size}}}'.encode())
        assert len(answer) == size + 2
        assert instance.call("grow", b'{"bytes":64}')[-4:] == b'de."'


@pytest.mark.parametrize("size", [1 << 31, 1 << 40, -1])
def test_a_reserve_past_the_limit_is_refused(make: Make, size: int) -> None:
    """2 GiB, and a size that overflows, are OUT_OF_MEMORY at once; nothing is allocated, and the instance lives."""
    instance = make()
    with pytest.raises(ferrule.OutOfMemoryError, match=r"bytes were refused"):
        instance.call("reserve", {"bytes": size})
    assert instance.call("reserve", {"bytes": 100}) == 1


# ---- methods -------------------------------------------------------------------------------------


def test_a_wrong_name_has_the_nearest(make: Make) -> None:
    """NotFoundError says which one was probably meant, for call, open and method alike."""
    instance = make()
    for use in (instance.call, instance.open, instance.method):
        with pytest.raises(ferrule.NotFoundError, match="did you mean 'about'") as caught:
            use("abuot")
        assert caught.value.plugin == "tell"


def test_a_method_is_used_as_its_mode_says(make: Make) -> None:
    """A stream is not called, a unary method not opened, a listed one neither; one of mode both does both."""
    instance = make()
    with pytest.raises(ferrule.UnsupportedError, match="answers with a stream: use open"):
        instance.call("items")
    with pytest.raises(ferrule.UnsupportedError, match="answers with a stream: use open"):
        instance.method("items")
    with pytest.raises(ferrule.UnsupportedError, match="answers once: use call"):
        instance.open("about")
    for use in (instance.call, instance.open, instance.method):
        with pytest.raises(ferrule.UnsupportedError, match="listed, but not to be called"):
            use("listed")
    assert instance.call("both") == "once"
    assert list(instance.open("both")) == [1, 2, 3]


def test_instances_of_every_sort_are_one_type(make: Make) -> None:
    """Native and Python instances both are Instance, and say which plugin they are of."""
    with ferrule.Host() as host:
        python = host.create(f"python:{__name__}:Python", kind="function")
        assert isinstance(python, Instance)
        assert isinstance(make(), Instance)
        assert repr(make()) == "<NativeInstance of runner 'tell'>"
        assert "PythonInstance of function" in repr(python)
        assert isinstance(python, PythonInstance)


# ---- closing -------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["native", "python"])
def test_after_close_every_use_is_invalid_state(make: Make, kind: str) -> None:
    """Closing twice is harmless; call, open and a prepared method say that the instance is closed."""
    with ferrule.Host() as host:
        instance = make() if kind == "native" else host.create(f"python:{__name__}:Python", kind="function")
        name = "both" if kind == "native" else "process"
        prepared = instance.method(name)
        with instance:
            prepared({})
        instance.close()
        uses: list[Callable[[], Any]] = [
            lambda: instance.call(name, {}),
            lambda: prepared({}),
            lambda: prepared(b"{}"),
        ]
        for use in uses:
            with pytest.raises(ferrule.InvalidStateError, match="the instance is closed"):
                use()
        if kind == "native":
            with pytest.raises(ferrule.InvalidStateError, match="the instance is closed"):
                instance.open("items")


def test_an_instance_closes_its_streams(make: Make) -> None:
    """A stream that was left open ends with its instance; using it then is an error or the end, never a crash."""
    instance = make()
    stream = instance.open("items")
    assert next(stream) == 1
    instance.close()
    assert list(stream) == []
    stream.close()
    with pytest.raises(ferrule.InvalidStateError, match="the stream is closed"):
        stream.position()


def test_close_waits_for_calls_under_way(make: Make) -> None:
    """No call is cut: close returns after the one that another thread is in."""
    for plugin, method in (("tell", "sleep"), ("together", "meet")):
        instance = make(plugin)

        def under_way(instance: ferrule.Instance = instance) -> bool:
            if instance.plugin.name == "together":
                return bool(instance.call("meet", {"ms": 0}) == 2)
            try:
                instance.call("about", timeout=0)
            except ferrule.PluginTimeoutError:
                return True
            return False

        with ThreadPoolExecutor(1) as pool:
            began = time.monotonic()
            answer = pool.submit(instance.call, method, {"ms": 800})
            until(under_way)
            instance.close()
            assert time.monotonic() - began >= 0.8
            assert answer.result() in (1, 2)  # 2: it met the one that asked


# ---- streams -------------------------------------------------------------------------------------


def test_a_stream_is_read_item_by_item(make: Make) -> None:
    """Items in order, one end; a second stream starts afresh; bytes in gives the items' bytes; it is a context."""
    instance = make()
    assert list(instance.open("items")) == [1, 2, 3]
    assert list(instance.open("items", {"position": 2})) == [3]
    assert list(instance.open("items", b'{"position":1}')) == [b"2", b"3"]
    with instance.open("items") as stream:
        assert next(stream) == 1
    assert list(stream) == []
    stream.close()


def test_two_streams_of_one_instance_are_apart(make: Make) -> None:
    """Each has its own place."""
    instance = make()
    first, second = instance.open("items"), instance.open("items")
    assert [next(first), next(second), next(first), next(second)] == [1, 1, 2, 2]
    assert list(first) == [3]
    assert list(second) == [3]


def test_an_item_may_be_several_lines(make: Make) -> None:
    """Every line is an item; empty lines are none; whether the last one ends in a newline does not matter."""
    stream = make("several", {"count": 10, "each": 4}).open("read_data")
    assert [record["n"] for record in stream] == list(range(1, 11))


def test_items_that_are_no_json_are_one_error_each(make: Make) -> None:
    """The reader learns of each and reads on. An item is what the plugin gave at once, also with a newline in it."""
    stream = make("spoilt").open("read_data")
    found: list[Any] = []
    while True:
        try:
            found.append(next(stream))
        except ferrule.InvalidDataError as error:
            assert "no JSON" in error.message
            found.append("bad")
        except StopIteration:
            break
    assert found == [{"n": 1}, {"n": 2, "m": 2}, "bad", [4], {"n": 5}]


@pytest.mark.timed
def test_a_stream_that_wakes_is_not_polled(make: Make) -> None:
    """Records arrive as the plugin's thread wakes the host, and in between this process uses no time."""
    used, began = time.process_time(), time.monotonic()
    stream = make("ticks", {"count": 5, "ms": 60}).open("read_data")
    assert [record["n"] for record in stream] == [1, 2, 3, 4, 5]
    assert time.monotonic() - began > 0.25
    timely(time.monotonic() - began < 3)
    timely(time.process_time() - used < 0.15)


def is_read(stream: ferrule.Stream) -> bool:
    """Whether a thread waits for its next item."""
    assert isinstance(stream.port, NativeStream)
    return stream.port._reading.locked()


@pytest.mark.parametrize("how", ["close", "cancel", "instance"])
def test_a_waiting_reader_is_freed_by_another_thread(make: Make, how: str) -> None:
    """A reader that waits for a wake that never comes ends at once when stream or instance is closed or cancelled."""
    instance = make("ticks", {"count": 0})
    stream = instance.open("read_data")
    seen: list[BaseException | None] = []

    def read() -> None:
        try:
            next(stream)
        except (ferrule.PluginError, StopIteration) as error:
            seen.append(error)

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    until(lambda: is_read(stream))
    {"close": stream.close, "cancel": stream.cancel, "instance": instance.close}[how]()
    thread.join(5)
    assert not thread.is_alive()
    assert isinstance(seen[0], ferrule.CancelledError if how == "cancel" else ferrule.PluginError)


def test_one_thread_reads_a_stream(make: Make) -> None:
    """A second reader of a stream that is being read is refused, does not wait for ever, and the first one reads on."""
    stream = make("ticks", {"count": 0}).open("read_data")
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(next, stream)
        until(lambda: is_read(stream))
        with pytest.raises((ferrule.InvalidStateError, ValueError)):
            next(stream)
        assert is_read(stream)
        stream.cancel()
        with pytest.raises(ferrule.CancelledError):
            first.result()


def test_a_position_is_right_after_the_items_that_were_taken(twins: dict[str, Path]) -> None:
    """It is the plugin's own word, and reading from it goes on after it."""
    with ferrule.Host() as host, host.source(str(twins["hello_source"]), {"count": 5}) as source:
        stream = source.read()
        assert next(stream)["id"] == 1
        position = stream.position()
        taken = 1 + len(stream.ready)
        assert position == taken
        assert [record["id"] for record in source.read(position=3)] == [4, 5]


# ---- threads -------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["native", "python"])
def test_a_serial_instance_takes_one_call_at_a_time(make: Make, kind: str) -> None:
    """Eight threads, 50 calls each, through one instance: not one is lost, though each reads, waits and writes."""
    with ferrule.Host() as host:
        instance = make() if kind == "native" else host.create(f"python:{__name__}:Python", kind="function")

        def work(_: int) -> list[int]:
            if kind == "native":
                sleep = instance.method("sleep")
                return [sleep({"ms": 0}) for _ in range(50)]
            return [instance.call("process", {"sleep": 0.0001})["calls"] for _ in range(50)]

        with ThreadPoolExecutor(8) as pool:
            counts = list(pool.map(work, range(8)))
        assert sorted(chain.from_iterable(counts)) == list(range(1, 401))
        assert all(mine == sorted(mine) for mine in counts)


@pytest.mark.timed
def test_callers_are_served_in_their_order(make: Make) -> None:
    """First come, first served: who waits behind a long call gets in in the order of arrival."""
    instance = make()
    order: list[tuple[int, int]] = []
    threads = [threading.Thread(target=instance.call, args=("sleep", {"ms": 1000}))]
    threads += [
        threading.Thread(target=lambda n=number: order.append((n, instance.call("sleep", {"ms": 1}))))
        for number in range(8)
    ]
    for thread in threads:
        thread.start()
        time.sleep(0.06)
    for thread in threads:
        thread.join()
    timely(sorted(order) == [(number, number + 2) for number in range(8)], order)


def test_a_concurrent_instance_takes_calls_at_once(make: Make) -> None:
    """Calls of a plugin that says `concurrent` overlap."""
    meet = make("together").method("meet")
    with ThreadPoolExecutor(4) as pool:
        assert max(pool.map(lambda _: meet({"ms": 100}), range(4))) >= 2


@pytest.fixture
def identity(compile_c: Callable[..., Path]) -> Iterator[Callable[[bytes], bytes]]:
    """One prepared callable that gives its input back."""
    source = ROOT / "example_plugins" / "c" / "identity" / "identity.c"
    with ferrule.Host() as host:
        yield host.function(str(compile_c(source.read_text(encoding="utf-8"), "identity"))).process


def test_one_prepared_callable_serves_many_threads(identity: Callable[[bytes], bytes]) -> None:
    """Everybody gets his own answer, also where buffers grow."""

    def work(number: int) -> bool:
        mine = [b"%d" % number * size for size in (1, 200, 30_000)]
        return all(identity(each) == each for _ in range(300) for each in mine)

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(8)))


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no interval timers here")
def test_a_prepared_callable_may_be_called_within_itself(identity: Callable[[bytes], bytes]) -> None:
    """A signal's handler that calls it too does not change the answer of the call that it interrupts."""
    within: list[bytes] = []
    before = signal.signal(signal.SIGALRM, lambda *_: within.append(identity(b"within")))
    signal.setitimer(signal.ITIMER_REAL, 0.0002, 0.0002)
    try:
        end = time.monotonic() + 10
        while len(within) < 500 and time.monotonic() < end:
            assert identity(b"outside") == b"outside"
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert set(within) == {b"within"}


@pytest.mark.timed
def test_a_call_leaves_the_gil(make: Make) -> None:
    """Python goes on while a plugin works."""
    instance = make()
    thread = threading.Thread(target=instance.call, args=("sleep", {"ms": 300}))
    thread.start()
    count = 0
    while thread.is_alive():
        count += 1
        time.sleep(0.005)
    timely(count > 20, count)


# ---- Python plugins ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("raised", "kind", "message"),
    [
        ("value", ferrule.InvalidDataError, "^a bad value"),
        ("key", ferrule.InvalidDataError, "^KeyError: 'k'"),
        (1.5, ferrule.PanicError, "^RuntimeError: 1.5"),
        ("os", ferrule.PluginIOError, "^FileNotFoundError: .*gone"),
        (TimeoutError("late"), ferrule.PluginTimeoutError, "^TimeoutError: late"),
        (MemoryError("none"), ferrule.OutOfMemoryError, "^MemoryError: none"),
        (AttributeError("x"), ferrule.PanicError, "^AttributeError: x"),
        (SystemExit(3), ferrule.PanicError, "^SystemExit: 3"),
        (ferrule.DeniedError("not you", details={"who": "me"}), ferrule.DeniedError, "^not you"),
    ],
)
def test_an_exception_of_a_python_plugin_has_a_status(raised: object, kind: type[Exception], message: str) -> None:
    """ValueError and its like are the record's fault, OSError is IO, anything else a panic; its cause is kept, plugin
    and method are on it, and sys.exit ends nothing."""
    with ferrule.Host() as host:
        instance = host.create(f"python:{__name__}:Python", kind="function")
        assert isinstance(instance, PythonInstance)
        with pytest.raises(kind, match=message) as caught:
            instance._run("process", {"raise": raised})
        assert isinstance(caught.value, ferrule.PluginError)
        assert caught.value.method == "process"
        assert caught.value.plugin == instance.plugin.name
        if isinstance(raised, ferrule.PluginError):
            assert caught.value.details == {"who": "me"}
        else:
            assert caught.value.__cause__ is not None
        assert instance.call("process", {"id": 1}) == {"id": 1, "calls": 1}


class Selfish:
    """Calls itself through its own instance."""

    instance: Instance | None = None

    def process(self, record: dict[str, Any]) -> dict[str, Any]:
        """Once more."""
        assert self.instance is not None
        self.instance.call("process", record)
        return record


def test_a_python_instance_refuses_to_be_entered_twice() -> None:
    """A serial one that calls itself gets INVALID_STATE instead of waiting for itself."""
    with ferrule.Host() as host:
        Selfish.instance = host.create(f"python:{__name__}:Selfish", kind="function")
        with pytest.raises(ferrule.InvalidStateError, match="re-entrant"):
            Selfish.instance.call("process", {})


def test_nothing_of_a_call_is_kept(make: Make) -> None:
    """A million small calls and some large ones leave the process as large as it was."""
    instance = make()
    assert isinstance(instance, NativeInstance)
    reverse = instance.method("reverse")

    data = b"x" * 1000
    for _ in range(10_000):
        reverse(data)
    instance.call("grow", b'{"bytes":50000000}')
    before = resident()
    for _ in range(100_000):
        reverse(data)
    for _ in range(5):
        instance.call("grow", b'{"bytes":50000000}')
    assert resident() - before < 20 << 20
