"""The faulty zoo: for every way to break a rule there is a tiny plugin, and the host survives each with its own error.

A case stands here for every file of ``example_plugins/faulty``; after each, another plugin still works in the same
process. The zoo's README says what the host must do; the names of the faults are its.
"""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import ferrule
from ferrule.flow.lint import resolve
from ferrule.native.image import read_image
from ferrule.native.library import Library as NativeLibrary
from ferrule.native.library import NativeObject
from ferrule.native.stream import NativeStream
from ferrule.plugins.instance import NativeInstance
from ferrule.plugins.registry import Registry
from tests.process import resident
from tests.timely import timely, until

ROOT = Path(__file__).resolve().parents[1]
ZOO = ROOT / "example_plugins" / "faulty"
FILES = {path.stem for path in ZOO.glob("*.c")}

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the plugins are built with cc")

Compile = Callable[..., Path]
Library = Callable[[str], Path]

# ---- the cases -----------------------------------------------------------------------------------

REJECTED = {
    "another_abi": "ABI 0.9.*this host takes ABI 0.1",
    "destroy_missing": "symbol ferrule_plugin_destroy",
    "manifest_absent": "no section .ferrule",
    "manifest_bad_magic": "damaged manifest.*begins with",
    "manifest_cut_short": "damaged manifest.*it claims 1,048",
    "manifest_fields_missing": r"name: missing; plugins\[0\].kind: missing",
    "manifest_not_json": "manifest is no JSON",
    "manifest_not_utf8": "manifest is no.*UTF-8",
    "manifest_with_tail": "damaged manifest.*bytes other than NUL",
    "two_manifests": "two manifests",
}
"""Refused by reading the file, with this problem."""

REFUSED_AT_LOAD = {
    "manifest_null": r"ferrule_plugin_manifest\(\) answered NULL",
    "manifest_other_bytes": "another manifest than the one in the file",
}
"""Found, and refused as it is loaded, before create."""

REFUSED_AT_CREATE: dict[str, tuple[type[ferrule.PluginError], str]] = {
    "create_fails_with_object": (ferrule.InvalidConfigError, "This config is never right"),
    "create_returns_status": (ferrule.InternalError, "status 99, which this function may not give"),
    "create_without_object": (ferrule.InternalError, "create answered OK without an object"),
    "method_missing": (ferrule.InternalError, "names the method 'extra'.*answered -5"),
    "method_strange_status": (ferrule.InternalError, "names the method 'process'.*answered -99"),
    "ops_call_null": (ferrule.InternalError, "lacks 'call'"),
    "ops_garbage_size": (ferrule.InternalError, "struct_size is 3735928559, expected .*no size"),
    "ops_method_null": (ferrule.InternalError, "lacks 'method'"),
    "ops_misaligned": (ferrule.InternalError, "misaligned address"),
    "ops_null": (ferrule.InternalError, "a table that is NULL"),
    "ops_short": (ferrule.InternalError, "struct_size is 16, expected .*too short"),
}
"""Refused as an instance is made."""

BUFFER = "the plugin broke the buffer rules: it "
REFUSED_CALLS: dict[str, tuple[type[ferrule.PluginError], str, bool]] = {
    "answer_empty": (ferrule.InvalidDataError, "answered with nothing", False),
    "answer_many_lines": (ferrule.InvalidDataError, "no JSON", False),
    "answer_not_json": (ferrule.InvalidDataError, "no JSON.*begins", False),
    "answer_not_object": (ferrule.InvalidDataError, "answered with list, where a record", False),
    "answer_not_utf8": (ferrule.InvalidDataError, "UTF-8", False),
    "capacity_changed": (ferrule.InternalError, BUFFER + r"changed its capacity \('out'", True),
    "data_swapped": (ferrule.InternalError, BUFFER + r"changed its data pointer \('out'", True),
    "error_data_swapped": (ferrule.InternalError, BUFFER + r"changed its data pointer \('error'", True),
    "error_empty": (ferrule.UnavailableError, r"^UNAVAILABLE \(", False),
    "error_len_past_capacity": (ferrule.InternalError, BUFFER + r"set its length past its capacity \('error'", True),
    "error_not_json": (ferrule.InvalidDataError, "^plain words, no object", False),
    "error_not_utf8": (ferrule.InvalidDataError, "^bad \N{REPLACEMENT CHARACTER} byte", False),
    "len_lowered": (ferrule.InvalidDataError, "answered with nothing", False),
    "len_past_capacity": (ferrule.InternalError, BUFFER + r"set its length past its capacity \('out'", True),
    "reserve_replaced": (ferrule.InternalError, BUFFER + r"replaced its reserve function \('out'", True),
    "returns_panic": (ferrule.PanicError, "^panicked at 'index out of range', plugin.c:12", True),
}
"""`process` fails, every time, with this error; the last says whether the instance is poisoned."""

REFUSED_STREAMS = {
    "stream_cancel_null": "lacks 'cancel'",
    "stream_close_null": "lacks 'close'",
    "stream_next_null": "lacks 'next'",
    "stream_short": "struct_size is 16, expected .*too short",
    "stream_without_object": "without a stream",
}
"""`read_data` cannot be opened: INTERNAL, and the instance is poisoned."""

IN_A_FLOW: dict[str, tuple[str, str]] = {
    **{name: ("INTERNAL", BUFFER) for name, (_, text, _) in REFUSED_CALLS.items() if text.startswith(BUFFER)},
    "len_lowered": ("INTERNAL", BUFFER),  # in a chunk the answers before it lie below; but see the test
    "returns_panic": ("PANIC", "index out of range"),
    "returns_status": ("INTERNAL", "status 99"),
    "answer_empty": ("INVALID_DATA", "no JSON object"),
    "answer_many_lines": ("INVALID_DATA", "not one line of UTF-8"),
    "answer_newline": ("INVALID_DATA", "not one line of UTF-8"),
    "answer_not_object": ("INVALID_DATA", "no JSON object"),
    "answer_not_utf8": ("INVALID_DATA", "not one line of UTF-8"),
    "error_empty": ("UNAVAILABLE", "UNAVAILABLE"),
    "error_huge": ("INVALID_DATA", "xxxx"),
    "error_not_json": ("INVALID_DATA", "plain words"),
    "error_not_utf8": ("INVALID_DATA", "byte"),
    "error_with_details": ("UNAVAILABLE", "The database is away"),
    "metadata_with_error": ("NOT_FOUND", "No such thing"),
}
"""As a step it fails on every record: the status and the message of each."""

