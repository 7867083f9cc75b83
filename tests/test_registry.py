"""Where plugins are found: in which order, what is passed over and why, and that looking runs nothing."""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ferrule.errors import LibraryError, PluginNotFoundError
from ferrule.plugins.registry import Found, Registry, python_plugin, split_library
from tests.timely import timely

LIBRARIES = Path(__file__).resolve().parent / "libraries"
SUFFIX = {"darwin": ".dylib", "win32": ".dll"}.get(sys.platform, ".so")
METHODS = {
    "function": [{"name": "process", "mode": "unary"}],
    "source": [{"name": "read_data", "mode": "stream"}],
    "sink": [{"name": "write", "mode": "unary"}],
}

Put = Callable[..., Path]


@pytest.fixture
def put(compile_c: Callable[..., Path], plugin_source: Callable[[str], str]) -> Put:
    """``put(folder, "kind name language", …, name=…, flags=…)``: a library with these plugins in a folder."""

    def put(folder: Path, *plugins: str, name: str = "", flags: tuple[str, ...] = ()) -> Path:
        entries = []
        for text in plugins:
            kind, plugin, language = (*text.split(), "c")[:3]
            entries.append({"name": plugin, "kind": kind, "language": language, "methods": METHODS[kind]})
        manifest = {"name": "sample", "version": "0.1.0", "plugins": entries}
        folder.mkdir(parents=True, exist_ok=True)
        target = folder / f"lib{name or plugins[0].split()[1].replace('-', '_')}{SUFFIX}"
        shutil.copyfile(compile_c(plugin_source(json.dumps(manifest)), "sample", *flags), target)
        return target

    return put


@pytest.fixture(autouse=True)
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No plugin of this machine is found by a test: every place is below a folder of its own."""
    monkeypatch.delenv("FERRULE_PLUGIN_PATH", raising=False)
    monkeypatch.setattr(sys, "prefix", str(tmp_path / "prefix"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "user"))
    monkeypatch.setenv("XDG_DATA_DIRS", str(tmp_path / "system"))
    return tmp_path


@pytest.fixture
def on_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder on sys.path for modules that a test writes, which are forgotten afterwards."""
    folder = tmp_path / "modules"
    folder.mkdir()
    shutil.copy(LIBRARIES / "sample_plugins.py", folder)
    monkeypatch.syspath_prepend(folder)
    before = set(sys.modules)
    yield folder
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", None) or "").startswith(str(folder)):
            del sys.modules[name]


def install(folder: Path, name: str, **points: str) -> None:
    """An installed distribution with these entry points; ``__`` in a name stands for a dot."""
    info = folder / f"{name}-2.5.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 2.5\n", encoding="utf-8")
    lines = "".join(f"{key.replace('__', '.').replace('_', '-')} = {value}\n" for key, value in points.items())
    (info / "entry_points.txt").write_text(f"[ferrule.plugins]\n{lines}", encoding="utf-8")


def names(found: list[Found]) -> list[str]:
    return [f"{each.plugin.kind} {each.plugin.name} {each.plugin.language}" for each in found]


def refused(call: Callable[[], object]) -> PluginNotFoundError:
    with pytest.raises(PluginNotFoundError) as caught:
        call()
    assert "\n" not in str(caught.value)
    return caught.value


# ---- places ----------------------------------------------------------------------------------------------------


@pytest.mark.skipif(sys.platform != "linux", reason="the folders are Linux's")
def test_the_order_of_places(places: Path) -> None:
    """By hand, FERRULE_PLUGIN_PATH, the environment, the user's folder, the system's."""
    path = os.pathsep.join([str(places / "one"), "", str(places / "two")])
    registry = Registry([places / "mine"], environ={"FERRULE_PLUGIN_PATH": path})
    assert [(place.origin, str(place.path.relative_to(places))) for place in registry.search_path()] == [
        ("given", "mine"),
        ("FERRULE_PLUGIN_PATH", "one"),
        ("FERRULE_PLUGIN_PATH", "two"),
        ("environment", "prefix/share/ferrule/plugins"),
        ("user", "user/ferrule/plugins"),
        ("system", "system/ferrule/plugins"),
    ]
    assert [place.origin for place in Registry([places / "mine"], only=True).search_path()] == ["given"]


