"""Views of an instance by its kind: the kind's contract as Python methods.

They add no state but what the contract asks for (a source is connected once and closed once); everything goes
through :class:`~ferrule.plugins.instance.Instance`, which any of them gives as ``.instance``.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, Literal, Self

import orjson
from pydantic import BaseModel

from ferrule.errors import InvalidArgumentError, InvalidDataError, InvalidStateError, PluginError
from ferrule.plugins.instance import Answer, Instance, Streams
from ferrule.plugins.many import Errors, call_many
from ferrule.plugins.stream import Stream
from ferrule.plugins.values import JSON, LINES, encode

if TYPE_CHECKING:
    from ferrule.plugins.aio import Aio

__all__ = ["Function", "Runner", "Sink", "Source"]


class _View:
    """What the views share: the instance, and that they own it."""

    def __init__(self, instance: Instance) -> None:
        self.instance = instance
        self._closed = False
        self._closing = threading.RLock()

    @property
    def closed(self) -> bool:
        """Whether somebody closed it, or is about to."""
        return self._closed

    @property
    def name(self) -> str:
        """The plugin's name."""
        return self.instance.plugin.name

    def call(self, method: str, value: object = None, **options: Any) -> Any:
        """Call any method of the plugin: see :meth:`ferrule.Instance.call`."""
        return self.instance.call(method, value, **options)

    @cached_property
    def aio(self) -> Aio:
        """This view's methods, awaited."""
        from ferrule.plugins.aio import Aio  # asyncio takes long to import

        return Aio(self, self.instance.plugin)

    def has(self, method: str) -> bool:
        """Whether the plugin's manifest lists a method of that name."""
        return self.instance.plugin.has(method)

    def close(self) -> None:
        """End what the contract says is ended once, and give the instance back. Twice is harmless; in two threads, both
        come back when it is done.

        Raises:
            PluginError: A sink could not bring what was written last to where it belongs.
        """
        with self._closing:
            if not self._closed:
                self._closed = True
                try:
                    self._end()
                finally:
                    self.instance.close()

    def _end(self) -> None:
        """What comes before the instance is given back."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name!r}>"


def _record(plugin: str, answer: Any) -> Any:
    """A function's answer, which must be a record, or nothing, or bytes.

    Raises:
        InvalidDataError: It is anything else.
    """
    if type(answer) is dict or answer is None or isinstance(answer, bytes):
        return answer
    raise InvalidDataError(
        f"the plugin answered with {type(answer).__name__}, where a record (a JSON object) or SKIP is expected",
        plugin=plugin,
        method="process",
    )


class Function(_View):
    """A plugin that makes a record of a record.

    >>> with host.function("add-metadata", {"plugin_name": "demo"}) as stamp:
    ...     stamp.process({"id": 1})["processed_by_rust_plugin"]
    'demo'
    """

    def __init__(self, instance: Instance) -> None:
        super().__init__(instance)
        plugin = instance.plugin
        check = partial(_record, plugin.name) if plugin.method("process").output == JSON else None
        prepared = instance.method("process", check=check)
        vars(self)["process"] = prepared  # in the method's place: one frame of Python less for every call

    def process(self, record: Any, *, returns: Any = None) -> Any:
        """Process one record.

        Args:
            record: A dict or pydantic model, answered with a dict; or JSON bytes, answered with bytes.
            returns: A pydantic model or type that the answer is to be.

        Returns:
            The record as the plugin made it; None where it skips it.

        Raises:
            InvalidDataError: The plugin cannot process this record.
            PluginError: Any other of the plugin's errors.
        """
        return vars(self)["process"](record, returns=returns)

    def process_many(self, records: Iterable[Any] | bytes, *, errors: Errors = "raise", lazy: bool = False) -> Any:
        """Process many records in one crossing.

        Args:
            records: Dicts or pydantic models, answered with dicts; or JSON bytes each, answered with bytes; or bytes of
                JSON lines, of which each line is a record.
            errors: "raise": the first that fails is raised, with its number in ``record``, and those behind it are not
                called. "return": the error stands in that record's place.
            lazy: Answer with a sequence over one buffer, whose entries are made when asked for.

        Returns:
            A list of as many answers as records, None where the plugin skips; or a ``Records``.

        Raises:
            PluginError: Under ``errors="raise"``.

        >>> stamp = host.function("add-metadata", {"plugin_name": "demo"})
        >>> [record["id"] for record in stamp.process_many([{"id": 1}, {"id": 2}])]
        [1, 2]
        """
        inputs = records if isinstance(records, bytes | list | tuple) else list(records)
        return call_many(self.instance, "process", inputs, errors=errors, lazy=lazy, name=self.name)


class Source(_View):
    """A plugin that records come from. It is connected when it is made, and closed once.

    >>> with host.source("hello-source") as greetings:
    ...     [record["id"] for record in greetings]
    [1, 2]
    """

    def __init__(self, instance: Instance) -> None:
        super().__init__(instance)
        self._streams = Streams()
        if self.has("connect"):
            try:
                instance.call("connect")
            except BaseException as error:
                try:
                    self.close()
                except PluginError as closing:
                    error.add_note(f"closing it failed too: {closing}")
                raise

    def schema(self) -> dict[str, Any]:
        """The JSON Schema of its records.

        Raises:
            NotFoundError: The plugin has no schema.
        """
        found: dict[str, Any] = self.instance.call("schema")
        return found

    def read(self, position: Any = None) -> Stream:
        """Read from the start, or from a position that a stream of this plugin gave. A new stream every time.

        Raises:
            InvalidStateError: The source is closed.
        """
        if self._closed:
            raise InvalidStateError("the source is closed", plugin=self.name, method="read_data")
        stream = self.instance.open("read_data", {} if position is None else {"position": position})
        self._streams.add(stream)
        return stream

    def __iter__(self) -> Stream:
        return self.read()

    def _end(self) -> None:
        self._streams.close()
        if self.has("close") and not self.instance.poisoned:
            self.instance.call("close")


class Sink(_View):
    """A plugin that records go to.

    >>> with host.sink("jsonl-sink", {"path": "out.jsonl"}) as out:
    ...     out.write([{"id": 1}, {"id": 2}])
    >>> print(pathlib.Path("out.jsonl").read_text(), end="")
    {"id":1}
    {"id":2}
    """

    def __init__(self, instance: Instance, *, mark: Any = None) -> None:
        super().__init__(instance)
        self._lines = instance.plugin.method("write").input == LINES
        if self.has("open"):
            try:
                instance.call("open", {} if mark is None else {"mark": mark})
            except BaseException:
                self._closed = True
                instance.close()
                raise

    def write(self, records: Any) -> None:
        """Write one record, or several in one crossing where the plugin takes lines.

        Args:
            records: A dict or pydantic model; an iterable of them; or bytes of whole JSON lines.

        Raises:
            PluginError: Nothing of what the failed call held is written.
        """
        if isinstance(records, bytes):
            lines = [line for line in records.split(b"\n") if line]
        elif isinstance(records, Iterable) and not isinstance(records, dict | str | BaseModel):
            lines = [encode(record) for record in records]
        else:
            lines = [encode(records)]
        if self._lines:
            if lines:
                self.instance.call("write", b"\n".join(lines) + b"\n")
        else:
            for line in lines:
                self.instance.call("write", line)

    def flush(self, *, durable: bool = False) -> Any:
        """Bring what was written to where it belongs.

        Args:
            durable: Ask the plugin to wait until it is on the disk.

        Returns:
            The sink's mark, where it now stands, or None if it has none.
        """
        if not self.has("flush"):
            return None
        answer = self.instance.call("flush", b'{"durable":true}' if durable else b"{}")
        return (orjson.loads(answer) or {}).get("mark") if answer else None

    def _end(self) -> None:
        if not self.instance.poisoned:
            self.flush()
            if self.has("close"):
                self.instance.call("close")


class Runner(_View):
    """A plugin that does jobs: by methods of any names, which answer once, or with a stream.

    >>> with host.runner("my-runner") as runner:
    ...     runner.run({"input_data": "x"}, using="run").value
    'Processed: x'
    """

    def run(
        self,
        args: object = None,
        metadata: dict[str, Any] | None = None,
        using: str | None = None,
        *,
        timeout: float | None = None,
        returns: Any = None,
    ) -> Answer:
        """Do a job and wait for its answer.

        Args:
            args: A dict or pydantic model, sent as JSON; or bytes, sent as they are.
            metadata: A JSON object beside it.
            using: Which method; not needed where the plugin has just one that answers once.
            timeout: Seconds that the plugin is told it has. In process this is a request.
            returns: A pydantic model or type that the answer is to be.

        Returns:
            The answer and the metadata beside it.

        Raises:
            InvalidArgumentError: ``using`` is missing, and there are several methods.
            PluginError: The job failed; ``metadata`` holds what the plugin sent beside the error.
        """
        method = using or self._only("unary")
        return self.instance.answer(method, args, metadata=metadata, timeout=timeout, returns=returns)

    def open(
        self,
        args: object = None,
        metadata: dict[str, Any] | None = None,
        using: str | None = None,
        *,
        timeout: float | None = None,
    ) -> Stream:
        """Start a job that answers with a stream: see :meth:`ferrule.Instance.open`.

        Args:
            args: As for :meth:`run`.
            metadata: As for :meth:`run`.
            using: Which method; not needed where the plugin has just one that streams.
            timeout: Seconds that the whole stream may take.

        >>> with host.runner("my-runner").open({"input_data": "x", "interval_ms": 0}, using="run") as chunks:
        ...     next(chunks)
        'Stream chunk 0 for x'
        """
        return self.instance.open(using or self._only("stream"), args, metadata=metadata, timeout=timeout)

    def _only(self, way: Literal["unary", "stream"]) -> str:
        """The one method that can be used that way."""
        names = [method.name for method in self.instance.plugin.methods if getattr(method, way)]
        if len(names) == 1:
            return names[0]
        have = f"it has {', '.join(names)}: say which with using=" if names else "it has none of that mode"
        raise InvalidArgumentError(f"expected the name of a {way} method; {have}", plugin=self.name)
