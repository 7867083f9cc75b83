"""Instances: one created plugin, with named methods, wherever it lives.

:class:`Instance` is the type that everything above speaks to. :class:`NativeInstance` lives in this process,
:class:`PythonInstance` is a Python class or function with the same methods.
"""

from __future__ import annotations

import inspect
import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from types import TracebackType
from typing import Any, Protocol, Self, runtime_checkable

import orjson
from pydantic import BaseModel, TypeAdapter, ValidationError

from ferrule.errors import (
    InternalError,
    InvalidDataError,
    InvalidStateError,
    NotFoundError,
    OutOfMemoryError,
    PanicError,
    PluginError,
    PluginIOError,
    PluginTimeoutError,
    UnsupportedError,
)
from ferrule.manifest import Method, Plugin
from ferrule.native import NativeObject, NativeStream

__all__ = ["Instance", "NativeInstance", "PythonInstance", "Stream", "translated"]

LINES = "application/x-ndjson"
JSON = "application/json"
_RAW = (bytes, bytearray, memoryview)


# ---- values --------------------------------------------------------------------------------------


def encode(value: object) -> bytes:
    """A method's input as bytes: bytes as they are, a pydantic model or anything JSON as JSON, None as ``{}``."""
    plain = type(value) is dict  # asked first: the other questions cost more than to write a record does
    if not plain:
        if isinstance(value, bytes):
            return value
        if value is None:
            return b"{}"
        if isinstance(value, _RAW):
            return bytes(value)
    try:
        if not plain and isinstance(value, BaseModel):
            return value.model_dump_json().encode()
        return orjson.dumps(value)
    except (TypeError, ValueError) as error:
        raise InvalidDataError(f"the input cannot be written as JSON: {error}") from None


def decode(method: Method, data: bytes | None, value: object, returns: Any, plugin: Plugin) -> Any:
    """A method's output for the caller: bytes for bytes, else decoded by the method's media type.

    Raises:
        InvalidDataError: It is not what the manifest, or the kind's contract, says.
    """
    if data is None:
        return None
    if not data and plugin.kind == "function" and method.name == "process":
        raise InvalidDataError(
            "the plugin answered with nothing, where a record or SKIP is expected",
            plugin=plugin.name,
            method=method.name,
        )
    if (returns is None and isinstance(value, _RAW)) or method.output not in (JSON, LINES):
        return data
    try:
        if returns is not None:
            return TypeAdapter(returns).validate_json(data or b"null")
        if method.output == LINES:
            return [orjson.loads(line) for line in data.splitlines() if line]
        return orjson.loads(data) if data else None
    except orjson.JSONDecodeError as error:
        shown = data[:80].decode("utf-8", "replace")
        raise InvalidDataError(
            f"the plugin answered with something that is no JSON: {error}; its answer begins {shown!r}",
            plugin=plugin.name,
            method=method.name,
        ) from None
    except ValidationError as error:
        raise InvalidDataError(
            f"the plugin's answer is no {getattr(returns, '__name__', returns)}: {error}",
            plugin=plugin.name,
            method=method.name,
        ) from None


def _method(plugin: Plugin, name: str, *, stream: bool) -> Method:
    """The manifest's entry, if it can be used that way.

    Raises:
        NotFoundError: The plugin has no such method.
        UnsupportedError: It is not to be called, or not to be opened.
    """
    found = plugin.method(name)
    if found.mode == "none":
        raise UnsupportedError("this method is listed, but not to be called", plugin=plugin.name, method=name)
    if stream and found.mode == "unary":
        raise UnsupportedError("this method answers once: use call", plugin=plugin.name, method=name)
    if not stream and found.mode == "stream":
        raise UnsupportedError("this method answers with a stream: use open", plugin=plugin.name, method=name)
    return found


# ---- the type ------------------------------------------------------------------------------------