def test_the_first_wins_and_a_second_is_reported(places: Path, put: Put) -> None:
    """Of two plugins of one kind, name and language the earlier place's is found, the other is shadowed."""
    first = put(places / "one", "function stamp")
    second = put(places / "prefix" / "share" / "ferrule" / "plugins", "function stamp", "source ticks")
    registry = Registry(environ={"FERRULE_PLUGIN_PATH": str(places / "one")})
    scan = registry.scan()
    assert names(scan.found) == ["function stamp c", "source ticks c"]
    assert names(scan.shadowed) == ["function stamp c"]
    assert scan.shadowed[0].path == second
    found = registry.find("function", "stamp")
    assert (found.path, found.origin, found.manifest.version) == (first, "FERRULE_PLUGIN_PATH", "0.1.0")


def test_twins_are_told_apart_by_language(places: Path, put: Put) -> None:
    """Plugins of one name in two languages are both found; without a language the first is taken."""
    put(places / "one", "function stamp c", name="a")
    put(places / "one", "function stamp rust", name="b")
    registry = Registry([places / "one"], only=True)
    assert registry.scan().shadowed == []
    assert registry.find("function", "stamp").plugin.language == "c"
    assert registry.find("function", "stamp", "rust").plugin.language == "rust"
    assert "'stamp' is a c function and a rust function" in str(
        refused(lambda: registry.find("function", "stamp", "go"))
    )


def test_a_folder_named_twice_hides_nothing(places: Path, put: Put) -> None:
    """The same file by two ways is one plugin."""
    put(places / "one", "function stamp")
    (places / "two").symlink_to(places / "one")
    scan = Registry([places / "one", places / "one", places / "two"], only=True).scan()
    assert names(scan.found) == ["function stamp c"]
    assert scan.shadowed == []


def test_relative_paths_only_by_hand(places: Path, put: Put, monkeypatch: pytest.MonkeyPatch) -> None:
    """A relative folder of FERRULE_PLUGIN_PATH is passed over and reported; one given by hand is taken."""
    put(places / "one", "function stamp")
    monkeypatch.chdir(places)
    scan = Registry(environ={"FERRULE_PLUGIN_PATH": "one"}).scan()
    assert scan.found == []
    assert [(str(each.path), each.origin) for each in scan.rejected] == [("one", "FERRULE_PLUGIN_PATH")]
    assert "is relative" in scan.rejected[0].problem
    assert names(Registry(["one"], only=True).scan().found) == ["function stamp c"]


def test_a_library_may_be_a_place(places: Path, put: Put) -> None:
    """A library given by hand is a place of its own."""
    path = put(places / "one", "function stamp")
    put(places / "one", "function other")
    assert names(Registry([path], only=True).scan().found) == ["function stamp c"]


def test_files_are_told_why_they_are_no_plugins(places: Path, put: Put) -> None:
    """What ends like a library and is none for this host is rejected with a reason; other files are left alone."""
    folder = places / "one"
    put(folder, "function good")
    put(folder, "function old", flags=("-DABI_MINOR=9",))
    put(folder, "function mute", flags=("-DNO_CREATE",))
    (folder / f"libtext{SUFFIX}").write_text("hello", encoding="utf-8")
    (folder / f"folder{SUFFIX}").mkdir()
    (folder / "README.md").write_text("hello", encoding="utf-8")
    scan = Registry([folder], only=True).scan()
    assert names(scan.found) == ["function good c"]
    assert {each.path.name.split(".")[0]: each.problem.split(",")[0] for each in scan.rejected} == {
        "folder": "is a folder",
        "libmute": "does not export the symbol ferrule_plugin_create",
        "libold": "is built for ABI 0.9",
        "libtext": "is not a library: it seems to be text",
    }


def test_a_folder_given_by_hand_has_to_exist(places: Path) -> None:
    """A missing folder that was given is reported; one of the usual places may be missing."""
    scan = Registry([places / "none"]).scan()
    assert [(each.path, each.problem) for each in scan.rejected] == [(places / "none", "does not exist")]


def test_looking_runs_nothing(
    places: Path, compile_c: Callable[..., Path], plugin_source: Callable[[str], str]
) -> None:
    """A library's constructor does not run when it is scanned and found."""
    mark = places / "mark"
    manifest = {"name": "x", "version": "1", "plugins": [{"name": "x", "kind": "sink", "methods": METHODS["sink"]}]}
    source = (
        plugin_source(json.dumps(manifest))
        + f"""
        #include <stdio.h>
        __attribute__((constructor)) static void leave_a_mark(void) {{ fclose(fopen("{mark}", "w")); }}
    """
    )
    library = compile_c(source, "marks")
    assert Registry([library], only=True).find("sink", "x").path == library
    assert not mark.exists()


