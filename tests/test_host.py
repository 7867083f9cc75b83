"""The host and its views: what an embedding program holds."""

from __future__ import annotations

import gc
import json
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, ClassVar

import pytest
from pydantic import BaseModel

import ferrule
from tests.timely import until

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = ROOT / "example_plugins"

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the plugins are built with cc")

Compile = Callable[..., Path]


@pytest.fixture(scope="session")
def library(compile_c: Compile) -> Callable[[str], str]:
    """``library(name)``: the path of an example plugin in C, of a plugin of the zoo, or of tests/plugins."""
    folders = (EXAMPLES / "faulty", ROOT / "tests" / "plugins", *(EXAMPLES / "c").iterdir())

    def library(name: str) -> str:
        (source,) = [path for folder in folders if (path := folder / f"{name}.c").exists()]
        return str(compile_c(source.read_text(encoding="utf-8"), name, "-O1", "-pthread", f"-I{EXAMPLES / 'faulty'}"))

    return library


Library = Callable[[str], str]


@pytest.fixture
def host(library: Library) -> Iterator[ferrule.Host]:
    """A host that finds the C example plugins by name."""
    names = ("add_metadata", "hello_source", "identity")
    with ferrule.Host([library(name) for name in names]) as host:
        yield host


class Plain(BaseModel):
    """A record."""

    id: int
    message: str = "hello"


class Stamped(Plain):
    """What add-metadata makes of it."""

    processed_by_rust_plugin: str
    rust_enriched_timestamp: str


# ---- functions -----------------------------------------------------------------------------------


def test_a_function_makes_a_record_of_a_record(host: ferrule.Host) -> None:
    """A dict gives a dict, a model too, bytes give bytes, `returns` gives a model; config defaults are filled in."""
    with host.function("add-metadata", {"plugin_name": "demo"}) as stamp:
        assert stamp.name == "add-metadata"
        assert stamp.process({"id": 1})["processed_by_rust_plugin"] == "demo"
        assert stamp.process(Plain(id=2))["message"] == "hello"
        assert json.loads(stamp.process(b'{"id":3}'))["id"] == 3
        assert stamp.process(Plain(id=4), returns=Stamped).processed_by_rust_plugin == "demo"
        assert stamp.call("process", {"id": 5})["id"] == 5
        assert stamp.has("process")
        assert not stamp.has("health_check")
    assert host.function("add-metadata").process({})["processed_by_rust_plugin"] == "unknown_rust_plugin"


def test_what_a_function_skips_is_none(host: ferrule.Host, library: Library) -> None:
    """SKIP is None for every sort of input."""
    skip = host.function(library("returns_status"), {"status": 3})
    for record in ({"id": 1}, b'{"id":1}', Plain(id=1)):
        assert skip.process(record) is None
    assert skip.process({"id": 1}, returns=Stamped) is None


def test_a_function_answers_with_records_only(host: ferrule.Host, library: Library) -> None:
    """What is JSON and no object is that answer's error, and what is nothing too."""
    for name, message in (("answer_not_object", "with list, where a record"), ("answer_empty", "with nothing")):
        with pytest.raises(ferrule.InvalidDataError, match=message) as caught:
            host.function(library(name)).process({})
        assert caught.value.method == "process"
    with pytest.raises(ferrule.InvalidDataError, match="with nothing"):
        host.function(library("answer_empty")).process(b"{}")


def test_configurations_are_checked_before_create(host: ferrule.Host) -> None:
    """A field of the wrong type and an unknown one are each named; no instance is made."""
    with pytest.raises(ferrule.InvalidConfigError, match="plugin_name") as caught:
        host.function("add-metadata", {"plugin_name": 7, "plugin_nam": "x"})
    assert {tuple(error["path"]) for error in caught.value.details["errors"]} == {("plugin_name",), ("plugin_nam",)}
    assert caught.value.plugin == "add-metadata"


# ---- finding -------------------------------------------------------------------------------------


def test_a_wrong_name_has_the_nearest(host: ferrule.Host) -> None:
    """It is an error with the name that was meant; a kind that does not fit is one too."""
    with pytest.raises(ferrule.PluginNotFoundError, match="did you mean 'add-metadata'") as caught:
        host.function("add-metdata")
    assert (caught.value.name, caught.value.nearest) == ("add-metdata", "add-metadata")
    with pytest.raises(ferrule.PluginNotFoundError):
        host.source("add-metadata")


