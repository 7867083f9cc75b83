"""What a flow file says, once it is well-formed: frozen, and everything in it knows where it stands."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from ferrule.flow.nodes import Mark

__all__ = ["ExpectedError", "FlowSpec", "ItemSpec", "Kind", "OnError", "Retry", "Role", "TrialSpec", "Where"]

Role = Literal["source", "step", "sink"]
OnError = Literal["fail", "skip", "dead_letter"]
Kind = Literal["source", "function", "sink"]

Where = tuple[str | int, ...]
"""A place inside an item: ``("config", "fields", 0)``."""


@dataclass(frozen=True, slots=True)
class Retry:
    """How often more, and when, a call that may be repeated is tried: exponential backoff.

    The wait before attempt n + 1 is ``min(initial * factor ** (n - 1), max)`` seconds, times a number from
    ``1 - jitter`` to ``1 + jitter``; what the plugin says with ``retry_after_ms`` is waited for at least.

    Attributes:
        attempts: After the first, at least 1.
        initial: Seconds.
        factor: At least 1.
        max: Seconds.
        jitter: 0 to 1.
    """

    attempts: int = 3
    initial: float = 0.1
    factor: float = 2.0
    max: float = 30.0
    jitter: float = 0.1


@dataclass(frozen=True, slots=True)
class ItemSpec:
    """The source, a step or the sink.

    Attributes:
        role: Which of the three.
        kind: The kind of plugin that it takes.
        name: Unique in the flow: the step's own name, or the plugin's.
        plugin: Name of a plugin, or ``LIB`` or ``LIB:PLUGIN`` with an absolute path; None if `python` is given.
        python: ``module:name``, or None.
        language: The language that the plugin must be in, or None for any.
        config: As the file says it, before defaults are filled in.
        on_error: The item's own, or the flow's; after `retry`, what its ``then`` says.
        retry: Before that, for what may be retried; None for not at all.
        mark: Where the item begins.
        marks: Where each of its keys and list items stands.
    """

    role: Role
    kind: Kind
    name: str
    plugin: str | None
    python: str | None
    language: str | None
    config: dict[str, Any]
    on_error: OnError
    retry: Retry | None
    mark: Mark
    marks: Mapping[Where, Mark] = field(repr=False, compare=False)

    def mark_of(self, *where: str | int) -> Mark:
        """Where `where` stands, or else the innermost thing around it that the file does have."""
        for length in range(len(where), 0, -1):
            found = self.marks.get(where[:length])
            if found is not None:
                return found
        return self.mark


@dataclass(frozen=True, slots=True)
class ExpectedError:
    """An error that a trial expects; what is None may be anything.

    Attributes:
        record: The number of the given record, from 1.
        step: The step's name in the flow.
        status: Its name, such as ``INVALID_DATA``.
        message: A fragment of the message.
        mark: Where it stands.
    """

    record: int | None
    step: str | None
    status: str | None
    message: str | None
    mark: Mark


@dataclass(frozen=True, slots=True)
class TrialSpec:
    """A test of the flow, in its own file.

    Attributes:
        name: Unique among the flow's tests.
        given: What the source gives.
        expect: What the sink is to be given, in order; None if that is not asked.
        errors: Of the records that fail, in order.
        ignore: Fields of `expect` that are not compared, at the top of a record.
        mark: Where it begins.
    """

    name: str
    given: tuple[dict[str, Any], ...]
    expect: tuple[dict[str, Any], ...] | None
    errors: tuple[ExpectedError, ...]
    ignore: tuple[str, ...]
    mark: Mark


@dataclass(frozen=True, slots=True)
class FlowSpec:
    """A whole flow, all of it well-formed.

    Attributes:
        name: The flow's name; the file's stem if it gives none.
        path: The file, absolute; None for a flow that was given as text.
        source: Where records come from.
        steps: In order; may be empty.
        sink: Where they go.
        dead_letter: File for the records that an ``on_error: dead_letter`` puts aside, or None.
        checkpoint: File that says how far the flow is, so that it can go on after an end of any kind, or None.
        durable: Whether a checkpoint waits until everything is on the disk.
        lanes: Threads that work on the steps, each with instances of its own; 0 for one a core.
        in_order: Whether records keep the source's order.
        tests: What ``ferrule lint --tests`` runs.
    """

    name: str
    path: Path | None
    source: ItemSpec
    steps: tuple[ItemSpec, ...]
    sink: ItemSpec
    dead_letter: Path | None
    checkpoint: Path | None = None
    durable: bool = False
    lanes: int = 1
    in_order: bool = True
    tests: tuple[TrialSpec, ...] = ()

    @property
    def items(self) -> tuple[ItemSpec, ...]:
        """Source, steps, sink."""
        return (self.source, *self.steps, self.sink)