@pytest.mark.timed
def test_five_hundred_libraries(places: Path, put: Put) -> None:
    """A folder of 500 libraries of a realistic size is scanned in a second or two."""
    data = put(places / "one", "function stamp").read_bytes()
    for number in range(500):
        (places / "one" / f"lib{number}{SUFFIX}").write_bytes(data + b"\0" * 300_000 + str(number).encode())
    begin = time.perf_counter()
    scan = Registry([places / "one"], only=True).scan()
    timely(time.perf_counter() - begin < 3)
    assert len(scan.found) + len(scan.shadowed) == 501


# ---- finding -----------------------------------------------------------------------------------------------------


def test_the_nearest_name(places: Path, put: Put) -> None:
    """A name that does not exist is answered with the nearest of its kind and with where was looked."""
    put(places / "one", "function add-metadata", "source add-metadatum")
    registry = Registry([places / "one"], only=True)
    error = refused(lambda: registry.find("function", "add_metadat"))
    assert str(error) == (
        f"there is no function plugin 'add_metadat'; did you mean 'add-metadata'? looked in {places / 'one'}"
    )
    assert (error.name, error.nearest) == ("add_metadat", "add-metadata")
    assert refused(lambda: registry.find("sink", "add-metadata")).nearest is None
    assert "'add-metadata' is a c function" in str(refused(lambda: registry.find("sink", "add-metadata")))
    assert "no folder of the search path exists" in str(refused(lambda: Registry([], only=True).find(None, "x")))


def test_a_file_of_that_name_that_was_rejected(places: Path, put: Put) -> None:
    """When a file by the plugin's name was passed over, the error says why."""
    put(places / "one", "function add-metadata", flags=("-DABI_MINOR=9",))
    error = refused(lambda: Registry([places / "one"], only=True).find("function", "add-metadata"))
    assert f"libadd_metadata{SUFFIX} was passed over: it is built for ABI 0.9" in str(error)


def test_one_name_for_several_kinds(places: Path, put: Put) -> None:
    """A bare name that stands for two kinds has to be asked for with its kind."""
    put(places / "one", "function csv", "source csv")
    registry = Registry([places / "one"], only=True)
    assert registry.find("source", "csv").plugin.kind == "source"
    assert "'csv' is the name of several plugins: a function and a source" in str(
        refused(lambda: registry.find(None, "csv"))
    )


def test_a_plugin_that_was_built_since(places: Path, put: Put) -> None:
    """A missing name is looked for once more, so a plugin that was built meanwhile is found."""
    (places / "one").mkdir()
    registry = Registry([places / "one"], only=True)
    refused(lambda: registry.find("function", "stamp"))
    path = put(places / "one", "function stamp")
    assert registry.find("function", "stamp").path == path


def test_a_library_by_its_path(places: Path, put: Put, monkeypatch: pytest.MonkeyPatch) -> None:
    """A path finds its library's plugin, by name or kind where it holds several, also relative."""
    path = put(places / "one", "function stamp", "source ticks", "source tocks")
    registry = Registry([], only=True)
    assert registry.find(None, f"{path}:ticks").plugin.name == "ticks"
    assert registry.find("function", str(path)).plugin.name == "stamp"
    monkeypatch.chdir(path.parent)
    assert registry.find(None, f"{path.name}:tocks").path == path
    listed = "function stamp, source ticks, source tocks"
    assert f"holds several plugins: {listed}. Say which: " in str(refused(lambda: registry.find("source", str(path))))
    error = refused(lambda: registry.find(None, f"{path}:tick"))
    assert f"holds no plugin 'tick'; it holds {listed}" in str(error)
    assert error.nearest == "ticks"
    assert "holds no sink; it holds" in str(refused(lambda: registry.find("sink", str(path))))


def test_a_path_that_is_no_library(places: Path) -> None:
    """A path's own fault is told as such."""
    registry = Registry([], only=True)
    for text in ("./none.so", "none.so", "one/none", str(places), f"{places}/none:x"):
        with pytest.raises(LibraryError):
            registry.find(None, text)


@pytest.mark.parametrize(
    ("text", "path", "plugin"),
    [
        ("csv", None, None),
        ("csv:source", None, None),
        ("libcsv.so", "libcsv.so", None),
        ("libcsv.so:csv", "libcsv.so", "csv"),
        ("./a/libcsv.dylib:csv-source", "a/libcsv.dylib", "csv-source"),
        ("a/b", "a/b", None),
        ("a/b:c", "a/b", "c"),
        ("a:b/c.so", "a:b/c.so", None),
        ("C:/x.dll:y", "C:/x.dll", "y"),
    ],
)
def test_what_is_a_path(text: str, path: str | None, plugin: str | None) -> None:
    """What has a slash or a library's ending is a path; a plugin may follow a colon."""
    assert split_library(text) == (None if path is None else Path(path), plugin)


