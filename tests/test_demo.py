"""The flights demo, checked record by record against Python's own csv and json."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
FLIGHTS = ROOT / "examples" / "flights"
JANUARY = FLIGHTS / "flights-2013-01.csv"
PLUGINS = ROOT / "build" / "plugins"

READ, CANCELLED = 27_004, 521

pytestmark = pytest.mark.skipif(not PLUGINS.is_dir(), reason="build/plugins is not built: make plugins")
needs_rust = pytest.mark.skipif(shutil.which("cargo") is None, reason="without cargo there are no Rust plugins")


def ferrule(*arguments: str | Path, folder: Path, **settings: str | Path) -> subprocess.CompletedProcess[str]:
    """Run the installed `ferrule`, from the project's root, with its output in a folder."""
    env = {
        **os.environ,
        "FERRULE_PLUGIN_PATH": str(PLUGINS),
        "FLIGHTS_OUT": str(folder / "flights.jsonl"),
        "FLIGHTS_DEAD": str(folder / "dead.jsonl"),
        **{name: str(value) for name, value in settings.items()},
    }
    command = [Path(sys.executable).with_name("ferrule"), *arguments]
    return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False)


def infer(text: str) -> Any:
    """A CSV value as csv-source gives it: null, a number where it is written as JSON writes one, else text."""
    if text in ("", "NA"):
        return None
    if re.fullmatch(r"-?(0|[1-9][0-9]*)", text):
        return int(text)
    if re.fullmatch(r"-?(0|[1-9][0-9]*)\.[0-9]+([eE][-+]?[0-9]+)?", text):
        return float(text)
    return text


def source_records() -> Iterator[dict[str, Any]]:
    with JANUARY.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            yield {name: infer(text) for name, text in row.items()}


def expected_records() -> Iterator[dict[str, Any]]:
    """What the flow makes of January, but for the stamp's fields."""
    with (FLIGHTS / "airlines.csv").open(newline="", encoding="utf-8") as file:
        names = {row["carrier"]: row["name"] for row in csv.DictReader(file)}
    for record in source_records():
        if record["dep_time"] is not None:
            record["airline"] = names[record["carrier"]]
            if record["tailnum"] is not None:
                record["tailnum"] = "***"
            yield record


def json_lines(path: Path) -> list[dict[str, Any]]:
    text = path.read_bytes()
    assert text.endswith(b"\n")
    return [json.loads(line) for line in text.splitlines()]


def check_output(path: Path, *, began: datetime) -> None:
    """Every record is there, in order, with the expected fields in their order, stamped within the run."""
    ended = datetime.now(UTC)
    found = json_lines(path)
    expected = list(expected_records())
    assert len(expected) == READ - CANCELLED
    assert len(found) == len(expected)
    for number, (got, want) in enumerate(zip(found, expected, strict=True), 1):
        assert got.pop("processed_by_rust_plugin") == "flights-demo", number
        assert began <= datetime.fromisoformat(got.pop("rust_enriched_timestamp")) <= ended, number
        assert list(got.items()) == list(want.items()), number


@needs_rust
def test_flow_gives_what_python_gives(tmp_path: Path) -> None:
    """January through the compiled plugins is, record by record, what Python's csv and json make of it."""
    began = datetime.now(UTC).replace(microsecond=0)
    done = ferrule("run", "examples/flights/flights.yaml", folder=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    check_output(tmp_path / "flights.jsonl", began=began)


@needs_rust
def test_cancelled_flights_become_dead_letters(tmp_path: Path) -> None:
    """With `otherwise: invalid` and dead letters the 521 cancelled flights are kept apart, whole, and the exit
    status is 3; what is written is the same."""
    began = datetime.now(UTC).replace(microsecond=0)
    done = ferrule("run", "examples/flights/flights-dead-letters.yaml", folder=tmp_path)
    assert done.returncode == 3, done.stdout + done.stderr
    check_output(tmp_path / "flights.jsonl", began=began)
    cancelled = [(n, record) for n, record in enumerate(source_records(), 1) if record["dep_time"] is None]
    letters = json_lines(tmp_path / "dead.jsonl")
    assert len(letters) == len(cancelled) == CANCELLED


def test_python_plugins_give_the_same(tmp_path: Path) -> None:
    """The flow for a machine without cargo writes the same records, stamped by the C add-metadata."""
    began = datetime.now(UTC).replace(microsecond=0)
    done = ferrule("run", "examples/flights/flights-python.yaml", folder=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    check_output(tmp_path / "flights.jsonl", began=began)


@pytest.mark.parametrize("flow", sorted(path.name for path in FLIGHTS.glob("*.yaml")))
def test_flow_files_pass_lint(flow: str, tmp_path: Path) -> None:
    """Every flow file of the example passes `ferrule lint`."""
    if flow != "flights-python.yaml" and shutil.which("cargo") is None:
        pytest.skip("without cargo there are no Rust plugins")
    done = ferrule("lint", FLIGHTS / flow, folder=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr


def run_demo(folder: Path, *arguments: str, path: str | None = None) -> str:
    """What the demo prints when it runs in an empty folder; it must succeed."""
    env = {**os.environ, "FERRULE_PLUGIN_PATH": str(PLUGINS)}
    if path is not None:
        env["PATH"] = path
        env["FERRULE_PLUGIN_PATH"] = str(folder / "plugins")
    command = [sys.executable, str(FLIGHTS / "demo.py"), "--offline", *arguments]
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@needs_rust
def test_demo_shows_what_it_did(tmp_path: Path) -> None:
    """The demo prints the summary's counts, the first record, and where the output lies."""
    said = run_demo(tmp_path)
    out = tmp_path / "build" / "demo" / "flights.jsonl"
    assert len(json_lines(out)) == READ - CANCELLED
    assert str(out) in said
    assert re.search(r"27[ ,_]?004", said)
    assert re.search(r'airline +"United Air Lines Inc\."', said)


def test_demo_without_cargo(tmp_path: Path) -> None:
    """Where no Rust plugin is built and there is no cargo, the demo says so and runs Python's plugins instead."""
    plugins = tmp_path / "plugins"
    plugins.mkdir()
    (library,) = PLUGINS.glob("*add_metadata_c.*")
    shutil.copy(library, plugins)
    said = run_demo(tmp_path, path=str(tmp_path))
    assert "cargo is not on this machine" in said
    assert len(json_lines(tmp_path / "build" / "demo" / "flights.jsonl")) == READ - CANCELLED