def test_plugins_lists_what_there_is(host: ferrule.Host) -> None:
    """By name, kind and language, with the place that each came from."""
    given = {found.plugin.name: found for found in host.plugins() if found.origin == "given"}
    assert sorted(given) == ["add-metadata", "hello-source", "identity"]
    assert given["hello-source"].plugin.kind == "source"
    assert given["hello-source"].plugin.language == "c"


TWIN = """
#include "ferrule_sdk.h"
FERRULE_MANIFEST({"name": "twin", "version": "0.1.0", "plugins": [
    {"name": "add-metadata", "kind": "function", "language": "c++", "methods": [{"name": "process", "mode": "unary"}]}
]});
FERRULE_CALL(process) { return ferrule_append_text(out, "{\\"by\\":\\"c++\\"}"); }
FERRULE_PLUGINS(
    FERRULE_PLUGIN("add-metadata", ferrule_instance, NULL, NULL, FERRULE_UNARY("process", process)));
"""


def test_twins_are_chosen_by_language(library: Library, compile_c: Compile) -> None:
    """Without a language the first on the path; with one that one; with another an error that names those there are."""
    with ferrule.Host([library("add_metadata"), compile_c(TWIN, "twin")]) as host:
        assert "processed_by_rust_plugin" in host.function("add-metadata").process({})
        assert "processed_by_rust_plugin" in host.function("add-metadata", language="c").process({})
        assert host.function("add-metadata", language="c++").process({}) == {"by": "c++"}
        with pytest.raises(ferrule.PluginNotFoundError, match=r"c\+\+"):
            host.function("add-metadata", language="zig")


def test_a_library_is_named_by_its_path(host: ferrule.Host, library: Library) -> None:
    """A library with one plugin by the path alone, one with several by PATH:NAME."""
    assert host.create(library("identity")).plugin.name == "identity"
    assert host.create(library("tell") + ":together").call("meet", {"ms": 1}) == 1
    with pytest.raises(ferrule.FerruleError, match="tell"):
        host.create(library("tell"))
    with pytest.raises(ferrule.LibraryError, match=r"there\.so"):
        host.create(str(Path(library("tell")).with_name("not-there.so")))


# ---- sources -------------------------------------------------------------------------------------

HELLO = [{"id": n, "message": f"Hello from Rust Source {n}"} for n in (1, 2)]


def test_a_source_is_read_as_often_as_one_likes(host: ferrule.Host) -> None:
    """Each reading starts afresh, from the start or from a position; two at a time do not disturb each other."""
    with host.source("hello-source") as source:
        assert list(source) == HELLO
        assert list(source) == HELLO
        assert list(source.read(position=1)) == HELLO[1:]
        assert list(zip(source, source.read(), strict=True)) == [(HELLO[0], HELLO[0]), (HELLO[1], HELLO[1])]
        assert source.schema()["properties"]["id"] == {"type": "integer"}


def test_reading_before_connect_is_an_error(host: ferrule.Host) -> None:
    """A view connects; whoever goes past it and reads first is told so."""
    raw = host.create("hello-source")
    for use in (lambda: list(raw.open("read_data")), lambda: raw.call("schema")):
        with pytest.raises(ferrule.InvalidStateError, match="before connect: call connect first"):
            use()
    raw.call("connect")
    assert list(raw.open("read_data")) == HELLO


def test_a_closed_source_is_not_read(host: ferrule.Host) -> None:
    """read and iteration are INVALID_STATE; closing twice is harmless; a stream that was open has ended."""
    source = host.source("hello-source")
    stream = source.read()
    assert next(stream) == HELLO[0]
    source.close()
    source.close()
    assert source.closed
    assert list(stream) == []
    for use in (source.read, lambda: list(source)):
        with pytest.raises(ferrule.InvalidStateError, match="the source is closed"):
            use()


class Broken:
    """A source that cannot connect; nor can it close."""

    log: ClassVar[list[str]] = []

    def connect(self) -> None:
        """Fails."""
        raise ConnectionError("nobody there")

    def close(self) -> None:
        """Fails too."""
        Broken.log.append("close")
        raise OSError("nothing to close")

    def read_data(self) -> list[dict[str, Any]]:
        """Never called."""
        return []


def test_a_source_that_cannot_connect_is_closed(host: ferrule.Host) -> None:
    """connect's error is the one that arrives, with what closing said as a note."""
    Broken.log.clear()
    with pytest.raises(ferrule.PluginIOError, match="nobody there") as caught:
        host.source(f"python:{__name__}:Broken")
    assert Broken.log == ["close"]
    assert any("nothing to close" in note for note in caught.value.__notes__)


# ---- sinks ---------------------------------------------------------------------------------------


