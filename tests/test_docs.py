"""What the documentation shows is run: the README's examples, and every docstring's."""

from __future__ import annotations

import doctest
import importlib
import os
import pathlib
import pkgutil
import re
import shutil
import subprocess
import sys
from pathlib import Path

import orjson
import pytest

import ferrule

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PLUGINS = ROOT / "build" / "plugins"

MODULES = sorted(
    module.name
    for module in pkgutil.walk_packages(ferrule.__path__, "ferrule.")
    if module.name not in ("ferrule.__main__", "ferrule.native._native")
)


def example(name: str) -> str:
    """The README's code block that follows a marker."""
    found = re.search(rf"<!-- example: {name} -->\n```\w+\n(.*?)```", README, re.DOTALL)
    assert found is not None
    return found[1]


@pytest.fixture
def plugins(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The example plugins on the search path, and an empty folder to work in."""
    assert any(PLUGINS.glob("*add_metadata*")), "build the example plugins first: make plugins"
    monkeypatch.setenv("FERRULE_PLUGIN_PATH", str(PLUGINS))
    monkeypatch.chdir(tmp_path)
    return PLUGINS


@pytest.mark.parametrize("name", ["ferrule", *MODULES])
def test_the_examples_of_docstrings_hold(plugins: Path, name: str) -> None:
    """Each ``>>>`` of a public docstring gives what it says."""
    module = importlib.import_module(name)
    with ferrule.Host() as host:
        tests = doctest.DocTestFinder(exclude_empty=True).find(
            module, name, extraglobs={"ferrule": ferrule, "host": host, "pathlib": pathlib}
        )
        for test in tests:
            runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
            runner.run(test)
            assert runner.failures == 0, test.name


def test_every_public_class_shows_how_it_is_used() -> None:
    """What an embedding program holds has an example in its docstring."""
    for name in ("Host", "Function", "Source", "Sink", "Stream", "Flow", "PluginError"):
        assert ">>>" in (getattr(ferrule, name).__doc__ or ""), name


def test_the_readme_s_python_runs(plugins: Path) -> None:
    """The README's Python, as it stands, in a fresh process."""
    done = subprocess.run(
        [sys.executable, "-c", example("python")],
        env={**os.environ, "FERRULE_PLUGIN_PATH": str(plugins)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == (
        "Hello from Rust Source 1\nHello from Rust Source 2\n"
        "add-metadata process Data must be a JSON object (plugin 'add-metadata', method 'process')\n"
    )


def test_the_readme_s_jobs_run(plugins: Path) -> None:
    """The README's jobs, as they stand, in a fresh process: answers, chunks, what was fed, awaited and pooled."""
    done = subprocess.run(
        [sys.executable, "-c", example("runners")],
        env={**os.environ, "FERRULE_PLUGIN_PATH": str(plugins)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == "Processed: x {}"
    assert [line.rpartition(" ")[0] for line in lines[1:6]] == [f"Stream chunk {number} for x" for number in range(5)]
    assert lines[6] == "[b'some audio', b'the last of it']"
    assert lines[7] == "Answer(value='Processed: y', metadata={})"
    assert lines[8:] == [f"Stream chunk {number} for y" for number in range(5)]


def test_the_readme_s_rust_is_a_plugin(plugins: Path, tmp_path: Path) -> None:
    """The README's Rust, as it stands, builds and stamps a record; its comments are in the manifest."""
    cargo = shutil.which("cargo")
    if cargo is None:
        pytest.skip("no cargo on this machine")
    crate = tmp_path / "readme"
    (crate / "src").mkdir(parents=True)
    (crate / "src" / "lib.rs").write_text(example("rust"), encoding="utf-8")
    sdk = (ROOT / "native_sdk" / "rust" / "ferrule-plugin").as_posix()
    (crate / "Cargo.toml").write_text(
        '[package]\nname = "readme"\nversion = "0.1.0"\nedition = "2021"\n\n[lib]\ncrate-type = ["cdylib"]\n\n'
        f'[dependencies]\nferrule-plugin = {{ path = "{sdk}" }}\n\n[workspace]\n',
        encoding="utf-8",
    )
    target = ROOT / "build" / "readme-target"
    done = subprocess.run(
        [cargo, "build", "--quiet", "--message-format=json-render-diagnostics", "--target-dir", str(target)],
        cwd=crate,
        env={**os.environ, "RUSTFLAGS": "-Dwarnings"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    messages = [orjson.loads(line) for line in done.stdout.splitlines()]
    (library,) = [
        name
        for message in messages
        if message["reason"] == "compiler-artifact" and message["target"]["name"] == "readme"
        for name in message["filenames"]
        if name.endswith((".so", ".dylib", ".dll"))
    ]
    with ferrule.Host() as host:
        stamp = host.function(library, {"plugin_name": "readme"})
        assert stamp.process({"id": 1})["processed_by_rust_plugin"] == "readme"
        assert stamp.instance.plugin.description == "Stamps each record with who enriched it, and when."
        assert stamp.instance.plugin.config["properties"]["plugin_name"]["description"] == "The name to stamp."


def test_the_author_s_example_is_short() -> None:
    """The EKB enrichment takes its author at most 25 lines of Rust and 60 of C, blank lines and comments aside."""
    rust = [line for line in example("rust").splitlines() if line.strip() and not line.strip().startswith("//")]
    assert len(rust) <= 25
    source = (ROOT / "example_plugins" / "c" / "add_metadata" / "add_metadata.c").read_text(encoding="utf-8")
    code = re.sub(r"/\*.*?\*/", "", source, flags=re.DOTALL)
    assert len([line for line in code.splitlines() if line.strip()]) <= 60


def test_the_readme_names_every_example_plugin(plugins: Path) -> None:
    """The table of example plugins and the plugins that are built are the same."""
    told = set(re.findall(r"`([a-z-]+)`", README.split("## Example plugins")[1].split("## Where next")[0]))
    with ferrule.Host([PLUGINS]) as host:
        built = {found.plugin.name for found in host.plugins() if found.path and found.path.parent == PLUGINS}
    assert built - {"identity"} <= told
