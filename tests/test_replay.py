"""Dead letters' records enter their flow again: each comes to one end, and earlier output is never lost."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import ferrule
from ferrule.flow import Replayed
from ferrule.flow import replay as replaying
from ferrule.flow.checkpoint import Checkpoint

Record = dict[str, Any]

_numbers = iter(range(1 << 19, 1 << 20))


def numbers(count: int) -> list[int]:
    """Record numbers that no test has used: the flaky plugin counts attempts a number."""
    return [next(_numbers) for _ in range(count)]


class Place:
    """A folder with a flow in it: `lines` into `act` into `keep`, dead letters for what fails."""

    def __init__(self, library: Path, folder: Path) -> None:
        self.library, self.folder = library, folder
        self.source, self.out, self.dead = folder / "in", folder / "out", folder / "dead"
        self.checkpoint = folder / "checkpoint"
        self.policy = "dead_letter"
        self.head = ""
        self.sink = "keep"
        self.checkpointed = True

    def records(self, *lines: Record | str) -> None:
        texts = [line if isinstance(line, str) else json.dumps(line) for line in lines]
        self.source.write_text("".join(text + "\n" for text in texts))

    def flow(self, step: str = "", **set_: Any) -> ferrule.Flow:
        delivery = f', checkpoint: "{self.checkpoint}"' if self.checkpointed else ""
        return ferrule.Flow.loads(
            f"""
{self.head}
source: {{plugin: "{self.library}:lines", config: {{path: "{self.source}"}}, on_error: dead_letter}}
steps:
  - {step or f'{{plugin: "{self.library}:act", on_error: {self.policy}}}'}
