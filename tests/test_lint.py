"""Lint: what is wrong with a flow, found without running any of it, and each fault where it stands in the file."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from ferrule.errors import FlowError
from ferrule.flow.document import read_document
from ferrule.flow.lint import examine, resolve
from ferrule.plugins.registry import Registry

ROOT = Path(__file__).resolve().parents[1]
SUFFIX = {"darwin": ".dylib", "win32": ".dll"}.get(sys.platform, ".so")

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the plugins are built with cc")

SETTINGS_C = """
#include "ferrule_sdk.h"

FERRULE_MANIFEST({
    "name": "settings", "version": "0.1.0",
    "plugins": [{
        "name": "settings", "kind": "function", "language": "c",
        "config": {
            "type": "object", "additionalProperties": false, "required": ["path"],
            "properties": {
                "path": {"type": "string"},
                "limit": {"type": "integer", "default": 10},
                "inner": {"type": "object", "properties": {"depth": {"type": "integer", "minimum": 1}}},
                "fields": {"type": "array", "items": {"type": "string"}, "default": ["a"]}
            }
        },
        "methods": [{"name": "process", "mode": "unary"}]
    }]
});

__attribute__((constructor)) static void loaded(void) {
    FILE *file = fopen(TRACE, "w");
    if (file != NULL) fclose(file);
}

FERRULE_CALL(process) { (void)self; (void)call; (void)error; ferrule_append(out, in, in_len); return FERRULE_OK; }

FERRULE_PLUGINS(FERRULE_PLUGIN("settings", ferrule_instance, NULL, NULL, FERRULE_UNARY("process", process)));
"""


@pytest.fixture(scope="module")
def trace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file that a plugin's constructor leaves behind; nothing here may make it."""
    return tmp_path_factory.mktemp("trace") / "loaded"


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory, trace: Path) -> Registry:
    """Plugins: hello-source, add-metadata, and `settings`, which would tell if it were loaded."""
    folder = tmp_path_factory.mktemp("plugins")
    source = folder / "settings.c"
    source.write_text("#include <stdio.h>\n" + SETTINGS_C)
    examples = ROOT / "example_plugins" / "c"
    headers = [f"-I{ROOT / 'native_sdk' / part}" for part in ("include", "c")]
    for path in (examples / "hello_source/hello_source.c", examples / "add_metadata/add_metadata.c", source):
        made = str(folder / f"lib{path.stem}{SUFFIX}")
        command = ["cc", "-shared", "-fPIC", *headers, f'-DTRACE="{trace}"', "-o", made, str(path)]
        subprocess.run(command, check=True)
    (folder / f"libtext{SUFFIX}").write_text("not a library")
    return Registry([folder], only=True)


def lint(registry: Registry, folder: Path, step: str, *, source: str = "plugin: hello-source") -> list[str]:
    """The errors of a flow with one step, without the file's name."""
    path = folder / "flow.yaml"
    path.write_text(f'source: {{{source}}}\nsteps:\n  - {step}\nsink: {{python: "json:dumps"}}\n')
    return [str(error).removeprefix(f"{path}:") for error in examine(path, registry=registry, environ={}).errors]


def test_a_good_flow_has_no_errors_and_nothing_was_loaded(registry: Registry, tmp_path: Path, trace: Path) -> None:
    """Plugins are found and configurations completed by reading files alone."""
    assert lint(registry, tmp_path, "{plugin: settings, config: {path: x}}") == []
    found = examine(tmp_path / "flow.yaml", registry=registry)
    assert found.items[1].config == {"path": "x", "limit": 10, "fields": ["a"]}
    assert not trace.exists()


@pytest.mark.parametrize(
    ("step", "expected"),
    [
        ("{plugin: settings}", "3:5: settings: config.path: missing (a string is required)"),
        ("{plugin: settings, config: {}}", "3:24: settings: config.path: missing (a string is required)"),
        ("{plugin: settings, config: {path: 7}}", "3:33: settings: config.path: expected a string, got 7"),
        (
            "{plugin: settings, config: {path: x, lmiit: 1}}",
            "3:42: settings: config.lmiit: unknown; did you mean 'limit'?",
        ),
        (
            "{plugin: settings, config: {path: x, inner: {depth: 0}}}",
            "3:50: settings: config.inner.depth: expected at least 1, got 0",
        ),
        (
            "{plugin: settings, config: {path: x, fields: [a, 2]}}",
            "3:54: settings: config.fields[1]: expected a string, got 2",
        ),
    ],
)
def test_a_config_that_its_schema_refuses(registry: Registry, tmp_path: Path, step: str, expected: str) -> None:
    """The error stands at the field itself; what is missing, at the config it is missing from."""
    assert lint(registry, tmp_path, step) == [expected]


def test_every_field_that_is_wrong_is_told(registry: Registry, tmp_path: Path) -> None:
    """All of one config, in the file's order."""
    errors = lint(registry, tmp_path, "{plugin: settings, config: {limit: x, path: 7, nonsense: 1}}")
    assert [error.split(" ")[2] for error in errors] == ["config.limit:", "config.path:", "config.nonsense:"]


