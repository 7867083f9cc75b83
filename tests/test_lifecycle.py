"""Fork, exit, rebuilds, garbage: what happens around a plugin's life, and that the host survives it."""

from __future__ import annotations

import gc
import os
import shutil
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import ferrule
from ferrule.plugins.instance import NativeInstance
from tests.process import resident

ROOT = Path(__file__).resolve().parents[1]
ZOO = ROOT / "example_plugins" / "faulty"

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the plugins are built with cc")

Compile = Callable[..., Path]
Library = Callable[[str], str]


@pytest.fixture(scope="session")
def library(compile_c: Compile) -> Library:
    """``library(name)``: the path of an example plugin in C, of a plugin of the zoo, or of tests/plugins."""
    folders = (ZOO, ROOT / "tests" / "plugins", *(ROOT / "example_plugins" / "c").iterdir())

    def library(name: str) -> str:
        (source,) = [path for folder in folders if (path := folder / f"{name}.c").exists()]
        return str(compile_c(source.read_text(encoding="utf-8"), name, "-O1", "-pthread", f"-I{ZOO}"))

    return library


def python(script: str, *arguments: str, timeout: float = 60) -> subprocess.CompletedProcess[str]:
    """A program of its own."""
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), *arguments],
        env={**os.environ, "PYTHONPATH": str(ROOT / "src"), "PYTHONWARNINGS": "ignore::DeprecationWarning"},
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


def clean(script: str, *arguments: str) -> None:
    """A program of its own that ends with 0 and says nothing."""
    done = python(script, *arguments)
    assert (done.returncode, done.stderr, done.stdout) == (0, "", "")


linux = pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="looks into /proc")


# ---- fork ----------------------------------------------------------------------------------------

FORK = """
    import os, sys
    import ferrule

    host = ferrule.Host()
    stamp = host.function(sys.argv[1])
    source = host.source(sys.argv[2])
    stream = source.read()
    assert next(stream)["id"] == 1
    raw = host.create(sys.argv[2])
    raw.call("connect")
    late = raw.open("read_data")

    child = os.fork()
    if child == 0:
        for use in (lambda: stamp.process({"id": 1}), lambda: stamp.process(b"{}"),
                    lambda: raw.open("read_data"), lambda: next(late), late.position):
            try:
                use()
            except ferrule.InvalidStateError as error:
                assert "before a fork" in str(error) and "in the child" in str(error), error
            else:
                os._exit(3)
        stamp.close(); late.close(); stream.close(); late.cancel()
        with ferrule.Host() as own:
            stamped = own.function(sys.argv[1], {"plugin_name": "child"}).process({})
            assert stamped["processed_by_rust_plugin"] == "child"
            assert [record["id"] for record in own.source(sys.argv[2])] == [1, 2]
        sys.exit(0)
    assert os.waitpid(child, 0)[1] == 0
    assert stamp.process({"id": 2})["id"] == 2
    assert next(stream)["id"] == 2
    assert [record["id"] for record in late] == [1, 2]
    host.close()
"""


def test_a_child_makes_its_own_and_the_parent_goes_on(library: Library) -> None:
    """In the child a parent's instance and stream are INVALID_STATE that says so; new ones work, as the parent's do."""
    clean(FORK, library("add_metadata"), library("hello_source"))


FORK_WHILE_BUSY = """
    import os, sys, threading
    import ferrule

    host = ferrule.Host()
    slow = host.create(sys.argv[1], {"ms": 400})
    logger = host.create(sys.argv[2])
    calls = [threading.Thread(target=slow.call, args=("process", {})) for _ in range(3)]
    for call in calls:
        call.start()
    children = []
    for _ in range(5):
        child = os.fork()
        if child == 0:
            try:
                slow.call("process", {})
            except ferrule.InvalidStateError:
                with ferrule.Host() as own:
                    own.create(sys.argv[1], {"ms": 1}).call("process", {})
                    own.create(sys.argv[2]).call("process", {})
                    sys.exit(0)
            sys.exit(3)
        children.append(child)
    for child in children:
        assert os.waitpid(child, 0)[1] == 0
    for call in calls:
        call.join()
    host.close()
"""