sink: {{plugin: "{self.library}:{self.sink}", config: {{path: "{self.out}"}}, on_error: dead_letter}}
delivery: {{dead_letter: "{self.dead}"{delivery}}}
""",
            set={key.replace("__", "."): value for key, value in set_.items()},
        )

    def written(self, path: Path | None = None) -> list[int]:
        return [json.loads(line)["n"] for line in (path or self.out).read_text().splitlines()]

    def letters(self, path: Path | None = None) -> list[Record]:
        return [json.loads(line) for line in (path or self.dead).read_text().splitlines()]


@pytest.fixture
def place(act_library: Path, tmp_path: Path) -> Place:
    """A flow in an empty folder."""
    return Place(act_library, tmp_path)


def counts(done: Replayed) -> tuple[int, int, int]:
    return done.letters, done.entered, done.not_replayable


# ---- behind what is there ------------------------------------------------------------------------


@pytest.mark.parametrize("head", ["", "lanes: 2\norder: any", "lanes: 2"])
def test_letters_go_behind_the_earlier_output(place: Place, head: str) -> None:
    """With a checkpoint the sink goes on: what is mended is appended, and what fails again keeps its number."""
    place.head = head
    one, two, three, four = numbers(4)
    place.records(
        {"n": one},
        {"n": two, "act": "flaky", "times": 1},
        "!",
        {"n": three, "act": "invalid"},
        {"n": four},
    )
    assert place.flow().run().dead == 3
    first = place.letters()
    done = place.flow().replay(place.dead)
    assert counts(done) == (3, 2, 1)
    assert done.summary is not None
    assert (done.summary.read, done.summary.written, done.summary.dead) == (2, 1, 1)
    assert sorted(place.written()[:2]) == [one, four]
    assert place.written()[2:] == [two]
    bad, dead = place.letters()
    assert bad == next(letter for letter in first if "record" not in letter)
    assert (dead["number"], dead["record"], dead["step"]) == (4, {"n": three, "act": "invalid"}, "act")
    # The checkpoint is the flow's own again: the flow goes on with what the source has got since.
    with place.source.open("a") as source:
        source.write(json.dumps({"n": 7}) + "\n")
    summary = place.flow().run()
    assert (summary.read, summary.resumed_at) == (1, 5)
    assert place.written()[2:] == [two, 7]
    assert len(place.letters()) == 2


def test_a_replay_before_the_flow_s_end_leaves_the_source_where_it_stands(place: Place) -> None:
    """Replaying reads nothing of the source, which may even be gone; the flow goes on later as if nothing was."""
    mine = numbers(6)
    place.records(*({"n": n, "act": "flaky" if n == mine[0] else "ok", "times": 1} for n in mine))
    place.flow().run(limit=3)
    hidden = place.source.rename(place.folder / "hidden")
    place.flow().replay(place.dead)
    hidden.rename(place.source)
    assert place.written() == [mine[1], mine[2], mine[0]]
    place.flow().run()
    assert place.written() == [mine[1], mine[2], mine[0], *mine[3:]]


def test_the_steps_may_have_been_mended(place: Place) -> None:
    """Letters of a faulty step go through the one that took its place; the sink is what must be the same."""
    place.records({"n": 1, "act": "invalid"}, {"n": 2})
    place.flow().run()
    place.flow(f'{{plugin: "{place.library}:several"}}').replay(place.dead)
    assert place.written() == [2, 1]
    assert place.dead.read_bytes() == b""
    with pytest.raises(ferrule.FlowError, match="its steps or their configuration changed"):
        place.flow(f'{{plugin: "{place.library}:several"}}').run()


def test_what_waits_between_steps_is_no_other_steps_record(place: Place) -> None:
    """A part of a record waits before the step that it came to. Steps that changed are not given it; the same ones are,
    and its siblings are not written again."""
    place.records({"n": 1, "parts": "unkept:1"}, {"n": 2, "parts": "ok:1,invalid:1,ok:1"})
    split = f'{{plugin: "{place.library}:split"}}\n  - {{plugin: "{place.library}:act", on_error: POLICY}}'
    with pytest.raises(ferrule.InvalidDataError):
        place.flow(split.replace("POLICY", "fail")).run()
    assert place.written() == [2 + 40]
    before = (place.dead.read_bytes(), place.checkpoint.read_bytes())
    with pytest.raises(ferrule.FlowError, match="record 2 waits between them"):
        place.flow(f'{{plugin: "{place.library}:several"}}').replay(place.dead)
    assert (place.dead.read_bytes(), place.checkpoint.read_bytes()) == before
    place.flow(split.replace("POLICY", "dead_letter")).replay(place.dead)
    assert place.written() == [2 + 40, 2 + 120]
    assert [letter["number"] for letter in place.letters()] == [1, 2]


def test_what_comes_to_no_end_is_back_in_the_file(place: Place) -> None:
    """A replay that fails half-way loses nothing: the rest are dead letters as before, and the output is whole."""
    mine = numbers(4)
    place.records(*({"n": n, "act": "flaky" if n != mine[2] else "invalid", "times": 1} for n in mine))
    place.flow().run()
    letters = place.letters()
    place.policy = "fail"
    with pytest.raises(ferrule.InvalidDataError) as caught:
        place.flow().replay(place.dead)
    assert caught.value.record == 3
    assert "2 records came to no end, and are in" in caught.value.__notes__[0]
    assert place.written() == mine[:2]
    assert place.letters() == letters[2:]
    place.policy = "dead_letter"
    place.flow().replay(place.dead)
    assert place.written() == [mine[0], mine[1], mine[3]]
    assert [letter["number"] for letter in place.letters()] == [3]


def test_a_plugin_that_cannot_be_made_loses_nothing(place: Place) -> None:
    """An error before the first record leaves every letter in the file."""
    place.records({"n": 1, "act": "invalid"}, "!", {"n": 2, "act": "invalid"})
    place.flow().run()
    before = sorted(place.dead.read_text().splitlines())
    with pytest.raises(ferrule.PluginError):
        place.flow(f'{{python: "{__name__}:Unmakeable"}}').replay(place.dead)
    assert sorted(place.dead.read_text().splitlines()) == before
    assert place.flow().replay(place.dead).entered == 2


class Unmakeable:
    """A step whose instances cannot be made."""

    def __init__(self) -> None:
        raise RuntimeError("no")

    def process(self, record: Record) -> Record:
        return record


def test_a_kill_in_the_middle_loses_nothing(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever a replay is killed, running the flow or replaying again brings every record to its end."""
    place.records({"n": 1, "act": "invalid"}, "!", {"n": 2, "act": "unavailable"}, {"n": 3})
    mended = f'{{plugin: "{place.library}:several"}}'
    saved, written = Checkpoint.save, replaying._write

    class Killed(BaseException):
        pass

    def killed(*_: Any, **__: Any) -> None:
        raise Killed

    for name, target in (("save", Checkpoint), ("_write", replaying), ("run", replaying)):
        place.flow().run(fresh=True)
        before = sorted(place.dead.read_text().splitlines())
        monkeypatch.setattr(target, name, killed)
        monkeypatch.setattr(replaying, "_give_back", lambda *_: None)
        with pytest.raises(Killed):
            place.flow(mended).replay(place.dead)
        monkeypatch.undo()
        assert (Checkpoint.save, replaying._write) == (saved, written)
        if name == "run":  # the letters are in the checkpoint now, and the flow itself goes on with them
            assert place.flow().run().dead == 2
            assert sorted(json.loads(line)["number"] for line in before) == sorted(
                letter["number"] for letter in place.letters()
            )
        else:
            assert sorted(place.dead.read_text().splitlines()) == before
        place.flow(mended).replay(place.dead)
        assert sorted(place.written()) == [1, 2, 3]


