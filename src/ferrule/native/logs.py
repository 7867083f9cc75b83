"""Plugins' log entries on their way to ``logging``; what becomes of it all at a fork and at the end of the process."""

from __future__ import annotations

import atexit
import logging
import os
import struct
import sys
import threading
from collections.abc import Iterator
from typing import Any, Final

import orjson

from ferrule.native.door import ffi, forget, lib, names, retired

__all__ = ["logs_dropped", "start_logging"]

_logger = logging.getLogger("ferrule.plugin")
_ENTRY: Final = struct.Struct("=IiQqII")
_log_thread: threading.Thread | None = None
_log_lock = threading.Lock()


def logs_dropped() -> int:
    """Log entries of plugins that were lost since the process began, for Python was behind."""
    return int(lib.fh_log_dropped())


def start_logging() -> None:
    """Pass plugins' log entries on to ``logging`` (logger ``ferrule.plugin.NAME``), at the levels set by now.

    Plugins see one level for all, the lowest of these loggers; each logger's own holds when the entry arrives.
    """
    global _log_thread
    with _log_lock:
        lib.fh_log_level(min(each.getEffectiveLevel() for each in (_logger, *_children())))
        if _log_thread is None:
            _log_thread = threading.Thread(target=_pass_logs_on, name="ferrule-log", daemon=True)
            _log_thread.start()


def _children() -> Iterator[logging.Logger]:
    prefix = _logger.name + "."
    for name, found in list(logging.Logger.manager.loggerDict.items()):
        if name.startswith(prefix) and isinstance(found, logging.Logger):
            yield found


def _pass_logs_on() -> None:
    room = ffi.new("uint8_t[]", 1 << 17)
    told = 0
    while lib.fh_log_wait(-1) >= 0:
        _emit_logs(room)
        if (dropped := logs_dropped()) > told:
            _logger.warning("%d log entries of plugins were dropped: they came faster than they go", dropped - told)
            told = dropped


def _emit_logs(room: Any) -> None:
    gone = len(retired)  # what these said, they said before
    while taken := lib.fh_log_take(room, len(room)):
        data = bytes(ffi.buffer(room, taken))
        at = 0
        while at < taken:
            size, level, owner, time_ns, message_len, fields_len = _ENTRY.unpack_from(data, at)
            message = data[at + _ENTRY.size :][:message_len]
            fields = data[at + _ENTRY.size + message_len :][:fields_len]
            at += size
            name = names.get(owner)
            if name is None:
                continue
            logger = _logger.getChild(name)
            if logger.isEnabledFor(level):
                _emit(logger, level, time_ns, message, fields)
    forget(gone)


def _emit(logger: logging.Logger, level: int, time_ns: int, message: bytes, fields: bytes) -> None:
    record = logger.makeRecord(logger.name, level, "(plugin)", 0, message.decode("utf-8", "replace"), (), None)
    record.created = time_ns / 1e9
    record.msecs = time_ns // 1_000_000 % 1000
    if fields:
        try:
            record.__dict__["fields"] = orjson.loads(fields)
        except orjson.JSONDecodeError:
            record.__dict__["fields"] = {}
    try:
        logger.handle(record)
    except Exception:  # a filter's or a handler's own fault: the next entry must still arrive
        if logging.raiseExceptions:
            sys.excepthook(*sys.exc_info())


def _at_exit() -> None:
    """Nothing of a plugin may reach Python once it finalises: pass on what is there, then shut the gate."""
    if _log_thread is not None:
        _emit_logs(ffi.new("uint8_t[]", 1 << 17))
    lib.fh_gate_shut()
    if _log_thread is not None:
        _log_thread.join(timeout=1)


def _after_fork() -> None:
    global _log_thread, _log_lock
    lib.fh_after_fork()
    _log_thread = None
    _log_lock = threading.Lock()


atexit.register(_at_exit)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
