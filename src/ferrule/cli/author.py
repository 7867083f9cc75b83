"""``new`` and ``build``: from nothing to a library."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from ferrule.cli.output import WRONG_USAGE, Failure, note, print_json, write
from ferrule.cli.sdk import cflags, crate_dirs

__all__ = ["build", "new"]

TEMPLATES = Path(__file__).parent / "templates"
LIBRARY_SUFFIX = {"darwin": ".dylib", "win32": ".dll"}.get(sys.platform, ".so")
LIBRARY_PREFIX = "" if sys.platform == "win32" else "lib"


class Kind(StrEnum):
    """What `new` has a template for."""

    function = "function"
    source = "source"
    sink = "sink"
    runner = "runner"


class Language(StrEnum):
    """What `new` has templates in."""

    rust = "rust"
    c = "c"


# --- new ------------------------------------------------------------------------------------------

# cargo refuses a package of such a name: Rust's keywords, and crates that would hide its own.
_RESERVED_WORDS = """
    abstract alloc as async await become box break build const continue core crate deps do dyn else enum examples
    extern false final fn for gen if impl in incremental let loop macro match mod move mut override priv proc_macro
    pub ref return self static std struct super test trait true try type typeof union unsafe unsized use virtual
    where while yield ferrule-plugin ferrule-sys ferrule_plugin ferrule_sys
"""
_RESERVED = frozenset(_RESERVED_WORDS.split())


def check_name(name: str) -> None:
    """Refuse what cargo or the manifest would refuse later and less clearly.

    Raises:
        Failure: With what a name may be.
    """
    problem = None
    if not re.fullmatch(r"[a-z][a-z0-9_-]*", name):
        problem = "a plugin's name has lower-case letters, digits, - and _, and begins with a letter"
    elif len(name) > 64:
        problem = f"a plugin's name has at most 64 characters, not {len(name)}"
    elif name in _RESERVED:
        problem = "that word is reserved by Rust or by ferrule"
    if problem is not None:
        better = re.sub(r"[^a-z0-9_-]+", "-", re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "-", name).lower()).strip("-_")
        better = f"my-{better}" if better in _RESERVED or not better[:1].isalpha() else better
        hint = f" For example: {better[:64]}." if better[:64].strip("my-") and better != name else ""
        raise Failure(f"{name!r} cannot be the name: {problem}.{hint}", status=WRONG_USAGE)


def new(
    kind: Annotated[Kind, typer.Argument(help="What the plugin is.")],
    name: Annotated[str, typer.Argument(help="Its name, which is also its folder's.")],
    lang: Annotated[Language, typer.Option("--lang", help="The language to write it in.")] = Language.rust,
    folder: Annotated[Path | None, typer.Option("--dir", help="Where to make it; the default is ./NAME.")] = None,
) -> None:
    """Start a plugin that builds, with a flow that runs it, or a program that calls it."""
    check_name(name)
    target = Path(name) if folder is None else folder
    if target.is_symlink() or (target.exists() and not (target.is_dir() and not any(target.iterdir()))):
        raise Failure(f"{target} is there already; nothing was written. Choose another name, or --dir.")
    values = _placeholders(name, kind, lang)
    for group in ("common", lang.value):
        _copy_template(TEMPLATES / group / kind.value, target, values)
    if lang is Language.rust:
        _write_cargo_config(target)
    shown = shlex.quote(str(target))
    library = shlex.quote(str(target / values["library"]))
    write(f"{target}: a {kind.value} in {'Rust' if lang is Language.rust else 'C'}, in {target / values['main']}\n")
    write("Next:")
    rows = [(f"ferrule build {shown}", "compile it")]
    rows += [(f"ferrule call {library} {values['call']}", "try it")]
    if kind is Kind.runner:
        rows += [(f"python {shlex.quote(str(target / values['ident']))}_demo.py", "use it from Python")]
    else:
        rows += [(f"ferrule run {shlex.quote(str(target / 'flow.yaml'))}", "run it in a flow")]
    for command, what in rows:
        write(f"  # {what}\n  {command}")


def _copy_template(template: Path, target: Path, values: dict[str, str]) -> None:
    """Write a template's files, names and texts filled in."""
    if not template.is_dir():
        raise Failure(f"the templates are missing: {template}. Install ferrule again.")
    for source in sorted(path for path in template.rglob("*") if path.is_file() and "__pycache__" not in path.parts):
        # A template is stored as `gitignore`, since git and packagers would obey it where it lies.
        parts = [_fill(part, values) for part in source.relative_to(template).parts]
        parts[-1] = {"gitignore": ".gitignore"}.get(parts[-1], parts[-1])
        path = target.joinpath(*parts)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(_fill(source.read_text(encoding="utf-8"), values), encoding="utf-8", newline="\n")