def test_another_file_than_the_flow_s_own(place: Place) -> None:
    """A copy that somebody edited is replayed as it is; what fails again is in the flow's own file."""
    place.records({"n": 1, "act": "invalid"}, {"n": 2, "act": "invalid"}, "!")
    place.flow().run()
    copy = place.folder / "copy"
    copy.write_text(place.dead.read_text().replace('"n": 1, "act": "invalid"', '"n": 100, "act": "ok"'))
    done = place.flow().replay(copy)
    assert place.written() == [100]
    assert ["record" in letter for letter in place.letters(copy)] == [False]
    assert [letter["number"] for letter in place.letters()][3:] == [2]
    assert done.dead_letter == str(place.dead)
    again = place.flow().replay(copy)
    assert counts(again) == (1, 0, 1)
    assert again.summary is None


def test_an_edited_file_is_refused_where_the_checkpoint_knows_its_length(place: Place) -> None:
    """The flow's own file is cut at the checkpoint's mark when it goes on, so a changed one is not touched."""
    place.records({"n": 1, "act": "invalid"})
    place.flow().run()
    place.dead.write_text(place.dead.read_text() * 2)
    before = place.dead.read_bytes()
    with pytest.raises(ferrule.FlowError, match=r"is not as the flow's checkpoint .* knows it"):
        place.flow().replay(place.dead)
    assert place.dead.read_bytes() == before
    place.dead.write_text("")
    with pytest.raises(ferrule.FlowError, match="it was changed since"):
        place.flow().run()


# ---- elsewhere -----------------------------------------------------------------------------------


def test_without_a_checkpoint_nothing_is_overwritten_silently(place: Place) -> None:
    """The sink would begin anew, so it is refused with what to do, and nothing has changed."""
    place.checkpointed = False
    one, two = numbers(2)
    place.records({"n": one, "act": "flaky", "times": 1}, {"n": two})
    place.flow().run()
    before = place.dead.read_bytes()
    with pytest.raises(
        ferrule.FlowError, match=r"would begin anew.*no checkpoint.*--set sink\.config\.path=FILE.*--anew"
    ):
        place.flow().replay(place.dead)
    assert (place.written(), place.dead.read_bytes()) == ([two], before)
    other = place.folder / "other"
    done = place.flow(sink__config__path=str(other)).replay(place.dead)
    assert (place.written(), place.written(other)) == ([two], [one])
    assert place.dead.read_bytes() == b""
    assert done.dead_letter == str(place.dead)
    assert sorted(path.name for path in place.folder.iterdir()) == ["dead", "in", "other", "out"]


def test_anew_overwrites_because_somebody_said_so(place: Place) -> None:
    """--anew is the explicit word for it."""
    place.checkpointed = False
    (one,) = numbers(1)
    place.records({"n": one, "act": "flaky", "times": 1}, {"n": 2})
    place.flow().run()
    place.flow().replay(place.dead, anew=True)
    assert place.written() == [one]


def test_a_sink_without_marks_is_asked_for_too(place: Place) -> None:
    """A checkpoint alone does not make a sink go on; the flow's own checkpoint stays in step with the file."""
    place.sink = "keep-one"
    place.records({"n": 1, "act": "invalid"}, {"n": 2}, "!", {"n": 3, "act": "invalid"})
    place.flow().run()
    with pytest.raises(ferrule.FlowError, match="it has no marks"):
        place.flow().replay(place.dead)
    other = place.folder / "other"
    mended = f'{{plugin: "{place.library}:several"}}'
    place.flow(mended, sink__config__path=str(other)).replay(place.dead)
    assert place.written(other) == [1, 3]
    assert len(place.letters()) == 1
    assert place.flow().run().read == 0
    assert len(place.letters()) == 1