def test_a_value_that_was_set_from_outside_says_so(registry: Registry, tmp_path: Path) -> None:
    """There is no line to point at, so the error names what was set."""
    lint(registry, tmp_path, "{plugin: settings, config: {path: x}}")
    found = examine(tmp_path / "flow.yaml", registry=registry, set=["steps.settings.config.limit=many"])
    (error,) = found.errors
    assert error.problem.endswith("expected an integer, got \"many\" (set by 'steps.settings.config.limit=many')")
    assert error.line is None


def test_a_plugin_that_is_not_there(registry: Registry, tmp_path: Path) -> None:
    """The nearest name is told, and the error stands at the name."""
    (error,) = lint(registry, tmp_path, "{name: s, plugin: add-metdata}")
    assert error.startswith("3:15: ") and "add-metadata" in error
    (error,) = lint(registry, tmp_path, "{plugin: add-metadata, language: rust}")
    assert error.startswith("3:6: ") and "rust" in error


def test_a_plugin_of_another_kind(registry: Registry, tmp_path: Path) -> None:
    """A source cannot be a step; the error says which kind it is."""
    (error,) = lint(registry, tmp_path, "{plugin: hello-source}")
    assert error.startswith("3:6: ") and "hello-source" in error and "source" in error and "function" in error


def test_a_library_that_is_none(registry: Registry, tmp_path: Path) -> None:
    """By path, relative to the flow: the library's own problem, at the place that names it."""
    (tmp_path / f"libbad{SUFFIX}").write_text("no library")
    (error,) = lint(registry, tmp_path, f"{{plugin: ./libbad{SUFFIX}}}")
    assert error.startswith("3:6: ") and str(tmp_path / f"libbad{SUFFIX}") in error
    (error,) = lint(registry, tmp_path, f"{{plugin: ./nowhere{SUFFIX}}}")
    assert error.startswith("3:6: ") and "nowhere" in error


def test_errors_of_the_document_and_of_plugins_come_together(registry: Registry, tmp_path: Path) -> None:
    """A key that is wrong does not hide a plugin that is missing, and all are sorted by position."""
    errors = lint(registry, tmp_path, "{plugin: nowhere, confg: 1}", source="plugin: helo-source")
    assert [error.split(": ")[0] for error in errors] == ["1:10", "3:6", "3:23"]


# --- Python -----------------------------------------------------------------------------------------

MODULE = """
import sys
raise SystemExit("lint has run the module")
try:
    from math import sqrt as root
except ImportError as error:
    def fallback(): pass
def step(record): return record
class Source:
    inner = 1
if sys.platform: NAME = 1
"""


@pytest.mark.parametrize(
    ("reference", "problem"),
    [
        ("mine:step", None),
        ("mine:Source.inner", None),
        ("mine:fallback", None),
        ("mine:root", None),
        ("mine:NAME", None),
        ("package.part:step", None),
        ("mine:setp", "3:6: Python module 'mine' has no 'setp'. Did you mean mine:step?"),
        ("mine:inner", "3:6: Python module 'mine' has no 'inner'"),
        ("dynamic:anything", None),
        ("nowhere:step", "3:6: there is no Python module 'nowhere'. It is looked for like any import, and then in "),
        ("package.nowhere:step", "3:6: there is no Python module 'package.nowhere'. "),
        ("broken:step", "3:6: Python module 'broken' cannot be read: "),
        ("math:sqrt", None),
    ],
)
def test_python_is_looked_at_and_not_imported(
    registry: Registry, tmp_path: Path, reference: str, problem: str | None
) -> None:
    """Module and name are found in the source beside the flow, and not a line of it runs."""
    (tmp_path / "mine.py").write_text(MODULE)
    (tmp_path / "broken.py").write_text("def step(:\n")
    (tmp_path / "dynamic.py").write_text("def __getattr__(name): raise SystemExit\n")
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "__init__.py").write_text("raise SystemExit('lint has run the package')")
    (tmp_path / "package" / "part.py").write_text(MODULE)
    errors = lint(registry, tmp_path, f'{{python: "{reference}"}}')
    assert len(errors) == (problem is not None)
    assert problem is None or errors[0].startswith(problem)


# --- resolve ------------------------------------------------------------------------------------------


def test_resolve_gives_plugins_and_complete_configs(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the engine runs: every plugin found, Python ones imported from the flow's folder, defaults filled in."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    (tmp_path / "resolve_parts.py").write_text("class Keep:\n    def write(self, record): pass\n")
    path = tmp_path / "flow.yaml"
    path.write_text('source: {plugin: hello-source}\nsink: {python: "resolve_parts:Keep"}\n')
    flow = resolve(read_document(path).require(), registry)
    assert (flow.source.plugin.plugin.name, flow.steps) == ("hello-source", ())
    assert flow.sink.plugin.plugin.kind == "sink"


def test_resolve_raises_what_lint_lists(registry: Registry, tmp_path: Path) -> None:
    """One FlowError with the others as notes."""
    path = tmp_path / "flow.yaml"
    path.write_text("source: {plugin: helo-source}\nsink: {plugin: nowhere}\n")
    with pytest.raises(FlowError) as caught:
        resolve(read_document(path).require(), registry)
    assert (caught.value.line, caught.value.column) == (1, 10)
    assert [str(caught.value), *caught.value.__notes__] == [
        str(error) for error in examine(path, registry=registry).errors
    ]
