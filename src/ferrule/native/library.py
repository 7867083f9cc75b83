"""Libraries and their instances, as Python objects that own their C ones."""

from __future__ import annotations

import os
import struct
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final, NoReturn

import orjson

from ferrule.errors import LibraryError
from ferrule.native.answers import CallAnswer
from ferrule.native.door import (
    MOVED,
    OK,
    PENDING,
    SKIP,
    STATUS,
    TIMEOUT,
    Prepared,
    ffi,
    introduce,
    lib,
    milliseconds,
    plugin_error,
    retired,
)
from ferrule.native.logs import start_logging
from ferrule.native.stream import NativeStream, takes_signals

__all__ = ["CallTicket", "Library", "NativeObject", "Results"]

_RESULT: Final = struct.Struct("=iI")


class Library:
    """A library that is loaded. It stays mapped until the process ends: unloading means ending a worker."""

    def __init__(self, path: Path, manifest: bytes, *, shown_as: Path | None = None) -> None:
        """Load what ``read_image`` has checked.

        Args:
            path: The private copy, absolute.
            manifest: The JSON that was read from the file; the library must answer the same.
            shown_as: The file that errors name, where it is not ``path``.

        Raises:
            LibraryError: The system's loader refuses it, a symbol is missing, or the manifest differs.
        """
        self.path = path
        self.shown_as = shown_as or path
        error = ffi.new("char[1024]")
        self._c = lib.fh_library_open(os.fsencode(path), manifest, len(manifest), error, 1024)
        if self._c == ffi.NULL:
            problem = ffi.string(error).decode("utf-8", "replace").replace(str(path), self.shown_as.name)
            raise LibraryError(
                self.shown_as, problem, hint="Rebuild it against the ferrule.h of `ferrule sdk --include-dir`"
            )

    def create(
        self, plugin: str, config: bytes, *, serial: bool, methods: Sequence[str], entry_point: str | None = None
    ) -> NativeObject:
        """Make an instance and resolve its methods.

        Args:
            plugin: A name of the manifest.
            config: A JSON object, complete and checked.
            serial: Whether calls are to come one after another.
            methods: Names that the manifest promises; each must exist.
            entry_point: A create symbol other than the usual one.

        Raises:
            PluginError: The plugin refuses, or breaks a rule of the ABI.
        """
        start_logging()
        answer = CallAnswer()
        status = ffi.new("int32_t *")
        name = plugin.encode()
        number = introduce(plugin)
        c = lib.fh_instance_new(
            self._c,
            number,
            ffi.NULL if entry_point is None else entry_point.encode(),
            name,
            len(name),
            config,
            len(config),
            serial,
            answer.c,
            status,
        )
        if c == ffi.NULL:
            retired.append(number)
            raise plugin_error(status[0], answer.error(), plugin=plugin)
        made = NativeObject(self, plugin, number, ffi.gc(c, lib.fh_instance_free))
        for method in methods:
            encoded = method.encode()
            number = lib.fh_instance_method(c, encoded, len(encoded))
            if number < 0:
                made.close()
                raise plugin_error(
                    lib.FERRULE_INTERNAL,
                    orjson.dumps(
                        {
                            "message": f"the manifest names the method {method!r}, which the instance lacks: "
                            f"it answered {number} instead of a number >= 0"
                        }
                    ),
                    plugin=plugin,
                )
            made.methods[method] = number
        return made


class Results:
    """What became of many calls; unpacked when somebody asks."""

    def __init__(self, packed: bytes) -> None:
        self._packed = packed

    def __len__(self) -> int:
        return len(self._packed) // _RESULT.size

    def __iter__(self) -> Iterator[tuple[int, int]]:
        """A status and a length a call."""
        return _RESULT.iter_unpack(self._packed)


class CallTicket:
    """What one call can be cancelled by: made before it, and given to it.

    A call that has ended is left as it is, and one that has not begun never does.
    """

    def __init__(self) -> None:
        self.flag = ffi.new("int32_t *")

    def cancel(self) -> None:
        """Ask the call to end soon. Any thread, at any time."""
        lib.fh_cancel(self.flag)