def test_elsewhere_too_what_fails_again_keeps_its_number_and_the_rest_stays(place: Place) -> None:
    """A failure half-way: not replayable, dead again, and without an end, all of them are in the file."""
    place.checkpointed = False
    mine = numbers(4)
    acts = ["invalid", "flaky", "unavailable", "flaky"]
    place.records("!", *({"n": n, "act": act, "times": 1} for n, act in zip(mine, acts, strict=True)))
    place.flow().run()
    other = place.folder / "other"
    with pytest.raises(ferrule.PanicError) as caught:
        place.flow(
            sink__config__path=str(other),
            steps=[
                {"python": f"{__name__}:Picky", "config": {"n": mine[0]}, "on_error": "dead_letter"},
                {"python": f"{__name__}:Broken", "config": {"n": mine[2]}, "on_error": "fail"},
            ],
        ).replay(place.dead)
    assert caught.value.record == 4
    assert "let the next replay write to another place" in caught.value.__notes__[0]
    assert place.written(other) == [mine[1]]
    assert [(letter["number"], "record" in letter) for letter in place.letters()] == [
        (1, False),
        (2, True),
        (4, True),
        (5, True),
    ]


class Picky:
    """A step that refuses one number."""

    def __init__(self, config: Record) -> None:
        self.n = config["n"]

    def process(self, record: Record) -> Record:
        if record["n"] == self.n:
            raise ValueError("not this one")
        return record


class Broken(Picky):
    """A step with a fault that one number shows."""

    def process(self, record: Record) -> Record:
        if record["n"] == self.n:
            raise RuntimeError("a fault")
        return record


# ---- what a letter holds -------------------------------------------------------------------------


def test_a_record_enters_as_the_bytes_that_it_was(place: Place) -> None:
    """Digits that JSON readers would lose, spaces, and bytes that are no JSON text come back as they were."""
    text = '{ "n": 123456789012345678901234567890, "x": 0.10000000000000000001, "act": "invalid"}'
    place.records(text)
    place.flow().run()
    assert b"record_base64" not in place.dead.read_bytes()
    letter = {"record_base64": base64.b64encode(b'{"n": 5}').decode(), "step": "act", "status": "X", "error": {}}
    copy = place.folder / "copy"
    copy.write_bytes(place.dead.read_bytes() + json.dumps(letter).encode() + b"\n")
    place.flow(f'{{plugin: "{place.library}:several"}}').replay(copy)
    assert place.out.read_text() == f'{text}\n{{"n": 5}}\n'


def test_letters_of_one_record_enter_it_once(place: Place) -> None:
    """A record of which a step made several may have several letters; it enters once."""
    several = f'{{plugin: "{place.library}:several"}}\n  - {{plugin: "{place.library}:act", on_error: dead_letter}}'
    place.records({"n": 1, "times": 3, "act": "invalid"})
    place.flow(several).run()
    before = len(place.letters())
    done = place.flow(several).replay(place.dead)
    assert (done.letters, done.entered) == (before, 1)
    assert len(place.letters()) == before


GOOD = b'{"record":{"n":1},"step":"a","status":"B","error":{},"attempt":1,"number":1,"time":"t"}\n'


def bad_lines() -> Iterator[tuple[bytes, str]]:
    """Lines that are no dead letters, and what is said of them."""
    yield b"x\n", "the line is no JSON"
    yield b"\xff\n", "the line is no JSON"
    yield b"\n", "the line is no JSON"
    yield b'{"record": {}}\n', "this is no dead letter"
    yield b"[]\n", "this is no dead letter"
    yield GOOD[:-1], "the line is torn"
    yield GOOD.replace(b'"number":1', b'"number":0'), "number is a whole number from 1, not 0"
    yield GOOD.replace(b'"record":{"n":1}', b'"record_base64":"?"'), "record_base64 is no base64"
    yield GOOD.replace(b'"record":{"n":1}', b'"record_base64":"Cg=="'), "record_base64 holds a newline"


@pytest.mark.parametrize(("line", "fragment"), list(bad_lines()))
def test_a_line_that_is_no_letter_is_refused_before_anything_happens(place: Place, line: bytes, fragment: str) -> None:
    """The error has the file and the line; nothing has run."""
    path = place.folder / "letters"
    path.write_bytes(GOOD + line)
    with pytest.raises(ferrule.FlowError, match=fragment) as caught:
        place.flow().replay(path)
    assert (caught.value.path, caught.value.line) == (path, 2)
    assert path.read_bytes() == GOOD + line
    assert not place.out.exists()


def test_a_file_that_is_missing_is_an_error(place: Place) -> None:
    """A FlowError that names it."""
    with pytest.raises(ferrule.FlowError, match="cannot be read: No such file"):
        place.flow().replay(place.folder / "nowhere")
