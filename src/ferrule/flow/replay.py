"""Dead letters' records enter their flow again, behind its source.

They enter as what a checkpoint calls waiting: records that were read and came to no end. So the engine takes them
through the same steps, policies and sink, under their own numbers, and no end of any kind loses one of them. Where the
output goes depends on what the sink can do:

- **It goes on** behind what it has, if the flow has a checkpoint whose sink is the same. The letters move from the file
  into that checkpoint, in one step; the flow's source stays where it stands. The steps may have been mended since.
- **It begins anew**, which may overwrite what it wrote before, only if it was set from outside for this replay, or the
  caller allows it. A checkpoint beside the dead-letter file serves this replay alone.

Afterwards the file holds what was not replayable, what came to no end, and what failed again (the latter in the flow's
own dead-letter file, if another one is replayed and the sink goes on). Nothing may run the flow meanwhile.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from ferrule.errors import FlowError, PluginIOError
from ferrule.flow.checkpoint import Checkpoint, flow_hash, in_turn, same_sink, same_steps, sync_folder
from ferrule.flow.engine import Progress, Summary, run
from ferrule.flow.lint import ResolvedFlow
from ferrule.flow.memory import source_at
from ferrule.native import Waiting

__all__ = ["Replayed", "replay_file"]

_RAW = b'{"record":'


@dataclass(frozen=True, slots=True)
class Replayed:
    """What a replay did.

    Attributes:
        letters: Dead letters that the file held.
        entered: Records that entered the flow; letters of the same record enter it once.
        not_replayable: Letters without a record: the source's own bad items. They stay in the file.
        dead_letter: The file that holds what failed again, or None if the flow has none.
        summary: What the flow did with them, and with what its checkpoint held; None if there was nothing to do.
    """

    letters: int
    entered: int
    not_replayable: int
    dead_letter: str | None
    summary: Summary | None


@dataclass(frozen=True, slots=True)
class _Letter:
    """A line of the file, with its newline; the record's number and bytes."""

    line: bytes
    number: int
    record: bytes | None

    @property
    def row(self) -> Waiting:
        assert self.record is not None
        return Waiting(self.number, self.record)


def replay_file(
    path: Path,
    flow: ResolvedFlow,
    *,
    anew: bool = False,
    lanes: int | None = None,
    on_progress: Callable[[Progress], None] | None = None,
) -> Replayed:
    """Replay a dead-letter file.

    Args:
        path: The file.
        flow: The flow that its records are to go through.
        anew: Whether the sink may begin anew, where it cannot go on.
        lanes: Instead of the flow's own number; 0 for one a core.
        on_progress: As for :func:`ferrule.flow.engine.run`.

    Raises:
        FlowError: A line is no dead letter; or the sink cannot go on, and may not begin anew.
        PluginError, FlowInterrupted: As :func:`ferrule.flow.engine.run`. The records that came to no end are back in
            the file.
    """
    letters = _read(path)
    spec = flow.spec
    known = None if spec.checkpoint is None else Checkpoint.load(spec.checkpoint, None, spec.path)
    own = spec.dead_letter is not None and os.path.realpath(spec.dead_letter) == os.path.realpath(path)
    if own and known is not None and path.stat().st_size != (known.dead_letter_mark or 0):
        raise FlowError(
            f"{path} is not as the flow's checkpoint {spec.checkpoint} knows it: it has {path.stat().st_size} bytes, "
            f"expected {known.dead_letter_mark or 0}",
            path=spec.path,
            hint="If the flow was killed, run it first: that puts the file in order. If you edited the file, put the "
            "original back and replay an edited copy",
        )
    problem = _why_not_going_on(flow, known)
    if problem is not None and not anew and not _set_from_outside(flow):
        raise FlowError(
            f"the sink {spec.sink.name!r} would begin anew, and may overwrite what it wrote before: {problem}",
            path=spec.path,
            line=spec.sink.mark.line,
            column=spec.sink.mark.column,
            hint="Send the output elsewhere (--set sink.config.path=FILE), or allow it with --anew",
        )
    stay = [letter for letter in letters if letter.record is None]
    enter = list({letter.row: letter for letter in letters if letter.record is not None}.values())
    told = spec.dead_letter if problem is None or spec.dead_letter is None else path
    done = Replayed(len(letters), len(enter), len(stay), None if told is None else str(told), None)
    if not enter:
        return done

    def go(flow: ResolvedFlow) -> Summary:
        return run(flow, lanes=lanes, on_progress=on_progress)

    if problem is None:
        assert known is not None
        return replace(done, summary=_go_on(path, own, flow, known, stay, enter, go))
    return replace(done, summary=_begin_anew(path, known if own else None, flow, stay, enter, go))