def test_a_fork_beside_calls_under_way_locks_nobody(library: Library) -> None:
    """Other threads hold instances, locks and the log as the process forks: neither child nor parent waits for ever."""
    clean(FORK_WHILE_BUSY, library("slow"), library("logger_thread"))


FORK_LOGS = """
    import logging, os, sys, threading
    import ferrule

    class Told(logging.Handler):
        def emit(self, record):
            printed.set()

    printed = threading.Event()
    logging.basicConfig(level=logging.INFO, format="%(process)d %(message)s", stream=sys.stdout)
    logging.getLogger().addHandler(Told())
    host = ferrule.Host()
    host.create(sys.argv[1]).call("log", {"message": "parent"})
    assert printed.wait(10)
    child = os.fork()
    if child == 0:
        with ferrule.Host() as own:
            own.create(sys.argv[1]).call("log", {"message": f"child {os.getpid()}"})
        sys.exit(0)
    assert os.waitpid(child, 0)[1] == 0
"""


def test_a_child_hears_its_plugins_too(library: Library) -> None:
    """A library that the parent had loaded logs in the child as well."""
    done = python(FORK_LOGS, library("tell") + ":tell")
    assert (done.returncode, done.stderr) == (0, "")
    parent, child = done.stdout.splitlines()
    assert parent.endswith(" parent")
    number, _, word, named = *child.partition(" ")[:2], *child.split()[1:]
    assert word == "child"
    assert number == named


# ---- exit ----------------------------------------------------------------------------------------

EXIT_WITH_LOGGER = """
    import logging, sys
    import ferrule
    logging.getLogger("ferrule.plugin").addHandler(logging.NullHandler())
    logging.getLogger("ferrule.plugin").setLevel(logging.INFO)
    host = ferrule.Host()
    instances = [host.create(sys.argv[1]) for _ in range(8)]
    instances[0].call("process", {})
"""


@pytest.mark.parametrize("attempt", range(5))
def test_the_process_ends_while_a_plugin_s_thread_logs(library: Library, attempt: int) -> None:
    """Eight threads log into an interpreter that is going away: exit 0, and nothing on stderr."""
    clean(EXIT_WITH_LOGGER, library("logger_thread"))


EXIT_IN_CALL = """
    import sys, threading, time
    import ferrule
    host = ferrule.Host()
    slow = host.create(sys.argv[1], {"ms": 30000})
    source = host.source(sys.argv[2], {"items": 1})
    threading.Thread(target=slow.call, args=("process", {}), daemon=True).start()
    threading.Thread(target=lambda: list(source), daemon=True).start()
    time.sleep(0.2)
"""


def test_the_process_ends_while_calls_are_under_way(library: Library) -> None:
    """A call that takes 30 s and a stream that waits, in daemon threads, hold up nothing and say nothing."""
    clean(EXIT_IN_CALL, library("slow"), library("next_waits"))


EXIT_OPEN = """
    import sys
    import ferrule
    host = ferrule.Host()
    stamp = host.function(sys.argv[1])
    source = host.source(sys.argv[2])
    stream = source.read()
    next(stream)
    left = [host.create(sys.argv[2]) for _ in range(10)]
    cycle = [stream, source, left]
    cycle.append(cycle)
    sys.everything = cycle
"""


def test_the_process_ends_with_everything_open(library: Library) -> None:
    """Nothing was closed, some of it hangs in a cycle: exit 0, and nothing on stderr."""
    clean(EXIT_OPEN, library("add_metadata"), library("hello_source"))


