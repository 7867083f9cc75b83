"""``doctor``: what this installation is, what it can see, and what is missing."""

from __future__ import annotations

import os
import platform
import shlex
import shutil
import subprocess
import sys
from typing import Annotated, Any

import typer

from ferrule.cli.output import Failure, installed_version, print_json, print_table, write

__all__ = ["doctor"]


def doctor(as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False) -> None:
    """Show the installation and the compilers, and what is missing."""
    problems: list[dict[str, str]] = []
    found = {
        "host": _host(problems),
        "search_path": _search_path(problems),
        "tools": _tools(problems),
        "problems": problems,
    }
    if as_json:
        print_json(found)
    else:
        _show(found)
    if any(problem["severity"] == "error" for problem in problems):
        raise typer.Exit(1)


def _problem(problems: list[dict[str, str]], problem: str, hint: str, *, severity: str = "warning") -> None:
    problems.append({"severity": severity, "problem": problem, "hint": hint})


def _host(problems: list[dict[str, str]]) -> dict[str, Any]:
    found: dict[str, Any] = {
        "ferrule": installed_version(),
        "python": platform.python_version(),
        "executable": sys.executable,
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
    }
    try:
        from ferrule.native import ABI
        from ferrule.native.image import host_platform

        found["platform"] = host_platform()
        found["abi"] = ".".join(map(str, ABI))
    except ImportError as error:
        _problem(
            problems, f"the compiled module cannot be imported: {error}", "Install ferrule again.", severity="error"
        )
    try:
        from ferrule.native.cache import cache_dir

        folder = cache_dir()
        found["cache"] = str(folder)
        near = next(place for place in (folder, *folder.parents) if place.exists())
        if not os.access(near, os.W_OK):
            _problem(problems, f"the cache {folder} cannot be written", "Set FERRULE_CACHE_DIR.", severity="error")
    except ImportError:
        pass
    try:
        from ferrule.cli.sdk import sdk_dir

        found["sdk"] = str(sdk_dir())
    except Failure as failure:
        _problem(problems, failure.message, "Plugins cannot be built without it.", severity="error")
    return found


def _search_path(problems: list[dict[str, str]]) -> list[dict[str, Any]]:
    from ferrule.plugins.registry import Registry

    found: list[dict[str, Any]] = []
    for place in Registry().search_path():
        found.append({"path": str(place.path), "origin": place.origin, "exists": place.path.exists()})
        if place.origin == "FERRULE_PLUGIN_PATH" and not place.path.exists():
            _problem(problems, f"{place.path} of FERRULE_PLUGIN_PATH is not there", "Make it, or take it out.")
    return found


def _tools(problems: list[dict[str, str]]) -> dict[str, dict[str, str | None]]:
    found = {}
    for name, command in {
        "cc": shlex.split(os.environ.get("CC", "")) or ["cc"],
        "cargo": ["cargo"],
        "rustc": ["rustc"],
    }.items():
        path = shutil.which(command[0])
        found[name] = {"path": path, "version": None if path is None else _version([path, *command[1:]])}
    if found["cargo"]["path"] is None or found["rustc"]["path"] is None:
        _problem(problems, "cargo and rustc are not both there", "For plugins in Rust install it with rustup.")
    if found["cc"]["path"] is None:
        _problem(problems, "there is no C compiler", "For plugins in C, and to link Rust ones, install gcc or clang.")
    return found


def _version(command: list[str]) -> str | None:
    try:
        done = subprocess.run([*command, "--version"], capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.splitlines()[0] if done.returncode == 0 and done.stdout else None


def _show(found: dict[str, Any]) -> None:
    print_table(["", ""], [(name, str(value)) for name, value in found["host"].items()])
    write("\nPlugins are looked for in")
    rows = [(place["path"], place["origin"], "" if place["exists"] else "not there") for place in found["search_path"]]
    print_table(["", "", ""], [(f"  {path}", origin, exists) for path, origin, exists in rows])
    write("\nTools for authors")
    tools = found["tools"].items()
    print_table(
        ["", "", ""], [(f"  {name}", tool["version"] or "not found", tool["path"] or "") for name, tool in tools]
    )
    write("")
    for problem in found["problems"]:
        write(f"{problem['severity']}: {problem['problem']}. {problem['hint']}")
    if not found["problems"]:
        write("Everything is there.")
