"""Builds what is compiled: ferrule's own module, and the example plugins.

As hatchling's build hook (pyproject.toml names this file) it compiles ``ferrule.native._native`` for a
wheel or an editable install. As a program it serves whoever works on ferrule::

    python build.py native                   compile the module in place, for an editable install
    python build.py plugins [--out DIR]      build the example plugins, Rust and C, into build/plugins
                            [--faulty]       and the faulty ones of the tests into its folder faulty/
                            [--debug]        without optimisation, with assertions

CC names another C compiler; cargo is needed for the Rust plugins only.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent

if __name__ == "__main__" and __spec__ is not None:
    # `python -m build` in this folder finds this file and not the build frontend; hand over to that one.
    sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != ROOT]
    sys.modules.pop("build", None)
    runpy.run_module("build", run_name="__main__", alter_sys=True)
    sys.exit()

NATIVE = ROOT / "src" / "ferrule" / "native"
INCLUDE = ROOT / "native_sdk" / "include"
EXAMPLES = ROOT / "example_plugins"
MODULE = "ferrule.native._native"

FREE_THREADED = bool(sysconfig.get_config_var("Py_GIL_DISABLED"))
LIBRARY_SUFFIX = {"darwin": ".dylib", "win32": ".dll"}.get(sys.platform, ".so")


class BuildError(Exception):
    """Something outside is missing or failed; the message says what and what to do."""


# ---- the compiled module -------------------------------------------------------------------------


def cdef() -> str:
    """The declarations that cffi is given: the marked slices of ferrule.h and native.h.

    Integer macros become ``#define NAME ...``, so that the C compiler supplies every value and checks every
    layout: the headers stay the only truth.
    """
    return "\n".join(_slice(header) for header in (INCLUDE / "ferrule.h", NATIVE / "native.h"))


def _slice(header: Path) -> str:
    found = re.findall(
        r"/\* ferrule-cdef-begin \*/(.*?)/\* ferrule-cdef-end \*/", header.read_text(encoding="utf-8"), re.DOTALL
    )
    if not found:
        raise BuildError(f"{header}: no ferrule-cdef-begin and ferrule-cdef-end comments to cut the declarations by")
    text = re.sub(r"/\*.*?\*/", " ", "\n".join(found), flags=re.DOTALL)
    return re.sub(r"^[ \t]*#[ \t]*define[ \t]+(\w+)[ \t]+\S.*$", r"#define \1 ...", text, flags=re.MULTILINE)


def compile_module(folder: Path) -> Path:
    """Compile ``ferrule.native._native`` in a folder of its own, to one file, and return that file.

    The stable ABI of Python 3.11 on, except for free-threaded builds, which have none.
    """
    from cffi import FFI
    from setuptools import Distribution, Extension
    from setuptools.command.build_ext import build_ext

    ffi = FFI()
    ffi.cdef(cdef())
    ffi.set_source(MODULE, '#include "ferrule.h"\n#include "native.h"\n')
    wrapper = folder / "_native.c"
    ffi.emit_c_code(str(wrapper))

    if sys.platform == "win32":
        flags = ["/O2", "/std:c11", "/utf-8"]
    else:
        # -fvisibility: what the module exports is its init function; everything else may be inlined.
        flags = ["-O3", "-std=gnu11", "-fvisibility=hidden", "-Wall", "-Wextra", "-Wno-unused-parameter"]
    macro = ("_CFFI_NO_LIMITED_API", None) if FREE_THREADED else ("Py_LIMITED_API", "0x030B0000")
    extension = Extension(
        MODULE,
        sources=[str(wrapper), *sorted(str(path) for path in NATIVE.rglob("*.c"))],
        include_dirs=[str(INCLUDE), str(NATIVE)],
        define_macros=[macro],
        extra_compile_args=flags,
        libraries={"win32": ["ws2_32"], "darwin": []}.get(sys.platform, ["dl", "pthread"]),
        py_limited_api=not FREE_THREADED,
    )
    command = build_ext(Distribution({"name": "ferrule", "ext_modules": [extension]}))
    command.build_lib = str(folder / "lib")
    command.build_temp = str(folder / "tmp")
    command.ensure_finalized()
    command.run()
    (output,) = command.get_outputs()
    return Path(output)


def install_in_place(compiled: Path) -> Path:
    """Put the module where an editable install imports it from, and every older one away."""
    target = NATIVE / compiled.name
    _replace(compiled, target)
    # _native.cpython-311-….so would be preferred to _native.abi3.so, however stale.
    for other in NATIVE.glob("_native.*"):
        if other != target and other.suffix in (".so", ".pyd"):
            other.unlink()
    return target


def sdk_files() -> Iterator[tuple[Path, str]]:
    """The SDK's sources, and where they stand in the wheel: what an author needs who has only the wheel."""
    for name in ("include", "c", "rust"):
        top = ROOT / "native_sdk" / name
        for folder, folders, files in os.walk(top):
            folders[:] = sorted(entry for entry in folders if entry != "target" and not entry.startswith("."))
            for file in sorted(files):
                path = Path(folder, file)
                yield path, f"ferrule/_sdk/{name}/{path.relative_to(top).as_posix()}"


