"""What a run does, as OpenTelemetry metrics, where OpenTelemetry's API is installed.

The pump counts in C. A run hands its counters over ten times a second and once at its end, and what was added since is
added to the SDK's sums: nothing here runs per record. Instruments that the SDK reads when it collects would lose what a
run did since the last collection (a minute, by default), since they end with it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from random import randrange
from typing import TYPE_CHECKING

from ferrule.flow.lint import ResolvedFlow
from ferrule.native import Counters, StepCounters

if TYPE_CHECKING:
    from opentelemetry.metrics import Counter, Meter

__all__ = ["Telemetry", "telemetry"]

OUTCOMES = ("written", "skipped", "dead", "failed")
OF_STEP = {
    "calls": ("{record}", "Records a step was given"),
    "skipped": ("{record}", "Records a step skipped"),
    "errors": ("{record}", "Records a step failed on"),
    "retries": ("{attempt}", "Attempts after a record's first"),
}
DRAWN = 32
"""So many of a step's samples enter its histogram with one report, at most. A histogram of the API takes one value at a
time, and a fast flow has thousands of samples."""
BOUNDARIES = [2**power / 1e9 for power in range(7, 35, 2)]
"""Seconds, from 128 ns to 8.6 s: borders of the pump's buckets, so none of them is split."""


def telemetry(flow: ResolvedFlow) -> Telemetry | None:
    """What a run of a flow reports to; None without OpenTelemetry's API, and where no provider is set up."""
    try:
        from opentelemetry.metrics import get_meter_provider
    except ImportError:
        return None
    provider = get_meter_provider()
    if type(provider).__module__.startswith("opentelemetry.metrics"):  # the API's own, which measure nothing
        return None
    return Telemetry(flow, provider.get_meter("ferrule"))


class Telemetry:
    """One run's share in the process's metrics."""

    def __init__(self, flow: ResolvedFlow, meter: Meter) -> None:
        self._flow: dict[str, str | int] = {"ferrule.flow.name": flow.spec.name}
        self._steps = [
            {
                **self._flow,
                "ferrule.step.name": step.spec.name,
                "ferrule.step.number": number,
                "ferrule.plugin.name": step.plugin.plugin.name,
            }
            for number, step in enumerate(flow.steps, 1)
        ]
        self._read = meter.create_counter("ferrule.flow.read", "{record}", "Records taken from the source")
        self._records = meter.create_counter("ferrule.flow.records", "{record}", "Records that came to an end")
        self._of_step = {name: meter.create_counter(f"ferrule.step.{name}", *told) for name, told in OF_STEP.items()}
        self._duration = meter.create_histogram(
            "ferrule.step.duration",
            "s",
            "A step's time for one record, sampled",
            explicit_bucket_boundaries_advisory=BOUNDARIES,
        )
        self._last = Counters(*[0] * len(Counters._fields))
        self._last_steps = [StepCounters(0, 0, 0, 0, 0, ()) for _ in flow.steps]

    def report(self, counters: Counters, steps: Sequence[StepCounters]) -> None:
        """Add what came since the last report."""
        _add(self._read, self._last.read, counters.read, self._flow)
        for outcome in OUTCOMES:
            attributes = {**self._flow, "outcome": outcome}
            _add(self._records, getattr(self._last, outcome), getattr(counters, outcome), attributes)
        for last, step, attributes in zip(self._last_steps, steps, self._steps, strict=True):
            for name, counter in self._of_step.items():
                _add(counter, getattr(last, name), getattr(step, name), attributes)
            known = last.histogram or [0] * len(step.histogram)
            for seconds in _drawn([new - old for old, new in zip(known, step.histogram, strict=True)]):
                self._duration.record(seconds, attributes)
        self._last, self._last_steps = counters, list(steps)


def _add(counter: Counter, last: int, now: int, attributes: dict[str, str | int]) -> None:
    if now > last:
        counter.add(now - last, attributes)


def _drawn(histogram: Sequence[int]) -> Iterator[float]:
    """Seconds that stand for a histogram's samples: for all of them, or for DRAWN, one from each of so many parts."""
    samples = sum(histogram)
    drawn = min(samples, DRAWN)
    bucket, seen = -1, 0
    for part in range(drawn):
        place = (part * samples + randrange(samples)) // drawn
        while seen <= place:
            bucket += 1
            seen += histogram[bucket]
        yield 1.5 * 2**bucket / 1e9