class Keep:
    """A sink that keeps what it is given."""

    log: ClassVar[list[Any]] = []

    def open(self, data: dict[str, Any]) -> None:
        """Notes the mark."""
        Keep.log.append(("open", data.get("mark")))

    def write(self, record: dict[str, Any]) -> None:
        """Notes the record."""
        if record.get("bad"):
            raise ValueError("this one not")
        Keep.log.append(record)

    def flush(self) -> dict[str, Any]:
        """Its mark."""
        return {"mark": sum(isinstance(each, dict) for each in Keep.log)}

    def close(self) -> None:
        """Notes it."""
        Keep.log.append("close")


def test_a_sink_takes_records_one_or_many(host: ferrule.Host) -> None:
    """A dict, a model, a list of them, lines of bytes; it is opened with the mark, flushed, and closed once."""
    Keep.log.clear()
    sink = host.sink(f"python:{__name__}:Keep", mark=17)
    with sink:
        sink.write({"n": 1})
        sink.write([{"n": 2}, Plain(id=3)])
        sink.write(b'{"n":4}\n{"n":5}\n')
        sink.write([])
        assert sink.flush() == 5
    sink.close()
    assert Keep.log == [
        ("open", 17),
        {"n": 1},
        {"n": 2},
        {"id": 3, "message": "hello"},
        {"n": 4},
        {"n": 5},
        "close",
    ]
    with pytest.raises(ferrule.InvalidStateError, match="closed"):
        sink.write({"n": 6})


@pytest.mark.parametrize("plugin", ["keep", "keep-one"])
def test_a_native_sink_takes_lines_or_records(
    host: ferrule.Host, library: Library, tmp_path: Path, plugin: str
) -> None:
    """Whether write takes many lines or one record, the file is the same; a refused write wrote nothing of its own."""
    with host.sink(f"{library('act')}:{plugin}", {"path": str(tmp_path / "out")}) as sink:
        sink.write([{"n": 1}, {"n": 2}])
        sink.write(Plain(id=3))
        with pytest.raises(ferrule.InvalidDataError, match="told not to keep"):
            sink.write([{"n": 4, "act": "unkept"}])
        assert sink.flush() == (43 if plugin == "keep" else None)
    assert (tmp_path / "out").read_text() == '{"n":1}\n{"n":2}\n{"id":3,"message":"hello"}\n'


# ---- owning --------------------------------------------------------------------------------------


def test_a_host_closes_what_it_made_last_made_first(library: Library, tmp_path: Path) -> None:
    """Sources and sinks, also those that nobody holds any more; a fault of one does not spare the others."""
    path = tmp_path / "log"
    Keep.log.clear()
    host = ferrule.Host()
    host.source(library("counts_closes"), {"path": str(path)})
    host.sink(f"python:{__name__}:Keep")
    kept = host.create(library("identity"))
    gc.collect()
    assert path.read_text().split() == ["connect"]
    host.close()
    assert path.read_text().split() == ["connect", "close", "destroy"]
    assert Keep.log == [("open", None), "close"]
    with pytest.raises(ferrule.InvalidStateError, match="the instance is closed"):
        kept.call("process", {})
    host.close()
    for use in (host.function, host.source, host.sink, host.create):
        with pytest.raises(ferrule.InvalidStateError, match="the host is closed"):
            use("add-metadata")


class Slow:
    """A sink that takes its time to be made."""

    begun, go_on = threading.Event(), threading.Event()
    closed = 0

    def __init__(self) -> None:
        self.begun.set()
        assert self.go_on.wait(30)

    def write(self, record: dict[str, Any]) -> None:
        """Nothing."""

    def close(self) -> None:
        """Counts."""
        Slow.closed += 1


def test_a_host_that_is_closed_while_it_makes_one_closes_that_too() -> None:
    """Whoever asked for it hears that the host is closed."""
    host = ferrule.Host()
    with ThreadPoolExecutor(1) as pool:
        making = pool.submit(host.sink, f"python:{__name__}:Slow")
        assert Slow.begun.wait(30)
        host.close()
        Slow.go_on.set()
        with pytest.raises(ferrule.InvalidStateError, match="the host is closed"):
            making.result()
    assert Slow.closed == 1


