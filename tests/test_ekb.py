"""EKB's flow in its own keys, as REQUIREMENTS has it: the scenarios EKB-1 and EKB-2, in Rust and in C."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

import ferrule

ROOT = Path(__file__).resolve().parents[1]
BUILT = ROOT / "build" / "plugins"
EXAMPLES = ROOT / "example_plugins"
SUFFIX = {"darwin": ".dylib", "win32": ".dll"}.get(sys.platform, ".so")
RUST = {name: BUILT / f"lib{name}{SUFFIX}" for name in ("hello_source", "add_metadata", "jsonl_sink")}

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the plugins are built with cc")

Compile = Callable[..., Path]
Libraries = dict[str, Path]

HELLO = [{"id": n, "message": f"Hello from Rust Source {n}"} for n in (1, 2)]
RFC3339 = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)")


@pytest.fixture(scope="session")
def c_libraries(compile_c: Compile) -> Libraries:
    """The C twins, the sink `keep` of tests/plugins/act.c, and two plugins of the zoo."""
    sources = {
        **{name: EXAMPLES / "c" / name / f"{name}.c" for name in ("hello_source", "add_metadata")},
        **{name: ROOT / "tests" / "plugins" / f"{name}.c" for name in ("act", "tell")},
        **{name: EXAMPLES / "faulty" / f"{name}.c" for name in ("counts_closes", "fails_some")},
    }
    flags = ("-O1", "-pthread", f"-I{EXAMPLES / 'faulty'}")
    return {name: compile_c(path.read_text(encoding="utf-8"), name, *flags) for name, path in sources.items()}


@pytest.fixture(params=["c", "rust", "rust into c", "c into rust"])
def languages(
    request: pytest.FixtureRequest, c_libraries: Libraries, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[str, str]]:
    """The languages of source and function; both are on the plugin path, and nothing else is."""
    source, _, function = str(request.param).partition(" into ")
    chosen = (source, function or source)
    libraries = list(c_libraries.values())
    if "rust" in chosen:
        if shutil.which("cargo") is None:
            pytest.skip("without cargo there are no Rust plugins")
        if missing := [str(path.relative_to(ROOT)) for path in RUST.values() if not path.exists()]:
            pytest.skip(f"not built: {', '.join(missing)}; run make plugins")
        libraries = [*RUST.values(), *libraries]
    monkeypatch.setenv("FERRULE_PLUGIN_PATH", os.pathsep.join(map(str, libraries)))
    yield chosen


def steps(languages: tuple[str, str], out: Path, config: str = "{plugin_name: demo}") -> str:
    """The flow of REQUIREMENTS.md, in these languages."""
    source, function = languages
    sink = ("rust", "jsonl-sink") if "rust" in languages else ("c", "keep")
    return f"""
steps:
  - {{connector_type: {source}_source_connector, name: hello-source, config: {{}}}}
  - {{processor_type: {function}_enrichment_function, name: add-metadata, config: {config}}}
  - {{connector_type: {sink[0]}_sink_connector, name: {sink[1]}, config: {{path: "{out}"}}}}
"""


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def command(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """The command line, as a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "ferrule", *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
        capture_output=True,
        text=True,
        check=False,
    )


# ---- EKB-1 ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["Flow.load", "ferrule run"])
@pytest.mark.parametrize(
    ("config", "name"), [("{plugin_name: demo}", "demo"), ("{}", "unknown_rust_plugin")], ids=["demo", "default"]
)
def test_two_records_are_enriched_in_order(
    languages: tuple[str, str], tmp_path: Path, way: str, config: str, name: str
) -> None:
    """EKB-1: both ids in order, each with the configured name and a time in RFC 3339 that lies within the run."""
    path, out = tmp_path / "flow.yaml", tmp_path / "out.jsonl"
    path.write_text(steps(languages, out, config))
    began = datetime.now(UTC)
    if way == "Flow.load":
        summary = ferrule.Flow.load(path).run()
        assert (summary.read, summary.written, summary.skipped, summary.dead) == (2, 2, 0, 0)
        assert [step.plugin for step in summary.steps] == ["add-metadata"]
    else:
        done = command("run", path, "--json")
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["written"] == 2
    ended = datetime.now(UTC)

    records = read(out)
    stamps = [record.pop("rust_enriched_timestamp") for record in records]
    assert records == [{**record, "processed_by_rust_plugin": name} for record in HELLO]
    for stamp in stamps:
        assert RFC3339.fullmatch(stamp)
        assert began <= datetime.fromisoformat(stamp) <= ended