def _why_not_going_on(flow: ResolvedFlow, known: Checkpoint | None) -> str | None:
    checkpoint = flow.spec.checkpoint
    if checkpoint is None:
        return "the flow has no checkpoint, which would say where it stands"
    if known is None:
        return f"the flow's checkpoint {checkpoint} does not exist"
    if not same_sink(known.flow, flow_hash(flow)):
        return f"it is not the one that the checkpoint {checkpoint} knows"
    if known.mark is None:
        return "it has no marks"
    return None


def _set_from_outside(flow: ResolvedFlow) -> bool:
    sink = flow.spec.sink
    return any(mark.override is not None for mark in (sink.mark, *sink.marks.values()))


# ---- the two ways --------------------------------------------------------------------------------


def _go_on(
    path: Path,
    own: bool,
    flow: ResolvedFlow,
    known: Checkpoint,
    stay: list[_Letter],
    enter: list[_Letter],
    go: Callable[[ResolvedFlow], Summary],
) -> Summary:
    spec = flow.spec
    assert spec.checkpoint is not None
    changed = not same_steps(known.flow, flow_hash(flow))
    between = [row for row in known.waiting if row.step]
    if changed and between:
        raise FlowError(
            f"the steps changed since the checkpoint {spec.checkpoint} was written, and record {between[0].record} "
            "waits between them",
            path=spec.path,
            hint="Undo the change and run the flow first, so that nothing waits; then change it, and replay",
        )
    waiting = in_turn([*known.waiting, *(letter.row for letter in enter if letter.row not in known.waiting)])
    if own:
        # First nothing but the order changes; then the checkpoint takes the tail over, and the file's end with it.
        _write(path, [*stay, *enter], spec.durable)
        mark = sum(len(letter.line) for letter in stay)
        replace(known, waiting=waiting, dead_letter_mark=mark).save(spec.checkpoint, durable=spec.durable)
    else:
        replace(known, waiting=waiting).save(spec.checkpoint, durable=spec.durable)
        _write(path, stay, spec.durable)
    source = source_at(flow.source, known.position)
    try:
        return go(replace(flow, source=source, identity=known.flow))
    except BaseException as error:
        _give_back(path, own, flow, known.waiting, changed, enter, error)
        raise


def _give_back(
    path: Path,
    own: bool,
    flow: ResolvedFlow,
    others: list[Waiting],
    changed: bool,
    entered: list[_Letter],
    error: BaseException,
) -> None:
    """What came to no end goes back from the checkpoint into the file. What is between the steps, and so no longer what
    the letter holds, stays there, unless the steps are `changed`: the checkpoint's flow has not those."""

    def whole(row: Waiting) -> Waiting:
        return Waiting(row.record, row.data) if row.status or changed else row

    spec = flow.spec
    assert spec.checkpoint is not None
    found = Checkpoint.load(spec.checkpoint, None, spec.path)
    if found is None:
        return
    again = {whole(row) for row in found.waiting}.difference(others)
    left = [letter for letter in entered if letter.row in again]
    if not left:
        return
    gone = {letter.row for letter in left}
    rest = [row for row in found.waiting if whole(row) not in gone]
    standing = path.read_bytes()[: found.dead_letter_mark if own else None]
    _write(path, [standing, *left], spec.durable)
    mark = path.stat().st_size if own else found.dead_letter_mark
    replace(found, waiting=rest, dead_letter_mark=mark).save(spec.checkpoint, durable=spec.durable)
    error.add_note(_told(left, path))


def _begin_anew(
    path: Path,
    known: Checkpoint | None,
    flow: ResolvedFlow,
    stay: list[_Letter],
    enter: list[_Letter],
    go: Callable[[ResolvedFlow], Summary],
) -> Summary:
    spec = flow.spec
    checkpoint, again = (path.with_name(f"{path.name}.{ending}") for ending in ("replay", "again"))
    identity = flow_hash(flow)
    rows = in_turn(letter.row for letter in enter)
    Checkpoint(identity, 0, None, None, None, rows).save(checkpoint, durable=False)
    changed = replace(
        spec, checkpoint=checkpoint, durable=False, dead_letter=None if spec.dead_letter is None else again
    )
    try:
        summary = go(replace(flow, spec=changed, source=source_at(flow.source, None), identity=identity))
    except BaseException as error:
        left = _settle(path, known, flow, checkpoint, again, stay, enter)
        if left:
            error.add_note(
                f"{_told(left, path)}. What is written is not among them: "
                "let the next replay write to another place, or it begins this one anew."
            )
        raise
    _settle(path, known, flow, checkpoint, again, stay, enter)
    return replace(summary, dead_letter=None if spec.dead_letter is None else str(path), checkpoint=None)


