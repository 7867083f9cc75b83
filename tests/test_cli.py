"""The command `ferrule`, run as a user runs it: as a process, on compiled plugins.

Its statuses (0 done, 1 failed, 2 wrong usage, 3 done with dead letters), what goes to stdout and what to stderr, and
that no fault of an input ever shows a traceback.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.timely import timely, until

ROOT = Path(__file__).resolve().parents[1]
SUFFIX = {"darwin": ".dylib", "win32": ".dll"}.get(sys.platform, ".so")

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the plugins are built with cc")

Ferrule = Callable[..., subprocess.CompletedProcess[str]]

PYTHON_PLUGINS = '''
import sys
import time


class Rows:
    """Five rows; the third has no id."""

    def read_data(self):
        for number in range(1, 6):
            yield {"id": number} if number != 3 else {"name": "nobody"}


class Endless:
    def read_data(self):
        while True:
            time.sleep(0.001)
            yield {"id": 1}


class Connecting:
    def __init__(self):
        open("connecting", "w").close()
        for _ in range(6000):  # Python hears a signal that comes just before a wait when the wait is over
            time.sleep(0.01)

    def read_data(self):
        return []


class Keep:
    def __init__(self, config):
        self.file = open(config["path"], "w", buffering=1)

    def write(self, record):
        self.file.write(f"{record['id']}\\n")

    def close(self):
        self.file.close()


def need_id(record):
    if "id" not in record:
        raise ValueError("a row has an id")
    return record


def skip_odd(record):
    return record if record["id"] % 2 == 0 else None
'''

FLOW = """
name: small
source: {plugin: hello-source}
steps:
  - {plugin: add-metadata, config: {plugin_name: demo}}
sink: {python: "parts:Keep", config: {path: "out.txt"}}
"""

ROWS = """
source: {python: "parts:Rows"}
steps:
  - {name: check, python: "parts:need_id", on_error: ON_ERROR}
sink: {python: "parts:Keep", config: {path: "out.txt"}}
delivery: {dead_letter: dead.jsonl}
"""


def compile_c(folder: Path, *sources: Path, flags: tuple[str, ...] = ()) -> Path:
    library = folder / f"lib{sources[0].stem}{SUFFIX}"
    headers = [f"-I{ROOT / 'native_sdk' / part}" for part in ("include", "c")]
    subprocess.run(["cc", "-shared", "-fPIC", *headers, *flags, "-o", library, *sources], check=True)
    return library


@pytest.fixture(scope="session")
def plugins(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the C example plugins, compiled."""
    folder = tmp_path_factory.mktemp("plugins")
    for name in ("add_metadata", "hello_source"):
        compile_c(folder, ROOT / "example_plugins" / "c" / name / f"{name}.c")
    return folder


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """A working directory with Python plugins and flows beside them."""
    (tmp_path / "parts.py").write_text(PYTHON_PLUGINS)
    (tmp_path / "flow.yaml").write_text(FLOW)
    return tmp_path


def environment(plugins: Path, home: Path, **settings: str) -> dict[str, str]:
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "CARGO_HOME", "RUSTUP_HOME") if name in os.environ}
    return {
        **kept,
        "PYTHONPATH": str(ROOT / "src"),
        "PYTHONUTF8": "1",
        "FERRULE_PLUGIN_PATH": str(plugins),
        "XDG_CACHE_HOME": str(home / ".cache"),
        "XDG_DATA_HOME": str(home / ".local"),
        **settings,
    }


@pytest.fixture
def ferrule(plugins: Path, work: Path) -> Ferrule:
    """Runs the command in `work`, and holds every run to the rules of all commands."""

    def run(
        *arguments: str | Path, status: int = 0, stdin: str | None = None, **settings: str
    ) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [sys.executable, "-m", "ferrule", *arguments],
            cwd=work,
            env=environment(plugins, work, **settings),
            input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert "Traceback" not in done.stderr, done.stderr
        assert done.returncode == status, f"{done.returncode}: {done.stdout}{done.stderr}"
        if status in (1, 2) and "--json" not in arguments:
            assert "error: " in done.stderr
        if "--json" in arguments and status != 2:
            json.loads(done.stdout)
        return done

    return run


