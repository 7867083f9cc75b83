"""Checks that imports go downward only: `python tools/check_imports.py [SRC]`, exit status 1 if one does not.

The layers, from the top: the package itself, which only re-exports; the faces (cli); the engines (flow); the
plugins; the ground (native, manifest, and errors below all). A module may import from its own layer's package
and from those below. ferrule.native.door is the one door to the compiled module, and no C of the host includes
Python.h, so that the same files serve where there is no Python. One file of the binding may.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

LAYERS = {
    "errors": 0,
    "manifest": 1,
    "native": 1,
    "plugins": 2,
    "flow": 3,
    "cli": 4,
    "__init__": 5,
    "__main__": 5,
}
"""Part of the package → its height. A part that is not here is a design question: give it a layer."""

COMPILED = "ferrule.native._native"
BINDING = "binding/prepared.c"
"""Below ferrule/native, the one C file with Python.h."""


def check(source: Path) -> list[str]:
    """Every breach below a source folder that holds the package ``ferrule``, as `file:line: what is wrong`."""
    package = source / "ferrule"
    breaches = []
    for path in sorted(package.rglob("*.py")):
        if "templates" not in path.relative_to(package).parts:
            breaches += [f"{path}:{line}: {problem}" for line, problem in _check_module(path, source)]
    for path in sorted((package / "native").rglob("*.[ch]")):
        if path == package / "native" / BINDING:
            continue
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            if line.lstrip().startswith("#") and "include" in line and "Python.h" in line:
                breaches.append(f"{path}:{number}: the host's C must not include Python.h (only {BINDING} may)")
    return breaches


def _check_module(path: Path, source: Path) -> Iterator[tuple[int, str]]:
    module = list(path.relative_to(source).with_suffix("").parts)
    part = module[1]
    if part not in LAYERS:
        yield 1, f"ferrule.{part} has no layer; give it one in {Path(__file__).name}"
        return
    is_door = path == source / "ferrule" / "native" / "door.py"
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"), str(path))):
        for target in _targets(node, module):
            if target[0] != "ferrule":
                continue
            if ".".join(target).startswith(COMPILED) and not is_door:
                yield _line(node), f"only ferrule.native.door may import {COMPILED}"
            other = target[1] if len(target) > 1 else "__init__"
            height = LAYERS.get(other, LAYERS["__init__"])  # `from ferrule import Host` is a re-export's name
            if height > LAYERS[part]:
                what = f"ferrule.{other}" if other in LAYERS and other != "__init__" else "the package ferrule itself"
                yield _line(node), f"ferrule.{part} imports {what}, which stands above it"


def _targets(node: ast.AST, module: list[str]) -> Iterator[list[str]]:
    """The dotted names that a statement imports, absolute, with the imported name at the end."""
    if isinstance(node, ast.Import):
        for alias in node.names:
            yield alias.name.split(".")
    elif isinstance(node, ast.ImportFrom):
        base = node.module.split(".") if node.module else []
        if node.level:
            # For a package's __init__ the last part is "__init__", so the same cut serves both.
            base = module[: -node.level] + base
        for alias in node.names:
            yield [*base, alias.name]


def _line(node: ast.AST) -> int:
    return getattr(node, "lineno", 1)


def main() -> int:
    source = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).resolve().parents[1] / "src"
    breaches = check(source)
    for breach in breaches:
        print(breach, file=sys.stderr)
    if not breaches:
        print("imports go downward only")
    return 1 if breaches else 0


if __name__ == "__main__":
    sys.exit(main())