def test_the_twins_give_the_same_bytes(c_libraries: Libraries, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """EKB-1: Rust and C give the same records but for the timestamp, down to the order of the fields."""
    if any(not path.exists() for path in RUST.values()) or shutil.which("cargo") is None:
        pytest.skip("the Rust plugins are not built")
    monkeypatch.setenv("FERRULE_PLUGIN_PATH", os.pathsep.join(map(str, [*RUST.values(), *c_libraries.values()])))
    texts = []
    for language in ("rust", "c"):
        out = tmp_path / language
        ferrule.Flow.loads(steps((language, language), out)).run()
        texts.append(RFC3339.sub("TIME", out.read_text()))
    assert texts[0] == texts[1]
    assert texts[0].count("TIME") == 2


# ---- EKB-2 ---------------------------------------------------------------------------------------


def test_a_record_that_is_no_object_is_named(
    languages: tuple[str, str], c_libraries: Libraries, tmp_path: Path
) -> None:
    """EKB-2: `Data must be a JSON object`, with the record's number and the step's name; what came before is there."""
    (tmp_path / "in").write_text('{"id":1}\n{"id":2}\n[3]\n{"id":4}\n')
    out = tmp_path / "out.jsonl"
    text = f"""
steps:
  - {{connector_type: c_source_connector, name: lines, config: {{path: "{tmp_path / "in"}"}}}}
  - {{processor_type: {languages[1]}_enrichment_function, name: add-metadata, config: {{plugin_name: demo}}}}
  - {{connector_type: c_sink_connector, name: keep, config: {{path: "{out}"}}}}
"""
    with pytest.raises(ferrule.InvalidDataError, match="Data must be a JSON object") as caught:
        ferrule.Flow.loads(text).run()
    assert (caught.value.record, caught.value.step) == (3, "add-metadata")
    assert (caught.value.plugin, caught.value.method) == ("add-metadata", "process")
    assert [record["id"] for record in read(out)] == [1, 2]

    (tmp_path / "flow.yaml").write_text(text)
    done = command("run", tmp_path / "flow.yaml")
    assert done.returncode == 1
    assert "Data must be a JSON object" in done.stderr
    assert "record 3" in done.stderr
    assert "add-metadata" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_single_call_names_it_too(languages: tuple[str, str]) -> None:
    """Outside a flow the same words, without a record's number."""
    with ferrule.Host() as host:
        stamp = host.function("add-metadata", language=languages[1])
        for data in (b"[1]", b"7", b'"x"', b"null"):
            with pytest.raises(ferrule.InvalidDataError, match="Data must be a JSON object") as caught:
                stamp.process(data)
            assert caught.value.record is None
        assert stamp.process({"id": 1})["id"] == 1


def test_a_second_read_gives_the_same(languages: tuple[str, str]) -> None:
    """EKB-2: a reading is a stream of its own; reading before connect is an error."""
    with ferrule.Host() as host:
        with host.source("hello-source", language=languages[0]) as source:
            assert list(source) == HELLO
            assert list(source) == HELLO
            assert next(source.read()) == HELLO[0]
            assert list(source) == HELLO
        raw = host.create("hello-source", kind="source", language=languages[0])
        with pytest.raises(ferrule.InvalidStateError, match="connect"):
            raw.open("read_data")
        with pytest.raises(ferrule.InvalidStateError, match="connect"):
            raw.call("schema")
        raw.call("connect")
        schema = raw.call("schema")
        assert schema["properties"]["message"]["type"] == "string"


CLOSED = ["connect", "open", "stream-close", "close", "destroy"]


@pytest.mark.parametrize("how", ["stops early", "step fails", "source fails", "limit", "end"])
def test_a_source_is_closed_once(
    c_libraries: Libraries, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """EKB-2: a reader that stops early, and a step that fails, each close the source once, its stream before it."""
    monkeypatch.setenv("FERRULE_PLUGIN_PATH", os.pathsep.join(map(str, c_libraries.values())))
    log, out = tmp_path / "log", tmp_path / "out"
    if how == "stops early":
        with ferrule.Host() as host, host.source("counts-closes", {"path": str(log), "count": 1000}) as source:
            for record in source:
                if record["id"] == 2:
                    break
    else:
        fail_at = 2 if how == "source fails" else -1
        every = 3 if how == "step fails" else 10_000
        flow = ferrule.Flow.loads(f"""
steps:
  - connector_type: c_source_connector
    name: counts-closes
    config: {{path: "{log}", count: 1000, fail_at: {fail_at}}}
  - {{processor_type: c_enrichment_function, name: fails-some, config: {{every: {every}}}}}
  - {{connector_type: c_sink_connector, name: keep, config: {{path: "{out}"}}}}
""")
        if how in ("step fails", "source fails"):
            with pytest.raises(ferrule.PluginError) as caught:
                flow.run()
            assert caught.value.record == (3 if how == "step fails" else 2)
            assert [record["id"] for record in read(out)] == list(range(1, caught.value.record))
        else:
            assert flow.run(limit=500 if how == "limit" else None).written == (500 if how == "limit" else 1000)
    assert log.read_text().split() == CLOSED
