"""What goes into a method, and comes out of one, between Python's values and bytes."""

from __future__ import annotations

from typing import Any, Final

import orjson
from pydantic import BaseModel, TypeAdapter, ValidationError

from ferrule.errors import InvalidDataError
from ferrule.manifest import Method, Plugin

__all__ = ["JSON", "LINES", "RAW", "decode", "encode"]

LINES: Final = "application/x-ndjson"
JSON: Final = "application/json"
RAW: Final = (bytes, bytearray, memoryview)
"""What goes as it is, and is answered with bytes. Not a union, which would be made anew for each question."""


def encode(value: object) -> bytes:
    """A method's input as bytes: bytes as they are, a pydantic model or anything JSON as JSON, None as ``{}``."""
    plain = type(value) is dict  # asked first: the other questions cost more than to write a record does
    if not plain:
        if isinstance(value, bytes):
            return value
        if value is None:
            return b"{}"
        if isinstance(value, RAW):
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
    if (returns is None and isinstance(value, RAW)) or method.output not in (JSON, LINES):
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
