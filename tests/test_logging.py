"""What plugins log arrives in Python's logging: at its level and time, with its fields, and never by waiting."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import ferrule
from ferrule.native import logs_dropped

ROOT = Path(__file__).resolve().parents[1]

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the plugins are built with cc")

Compile = Callable[..., Path]


class Heard(logging.Handler):
    """Keeps the records that it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keeps it."""
        self.records.append(record)

    def wait(self, count: int, *, seconds: float = 5) -> list[logging.LogRecord]:
        """At least so many records, or what came in that time."""
        until = time.monotonic() + seconds
        while len(self.records) < count and time.monotonic() < until:
            time.sleep(0.002)
        return self.records


@pytest.fixture(scope="session")
def library(compile_c: Compile) -> str:
    """tests/plugins/tell.c, compiled."""
    source = (ROOT / "tests" / "plugins" / "tell.c").read_text(encoding="utf-8")
    return str(compile_c(source, "tell", "-O1", "-pthread"))


@pytest.fixture
def heard() -> Iterator[Heard]:
    """What the logger ferrule.plugin hears at INFO and above."""
    logger = logging.getLogger("ferrule.plugin")
    handler = Heard()
    before = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    yield handler
    logger.removeHandler(handler)
    logger.setLevel(before)
    logging.getLogger("ferrule.plugin.tell").setLevel(logging.NOTSET)


def test_an_entry_arrives_whole(library: str, heard: Heard) -> None:
    """Logger, level, message, fields, and the time at which the plugin said it."""
    with ferrule.Host() as host:
        instance = host.create(f"{library}:tell")
        before = time.time()
        instance.call("log", {"message": "half \u00fcber 100 %s", "level": 30, "fields": {"rows": 3, "why": ["a"]}})
        instance.call("log", {"message": "", "level": 20})
        after = time.time()
        first, second = heard.wait(2)
    assert (first.name, first.levelno, first.levelname) == ("ferrule.plugin.tell", 30, "WARNING")
    assert first.getMessage() == "half \u00fcber 100 %s"
    assert getattr(first, "fields") == {"rows": 3, "why": ["a"]}  # noqa: B009 - a field that logging does not know
    assert before - 0.001 <= first.created <= second.created <= after + 0.001
    assert 0 <= first.msecs < 1000
    assert second.getMessage() == ""
    assert not hasattr(second, "fields")


def test_entries_keep_their_order(library: str, heard: Heard) -> None:
    """A thousand of one instance arrive in the order in which they were said."""
    with ferrule.Host() as host:
        log = host.create(f"{library}:tell").method("log")
        for number in range(1000):
            log({"message": str(number)})
        records = heard.wait(1000)
    assert [record.getMessage() for record in records] == [str(number) for number in range(1000)]


def test_what_is_said_in_create_and_destroy_arrives(library: str, heard: Heard) -> None:
    """An instance may speak before Python has it, and its last words are heard after it is gone."""
    for _ in range(20):
        heard.records.clear()
        with ferrule.Host() as host:
            host.create(f"{library}:tell", {"say": True}).close()
        assert [(record.name, record.getMessage()) for record in heard.wait(2)] == [
            ("ferrule.plugin.tell", "made"),
            ("ferrule.plugin.tell", "gone"),
        ]


def test_levels_are_respected(library: str, heard: Heard) -> None:
    """A plugin is asked at the levels set when it was made; what is below does not even reach Python."""
    with ferrule.Host() as host:
        instance = host.create(f"{library}:tell")
        assert instance.call("log", {"message": "low", "level": 10}) == 0
        assert instance.call("log", {"message": "just", "level": 20}) == 1
        assert [record.getMessage() for record in heard.wait(1)] == ["just"]

        logging.getLogger("ferrule.plugin").setLevel(logging.ERROR)
        assert instance.call("log", {"message": "later", "level": 20}) == 1  # as it was when the instance was made
        again = host.create(f"{library}:tell")
        assert again.call("log", {"message": "low", "level": 20}) == 0
        assert again.call("log", {"message": "high", "level": 40}) == 1
        assert [record.getMessage() for record in heard.wait(2)] == ["just", "high"]

        logging.getLogger("ferrule.plugin.tell").setLevel(logging.DEBUG)
        assert host.create(f"{library}:tell").call("log", {"message": "debug", "level": 10}) == 1
        assert heard.wait(3)[2].getMessage() == "debug"


def test_a_handler_that_fails_stops_nothing(library: str, heard: Heard, capsys: pytest.CaptureFixture[str]) -> None:
    """A filter that raises is told on stderr, as logging does; the next entry arrives."""

    def refuse(record: logging.LogRecord) -> bool:
        if record.getMessage() == "bad":
            raise RuntimeError("a filter of the program's own")
        return True

    logger = logging.getLogger("ferrule.plugin.tell")
    logger.addFilter(refuse)
    try:
        with ferrule.Host() as host:
            log = host.create(f"{library}:tell").method("log")
            log({"message": "bad"})
            log({"message": "good"})
            assert [record.getMessage() for record in heard.wait(1)] == ["good"]
    finally:
        logger.removeFilter(refuse)
    assert "a filter of the program's own" in capsys.readouterr().err


@pytest.mark.parametrize("size", [0, 1, 1000, 32768, 100_000])
def test_a_long_message_is_cut(library: str, heard: Heard, size: int) -> None:
    """At 32 KiB; what follows is whole again."""
    with ferrule.Host() as host:
        log = host.create(f"{library}:tell").method("log")
        log({"message": "", "bytes": size})
        log({"message": "next"})
        first, second = heard.wait(2)
    assert len(first.getMessage()) == min(size, 32768)
    assert second.getMessage() == "next"


def test_overflow_drops_entries_and_counts_them(library: str, heard: Heard) -> None:
    """When Python is behind, a plugin is not held up: what does not fit is dropped, counted, and told as a warning."""
    blocked = threading.Event()

    class Slow(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            blocked.wait(10)

    logger = logging.getLogger("ferrule.plugin")
    slow = Slow()
    logger.addHandler(slow)
    before = logs_dropped()
    try:
        with ferrule.Host() as host:
            log = host.create(f"{library}:tell").method("log")
            log({"message": "the one that blocks"})
            began = time.monotonic()
            log({"message": "x" * 1000, "times": 100_000})
            assert time.monotonic() - began < 5
            dropped = logs_dropped() - before
            assert 99_000 < dropped < 100_000
            blocked.set()
            until = time.monotonic() + 10
            while not any("were dropped" in record.getMessage() for record in heard.records[-5:]):
                assert time.monotonic() < until
                time.sleep(0.01)
            log({"message": "after"})
            while heard.records[-1].getMessage() != "after" and time.monotonic() < until:
                time.sleep(0.01)
    finally:
        blocked.set()
        logger.removeHandler(slow)
    told = [record for record in heard.records if "were dropped" in record.getMessage()]
    assert sum(record.args[0] for record in told if isinstance(record.args, tuple)) >= dropped  # type: ignore[misc]
    assert heard.records[-1].getMessage() == "after"


SCRIPT = """
import logging, sys
import ferrule
logging.basicConfig(level=logging.INFO, format="%(name)s %(levelname)s %(message)s", stream=sys.stdout)
with ferrule.Host() as host:
    instance = host.create(sys.argv[1])
    instance.call("log", {"message": "the last word", "level": 30})
"""


def test_the_last_entries_are_not_lost_at_exit(library: str) -> None:
    """A program that ends right after a plugin spoke has heard it."""
    command: list[Any] = [sys.executable, "-c", SCRIPT, f"{library}:tell"]
    done = subprocess.run(
        command, env={**os.environ, "PYTHONPATH": str(ROOT / "src")}, capture_output=True, text=True, check=True
    )
    assert done.stdout == "ferrule.plugin.tell WARNING the last word\n"
    assert done.stderr == ""
