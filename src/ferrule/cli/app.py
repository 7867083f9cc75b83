"""Puts the commands together, and turns whatever they raise into one message and an exit status."""

from __future__ import annotations

import os
import sys
from typing import Annotated, Any, NoReturn

import typer

from ferrule.cli import author, bench, doctor, flows, plugins
from ferrule.cli.calling import call
from ferrule.cli.deadletter import dead_letter
from ferrule.cli.output import FAILED, WRONG_USAGE, Failure, describe, installed_version, print_error, write
from ferrule.cli.sdk import sdk

__all__ = ["main"]


def _show_version(wanted: bool) -> None:
    if wanted:
        write(f"ferrule {installed_version()}")
        raise typer.Exit()


def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Native plugins for Python: data flows on them, and the tools to write them."""


def _application() -> typer.Typer:
    app = typer.Typer(
        name="ferrule",
        callback=_root,
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    for command in (
        flows.run,
        flows.lint,
        plugins.list_plugins,
        plugins.inspect,
        call,
        author.new,
        author.build,
        bench.bench,
        sdk,
        doctor.doctor,
    ):
        app.command(name=command.__name__.removesuffix("_plugins"))(command)
    app.add_typer(dead_letter, name="dead-letter")
    return app


_INTERRUPTED = 130
"""What typer returns where a command was interrupted; older ones raise."""


def main(arguments: list[str] | None = None) -> NoReturn:
    """Run the command with `arguments` (None: the process's own), and exit with its status."""
    debug = os.environ.get("FERRULE_DEBUG", "") not in ("", "0")
    try:
        status = _run(sys.argv[1:] if arguments is None else arguments, debug)
        sys.stdout.flush()
    except BrokenPipeError:
        # Whoever read the output has seen enough (`| head`).
        status = FAILED
        _give_up_stdout()
    except OSError as error:  # what _run lets through is stdout's own: a full disk
        status = FAILED
        _give_up_stdout()
        print_error(f"standard output: {error.strerror or error}")
    sys.exit(status)


def _give_up_stdout() -> None:
    """Python flushes stdout once more as it ends, and would complain of the same fault again."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _run(arguments: list[str], debug: bool) -> int:
    command: Any = typer.main.get_command(_application())
    try:
        # In standalone mode typer would print errors in its own shapes; here it raises, or returns an exit status.
        result = command.main(args=arguments, prog_name="ferrule", standalone_mode=False)
        if result == _INTERRUPTED:
            raise KeyboardInterrupt
    except Failure as failure:
        print_error(failure.message)
        return failure.status
    except (KeyboardInterrupt, typer.Abort):
        print_error("interrupted")
        return FAILED
    except BrokenPipeError:
        raise
    except Exception as error:
        if hasattr(error, "format_message") and hasattr(error, "exit_code"):  # click's own, wrong usage
            return _usage(error)
        if debug:
            raise
        for message in describe(error):
            print_error(message)
        return FAILED
    return result if isinstance(result, int) else 0


def _usage(error: Any) -> int:
    context = getattr(error, "ctx", None)
    message = error.format_message()
    if type(error).__name__ == "NoArgsIsHelpError":  # `ferrule` alone: the message is the help
        sys.stderr.write(message + "\n")
        return WRONG_USAGE
    command = context.command_path if context is not None else "ferrule"
    print_error(f"{message.rstrip('.')}. Try '{command} --help'.")
    return WRONG_USAGE