try:
    from hatchling.builders.hooks.plugin.interface import BuildHookInterface
except ModuleNotFoundError:  # run as a program, which needs no build backend
    pass
else:

    class NativeBuildHook(BuildHookInterface[Any]):
        """Adds the compiled module and the SDK to the wheel, and gives the wheel its tag."""

        def initialize(self, version: str, build_data: dict[str, Any]) -> None:
            self._folder = tempfile.TemporaryDirectory(prefix="ferrule-build-")
            compiled = compile_module(Path(self._folder.name))
            build_data["pure_python"] = False
            if FREE_THREADED:
                build_data["infer_tag"] = True
            else:
                platform = self.build_config.builder.get_best_matching_tag().rpartition("-")[2]
                build_data["tag"] = f"cp311-abi3-{platform}"
            if version == "editable":
                install_in_place(compiled)
                return
            build_data["force_include"][str(compiled)] = f"ferrule/native/{compiled.name}"
            build_data["force_include"].update((str(path), place) for path, place in sdk_files())

        def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
            self._folder.cleanup()


# ---- the example plugins -------------------------------------------------------------------------


class Plugins:
    """Builds the example plugins into a folder, and remembers which files it put there."""

    def __init__(self, out: Path, *, debug: bool) -> None:
        self.out = out
        self.debug = debug
        self.built: set[Path] = set()

    def build_rust(self, *, faulty: bool) -> None:
        """Build the cargo workspace's libraries; cargo itself names the files (no path is guessed)."""
        manifest = EXAMPLES / "Cargo.toml"
        if not manifest.exists():
            return
        cargo = shutil.which("cargo")
        if cargo is None:
            print("cargo is not on PATH: the Rust plugins are left out (rustup or your system's package brings it).")
            return
        command = [cargo, "build", "--manifest-path", str(manifest), "--workspace", "--lib"]
        command += ["--message-format=json-render-diagnostics"]
        command += [] if self.debug else ["--release"]
        if not faulty:
            for package in self._cargo_packages(cargo, manifest):
                if _is_faulty(Path(package["manifest_path"])):
                    command += ["--exclude", package["name"]]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, encoding="utf-8") as process:
            assert process.stdout is not None
            for line in process.stdout:
                message = json.loads(line)
                if message.get("reason") != "compiler-artifact" or "cdylib" not in message["target"]["crate_types"]:
                    continue
                for name in map(Path, message["filenames"]):
                    if name.suffix == LIBRARY_SUFFIX:
                        self._install(name, faulty=_is_faulty(Path(message["manifest_path"])))
        if process.returncode != 0:
            raise BuildError(f"cargo build of {manifest} failed; what it says stands above")

    def _cargo_packages(self, cargo: str, manifest: Path) -> list[dict[str, Any]]:
        command = [cargo, "metadata", "--no-deps", "--format-version", "1", "--manifest-path", str(manifest)]
        done = subprocess.run(command, stdout=subprocess.PIPE, check=False)
        if done.returncode != 0:
            raise BuildError(f"cargo cannot read {manifest}; what it says stands above")
        packages: list[dict[str, Any]] = json.loads(done.stdout)["packages"]
        return packages

    def build_c(self, *, faulty: bool) -> None:
        """Build each folder of example_plugins/c, and each file of example_plugins/faulty when asked."""
        for folder in sorted(path for path in (EXAMPLES / "c").glob("*/") if any(path.glob("*.c"))):
            name = f"lib{folder.name.replace('-', '_')}_c{LIBRARY_SUFFIX}"
            self._compile(sorted(folder.glob("*.c")), self.out / name, ["-std=c99", "-pedantic"])
        if faulty:
            for source in sorted((EXAMPLES / "faulty").glob("*.c")):
                name = f"libfaulty_{source.stem.replace('-', '_')}{LIBRARY_SUFFIX}"
                self._compile([source], self.out / "faulty" / name, ["-std=gnu11"])

    def _compile(self, sources: list[Path], target: Path, dialect: list[str]) -> None:
        self.built.add(target)
        headers = [path for top in (INCLUDE, ROOT / "native_sdk" / "c") for path in top.rglob("*.h")]
        headers += [path for source in sources for path in source.parent.glob("*.h")]
        if _is_current(target, [*sources, *headers]):
            return
        compiler = shlex.split(os.environ.get("CC") or _default_cc())
        if shutil.which(compiler[0]) is None:
            raise BuildError(f"no C compiler: {compiler[0]!r} is not on PATH. Install one, or name yours in CC")
        command = [*compiler, *dialect, "-Wall", "-Wextra", "-shared", *(["-O0", "-g"] if self.debug else ["-O2"])]
        if sys.platform != "win32":
            command += ["-fPIC", "-fvisibility=hidden", "-pthread"]
        command += ["-I", str(INCLUDE), "-I", str(ROOT / "native_sdk" / "c")]
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=".build-") as folder:
            made = Path(folder, target.name)
            print(f"cc {target.name}", flush=True)
            libraries = [] if sys.platform == "win32" else ["-lm"]
            if subprocess.run([*command, "-o", str(made), *map(str, sources), *libraries], check=False).returncode != 0:
                raise BuildError(f"{shlex.join(command)} failed for {sources[0]}; what it says stands above")
            made.replace(target)

    def _install(self, library: Path, *, faulty: bool) -> None:
        target = self.out / ("faulty" if faulty else "") / library.name
        self.built.add(target)
        if not _is_current(target, [library]):
            print(f"rust {target.name}", flush=True)
            _replace(library, target)

    def remove_stale(self, *, faulty: bool) -> None:
        """Remove libraries that no source makes any more; they would still be found as plugins."""
        for folder in (self.out, self.out / "faulty") if faulty else (self.out,):
            for path in folder.glob(f"*{LIBRARY_SUFFIX}"):
                if path not in self.built:
                    path.unlink()