EXIT_FLOW = """
    import sys, threading
    import ferrule
    flow = ferrule.Flow.loads(
        f'{{"source": {{"plugin": "{sys.argv[1]}"}}, "steps": [{{"plugin": "{sys.argv[2]}", "config": {{"ms": 1}}}}],'
        f'"sink": {{"plugin": "{sys.argv[3]}", "config": {{"records": 1000000}}}}}}'
    )
    written = threading.Event()
    def told(progress):
        if progress.written:
            written.set()
    threading.Thread(target=flow.run, kwargs={"on_progress": told}, daemon=True).start()
    assert written.wait(30)
"""


def test_the_process_ends_while_a_flow_runs(library: Library) -> None:
    """A flow in a daemon thread, between two records."""
    clean(EXIT_FLOW, library("endless"), library("slow"), library("sink_full"))


# ---- loading -------------------------------------------------------------------------------------

VERSION = """
#include "ferrule_sdk.h"
FERRULE_MANIFEST({"name": "versioned", "version": "0.1.0", "plugins": [
    {"name": "versioned", "kind": "function", "language": "c", "methods": [{"name": "process", "mode": "unary"}]}
]});
FERRULE_CALL(process) { return ferrule_append_text(out, "{\\"version\\":VERSION}"); }
FERRULE_PLUGINS(FERRULE_PLUGIN("versioned", ferrule_instance, NULL, NULL, FERRULE_UNARY("process", process)));
"""


def images(name: str) -> set[str]:
    """Files of that name that are mapped into this process."""
    maps = Path("/proc/self/maps").read_text().splitlines()
    return {line.split(maxsplit=5)[5] for line in maps if line.endswith("/" + name)}


@linux
def test_a_library_may_be_rebuilt_while_it_is_loaded(compile_c: Compile, tmp_path: Path) -> None:
    """The new one is a new image beside the old; instances of both work, and nothing is ever unmapped."""
    path = tmp_path / "libversioned_here.so"
    made: list[ferrule.Instance] = []
    with ferrule.Host() as host:
        for version in (1, 2, 3):
            built = compile_c(VERSION.replace("VERSION", str(version)), f"versioned{version}")
            shutil.copy(built, path)  # over the old one, as a linker may do it
            made.append(host.create(str(path)))
            assert [each.call("process", {})["version"] for each in made] == list(range(1, version + 1))
            assert len(images(path.name)) == version
    gc.collect()
    assert len(images(path.name)) == 3


@linux
def test_a_library_may_vanish_while_it_is_loaded(compile_c: Compile, tmp_path: Path) -> None:
    """What is loaded works on; a new instance of it is a LibraryError."""
    path = tmp_path / "libvanishing.so"
    shutil.copy(compile_c(VERSION.replace("VERSION", "9"), "vanishing"), path)
    with ferrule.Host() as host:
        instance = host.create(str(path))
        path.write_bytes(b"\0" * path.stat().st_size)
        path.unlink()
        assert instance.call("process", {}) == {"version": 9}
        with pytest.raises(ferrule.LibraryError):
            host.create(str(path))


@linux
def test_the_same_library_is_loaded_once(compile_c: Compile, tmp_path: Path) -> None:
    """By the same path or another, by one host or several: one image, for its bytes are the same."""
    built = compile_c(VERSION.replace("VERSION", "7"), "libonce")
    paths = [tmp_path / "libonce.so", tmp_path / "there" / "libonce.so"]
    paths[1].parent.mkdir()
    for path in paths:
        shutil.copy(built, path)
    with ferrule.Host() as one, ferrule.Host() as two:
        instances = [host.create(str(path)) for host in (one, two) for path in (*paths, *paths)]
        assert len(images("libonce.so")) == 1
        libraries = {id(each.target.library) for each in instances if isinstance(each, NativeInstance)}
        assert len(libraries) == 1
    assert len(images("libonce.so")) == 1


