"""What several commands' options have in common."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from ferrule.cli.output import WRONG_USAGE, Failure

__all__ = ["AsJson", "given_bytes", "given_object"]

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]


def given_bytes(text: str, option: str) -> bytes:
    """What an option gives: itself, a file's content, or standard input."""
    if text == "-":
        return sys.stdin.buffer.read()
    if not text.startswith("@"):
        return text.encode("utf-8", "surrogateescape")
    try:
        return Path(text[1:]).read_bytes()
    except OSError as error:
        raise Failure(f"{option}: {text[1:]}: {error.strerror or error}", status=WRONG_USAGE) from None


def given_object(text: str, option: str) -> dict[str, Any]:
    """The JSON object that an option gives, in the same ways."""
    data = given_bytes(text, option)
    try:
        value = json.loads(data)
    except ValueError as error:
        raise Failure(f"{option} is no JSON: {error}. Found {data[:60]!r}.", status=WRONG_USAGE) from None
    if not isinstance(value, dict):
        found = {list: "a list", str: "text", bool: "a boolean", type(None): "null"}.get(type(value), "a number")
        raise Failure(f"{option} is a JSON object, such as {{}}, not {found}.", status=WRONG_USAGE)
    return value