@pytest.mark.parametrize("closed", ["instance", "host"])
@pytest.mark.parametrize("threads", ["serial", "concurrent"])
def test_closing_while_another_thread_opens_a_stream(
    compile_c: Compile, tmp_path: Path, closed: str, threads: str
) -> None:
    """That stream is closed before its instance is destroyed, and whoever opened it hears so."""
    text = (EXAMPLES / "faulty" / "counts_closes.c").read_text(encoding="utf-8")
    text = text.replace('"source"', rf'"source\",\"threading\":\"{threads}"')
    path = tmp_path / "log"
    host = ferrule.Host()
    library = compile_c(text, "counts_closes", f"-I{EXAMPLES / 'faulty'}")
    source = host.create(str(library), {"path": str(path), "open_ms": 300})
    assert source.plugin.threading == threads
    with ThreadPoolExecutor(1) as pool:
        opening = pool.submit(source.open, "read_data")
        until(path.exists)
        (source if closed == "instance" else host).close()
        assert path.read_text().split() == ["open", "stream-close", "destroy"]
        with pytest.raises(ferrule.InvalidStateError, match="the instance is closed"):
            opening.result()
    host.close()


class Lingers:
    """What takes its time to close."""

    begun = threading.Event()
    over = 0

    def close(self) -> None:
        """Counts."""
        self.begun.set()
        time.sleep(0.3)
        Lingers.over += 1


class LingeringSource(Lingers):
    """A source that does."""

    def read_data(self) -> list[Any]:
        """Nothing."""
        return []


class LingeringSink(Lingers):
    """A sink that does."""

    def write(self, record: dict[str, Any]) -> None:
        """Nothing."""


@pytest.mark.parametrize("closed", ["view", "host"])
@pytest.mark.parametrize("kind", ["Source", "Sink"])
def test_closing_a_view_while_another_thread_closes_it(kind: str, closed: str) -> None:
    """Whoever closes it too, or its host, comes back when it is done, which happens once."""
    Lingers.begun.clear()
    Lingers.over = 0
    host = ferrule.Host()
    view = getattr(host, kind.lower())(f"python:{__name__}:Lingering{kind}")
    with ThreadPoolExecutor(1) as pool:
        closing = pool.submit(view.close)
        assert Lingers.begun.wait(30)
        (view if closed == "view" else host).close()
        assert Lingers.over == 1
        closing.result()
    host.close()
    assert Lingers.over == 1


class Stuck:
    """A sink that does not close."""

    def write(self, record: dict[str, Any]) -> None:
        """Nothing."""

    def close(self) -> None:
        """Fails."""
        raise OSError("it is stuck")


def test_faults_of_closing_are_all_told() -> None:
    """One is raised as it is, several as a group; the host is closed all the same."""
    host = ferrule.Host()
    host.sink(f"python:{__name__}:Stuck")
    with pytest.raises(ferrule.PluginIOError, match="it is stuck"):
        host.close()
    host = ferrule.Host()
    host.sink(f"python:{__name__}:Stuck")
    host.sink(f"python:{__name__}:Stuck")
    with pytest.raises(ExceptionGroup) as caught:
        host.close()
    assert len(caught.value.exceptions) == 2
    host.close()


def test_a_dropped_instance_is_gone_while_its_host_lives(host: ferrule.Host, library: Library) -> None:
    """Nothing piles up in a host that lives long: neither instances that were dropped nor closed sources."""
    gone = [weakref.ref(host.create("add-metadata")) for _ in range(1000)]
    gc.collect()
    assert sum(each() is not None for each in gone) == 0
    for _ in range(1000):
        host.source("hello-source").close()
    assert len(host._owned) < 200
    assert host.create("add-metadata").call("process", {"id": 1})["id"] == 1


def test_a_prepared_method_keeps_its_instance(library: Library) -> None:
    """It works although nobody holds the instance, and is closed with the host."""
    with ferrule.Host() as host:
        process = host.create(library("add_metadata")).method("process")
        gc.collect()
        assert process({"id": 1})["id"] == 1
    with pytest.raises(ferrule.InvalidStateError, match="the instance is closed"):
        process({"id": 2})


def test_one_host_serves_many_threads(library: Library) -> None:
    """Plugins are found, loaded and made by sixteen threads at once, from a host that has found nothing yet."""
    with ferrule.Host([library("add_metadata"), library("hello_source")]) as host:
        barrier = threading.Barrier(16)

        def work(number: int) -> tuple[Any, Any]:
            barrier.wait()
            with (
                host.function("add-metadata", {"plugin_name": f"p{number}"}) as stamp,
                host.source("hello-source") as s,
            ):
                return stamp.process({"id": number})["processed_by_rust_plugin"], list(s)

        with ThreadPoolExecutor(16) as pool:
            assert list(pool.map(work, range(16))) == [(f"p{number}", HELLO) for number in range(16)]
