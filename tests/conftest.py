"""Fixtures that several test modules share: real libraries, compiled a moment ago."""

from __future__ import annotations

import asyncio
import hashlib
import os
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self

import pytest

import ferrule
from ferrule.plugins.aio import AsyncStream

ROOT = Path(__file__).resolve().parents[1]
INCLUDE = ROOT / "native_sdk" / "include"
C_SDK = ROOT / "native_sdk" / "c"
LIBRARIES = Path(__file__).resolve().parent / "libraries"


if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as a shell's background job has it, and so would its children
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.get_closest_marker("timed"):
            item.add_marker(pytest.mark.flaky(reruns=2, only_rerun=["TooSlowError"]))


CompileC = Callable[..., Path]
OpenStream = Callable[..., Any]


@pytest.fixture(scope="session")
def compile_c(tmp_path_factory: pytest.TempPathFactory) -> CompileC:
    """``compile_c(source_text, name, *flags)``: the path of a shared library, built by the system's cc once a session.

    The headers ``ferrule.h`` and ``ferrule_sdk.h`` are found. A test must not change the file; it may copy it.
    """
    command = shlex.split(os.environ.get("CC", "cc"))
    if shutil.which(command[0]) is None:
        pytest.skip(f"no C compiler: {command[0]}")
    suffix = {"darwin": ".dylib", "win32": ".dll"}.get(sys.platform, ".so")
    folder = tmp_path_factory.mktemp("compiled")

    def compile_c(source: str, name: str, *flags: str) -> Path:
        unique = hashlib.sha256("\0".join((source, *flags)).encode()).hexdigest()[:12]
        place = folder / unique
        library = place / f"lib{name}{suffix}"
        if not library.exists():
            place.mkdir(exist_ok=True)
            text = place / f"{name}.c"
            text.write_text(source, encoding="utf-8")
            arguments = ["-shared", "-fPIC", f"-I{INCLUDE}", f"-I{C_SDK}", str(text), "-o", str(library), *flags]
            subprocess.run([*command, *arguments], check=True, capture_output=True, text=True)
        return library

    return compile_c


@pytest.fixture(scope="session")
def plugin_source() -> Callable[[str], str]:
    """``plugin_source(manifest_json)``: C text of a library with that manifest, whose plugins cannot be created."""
    template = (LIBRARIES / "manifest_only.c").read_text(encoding="utf-8")

    def plugin_source(manifest: str) -> str:
        text = manifest.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
        return template.replace("MANIFEST_TEXT", f'"{text}"')

    return plugin_source


@pytest.fixture(scope="session")
def act_library(compile_c: CompileC) -> Path:
    """``tests/plugins/act.c``: plugins that do what the record says."""
    source = (Path(__file__).resolve().parent / "plugins" / "act.c").read_text(encoding="utf-8")
    return compile_c(source, "act", "-O1")


@pytest.fixture(scope="session")
def jobs_library(compile_c: CompileC) -> Path:
    """``tests/plugins/jobs.c``: runners whose calls take their time."""
    source = (Path(__file__).resolve().parent / "plugins" / "jobs.c").read_text(encoding="utf-8")
    return compile_c(source, "jobs", "-O1")


@pytest.fixture(scope="session")
def lab_library(compile_c: CompileC) -> Path:
    """``tests/plugins/lab.c``: runners whose streams do what the test says."""
    source = (Path(__file__).resolve().parent / "plugins" / "lab.c").read_text(encoding="utf-8")
    return compile_c(source, "lab", "-O1", "-pthread")


@pytest.fixture(scope="session", params=["rust", "c"])
def my_runner(request: pytest.FixtureRequest, compile_c: CompileC) -> Path:
    """The library of the example plugin my-runner, in either language."""
    if request.param == "c":
        source = ROOT / "example_plugins" / "c" / "my_runner" / "my_runner.c"
        return compile_c(source.read_text(encoding="utf-8"), "my_runner", "-O1", "-pthread")
    suffix = {"darwin": ".dylib", "win32": ".dll"}.get(sys.platform, ".so")
    found = ROOT / "build" / "plugins" / f"libmy_runner{suffix}"
    if not found.exists():
        pytest.skip(f"not built: {found.relative_to(ROOT)}; run make plugins (it needs cargo)")
    return found


class Awaited:
    """A stream of ``instance.aio``, driven so that it looks like a blocking one: each call runs the loop until it is
    answered."""

    def __init__(self, runner: asyncio.Runner, stream: AsyncStream) -> None:
        self._runner = runner
        self._stream = stream

    def _run(self, method: str, *arguments: Any, **options: Any) -> Any:
        async def main() -> Any:
            return await getattr(self._stream, method)(*arguments, **options)

        return self._runner.run(main())

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Any:
        return self.next()

    def next(self, *, timeout: float | None = None) -> Any:
        try:
            return self._run("next", timeout=timeout)
        except StopAsyncIteration:
            raise StopIteration from None

    def feed(self, value: object = b"", *, final: bool = False, timeout: float | None = None) -> Any:
        return self._run("feed", value, final=final, timeout=timeout)

    def close(self) -> None:
        self._run("close")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@pytest.fixture(params=["blocking", "asyncio"])
def open_stream(request: pytest.FixtureRequest) -> Iterator[OpenStream]:
    """``open_stream(instance, method, value)``: a stream by either face, used as a blocking one is."""
    if request.param == "blocking":
        yield lambda instance, *arguments, **options: instance.open(*arguments, **options)
        return
    with asyncio.Runner() as runner:

        def open_stream(instance: ferrule.Instance, *arguments: Any, **options: Any) -> Awaited:
            async def main() -> AsyncStream:
                return await instance.aio.open(*arguments, **options)

            return Awaited(runner, runner.run(main()))

        yield open_stream
