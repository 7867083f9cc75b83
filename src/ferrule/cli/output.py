"""What every command prints through: tables, JSON, and errors that are one message."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from rich.console import Console

    from ferrule.errors import FerruleError

__all__ = [
    "DEAD_LETTERS",
    "FAILED",
    "WRONG_USAGE",
    "Failure",
    "console",
    "describe",
    "error_json",
    "installed_version",
    "note",
    "print_error",
    "print_json",
    "print_table",
    "write",
    "write_bytes",
]

FAILED = 1
WRONG_USAGE = 2
DEAD_LETTERS = 3


class Failure(Exception):
    """A command cannot go on: one message on stderr, and an exit status."""

    def __init__(self, message: str, *, status: int = FAILED) -> None:
        super().__init__(message)
        self.message = message
        self.status = status


def installed_version() -> str:
    """ferrule's version, as it was installed."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("ferrule")
    except PackageNotFoundError:  # run out of its sources
        return "(not installed)"


def write(text: str) -> None:
    """A line of the result."""
    sys.stdout.write(text + "\n")


def write_bytes(data: bytes) -> None:
    """A line of the result that is bytes already."""
    sys.stdout.flush()
    sys.stdout.buffer.write(data if data.endswith(b"\n") else data + b"\n")
    sys.stdout.buffer.flush()


def note(text: str) -> None:
    """A line beside the result: what is being done, or what to do next."""
    sys.stderr.write(text + "\n")


def print_json(value: Any) -> None:
    """The whole result as one JSON document."""
    write(json.dumps(value, indent=2, ensure_ascii=False, default=str))


def console(*, stderr: bool = False) -> Console:
    """A rich console; wide where nobody looks, so that a pipe gets whole lines."""
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    return Console(stderr=stderr, width=None if stream.isatty() else 4096, highlight=False, soft_wrap=False)


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str]], *, right: Sequence[int] = ()) -> None:
    """Columns without a frame, which read well and can be cut by other programs; `right` are those of numbers."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=any(columns))
    for number, column in enumerate(columns):
        justify: Literal["left", "right"] = "right" if number in right else "left"
        table.add_column(column.upper(), overflow="fold", header_style="bold", justify=justify)
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    printer = console()
    with printer.capture() as printed:
        printer.print(table)
    for line in printed.get().splitlines():
        write(line.rstrip())  # the last column is padded too


def print_error(message: str) -> None:
    """One message on stderr; nothing of it is taken for markup."""
    coloured = sys.stderr.isatty() and not os.environ.get("NO_COLOR")
    sys.stderr.write(("\x1b[1;31merror:\x1b[0m " if coloured else "error: ") + message + "\n")


def describe(error: BaseException) -> list[str]:
    """An exception as the messages that a user is shown, most important first."""
    from ferrule.errors import FerruleError, PluginError

    if isinstance(error, PluginError):
        # A configuration's faults are in the message already; whatever else is there is the plugin's own.
        own = {key: value for key, value in error.details.items() if key != "errors"}
        details = f"\n  details: {json.dumps(own, ensure_ascii=False, default=str)}" if own else ""
        return [f"{error}{details}", *getattr(error, "__notes__", ())]
    if isinstance(error, FerruleError):
        return [str(error), *getattr(error, "__notes__", ())]
    if isinstance(error, OSError) and error.filename is not None:
        return [f"{error.filename}: {error.strerror or error}"]
    if isinstance(error, OSError):
        return [str(error)]
    return [
        f"this is a fault in ferrule, not in what it was given: {type(error).__name__}: {error}\n"
        "  Run it again with FERRULE_DEBUG=1 for where it happened."
    ]


def error_json(error: FerruleError) -> dict[str, Any]:
    """An error as a JSON object: its type, its message, and whatever else it knows."""
    from ferrule.errors import FlowError, LibraryError, PluginError

    found: dict[str, Any] = {"type": type(error).__name__, "message": str(error)}
    if isinstance(error, FlowError):
        found.update(
            message=error.problem,
            path=None if error.path is None else str(error.path),
            line=error.line,
            column=error.column,
            hint=error.hint,
        )
    elif isinstance(error, LibraryError):
        found.update(message=error.problem, path=str(error.path), hint=error.hint)
    elif isinstance(error, PluginError):
        found.update(
            message=error.message,
            status=error.status_name,
            plugin=error.plugin,
            method=error.method,
            step=error.step,
            record=error.record,
            details=error.details,
            retry_after=error.retry_after,
        )
    return found
