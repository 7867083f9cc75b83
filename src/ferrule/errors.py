"""Every exception that ferrule raises.

There are three families below :class:`FerruleError`:

- :class:`PluginError` and its subclasses: a plugin answered with a status below OK. One class a
  status, so that ``except ferrule.InvalidDataError`` is all it takes.
- :class:`LibraryError`: a file is not a library that this host can load.
- :class:`FlowError`: a flow file says something that cannot run; it knows file, line and column.

:class:`PluginNotFoundError` stands beside them: nothing of that name is on the search path.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

__all__ = [
    "CancelledError",
    "DeniedError",
    "FerruleError",
    "FlowError",
    "InternalError",
    "InvalidArgumentError",
    "InvalidConfigError",
    "InvalidDataError",
    "InvalidStateError",
    "LibraryError",
    "NotFoundError",
    "OutOfMemoryError",
    "PanicError",
    "PluginError",
    "PluginIOError",
    "PluginNotFoundError",
    "PluginTimeoutError",
    "UnauthenticatedError",
    "UnavailableError",
    "UnsupportedError",
    "error_class",
]


class FerruleError(Exception):
    """The base of everything that ferrule raises on purpose."""


class PluginError(FerruleError):
    """A plugin answered with a status below OK.

    Attributes:
        message: The plugin's own words, or the status's name where it said nothing.
        plugin: The plugin's name, as its manifest gives it.
        method: The method that was called; None for create.
        step: The flow step's name; None outside a flow.
        record: The record's number in its flow or batch, from 1; None for a single call.
        details: The plugin's own JSON object, or an empty dict.
        retry_after: Seconds after which the plugin suggests trying again, or None.
        metadata: The JSON object that the plugin sent beside the error, or an empty dict.

    >>> raise InvalidDataError("Data must be a JSON object", plugin="add-metadata", method="process")
    Traceback (most recent call last):
    ...
    ferrule.errors.InvalidDataError: Data must be a JSON object (plugin 'add-metadata', method 'process')
    """

    status: ClassVar[int] = -14
    """The status of ``ferrule.h`` that this class stands for."""

    status_name: ClassVar[str] = "INTERNAL"

    def __init__(
        self,
        message: str,
        *,
        plugin: str | None = None,
        method: str | None = None,
        step: str | None = None,
        record: int | None = None,
        details: dict[str, Any] | None = None,
        retry_after: float | None = None,
        metadata: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.plugin = plugin
        self.method = method
        self.step = step
        self.record = record
        self.details = details or {}
        self.retry_after = retry_after
        self.metadata = metadata or {}

    @property
    def may_retry(self) -> bool:
        """Whether the same call may succeed later: UNAVAILABLE, TIMEOUT, or a retry_after given."""
        return self.retry_after is not None or self.status in (-9, -10)

    def __str__(self) -> str:
        parts = []
        if self.step is not None and self.step != self.plugin:
            parts.append(f"step {self.step!r}")
        if self.plugin is not None:
            parts.append(f"plugin {self.plugin!r}")
        if self.method is not None:
            parts.append(f"method {self.method!r}")
        if self.record is not None:
            parts.append(f"record {self.record}")
        return f"{self.message} ({', '.join(parts)})" if parts else self.message


class InvalidArgumentError(PluginError):
    """INVALID_ARGUMENT: the caller's input is wrong, whatever the state."""

    status = -1
    status_name = "INVALID_ARGUMENT"


class InvalidConfigError(PluginError):
    """INVALID_CONFIG: the configuration is refused, by its schema or by the plugin."""

    status = -2
    status_name = "INVALID_CONFIG"


class InvalidDataError(PluginError):
    """INVALID_DATA: this one record cannot be processed."""

    status = -3
    status_name = "INVALID_DATA"


class InvalidStateError(PluginError):
    """INVALID_STATE: the right call at the wrong moment; also a closed instance or stream."""

    status = -4
    status_name = "INVALID_STATE"


