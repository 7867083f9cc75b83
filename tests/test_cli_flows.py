"""What an operator does with a flow: run it in pieces, replay its dead letters, run its tests. As processes."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
Ferrule = Callable[..., subprocess.CompletedProcess[str]]

FLOW = """
name: acts
source: {{plugin: "{library}:lines", config: {{path: in}}}}
steps:
  - {{plugin: "{library}:act", on_error: dead_letter}}
sink: {{plugin: "{library}:keep", config: {{path: out}}}}
delivery: {{dead_letter: dead, checkpoint: point}}
tests:
  - {{name: good ones pass, given: [{{n: 1}}], expect: [{{n: 1}}]}}
  - {{name: bad ones do not, given: [{{act: invalid}}], errors: [{{step: act}}]}}
"""


@pytest.fixture
def ferrule(act_library: Path, tmp_path: Path) -> Ferrule:
    """Runs the command in a folder with ``flow.yaml`` and ten records, of which the fifth is bad."""
    (tmp_path / "flow.yaml").write_text(FLOW.format(library=act_library))
    records = [{"n": n, "act": "invalid" if n == 5 else "ok"} for n in range(1, 11)]
    (tmp_path / "in").write_text("".join(json.dumps(record) + "\n" for record in records))

    def run(*arguments: str, status: int = 0) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [sys.executable, "-m", "ferrule", *arguments],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT / "src"), "PYTHONUTF8": "1"},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert "Traceback" not in done.stderr, done.stderr
        assert done.returncode == status, f"{done.returncode}: {done.stdout}{done.stderr}"
        return done

    return run


def written(folder: Path, name: str = "out") -> list[int]:
    return [json.loads(line)["n"] for line in (folder / name).read_text().splitlines()]


def test_a_run_goes_on_and_says_so(ferrule: Ferrule, tmp_path: Path) -> None:
    """`goes on behind record N` is on stderr; --json has where it went on; --quiet says nothing."""
    assert ferrule("run", "flow.yaml", "--limit", "3").stderr == ""
    done = ferrule("run", "flow.yaml", "--limit", "1")
    assert done.stderr == "goes on behind record 3 (checkpoint point)\n"
    assert ferrule("run", "flow.yaml", "--limit", "2", "--quiet", status=3).stderr == ""
    summary = json.loads(ferrule("run", "flow.yaml", "--json").stdout)
    assert (summary["resumed_at"], summary["read"], summary["checkpoint"]) == (6, 4, "point")
    assert written(tmp_path) == [1, 2, 3, 4, 6, 7, 8, 9, 10]


def test_fresh_begins_anew(ferrule: Ferrule, tmp_path: Path) -> None:
    """Whatever the checkpoint says, even of another flow, --fresh reads from the source's start."""
    ferrule("run", "flow.yaml", "--limit", "3")
    (tmp_path / "point").write_text("no checkpoint")
    assert "is no checkpoint of ferrule's" in ferrule("run", "flow.yaml", status=1).stderr
    assert ferrule("run", "flow.yaml", "--fresh", "--limit", "2").stderr == ""
    assert written(tmp_path) == [1, 2]


@pytest.mark.parametrize(("text", "lanes"), [("3", 3), ("auto", None)])
def test_lanes_are_chosen_at_the_prompt(ferrule: Ferrule, text: str, lanes: int | None) -> None:
    """--lanes takes a number, or auto for one a core."""
    summary = json.loads(ferrule("run", "flow.yaml", "--lanes", text, "--json", status=3).stdout)
    assert summary["lanes"] == (lanes or len(os.sched_getaffinity(0)))


@pytest.mark.parametrize("text", ["0", "-1", "257", "two", "", "1.5", "²"])
def test_lanes_that_are_none_are_wrong_usage(ferrule: Ferrule, text: str) -> None:
    """Status 2, and what is expected."""
    assert (
        "is neither a number from 1 to 256 nor 'auto'"
        in ferrule("run", "flow.yaml", f"--lanes={text}", status=2).stderr
    )


def test_the_summary_has_lanes_retries_and_times(ferrule: Ferrule) -> None:
    """The table has a line a step, with its sampled times; --json has the same."""
    done = ferrule("run", "flow.yaml", "--lanes", "2", status=3)
    lines = [line.split() for line in done.stdout.splitlines()]
    assert ["lanes", "2"] in lines
    assert ["STEP", "PLUGIN", "RECORDS", "SKIPPED", "ERRORS", "RETRIES", "MEAN", "P99"] in lines
    assert ["act", "act", "10", "0", "1", "0"] in [line[:6] for line in lines]
    (step,) = json.loads(ferrule("run", "flow.yaml", "--fresh", "--json", status=3).stdout)["steps"]
    assert (step["calls"], step["retries"]) == (10, 0)
    assert step["mean_ns"] > 0
    assert step["p99_ns"] >= 1


