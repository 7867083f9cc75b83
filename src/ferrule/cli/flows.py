"""``run`` and ``lint``: what an operator does with a flow file."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Annotated, Any

import typer

from ferrule.cli.options import AsJson
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
from ferrule.cli.running import FlowFile, Lanes, Set, failed, lanes_of, running, show_summary

__all__ = ["lint", "run"]


def run(
    flow: FlowFile,
    set_: Set = None,
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="Read at most this many records.")] = None,
    lanes: Lanes = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Begin anew, whatever the checkpoint says.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check it and show what would run.")] = False,
    as_json: AsJson = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress and no summary.")] = False,
) -> None:
    """Run a flow: progress while it runs, a summary at its end.

    A flow with a checkpoint goes on where it stopped. Ctrl-C and SIGTERM end it after the records under way. Exit
    status 3 says that it is done and that records are in the dead-letter file.
    """
    if dry_run:
        _show_plan(flow, set_ or [], as_json=as_json)
        return
    from ferrule.errors import FerruleError, FlowError
    from ferrule.flow import Flow, FlowInterrupted

    loaded = None
    try:
        loaded = Flow.load(flow, set=set_ or [])
        with running(quiet=quiet, checkpoint=loaded.spec.checkpoint) as update:
            summary = loaded.run(limit=limit, lanes=lanes_of(lanes), fresh=fresh, on_progress=update)
    except FlowInterrupted as stop:
        show_summary(stop.summary, as_json=as_json, quiet=quiet)
        message = f"stopped after {stop.summary.read:,} records"
        if stop.summary.checkpoint is not None:
            message += f"; resume with: {_resume(flow, set_, lanes)}"
        raise Failure(message) from None
    except FerruleError as error:
        failed(error, as_json=as_json)
        if loaded is not None and loaded.spec.checkpoint is not None and not isinstance(error, FlowError):
            note(f"  When that is mended, go on with: {_resume(flow, set_, lanes)}")
        raise typer.Exit(FAILED) from None
    show_summary(summary, as_json=as_json, quiet=quiet)
    if summary.dead:
        raise typer.Exit(DEAD_LETTERS)


def _resume(flow: Path, overrides: list[str] | None, lanes: str | None) -> str:
    """The command that goes on; --fresh would not, and --limit counts anew."""
    given = [part for each in overrides or () for part in ("--set", each)]
    return shlex.join(["ferrule", "run", str(flow), *given, *(["--lanes", lanes] if lanes is not None else [])])


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
    tests: Annotated[
        bool, typer.Option("--tests", help="Run the tests in the files too: this loads and runs their steps.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Find what is wrong with flow files, without running them.

    Keys, types, variables, plugins and their configurations, each with line and column. Nothing of a plugin runs,
    unless --tests is given.
    """
    from ferrule.flow.lint import examine

    wrong = failures = 0
    reports = []
    for path in flows:
        errors = examine(path, set=set_ or []).errors
        wrong += bool(errors)
        report: dict[str, Any] = {"path": str(path), "ok": not errors}
        report["errors"] = [error_json(error) for error in errors]
        reports.append(report)
        if not as_json:
            for error in errors:
                print_error(str(error))
            if not errors:
                write(f"{path}: good")
        if tests and not errors:
            bad = _run_tests(path, set_ or [], report, as_json=as_json)
            failures += bad
            report["ok"] = bad == 0
    if as_json:
        print_json(reports)
    elif wrong:
        note(f"{wrong} of {len(flows)} flows cannot run" if len(flows) > 1 else "the flow cannot run")
    if failures and not as_json:
        print_error(f"{failures} test{'' if failures == 1 else 's'} failed")
    if wrong or failures:
        raise typer.Exit(FAILED)


def _run_tests(path: Path, overrides: list[str], report: dict[str, Any], *, as_json: bool) -> int:
    """Run a file's tests; how many failed. What keeps them from running counts as one."""
    from ferrule.errors import FerruleError
    from ferrule.flow import Flow

    report["tests"] = told = []
    try:
        results = Flow.load(path, set=overrides).test()
    except FerruleError as error:
        report["errors"].append(error_json(error))
        if not as_json:
            for message in describe(error):
                print_error(message)
        return 1
    for result in results:
        told.append({"name": result.name, "line": result.line, "ok": result.ok, "problems": list(result.problems)})
        if as_json:
            continue
        if result.ok:
            write(f"  ok {result.name}")
        else:
            first, *others = result.problems
            write(f"  FAILED {result.name} (line {result.line}): {first}")
            for problem in others:
                write(f"    {problem}")
    return sum(not result.ok for result in results)