class NotFoundError(PluginError):
    """NOT_FOUND: what the call names does not exist."""

    status = -5
    status_name = "NOT_FOUND"


class UnsupportedError(PluginError):
    """UNSUPPORTED: the plugin does not do this."""

    status = -6
    status_name = "UNSUPPORTED"


class UnauthenticatedError(PluginError):
    """UNAUTHENTICATED: credentials are missing or wrong."""

    status = -7
    status_name = "UNAUTHENTICATED"


class DeniedError(PluginError):
    """DENIED: the credentials do not allow this."""

    status = -8
    status_name = "DENIED"


class UnavailableError(PluginError):
    """UNAVAILABLE: not now; the same call may succeed later."""

    status = -9
    status_name = "UNAVAILABLE"


class PluginTimeoutError(PluginError, TimeoutError):
    """TIMEOUT: the deadline passed. Also a builtin ``TimeoutError``."""

    status = -10
    status_name = "TIMEOUT"


class CancelledError(PluginError):
    """CANCELLED: somebody asked it to end, and it did."""

    status = -11
    status_name = "CANCELLED"


class OutOfMemoryError(PluginError, MemoryError):
    """OUT_OF_MEMORY: the host's limit, or the machine's. Also a builtin ``MemoryError``."""

    status = -12
    status_name = "OUT_OF_MEMORY"


class PluginIOError(PluginError, OSError):
    """IO: a file, a socket or a device failed. Also a builtin ``OSError``."""

    status = -13
    status_name = "IO"

    __str__ = PluginError.__str__


class InternalError(PluginError):
    """INTERNAL: the plugin broke a promise of the ABI; its instance is poisoned."""

    status = -14
    status_name = "INTERNAL"


class PanicError(PluginError):
    """PANIC: the plugin's code panicked; its instance is poisoned."""

    status = -15
    status_name = "PANIC"


_BY_STATUS: dict[int, type[PluginError]] = {cls.status: cls for cls in PluginError.__subclasses__()}


def error_class(status: int) -> type[PluginError]:
    """The class that stands for a status of ``ferrule.h``; InternalError for one that has none."""
    return _BY_STATUS.get(status, InternalError)


class LibraryError(FerruleError):
    """A file is not a library that this host can load. Nothing of it has run.

    Attributes:
        path: The file.
        problem: What is wrong, in one sentence.
        hint: What to do about it, or None.
    """

    def __init__(self, path: Path | str, problem: str, *, hint: str | None = None) -> None:
        super().__init__(path, problem)
        self.path = Path(path)
        self.problem = problem
        self.hint = hint

    def __str__(self) -> str:
        text = f"{self.path}: {self.problem}"
        return f"{text}. {self.hint}" if self.hint else text


class PluginNotFoundError(FerruleError, LookupError):
    """No plugin of that name and kind is on the search path.

    Attributes:
        name: What was asked for.
        nearest: The closest name that does exist, or None.
    """

    def __init__(self, message: str, *, name: str = "", nearest: str | None = None) -> None:
        super().__init__(message)  # the rest has defaults, for pickle gives the message alone
        self.name = name
        self.nearest = nearest


class FlowError(FerruleError):
    """A flow file says something that cannot run.

    Attributes:
        problem: What is wrong, what was expected and what was found.
        path: The flow file, or None for a flow that was given as text.
        line: Line of the fault, from 1; None if it concerns the whole file.
        column: Column of the fault, from 1.
        hint: What to do about it, or None.
    """

    def __init__(
        self,
        problem: str,
        *,
        path: Path | str | None = None,
        line: int | None = None,
        column: int | None = None,
        hint: str | None = None,
    ) -> None:
        super().__init__(problem)
        self.problem = problem
        self.path = None if path is None else Path(path)
        self.line = line
        self.column = column
        self.hint = hint

    def __str__(self) -> str:
        where = str(self.path) if self.path else "flow"
        if self.line is not None:
            where += f":{self.line}:{self.column}"
        text = f"{where}: {self.problem}"
        return f"{text}. {self.hint}" if self.hint else text