# ---- entry points ------------------------------------------------------------------------------------------------


def test_a_python_class_by_entry_point(on_path: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An entry point's class is listed unimported, and imported when it is asked for."""
    note = tmp_path / "imports"
    monkeypatch.setenv("IMPORTS_FILE", str(note))
    install(
        on_path,
        "sample",
        source__ticks="sample_plugins:Ticks",
        stamp="sample_plugins:stamp_it",
        runner__go="sample_plugins:Runner",
    )
    registry = Registry(environ={})
    found = {each.plugin.name: each for each in registry.scan().found}
    assert set(found) == {"ticks", "stamp", "go"}
    assert (found["ticks"].plugin.kind, found["ticks"].plugin.language) == ("source", "python")
    assert (found["stamp"].plugin.kind, found["go"].plugin.kind) == ("function", "runner")
    assert [method.name for method in found["ticks"].plugin.methods] == ["read_data"]
    assert found["go"].plugin.methods == []
    assert found["ticks"].origin == "entry point source.ticks of sample"
    assert (found["ticks"].manifest.version, found["ticks"].target) == ("2.5", None)
    assert not note.exists()

    ticks = registry.find("source", "ticks")
    assert note.read_text(encoding="utf-8") == "imported\n"
    assert ticks.target is not None and ticks.target.__name__ == "Ticks"
    assert (ticks.plugin.description, ticks.manifest.version) == ("Counts.", "2.5")
    assert registry.find(None, "stamp", "python").plugin.methods[0].name == "process"
    assert [method.name for method in registry.find("runner", "go").plugin.methods] == ["chunks", "run"]


def test_a_package_that_holds_libraries(on_path: Path, put: Put) -> None:
    """An entry point's package is found without an import, and the libraries in its folder are read."""
    for package in ("outer", "outer/inner"):
        (on_path / package).mkdir()
        (on_path / package / "__init__.py").write_text("raise RuntimeError('imported')", encoding="utf-8")
    path = put(on_path / "outer" / "inner", "function stamp")
    install(on_path, "native-sample", anything="outer.inner")
    registry = Registry(environ={})
    assert (on_path / "outer" / "inner") in [place.path for place in registry.search_path()]
    found = registry.find("function", "stamp")
    assert (found.path, found.origin) == (path, "entry point anything of native-sample")


def test_entry_points_that_are_wrong(on_path: Path) -> None:
    """A wrong entry point is reported, and does not keep others from being found."""
    install(
        on_path,
        "wrong",
        filter__x="sample_plugins:Ticks",
        UPPER="sample_plugins:Ticks",
        gone="no_such_package.inner",
        stamp="sample_plugins:stamp_it",
    )
    scan = Registry(environ={}).scan()
    assert names(scan.found) == ["function stamp python"]
    problems = {str(each.path): each.problem for each in scan.rejected}
    assert "its name begins with 'filter'; a kind is one of source, " in problems["filter.x"]
    assert "is no plugin's name" in problems["UPPER"]
    assert "there is no module 'no_such_package'" in problems["gone"]


def test_an_entry_point_that_cannot_be_loaded(on_path: Path) -> None:
    """A listed Python plugin that is not what its entry point says fails when it is asked for, and says why."""
    install(on_path, "wrong", sink__ticks="sample_plugins:Ticks", gone="sample_plugins:Gone", lost="no_module:x")
    registry = Registry(environ={})
    assert "is said to be a sink, and has no method 'write'" in str(refused(lambda: registry.find("sink", "ticks")))
    assert "'sample_plugins' has no 'Gone'" in str(refused(lambda: registry.find(None, "gone")))
    assert "there is no module 'no_module'" in str(refused(lambda: registry.find(None, "lost")))


# ---- Python plugins by name --------------------------------------------------------------------------------------


def describe(reference: str) -> dict[str, Any]:
    found = python_plugin(f"python: sample_plugins:{reference}")
    plugin = found.plugin
    assert plugin.language == "python"
    assert found.path is None and found.target is not None
    assert found.manifest.version == "1.2.3"
    return {
        "kind": plugin.kind,
        "name": plugin.name,
        "methods": {method.name: method.mode for method in plugin.methods},
        "threading": plugin.threading,
        "description": plugin.description,
    }


def test_a_class_describes_itself(on_path: Path) -> None:
    """Kind by methods, name by attribute or in kebab-case, description by attribute or docstring."""
    assert describe("AddHTTPHeader") == {
        "kind": "function",
        "name": "add-http-header",
        "methods": {"process": "unary"},
        "threading": "serial",
        "description": "Adds a header.",
    }
    assert describe("Ticks") == {
        "kind": "source",
        "name": "ticks",
        "methods": {"connect": "unary", "read_data": "stream"},
        "threading": "concurrent",
        "description": "Counts.",
    }
    assert describe("Memory")["methods"] == {"write": "unary", "flush": "unary"}
    assert describe("stamp_it")["name"] == "stamp-it"
    assert describe("BothButSink")["kind"] == "sink"
    assert describe("Outer.Inner")["name"] == "inner"
    assert describe("Runner")["methods"] == {"chunks": "stream", "run": "unary"}


def test_a_classs_configuration(on_path: Path) -> None:
    """A pydantic Config or a config_schema is the schema; without one a class takes any object, a function none."""
    assert python_plugin("sample_plugins:AddHTTPHeader").plugin.config["required"] == ["name"]
    assert python_plugin("sample_plugins:Ticks").plugin.config["properties"]["n"]["default"] == 3
    assert python_plugin("sample_plugins:Memory").plugin.config == {"type": "object"}
    assert python_plugin("sample_plugins:stamp_it").plugin.config == {}


@pytest.mark.parametrize(
    ("reference", "said"),
    [
        ("sample_plugins", "expected python:module:name"),
        (":x", "expected python:module:name"),
        ("a:b:c", "expected python:module:name"),
        ("no_such_module.inner:x", "there is no module 'no_such_module'"),
        ("sample_plugins.inner:x", "there is no module 'sample_plugins.inner'"),
        ("sample_plugins:Tick", "'sample_plugins' has no 'Tick'; did you mean 'Ticks'?"),
        ("sample_plugins:number", "is a int; a plugin is a class, or a function written in Python"),
        ("sample_plugins:partial_stamp", "is a partial; a plugin is a class"),
        (
            "sample_plugins:Nothing",
            "has none of the methods process (a function), read_data (a source), write (a sink)",
        ),
        ("sample_plugins:Both", "has the methods of a function and of a sink; its attribute 'kind' has to say which"),
        ("sample_plugins:WrongKind", "it says something wrong of itself: kind: "),
        ("sample_plugins:WrongName", "it says something wrong of itself: name: "),
        ("sample_plugins:WrongSchema", "has a config_schema that is a int"),
        ("sample_plugins:SourceWithoutRead", "is said to be a source, and has no method 'read_data'"),
        ("broken:x", "importing 'broken' fails: ZeroDivisionError"),
        ("needs:x", "module 'needs' cannot be imported: No module named 'not_there'"),
        ("wrong_syntax:x", "importing 'wrong_syntax' fails: SyntaxError"),
    ],
)
def test_what_is_no_python_plugin(on_path: Path, reference: str, said: str) -> None:
    """Everything that can be wrong with a reference has its own message, in one line."""
    (on_path / "broken.py").write_text("1 / 0", encoding="utf-8")
    (on_path / "needs.py").write_text("import not_there", encoding="utf-8")
    (on_path / "wrong_syntax.py").write_text("def", encoding="utf-8")
    error = refused(lambda: Registry([], only=True).find(None, f"python:{reference}"))
    assert said in str(error)
    assert str(error).startswith(f"python:{reference}: ")


def test_a_python_plugin_of_another_kind(on_path: Path) -> None:
    """A reference to a plugin of another kind than asked for is refused."""
    registry = Registry([], only=True)
    assert registry.find("source", "python:sample_plugins:Ticks").plugin.kind == "source"
    assert "is a source, and a sink is wanted" in str(
        refused(lambda: registry.find("sink", "python:sample_plugins:Ticks"))
    )


def test_a_relative_folder_of_the_environment_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever sets FERRULE_PLUGIN_PATH to a relative folder is told why nothing is found there."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "plugins").mkdir()
    registry = Registry(environ={"FERRULE_PLUGIN_PATH": "plugins"})
    with pytest.raises(PluginNotFoundError, match="plugins in FERRULE_PLUGIN_PATH was passed over: it is relative"):
        registry.find("function", "no-such-plugin")