APART = {
    "answer_huge": "test_an_answer_past_the_limit_is_out_of_memory",
    "answer_newline": "test_faults_in_a_flow",
    "cancel_ignored": "test_a_stream_that_ignores_cancel_can_be_closed",
    "close_slow": "test_a_slow_close_is_over_for_all_who_close",
    "constructor": "test_reading_a_library_runs_none_of_it",
    "counts_closes": "test_a_source_is_closed_once_and_after_its_stream",
    "ends_twice": "test_a_stream_ends_once",
    "endless": "test_an_endless_source_ends_when_its_reader_does",
    "error_huge": "test_a_huge_error_is_bounded",
    "error_with_details": "test_an_error_carries_what_the_plugin_told",
    "fails_some": "test_what_fails_now_and_then_fails_those_records_only",
    "feed_slow": "test_a_stream_is_closed_after_a_feed_under_way",
    "feed_status": "test_what_feed_may_answer",
    "item_error": "test_a_bad_item_is_one_item",
    "logger_thread": "test_a_thread_that_outlives_its_instance_may_log",
    "metadata_fails": "test_items_whose_metadata_fails",
    "metadata_with_error": "test_an_error_carries_what_the_plugin_told",
    "next_breaks_buffer": "test_an_item_that_breaks_the_buffer_is_not_given_out",
    "next_status": "test_what_next_may_answer",
    "next_waits": "test_a_source_that_waits_holds_nothing_back",
    "ops_longer": "test_a_longer_table_is_taken",
    "poisons": "test_a_poisoned_instance_is_never_entered_again",
    "position_not_json": "test_a_position_that_is_no_json_is_an_error",
    "reentrant": "test_a_call_from_inside_a_call_is_refused",
    "returns_status": "test_every_status_has_its_exception",
    "sink_full": "test_a_full_sink_ends_the_flow",
    "slow": "test_a_slow_call_holds_nobody_else",
    "wakes_after_close": "test_wakes_for_a_stream_that_is_gone_are_ignored",
    "wakes_for_ever": "test_a_storm_of_wakes_loses_nothing",
    "wakes_never": "test_a_wake_that_never_comes_holds_up_nobody_else",
}
"""Faults with a test of their own."""


def test_every_fault_has_a_case() -> None:
    """A plugin that is added to the zoo cannot be forgotten here, and a case names no plugin that is gone."""
    cases = {
        *REJECTED,
        *REFUSED_AT_LOAD,
        *REFUSED_AT_CREATE,
        *REFUSED_CALLS,
        *REFUSED_STREAMS,
        *APART,
    }
    assert cases == FILES
    assert set(IN_A_FLOW) <= FILES
    assert set(APART.values()) <= set(globals())


# ---- fixtures ------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def zoo(compile_c: Compile) -> Library:
    """The path of a library of the zoo. All are compiled at once, on every core."""

    def build(name: str) -> Path:
        flags = ("-O1", "-pthread", f"-I{ZOO}")
        return compile_c((ZOO / f"{name}.c").read_text(encoding="utf-8"), name, *flags)

    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        built = dict(zip(sorted(FILES), pool.map(build, sorted(FILES)), strict=True))
    return built.__getitem__


@pytest.fixture(scope="session")
def good(compile_c: Compile) -> Path:
    """A library without a fault: example_plugins/c/identity."""
    source = ROOT / "example_plugins" / "c" / "identity" / "identity.c"
    return compile_c(source.read_text(encoding="utf-8"), "identity", "-O1")


@pytest.fixture(scope="session")
def acts(compile_c: Compile) -> Path:
    """tests/plugins/act.c: the source `lines` and the sink `keep`."""
    return compile_c((ROOT / "tests" / "plugins" / "act.c").read_text(encoding="utf-8"), "act", "-O1")


@pytest.fixture
def host() -> Iterator[ferrule.Host]:
    """A host of the test's own."""
    with ferrule.Host() as host:
        yield host


@pytest.fixture(autouse=True)
def _the_others_go_on(good: Path) -> Iterator[None]:
    """After each fault, a plugin of another library works in the same process."""
    yield
    with ferrule.Host() as host:
        assert host.function(str(good)).process({"id": 7}) == {"id": 7}


def flow(
    folder: Path,
    *,
    records: int,
    acts: Path,
    steps: str,
    source: str | None = None,
    sink: str | None = None,
    dead: bool = True,
) -> ferrule.Flow:
    """A flow of numbered records through these steps; by default from a file to a file."""
    (folder / "in").write_text("".join(f'{{"n":{n}}}\n' for n in range(1, records + 1)))
    source = source or f'{{plugin: "{acts}:lines", config: {{path: "{folder / "in"}"}}}}'
    sink = sink or f'{{plugin: "{acts}:keep", config: {{path: "{folder / "out"}"}}}}'
    letters = f'delivery: {{dead_letter: "{folder / "dead"}"}}' if dead else ""
    return ferrule.Flow.loads(f"source: {source}\nsteps: {steps}\nsink: {sink}\n{letters}\n")


def written(folder: Path) -> list[Any]:
    return [json.loads(line) for line in (folder / "out").read_bytes().splitlines()]


def letters(folder: Path) -> list[Any]:
    return [json.loads(line) for line in (folder / "dead").read_bytes().splitlines()]


# ---- libraries -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(REJECTED))
def test_a_damaged_library_is_rejected_by_reading_it(zoo: Library, good: Path, host: ferrule.Host, name: str) -> None:
    """A scan says in one message what is wrong and goes on with the others; asked for, it is a LibraryError."""
    path = zoo(name)
    scan = Registry([path, good], only=True).scan()
    assert [found.plugin.name for found in scan.found] == ["identity"]
    (rejected,) = scan.rejected
    assert rejected.path == path
    with pytest.raises(ferrule.LibraryError, match=REJECTED[name]) as caught:
        host.create(str(path))
    assert caught.value.path == path
    assert str(path) in str(caught.value)
    assert not is_mapped(path)


@pytest.mark.parametrize("name", sorted(REFUSED_AT_LOAD))
def test_a_library_that_lies_is_refused_as_it_is_loaded(zoo: Library, host: ferrule.Host, name: str) -> None:
    """What it answers must be what the file says; its create is never called. The error names the author's file."""
    path = zoo(name)
    assert [found.plugin.name for found in Registry([path], only=True).scan().found] == [name.replace("_", "-")]
    for _ in range(2):
        with pytest.raises(ferrule.LibraryError, match=REFUSED_AT_LOAD[name]) as caught:
            host.create(str(path))
        assert caught.value.path == path


def is_mapped(path: Path) -> bool:
    """Whether a library, or a private copy of it, is loaded in this process."""
    maps = Path("/proc/self/maps")
    return maps.exists() and path.name in maps.read_text()


