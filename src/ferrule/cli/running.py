"""What the commands share that run a flow: the live display, the summary, and how a signal ends it."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ferrule.cli.output import describe, error_json, note, print_error, print_json, print_table, write

if TYPE_CHECKING:
    from ferrule.errors import FerruleError
    from ferrule.flow import Progress, StepSummary, Summary

__all__ = ["FlowFile", "Lanes", "Set", "failed", "lanes_of", "running", "show_summary", "summary_json"]

FlowFile = Annotated[Path, typer.Argument(metavar="FLOW", help="The flow file.")]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Replace a value, e.g. source.config.path=x. Repeatable."),
]
Lanes = Annotated[
    str | None,
    typer.Option("--lanes", metavar="N|auto", help="Threads that work on the steps; auto is one a core."),
]

MOST_LANES = 256


def lanes_of(text: str | None) -> int | None:
    """What --lanes says, as the engine counts: 0 for one a core, None for what the flow says."""
    if text is None:
        return None
    if text == "auto":
        return 0
    if text.isascii() and text.isdigit() and 1 <= int(text[:9]) <= MOST_LANES:
        return int(text)
    raise typer.BadParameter(f"{text!r} is neither a number from 1 to {MOST_LANES} nor 'auto'", param_hint="'--lanes'")


@contextmanager
def running(*, quiet: bool, checkpoint: Path | None) -> Iterator[Callable[[Progress], None]]:
    """While a flow runs: shows its progress where somebody looks, and lets SIGTERM end it as Ctrl-C does.

    Yields:
        What the engine is to call with its progress.
    """
    live = _Live(shown=sys.stderr.isatty() and not quiet, checkpoint=None if quiet else checkpoint)
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with live:
            yield live.update
    finally:
        signal.signal(signal.SIGTERM, before)


def failed(error: FerruleError, *, as_json: bool) -> None:
    """Say what went wrong: on stderr, and as JSON on stdout where that is wanted."""
    for message in describe(error):
        print_error(message)
    if as_json:
        print_json({"error": error_json(error)})


def summary_json(summary: Summary) -> dict[str, Any]:
    """A summary as a JSON object."""
    from dataclasses import asdict

    return {**asdict(summary), "rate": summary.rate}


def show_summary(summary: Summary, *, as_json: bool, quiet: bool) -> None:
    """Print what a flow did, as text or as JSON."""
    if as_json:
        print_json(summary_json(summary))
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
        "waiting": f"{summary.waiting:,}  in {summary.checkpoint}",
        "time": time,
        "rate": f"{summary.rate:,.0f} records/s",
        "lanes": f"{summary.lanes}",
    }
    if not (summary.waiting and summary.checkpoint):
        del counts["waiting"]
    for name, value in counts.items():
        write(f"  {name:<14}{value}")
    if summary.steps:
        write("")
        columns = ("  step", "plugin", "records", "skipped", "errors", "retries", "mean", "p99")
        rows = [
            (
                f"  {step.name}",
                step.plugin,
                f"{step.calls:,}",
                f"{step.skipped:,}",
                f"{step.errors:,}",
                f"{step.retries:,}",
                _time(step.mean_ns),
                _time(step.p99_ns, most=True),
            )
            for step in summary.steps
        ]
        print_table(columns, rows, right=(2, 3, 4, 5, 6, 7))


def _time(ns: float | None, *, most: bool = False) -> str:
    """A call's time in a unit that suits it; `most` is a bound."""
    if ns is None:
        return "-"
    sign = "≤ " if most else ""
    for unit, size in (("s", 1e9), ("ms", 1e6), ("µs", 1e3)):
        if ns >= size:
            return f"{sign}{ns / size:.3g} {unit}"
    return f"{sign}{ns:.0f} ns"


def _slowest(steps: tuple[StepSummary, ...]) -> StepSummary | None:
    """The step that takes most of the time: its mean, times how often it is called."""
    known = [step for step in steps if step.mean_ns is not None]
    return max(known, key=lambda step: (step.mean_ns or 0.0) * step.calls, default=None)


class _Live:
    """The lines on a terminal while a flow runs; shows nothing where there is no terminal."""

    def __init__(self, *, shown: bool, checkpoint: Path | None) -> None:
        self._shown = shown
        self._checkpoint = checkpoint
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
        if progress.resumed_at is not None and self._checkpoint is not None:
            note(f"goes on behind record {progress.resumed_at:,} (checkpoint {self._checkpoint})")
            self._checkpoint = None
        if self._display is None:
            return
        from rich.text import Text

        line = Text()
        for name, style, label in (
            ("read", "", "records"),
            ("written", "green", "written"),
            ("skipped", "yellow", "skipped"),
            ("dead", "red", "dead letters"),
            ("waiting", "yellow", "waiting"),
        ):
            value = getattr(progress, name)
            if value or name not in ("skipped", "waiting"):
                line.append(f"{value:,} ", style=f"bold {style}" if value else "dim")
                line.append(f"{label}  ", style="dim")
        seconds = progress.seconds
        line.append(f"\n{progress.rate:,.0f} ", style="bold")
        line.append(f"records/s  {int(seconds // 60):d}:{seconds % 60:04.1f}", style="dim")
        slowest = _slowest(progress.steps)
        if slowest is not None:
            line.append("  slowest step ", style="dim")
            line.append(slowest.name, style="bold")
            # A chunk of slow records is counted above only when all of it is done; this moves with each of them.
            line.append(f" {slowest.calls:,} records, {_time(slowest.mean_ns)} each", style="dim")
        self._display.update(line, refresh=True)
