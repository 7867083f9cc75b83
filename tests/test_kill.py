"""Kill -9 at any moment loses nothing, doubles nothing and tears nothing; and the test would see it if it did."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
KILLS = 500 if os.environ.get("FERRULE_PROVE") else 15
"""How many times a running flow is killed, in each order; `make prove` does all of them."""

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="kill -9 is POSIX's")


def kill(library: Path, folder: Path, *arguments: str) -> dict[str, Any]:
    """Run tests/kill/driver.py, and return its report."""
    command = [sys.executable, "-m", "tests.kill.driver", str(folder), str(library), *arguments]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 0, f"see above; files are in {folder}"
    report: dict[str, Any] = json.loads(done.stdout)
    return report


@pytest.mark.parametrize("order", ["source", "any"])
def test_kills_lose_double_and_tear_nothing(act_library: Path, tmp_path: Path, order: str) -> None:
    """Two lanes, dead letters, a step that fails and one that is flaky, checkpoints every millisecond. After each
    kill, all that the checkpoint stands behind is in the output, in the dead letters, or waits in it, once; and at the
    end every record is where it belongs, whole and once."""
    report = kill(act_library, tmp_path, "--order", order, "--kills", str(KILLS))
    print(f"order {order}: {report['kills']} kills of running lanes in {report['rounds']} rounds; ", end="")
    print(f"{report['flows']} flows came to their end, {report['records']} records counted")
    assert report["kills"] >= KILLS
    assert report["at_kills"] == []
    assert report["at_end"] == []


@pytest.mark.parametrize(
    ("variant", "order", "symptom"),
    [
        ("checkpoint-before-flush", "source", "lost|torn"),
        ("checkpoint-before-flush", "any", "lost|torn"),
        ("tail-not-cut", "any", "doubled|torn"),
        ("forget-waiting", "any", "lost"),
    ],
)
def test_the_count_sees_a_broken_engine(
    act_library: Path, tmp_path: Path, variant: str, order: str, symptom: str
) -> None:
    """The same test, with a mistake planted in the engine: the count at the end finds it."""
    report = kill(act_library, tmp_path, "--order", order, "--kills", "300", "--broken", variant)
    print(f"{variant}, order {order}: caught after {report['kills']} kills: {report['at_end'][0]}")
    assert any(word in problem for problem in report["at_end"] for word in symptom.split("|"))