def _settle(
    path: Path,
    known: Checkpoint | None,
    flow: ResolvedFlow,
    checkpoint: Path,
    again: Path,
    stay: list[_Letter],
    entered: list[_Letter],
) -> list[_Letter]:
    """Bring the file to what is true after a replay that began anew; the letters that came to no end."""
    found = Checkpoint.load(checkpoint, None, None)
    waiting = set() if found is None else {row[:2] for row in found.waiting}
    left = [letter for letter in entered if letter.row[:2] in waiting]
    dead = b""
    if found is not None and found.dead_letter_mark is not None:
        dead = again.read_bytes()[: found.dead_letter_mark]
    _write(path, [*stay, dead, *left], flow.spec.durable)
    if known is not None and flow.spec.checkpoint is not None:
        mark = path.stat().st_size
        replace(known, dead_letter_mark=mark).save(flow.spec.checkpoint, durable=flow.spec.durable)
    again.unlink(missing_ok=True)
    checkpoint.unlink(missing_ok=True)
    return left


def _told(left: list[_Letter], path: Path) -> str:
    count = f"{len(left):,} record{'' if len(left) == 1 else 's'}"
    return f"{count} came to no end, and {'is' if len(left) == 1 else 'are'} in {path} as before"


# ---- the file ------------------------------------------------------------------------------------


def _read(path: Path) -> list[_Letter]:
    """The file's letters.

    Raises:
        FlowError: It cannot be read, or a line is no dead letter.
    """
    try:
        with path.open("rb") as file:
            return [_letter(path, number, line) for number, line in enumerate(file, 1)]
    except OSError as error:
        raise FlowError(f"cannot be read: {error.strerror or error}", path=path) from error


def _letter(path: Path, at: int, line: bytes) -> _Letter:
    def refuse(problem: str, hint: str | None = None) -> FlowError:
        return FlowError(problem, path=path, line=at, column=1, hint=hint)

    if not line.endswith(b"\n"):
        raise refuse("the line is torn: it has no end", "If it is whole, add the newline")
    try:
        text = line.decode()
        found = json.loads(text)
    except ValueError:
        raise refuse("the line is no JSON", "A dead-letter file holds a JSON object a line") from None
    if not isinstance(found, dict) or not {"step", "status", "error"} <= found.keys():
        raise refuse("this is no dead letter: one has step, status and error", "Is it another file?")
    number = found.get("number", at)
    if type(number) is not int or number < 1:
        raise refuse(f"number is a whole number from 1, not {number!r}")
    if "record_base64" in found:
        try:
            record = base64.b64decode(found["record_base64"], validate=True)
        except (TypeError, binascii.Error):
            raise refuse("record_base64 is no base64") from None
        if b"\n" in record:
            raise refuse("record_base64 holds a newline; a record is one line")
        return _Letter(line, number, record)
    if "record" not in found:
        return _Letter(line, number, None)
    if line.startswith(_RAW):  # as it was written: numbers keep every digit
        start = len(_RAW) + len(text[len(_RAW) :]) - len(text[len(_RAW) :].lstrip())
        return _Letter(line, number, text[start : json.JSONDecoder().raw_decode(text, start)[1]].encode())
    return _Letter(line, number, json.dumps(found["record"], ensure_ascii=False, separators=(",", ":")).encode())


def _write(path: Path, parts: Iterable[_Letter | bytes], durable: bool) -> None:
    """Replace the file, in one step."""
    temporary = path.with_name(path.name + ".new")
    try:
        with temporary.open("wb") as file:
            file.writelines(part if isinstance(part, bytes) else part.line for part in parts)
            file.flush()
            if durable:
                os.fsync(file.fileno())
        os.replace(temporary, path)
        if durable:
            sync_folder(path.parent)
    except OSError as error:
        raise PluginIOError(f"the dead-letter file {path} cannot be written: {error.strerror or error}") from error