def library(plugins: Path, name: str) -> Path:
    return plugins / f"lib{name}{SUFFIX}"


# --- all commands -----------------------------------------------------------------------------------


def test_version_and_sdk_are_quick(ferrule: Ferrule) -> None:
    """What Makefiles call does not wait for YAML, tables or the compiled module: those are not imported."""
    assert ferrule("--version").stdout.startswith("ferrule ")
    script = (
        "import sys\nfrom ferrule.cli import main\ntry: main(['sdk', '--include-dir'])\nexcept SystemExit: pass\n"
        "heavy = {'ruamel.yaml', 'rich.console', 'orjson', 'jsonschema_rs', 'ferrule.native'}\n"
        "sys.exit(str(heavy & set(sys.modules)) if heavy & set(sys.modules) else 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], env={**os.environ, "PYTHONPATH": str(ROOT / "src")}, capture_output=True
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("arguments", "fragment"),
    [
        (["rnu"], "No such command 'rnu'"),
        (["run"], "Missing argument 'FLOW'"),
        (["run", "flow.yaml", "--limit", "many"], "Invalid value for '--limit'"),
        (["run", "flow.yaml", "--limit", "0"], "Invalid value for '--limit'"),
        (["run", "flow.yaml", "--lanes", "many"], "'many' is neither a number from 1 to 256 nor 'auto'"),
        (["new", "gadget", "x"], "'gadget' is not one of"),
        (["new", "function", "Bad Name"], "'Bad Name' cannot be the name"),
        (["call", "add-metadata", "process", "--config", "{"], "--config is no JSON"),
        (["call", "add-metadata", "process", "--config", "[]"], "--config is a JSON object, such as {}, not a list"),
        (["call", "add-metadata", "process", "-i", "@nowhere.json"], "nowhere.json: No such file"),
    ],
)
def test_wrong_usage_has_status_2_and_one_message(ferrule: Ferrule, arguments: list[str], fragment: str) -> None:
    """A slip at the prompt is answered by what is wrong, on stderr, with nothing on stdout."""
    done = ferrule(*arguments, status=2)
    assert fragment in done.stderr
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1


def test_help_names_every_command_and_no_other(ferrule: Ferrule) -> None:
    """The commands that later releases bring are not there, not even as stubs."""
    text = ferrule("--help").stdout
    commands = [line.split()[0] for line in text[text.index("Commands:") :].splitlines()[1:] if line.strip()]
    assert sorted(commands) == sorted(
        ["run", "lint", "list", "inspect", "call", "new", "build", "bench", "sdk", "doctor", "dead-letter"]
    )


def test_a_closed_pipe_ends_quietly(plugins: Path, work: Path) -> None:
    """`ferrule list | head -1` prints a line and no complaint."""
    done = subprocess.run(
        f"'{sys.executable}' -m ferrule list --json | head -1",
        shell=True,
        cwd=work,
        env=environment(plugins, work),
        capture_output=True,
        text=True,
    )
    assert (done.stdout, done.stderr) == ("{\n", "")


def test_a_full_disk_at_stdout_is_an_error(plugins: Path, work: Path) -> None:
    """What cannot be printed is not passed over in silence."""
    if not Path("/dev/full").exists():
        pytest.skip("there is no /dev/full here")
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "ferrule", "list"],
            cwd=work,
            env=environment(plugins, work),
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
        )
    assert done.returncode == 1
    assert "No space left on device" in done.stderr
    assert "Traceback" not in done.stderr


# --- run -----------------------------------------------------------------------------------------------


def test_run_prints_a_summary(ferrule: Ferrule, work: Path) -> None:
    """A flow that ends well: status 0, the summary on stdout, nothing on stderr where that is no terminal."""
    done = ferrule("run", "flow.yaml")
    lines = [line.split() for line in done.stdout.splitlines()]
    assert lines[0] == ["flow", "small"]
    assert ["read", "2"] in lines and ["written", "2"] in lines and ["dead", "letters", "0"] in lines
    assert done.stderr == ""
    assert (work / "out.txt").read_text() == "1\n2\n"


