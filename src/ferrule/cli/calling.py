"""``call``: one method of a plugin, from the command line."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any, Self, TypeVar

import typer

from ferrule.cli.options import AsJson, given_bytes, given_object
from ferrule.cli.output import (
    FAILED,
    WRONG_USAGE,
    Failure,
    describe,
    error_json,
    note,
    print_error,
    print_json,
    write_bytes,
)

if TYPE_CHECKING:
    from ferrule.manifest import Method
    from ferrule.plugins.instance import Answer, Instance
    from ferrule.plugins.stream import Stream

__all__ = ["AROUND", "call"]

T = TypeVar("T")

_INTERRUPTED = 130
_BLOCK = 64 * 1024


def call(
    target: Annotated[str, typer.Argument(metavar="LIB[:PLUGIN]|NAME", help="A library file, or a plugin's name.")],
    method: Annotated[str, typer.Argument(help="The method's name.")],
    input_: Annotated[
        str, typer.Option("--input", "-i", metavar="JSON|@FILE|-", help="The input; - is standard input.")
    ] = "{}",
    config: Annotated[str, typer.Option("--config", metavar="JSON|@FILE", help="The plugin's configuration.")] = "{}",
    metadata: Annotated[str | None, typer.Option("--metadata", metavar="JSON|@FILE", help="Sent beside it.")] = None,
    timeout: Annotated[
        float | None, typer.Option("--timeout", min=0, help="Seconds that the plugin is told it has.")
    ] = None,
    stream: Annotated[
        bool, typer.Option("--stream", help="Take the answer as a stream, where the method can do either.")
    ] = False,
    feed: Annotated[
        str | None, typer.Option("--feed", metavar="FILE|-", help="Feed this to the stream while it runs.")
    ] = None,
    kind: Annotated[str | None, typer.Option("--kind", help="Which kind, if several have the name.")] = None,
    language: Annotated[str | None, typer.Option("--language", help="Which language, likewise.")] = None,
    as_json: AsJson = False,
) -> None:
    """Create a plugin, call one method, print its answer.

    A method that streams prints each item as it comes, JSON on a line of its own, anything else as it is; one that is
    fed has what it is given as it comes, too, JSON line by line. A source is connected first, and a sink opened. Ctrl-C
    asks the plugin to stop, a second one leaves at once.
    """
    from ferrule.errors import FerruleError
    from ferrule.plugins.host import Host

    if feed == input_ == "-":
        raise Failure("--input and --feed cannot both be standard input.", status=WRONG_USAGE)
    settings = given_object(config, "--config")
    about = None if metadata is None else given_object(metadata, "--metadata")
    data = given_bytes(input_, "--input")
    blocks = None if feed is None else _open_feed(feed)
    try:
        with Host() as host, host.create(target, settings, kind=kind, language=language) as instance:
            entry = instance.plugin.method(method)  # or NotFoundError, with the nearest
            _check_use(entry, stream=stream, feed=feed)
            with _in_its_place(instance, method), _OnInterrupt() as interrupt:
                if stream or blocks is not None or entry.mode == "stream":

                    def print_items() -> None:
                        with instance.open(method, data, metadata=about, timeout=timeout) as opened:
                            interrupt.cancels(opened)
                            _print_items(opened, entry, blocks, as_json=as_json)

                    interrupt.wait_for(print_items)
                else:
                    if entry.input == "application/x-ndjson" and not data.endswith(b"\n"):
                        data += b"\n"  # such a method takes whole lines
                    answer = interrupt.wait_for(lambda: instance.answer(method, data, metadata=about, timeout=timeout))
                    _print_answer(answer, as_json=as_json)
    except FerruleError as error:
        if not as_json:
            raise
        for message in describe(error):
            print_error(message)
        print_json({"error": error_json(error)})
        raise typer.Exit(FAILED) from None


def _check_use(entry: Method, *, stream: bool, feed: str | None) -> None:
    """That the method can be used the way that the options say."""
    if entry.mode == "unary" and (stream or feed is not None):
        option = "--stream" if stream else "--feed"
        raise Failure(f"{option}: method {entry.name!r} answers once: call it without.", status=WRONG_USAGE)
    if entry.need_feed and feed is None and (stream or entry.mode == "stream"):
        raise Failure(
            f"method {entry.name!r} works on what it is fed: give --feed FILE, or --feed - for standard input.",
            status=WRONG_USAGE,
        )


AROUND = {
    ("source", "schema"): ("connect", ("close",)),
    ("source", "read_data"): ("connect", ("close",)),
    ("sink", "write"): ("open", ("flush", "close")),
}
"""What a kind's contract wants before and after a method."""