def test_reading_a_library_runs_none_of_it(
    zoo: Library, acts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Scan, find, inspect, list and lint leave no trace of a library's constructor; making an instance does."""
    mark = tmp_path / "mark"
    monkeypatch.setenv("FERRULE_FAULTY_MARK", str(mark))
    path = zoo("constructor")
    text = f'source: {{plugin: "{acts}:lines", config: {{path: x}}}}\nsteps: [{{plugin: "{path}"}}]\n'
    text += f'sink: {{plugin: "{acts}:keep", config: {{path: y}}}}\n'
    (tmp_path / "flow.yaml").write_text(text)

    registry = Registry([path], only=True)
    assert registry.find("function", "constructor").plugin.name == "constructor"
    assert read_image(path).abi == (0, 1)
    flow = ferrule.Flow.load(tmp_path / "flow.yaml")
    assert flow.lint() == []
    assert resolve(flow.spec, registry).steps[0].plugin.path == path
    for arguments in (["inspect", path], ["list", path.parent], ["lint", tmp_path / "flow.yaml"]):
        command = [sys.executable, "-m", "ferrule", *map(str, arguments)]
        subprocess.run(command, check=True, capture_output=True, env={**os.environ, "PYTHONPATH": str(ROOT / "src")})
    assert not mark.exists()

    with ferrule.Host() as host:
        assert host.create(str(path)).call("process", {"id": 1}) == {"id": 1}
    assert mark.read_text() == "ran\n"


# ---- create --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(REFUSED_AT_CREATE))
def test_an_instance_that_breaks_a_rule_is_refused(zoo: Library, host: ferrule.Host, name: str) -> None:
    """create's error names the plugin and the rule, as often as it is tried."""
    kind, message = REFUSED_AT_CREATE[name]
    for _ in range(2):
        with pytest.raises(kind, match=message) as caught:
            host.create(str(zoo(name)))
        assert type(caught.value) is kind
        assert caught.value.plugin == name.replace("_", "-")
        assert caught.value.method is None


ERRORS = {
    -1: ferrule.InvalidArgumentError,
    -2: ferrule.InvalidConfigError,
    -3: ferrule.InvalidDataError,
    -4: ferrule.InvalidStateError,
    -5: ferrule.NotFoundError,
    -6: ferrule.UnsupportedError,
    -7: ferrule.UnauthenticatedError,
    -8: ferrule.DeniedError,
    -9: ferrule.UnavailableError,
    -10: ferrule.PluginTimeoutError,
    -11: ferrule.CancelledError,
    -12: ferrule.OutOfMemoryError,
    -13: ferrule.PluginIOError,
    -14: ferrule.InternalError,
    -15: ferrule.PanicError,
}
STRANGE = (1, 2, 4, 31, 32, 99, 2**31 - 1, -16, -99, -(2**31))


@pytest.mark.parametrize("status", [*ERRORS, *STRANGE, 3])
def test_a_status_of_create(zoo: Library, host: ferrule.Host, status: int) -> None:
    """create's error statuses have their exceptions; SKIP, END, PENDING and numbers without a meaning are INTERNAL."""
    with pytest.raises(ferrule.PluginError) as caught:
        host.create(str(zoo("create_returns_status")), {"status": status})
    assert type(caught.value) is ERRORS.get(status, ferrule.InternalError)
    if status in ERRORS:
        assert caught.value.message == ERRORS[status].status_name
    else:
        assert f"status {status}, which this function may not give" in caught.value.message


def test_a_longer_table_is_taken(zoo: Library, host: ferrule.Host) -> None:
    """A plugin of a newer SDK, whose tables have grown, works."""
    assert host.create(str(zoo("ops_longer"))).call("process", {"id": 1}) == {"id": 1}


# ---- calls ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(REFUSED_CALLS))
def test_a_call_that_breaks_a_rule_is_an_error(zoo: Library, host: ferrule.Host, name: str) -> None:
    """Each fault has its exception; INTERNAL and PANIC poison the instance, and a new one can be made."""
    kind, message, poisons = REFUSED_CALLS[name]
    for _ in range(2):
        function = host.function(str(zoo(name)))
        with pytest.raises(kind, match=message) as caught:
            function.process({"id": 1})
        assert type(caught.value) is kind
        assert (caught.value.plugin, caught.value.method) == (name.replace("_", "-"), "process")
        assert function.instance.poisoned == poisons
        with pytest.raises(ferrule.InvalidStateError if poisons else kind, match="poisoned" if poisons else message):
            function.process({"id": 2})
        function.close()


@pytest.mark.parametrize("lazy", [False, True])
def test_an_empty_error_among_many_is_named_by_its_status(zoo: Library, host: ferrule.Host, lazy: bool) -> None:
    """Where no call of many left a word, each failure is still its status's exception, with its number."""
    function = host.function(str(zoo("error_empty")))
    got = function.process_many([b"{}", b"{}"], errors="return", lazy=lazy)
    assert [(type(each), each.message, each.record) for each in got] == [
        (ferrule.UnavailableError, "UNAVAILABLE", number) for number in (1, 2)
    ]
    with pytest.raises(ferrule.UnavailableError):
        function.process_many([b"{}"], lazy=lazy)


@pytest.mark.parametrize("status", [*ERRORS, *STRANGE])
def test_every_status_has_its_exception(zoo: Library, host: ferrule.Host, status: int) -> None:
    """A status below OK raises its class, named by the status if it has no text; what ferrule.h lacks is INTERNAL."""
    with host.create(str(zoo("returns_status")), {"status": status}) as instance:
        with pytest.raises(ferrule.PluginError) as caught:
            instance.call("process", {"id": 1})
        assert type(caught.value) is ERRORS.get(status, ferrule.InternalError)
        assert caught.value.status == (status if status in ERRORS else -14)
        if status in ERRORS:
            assert caught.value.message == caught.value.status_name
        assert instance.poisoned == (status not in ERRORS or status in (-14, -15))


@pytest.mark.parametrize(("status", "answer"), [(0, {}), (3, None)])
def test_answers_that_are_no_fault(zoo: Library, host: ferrule.Host, status: int, answer: object) -> None:
    """OK is the answer, SKIP is None."""
    instance = host.create(str(zoo("returns_status")), {"status": status})
    assert instance.call("process", {"id": 1}) == answer
    assert instance.method("process")({"id": 1}) == answer
    assert not instance.poisoned


def test_a_poisoned_instance_is_never_entered_again(zoo: Library, host: ferrule.Host) -> None:
    """The plugin aborts when it is called after INTERNAL; every later call is INVALID_STATE that says why."""
    instance = host.create(str(zoo("poisons")), {"at": 3})
    process = instance.method("process")
    assert [process({"id": n}) for n in (1, 2)] == [{"id": 1}, {"id": 2}]
    with pytest.raises(ferrule.InternalError, match="My state is broken"):
        process({"id": 3})
    for call in (process, lambda value: instance.call("process", value)):
        with pytest.raises(ferrule.InvalidStateError, match="poisoned by an earlier fault; make a new one"):
            call({"id": 4})
    instance.close()
    assert host.create(str(zoo("poisons"))).call("process", {"id": 5}) == {"id": 5}


def test_an_error_carries_what_the_plugin_told(zoo: Library, host: ferrule.Host) -> None:
    """Details, the time to wait, and metadata beside an error are on the exception."""
    with pytest.raises(ferrule.UnavailableError, match="The database is away") as caught:
        host.create(str(zoo("error_with_details"))).call("process", {})
    assert caught.value.details == {"endpoint": "db", "tries": [1, 2]}
    assert caught.value.retry_after == 0.25
    assert caught.value.may_retry
    with pytest.raises(ferrule.NotFoundError, match="No such thing") as missing:
        host.create(str(zoo("metadata_with_error"))).call("process", {})
    assert missing.value.metadata == {"trace": "abc"}
    assert not missing.value.may_retry


def test_a_huge_error_is_bounded(zoo: Library, host: ferrule.Host) -> None:
    """A plugin that complains for 10 MB is heard for 1 MiB at most."""
    with pytest.raises(ferrule.InvalidDataError) as caught:
        host.create(str(zoo("error_huge"))).call("process", {})
    assert 0 < len(caught.value.message) <= 1 << 20


def test_an_answer_past_the_limit_is_out_of_memory(zoo: Library, host: ferrule.Host) -> None:
    """reserve refuses what passes 1 GiB; the plugin says OUT_OF_MEMORY, the instance lives, and no memory is kept."""
    instance = host.create(str(zoo("answer_huge")))
    with pytest.raises(ferrule.OutOfMemoryError, match="The host refuses more room") as caught:
        instance.call("process", {})
    assert isinstance(caught.value, MemoryError)
    assert not instance.poisoned
    assert resident() < 512 << 20


def test_a_call_from_inside_a_call_is_refused(zoo: Library, host: ferrule.Host) -> None:
    """A serial instance that calls itself gets INVALID_STATE at once; the outer call goes on."""
    seen: list[ferrule.InvalidStateError] = []
    instance: ferrule.Instance | None = None

    def again() -> None:
        assert instance is not None
        for work in (lambda: instance.call("process", {}), instance.close):
            try:
                work()
            except ferrule.InvalidStateError as error:
                seen.append(error)

    callback = ctypes.CFUNCTYPE(None)(again)
    address = ctypes.cast(callback, ctypes.c_void_p).value
    instance = host.create(str(zoo("reentrant")), {"callback": address})
    assert instance.call("process", {"id": 1}) == {"id": 1}
    assert "re-entrant" in str(seen[0])
    assert "not from inside one of its calls" in str(seen[1])
    assert instance.call("process", {"id": 2}) == {"id": 2}


@pytest.mark.timed
def test_a_slow_call_holds_nobody_else(zoo: Library, good: Path, host: ferrule.Host) -> None:
    """While one instance sleeps in C, others of the library and of other libraries are called, and Python runs."""
    slow = host.create(str(zoo("slow")), {"ms": 1500})
    quick = host.create(str(zoo("slow")), {"ms": 0})
    other = host.create(str(good))
    thread = threading.Thread(target=slow.call, args=("process", {}), kwargs={"timeout": 0.1})
    thread.start()
    for number in range(100):
        assert quick.call("process", {"n": number}) == {"n": number}
        assert other.call("process", {"n": number}) == {"n": number}
    alive = thread.is_alive()
    thread.join()
    timely(alive)


LISTEN = """
import logging, sys, time
import ferrule
from ferrule.native.door import names

heard = []
handler = logging.Handler()
handler.emit = lambda record: heard.append(record.name)
logging.getLogger("ferrule.plugin").addHandler(handler)
logging.getLogger("ferrule.plugin").setLevel(logging.INFO)
with ferrule.Host() as host:
    instance = host.create(sys.argv[1])
    until = time.monotonic() + 10
    while "ferrule.plugin.logger-thread" not in heard and time.monotonic() < until:
        time.sleep(0.01)
    assert "ferrule.plugin.logger-thread" in heard
until = time.monotonic() + 10
while "logger-thread" in names.values() and time.monotonic() < until:  # what it said before that may still come
    time.sleep(0.01)
heard.clear()
while len(heard) < 20 and time.monotonic() < until:
    time.sleep(0.01)
assert set(heard) == {"ferrule.plugin.library"}, set(heard)
"""


def test_a_thread_that_outlives_its_instance_may_log(zoo: Library) -> None:
    """What the thread logs for a dead id is ignored; for the library it still arrives; the process ends well."""
    done = subprocess.run(
        [sys.executable, "-c", LISTEN, str(zoo("logger_thread"))],
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


# ---- streams -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(REFUSED_STREAMS))
def test_a_stream_that_breaks_a_rule_is_refused(zoo: Library, host: ferrule.Host, acts: Path, name: str) -> None:
    """open answers INTERNAL naming the rule, the instance is poisoned, and a new one can be made."""
    for _ in range(2):
        instance = host.create(str(zoo(name)))
        with pytest.raises(ferrule.InternalError, match=REFUSED_STREAMS[name]):
            instance.open("read_data")
        assert instance.poisoned
        with pytest.raises(ferrule.InvalidStateError, match="poisoned"):
            instance.open("read_data")
        instance.close()


@pytest.mark.parametrize("name", sorted(REFUSED_STREAMS))
def test_a_source_that_cannot_be_opened_ends_the_flow(zoo: Library, acts: Path, tmp_path: Path, name: str) -> None:
    """The flow's error names the source's step; nothing is written."""
    with pytest.raises(ferrule.InternalError, match=REFUSED_STREAMS[name]) as caught:
        flow(tmp_path, records=0, acts=acts, steps="[]", source=f'{{plugin: "{zoo(name)}", name: from}}').run()
    assert caught.value.step == "from"
    assert written(tmp_path) == []


@pytest.mark.parametrize("status", [*ERRORS, *STRANGE, 3])
def test_what_next_may_answer(zoo: Library, host: ferrule.Host, acts: Path, tmp_path: Path, status: int) -> None:
    """INVALID_DATA, UNAVAILABLE and TIMEOUT leave a stream as it is (the last, behind records, means no more for now),
    PENDING is asked again, END ends it; other errors end it too; SKIP and numbers without a meaning are INTERNAL and
    poison. A flow names the source and the record."""
    with host.source(str(zoo("next_status")), {"status": status, "items": 2}) as source:
        stream = source.read()
        assert [next(stream), next(stream)] == [{"id": 1}, {"id": 2}]
        if status not in (1, 2, -10):
            with pytest.raises(ferrule.PluginError) as caught:
                next(stream)
            assert type(caught.value) is ERRORS.get(status, ferrule.InternalError)
        assert list(stream) == []
        assert source.instance.poisoned == (status not in (1, 2) and (status not in ERRORS or status in (-14, -15)))

    from_zoo = f'{{plugin: "{zoo("next_status")}", name: from, config: {{status: {status}, items: 2}}, on_error: skip}}'
    running = flow(tmp_path, records=0, acts=acts, steps="[]", source=from_zoo)
    if status in (1, 2, -3, -10):
        summary = running.run()
        assert (summary.written, summary.skipped) == (2, int(status == -3))
    else:
        with pytest.raises(ferrule.PluginError) as failed:
            running.run()
        assert type(failed.value) is ERRORS.get(status, ferrule.InternalError)
        assert (failed.value.step, failed.value.record, failed.value.method) == ("from", 3, "read_data")
    assert written(tmp_path) == [{"id": 1}, {"id": 2}]


@pytest.mark.timed
def test_a_source_that_waits_holds_nothing_back(zoo: Library, host: ferrule.Host) -> None:
    """What came is handed on although more may come, and cancel ends the wait at once."""
    stream = host.create(str(zoo("next_waits")), {"items": 3}).open("read_data")
    began = time.monotonic()
    assert [next(stream)["id"] for _ in range(3)] == [1, 2, 3]
    timely(time.monotonic() - began < 1)
    timer = threading.Timer(0.2, stream.cancel)
    began = time.monotonic()
    timer.start()
    with pytest.raises(ferrule.CancelledError, match="Cancelled while waiting"):
        next(stream)
    assert time.monotonic() - began > 0.1
    timely(time.monotonic() - began < 2)
    timer.join()


def test_an_endless_source_ends_when_its_reader_does(
    zoo: Library, host: ferrule.Host, acts: Path, tmp_path: Path
) -> None:
    """A reader that stops early is all it takes, and so is a flow's limit."""
    with host.source(str(zoo("endless"))) as source:
        for record in source:
            if record["id"] == 5000:
                break
    limited = flow(tmp_path, records=0, acts=acts, steps="[]", source=f'{{plugin: "{zoo("endless")}"}}')
    assert limited.run(limit=2500).read == 2500
    assert [record["id"] for record in written(tmp_path)] == list(range(2500))


def test_a_stream_ends_once(zoo: Library, host: ferrule.Host, acts: Path, tmp_path: Path) -> None:
    """After END it is not asked again, whoever reads and however often."""
    stream = host.create(str(zoo("ends_twice"))).open("read_data")
    assert list(stream) == [{"id": 1}]
    for _ in range(3):
        assert list(stream) == []
    from_zoo = f'{{plugin: "{zoo("ends_twice")}"}}'
    assert flow(tmp_path, records=0, acts=acts, steps="[]", source=from_zoo).run().written == 1


def test_an_item_that_breaks_the_buffer_is_not_given_out(
    zoo: Library, host: ferrule.Host, acts: Path, tmp_path: Path
) -> None:
    """The records before it are whole, the fault is INTERNAL and poisons, and a flow names the record."""
    instance = host.create(str(zoo("next_breaks_buffer")), {"items": 2})
    stream = instance.open("read_data")
    assert [next(stream), next(stream)] == [{"id": 1}, {"id": 2}]
    with pytest.raises(ferrule.InternalError, match=BUFFER + r"set its length past its capacity"):
        next(stream)
    assert list(stream) == []
    assert instance.poisoned

    from_zoo = f'{{plugin: "{zoo("next_breaks_buffer")}", name: from, config: {{items: 2}}}}'
    with pytest.raises(ferrule.InternalError, match="past its capacity") as caught:
        flow(tmp_path, records=0, acts=acts, steps="[]", source=from_zoo).run()
    assert (caught.value.step, caught.value.record) == ("from", 3)
    assert written(tmp_path) == [{"id": 1}, {"id": 2}]


def test_a_stream_that_ignores_cancel_can_be_closed(zoo: Library, host: ferrule.Host) -> None:
    """Cancel is a request: it gives records still, in order. Close ends it, from the reader's thread or another's."""
    instance = host.create(str(zoo("cancel_ignored")))
    stream = instance.open("read_data")
    assert next(stream) == {"id": 1}
    stream.cancel()
    assert [next(stream)["id"] for _ in range(5)] == [2, 3, 4, 5, 6]
    stream.close()
    assert list(stream) == []

    stream = instance.open("read_data")
    timer = threading.Timer(0.2, stream.close)
    timer.start()
    ids = []
    try:
        ids += [record["id"] for record in stream]
    except ferrule.InvalidStateError as error:
        assert "closed" in str(error)
    timer.join(10)
    assert not timer.is_alive()
    assert ids == list(range(1, len(ids) + 1))


def gather(stream: Any, into: list[Any]) -> None:
    """Read to the end, or to the error."""
    try:
        into.extend(stream)
    except ferrule.PluginError as error:
        into.append(error)


@pytest.mark.parametrize("let_go", ["cancel", "close"])
def test_a_wake_that_never_comes_holds_up_nobody_else(
    zoo: Library, host: ferrule.Host, good: Path, let_go: str
) -> None:
    """Who waits for it is let go by cancel, with the plugin's own answer, and by close; others go on meanwhile."""
    stream = host.create(str(zoo("wakes_never")), {"ms": 3_600_000}).open("read_data")
    found: list[Any] = []
    reader = threading.Thread(target=gather, args=(stream, found))
    reader.start()
    reader.join(0.2)
    assert reader.is_alive()
    assert host.function(str(good)).process({"id": 1}) == {"id": 1}
    getattr(stream, let_go)()
    reader.join(10)
    assert not reader.is_alive()
    if let_go == "cancel":
        (error,) = found
        assert isinstance(error, ferrule.CancelledError)
        assert "Cancelled without a wake" in str(error)
    else:
        assert all(isinstance(error, ferrule.InvalidStateError | ferrule.CancelledError) for error in found)


def test_a_storm_of_wakes_loses_nothing(zoo: Library, host: ferrule.Host, good: Path) -> None:
    """Its records come, its end too, other plugins answer meanwhile, and it can be closed before its end."""
    with host.create(str(zoo("wakes_for_ever"))) as instance:
        assert list(instance.open("read_data")) == [{"id": 1}, {"id": 2}]
        for _ in range(3):
            with instance.open("read_data") as stream:
                assert next(stream) == {"id": 1}
                assert host.function(str(good)).process({"id": 1}) == {"id": 1}


WAKE = """
import sys, time, ferrule
with ferrule.Host() as host:
    with host.create(sys.argv[1]) as instance:
        assert list(instance.open("read_data")) == [{"id": 1}]
        instance.open("read_data").close()
        time.sleep(0.05)
        assert list(instance.open("read_data")) == [{"id": 1}]
    time.sleep(0.05)
    open_still = host.create(sys.argv[1]).open("read_data")
    assert next(open_still) == {"id": 1}
"""


def test_wakes_for_a_stream_that_is_gone_are_ignored(zoo: Library) -> None:
    """After close and destroy, beside new streams, and while the process ends, which it does well."""
    done = subprocess.run(
        [sys.executable, "-c", WAKE, str(zoo("wakes_after_close"))],
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


def native(path: Path, config: dict[str, Any], *, serial: bool = True) -> NativeObject:
    """An instance of a source of the zoo, as the layer above C sees it."""
    library = NativeLibrary(path, read_image(path).manifest_json)
    name = path.stem.removeprefix("lib").replace("_", "-")
    return library.create(name, json.dumps(config).encode(), serial=serial, methods=["read_data"])


@contextmanager
def fed(path: Path, config: dict[str, int]) -> Iterator[NativeStream]:
    """A stream of the zoo, with its bytes."""
    instance = native(path, config)
    stream = instance.open("read_data", b"null")
    yield stream
    stream.close()
    instance.close()


@pytest.mark.parametrize("status", [*ERRORS, *STRANGE])
def test_what_feed_may_answer(zoo: Library, status: int) -> None:
    """END says that no more is wanted; PENDING is waited for; INVALID_DATA, UNAVAILABLE and TIMEOUT leave the stream as
    it is; other errors end it for its reader too; SKIP and numbers without a meaning are INTERNAL and poison."""
    with fed(zoo("feed_status"), {"status": status}) as stream:
        if status == 1:
            assert [stream.feed(b"more", final=False, timeout=None) for _ in range(2)] == ["end", "end"]
        elif status == 2:
            assert stream.feed(b"more", final=True, timeout=0) == "pending"
            with pytest.raises(ferrule.PluginTimeoutError, match="no room within"):
                stream.feed(b"more", final=True, timeout=0.05)
        else:
            with pytest.raises(ferrule.PluginError) as caught:
                stream.feed(b"more", final=False, timeout=None)
            assert type(caught.value) is ERRORS.get(status, ferrule.InternalError)
        items, after = stream.fill(0)
        if after is None:  # a thread that is held up takes less at a time
            after = stream.fill(0)[1]
        if status in (1, 2, -3, -9, -10):
            assert (items, after) == ([b'{"id":1}'], "pending")
        else:
            assert items == [] and type(after) is not str
        poisons = status not in (1, 2) and (status not in ERRORS or status in (-14, -15))
        assert stream.owner.poisoned == poisons


@pytest.mark.timed
def test_a_stream_is_closed_after_a_feed_under_way(zoo: Library, good: Path) -> None:
    """Meanwhile its reader's time limit holds and cancel reaches it; close waits for the feed, and only for it."""
    with fed(zoo("feed_slow"), {"ms": 500}) as stream, ThreadPoolExecutor(1) as pool:
        assert isinstance(stream.fill(0.01)[1], ferrule.PluginTimeoutError)
        feeding = pool.submit(stream.feed, b"x", final=False, timeout=None)
        until(lambda: stream.position() == b"1")
        assert isinstance(stream.fill(0.01)[1], ferrule.PluginTimeoutError)
        timely(not feeding.done())
        stream.cancel()
        assert isinstance(stream.fill(None)[1], ferrule.CancelledError)
        stream.close()
        assert feeding.result(10) == "taken"


@pytest.mark.timed
def test_a_slow_close_is_over_for_all_who_close(zoo: Library, good: Path) -> None:
    """Whoever closes a stream that another thread is closing comes back when the plugin has."""
    with fed(zoo("close_slow"), {"ms": 500}) as stream, ThreadPoolExecutor(1) as pool:
        closing = pool.submit(stream.close)
        while not isinstance(stream.fill(0)[1], ferrule.InvalidStateError):
            time.sleep(0.001)
        timely(not closing.done())
        stream.close()
        stream.owner.close()
        assert closing.result(10) is None


@pytest.mark.parametrize("serial", [True, False])
def test_a_stream_that_is_opened_while_its_instance_is_closed(zoo: Library, tmp_path: Path, serial: bool) -> None:
    """close comes while the plugin is in open: it waits for that, closes the stream, and destroys the instance then."""
    log = tmp_path / "log"
    instance = native(zoo("counts_closes"), {"path": str(log), "open_ms": 300}, serial=serial)
    with ThreadPoolExecutor(1) as pool:
        opening = pool.submit(instance.open, "read_data", b"null")
        until(log.exists)
        instance.close()
        assert log.read_text().split() == ["open", "stream-close", "destroy"]
        assert isinstance(opening.result().fill(None)[1], ferrule.InvalidStateError)


@pytest.mark.parametrize("status", [*ERRORS, *STRANGE])
def test_items_whose_metadata_fails(zoo: Library, host: ferrule.Host, status: int) -> None:
    """An item is good whatever becomes of its metadata; the error comes after it, and the end comes once."""
    instance = host.create(str(zoo("metadata_fails")), {"status": status})
    stream, found = instance.open("read_data"), list[Any]()
    for _ in range(10):
        try:
            found.append(next(stream))
        except ferrule.PluginError as error:
            found.append(type(error))
        except StopIteration:
            break
    fault = ERRORS.get(status, ferrule.InternalError)
    if issubclass(fault, ferrule.InvalidDataError | ferrule.UnavailableError | ferrule.PluginTimeoutError):
        assert found == [{"id": 1}, fault, {"id": 2}, fault, fault]
    else:
        assert found == [{"id": 1}, fault]
    assert instance.poisoned == (fault in (ferrule.InternalError, ferrule.PanicError))
    assert list(stream) == []


def test_a_position_that_is_no_json_is_an_error(zoo: Library, host: ferrule.Host) -> None:
    """position() says so and shows it; the stream goes on."""
    with host.create(str(zoo("position_not_json"))).open("read_data") as stream:
        assert next(stream) == {"id": 1}
        with pytest.raises(ferrule.InternalError, match=r"position is no JSON.*'line 7'"):
            stream.position()
        assert len(list(stream)) == 4


def test_a_bad_item_is_one_item(zoo: Library, host: ferrule.Host, acts: Path, tmp_path: Path) -> None:
    """The reader gets its error and then the others; a flow does what on_error says, with the item's own text."""
    found: list[Any] = []
    stream = host.source(str(zoo("item_error"))).read()
    while True:
        try:
            found.append(next(stream)["id"])
        except ferrule.InvalidDataError as error:
            found.append(error.details)
        except StopIteration:
            break
    assert found == [1, 2, {"record": "3;broken"}, 4, 5]

    def run(on_error: str) -> ferrule.Summary:
        source = f'{{plugin: "{zoo("item_error")}", name: from, on_error: {on_error}}}'
        return flow(tmp_path, records=0, acts=acts, steps="[]", source=source).run()

    summary = run("skip")
    assert (summary.read, summary.written, summary.skipped, summary.dead) == (5, 4, 1, 0)
    summary = run("dead_letter")
    assert (summary.read, summary.written, summary.skipped, summary.dead) == (5, 4, 0, 1)
    assert [record["id"] for record in written(tmp_path)] == [1, 2, 4, 5]
    (letter,) = letters(tmp_path)
    assert (letter["number"], letter["step"], letter["status"]) == (3, "from", "INVALID_DATA")
    assert letter["error"] == {"message": "Line 3 has 2 fields, expected 3", "details": {"record": "3;broken"}}
    with pytest.raises(ferrule.InvalidDataError, match="Line 3 has 2 fields") as caught:
        run("fail")
    assert (caught.value.step, caught.value.record) == ("from", 3)
    assert caught.value.details == {"record": "3;broken"}
    assert [record["id"] for record in written(tmp_path)] == [1, 2]


CLOSED = ["connect", "open", "stream-close", "close", "destroy"]


def test_a_source_is_closed_once_and_after_its_stream(
    zoo: Library, acts: Path, host: ferrule.Host, tmp_path: Path
) -> None:
    """Read to its end, stopped early, failing, left open, dropped, in a flow: each is closed once, in that order."""
    number = 0

    def source(**config: Any) -> tuple[ferrule.Source, Path]:
        nonlocal number
        number += 1
        path = tmp_path / f"closes-{number}"
        return host.source(str(zoo("counts_closes")), {"path": str(path), **config}), path

    made, path = source()
    with made:
        assert len(list(made)) == 3
    made.close()
    assert path.read_text().split() == CLOSED

    made, path = source()
    with made:
        for _ in made:
            break
    assert path.read_text().split() == CLOSED

    made, path = source(fail_at=2)
    with made, pytest.raises(ferrule.PluginIOError, match="The device is gone"):
        list(made)
    assert path.read_text().split() == CLOSED

    made, path = source()
    stream = made.read()
    assert next(stream) == {"id": 1}
    made.close()
    assert path.read_text().split() == CLOSED
    stream.close()
    assert path.read_text().split() == CLOSED

    with ferrule.Host() as another:
        made = another.source(str(zoo("counts_closes")), {"path": str(tmp_path / "host")})
        stream = made.read()
    assert (tmp_path / "host").read_text().split() == CLOSED

    for at, (config, steps, limit) in enumerate(
        [("", "[]", None), ("fail_at: 2, ", "[]", None), ("", f'[{{plugin: "{zoo("returns_status")}"}}]', 2)]
    ):
        path = tmp_path / f"flow-{at}"
        given = f'{{plugin: "{zoo("counts_closes")}", config: {{{config}path: "{path}"}}}}'
        running = flow(tmp_path, records=0, acts=acts, steps=steps, source=given)
        if at == 0:
            assert running.run(limit=limit).written == 3
        else:
            with pytest.raises(ferrule.PluginError):
                running.run(limit=limit)
        assert path.read_text().split() == CLOSED


# ---- flows ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(IN_A_FLOW))
def test_faults_in_a_flow(zoo: Library, good: Path, acts: Path, tmp_path: Path, name: str) -> None:
    """Under fail the error names step, plugin and the first record; under skip and dead_letter every record ends so, a
    poisoned instance being made anew for each; nothing of it reaches the sink, and the step after it is not blamed."""
    status, message = IN_A_FLOW[name]
    plugin = name.replace("_", "-")
    if name == "len_lowered":  # alone at the start of the answer there is nothing below it: then it is an empty one
        status, message = "INVALID_DATA", "no JSON object"

    def run(on_error: str) -> ferrule.Summary:
        step = f'{{plugin: "{zoo(name)}", name: fault, on_error: {on_error}}}'
        between = f'{{plugin: "{good}"}}'
        return flow(tmp_path, records=5, acts=acts, steps=f"[{between}, {step}, {between}]").run()

    with pytest.raises(ferrule.PluginError, match=message) as caught:
        run("fail")
    assert (caught.value.step, caught.value.plugin, caught.value.record) == ("fault", plugin, 1)
    assert caught.value.method == "process"
    assert caught.value.status_name == status
    assert written(tmp_path) == []

    summary = run("skip")
    assert (summary.read, summary.written, summary.skipped, summary.dead) == (5, 0, 5, 0)
    assert [step.errors for step in summary.steps] == [0, 5, 0]

    summary = run("dead_letter")
    assert (summary.read, summary.written, summary.skipped, summary.dead) == (5, 0, 0, 5)
    assert written(tmp_path) == []
    found = letters(tmp_path)
    assert [(letter["number"], letter["record"]["n"]) for letter in found] == [(n, n) for n in range(1, 6)]
    for letter in found:
        assert (letter["step"], letter["status"]) == ("fault", status)
        assert message in letter["error"]["message"]


def test_answers_below_a_fault_are_kept(zoo: Library, acts: Path, compile_c: Compile, tmp_path: Path) -> None:
    """A last step that lowers the length of a shared answer loses none of the records before it."""
    source = (
        (ZOO / "len_lowered.c")
        .read_text()
        .replace(
            "    out->len = 0;\n",
            "    if (((struct faulty *)self)->count++ == 0) return ferrule_append(out, in, in_len);\n"
            "    out->len = 0;\n",
        )
    )
    assert "count++" in source
    library = compile_c(source, "len_lowered_later", "-O1", f"-I{ZOO}")
    steps = f'[{{plugin: "{library}", name: fault, on_error: dead_letter}}]'
    summary = flow(tmp_path, records=6, acts=acts, steps=steps).run()
    # The first record of each instance passes, the second breaks it.
    assert (summary.written, summary.dead) == (3, 3)
    assert [record["n"] for record in written(tmp_path)] == [1, 3, 5]
    assert {letter["status"] for letter in letters(tmp_path)} == {"INTERNAL"}
    assert "set its length below where it began" in letters(tmp_path)[0]["error"]["message"]


def test_text_that_is_no_json_is_the_next_reader_s_error(zoo: Library, acts: Path, tmp_path: Path) -> None:
    """The pump does not parse: what looks like an object goes on to the step that reads it, and is that one's error,
    with the source's record; a sink of lines writes it as it is."""
    steps = f'[{{plugin: "{zoo("answer_not_json")}"}}, {{python: "json:dumps", name: reader, on_error: dead_letter}}]'
    summary = flow(tmp_path, records=2, acts=acts, steps=steps).run()
    assert (summary.written, summary.dead) == (0, 2)
    assert [letter["record"]["n"] for letter in letters(tmp_path)] == [1, 2]
    assert "not valid JSON" in letters(tmp_path)[0]["error"]["message"]
    assert flow(tmp_path, records=2, acts=acts, steps=f'[{{plugin: "{zoo("answer_not_json")}"}}]').run().written == 2


def test_a_newline_between_its_tokens_is_no_fault_of_a_called_method(zoo: Library, host: ferrule.Host) -> None:
    """Only a flow has one record a line: from a call the same answer is JSON like any other."""
    assert host.create(str(zoo("answer_newline"))).call("process", {}) == {"a": 1, "b": 2}


def test_what_fails_now_and_then_fails_those_records_only(zoo: Library, acts: Path, tmp_path: Path) -> None:
    """Every third call fails: those are the letters, the others are written, under fail what came before is."""

    def run(on_error: str) -> ferrule.Summary:
        steps = f'[{{plugin: "{zoo("fails_some")}", name: fault, on_error: {on_error}}}]'
        return flow(tmp_path, records=10, acts=acts, steps=steps).run()

    summary = run("dead_letter")
    assert (summary.read, summary.written, summary.dead) == (10, 7, 3)
    assert [record["n"] for record in written(tmp_path)] == [1, 2, 4, 5, 7, 8, 10]
    assert [(letter["number"], letter["error"]["message"]) for letter in letters(tmp_path)] == [
        (n, f"Call {n} is not to my taste") for n in (3, 6, 9)
    ]
    assert run("skip").skipped == 3
    with pytest.raises(ferrule.InvalidDataError, match="Call 3 is not to my taste") as caught:
        run("fail")
    assert (caught.value.step, caught.value.record) == ("fault", 3)
    assert [record["n"] for record in written(tmp_path)] == [1, 2]


def test_a_poisoned_step_is_made_anew_before_the_next_record(zoo: Library, acts: Path, tmp_path: Path) -> None:
    """Its third call breaks an instance, the fourth would abort the process: each breaks once, and the flow goes on."""
    steps = f'[{{plugin: "{zoo("poisons")}", name: fault, on_error: dead_letter}}]'
    summary = flow(tmp_path, records=5000, acts=acts, steps=steps).run()
    assert (summary.read, summary.written, summary.dead) == (5000, 3334, 1666)
    assert [record["n"] for record in written(tmp_path)] == [n for n in range(1, 5001) if n % 3]
    assert [letter["number"] for letter in letters(tmp_path)] == [n for n in range(1, 5001) if n % 3 == 0]


def test_a_step_that_cannot_be_made_anew_ends_the_flow_after_what_came_before(
    zoo: Library, acts: Path, compile_c: Compile, tmp_path: Path
) -> None:
    """The records before the fault are written, its dead letter too, and the error says which record was next."""
    source = (
        (ZOO / "poisons.c")
        .read_text()
        .replace(
            "FAULTY_FUNCTION(",
            """static int made;
FERRULE_CREATE(create) {
    if (made++) return ferrule_fail(error, FERRULE_UNAVAILABLE, "The port is taken");
    return faulty_create(self, host, call, config, config_len, error);
}
#undef FAULTY_FUNCTION
#define FAULTY_FUNCTION(name, process) \\
    FAULTY_MANIFEST(name, "function", FAULTY_PROCESS); \\
    FERRULE_PLUGINS( \\
        FERRULE_PLUGIN(name, struct faulty, create, faulty_destroy, FERRULE_UNARY("process", process)))
FAULTY_FUNCTION(""",
        )
    )
    library = compile_c(source, "made_once", "-O1", f"-I{ZOO}")
    steps = f'[{{plugin: "{library}", name: fault, on_error: dead_letter}}, {{python: "json:dumps", name: shown}}]'
    with pytest.raises(ferrule.UnavailableError, match="a new one cannot be made: The port is taken") as caught:
        flow(tmp_path, records=8, acts=acts, steps=steps.replace("json:dumps", f"{__name__}:same")).run()
    assert (caught.value.step, caught.value.record) == ("fault", 4)
    assert [record["n"] for record in written(tmp_path)] == [1, 2]
    assert [letter["number"] for letter in letters(tmp_path)] == [3]


def same(record: dict[str, object]) -> dict[str, object]:
    """A step in Python that changes nothing."""
    return record


def test_a_full_sink_ends_the_flow(zoo: Library, acts: Path, tmp_path: Path) -> None:
    """A write that fails as such ends the flow with the sink's words, as soon as the next chunk does not fit."""
    sink = f'{{plugin: "{zoo("sink_full")}", name: to, config: {{records: 1500}}}}'
    with pytest.raises(ferrule.PluginIOError, match="No space left on device after 1008 records") as caught:
        flow(tmp_path, records=3000, acts=acts, steps="[]", sink=sink, dead=False).run()
    assert (caught.value.step, caught.value.record, caught.value.method) == ("to", 1009, "write")
    fits = f'{{plugin: "{zoo("sink_full")}", name: to, config: {{records: 3000}}}}'
    assert flow(tmp_path, records=3000, acts=acts, steps="[]", sink=fits, dead=False).run().written == 3000


def test_the_zoo_in_one_process(zoo: Library, good: Path) -> None:
    """All of it at once, from several threads: each fault stays its own."""

    def visit(name: str) -> None:
        with ferrule.Host() as host:
            for _ in range(5):
                try:
                    with host.create(str(zoo(name))) as instance:
                        assert isinstance(instance, NativeInstance)
                        if instance.plugin.has("process"):
                            instance.call("process", {"id": 1})
                except ferrule.FerruleError:
                    pass
                assert host.function(str(good)).process({"name": name}) == {"name": name}

    names = sorted(FILES - {"slow", "answer_huge", "logger_thread"})
    with ThreadPoolExecutor(8) as pool:
        assert len(list(pool.map(visit, names * 2))) == 2 * len(names)
