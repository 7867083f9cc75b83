"""``run`` and ``lint``: what an operator does with a flow file."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ferrule.cli.output import (
    DEAD_LETTERS,
    FAILED,
    Failure,
    describe,
    error_json,
    note,
    print_error,
    print_json,
    print_table,
    write,
)

if TYPE_CHECKING:
    from ferrule.flow import Progress, Summary

__all__ = ["lint", "run"]

FlowFile = Annotated[Path, typer.Argument(metavar="FLOW", help="The flow file.")]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Replace a value, e.g. source.config.path=x. Repeatable."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]


def run(
    flow: FlowFile,
    set_: Set = None,
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="Read at most this many records.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check it and show what would run.")] = False,
    as_json: AsJson = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress and no summary.")] = False,
) -> None:
    """Run a flow: progress while it runs, a summary at its end.

    Exit status 3 says that it is done and that records are in the dead-letter file.
    """
    if dry_run:
        _show_plan(flow, set_ or [], as_json=as_json)
        return
    from ferrule.errors import FerruleError
    from ferrule.flow import Flow, FlowInterrupted

    live = _Live(shown=sys.stderr.isatty() and not quiet)
    try:
        loaded = Flow.load(flow, set=set_ or [])
        with live:
            summary = loaded.run(limit=limit, on_progress=live.update)
    except FlowInterrupted as stop:
        _show(stop.summary, as_json=as_json, quiet=quiet)
        raise Failure(f"stopped after {stop.summary.read:,} records") from None
    except FerruleError as error:
        if not as_json:
            raise
        for message in describe(error):
            print_error(message)
        print_json({"error": error_json(error)})
        raise typer.Exit(FAILED) from None
    _show(summary, as_json=as_json, quiet=quiet)
    if summary.dead:
        raise typer.Exit(DEAD_LETTERS)


def _show(summary: Summary, *, as_json: bool, quiet: bool) -> None:
    if as_json:
        from dataclasses import asdict

        print_json({**asdict(summary), "rate": summary.rate})
        return
    if quiet:
        return
    write(f"flow {summary.name}{', interrupted' if summary.stopped else ''}")
    minutes, seconds = divmod(summary.seconds, 60)
    time = f"{seconds:.2f} s" if minutes == 0 else f"{minutes:.0f} min {seconds:.0f} s"
    counts = {
        "read": f"{summary.read:,}",
        "written": f"{summary.written:,}",
        "skipped": f"{summary.skipped:,}",
        "dead letters": f"{summary.dead:,}" + (f"  in {summary.dead_letter}" if summary.dead else ""),
        "time": time,
        "rate": f"{summary.rate:,.0f} records/s",
    }
    for name, value in counts.items():
        write(f"  {name:<14}{value}")
    if summary.steps:
        write("")
        columns = ("  step", "plugin", "records", "skipped", "errors")
        rows = [
            (f"  {step.name}", step.plugin, f"{step.calls:,}", f"{step.skipped:,}", f"{step.errors:,}")
            for step in summary.steps
        ]
        print_table(columns, rows, right=(2, 3, 4))


class _Live:
    """The line on a terminal while a flow runs; shows nothing where there is no terminal."""

    def __init__(self, *, shown: bool) -> None:
        self._shown = shown
        self._display: Any = None

    def __enter__(self) -> _Live:
        if self._shown:
            from rich.live import Live

            from ferrule.cli.output import console

            self._display = Live(console=console(stderr=True), auto_refresh=False, transient=True)
            self._display.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._display is not None:
            self._display.stop()

    def update(self, progress: Progress) -> None:
        """Called by the engine about ten times a second."""
        if self._display is None:
            return
        from rich.text import Text

        line = Text()
        for name, style in (("read", ""), ("written", "green"), ("skipped", "yellow"), ("dead", "red")):
            value = getattr(progress, name)
            line.append(f"{value:,} ", style=f"bold {style}" if value else "dim")
            line.append(f"{name}  ", style="dim")
        seconds = progress.seconds
        line.append(f"{progress.rate:,.0f} ", style="bold")
        line.append(f"records/s  {int(seconds // 60):d}:{seconds % 60:04.1f}", style="dim")
        self._display.update(line, refresh=True)


# --- without running ------------------------------------------------------------------------------


def _show_plan(path: Path, overrides: list[str], *, as_json: bool) -> None:
    """What would run; the same errors as `lint`."""
    from ferrule.flow.lint import examine

    found = examine(path, set=overrides)
    spec = found.spec
    if found.errors or spec is None:
        for error in found.errors:
            print_error(str(error))
        if as_json:
            print_json({"errors": [error_json(error) for error in found.errors]})
        raise typer.Exit(FAILED)
    plan = []
    for item in found.items:
        plugin = f"python:{item.spec.python}" if item.found is None else item.found.plugin.name
        place = None if item.found is None or item.found.path is None else str(item.found.path)
        about = {"role": item.spec.role, "name": item.spec.name, "plugin": plugin, "library": place}
        plan.append({**about, "on_error": item.spec.on_error, "config": item.config})
    if as_json:
        dead_letter = None if spec.dead_letter is None else str(spec.dead_letter)
        print_json({"name": spec.name, "items": plan, "dead_letter": dead_letter})
        return
    write(f"flow {spec.name}: good; nothing was run")
    keys = ("role", "name", "plugin", "on_error")
    rows = [(*(str(item[key]) for key in keys), json.dumps(item["config"], ensure_ascii=False)) for item in plan]
    print_table(("  role", "name", "plugin", "on error", "config"), [(f"  {row[0]}", *row[1:]) for row in rows])


def lint(
    flows: Annotated[list[Path], typer.Argument(metavar="FLOW...", help="Flow files.")],
    set_: Set = None,
    as_json: AsJson = False,
) -> None:
    """Find what is wrong with flow files, without running them.

    Keys, types, variables, plugins and their configurations, each with line and column.
    """
    from ferrule.flow.lint import examine

    failed = 0
    reports = []
    for path in flows:
        errors = examine(path, set=set_ or []).errors
        failed += bool(errors)
        reports.append({"path": str(path), "ok": not errors, "errors": [error_json(error) for error in errors]})
        if as_json:
            continue
        for error in errors:
            print_error(str(error))
        if not errors:
            write(f"{path}: good")
    if as_json:
        print_json(reports)
    elif failed:
        note(f"{failed} of {len(flows)} flows cannot run" if len(flows) > 1 else "the flow cannot run")
    if failed:
        raise typer.Exit(FAILED)
