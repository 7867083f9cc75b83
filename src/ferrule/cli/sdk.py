"""Where the SDK lies: the C headers and the Rust crates that a plugin is built with."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import Annotated

import typer

from ferrule.cli.output import Failure, write

__all__ = ["cflags", "crate_dirs", "include_dirs", "sdk", "sdk_dir"]


def sdk_dir() -> Path:
    """The folder with ``include``, ``c`` and ``rust``: inside the installed package, or in a checkout beside ``src``.

    Raises:
        Failure: It is in neither place, so the installation is broken.
    """
    package = Path(__file__).resolve().parents[1]
    places = [package / "_sdk", package.parents[1] / "native_sdk"]
    for place in places:
        if (place / "include" / "ferrule.h").is_file():
            return place
    raise Failure(f"the SDK is missing: no include/ferrule.h in {places[0]} or {places[1]}. Install ferrule again.")


def include_dirs() -> list[Path]:
    """What a C compiler needs to be given: the ABI's header, and the C SDK on top of it."""
    return [sdk_dir() / "include", sdk_dir() / "c"]


def cflags() -> list[str]:
    """`include_dirs` as a compiler's arguments."""
    return [f"-I{folder}" for folder in include_dirs()]


def crate_dirs() -> dict[str, Path]:
    """The Rust SDK's crates by name."""
    rust = sdk_dir() / "rust"
    return {name: rust / name for name in ("ferrule-plugin", "ferrule-sys")}


def sdk(
    include_dir: Annotated[bool, typer.Option("--include-dir", help="The folder of ferrule.h.")] = False,
    flags: Annotated[bool, typer.Option("--cflags", help="What a C compiler needs to find the headers.")] = False,
    rust_dir: Annotated[bool, typer.Option("--rust-dir", help="The folder of the Rust crates.")] = False,
) -> None:
    """Say where the SDK lies, for a Makefile or Cargo.toml."""
    found = {
        "include-dir": str(sdk_dir() / "include"),
        "cflags": " ".join(cflags()) if os.name == "nt" else shlex.join(cflags()),
        "rust-dir": str(sdk_dir() / "rust"),
    }
    wanted = [name for name, chosen in zip(found, (include_dir, flags, rust_dir), strict=True) if chosen]
    if wanted:
        for name in wanted:
            write(found[name])
    else:
        for name, value in found.items():
            write(f"{name}: {value}")