def test_threads_load_and_make_at_once(compile_c: Compile) -> None:
    """Sixteen threads, a library that nobody has loaded yet: one image, and every instance works."""
    path = str(compile_c(VERSION.replace("VERSION", "11"), "contended"))
    barrier = threading.Barrier(16)

    def work(_: int) -> list[Any]:
        barrier.wait()
        with ferrule.Host() as host:
            return [host.create(path).call("process", {}) for _ in range(20)]

    with ThreadPoolExecutor(16) as pool:
        assert list(pool.map(work, range(16))) == [[{"version": 11}] * 20] * 16
    if Path("/proc/self/maps").exists():
        assert len(images(Path(path).name)) == 1


# ---- garbage -------------------------------------------------------------------------------------


@linux
def test_what_is_dropped_is_freed(library: Library) -> None:
    """10,000 instances and streams, made and dropped without a close: memory, files and threads stay as they are."""

    def drop(count: int) -> None:
        with ferrule.Host([library("hello_source")]) as host:
            for _ in range(count):
                instance = host.create("hello-source", language="c")
                instance.call("connect")
                assert next(instance.open("read_data"))["id"] == 1
                del instance

    drop(2000)
    gc.collect()
    before = (resident(), len(os.listdir("/proc/self/fd")), set(threading.enumerate()))
    drop(10_000)
    gc.collect()
    after = (resident(), len(os.listdir("/proc/self/fd")), set(threading.enumerate()))
    assert after[0] - before[0] < 8 << 20
    assert after[1] == before[1]
    assert after[2] <= before[2]  # other tests' idle threads may have ended


ORDERS = """
    import gc, itertools, sys
    import ferrule

    # Whatever dies first, and whether a collector or a counter does it: each is destroyed once, streams before it.
    for order in itertools.permutations(range(3)):
        for collected in (False, True):
            path = f"{sys.argv[2]}-{''.join(map(str, order))}-{collected}"
            host = ferrule.Host()
            instance = host.create(sys.argv[1], {"path": path})
            streams = [instance.open("read_data"), instance.open("read_data")]
            assert next(streams[0])["id"] == 1
            held = [instance, *streams]
            del instance, streams
            if collected:
                cycle = held[:]
                cycle.append(cycle)
                held = [held[0].target, held[1], held[2]]
                del cycle
            for at in order:
                held[at] = None
                gc.collect()
            assert open(path).read().split() == ["open", "open", "stream-close", "stream-close", "destroy"], path
            host.close()
"""


def test_garbage_may_go_in_any_order(library: Library, tmp_path: Path) -> None:
    """An instance that goes before its streams is destroyed after the last of them."""
    clean(ORDERS, library("counts_closes"), str(tmp_path / "log"))


DROP_IN_ANOTHER_THREAD = """
    import sys, threading
    import ferrule

    for _ in range(200):
        host = ferrule.Host()
        instance = host.create(sys.argv[1])
        instance.call("connect")
        box = [instance, instance.open("read_data"), host]
        del instance, host
        thread = threading.Thread(target=box.clear)
        thread.start()
        thread.join()
"""


def test_garbage_may_go_in_any_thread(library: Library) -> None:
    """What one thread made, another one drops."""
    clean(DROP_IN_ANOTHER_THREAD, library("hello_source"))


SANITY = """
    import sys
    from ferrule.native.door import names, retired
    import ferrule

    with ferrule.Host(sys.argv[1:]) as host:
        for _ in range(2000):
            host.create("identity")
            instance = host.create("identity")
            instance.close()
            try:
                host.create("ops-null")
            except ferrule.InternalError:
                pass
        kept = host.create("identity")
        assert len(names) < 1500, len(names)
        assert len(retired) < 1500, len(retired)
"""


def test_ids_are_forgotten(library: Library) -> None:
    """The names under which instances speak do not pile up, whichever way they go."""
    clean(SANITY, library("identity"), library("ops_null"))
