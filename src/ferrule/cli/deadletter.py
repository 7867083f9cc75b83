"""``dead-letter``: what an operator does with the records that failed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ferrule.cli.options import AsJson
from ferrule.cli.output import DEAD_LETTERS, FAILED, Failure, note, print_json, write
from ferrule.cli.running import FlowFile, Lanes, Set, failed, lanes_of, running, show_summary, summary_json

__all__ = ["dead_letter"]

dead_letter = typer.Typer(no_args_is_help=True, rich_markup_mode=None)


@dead_letter.callback()
def _dead_letter() -> None:
    """What to do with the records that failed."""


@dead_letter.command()
def replay(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The dead-letter file.")],
    flow: FlowFile,
    set_: Set = None,
    anew: Annotated[
        bool, typer.Option("--anew", help="Let the sink begin anew where it cannot go on: that may overwrite.")
    ] = False,
    lanes: Lanes = None,
    as_json: AsJson = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress and no summary.")] = False,
) -> None:
    """Enter the records of dead letters behind the flow's source.

    They go through the same steps, and into the sink behind what it has, if the flow has a checkpoint; otherwise send
    the output elsewhere (--set sink.config.path=FILE). What fails again is dead once more, under its old number. FILE
    keeps that, and the source's own bad items, which have no record to replay. Nothing else may run the flow meanwhile.
    Exit status 3 says that some are still dead.
    """
    from ferrule.errors import FerruleError
    from ferrule.flow import Flow, FlowInterrupted

    try:
        loaded = Flow.load(flow, set=set_ or [])
        with running(quiet=quiet, checkpoint=None) as update:
            done = loaded.replay(file, anew=anew, lanes=lanes_of(lanes), on_progress=update)
    except FlowInterrupted as stop:
        show_summary(stop.summary, as_json=as_json, quiet=quiet)
        for line in getattr(stop, "__notes__", ()):
            note(line)
        raise Failure(f"stopped after {stop.summary.read:,} records") from None
    except FerruleError as error:
        failed(error, as_json=as_json)
        raise typer.Exit(FAILED) from None
    summary = done.summary
    dead = 0 if summary is None else summary.dead
    if as_json:
        told = {"letters": done.letters, "entered": done.entered, "not_replayable": done.not_replayable}
        print_json(
            {**told, "dead": dead, "dead_letter": done.dead_letter, "summary": summary and summary_json(summary)}
        )
    elif not quiet:
        write(f"{file}: {_count(done.letters, 'dead letter')}, {_count(done.entered, 'record')} entered")
        if done.not_replayable:
            write(f"  {done.not_replayable:,} not replayable (the source could not make a record of them): they stay")
        if summary is not None:
            show_summary(summary, as_json=False, quiet=False)
    if dead or done.not_replayable:
        raise typer.Exit(DEAD_LETTERS)


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"