def _placeholders(name: str, kind: Kind, lang: Language) -> dict[str, str]:
    identifier = name.replace("-", "_")
    file = f"{LIBRARY_PREFIX}{identifier}{LIBRARY_SUFFIX}"
    return {
        "name": name,
        "ident": identifier,
        # The templates put the kind's name behind it, so that no name hides one of the SDK's.
        "Type": "".join(part.capitalize() for part in re.split(r"[-_]", name) if part not in ("", kind.value)),
        "library": f"target/release/{file}" if lang is Language.rust else f"build/{file}",
        "main": "src/lib.rs" if lang is Language.rust else f"{identifier}.c",
        "call": {
            Kind.function: """process -i '{"id": 1}'""",
            Kind.source: "read_data",
            Kind.sink: f"""write -i '{{"id": 1}}' --config '{{"path": "{name}.out.jsonl"}}'""",
            Kind.runner: """run -i '{"text": "hello"}'""",
        }[kind],
        "about": {
            Kind.function: "Adds a field to each record.",
            Kind.source: "A source of greetings.",
            Kind.sink: "Writes records to a file, a JSON object a line.",
            Kind.runner: "Says a text, once or as a stream.",
        }[kind],
    }


def _fill(text: str, values: dict[str, str]) -> str:
    return re.sub(r"\{\{(\w+)\}\}", lambda match: values.get(match[1], match[0]), text)


def _write_cargo_config(target: Path) -> None:
    """Tell cargo where the crates lie on this machine, so that `cargo build --release` by hand works as well.

    The file names a path of this machine only; the template's .gitignore leaves it out.
    """
    lines = ["# Written by `ferrule new`: where this machine has ferrule's crates. Not for the repository.\n"]
    for crate, path in crate_dirs().items():
        lines.append(f"[patch.crates-io.{crate}]\npath = {json.dumps(str(path))}\n")
    (target / ".cargo").mkdir()
    (target / ".cargo" / "config.toml").write_text("\n".join(lines), encoding="utf-8")


# --- build ----------------------------------------------------------------------------------------


def build(
    folder: Annotated[Path, typer.Argument(metavar="[DIR]", help="The plugin's folder.")] = Path("."),
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Without optimisation, with checks.")] = False,
) -> None:
    """Compile a plugin with cargo or cc, and say where the library is."""
    if not folder.is_dir():
        what = "is a file; name its folder" if folder.exists() else "does not exist"
        raise Failure(f"{folder} {what}.")
    started = time.monotonic()
    if (folder / "Cargo.toml").is_file():
        tool, libraries = "cargo", _build_cargo(folder, debug=debug)
    elif sources := sorted(path for path in folder.glob("*.c") if path.is_file()):
        tool, libraries = "cc", [_build_c(folder, sources, debug=debug)]
    else:
        raise Failure(f"{folder} holds neither a Cargo.toml nor a .c file. Start a plugin with 'ferrule new'.")
    seconds = time.monotonic() - started
    found = [(library, _plugins_in(library)) for library in libraries]
    if as_json:
        print_json(
            {
                "tool": tool,
                "seconds": round(seconds, 3),
                "libraries": [{"path": str(path), "plugins": plugins} for path, plugins in found],
            }
        )
        return
    for library, plugins in found:
        write(str(library))
        for plugin in plugins:
            note(f"  {plugin['kind']} {plugin['name']}")
    note(f"built in {seconds:.1f} s")


def _plugins_in(library: Path) -> list[dict[str, str]]:
    """The plugins that a library says it has, read as a host would."""
    from ferrule.manifest import parse_manifest
    from ferrule.native.image import read_image

    image = read_image(library)
    manifest = parse_manifest(image.manifest_json, image.path)
    return [{"kind": plugin.kind, "name": plugin.name} for plugin in manifest.plugins]


