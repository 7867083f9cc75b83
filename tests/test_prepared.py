"""Prepared callables: what goes in by which way, errors, threads, and that nothing is left of them."""

from __future__ import annotations

import gc
import inspect
import os
import platform
import subprocess
import sys
import textwrap
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

import ferrule
from ferrule.native.door import Prepared
from ferrule.plugins.instance import NativeInstance
from tests.process import resident
from tests.timely import timely

ROOT = Path(__file__).resolve().parents[1]

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the plugins are built with cc")
statm = pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="no /proc/self/statm here")

Compile = Callable[..., Path]
Create = Callable[..., NativeInstance]


@pytest.fixture(scope="session")
def library(compile_c: Compile) -> Callable[[str], str]:
    """``library(name)``: the path of an example plugin in C, of a faulty one, or of tell.c."""
    folders = (ROOT / "example_plugins/faulty", ROOT / "tests/plugins", *(ROOT / "example_plugins/c").iterdir())

    def library(name: str) -> str:
        (source,) = [path for folder in folders if (path := folder / f"{name}.c").exists()]
        flags = ("-O1", "-pthread", f"-I{folders[0]}")
        return str(compile_c(source.read_text(encoding="utf-8"), name, *flags))

    return library


@pytest.fixture
def create(library: Callable[[str], str]) -> Iterator[Create]:
    """``create(name, config, plugin)``: an instance of a library's plugin."""
    with ferrule.Host() as host:

        def create(name: str, config: dict[str, Any] | None = None, plugin: str = "") -> NativeInstance:
            made = host.create(library(name) + (f":{plugin}" if plugin else ""), config)
            assert isinstance(made, NativeInstance)
            return made

        yield create


def method(instance: NativeInstance, name: str) -> Any:
    """A prepared callable, with all the arguments that it takes."""
    return instance.method(name)


class Sub(bytes):
    """Bytes, but not exactly."""


class Plain(BaseModel):
    """A record."""

    id: int


# ---- in and out ----------------------------------------------------------------------------------


def test_every_way_in_gives_the_same_answer(create: Create) -> None:
    """Bytes and all that are like them, by place or by name, answer with bytes; other records with what they are."""
    process = method(create("identity"), "process")
    for record in (b'{"id":1}', Sub(b'{"id":1}'), bytearray(b'{"id":1}'), memoryview(b"-%b-" % b'{"id":1}')[1:-1]):
        for answer in (process(record), process(record, None), process(record=record), process(record, returns=None)):
            assert type(answer) is bytes
            assert answer == b'{"id":1}'
        assert process(record, returns=Plain) == process(record, Plain) == Plain(id=1)
    assert process({"id": 1}) == process(Plain(id=1)) == {"id": 1}
    assert process({"id": 1}, returns=Plain) == Plain(id=1)
    assert process(returns=Plain, record={"id": 1}) == Plain(id=1)
    assert process([1, None]) == [1, None]


def test_its_signature_is_read_and_held_to(create: Create) -> None:
    """inspect and help know the arguments; another number of them, or another name, is a TypeError."""
    process = method(create("identity"), "process")
    assert str(inspect.signature(process)) == "(record, returns=None)"
    assert "its answer out" in (process.__doc__ or "")
    wrong: list[Callable[[], Any]] = [
        process,
        lambda: process(b"{}", None, None),
        lambda: process(b"{}", record=b"{}"),
        lambda: process(b"{}", timeout=1),
        lambda: process(returns=None),
    ]
    for call in wrong:
        with pytest.raises(TypeError, match="takes a record, and 'returns' if need be"):
            call()


def test_empty_answers_and_skips_are_python_s(create: Create, compile_c: Compile) -> None:
    """A function that answers with nothing broke its contract; another method may; a skipped record is None."""
    for record in (b"", bytearray()):
        with pytest.raises(ferrule.InvalidDataError, match="answered with nothing"):
            method(create("identity"), "process")(record)
    assert method(create("tell", plugin="tell"), "reverse")(b"") == b""
    skips = method(create("returns_status", {"status": 3}), "process")
    assert skips(b"{}") is skips({}) is skips(b"{}", returns=Plain) is None


def test_a_failure_has_all_that_the_plugin_told(create: Create) -> None:
    """Status, details and metadata of the answer that failed are the exception's; the next call's are its own."""
    fails = method(create("metadata_with_error"), "process")
    with pytest.raises(ferrule.NotFoundError, match="No such thing") as caught:
        fails(b"{}")
    assert caught.value.metadata == {"trace": "abc"}
    assert (caught.value.plugin, caught.value.method) == ("metadata-with-error", "process")
    with pytest.raises(ferrule.UnavailableError, match="The database is away") as away:
        method(create("error_with_details"), "process")(b"{}")
    assert (away.value.details, away.value.metadata) == ({"endpoint": "db", "tries": [1, 2]}, {})


# ---- what Python does to it ----------------------------------------------------------------------