def _is_faulty(manifest: Path) -> bool:
    return manifest.resolve().relative_to(EXAMPLES).parts[0].startswith("faulty")


def _default_cc() -> str:
    return "gcc" if sys.platform == "win32" else "cc"


def _is_current(target: Path, sources: Iterable[Path]) -> bool:
    return target.exists() and all(path.stat().st_mtime <= target.stat().st_mtime for path in sources)


def _replace(source: Path, target: Path) -> None:
    """Copy by rename: writing into a library that some process has mapped would crash it."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".build-") as folder:
        made = Path(folder, target.name)
        shutil.copyfile(source, made)
        made.chmod(0o755)
        made.replace(target)


# ---- the program ---------------------------------------------------------------------------------


def main() -> int:
    parser = argparse.ArgumentParser(prog="build.py", description="Builds the compiled module and the example plugins.")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("native", help="compile ferrule.native._native in place, for an editable install")
    plugins = commands.add_parser("plugins", help="build the example plugins")
    plugins.add_argument("--out", type=Path, default=ROOT / "build" / "plugins", help="where they go")
    plugins.add_argument("--faulty", action="store_true", help="also the faulty ones, into the folder faulty/ there")
    plugins.add_argument("--debug", action="store_true", help="without optimisation, with assertions")
    options = parser.parse_args()
    try:
        if options.command == "native":
            with tempfile.TemporaryDirectory(prefix="ferrule-build-") as folder:
                print(install_in_place(compile_module(Path(folder))))
            return 0
        out: Path = options.out.resolve()
        work = Plugins(out, debug=options.debug)
        work.build_c(faulty=options.faulty)
        work.build_rust(faulty=options.faulty)
        if out == ROOT / "build" / "plugins" and shutil.which("cargo"):
            work.remove_stale(faulty=options.faulty)
        print(f"{len(work.built)} plugin libraries in {out}")
    except BuildError as error:
        print(f"build.py: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
