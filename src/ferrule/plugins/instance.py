"""Instances: one created plugin, with named methods, wherever it lives.

:class:`Instance` is the type that everything above speaks to. :class:`NativeInstance` lives in this process,
:class:`PythonInstance` is a Python class or function with the same methods.
"""

from __future__ import annotations

import inspect
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import cached_property
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol, Self, runtime_checkable

import orjson
from pydantic import BaseModel, ValidationError

from ferrule.errors import (
    CancelledError,
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
from ferrule.native import CallTicket, NativeObject
from ferrule.plugins.deadlines import Request, current, shown
from ferrule.plugins.stream import GOES_ON, Filled, Stream, json_object
from ferrule.plugins.values import JSON, RAW, decode, encode

if TYPE_CHECKING:
    from ferrule.plugins.aio import Aio

__all__ = ["Answer", "Instance", "NativeInstance", "PythonInstance", "Streams", "translated"]


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


class Answer(NamedTuple):
    """What a call was answered with.

    Attributes:
        value: The decoded answer, or bytes for bytes; None where the plugin skips.
        metadata: The JSON object that the plugin sent beside it; empty if it sent none.
    """

    value: Any
    metadata: dict[str, Any]


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

    def answer(
        self,
        method: str,
        value: object = None,
        *,
        metadata: dict[str, Any] | None = None,
        timeout: float | None = None,
        returns: Any = None,
    ) -> Answer:
        """The same as :meth:`call`, with what the plugin said beside its answer."""

    def open(
        self,
        method: str,
        value: object = None,
        *,
        metadata: dict[str, Any] | None = None,
        timeout: float | None = None,
    ) -> Stream:
        """Start a stream of a method's items.

        Args:
            method: Its name in the manifest.
            value: As for :meth:`call`. After bytes the items are bytes too.
            metadata: A JSON object beside the input.
            timeout: Seconds that the whole stream may take: then it is cancelled, and its reader gets
                :class:`~ferrule.PluginTimeoutError`.

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

    @property
    def aio(self) -> Aio:
        """The same methods, awaited: ``await instance.aio.call(…)``, ``await instance.aio.open(…)``."""

    def close(self) -> None:
        """Give it back; blocks while calls are under way."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class Streams:
    """Those of an instance that somebody holds. One thread may add to them while another closes them."""

    def __init__(self) -> None:
        self._held: set[weakref.ref[Stream]] = set()

    def add(self, stream: Stream) -> None:
        """Know it as long as it lives."""
        self._held.add(weakref.ref(stream, self._held.discard))

    def close(self) -> None:
        """Close all that there are."""
        for each in list(self._held):
            if (stream := each()) is not None:
                stream.close()


# ---- native --------------------------------------------------------------------------------------


class NativeInstance:
    """An instance of a plugin of a library, in this process."""

    def __init__(self, plugin: Plugin, target: NativeObject) -> None:
        self._plugin = plugin
        self.target = target
        self._streams = Streams()
        self._closing = False

    @property
    def plugin(self) -> Plugin:
        """Its manifest entry."""
        return self._plugin

    @property
    def poisoned(self) -> bool:
        """Whether a fault has made it unusable."""
        return self.target.poisoned

    @cached_property
    def aio(self) -> Aio:
        """See :attr:`Instance.aio`."""
        from ferrule.plugins.aio import Aio  # asyncio takes long to import

        return Aio(self, self._plugin)

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
        return self.answer(method, value, metadata=metadata, timeout=timeout, returns=returns).value

    def answer(
        self,
        method: str,
        value: object = None,
        *,
        metadata: dict[str, Any] | None = None,
        timeout: float | None = None,
        returns: Any = None,
    ) -> Answer:
        """See :meth:`Instance.answer`."""
        entry = _method(self._plugin, method, stream=False)
        data, about = encode(value), orjson.dumps(metadata) if metadata else b""
        request = current.request
        if timeout is None and request is None:
            answer, told = self.target.call(method, data, metadata=about)
        else:
            with self._limited(request or Request(), method, timeout) as ticket:
                answer, told = self.target.call(method, data, timeout=timeout, metadata=about, ticket=ticket)
        return Answer(decode(entry, answer, value, returns, self._plugin), json_object(told))

    @contextmanager
    def _limited(self, request: Request, method: str, timeout: float | None) -> Iterator[CallTicket]:
        """Around a call that may be asked to stop, by a deadline or by somebody."""
        with request.limited(self._plugin.name, method, timeout):
            try:
                yield request.ticket
            except CancelledError as error:
                if not request.expired:
                    raise
                raise PluginTimeoutError(
                    f"stopped after the {shown(timeout)} that it had: {error.message}",
                    plugin=self._plugin.name,
                    method=method,
                    details=error.details,
                    metadata=error.metadata,
                ) from error

    def open(
        self,
        method: str,
        value: object = None,
        *,
        metadata: dict[str, Any] | None = None,
        timeout: float | None = None,
    ) -> Stream:
        """See :meth:`Instance.open`."""
        entry = _method(self._plugin, method, stream=True)
        data, about = encode(value), orjson.dumps(metadata) if metadata else b""
        request = current.request
        if timeout is None and request is None:
            port = self.target.open(method, data, metadata=about)
        else:
            with self._limited(request or Request(), method, timeout) as ticket:
                port = self.target.open(method, data, timeout=timeout, metadata=about, ticket=ticket)
        opened = Stream(port, self._plugin, entry, raw=isinstance(value, RAW), timeout=timeout)
        self._streams.add(opened)
        if self._closing:
            opened.close()
            raise InvalidStateError("the instance is closed", plugin=self._plugin.name, method=method)
        return opened

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
        """Close its streams and destroy it, after calls under way. Twice is harmless; in two threads, both come back
        when it is destroyed."""
        self._closing = True
        try:
            self._streams.close()
            self.target.close()  # with what another thread opens or drops meanwhile
        except BaseException:
            self._closing = False
            raise

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

    @cached_property
    def aio(self) -> Aio:
        """See :attr:`Instance.aio`."""
        from ferrule.plugins.aio import Aio

        return Aio(self, self._plugin)

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
        if isinstance(value, RAW) and returns is None:
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

    def answer(
        self,
        method: str,
        value: object = None,
        *,
        metadata: dict[str, Any] | None = None,
        timeout: float | None = None,
        returns: Any = None,
    ) -> Answer:
        """See :meth:`Instance.answer`."""
        return Answer(self.call(method, value, metadata=metadata, timeout=timeout, returns=returns), {})

    def open(
        self,
        method: str,
        value: object = None,
        *,
        metadata: dict[str, Any] | None = None,
        timeout: float | None = None,
    ) -> Stream:
        """See :meth:`Instance.open`."""
        entry = _method(self._plugin, method, stream=True)
        decoded = _decoded(value)
        argument = decoded.get("position") if isinstance(decoded, dict) and method == "read_data" else decoded
        iterable: Iterable[Any] = self._run(method, argument)
        raw = isinstance(value, RAW)
        port = _PythonPort(iter(iterable), self._plugin.name, method, encode if raw else None)
        return Stream(port, self._plugin, entry, raw=True, timeout=timeout)

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


class _PythonPort:
    """What a Python plugin's iterator gives, as a stream. It waits inside of the iterator, as long as that takes."""

    wakes = locked = takes_feed = has_metadata = False
    opened = b""

    def __init__(
        self, iterator: Iterator[Any], plugin: str, method: str, encoded: Callable[[object], bytes] | None
    ) -> None:
        self._iterator = iterator
        self._plugin = plugin
        self._method = method
        self._encoded = encoded
        self._inside = threading.RLock()
        self._closed = False
        self._stood: bytes | None = None
        """Where, when it was closed: a flow asks behind the end."""

    def fill(self, timeout: float | None, *, lines: bool = False) -> Filled:
        if not self._inside.acquire(blocking=False):
            raise InvalidStateError(
                "another thread is reading this stream; one at a time", plugin=self._plugin, method=self._method
            )
        try:
            return self._next()
        finally:
            self._inside.release()

    def _next(self) -> Filled:
        try:
            item = next(self._iterator)
        except StopIteration:
            return [], "end"
        except (Exception, SystemExit) as error:
            fault = translated(error, plugin=self._plugin, method=self._method)
            # A generator is over once it has raised: to call that one bad item would lose the rest.
            if inspect.isgenerator(self._iterator) and isinstance(fault, GOES_ON):
                raise fault from error
            fault.__cause__ = error
            return [], fault
        if isinstance(item, PluginError):
            return [], translated(item, plugin=self._plugin, method=self._method)
        return [item if self._encoded is None else self._encoded(item)], None

    def feed(
        self, data: bytes | bytearray | memoryview, *, final: bool, timeout: float | None
    ) -> Literal["taken", "pending", "end"]:
        raise UnsupportedError("Python plugins take no feed", plugin=self._plugin, method=self._method)

    def metadata(self) -> bytes:
        return b""

    def position(self) -> bytes:
        if self._stood is not None:
            return self._stood
        found = getattr(self._iterator, "position", None)
        if found is None:
            raise UnsupportedError("this stream has no positions", plugin=self._plugin, method=self._method)
        return orjson.dumps(found() if callable(found) else found)

    def cancel(self) -> None:
        """A Python iterator cannot be told."""

    def close(self) -> None:
        with self._inside:  # once its next has come back
            if not self._closed and callable(end := getattr(self._iterator, "close", None)):
                self._closed = True
                with suppress(Exception):  # who asks later is told
                    self._stood = self.position()
                end()


def _decoded(value: object) -> Any:
    if isinstance(value, RAW):
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
