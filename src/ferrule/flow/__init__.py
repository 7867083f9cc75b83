"""Flows: records from a source, through steps, into a sink."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Self

from ferrule.errors import FlowError
from ferrule.flow.document import Document, FlowSpec, Overrides, read_document, read_text
from ferrule.flow.engine import FlowInterrupted, Progress, StepSummary, Summary, run
from ferrule.flow.lint import examine_document, resolve
from ferrule.flow.replay import Replayed, replay_file
from ferrule.flow.trial import TrialResult, try_flow
from ferrule.plugins.registry import Registry

__all__ = ["Flow", "FlowInterrupted", "Progress", "Replayed", "StepSummary", "Summary", "TrialResult"]


class Flow:
    """A flow file that has been read.

    >>> flow = Flow.loads('''
    ... source: {plugin: hello-source}
    ... steps: [{plugin: add-metadata, config: {plugin_name: demo}}]
    ... sink: {plugin: jsonl-sink, config: {path: hello.jsonl}}
    ... ''')
    >>> flow.run().written
    2
    """

    def __init__(self, document: Document) -> None:
        self._document = document

    @classmethod
    def load(cls, path: Path | str, *, environ: Mapping[str, str] | None = None, set: Overrides | None = None) -> Self:
        """Read a flow file, in ferrule's keys or EKB's.

        Args:
            path: The file.
            environ: For ``${NAME}``; None is the process's environment.
            set: Values that replace the file's: ``{"source.config.path": "x"}``, or ``["source.config.path=x"]``.

        Raises:
            FlowError: With file, line and column; further ones are its notes.
        """
        document = read_document(path, environ=environ, set=set)
        document.require()
        return cls(document)

    @classmethod
    def loads(cls, text: str, *, environ: Mapping[str, str] | None = None, set: Overrides | None = None) -> Self:
        """The same for a flow that is given as text."""
        document = read_text(text, environ=environ, set=set)
        document.require()
        return cls(document)

    @property
    def spec(self) -> FlowSpec:
        """What the file says."""
        return self._document.require()

    def lint(self, *, registry: Registry | None = None) -> list[FlowError]:
        """Everything that is wrong with it, as far as that can be known without running plugin code."""
        return list(examine_document(self._document, registry or Registry()).errors)

    def test(self, *, registry: Registry | None = None) -> list[TrialResult]:
        """Run the tests that the flow file holds, in its order. This runs its steps: see :mod:`ferrule.flow.trial`.

        Args:
            registry: Where plugins are looked for; None makes one.

        Raises:
            FlowError: A plugin does not exist, or a configuration does not fit its schema.
            LibraryError: A library cannot be loaded here.
        """
        return try_flow(resolve(self.spec, registry or Registry()))

    def replay(
        self,
        letters: Path | str,
        *,
        anew: bool = False,
        lanes: int | None = None,
        on_progress: Callable[[Progress], None] | None = None,
        registry: Registry | None = None,
    ) -> Replayed:
        """Enter the records of a dead-letter file behind the source; what fails again is dead once more.

        Args:
            letters: The dead-letter file.
            anew: Whether the sink may begin anew where it cannot go on behind what it has.
            lanes: Instead of the flow's own number; 0 for one a core.
            on_progress: As for :meth:`run`.
            registry: Where plugins are looked for; None makes one.

        Raises:
            FlowError: Besides what :meth:`run` raises: the file holds no dead letters, or the sink cannot go on.
        """
        flow = resolve(self.spec, registry or Registry())
        return replay_file(Path(letters), flow, anew=anew, lanes=lanes, on_progress=on_progress)

    def run(
        self,
        *,
        limit: int | None = None,
        lanes: int | None = None,
        fresh: bool = False,
        on_progress: Callable[[Progress], None] | None = None,
        registry: Registry | None = None,
    ) -> Summary:
        """Run it to its end.

        Args:
            limit: Read at most that many records.
            lanes: Instead of the flow's own number; 0 for one a core.
            fresh: Begin anew, whatever the checkpoint says.
            on_progress: Called about ten times a second, and once at the end, in the calling thread.
            registry: Where plugins are looked for; None makes one.

        Raises:
            FlowError: A plugin does not exist, or a configuration does not fit its schema.
            LibraryError: A library cannot be loaded here.
            PluginError: A record failed under ``on_error: fail``, or a plugin as such did; with step and record
                number. What came before that record is written.
            FlowInterrupted: Ctrl-C; what had been read is written.
        """
        return run(
            resolve(self.spec, registry or Registry()),
            limit=limit,
            lanes=lanes,
            fresh=fresh,
            on_progress=on_progress,
        )