class Stream:
    """What ``open`` answers with: an iterator of items, and a context manager.

    A bad item raises :class:`~ferrule.InvalidDataError` out of ``next``; the iterator lives on, so that the caller
    may go on with the next item. So it does after :class:`~ferrule.UnavailableError` and
    :class:`~ferrule.PluginTimeoutError`, for a source that has nothing now. Any other error ends it.

    >>> with host.source("hello-source").read() as records:
    ...     next(records)
    {'id': 1, 'message': 'Hello from Rust Source 1'}
    """

    def __init__(
        self,
        items: Iterator[list[Any] | PluginError],
        *,
        position: Callable[[], Any],
        cancel: Callable[[], None],
        close: Callable[[], None],
    ) -> None:
        self._items = items
        self._ready: deque[Any] = deque()
        self._position = position
        self._cancel = cancel
        self._close = close
        self._closed = False

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Any:
        while True:
            try:
                return self._ready.popleft()
            except IndexError:
                pass
            if self._closed:
                raise StopIteration
            try:
                batch = next(self._items)
            except (StopIteration, PluginError):
                self.close()
                raise
            if isinstance(batch, PluginError):
                raise batch
            self._ready.extend(batch)

    @property
    def closed(self) -> bool:
        """Whether it is over: read to its end, failed, or closed."""
        return self._closed

    def position(self) -> Any:
        """Where to resume, as the plugin says it: after the last item that was taken from it, which may be ahead of
        the last one that this iterator gave."""
        return self._position()

    def cancel(self) -> None:
        """Ask the stream to end soon. Any thread."""
        self._cancel()

    def close(self) -> None:
        """Cancel and free it; what was read ahead is dropped. Twice is harmless."""
        if not self._closed:
            self._closed = True
            self._ready.clear()
            self._close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@runtime_checkable
