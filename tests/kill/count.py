"""Counts what a flow left behind: plain Python that knows files, and nothing of ferrule.

A folder holds `in`, a line a record; `out` and `dead`, what became of them; and `checkpoint`. Line number n of `in` is
record number n. What a record is to become stands in its "act".
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

DEAD = {"invalid": "INVALID_DATA", "panic": "PANIC", "utf8": "INVALID_DATA", "never": "UNAVAILABLE"}
"""Acts that end as dead letters, and their statuses; "never" is flaky with no end."""


def end_of(line: bytes) -> str:
    """Where the record that is this line of `in` is to end: "out", "skipped", or a dead letter's status."""
    if line == b"!":
        return "INVALID_DATA"
    record = json.loads(line)
    act = "never" if record["act"] == "flaky" and record["times"] > 100 else record["act"]
    return "skipped" if act == "skip" else DEAD.get(act, "out")


def count_end(folder: Path, *, in_order: bool) -> list[str]:
    """What is wrong with a flow that has come to its end; nothing if nothing is."""
    return _count(folder, None, None, None, {}, in_order)


def count_checkpoint(folder: Path, *, in_order: bool) -> list[str]:
    """What is wrong with a flow that was killed, up to the marks of its checkpoint."""
    try:
        found: dict[str, Any] = json.loads((folder / "checkpoint").read_bytes())
    except FileNotFoundError:
        return []
    except ValueError:
        return ["the checkpoint is torn"]
    waiting = {each["number"]: each["record"].encode() for each in found["waiting"]}
    problems = _count(folder, found["records"], found["mark"], found["dead_letter_mark"], waiting, in_order)
    if len(waiting) != len(found["waiting"]):
        problems.append("a record waits twice")
    behind = sum(len(line) + 1 for line in _lines((folder / "in").read_bytes(), [])[: found["records"]])
    if found["position"] != behind:
        problems.append(f"the position is {found['position']}, behind record {found['records']} is {behind}")
    return problems


def _lines(data: bytes, problems: list[str]) -> list[bytes]:
    if not data:
        return []
    if not data.endswith(b"\n"):
        problems.append(f"torn at the end: {data[-40:]!r}")
        data += b"\n"
    return data[:-1].split(b"\n")


def _count(
    folder: Path,
    records: int | None,
    mark: int | None,
    dead_mark: int | None,
    waiting: dict[int, bytes],
    in_order: bool,
) -> list[str]:
    problems: list[str] = []
    source = _lines((folder / "in").read_bytes(), problems)
    if records is not None:
        source = source[:records]
    ends: dict[int, Counter[str]] = {number: Counter() for number in range(1, len(source) + 1)}
    ends[0] = Counter()
    behind = ends[0]  # for numbers that the source does not have

    contents = {}
    for name, limit in (("out", mark), ("dead", dead_mark)):
        contents[name] = (folder / name).read_bytes()
        if limit is not None and len(contents[name]) < limit:
            problems.append(f"{name} is shorter than its mark: {len(contents[name])} < {limit}")
        contents[name] = contents[name][:limit]

    numbers = []
    for line in _lines(contents["out"], problems):
        try:
            number = json.loads(line)["n"]
            whole = source[number - 1] == line or json.loads(line).get("act") == "big"
        except (ValueError, KeyError, TypeError, IndexError):
            number, whole = 0, False
        if not whole:
            problems.append(f"torn in out: {line[:60]!r}")
            continue
        numbers.append(number)
        ends.get(number, behind)["out"] += 1
    letters = []
    for line in _lines(contents["dead"], problems):
        try:
            letter = json.loads(line)
            number = letter["number"]
            given = source[number - 1]
            whole = given == b"!" or letter["record"] == json.loads(given)
        except (ValueError, KeyError, TypeError, IndexError):
            number, whole = 0, False
        if not whole:
            problems.append(f"torn in dead: {line[:60]!r}")
            continue
        letters.append(number)
        ends.get(number, behind)[letter["status"]] += 1
    for number, data in waiting.items():
        ends.get(number, behind)["waiting"] += 1
        if number > len(source) or source[number - 1] != data:
            problems.append(f"record {number} waits with other bytes: {data!r}")

    if in_order and numbers != sorted(numbers):
        problems.append("out is not in order")
    if in_order and letters != sorted(letters):
        problems.append("dead is not in order")
    if ends.pop(0):
        problems.append("out, dead or waiting has a number that the source has not")
    for number, found in ends.items():
        wanted = end_of(source[number - 1])
        if found["waiting"] == 1 and found.total() == 1:
            continue
        if wanted == "skipped":
            if found:
                problems.append(f"record {number} is to be skipped, and is {dict(found)}")
        elif not found:
            problems.append(f"record {number} is lost")
        elif found.total() > 1:
            problems.append(f"record {number} is doubled: {dict(found)}")
        elif not found[wanted]:
            problems.append(f"record {number} is to be {wanted}, and is {dict(found)}")
    return problems