@pytest.mark.parametrize("raised", [ValueError("mine"), KeyboardInterrupt(), SystemExit(3)])
def test_exceptions_go_through(create: Create, raised: BaseException) -> None:
    """What encode or decode raises is what the caller gets, and calls go on as before."""

    def fails(*_: object) -> Any:
        raise raised

    target = create("identity").target
    encoding = target.caller("process", fails, lambda output, record, returns: output)
    decoding = target.caller("process", lambda record: b"{}", fails)
    calls: list[Callable[[], Any]] = [lambda: encoding(7), lambda: decoding(7), lambda: decoding(b"{}", returns=int)]
    for call in calls:
        with pytest.raises(type(raised)) as caught:
            call()
        assert caught.value is raised
    assert encoding(b"{}") == decoding(b"{}") == b"{}"


def test_an_encoder_that_makes_no_bytes_is_a_type_error(create: Create) -> None:
    """The plugin is not called with anything else."""
    number: Any = str
    call = create("identity").target.caller("process", number, lambda output, record, returns: output)
    with pytest.raises(TypeError, match="expected bytes, str found"):
        call(7)


def test_it_may_be_called_within_itself(create: Create) -> None:
    """An encoder and a decoder that call it, too, have answers of their own, however deep."""

    def deeper(depth: int) -> bytes:
        return b"%d" % depth + (call(depth - 1) if depth else b"")

    def decode(output: bytes | None, record: object, returns: object) -> bytes:
        assert call(b"again") == b"again"
        return output or b""

    call = create("identity").target.caller("process", deeper, decode)
    assert call(30) == b"".join(b"%d" % depth for depth in range(30, -1, -1))


@pytest.mark.timed
def test_more_threads_than_it_has_spare_buffers(create: Create) -> None:
    """Twenty-four threads at once in one callable of a concurrent plugin: all are inside, each gets its answer."""
    meet = method(create("tell", plugin="together"), "meet")
    with ThreadPoolExecutor(24) as pool:
        for _ in range(3):
            answers = list(pool.map(lambda _: int(meet(b'{"ms":300}')), range(24)))
            timely(max(answers) > 8, answers)
            assert all(1 <= answer <= 24 for answer in answers)


# ---- what is left of it --------------------------------------------------------------------------


def test_no_reference_is_lost_or_kept(create: Create) -> None:
    """A thousand calls of every outcome leave the counts of all that took part as they were."""
    identity, fails = method(create("identity"), "process"), method(create("metadata_with_error"), "process")
    skips = method(create("returns_status", {"status": 3}), "process")
    record, sub, plain, none = b'{"id":12345}', Sub(b'{"id":1}'), {"id": 1}, b""
    watched: list[Any] = [identity, fails, skips, record, sub, plain, none, Plain, identity.__self__]

    def use() -> None:
        identity(record)
        identity(sub)
        identity(plain)
        identity(record, returns=Plain)
        skips(record)
        for call in (fails, lambda given: identity(none), lambda given: identity({"id": object()}), Prepared):
            with pytest.raises((ferrule.PluginError, TypeError)):
                call(record)
        for call in (identity, fails):
            with pytest.raises(TypeError):
                call(record, record=record)

    use()
    gc.collect()
    before = [sys.getrefcount(each) for each in watched]
    for _ in range(1000):
        use()
    gc.collect()
    after = [sys.getrefcount(each) for each in watched]
    assert all(abs(late - early) < 10 for late, early in zip(after, before, strict=True)), (before, after)


@statm
def test_callables_that_are_dropped_are_freed(create: Create) -> None:
    """10,000 of them, each called in every way and dropped, leave memory as it was."""
    instance, failing = create("identity"), create("metadata_with_error")

    def drop(count: int) -> None:
        for _ in range(count):
            call = method(instance, "process")
            call(b"{}")
            call({})
            with pytest.raises(ferrule.NotFoundError):
                method(failing, "process")(b"{}")

    drop(2000)
    gc.collect()
    before = resident()
    drop(10_000)
    gc.collect()
    assert resident() - before < 8 << 20


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(answers=st.lists(st.tuples(st.integers(0, 300_000), st.sampled_from(["ok", "ok", "ok", "skip", "invalid"]))))
def test_large_answers_are_whole(act_library: Path, answers: list[tuple[int, str]]) -> None:
    """Answers of any lengths after each other, longer and shorter than the one before, failures and skips among them:
    each is what the plugin wrote, of its own length, by a call and as lines of many; and an earlier one stays."""
    records = [b'{"act":"%b","pad":"%b"}' % (act.encode(), b"x" * size) for size, act in answers]
    expected = [record if act == "ok" else None for record, (_, act) in zip(records, answers, strict=True)]
    with ferrule.Host() as host:
        act = host.function(f"{act_library}:act")
        given = []
        for record in records:
            try:
                given.append(act.process(record))
            except ferrule.InvalidDataError:
                given.append(None)
        assert given == expected
        parts = [act.process_many([record], errors="return", lazy=True).data for record in records]
        assert parts == [b"" if answer is None else answer + b"\n" for answer in expected]
        whole = [act.process_many(records[:count], errors="return", lazy=True).data for count in range(len(records))]
        assert whole == [b"".join(parts[:count]) for count in range(len(records))]
        assert given == expected
        assert all(hash(answer) == hash(bytes(bytearray(answer))) for answer in given if answer is not None)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another malloc")
