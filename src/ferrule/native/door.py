"""The one door to C: no other module imports the compiled ``_native``, nor ``_prepared``, which lies in the same file.

Here are what every module behind the door shares: its constants, the errors that statuses become, and who has which id.
"""

from __future__ import annotations

from collections import deque
from importlib.machinery import ExtensionFileLoader
from importlib.util import module_from_spec, spec_from_loader
from math import ceil
from typing import Any, Final

import orjson

from ferrule.errors import PluginError, error_class
from ferrule.native._native import __file__ as _compiled
from ferrule.native._native import ffi, lib

__all__ = [
    "ABI",
    "Prepared",
    "error_object",
    "ffi",
    "forget",
    "introduce",
    "lib",
    "milliseconds",
    "names",
    "plugin_error",
    "retired",
]

ABI: Final[tuple[int, int]] = (lib.FERRULE_ABI_MAJOR, lib.FERRULE_ABI_MINOR)
"""The ABI that this host speaks: (major, minor)."""

OK: Final = lib.FERRULE_OK
END: Final = lib.FERRULE_END
PENDING: Final = lib.FERRULE_PENDING
SKIP: Final = lib.FERRULE_SKIP
INVALID_DATA: Final = lib.FERRULE_INVALID_DATA
TIMEOUT: Final = lib.FERRULE_TIMEOUT
UNAVAILABLE: Final = lib.FERRULE_UNAVAILABLE

MOVED: Final[int] = lib.FH_MOVED
STATUS: Final[int] = lib.FH_STATUS


def _prepared() -> Any:
    """The module of binding/prepared.c: the compiled file has two, and `import` looks for one of the file's name."""
    name = f"{__package__}._prepared"
    loader = ExtensionFileLoader(name, _compiled)
    spec = spec_from_loader(name, loader)
    assert spec is not None
    module = module_from_spec(spec)
    loader.exec_module(module)
    return module


Prepared: Final = _prepared().Prepared


# ---- time ----------------------------------------------------------------------------------------

_LONGEST: Final = 1e9
"""Seconds: thirty years."""


def milliseconds(seconds: float | None) -> int:
    """A timeout as C takes it: rounded up, so that what is left never becomes 'do not wait'; -1 for None, and where it
    is so long that it is none."""
    return -1 if seconds is None or seconds > _LONGEST else max(0, ceil(seconds * 1000))


# ---- who is who ----------------------------------------------------------------------------------

names: dict[int, str] = {0: "library"}
"""Instances and streams by the id under which they speak to the host's services; 0 is a library itself."""

retired: deque[int] = deque()
"""Ids of what is closed or gone. Each leaves the names once all that it said while it lived was heard."""

RETIRED_MOST: Final = 1000


def introduce(name: str) -> int:
    """A new id, known before its plugin can use it."""
    if len(retired) > RETIRED_MOST:
        forget(RETIRED_MOST // 2)
    number: int = lib.fh_new_id()
    names[number] = name
    return number


def forget(count: int) -> None:
    for _ in range(count):
        try:
            names.pop(retired.popleft(), None)
        except IndexError:  # another thread forgets too
            return


# ---- errors --------------------------------------------------------------------------------------


def error_object(status: int, error: bytes) -> dict[str, Any]:
    """What came with a status, as an object that has a message.

    Text that is no JSON object is the message; no text at all is the status's own name. Bytes that are no UTF-8 are
    replaced.
    """
    text = error.decode("utf-8", "replace")
    try:
        parsed = orjson.loads(text)
    except orjson.JSONDecodeError:
        parsed = None
    if not isinstance(parsed, dict):
        parsed = {"message": text}
    return parsed | {"message": str(parsed.get("message") or error_class(status).status_name)}


def plugin_error(status: int, error: bytes, **context: Any) -> PluginError:
    """The exception for a status and the error object that came with it: see :func:`error_object`."""
    told = error_object(status, error)
    details, after = told.get("details"), told.get("retry_after_ms")
    if not isinstance(after, int | float) or isinstance(after, bool) or after < 0:
        after = None
    return error_class(status)(
        told["message"],
        details=details if isinstance(details, dict) else None,
        retry_after=None if after is None else after / 1000,
        **context,
    )