@contextmanager
def _in_its_place(instance: Instance, method: str) -> Iterator[None]:
    before, after = AROUND.get((instance.plugin.kind, method), ("", ()))
    if before and instance.plugin.has(before):
        instance.call(before)
    yield
    for name in after:
        if instance.plugin.has(name):
            instance.call(name)


# ---- what is printed -------------------------------------------------------------------------------


def _print_answer(answer: Answer, *, as_json: bool) -> None:
    if as_json:
        shown = {"skipped": True} if answer.value is None else {"answer": _shown(answer.value)}
        print_json(shown | ({"metadata": answer.metadata} if answer.metadata else {}))
    elif answer.value is None:
        note("skipped: the plugin has no answer for this input, on purpose")
    elif answer.value:
        write_bytes(answer.value)


def _print_items(stream: Stream, entry: Method, blocks: Iterator[bytes] | None, *, as_json: bool) -> None:
    from ferrule.errors import CancelledError

    lines = stream.media_type in ("application/json", "application/x-ndjson")
    items = []
    if blocks is not None:
        stream.feed_from(blocks if entry.feed_type != "application/json" else _lines(blocks))
    try:
        for item in stream:
            if as_json:
                items.append(_shown(item))
            elif lines:
                write_bytes(item if b"\n" not in item else json.dumps(_shown(item), ensure_ascii=False).encode())
            else:
                sys.stdout.buffer.write(item)
                sys.stdout.buffer.flush()
    except CancelledError:
        if not stream.cancelled:
            raise
    if as_json:
        print_json({"items": items} | ({"metadata": stream.metadata} if stream.metadata else {}))
    if stream.cancelled:
        raise Failure("cancelled")


def _shown(answer: bytes) -> Any:
    """An answer inside a JSON document: decoded, or as text where it is no JSON."""
    try:
        return json.loads(answer) if answer else None
    except ValueError:
        return answer.decode("utf-8", "replace")


# ---- Ctrl-C ----------------------------------------------------------------------------------------


class _OnInterrupt:
    """The first Ctrl-C asks the plugin to stop; it may not heed that, so the second one leaves at once.

    The plugin works on another thread: this one has to be there for Ctrl-C, and a plugin may keep the one that it has.
    """

    def __init__(self) -> None:
        from ferrule.plugins.deadlines import Request

        self._request = Request()
        self._stream: Stream | None = None
        self._asked = False

    def __enter__(self) -> Self:
        self._before = signal.signal(signal.SIGINT, self._interrupted)
        return self

    def __exit__(self, *_: object) -> None:
        signal.signal(signal.SIGINT, self._before)

    def _interrupted(self, number: int, frame: object) -> None:
        signal.signal(signal.SIGINT, lambda *_: os._exit(_INTERRUPTED))
        below = "\n" if sys.stderr.isatty() else ""  # a terminal shows ^C where the cursor was
        note(f"{below}asked to stop; Ctrl-C once more leaves at once")
        self._asked = True
        self._request.cancel()
        if self._stream is not None:
            self._stream.cancel()

    def cancels(self, stream: Stream) -> None:
        """From now on it is this stream that is asked to stop."""
        self._stream = stream
        if self._asked:
            stream.cancel()

    def wait_for(self, function: Callable[[], T]) -> T:
        """What the function answers, or raises."""
        from ferrule.plugins.deadlines import current
        from ferrule.plugins.threads import join

        answers: list[T] = []
        faults: list[BaseException] = []

        def work() -> None:
            current.request = self._request
            try:
                answers.append(function())
            except BaseException as error:
                faults.append(error)

        thread = threading.Thread(target=work, name="ferrule-call", daemon=True)
        thread.start()
        join(thread)
        if faults:
            raise faults[0]
        return answers[0]


# ---- what is given ---------------------------------------------------------------------------------


def _open_feed(path: str) -> Iterator[bytes]:
    """A file's blocks as they come; a file that is not there is said now, and not by the thread that feeds."""
    try:
        # Without a buffer: Python ends badly while a thread waits within one of its standard input's.
        file = open(0 if path == "-" else path, "rb", buffering=0, closefd=path != "-")  # noqa: SIM115 - read below
    except OSError as error:
        raise Failure(f"--feed: {path}: {error.strerror or error}", status=WRONG_USAGE) from None

    def blocks() -> Iterator[bytes]:
        with file:
            while block := file.read(_BLOCK):
                yield block

    return blocks()


def _lines(blocks: Iterator[bytes]) -> Iterator[bytes]:
    rest = b""
    for block in blocks:
        *whole, rest = (rest + block).split(b"\n")
        yield from filter(None, whole)
    if rest:
        yield rest
