"""A flow's metrics through OpenTelemetry's API, read with its SDK: real flows of compiled plugins."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from opentelemetry import metrics
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import HistogramDataPoint, InMemoryMetricReader, NumberDataPoint

import ferrule
from ferrule.flow.telemetry import DRAWN
from tests.timely import timely

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the plugins are built with cc")

Point = NumberDataPoint | HistogramDataPoint
Points = dict[tuple[str, str], Point]


@pytest.fixture(scope="module")
def reader() -> InMemoryMetricReader:
    """What this process's metrics are read with: a process has one provider, for good."""
    reader = InMemoryMetricReader()
    metrics.set_meter_provider(MeterProvider([reader]))
    return reader


def collect(reader: InMemoryMetricReader, flow: str) -> Points:
    """What is told of a flow: (metric, outcome or step or nothing) → its point."""
    data = reader.get_metrics_data()
    found: Points = {}
    for resource in data.resource_metrics if data is not None else ():
        for scope in resource.scope_metrics:
            for metric in scope.metrics:
                for point in metric.data.data_points:
                    attributes = dict(point.attributes or {})
                    if attributes.pop("ferrule.flow.name", None) == flow:
                        about = attributes.get("outcome", attributes.get("ferrule.step.name", ""))
                        assert (metric.name, about) not in found
                        found[metric.name, str(about)] = point  # type: ignore[assignment]
    return found


def values(points: Points) -> dict[tuple[str, str], float]:
    """The counters among them."""
    return {key: point.value for key, point in points.items() if isinstance(point, NumberDataPoint)}


Make = Callable[..., ferrule.Flow]


@pytest.fixture
def make(act_library: Path, tmp_path: Path) -> Make:
    """``make(name, records, **keys)``: a flow of act.c's plugins over these records."""

    def make(name: str, records: list[dict[str, Any]], **keys: Any) -> ferrule.Flow:
        path = tmp_path / f"{name}.jsonl"
        path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
        document = {
            "name": name,
            "source": {"plugin": f"{act_library}:lines", "config": {"path": str(path)}},
            "steps": [
                {"plugin": f"{act_library}:act", "name": "first", **keys},
                {"plugin": f"{act_library}:act", "name": "second"},
            ],
            "sink": {"plugin": f"{act_library}:keep", "config": {"path": str(tmp_path / f"{name}.out")}},
            "delivery": {"dead_letter": str(tmp_path / f"{name}.dead")},
        }
        return ferrule.Flow.loads(json.dumps(document))

    return make


def test_counters_and_durations_of_a_run(reader: InMemoryMetricReader, make: Make) -> None:
    """Every record of a run is counted under its outcome and at each step; the histogram holds every sample."""
    acts = [{"n": n, "act": {7: "skip", 8: "invalid", 9: "flaky"}.get(n, "ok")} for n in range(1000)]
    on_error = {"retry": {"attempts": 2, "backoff": {"initial": 0.001}}, "then": "dead_letter"}
    summary = make("one", acts, on_error=on_error).run()
    points = collect(reader, "one")
    assert values(points) == {
        ("ferrule.flow.read", ""): 1000,
        ("ferrule.flow.records", "written"): summary.written,
        ("ferrule.flow.records", "skipped"): 1,
        ("ferrule.flow.records", "dead"): 1,
        ("ferrule.step.calls", "first"): 1001,
        ("ferrule.step.calls", "second"): 998,
        ("ferrule.step.skipped", "first"): 1,
        ("ferrule.step.errors", "first"): 1,
        ("ferrule.step.retries", "first"): 1,
    }
    for number, (step, of) in enumerate(zip(("first", "second"), summary.steps, strict=True), 1):
        point = points["ferrule.step.duration", step]
        assert isinstance(point, HistogramDataPoint)
        assert 16 <= point.count <= 32  # one in 64, and the first of each chunk
        assert of.mean_ns is not None
        assert of.mean_ns / 2 <= point.sum / point.count * 1e9 <= of.mean_ns * 2
        assert point.attributes == {
            "ferrule.flow.name": "one",
            "ferrule.step.name": step,
            "ferrule.step.number": number,
            "ferrule.plugin.name": "act",
        }
    assert summary.steps[0].calls == 1001


def test_a_second_run_adds_to_the_first(reader: InMemoryMetricReader, make: Make) -> None:
    """A flow's counters are the process's: a further run adds to them, and a run that is over adds nothing more."""
    flow = make("again", [{"n": n} for n in range(100)])
    flow.run()
    assert values(collect(reader, "again")) == values(collect(reader, "again"))
    flow.run()
    assert values(collect(reader, "again"))["ferrule.flow.records", "written"] == 200


def test_a_failure_is_counted(reader: InMemoryMetricReader, make: Make) -> None:
    """A run that fails has told of the record that it failed at, and of those before it."""
    with pytest.raises(ferrule.InvalidDataError):
        make("fails", [{"n": n, "act": "invalid" if n == 5 else "ok"} for n in range(9)]).run()
    counted = values(collect(reader, "fails"))
    assert counted["ferrule.flow.records", "written"] == 5
    assert counted["ferrule.flow.records", "failed"] == 1


@pytest.mark.timed
def test_it_is_told_while_it_runs(reader: InMemoryMetricReader, make: Make) -> None:
    """The counters move while a flow runs, and two flows at once are told apart."""
    flows = {name: make(name, [{"n": n, "act": "slow"} for n in range(40)]) for name in ("left", "right")}
    seen: dict[str, list[float]] = {name: [] for name in flows}

    def run(name: str) -> None:
        flows[name].run(on_progress=lambda _: seen[name].append(calls(name)))

    def calls(name: str) -> float:
        return values(collect(reader, name)).get(("ferrule.step.calls", "first"), 0)

    threads = [threading.Thread(target=run, args=(name,)) for name in flows]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for name in flows:
        assert seen[name] == sorted(seen[name])
        timely(any(0 < count < 40 for count in seen[name]), seen[name])
        assert calls(name) == 40


def test_a_fast_flow_records_few_samples(reader: InMemoryMetricReader, make: Make) -> None:
    """Of thousands of samples a bounded number enters the histogram with each report."""
    reports = 0

    def count(_: ferrule.Progress) -> None:
        nonlocal reports
        reports += 1

    make("fast", [{"n": n} for n in range(100_000)]).run(on_progress=count)
    point = collect(reader, "fast")["ferrule.step.duration", "first"]
    assert isinstance(point, HistogramDataPoint)
    assert DRAWN <= point.count <= DRAWN * reports


@pytest.mark.parametrize("installed", [True, False])
def test_nothing_happens_without_it(act_library: Path, tmp_path: Path, installed: bool) -> None:
    """A flow runs where OpenTelemetry is not installed, and neither that run nor `import ferrule` imports any of it."""
    (tmp_path / "in.jsonl").write_text('{"n":1}\n', encoding="utf-8")
    document = {
        "source": {"plugin": f"{act_library}:lines", "config": {"path": str(tmp_path / "in.jsonl")}},
        "sink": {"plugin": f"{act_library}:keep", "config": {"path": str(tmp_path / "out")}},
    }
    program = textwrap.dedent(f"""
        import sys
        if not {installed}:
            sys.modules["opentelemetry"] = None  # what an import of it meets is an ImportError
        import ferrule
        before = [name for name in sys.modules if name.startswith("opentelemetry.")]
        written = ferrule.Flow.loads({json.dumps(document)!r}).run().written
        after = [name for name in sys.modules if name.startswith("opentelemetry.")]
        print(written, len(before), len(after) > 0)
    """)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["1", "0", str(installed)]