def test_run_as_json_with_a_limit_and_a_value_set(ferrule: Ferrule, work: Path) -> None:
    """--json is one document, --limit ends it early, --set replaces a value."""
    done = ferrule("run", "flow.yaml", "--json", "--limit", "1", "--set", "sink.config.path=other.txt")
    summary = json.loads(done.stdout)
    assert (summary["name"], summary["read"], summary["written"], summary["stopped"]) == ("small", 1, 1, False)
    assert (work / "other.txt").read_text() == "1\n"


def test_run_quietly_prints_nothing(ferrule: Ferrule) -> None:
    """--quiet is for cron."""
    done = ferrule("run", "flow.yaml", "--quiet")
    assert (done.stdout, done.stderr) == ("", "")


def test_run_with_dead_letters_has_status_3(ferrule: Ferrule, work: Path) -> None:
    """Done, and something was put aside: neither 0 nor 1."""
    (work / "rows.yaml").write_text(ROWS.replace("ON_ERROR", "dead_letter"))
    done = ferrule("run", "rows.yaml", status=3)
    assert "in dead.jsonl" in done.stdout
    assert (work / "out.txt").read_text() == "1\n2\n4\n5\n"
    (letter,) = (work / "dead.jsonl").read_text().splitlines()
    assert json.loads(letter)["record"] == {"name": "nobody"}


def test_run_that_fails_names_step_and_record(ferrule: Ferrule, work: Path) -> None:
    """The message says what happened, in which step, at which record; what came before is written."""
    (work / "rows.yaml").write_text(ROWS.replace("ON_ERROR", "fail"))
    done = ferrule("run", "rows.yaml", status=1)
    assert done.stderr.startswith("error: a row has an id (step 'check'")
    assert "record 3" in done.stderr
    assert (work / "out.txt").read_text() == "1\n2\n"
    found = json.loads(ferrule("run", "rows.yaml", "--json", status=1).stdout)["error"]
    assert (found["status"], found["step"], found["record"]) == ("INVALID_DATA", "check", 3)


def test_run_counts_what_is_skipped(ferrule: Ferrule, work: Path) -> None:
    """Read is written and skipped together."""
    (work / "rows.yaml").write_text(
        FLOW.replace("  - {plugin: add", '  - {python: "parts:skip_odd"}\n  - {plugin: add')
    )
    summary = json.loads(ferrule("run", "rows.yaml", "--json").stdout)
    assert (summary["read"], summary["written"], summary["skipped"]) == (2, 1, 1)


def test_dry_run_shows_the_plan_and_runs_nothing(ferrule: Ferrule, work: Path) -> None:
    """Plugins and complete configurations, and no output file."""
    done = ferrule("run", "flow.yaml", "--dry-run", "--json")
    items = json.loads(done.stdout)["items"]
    assert [item["name"] for item in items] == ["hello-source", "add-metadata", "Keep"]
    assert items[1]["config"] == {"plugin_name": "demo"}
    assert "nothing was run" in ferrule("run", "flow.yaml", "--dry-run").stdout
    assert not (work / "out.txt").exists()


def test_every_error_of_a_flow_file_is_shown(ferrule: Ferrule, work: Path) -> None:
    """`run` says path, line and column of each, and runs nothing."""
    (work / "bad.yaml").write_text("source: {plugin: hello-source, confg: {}}\nsinc: {}\n")
    done = ferrule("run", "bad.yaml", status=1)
    assert done.stderr.splitlines() == [
        "error: bad.yaml:1:1: the flow has no sink. Add 'sink: {plugin: NAME}'.",
        "error: bad.yaml:1:32: the source has no key 'confg'. Did you mean 'config'?",
        "error: bad.yaml:2:1: a flow has no key 'sinc'. Did you mean 'sink'?",
    ]
    assert ferrule("run", "nowhere.yaml", status=1).stderr.startswith("error: nowhere.yaml: there is no such file")