def test_a_failure_says_how_to_go_on(ferrule: Ferrule, tmp_path: Path) -> None:
    """With a checkpoint, the command that goes on is there to be copied, with the same values set."""
    changed = ("--set", "steps.act.on_error=fail")
    done = ferrule("run", "flow.yaml", *changed, status=1)
    error, hint = done.stderr.splitlines()
    assert error.startswith("error: told to refuse (plugin 'act', method 'process', record 5)")
    command = hint.partition(": ")[2]
    assert shlex.split(command) == ["ferrule", "run", "flow.yaml", *changed]
    assert written(tmp_path) == [1, 2, 3, 4]
    done = ferrule("run", "flow.yaml", status=3)
    assert "goes on behind record" in done.stderr
    assert written(tmp_path) == [1, 2, 3, 4, 6, 7, 8, 9, 10]


# ---- dead letters --------------------------------------------------------------------------------


def test_replay_appends_and_says_what_is_still_dead(ferrule: Ferrule, tmp_path: Path) -> None:
    """Status 3 while letters are left, 0 when none are."""
    ferrule("run", "flow.yaml", status=3)
    done = ferrule("dead-letter", "replay", "dead", "flow.yaml", status=3)
    assert done.stdout.startswith("dead: 1 dead letter, 1 record entered\n")
    letter = json.loads((tmp_path / "dead").read_text())
    assert letter["number"] == 5
    (tmp_path / "copy").write_text(json.dumps({**letter, "record": {"n": 55}}) + "\n")
    found = json.loads(ferrule("dead-letter", "replay", "copy", "flow.yaml", "--json").stdout)
    assert (found["entered"], found["dead"], found["summary"]["written"]) == (1, 0, 1)
    assert written(tmp_path) == [1, 2, 3, 4, 6, 7, 8, 9, 10, 55]


def test_replay_overwrites_nothing_silently(ferrule: Ferrule, act_library: Path, tmp_path: Path) -> None:
    """Without the flow's checkpoint it is refused, and says both ways out."""
    ferrule("run", "flow.yaml", status=3)
    (tmp_path / "point").unlink()
    done = ferrule("dead-letter", "replay", "dead", "flow.yaml", status=1)
    assert "flow.yaml:6:1: the sink 'keep' would begin anew" in done.stderr
    assert "--set sink.config.path=FILE" in done.stderr
    elsewhere = ("--set", "sink.config.path=other", "--set", f"steps.0={{name: act, plugin: {act_library}:several}}")
    ferrule("dead-letter", "replay", "dead", "flow.yaml", *elsewhere)
    assert written(tmp_path, "other") == [5]
    assert (tmp_path / "dead").read_text() == ""
    assert len(written(tmp_path)) == 9


def test_replay_reports_what_has_no_record(ferrule: Ferrule, tmp_path: Path) -> None:
    """A source's own bad items stay, are counted, and keep the status at 3."""
    (tmp_path / "in").write_text('!\n{"n": 1}\n')
    source = ("--set", "source.on_error=dead_letter")
    ferrule("run", "flow.yaml", *source, status=3)
    before = (tmp_path / "dead").read_bytes()
    done = ferrule("dead-letter", "replay", "dead", "flow.yaml", *source, status=3)
    assert "1 not replayable" in done.stdout
    assert (tmp_path / "dead").read_bytes() == before
    found = json.loads(ferrule("dead-letter", "replay", "dead", "flow.yaml", "--json", status=3).stdout)
    assert (found["letters"], found["not_replayable"], found["summary"]) == (1, 1, None)


def test_a_line_that_is_no_letter_is_named(ferrule: Ferrule) -> None:
    """File, line, and what a letter is."""
    assert (
        "error: in:1:1: this is no dead letter" in ferrule("dead-letter", "replay", "in", "flow.yaml", status=1).stderr
    )


# ---- tests ---------------------------------------------------------------------------------------


def test_lint_runs_the_tests_only_when_it_is_told_to(ferrule: Ferrule, tmp_path: Path) -> None:
    """A line a test; without --tests none of it runs."""
    assert ferrule("lint", "flow.yaml").stdout == "flow.yaml: good\n"
    done = ferrule("lint", "--tests", "flow.yaml")
    assert done.stdout == "flow.yaml: good\n  ok good ones pass\n  ok bad ones do not\n"
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "dead").exists()


def test_a_test_that_fails_has_status_1(ferrule: Ferrule, tmp_path: Path) -> None:
    """Its name, its line, the first difference; --json has the same."""
    path = tmp_path / "flow.yaml"
    path.write_text(path.read_text().replace("expect: [{n: 1}]", "expect: [{n: 2}]"))
    done = ferrule("lint", "--tests", "flow.yaml", status=1)
    assert "  FAILED good ones pass (line 9): written record 1: n is 1, expected 2\n" in done.stdout
    assert done.stderr == "error: 1 test failed\n"
    (report,) = json.loads(ferrule("lint", "--tests", "--json", "flow.yaml", status=1).stdout)
    assert report["ok"] is False
    assert [test["ok"] for test in report["tests"]] == [False, True]
    assert report["tests"][0]["problems"] == ["written record 1: n is 1, expected 2"]


def test_a_flow_with_errors_runs_no_tests(ferrule: Ferrule, tmp_path: Path) -> None:
    """What is wrong with the file is said first."""
    path = tmp_path / "flow.yaml"
    path.write_text(path.read_text() + "lane: 2\n")
    done = ferrule("lint", "--tests", "flow.yaml", status=1)
    assert "a flow has no key 'lane'" in done.stderr
    assert done.stdout == ""
