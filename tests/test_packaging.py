"""What is shipped: the wheel, the sdist, what they pull in, and the scripts that build them."""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import time
import tomllib
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
NEEDS_CC = pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler")
ABI3 = not sysconfig.get_config_var("Py_GIL_DISABLED")


def run(*command: str | Path, cwd: Path = ROOT, env: Mapping[str, str] | None = None) -> str:
    """What a command prints; its exit status must be 0."""
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env={**os.environ, **(env or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{command} ended with {done.returncode}:\n{done.stdout}"
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this checkout; a warning of the C compiler would fail it."""
    out = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(out), "."]
    run(*command, env={} if sys.platform == "win32" else {"CFLAGS": "-Werror"})
    (path,) = out.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The source distribution of this checkout."""
    out = tmp_path_factory.mktemp("sdist")
    run(sys.executable, "-m", "hatchling", "build", "-t", "sdist", "-d", out)
    (path,) = out.glob("*.tar.gz")
    return path


def members(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return {name for name in archive.namelist() if not name.endswith("/")}


def test_wheel_holds_what_an_engineer_and_an_author_need(wheel: Path) -> None:
    """The wheel holds every module, the compiled one, py.typed, the templates and the SDK's sources."""
    names = members(wheel)
    source = ROOT / "src"
    package = [path for path in (source / "ferrule").rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    wanted = {
        path.relative_to(source).as_posix()
        for path in package
        if path.suffix not in (".c", ".h", ".so", ".pyd") or "templates" in path.parts
    }
    for part in ("include", "c", "rust"):
        top = ROOT / "native_sdk" / part
        for path in top.rglob("*"):
            inside = path.relative_to(top)
            hidden = any(folder.startswith(".") for folder in inside.parts[:-1])
            if path.is_file() and "target" not in inside.parts and not hidden:
                wanted.add(f"ferrule/_sdk/{part}/{inside.as_posix()}")
    assert wanted - names == set()
    assert "ferrule/py.typed" in names
    assert "ferrule/_sdk/include/ferrule.h" in names


def test_wheel_holds_nothing_else(wheel: Path) -> None:
    """One compiled module, no build output, no tests, and of C only what an author compiles against."""
    names = members(wheel)
    compiled = [name for name in names if name.endswith((".so", ".pyd", ".dylib", ".dll", ".rlib", ".a"))]
    assert len(compiled) == 1
    assert compiled[0].startswith("ferrule/native/_native.")
    assert [name for name in names if "/target/" in name or "__pycache__" in name] == []
    assert {name.split("/")[0] for name in names} == {"ferrule", "ferrule-0.1.0.dist-info"}
    assert [name for name in names if name.startswith("ferrule/native/") and name.endswith((".c", ".h"))] == []


@pytest.mark.skipif(not ABI3, reason="a free-threaded build has no stable ABI")
def test_wheel_serves_every_python_from_3_11_on(wheel: Path) -> None:
    """The wheel's tag is cp311-abi3, its module's name says abi3, and abi3audit finds no symbol outside it."""
    assert "-cp311-abi3-" in wheel.name
    if sys.platform != "win32":
        assert "ferrule/native/_native.abi3.so" in members(wheel)
    if sys.platform == "linux":
        run(sys.executable, "-m", "abi3audit", "--strict", wheel)


def test_sdist_builds_the_same_wheel(sdist: Path, wheel: Path, tmp_path: Path) -> None:
    """A wheel that is built from the unpacked sdist holds the same files as the checkout's."""
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path, filter="data")
    (unpacked,) = tmp_path.iterdir()
    out = tmp_path / "out"
    run(
        sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", out, ".", cwd=unpacked
    )
    (again,) = out.glob("*.whl")
    assert again.name == wheel.name
    assert members(again) == members(wheel)


def test_uv_builds_the_same_wheel(wheel: Path, tmp_path: Path) -> None:
    """`uv build` makes the wheel that pip makes."""
    uv = Path(sys.executable).with_name("uv.exe" if sys.platform == "win32" else "uv")
    command: list[str | Path] = [
        uv,
        "build",
        "--quiet",
        "--offline",
        "--wheel",
        "--no-build-isolation",
        "--python",
        sys.executable,
    ]
    run(*command, "--out-dir", tmp_path)
    (again,) = tmp_path.glob("*.whl")
    assert members(again) == members(wheel)


def test_build_py_does_not_hide_the_build_frontend(tmp_path: Path) -> None:
    """`python -m build` in the checkout runs the frontend, though a build.py lies there."""
    assert run(sys.executable, "-m", "build", "--version").startswith("build ")
    run(sys.executable, "-m", "build", "--sdist", "--no-isolation", "--outdir", tmp_path)
    assert len(list(tmp_path.glob("*.tar.gz"))) == 1


def requirements_of(name: str) -> Iterator[str]:
    for text in importlib.metadata.requires(name) or []:
        requirement = Requirement(text)
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            yield canonicalize_name(requirement.name)


def test_base_install_stays_small() -> None:
    """At most 9 packages are required, and at most 20 come in all."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    direct = {canonicalize_name(Requirement(text).name) for text in project["dependencies"]}
    everything: set[str] = set()
    waiting: list[str] = list(direct)
    while waiting:
        name = waiting.pop()
        if name not in everything:
            everything.add(name)
            waiting += requirements_of(name)
    assert len(direct) <= 9, sorted(direct)
    assert len(everything) <= 20, sorted(everything)


def test_compiled_module_agrees_with_its_headers() -> None:
    """Every constant, function and struct of the cdef can be used: cffi compares each with the compiler's only then."""
    from ferrule.native._native import ffi, lib

    assert lib.FERRULE_CANCELLED == -11
    for name in dir(lib):
        getattr(lib, name)
    names, structs, unions = ffi.list_types()
    complete = set()
    for name in [*names, *(f"struct {name}" for name in structs), *(f"union {name}" for name in unions)]:
        kind = ffi.typeof(name)
        if kind.kind == "struct":
            try:
                ffi.sizeof(kind)
            except ffi.error:
                continue  # opaque; to ask cffi 2.1 for its fields would abort the process
            assert kind.fields
            complete.add(name)
    assert {"ferrule_buffer", "ferrule_call", "ferrule_instance_ops", "ferrule_stream_ops"} <= complete


IDENTIFIERS = {
    "linux": {"cp311-manylinux_x86_64", "cp314t-manylinux_x86_64"},
    "macos": {"cp311-macosx_arm64", "cp314t-macosx_arm64"},
    "windows": {"cp311-win_amd64", "cp314t-win_amd64"},
}
ARCHITECTURE = {"linux": "x86_64", "macos": "arm64", "windows": "AMD64"}


@pytest.mark.parametrize("platform", IDENTIFIERS)
def test_cibuildwheel_is_told_what_to_build(platform: str) -> None:
    """On each platform cibuildwheel would build one abi3 wheel, and one for the free-threaded Python."""
    command = [sys.executable, "-P", "-m", "cibuildwheel", "--print-build-identifiers", "--platform", platform]
    found = run(*command, "--archs", ARCHITECTURE[platform], ".").split()
    assert IDENTIFIERS[platform] <= set(found)
    assert {name.split("-")[0] for name in found} == {"cp311", "cp314t"}


# ---- the scripts ---------------------------------------------------------------------------------


@NEEDS_CC
def test_plugins_without_cargo(tmp_path: Path) -> None:
    """Where there is no cargo, build.py says so, builds the C plugins, and succeeds."""
    tools = tmp_path / "bin"
    tools.mkdir()
    for name in ("cc", "as", "ld", "collect2"):
        if found := shutil.which(name):
            (tools / name).symlink_to(found)
    said = run(sys.executable, "build.py", "plugins", "--out", tmp_path / "plugins", env={"PATH": str(tools)})
    assert "cargo is not on PATH" in said
    suffix = {"darwin": "dylib", "win32": "dll"}.get(sys.platform, "so")
    built = {path.name for path in (tmp_path / "plugins").iterdir()}
    assert {f"libadd_metadata_c.{suffix}", f"libhello_source_c.{suffix}"} <= built


@NEEDS_CC
def test_plugins_are_compiled_only_when_changed(tmp_path: Path) -> None:
    """A second run leaves a C plugin alone; one that is older than its source is made again."""
    command: list[str | Path] = [sys.executable, ROOT / "build.py", "plugins", "--out", tmp_path]
    env = {"PATH": os.path.dirname(shutil.which("cc") or "")}  # without cargo, where that lies elsewhere
    run(*command, env=env)
    library = next(path for path in tmp_path.iterdir() if path.stem == "libadd_metadata_c")
    first = library.stat()
    run(*command, env=env)
    assert library.stat().st_ino == first.st_ino
    os.utime(library, (0, 0))
    run(*command, env=env)
    assert library.stat().st_mtime > time.time() - 600


def check_imports(source: Path) -> subprocess.CompletedProcess[str]:
    script = ROOT / "tools" / "check_imports.py"
    return subprocess.run([sys.executable, script, source], capture_output=True, text=True, check=False)


def test_imports_go_downward_only() -> None:
    """No module of ferrule imports one that stands above it."""
    done = check_imports(ROOT / "src")
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("module", "text", "problem"),
    [
        (
            "flow/engine.py",
            "from ferrule.cli import main",
            "1: ferrule.flow imports ferrule.cli, which",
        ),
        ("manifest.py", "def late():\n    import ferrule.plugins.host", "2: ferrule.manifest imports ferrule.plugins"),
        ("plugins/host.py", "from ..flow import Flow", "1: ferrule.plugins imports ferrule.flow"),
        ("plugins/__init__.py", "from .. import flow", "1: ferrule.plugins imports ferrule.flow"),
        ("plugins/host.py", "from ferrule import Host", "1: ferrule.plugins imports the package ferrule itself"),
        ("native/image.py", "from ferrule.native import _native", "1: only ferrule.native.door may import"),
        ("plugins/host.py", "from ferrule.native._native import lib", "1: only ferrule.native.door may import"),
        ("bus/__init__.py", "", "1: ferrule.bus has no layer"),
        ("native/pump.c", "#include <Python.h>", "1: the host's C must not include Python.h"),
        ("native/binding/other.c", "#include <Python.h>", "1: the host's C must not include Python.h"),
    ],
)
def test_breaches_of_the_layers_are_found(tmp_path: Path, module: str, text: str, problem: str) -> None:
    """An upward import, a second door to the compiled module, and Python.h in C are each named by file and line."""
    path = tmp_path / "ferrule" / module
    path.parent.mkdir(parents=True)
    path.write_text(text + "\n", encoding="utf-8")
    done = check_imports(tmp_path)
    assert done.returncode == 1
    assert f"{path}:{problem}" in done.stderr


def test_downward_imports_are_allowed(tmp_path: Path) -> None:
    """Imports from below, from one's own layer, the door's of the compiled module, and Python.h in the binding pass."""
    package = tmp_path / "ferrule"
    for name, text in {
        "cli/run.py": "from ferrule.flow import Flow\nfrom . import app\nimport ferrule.errors",
        "plugins/host.py": "from ..native import load\nfrom .registry import Registry\nfrom ferrule import manifest",
        "native/door.py": "from ferrule.native._native import ffi, lib\nfrom ferrule.errors import LibraryError",
        "native/binding/prepared.c": "#include <Python.h>",
        "__init__.py": "from ferrule.flow import Flow\nfrom ferrule.plugins.host import Host",
    }.items():
        (package / name).parent.mkdir(parents=True, exist_ok=True)
        (package / name).write_text(text + "\n", encoding="utf-8")
    assert check_imports(tmp_path).stderr == ""