class Instance(Protocol):
    """One created plugin. Every owner of one is a context manager; closing twice is harmless."""

    @property
    def plugin(self) -> Plugin:
        """Its manifest entry."""

    @property
    def poisoned(self) -> bool:
        """Whether a fault has made it unusable."""

    def call(
        self,
        method: str,
        value: object = None,
        *,
        metadata: dict[str, Any] | None = None,
        timeout: float | None = None,
        returns: Any = None,
    ) -> Any:
        """Call a method once.

        Args:
            method: Its name in the manifest.
            value: A dict, list, string, number or pydantic model, sent as JSON; or bytes, sent as they are.
            metadata: A JSON object beside the input.
            timeout: Seconds that the plugin is told it has. In process this is a request.
            returns: A pydantic model or type that the answer is to be.

        Returns:
            The decoded answer, or bytes for bytes; None where the plugin skips.

        Raises:
            PluginError: One subclass a status; ``NotFoundError`` for a method that does not exist.

        >>> instance = host.create("add-metadata", {"plugin_name": "demo"})
        >>> instance.call("process", {"id": 1})["processed_by_rust_plugin"]
        'demo'
        """

    def open(self, method: str, value: object = None, *, metadata: dict[str, Any] | None = None) -> Stream:
        """Start a stream of a method's items.

        >>> source = host.create("hello-source")
        >>> source.call("connect")
        >>> [record["id"] for record in source.open("read_data")]
        [1, 2]
        """

    def method(self, name: str, *, check: Callable[[Any], Any] | None = None) -> Callable[[Any], Any]:
        """A prepared callable for a hot loop: ``call`` with a value, and ``returns`` if need be, resolved once.

        Args:
            name: The method's name in the manifest.
            check: Sees every answer but bytes for bytes and what ``returns`` has made, and gives what the caller gets.

        >>> process = host.create("add-metadata").method("process")
        >>> process(b'{"id": 1}')[:9]
        b'{"id": 1,'
        """

    def close(self) -> None:
        """Give it back; blocks while calls are under way."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


# ---- native --------------------------------------------------------------------------------------


class NativeInstance:
    """An instance of a plugin of a library, in this process."""

    def __init__(self, plugin: Plugin, target: NativeObject) -> None:
        self._plugin = plugin
        self.target = target
        self._streams: weakref.WeakSet[Stream] = weakref.WeakSet()

    @property
    def plugin(self) -> Plugin:
        """Its manifest entry."""
        return self._plugin

    @property
    def poisoned(self) -> bool:
        """Whether a fault has made it unusable."""
        return self.target.poisoned

    def call(
        self,
        method: str,
        value: object = None,
        *,
        metadata: dict[str, Any] | None = None,
        timeout: float | None = None,
        returns: Any = None,
    ) -> Any:
        """See :meth:`Instance.call`."""
        entry = _method(self._plugin, method, stream=False)
        about = orjson.dumps(metadata) if metadata else b""
        data, _ = self.target.call(method, encode(value), timeout=timeout, metadata=about)
        return decode(entry, data, value, returns, self._plugin)

    def open(self, method: str, value: object = None, *, metadata: dict[str, Any] | None = None) -> Stream:
        """See :meth:`Instance.open`."""
        entry = _method(self._plugin, method, stream=True)
        stream = self.target.open(method, encode(value), metadata=orjson.dumps(metadata) if metadata else b"")
        raw = isinstance(value, _RAW) or entry.output not in (JSON, LINES)
        opened = Stream(
            self._items(stream, entry, raw),
            position=lambda: self._position(stream, method),
            cancel=stream.cancel,
            close=stream.close,
        )
        self._streams.add(opened)
        return opened

    def _position(self, stream: NativeStream, method: str) -> Any:
        told = stream.position()
        try:
            return orjson.loads(told)
        except orjson.JSONDecodeError as error:
            raise InternalError(
                f"the plugin's position is no JSON: {error}; it begins {told[:80].decode('utf-8', 'replace')!r}",
                plugin=self._plugin.name,
                method=method,
            ) from None

    def _items(self, stream: NativeStream, method: Method, raw: bool) -> Iterator[list[Any] | PluginError]:
        for batch in stream.batches(many=method.output == LINES):
            if raw or isinstance(batch, PluginError):
                yield batch
                continue
            good: list[Any] = []
            for item in batch:
                try:
                    good.append(orjson.loads(item))
                except orjson.JSONDecodeError as error:
                    yield good
                    good = []
                    yield InvalidDataError(
                        f"the plugin's item is no JSON: {error}", plugin=self._plugin.name, method=method.name
                    )
            yield good

    def method(self, name: str, *, check: Callable[[Any], Any] | None = None) -> Callable[[Any], Any]:
        """See :meth:`Instance.method`."""
        entry = _method(self._plugin, name, stream=False)
        loads, plain = orjson.loads, entry.output == JSON

        def answer(data: bytes | None, value: Any, returns: Any) -> Any:
            if data and plain and returns is None and type(value) is dict:  # the usual, without decode's questions
                try:
                    if type(made := loads(data)) is dict:
                        return made
                except orjson.JSONDecodeError:
                    pass  # decode says so
            made = decode(entry, data, value, returns, self._plugin)
            return made if check is None or returns is not None else check(made)

        return self.target.caller(name, encode, answer)

    def close(self) -> None:
        """Close its streams and destroy it, after calls under way. Twice is harmless."""
        for stream in list(self._streams):
            stream.close()
        self.target.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<NativeInstance of {self._plugin.kind} {self._plugin.name!r}>"


# ---- Python --------------------------------------------------------------------------------------

_DATA_FAULTS = (ValueError, TypeError, LookupError, ArithmeticError, ValidationError)


def translated(error: BaseException, **context: Any) -> PluginError:
    """The plugin error for an exception out of a Python plugin.

    ``ValueError`` and its like say that the record is bad; ``TimeoutError``, ``OSError`` and ``MemoryError`` are
    their own statuses; anything else is a fault of the plugin's code, as a panic is of a native one.
    """
    if isinstance(error, PluginError):
        for name, value in context.items():
            if getattr(error, name, None) is None:
                setattr(error, name, value)
        return error
    text = f"{type(error).__name__}: {error}"
    if isinstance(error, TimeoutError):
        return PluginTimeoutError(text, **context)
    if isinstance(error, MemoryError):
        return OutOfMemoryError(text, **context)
    if isinstance(error, OSError):
        return PluginIOError(text, **context)
    if isinstance(error, _DATA_FAULTS):
        return InvalidDataError(str(error) if isinstance(error, ValueError) else text, **context)
    return PanicError(text, **context)


class PythonInstance:
    """An instance of a plugin that is written in Python.

    A class is created with its configuration (``__init__(self, config)``, or no argument); its methods take the
    decoded input, or nothing if they have no parameter. A plain function is the ``process`` of a function plugin. A
    source's ``read_data`` takes the position (None: from the start) and returns an iterable; for one bad item it
    yields an ``InvalidDataError`` in its place. A serial one (the default) takes its callers one after another.
    """

    def __init__(self, plugin: Plugin, target: Callable[..., Any], config: dict[str, Any]) -> None:
        self._plugin = plugin
        self._lock = threading.Lock()
        self._owner: int | None = None
        self._serial = plugin.threading == "serial"
        self._closed = False
        self._made = target if inspect.isfunction(target) else self._make(target, config)
        self._bound: dict[str, Callable[..., Any]] = {}

    def _make(self, target: Callable[..., Any], config: dict[str, Any]) -> Any:
        try:
            return target(config) if _takes_argument(target) else target()
        except (Exception, SystemExit) as error:
            raise translated(error, plugin=self._plugin.name) from error

    @property
    def plugin(self) -> Plugin:
        """Its manifest entry."""
        return self._plugin

    @property
    def poisoned(self) -> bool:
        """Never: an exception leaves a Python object as it is."""
        return False

    def bound(self, name: str) -> Callable[..., Any]:
        """The Python method itself, taking one value."""
        if name not in self._bound:
            function = self._made if inspect.isfunction(self._made) else getattr(self._made, name, None)
            if not callable(function):
                raise NotFoundError(f"no method {name!r}", plugin=self._plugin.name, method=name)
            self._bound[name] = function if _takes_argument(function) else _without_argument(function)
        return self._bound[name]

    def call(
        self,
        method: str,
        value: object = None,
        *,
        metadata: dict[str, Any] | None = None,
        timeout: float | None = None,
        returns: Any = None,
    ) -> Any:
        """See :meth:`Instance.call`."""
        entry = _method(self._plugin, method, stream=False)
        answer = self._run(method, _decoded(value))
        if isinstance(value, _RAW) and returns is None:
            return answer if isinstance(answer, bytes) or answer is None else orjson.dumps(answer)
        if returns is not None:
            return decode(entry, encode(answer), value, returns, self._plugin)
        return answer

    def _run(self, method: str, value: Any) -> Any:
        function = self.bound(method)
        if self._closed:
            raise InvalidStateError("the instance is closed", plugin=self._plugin.name, method=method)
        if not self._serial:
            return self._guarded(function, method, value)
        me = threading.get_ident()
        if self._owner == me:
            raise InvalidStateError(
                "a call of this serial instance is under way on the same thread (re-entrant call)",
                plugin=self._plugin.name,
                method=method,
            )
        with self._lock:
            self._owner = me
            try:
                return self._guarded(function, method, value)
            finally:
                self._owner = None

    def _guarded(self, function: Callable[..., Any], method: str, value: Any) -> Any:
        try:
            return function(value)
        except (Exception, SystemExit) as error:  # a plugin does not end its host
            raise translated(error, plugin=self._plugin.name, method=method) from error

    def open(self, method: str, value: object = None, *, metadata: dict[str, Any] | None = None) -> Stream:
        """See :meth:`Instance.open`."""
        _method(self._plugin, method, stream=True)
        decoded = _decoded(value)
        argument = decoded.get("position") if isinstance(decoded, dict) and method == "read_data" else decoded
        iterable: Iterable[Any] = self._run(method, argument)
        iterator = iter(iterable)
        raw = isinstance(value, _RAW)

        def items() -> Iterator[list[Any] | PluginError]:
            while True:
                try:
                    item = next(iterator)
                except StopIteration:
                    return
                except (Exception, SystemExit) as error:
                    fault = translated(error, plugin=self._plugin.name, method=method)
                    # A generator is over once it has raised: to call that one bad item would lose the rest.
                    if inspect.isgenerator(iterator) or not isinstance(fault, InvalidDataError):
                        raise fault from error
                    yield fault
                else:
                    if isinstance(item, PluginError):
                        yield translated(item, plugin=self._plugin.name, method=method)
                    else:
                        yield [encode(item) if raw else item]

        stood: list[Any] = []  # where, when it was closed: a flow asks behind the end

        def position() -> Any:
            if stood:
                return stood[0]
            found = getattr(iterator, "position", None)
            if found is None:
                raise UnsupportedError("this stream has no positions", plugin=self._plugin.name, method=method)
            return found() if callable(found) else found

        def close() -> None:
            if callable(end := getattr(iterator, "close", None)):
                with suppress(Exception):  # who asks later is told
                    stood.append(position())
                end()

        return Stream(items(), position=position, cancel=lambda: None, close=close)

    def method(self, name: str, *, check: Callable[[Any], Any] | None = None) -> Callable[[Any], Any]:
        """See :meth:`Instance.method`."""
        _method(self._plugin, name, stream=False)
        run = self._run

        def prepared(record: Any, returns: Any = None) -> Any:
            if returns is not None:
                return self.call(name, record, returns=returns)
            answer = run(name, record) if type(record) is dict else self.call(name, record)
            return answer if check is None else check(answer)

        return prepared

    def close(self) -> None:
        """Mark it closed. Twice is harmless."""
        self._closed = True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<PythonInstance of {self._plugin.kind} {self._plugin.name!r}>"


def _decoded(value: object) -> Any:
    if isinstance(value, _RAW):
        try:
            return orjson.loads(value)
        except orjson.JSONDecodeError as error:
            raise InvalidDataError(f"the input is no JSON: {error}") from None
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    return {} if value is None else value


def _takes_argument(function: Callable[..., Any]) -> bool:
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return True
    return any(each.kind not in (each.KEYWORD_ONLY, each.VAR_KEYWORD) for each in parameters)


def _without_argument(function: Callable[[], Any]) -> Callable[[Any], Any]:
    return lambda _: function()