class NativeObject:
    """An instance in this process. Any thread; a serial one takes its callers in their order."""

    def __init__(self, library: Library, plugin: str, number: int, c: Any) -> None:
        self.plugin = plugin
        self.methods: dict[str, int] = {}
        self.library = library
        self._c = c
        self._many: dict[str, Any] = {}
        self._answers: deque[CallAnswer] = deque()
        self._id = number

    def __del__(self, retire: Callable[[int], None] = retired.append) -> None:
        retire(self._id)

    @property
    def poisoned(self) -> bool:
        """Whether a fault has made it unusable."""
        return bool(lib.fh_instance_poisoned(self._c))

    def caller(
        self, method: str, encode: Callable[[Any], bytes], decode: Callable[[bytes | None, Any, Any], Any]
    ) -> Callable[..., Any]:
        """A function for a hot loop: a record in, and by name what its answer is to be (``returns``); the answer out.

        Args:
            method: A name that the instance was made with.
            encode: Makes bytes of a record that is none.
            decode: Makes the answer of the output (None where the plugin skips), the record and ``returns``; not asked
                where the record is bytes, and so is the answer to be, and there is one.

        Raises (the function does):
            PluginError: The status was below OK.
        """
        call: Callable[..., Any] = self._prepare(method, encode, decode, partial(self._failed, method)).call
        return call

    def _prepare(self, method: str, *parts: Callable[..., Any] | None) -> Any:
        """The method as C calls it; the parts are `encode`, `decode` and `failed`, which calls of many do without."""
        return Prepared(self._c, int(ffi.cast("uintptr_t", self._c)), self.methods[method], *parts)

    def call(
        self,
        method: str,
        data: bytes,
        *,
        timeout: float | None = None,
        metadata: bytes = b"",
        ticket: CallTicket | None = None,
    ) -> tuple[bytes | None, bytes]:
        """One call with everything that it may carry.

        Args:
            method: A name that the instance was made with.
            data: The input.
            timeout: Seconds that the plugin is told it has; None for no limit. In process, a request. It runs while
                other calls of a serial instance are waited for.
            metadata: A JSON object, or nothing.
            ticket: What the call can be cancelled by.

        Returns:
            The output (None where the plugin skips) and its metadata (a JSON object, or nothing).

        Raises:
            PluginTimeoutError: Other calls of a serial instance took all the time; or the plugin says so.
            CancelledError: Cancelled before it began; or the plugin says so.
            PluginError: The status was below OK.
        """
        answer = self._answers.pop() if self._answers else CallAnswer()
        result = lib.fh_call_with(
            self._c,
            self.methods[method],
            data,
            len(data),
            milliseconds(timeout),
            ffi.NULL if ticket is None else ticket.flag,
            metadata or ffi.NULL,
            len(metadata),
            answer.c,
        )
        about = answer.metadata() if result >= MOVED or result - STATUS == SKIP else b""
        return self._unusual(result, answer, method), about

    def _unusual(self, result: int, answer: CallAnswer, method: str) -> bytes | None:
        try:
            if result >= MOVED:
                return answer.output(result)
            status = result - STATUS
            if status == SKIP:
                return None
            self._failed(method, status, answer.error(), answer.metadata())
        finally:
            if answer.c.out.capacity <= lib.FH_KEPT_MOST:
                self._answers.append(answer)
            else:  # now, for an exception's traceback would hold it
                answer.free()

    def _failed(self, method: str, status: int, error: bytes, about: bytes | None) -> NoReturn:
        try:
            metadata = orjson.loads(about or b"null")
        except orjson.JSONDecodeError:
            metadata = None
        raise plugin_error(
            status,
            error,
            plugin=self.plugin,
            method=method,
            metadata=metadata if isinstance(metadata, dict) else None,
        )

    def call_many(
        self, method: str, inputs: Sequence[bytes] | bytes, *, lines: bool, stop_at_error: bool
    ) -> tuple[Any, Results, bool, bytes]:
        """Call a method with each of many inputs, in one crossing.

        Args:
            method: A name that the instance was made with.
            inputs: The inputs, bytes each; or bytes, of which each line is one.
            lines: Whether the outputs are to be lines, each with a newline behind it.
            stop_at_error: Whether to call no more once one has failed.

        Returns:
            The outputs: a list, None where a call was not OK; or the lines, as bytes. For each call its status and
            the length of its output or of its error object; whether all are OK; the error objects, end to end.

        Raises:
            TypeError: An input is no bytes; nothing was called.
        """
        prepared = self._many.get(method)
        if prepared is None:
            prepared = self._many[method] = self._prepare(method, None, None, None)
        made, results, fine, told = prepared.many(inputs, lines, stop_at_error)
        return made, Results(results), fine, told

    def open(
        self,
        method: str,
        data: bytes,
        *,
        timeout: float | None = None,
        metadata: bytes = b"",
        ticket: CallTicket | None = None,
    ) -> NativeStream:
        """Start a stream. For its arguments see `call`; they hold until it is open.

        Raises:
            PluginError: The plugin refuses, or breaks a rule of the ABI.
        """
        answer = CallAnswer()
        status = ffi.new("int32_t *")
        number = introduce(self.plugin)
        c = lib.fh_stream_open(
            self._c,
            number,
            self.methods[method],
            data,
            len(data),
            milliseconds(timeout),
            ffi.NULL if ticket is None else ticket.flag,
            metadata or ffi.NULL,
            len(metadata),
            answer.c,
            status,
        )
        if c == ffi.NULL:
            retired.append(number)
            raise plugin_error(status[0], answer.error(), plugin=self.plugin, method=method)
        return NativeStream(self, method, number, ffi.gc(c, lib.fh_stream_free), answer.metadata())

    def close(self) -> None:
        """Close its streams and destroy the plugin's object, after calls under way. Twice is harmless; in two threads,
        both come back when it is destroyed.

        Raises:
            InvalidStateError: It comes from inside one of its own calls.
            PluginTimeoutError: The process ends, and a call under way does not.
        """
        signals = takes_signals()
        while (status := lib.fh_instance_close(self._c, signals)) == PENDING:
            pass
        if status == TIMEOUT:
            raise plugin_error(status, b"a call of it does not come back; it is left as it is", plugin=self.plugin)
        if status != OK:
            raise plugin_error(status, b"close the instance not from inside one of its calls", plugin=self.plugin)
        retired.append(self._id)