def begun(plugins: Path, work: Path, flow: str) -> subprocess.Popen[str]:
    """A flow that is running, or about to."""
    return subprocess.Popen(
        [sys.executable, "-m", "ferrule", "run", flow],
        cwd=work,
        env=environment(plugins, work),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_an_interrupt_stops_a_flow_and_says_where(plugins: Path, work: Path) -> None:
    """Ctrl-C: the record under way is finished, the output is whole, status 1, no traceback."""
    (work / "endless.yaml").write_text(FLOW.replace("plugin: hello-source", 'python: "parts:Endless"'))
    process = begun(plugins, work, "endless.yaml")
    out = work / "out.txt"
    until(lambda: out.exists() and out.stat().st_size > 0)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=30)
    assert process.returncode == 1
    assert "stopped after " in stderr
    assert "Traceback" not in stderr
    assert set(out.read_text().splitlines()) == {"1"}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_before_a_flow_has_begun(plugins: Path, work: Path, number: signal.Signals) -> None:
    """While its plugins are being made, which may take long: status 1 and a word, as at any other time."""
    (work / "slow.yaml").write_text(FLOW.replace("plugin: hello-source", 'python: "parts:Connecting"'))
    process = begun(plugins, work, "slow.yaml")
    until(lambda: (work / "connecting").exists())
    process.send_signal(number)
    out, error = process.communicate(timeout=30)
    assert (process.returncode, out, error) == (1, "", "error: interrupted\n")