def test_large_answers_reuse_their_pages(act_library: Path) -> None:
    """One large answer after the other, of the same length, is written into memory that is there: to take it from
    the system anew each time, page by page, costs as much as many plugins do."""
    program = """
        import resource, sys, ferrule
        with ferrule.Host() as host:
            process = host.function(sys.argv[1] + ":act").process
            records = [b'{"act":"ok","pad":"%b"}' % (b"x" * 4_000_000)] * 50
            for record in records[:5]:
                process(record)
            before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
            for record in records:
                process(record)
            print((resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) / len(records))
    """
    command = [sys.executable, "-c", textwrap.dedent(program), str(act_library)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert float(done.stdout) < 100


@statm
def test_a_large_answer_is_not_kept(create: Create) -> None:
    """A buffer that grew past 16 MiB goes back to the system after its call."""
    grow = method(create("tell", plugin="tell"), "grow")
    grow(b'{"bytes":64}')
    before = resident()
    for _ in range(3):
        assert len(grow(b'{"bytes":150000000}')) == 150_000_002
    assert resident() - before < 50 << 20


def test_a_cycle_through_one_is_collected(create: Create) -> None:
    """An instance that holds its own prepared method goes when nobody else holds either."""
    instance = create("identity")
    vars(instance)["mine"] = method(instance, "process")
    assert vars(instance)["mine"](b"{}") == b"{}"
    gone = weakref.ref(instance.target)
    del instance
    gc.collect()
    assert gone() is None


class Held:
    """Something to hold, and to hold by."""

    mine: Any = None


@pytest.mark.parametrize("part", ["owner", "encode", "decode", "failed"])
def test_each_of_its_parts_goes_with_it(part: str) -> None:
    """What it was made with is freed as it is, at once, or by the collector where they hold each other."""
    parts = dict.fromkeys(("owner", "encode", "decode", "failed"))
    for cycle in (False, True):
        held = Held()
        made = Prepared(instance=0, method=0, **(parts | {part: held}))
        gone = weakref.ref(held)
        if cycle:
            held.mine = made.call
        del held
        assert gone() is not None
        del made
        if cycle:
            gc.collect()
        assert gone() is None
    before = sys.getrefcount(Prepared)
    for _ in range(1000):
        Prepared(instance=0, method=0, **parts)
    assert sys.getrefcount(Prepared) - before < 10


def test_it_keeps_what_it_calls(create: Create) -> None:
    """Instance and library live as long as it does."""
    process = method(create("identity"), "process")
    gc.collect()
    assert process(b"{}") == b"{}"


# ---- the end of the process, and of another one --------------------------------------------------


def clean(script: str, *arguments: str) -> None:
    """A program of its own that ends with 0 and says nothing."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), *arguments],
        env={**os.environ, "PYTHONPATH": str(ROOT / "src"), "PYTHONWARNINGS": "ignore::DeprecationWarning"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr, done.stdout) == (0, "", "")


EXIT = """
    import atexit, sys, threading, time
    import ferrule
    process = ferrule.Host().create(sys.argv[1]).method("process")
    slow = ferrule.Host().create(sys.argv[2], {"ms": 30000}).method("process")
    assert process(b"{}") == b"{}"
    cycle = [process, slow]
    cycle.append(cycle)
    sys.everything = cycle

    class Late:
        def __del__(self):
            try:
                process(b"{}")
            except ferrule.InvalidStateError:
                pass
    sys.late = Late()
    threading.Thread(target=slow, args=(b"{}",), daemon=True).start()

    def spin():
        while True:
            process(b"{}")
    threading.Thread(target=spin, daemon=True).start()
    time.sleep(0.2)
"""


def test_the_process_ends_with_live_ones(library: Callable[[str], str]) -> None:
    """One that hangs in a cycle, one in a slow call, one that is called without end, and once more from a finalizer."""
    clean(EXIT, library("identity"), library("slow"))


FORK = """
    import os, sys, threading
    import ferrule
    host = ferrule.Host()
    process = host.create(sys.argv[1]).method("process")
    assert process(b"{}") == b"{}"
    busy = threading.Thread(target=lambda: [process(b"{}") for _ in range(20000)])
    busy.start()
    for _ in range(10):
        child = os.fork()
        if child == 0:
            for record in (b"{}", {}, bytearray(b"{}")):
                try:
                    process(record)
                except ferrule.InvalidStateError as error:
                    assert "before a fork" in str(error), error
                else:
                    os._exit(3)
            del process
            with ferrule.Host() as own:
                assert own.create(sys.argv[1]).method("process")(b"{}") == b"{}"
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
    busy.join()
    assert process(b"{}") == b"{}"
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_child_is_told_that_it_is_the_parent_s(library: Callable[[str], str]) -> None:
    """After a fork beside calls the child's use is INVALID_STATE, one of its own works, and the parent's goes on."""
    clean(FORK, library("identity"))
