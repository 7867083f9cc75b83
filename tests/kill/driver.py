"""Kills a running flow over and over, lets it go on each time, and counts. Prints a report as JSON.

    python -m tests.kill.driver FOLDER LIBRARY --order source|any --kills N [--seed S] [--broken VARIANT]

The program imports ferrule and forks a child for each round, so that a round costs milliseconds; a child has loaded
nothing and started nothing before. A kill counts when it hit a child whose lanes were running. A flow that comes to its
end in spite of the kills is counted, and another one begins, until there were enough kills.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import select
import shutil
import signal
import sys
import time
import traceback
from pathlib import Path
from typing import Any

import ferrule
from ferrule.flow import checkpoint, engine
from ferrule.plugins.kinds import Sink
from ferrule.plugins.registry import Registry
from tests.kill import count

RECORDS = 1500
ACTS = {"ok": 800, "invalid": 50, "flaky": 50, "never": 10, "panic": 10, "utf8": 10, "skip": 30, "big": 1, "slow": 3}
ACTS["!"] = 10  # a bad item of the source's own

FLOW = """
name: killed
lanes: 2
order: {order}
source: {{plugin: "{library}:lines", config: {{path: "{folder}/in"}}, on_error: dead_letter}}
steps:
  - plugin: "{library}:act"
    on_error: {{retry: {{attempts: 2, backoff: {{initial: 0.002, max: 0.004}}}}, then: dead_letter}}
sink: {{plugin: "{library}:keep", config: {{path: "{folder}/out"}}}}
delivery: {{checkpoint: "{folder}/checkpoint", dead_letter: "{folder}/dead"}}
"""


def generate(random_: random.Random) -> bytes:
    """A source's lines: each record says what it is to become, and how long it is."""
    lines = []
    for number in range(1, RECORDS + 1):
        (act,) = random_.choices(list(ACTS), list(ACTS.values()))
        record: dict[str, Any] = {"n": number, "act": act, "pad": "x" * random_.choice((0, 0, 3, 40, 300))}
        if act in ("flaky", "never"):
            record |= {"act": "flaky", "times": 1 if act == "flaky" else 1_000_000}
        lines.append(b"!" if act == "!" else json.dumps(record, separators=(",", ":")).encode())
    return b"".join(line + b"\n" for line in lines)


def break_it(variant: str, folder: Path) -> None:
    """Make a mistake that a careless engine could make."""
    save: Any = checkpoint.Checkpoint.save
    flush: Any = Sink.flush
    if variant == "checkpoint-before-flush":
        sinks: list[Sink] = []

        def mark_only(self: Sink, *, durable: bool = False) -> Any:
            sinks.append(self)
            return (folder / "out").stat().st_size

        def save_then_flush(self: checkpoint.Checkpoint, path: Path, *, durable: bool) -> None:
            save(self, path, durable=durable)
            flush(sinks.pop())

        Sink.flush = mark_only  # type: ignore[method-assign]
        checkpoint.Checkpoint.save = save_then_flush  # type: ignore[method-assign]
    elif variant == "forget-waiting":

        def save_without(self: checkpoint.Checkpoint, path: Path, *, durable: bool) -> None:
            self.waiting.clear()
            save(self, path, durable=durable)

        checkpoint.Checkpoint.save = save_without  # type: ignore[method-assign]
    elif variant == "tail-not-cut":
        init: Any = Sink.__init__

        def init_at_end(self: Sink, instance: Any, *, mark: Any = None) -> None:
            init(self, instance, mark=None if mark is None else (folder / "out").stat().st_size)

        Sink.__init__ = init_at_end  # type: ignore[method-assign]
    else:
        raise SystemExit(f"no such variant: {variant}")


def child(flow: str, variant: str | None, folder: Path, tell: int) -> None:
    """One round's life: run the flow, and say on `tell` when its lanes begin, and when all is over."""
    engine.CHECKPOINT_SECONDS = 0.001
    engine.FILL_BYTES = 700
    if variant is not None:
        break_it(variant, folder)
    wait: Any = engine._Run.wait

    def wait_and_tell(self: Any, *arguments: Any) -> Any:
        os.write(tell, b"b")
        return wait(self, *arguments)

    engine._Run.wait = wait_and_tell  # type: ignore[method-assign, assignment]
    ferrule.Flow.loads(flow).run(registry=Registry([]))
    os.write(tell, b"e")


def round_of(flow: str, variant: str | None, folder: Path, random_: random.Random) -> tuple[bool, bool]:
    """Run and kill once. Returns whether the kill hit running lanes, and whether the flow came to its end."""
    read, write = os.pipe()
    number = os.fork()
    if number == 0:
        try:
            os.close(read)
            child(flow, variant, folder, write)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    os.close(write)
    early = random_.random() < 0.15  # while it opens its files, cuts their tails, or not even that
    if not early:
        select.select([read], [], [])
    time.sleep(random_.uniform(0, 0.02 if early else 0.08))
    os.kill(number, signal.SIGKILL)
    _, status = os.waitpid(number, 0)
    said = os.read(read, 10)
    os.close(read)
    if os.WIFEXITED(status) and os.WEXITSTATUS(status):
        raise SystemExit(f"a flow failed by itself, in {folder}")
    return os.WIFSIGNALED(status) and said == b"b", said == b"be"


def main() -> None:
    """See above."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("library")
    parser.add_argument("--order", choices=["source", "any"], required=True)
    parser.add_argument("--kills", type=int, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--broken")
    options = parser.parse_args()
    random_ = random.Random(options.seed)
    in_order = options.order == "source"
    report: dict[str, Any] = {"rounds": 0, "kills": 0, "flows": 0, "records": 0, "at_kills": [], "at_end": []}
    while report["kills"] < options.kills:
        folder = options.folder / str(report["flows"])
        folder.mkdir(parents=True)
        (folder / "in").write_bytes(generate(random_))
        flow = FLOW.format(library=options.library, folder=folder, order=options.order)
        ended = False
        while not ended:
            hit, ended = round_of(flow, options.broken, folder, random_)
            report["rounds"] += 1
            report["kills"] += hit
            if not ended:
                problems = count.count_checkpoint(folder, in_order=in_order)
                where = f"flow {folder.name}, round {report['rounds']}"
                report["at_kills"] += [f"{where}: {each}" for each in problems[:5]]
        problems = count.count_end(folder, in_order=in_order)
        report["at_end"] += [f"flow {folder.name}: {each}" for each in problems[:20]]
        report["flows"] += 1
        report["records"] += RECORDS  # that were counted
        if options.broken and problems:
            break
        if not problems:
            shutil.rmtree(folder)
    json.dump(report, sys.stdout)


if __name__ == "__main__":
    main()