def _relative(path: Path) -> Path:
    """As one would type it: relative to here if it lies below."""
    try:
        return path.resolve().relative_to(Path.cwd().resolve())
    except ValueError:
        return path


def _tool_missing(tool: str, hint: str) -> Failure:
    return Failure(f"{tool} is not on this machine (looked on PATH). {hint}")


def _build_cargo(folder: Path, *, debug: bool) -> list[Path]:
    """The libraries that cargo says it made; its progress and diagnostics go straight to stderr."""
    cargo = shutil.which(os.environ.get("CARGO", "cargo"))
    if cargo is None:
        raise _tool_missing("cargo", "Install Rust with rustup, or write the plugin in C (ferrule new --lang c).")
    command = [cargo, "build", "--message-format=json-render-diagnostics"]
    command += [] if debug else ["--release"]
    for crate, path in _needed_patches(folder / "Cargo.toml").items():
        # Not only in .cargo/config.toml: that file is not in the repository, and names one machine's path.
        command += ["--config", f"patch.crates-io.{crate}.path={json.dumps(str(path))}"]
    sys.stdout.flush()
    libraries: list[Path] = []
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        for line in process.stdout:
            libraries += _artifact(line)
    if process.returncode != 0:
        raise Failure(f"cargo failed with exit status {process.returncode}; what it says is above.")
    if not libraries:
        raise Failure(f'{folder / "Cargo.toml"} makes no library. Add: [lib] crate-type = ["cdylib"].')
    return [_relative(path) for path in libraries]


def _artifact(line: bytes) -> list[Path]:
    """The shared libraries in one of cargo's messages."""
    try:
        message: Any = json.loads(line)
    except ValueError:
        return []  # a build script's own print
    if not isinstance(message, dict) or message.get("reason") != "compiler-artifact":
        return []
    if "cdylib" not in message.get("target", {}).get("crate_types", ()):
        return []
    return [Path(file) for file in message.get("filenames", ()) if file.endswith((".so", ".dylib", ".dll"))]


def _needed_patches(manifest: Path) -> dict[str, Path]:
    """The SDK's crates that the package would take from the registry; cargo warns of a patch that it cannot use."""
    try:
        package = tomllib.loads(manifest.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}  # cargo says it better
    dependency = package.get("dependencies", {}).get("ferrule-plugin")
    if dependency is None or (isinstance(dependency, dict) and {"path", "git", "workspace"} & dependency.keys()):
        return {}
    return crate_dirs()


def _build_c(folder: Path, sources: Sequence[Path], *, debug: bool) -> Path:
    """One library of all the folder's C files."""
    compiler = shlex.split(os.environ.get("CC", "")) or ["cc"]
    if shutil.which(compiler[0]) is None:
        raise _tool_missing(f"the C compiler {compiler[0]!r}", "Install gcc or clang, or name another in CC.")
    name = folder.resolve().name.replace("-", "_")
    library = folder / "build" / f"{LIBRARY_PREFIX}{name}{LIBRARY_SUFFIX}"
    fresh = not library.parent.exists()
    library.parent.mkdir(exist_ok=True)
    command = [*compiler, "-shared", "-O0" if debug else "-O2", "-Wall"]
    command += [] if sys.platform == "win32" else ["-fPIC", "-pthread"]
    command += ["-g"] if debug else []
    command += [*cflags(), *shlex.split(os.environ.get("CFLAGS", ""))]
    with tempfile.TemporaryDirectory(prefix=".build-", dir=library.parent) as scratch:
        # Renamed when it is whole: an interrupted compiler leaves no half library.
        made = Path(scratch) / library.name
        command += ["-o", str(made), *map(str, sources), *shlex.split(os.environ.get("LDFLAGS", ""))]
        note(f"{compiler[0]} {' '.join(str(source) for source in sources)}")
        status = subprocess.run(command, check=False, stdout=sys.stderr).returncode
        if status == 0:
            made.replace(library)
    if status != 0:
        if fresh:
            library.parent.rmdir()
        raise Failure(f"{compiler[0]} failed with exit status {status}; what it says is above.")
    return library
