"""ferrule loads native plugins into Python and runs data flows on them.

>>> import ferrule
>>> with ferrule.Host() as host:
...     stamp = host.function("add-metadata", {"plugin_name": "demo"})
...     stamp.process({"id": 1})["processed_by_rust_plugin"]
'demo'
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ferrule.errors import (
        CancelledError,
        DeniedError,
        FerruleError,
        FlowError,
        InternalError,
        InvalidArgumentError,
        InvalidConfigError,
        InvalidDataError,
        InvalidStateError,
        LibraryError,
        NotFoundError,
        OutOfMemoryError,
        PanicError,
        PluginError,
        PluginIOError,
        PluginNotFoundError,
        PluginTimeoutError,
        UnauthenticatedError,
        UnavailableError,
        UnsupportedError,
    )
    from ferrule.flow import Flow, FlowInterrupted, Progress, StepSummary, Summary
    from ferrule.plugins.aio import AsyncStream
    from ferrule.plugins.deadlines import Stuck
    from ferrule.plugins.host import Host
    from ferrule.plugins.instance import Answer, Instance
    from ferrule.plugins.kinds import Function, Runner, Sink, Source
    from ferrule.plugins.pool import Pool
    from ferrule.plugins.stream import Stream

__version__ = "0.1.0"

__all__ = [
    "Answer",
    "AsyncStream",
    "CancelledError",
    "DeniedError",
    "FerruleError",
    "Flow",
    "FlowError",
    "FlowInterrupted",
    "Function",
    "Host",
    "Instance",
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
    "Pool",
    "Progress",
    "Runner",
    "Sink",
    "Source",
    "StepSummary",
    "Stream",
    "Stuck",
    "Summary",
    "UnauthenticatedError",
    "UnavailableError",
    "UnsupportedError",
    "__version__",
]

# Imported when first used: the command line's quick answers must not wait for what they do not need.
_HOME = {
    "Answer": "plugins.instance",
    "AsyncStream": "plugins.aio",
    "Flow": "flow",
    "FlowInterrupted": "flow",
    "Function": "plugins.kinds",
    "Host": "plugins.host",
    "Instance": "plugins.instance",
    "Pool": "plugins.pool",
    "Progress": "flow",
    "Runner": "plugins.kinds",
    "Sink": "plugins.kinds",
    "Source": "plugins.kinds",
    "StepSummary": "flow",
    "Stream": "plugins.stream",
    "Stuck": "plugins.deadlines",
    "Summary": "flow",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME.get(name, 'errors')}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
