"""Many records through one crossing."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import accumulate
from typing import Any, Literal, cast, overload

import orjson

from ferrule.errors import InvalidDataError, PluginError
from ferrule.native import Results, plugin_error
from ferrule.plugins.instance import Instance, NativeInstance
from ferrule.plugins.values import encode

__all__ = ["Errors", "Records", "call_many"]

Errors = Literal["raise", "return"]


class Records(Sequence[Any]):
    """Answers in one buffer, each made when it is asked for.

    An entry is bytes, or decoded where `loads` is given; None where the plugin skipped; a ``PluginError`` where the
    call failed and errors were to be returned.

    Attributes:
        data: All answers, each with a newline behind it: JSON lines, as a sink takes them.
    """

    def __init__(
        self,
        data: bytes,
        results: Results,
        others: dict[int, PluginError | None],
        loads: Callable[[bytes], Any] | None,
    ) -> None:
        self.data = data
        self._results = results
        self._ends: list[int] | None = None
        self._others = others
        self._count = len(results)
        self._loads = loads

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Any]:
        return iter(self.tolist())

    def tolist(self) -> list[Any]:
        """All of them at once."""
        answers: list[Any] = self.data.split(b"\n")
        answers.pop()  # behind the last newline; to cut that off before would be one more copy of all
        if len(answers) != self._count - len(self._others):  # an answer that holds newlines
            return [self[at] for at in range(self._count)]
        if self._loads is not None:
            answers = list(map(self._loads, answers))
        for at in sorted(self._others):
            answers.insert(at, self._others[at])
        return answers

    @overload
    def __getitem__(self, at: int) -> Any: ...
    @overload
    def __getitem__(self, at: slice) -> list[Any]: ...
    def __getitem__(self, at: int | slice) -> Any:
        if isinstance(at, slice):
            return [self[each] for each in range(*at.indices(self._count))]
        index = at + self._count if at < 0 else at
        if not 0 <= index < self._count:
            raise IndexError(f"record {at} of {self._count}")
        if index in self._others:
            return self._others[index]
        if self._ends is None:
            self._ends = list(accumulate(length + 1 if status == 0 else 0 for status, length in self._results))
        answer = self.data[self._ends[index - 1] if index else 0 : self._ends[index] - 1]
        return answer if self._loads is None else self._loads(answer)


def call_many(
    instance: Instance, method: str, records: Sequence[Any] | bytes, *, errors: Errors, lazy: bool, name: str
) -> Records | list[Any]:
    """Call a method with each of many records: in one crossing where the instance is native.

    Raises:
        PluginError: The first that failed, with its number from 1, under ``errors="raise"``.
        InvalidDataError: An answer is no JSON, where a record of those that were not bytes is to be decoded.
    """
    if errors not in ("raise", "return"):
        raise ValueError(f"errors must be 'raise' or 'return', got {errors!r}")
    if not isinstance(instance, NativeInstance):
        return _one_by_one(instance, method, records, errors)
    raw = isinstance(records, bytes) or (len(records) > 0 and isinstance(records[0], bytes))
    call = partial(instance.target.call_many, method, lines=lazy, stop_at_error=errors == "raise")
    try:
        made, results, fine, told = call(records if raw else list(map(encode, records)))
    except TypeError:  # what begins with bytes has other things, too
        made, results, fine, told = call(list(map(encode, records)))
    others: dict[int, PluginError | None] = {}
    at = 0
    for number, (status, length) in enumerate(results) if not fine else ():
        if status == 0:
            continue
        others[number] = None
        if status < 0:
            error = plugin_error(status, told[at : at + length], plugin=name, method=method, record=number + 1)
            at += length
            if errors == "raise":
                raise error
            others[number] = error
    loads = None if raw else orjson.loads
    if lazy:
        return Records(made, results, others, loads)
    if loads is not None:
        try:
            made = [None if answer is None else loads(answer) for answer in made]
        except orjson.JSONDecodeError as wrong:
            raise InvalidDataError(
                f"the plugin answered with something that is no JSON: {wrong}", plugin=name, method=method
            ) from None
    for number, other in others.items():
        made[number] = other
    return cast(list[Any], made)


def _one_by_one(instance: Instance, method: str, records: Sequence[Any] | bytes, errors: Errors) -> list[Any]:
    call = instance.method(method)
    answers: list[Any] = []
    lines = records.removesuffix(b"\n").split(b"\n") if isinstance(records, bytes) and records else records
    for number, record in enumerate(lines, 1):
        try:
            answers.append(call(record))
        except PluginError as error:
            error.record = number
            if errors == "raise":
                raise
            answers.append(error)
    return answers