def test_a_closed_pipe_at_the_sink_is_a_clear_end(plugins: Path, work: Path) -> None:
    """A sink whose reader has gone: status 1 and one message, not a traceback, and not a flow that goes on."""
    (work / "printer.py").write_text("class Print:\n    def write(self, record): print(record, flush=True)\n")
    (work / "endless.yaml").write_text(
        'source: {python: "parts:Endless"}\nsink: {python: "printer:Print"}\n',
    )
    done = subprocess.run(
        ["sh", "-c", f"{{ '{sys.executable}' -m ferrule run endless.yaml; echo status $? >&2; }} | head -1"],
        cwd=work,
        env=environment(plugins, work),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stdout == "{'id': 1}\n"
    message, status = done.stderr.splitlines()
    assert "Broken pipe" in message and status == "status 1"


# --- lint --------------------------------------------------------------------------------------------------


def test_lint_says_good_or_every_error(ferrule: Ferrule, work: Path) -> None:
    """One line a good flow on stdout, one message an error on stderr, status 1 if there is any."""
    assert ferrule("lint", "flow.yaml").stdout == "flow.yaml: good\n"
    (work / "bad.yaml").write_text(FLOW.replace("plugin_name", "plugin_nmae").replace("hello-source", "helo-source"))
    done = ferrule("lint", "flow.yaml", "bad.yaml", status=1)
    assert done.stdout == "flow.yaml: good\n"
    assert "error: bad.yaml:3:10: " in done.stderr and "hello-source" in done.stderr
    assert "error: bad.yaml:5:37: " in done.stderr and "plugin_nmae" in done.stderr


def test_lint_as_json(ferrule: Ferrule, work: Path) -> None:
    """A report a file, with positions for editors; errors are in the document, so stderr is empty."""
    (work / "bad.yaml").write_text(FLOW.replace("steps:", "stesp:"))
    done = ferrule("lint", "--json", "flow.yaml", "bad.yaml", status=1)
    reports = json.loads(done.stdout)
    assert [report["ok"] for report in reports] == [True, False]
    (error,) = reports[1]["errors"]
    assert (error["line"], error["column"], error["hint"]) == (4, 1, "Did you mean 'steps'?")


# --- list, inspect ---------------------------------------------------------------------------------------------


def test_list_shows_plugins_and_why_a_file_is_none(ferrule: Ferrule, plugins: Path, work: Path) -> None:
    """What is found, from where, and each library that is no plugin with its reason."""
    folder = work / "libs"
    shutil.copytree(plugins, folder)
    (folder / f"libtext{SUFFIX}").write_text("not a library")
    done = ferrule("list", folder)
    assert "add-metadata" in done.stdout and "hello-source" in done.stdout
    assert f"libtext{SUFFIX}" in done.stdout[done.stdout.index("Not plugins:") :]
    found = json.loads(ferrule("list", folder, "--json").stdout)
    assert {(plugin["kind"], plugin["name"], plugin["language"]) for plugin in found["plugins"]} == {
        ("function", "add-metadata", "c"),
        ("source", "hello-source", "c"),
    }
    assert [Path(each["path"]).name for each in found["rejected"]] == [f"libtext{SUFFIX}"]


def test_list_of_no_folder_is_an_error(ferrule: Ferrule) -> None:
    """Also an empty folder is no error, but a missing one is."""
    assert "does not exist" in ferrule("list", "nowhere", status=1).stderr
    assert "is no folder" in ferrule("list", "flow.yaml", status=1).stderr


def test_inspect_shows_what_the_manifest_says(ferrule: Ferrule, plugins: Path) -> None:
    """Name, methods, and the configuration with types, defaults and descriptions; by file or by name."""
    path = library(plugins, "add_metadata")
    text = ferrule("inspect", path).stdout
    for fragment in (
        "function add-metadata",
        "plugin_name",
        "string",
        '"unknown_rust_plugin"',
        "The name to stamp.",
        "0.1",
    ):
        assert fragment in text
    found = json.loads(ferrule("inspect", path, "--json").stdout)
    assert found["loadable"] is True and len(found["sha256"]) == 64
    assert found["manifest"]["plugins"][0]["name"] == "add-metadata"
    assert ferrule("inspect", "add-metadata").stdout == text


def bad_files(folder: Path, good: Path) -> dict[str, Path]:
    """Everything that is no library, by what it is."""
    data = good.read_bytes()
    names = "text empty folder loop pipe huge cut header missing noise plain"
    made = {name: folder / f"lib{name}{SUFFIX}" for name in names.split()}
    made["text"].write_text("hello")
    made["empty"].touch()
    made["folder"].mkdir()
    made["loop"].symlink_to(made["loop"])
    os.mkfifo(made["pipe"])
    with made["huge"].open("wb") as file:
        file.truncate(5 << 30)
    made["cut"].write_bytes(data[: len(data) // 2])
    made["header"].write_bytes(data[:64])
    made["noise"].write_bytes(data[:64] + os.urandom(4096))
    source = folder / "plain.c"
    source.write_text("int answer(void) { return 42; }\n")
    compile_c(folder, source)
    return made


@pytest.mark.timed
@pytest.mark.parametrize("command", ["inspect", "call", "run"])
def test_what_is_no_plugin_is_one_message_and_quick(ferrule: Ferrule, plugins: Path, work: Path, command: str) -> None:
    """Not a library, empty, a folder, a loop, a pipe, 5 GB, cut short: status 1, what it is, in about a second."""
    for name, path in bad_files(work, library(plugins, "add_metadata")).items():
        (work / "bad.yaml").write_text(FLOW.replace("plugin: add-metadata", f"plugin: {path}"))
        target = "bad.yaml" if command == "run" else str(path)
        for _ in range(5):  # half of it is Python's start, on a machine that is busy now and then
            began = time.monotonic()
            done = ferrule(command, target, *(["process"] if command == "call" else []), status=1)
            if (took := time.monotonic() - began) < 2:
                break
        timely(took < 2, name)
        assert path.name in done.stderr, name
        assert len(done.stderr.splitlines()) == 1, done.stderr


# --- call --------------------------------------------------------------------------------------------------------


def test_call_prints_the_answer(ferrule: Ferrule, plugins: Path, work: Path) -> None:
    """By file, by file and plugin, by name; input on the line, from a file, from stdin."""
    (work / "record.json").write_text('{"id": 7}')
    path = library(plugins, "add_metadata")
    for target in (str(path), f"{path}:add-metadata", "add-metadata"):
        answer = json.loads(ferrule("call", target, "process", "-i", '{"id": 7}').stdout)
        assert (answer["id"], answer["processed_by_rust_plugin"]) == (7, "unknown_rust_plugin")
    config = ["--config", '{"plugin_name": "me"}']
    for source, stdin in (("@record.json", None), ("-", '{"id": 7}')):
        done = ferrule("call", path, "process", "-i", source, *config, "--json", stdin=stdin)
        assert json.loads(done.stdout)["answer"]["processed_by_rust_plugin"] == "me"


def test_call_shows_the_plugins_own_error(ferrule: Ferrule) -> None:
    """Message, plugin, method; and the status as JSON."""
    done = ferrule("call", "add-metadata", "process", "-i", "[]", status=1)
    assert done.stderr == "error: Data must be a JSON object (plugin 'add-metadata', method 'process')\n"
    found = json.loads(ferrule("call", "add-metadata", "process", "-i", "[]", "--json", status=1).stdout)
    assert found["error"]["status"] == "INVALID_DATA"


def test_call_of_a_wrong_name_gives_the_nearest(ferrule: Ferrule) -> None:
    """Plugin, method and setting: each error names what was probably meant, or what is allowed."""
    assert "add-metadata" in ferrule("call", "add-metdata", "process", status=1).stderr
    assert "process" in ferrule("call", "add-metadata", "proces", status=1).stderr
    done = ferrule("call", "add-metadata", "process", "--config", '{"plugin_nam": "x"}', status=1)
    assert "plugin_nam" in done.stderr


def test_call_of_a_stream_prints_an_item_a_line(ferrule: Ferrule) -> None:
    """A source is connected, read to its end, and closed."""
    lines = ferrule("call", "hello-source", "read_data").stdout.splitlines()
    assert [json.loads(line)["id"] for line in lines] == [1, 2]
    assert "properties" in json.loads(ferrule("call", "hello-source", "schema").stdout)
    items = json.loads(ferrule("call", "hello-source", "read_data", "--json").stdout)["items"]
    assert [item["id"] for item in items] == [1, 2]


# --- new, build, sdk, doctor -----------------------------------------------------------------------------------------

LANGUAGES = [
    pytest.param("c", id="c"),
    pytest.param("rust", id="rust", marks=pytest.mark.skipif(shutil.which("cargo") is None, reason="no cargo")),
]


@pytest.mark.parametrize("kind", ["function", "source", "sink"])
@pytest.mark.parametrize("lang", LANGUAGES)
def test_from_nothing_to_a_flow(ferrule: Ferrule, work: Path, lang: str, kind: str) -> None:
    """new, build, inspect, call, run: each template works as it is, and `new` prints the commands that do it."""
    name = f"my-{lang}-{kind}"
    told = ferrule("new", kind, name, "--lang", lang).stdout
    commands = [line.partition("#")[0].split("ferrule ", 1)[1] for line in told.splitlines() if "  ferrule " in line]
    assert [command.split()[0] for command in commands] == ["build", "call", "run"]
    built = json.loads(ferrule("build", name, "--json").stdout)
    (made,) = built["libraries"]
    assert made["plugins"] == [{"kind": kind, "name": name}]
    ferrule("inspect", made["path"])
    script = "set -e\n" + "\n".join(f"'{sys.executable}' -m ferrule {command}" for command in commands[1:])
    done = subprocess.run(["sh", "-c", script], cwd=work, env=environment(work, work), capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "flow my-" in done.stdout
    assert ferrule("lint", f"{name}/flow.yaml").stdout == f"{name}/flow.yaml: good\n"
    ferrule("new", kind, name, "--lang", lang, status=1)


@pytest.mark.parametrize("lang", LANGUAGES)
def test_from_nothing_to_a_runner(ferrule: Ferrule, work: Path, lang: str) -> None:
    """The same for a runner, which is no part of a flow: its program shows the answer and the stream."""
    name = f"my-runner-{lang}"
    told = ferrule("new", "runner", name, "--lang", lang).stdout
    assert f"  python {name}/my_runner_{lang}_demo.py\n" in told
    (made,) = json.loads(ferrule("build", name, "--json").stdout)["libraries"]
    assert made["plugins"] == [{"kind": "runner", "name": name}]
    assert ferrule("call", made["path"], "run", "-i", '{"text": "hi"}').stdout == '"hi"\n'
    demo = [sys.executable, f"{name}/my_runner_{lang}_demo.py"]
    done = subprocess.run(demo, cwd=work, env=environment(work, work), capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("hello\n" * 6, "")


@pytest.mark.skipif(shutil.which("cargo") is None, reason="no cargo")
@pytest.mark.parametrize("kind", ["function", "runner"])
def test_cargo_by_hand_builds_a_new_plugin(ferrule: Ferrule, work: Path, kind: str) -> None:
    """cargo alone finds ferrule's crates through the .cargo/config.toml that `new` wrote; the plugin's tests pass."""
    ferrule("new", kind, "by-hand")
    assert "/.cargo/" in (work / "by-hand" / ".gitignore").read_text()
    command = ["cargo", "test", "--offline", "--quiet"]
    done = subprocess.run(command, cwd=work / "by-hand", capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", ["Upper", "1st", "with space", "a/b", "..", "", "fn", "é", "a" * 65, "ferrule-plugin"])
def test_new_refuses_names_that_cargo_or_a_manifest_would(ferrule: Ferrule, work: Path, name: str) -> None:
    """Said at once, with what a name may be; nothing is written."""
    before = sorted(work.iterdir())
    assert "cannot be the name" in ferrule("new", "function", name, status=2).stderr
    assert sorted(work.iterdir()) == before


def test_build_fails_with_the_compilers_own_words(ferrule: Ferrule, work: Path) -> None:
    """Status 1, the compiler's message on stderr, and no library left behind."""
    folder = work / "broken"
    folder.mkdir()
    (folder / "broken.c").write_text("int f(void) { return oops; }\n")
    done = ferrule("build", folder, status=1)
    assert "oops" in done.stderr and done.stderr.splitlines()[-1].startswith("error: cc failed")
    assert not list(folder.rglob(f"*{SUFFIX}"))


def test_build_says_what_it_lacks(ferrule: Ferrule, work: Path) -> None:
    """No sources, no folder, no compiler, a library without a manifest: one message each."""
    (work / "bare").mkdir()
    assert "neither a Cargo.toml nor a .c file" in ferrule("build", "bare", status=1).stderr
    assert "does not exist" in ferrule("build", "nowhere", status=1).stderr
    (work / "bare" / "bare.c").write_text("int f(void) { return 1; }\n")
    assert "the C compiler 'no-such-cc'" in ferrule("build", "bare", status=1, CC="no-such-cc").stderr
    assert "manifest" in ferrule("build", "bare", status=1).stderr.splitlines()[-1]
    (work / "bare" / "Cargo.toml").write_text("")
    assert "cargo is not on this machine" in ferrule("build", "bare", status=1, PATH="/nowhere").stderr


def test_build_respects_the_compilers_settings(ferrule: Ferrule, work: Path) -> None:
    """CFLAGS reach the compiler, and a file that needs them compiles."""
    ferrule("new", "function", "flagged", "--lang", "c")
    (source,) = (work / "flagged").glob("*.c")
    source.write_text("#ifndef GIVEN\n#error not given\n#endif\n" + source.read_text())
    ferrule("build", "flagged", status=1)
    ferrule("build", "flagged", CFLAGS="-DGIVEN")


def test_sdk_flags_compile_a_plugin(ferrule: Ferrule, work: Path) -> None:
    """`cc $(ferrule sdk --cflags)` finds the headers; the folders exist."""
    flags = ferrule("sdk", "--cflags").stdout.split()
    (work / "plain.c").write_text('#include "ferrule_sdk.h"\n')
    subprocess.run(["cc", "-fsyntax-only", *flags, "plain.c"], cwd=work, check=True)
    assert (Path(ferrule("sdk", "--include-dir").stdout.strip()) / "ferrule.h").is_file()
    assert Path(ferrule("sdk", "--rust-dir").stdout.strip()).is_dir()


def test_doctor_shows_the_installation(ferrule: Ferrule, plugins: Path) -> None:
    """Host, search path and tools; a folder of FERRULE_PLUGIN_PATH that is missing is a problem with advice."""
    found = json.loads(ferrule("doctor", "--json").stdout)
    assert found["host"]["abi"] == "0.1"
    assert {"path": str(plugins), "origin": "FERRULE_PLUGIN_PATH", "exists": True} in found["search_path"]
    assert found["tools"]["cc"]["path"]
    done = ferrule("doctor", FERRULE_PLUGIN_PATH="/nowhere/plugins")
    assert "warning: /nowhere/plugins of FERRULE_PLUGIN_PATH is not there" in done.stdout
