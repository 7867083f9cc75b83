"""The example plugins in Rust, through a host: what they do, and what they say of bad input, configurations and files.

Their libraries are those of ``build/plugins``. Python's own csv and json are the judges.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import ferrule
from ferrule.plugins.stream import Stream

ROOT = Path(__file__).resolve().parents[1]
PLUGINS = ROOT / "build" / "plugins"
SUFFIX = {"darwin": ".dylib", "win32": ".dll"}.get(sys.platform, ".so")
PANICS = PLUGINS / "faulty" / f"libfaulty_rust{SUFFIX}"

pytestmark = [
    pytest.mark.skipif(shutil.which("cargo") is None, reason="without cargo there are no Rust plugins"),
    pytest.mark.skipif(not PLUGINS.is_dir(), reason="build/plugins is not built: make plugins"),
]
posix = pytest.mark.skipif(sys.platform == "win32", reason="pipes by name are POSIX's")

Record = dict[str, Any]


@pytest.fixture(scope="module")
def host() -> Iterator[ferrule.Host]:
    with ferrule.Host([PLUGINS]) as host:
        yield host


def read(stream: Stream) -> list[Record | ferrule.InvalidDataError]:
    """Everything a stream gives, with the error of a bad item in its place."""
    items: list[Record | ferrule.InvalidDataError] = []
    while True:
        try:
            items.append(next(stream))
        except StopIteration:
            return items
        except ferrule.InvalidDataError as error:
            items.append(error)


Read = Callable[..., list[Any]]


@pytest.fixture
def read_csv(host: ferrule.Host, tmp_path: Path) -> Read:
    """``read_csv(text, **config)``: what csv-source makes of a file with that text."""
    path = tmp_path / "input.csv"

    def read_csv(text: str | bytes, **config: Any) -> list[Any]:
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        with host.source("csv-source", {"path": str(path), **config}) as source:
            return read(source.read())

    return read_csv


@pytest.fixture
def read_jsonl(host: ferrule.Host, tmp_path: Path) -> Read:
    """``read_jsonl(bytes)``: what jsonl-source makes of a file with those bytes."""
    path = tmp_path / "input.jsonl"

    def read_jsonl(text: bytes, **config: Any) -> list[Any]:
        path.write_bytes(text)
        with host.source("jsonl-source", {"path": str(path), **config}) as source:
            return read(source.read())

    return read_jsonl


# ---- hello-source, add-metadata --------------------------------------------------------------------


@pytest.mark.parametrize("config", [{}, {"count": 0}, {"count": 12}])
def test_hello_source_is_its_twin(host: ferrule.Host, config: dict[str, Any]) -> None:
    """The Rust plugin and its C twin give the same records, the same schema and the same positions."""
    seen = []
    for language in ("rust", "c"):
        with host.source("hello-source", config, language=language) as source:
            seen.append((list(source.instance.open("read_data", b"{}")), list(source), list(source.read(1))))
            properties = source.schema()["properties"]
            assert {name: field["type"] for name, field in properties.items()} == {"id": "integer", "message": "string"}
    assert seen[0] == seen[1]
    assert len(seen[0][0]) == config.get("count", 2)
    if not config:
        assert seen[0][2] == [{"id": 2, "message": "Hello from Rust Source 2"}]


def test_add_metadata_is_its_twin(host: ferrule.Host) -> None:
    """Both stamp with the configured name, or with the default, and the time of the call in RFC 3339."""
    record = {"id": 1, "text": "Zoë\n", "nested": {"a": [1.50, None]}}
    for language in ("rust", "c"):
        for config, name in (({}, "unknown_rust_plugin"), ({"plugin_name": "démo"}, "démo")):
            with host.function("add-metadata", config, language=language) as stamp:
                began = datetime.now(UTC)
                stamped = stamp.process(record)
                assert began <= datetime.fromisoformat(stamped.pop("rust_enriched_timestamp")) <= datetime.now(UTC)
                assert stamped == {**record, "processed_by_rust_plugin": name}
                with pytest.raises(ferrule.InvalidDataError, match="Data must be a JSON object"):
                    stamp.process([record])


def test_add_metadata_is_the_example_of_the_readme() -> None:
    """The README's plugin is the plugin, letter by letter, in 25 lines that are not empty."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    found = re.search(r"<!-- example: rust -->\n```rust\n(.*?)```", readme, re.DOTALL)
    assert found is not None
    source = (ROOT / "example_plugins" / "rust" / "add-metadata" / "src" / "lib.rs").read_text(encoding="utf-8")
    assert found[1] == source
    assert sum(bool(line.strip()) for line in source.splitlines()) <= 25


# ---- csv-source ------------------------------------------------------------------------------------


def test_csv_values_are_what_they_are_written_as(read_csv: Read) -> None:
    """A number where it is written as JSON writes one, null where the configuration says so, text otherwise."""
    rows = read_csv("a,b,c\n1,-2.50,0012\n,NA,x\n-0,1e5,\n", null_values=["", "NA"])
    assert rows == [{"a": 1, "b": -2.5, "c": "0012"}, {"a": None, "b": None, "c": "x"}, {"a": 0, "b": "1e5", "c": None}]


def test_csv_keeps_the_text_of_numbers(host: ferrule.Host, tmp_path: Path) -> None:
    """A number's own digits reach the record: nothing is rounded on the way."""
    path = tmp_path / "input.csv"
    path.write_text("a,b\n123456789012345678901234567890,1.50\n")
    with host.source("csv-source", {"path": str(path)}) as source:
        (line,) = source.instance.open("read_data", b"{}")
    assert line == b'{"a":123456789012345678901234567890,"b":1.50}'


def test_csv_types_may_be_given(read_csv: Read) -> None:
    """`type` is for all columns, `types` for single ones."""
    text = "a,b,c,d,e\n+007,.5,TRUE,12,1\n,,,,\n"
    types = {"a": "integer", "b": "number", "c": "boolean", "e": "infer"}
    assert read_csv(text, type="text", types=types) == [
        {"a": 7, "b": 0.5, "c": True, "d": "12", "e": 1},
        dict.fromkeys("abcde"),
    ]
    assert read_csv("a\n12\n", type="text", null_values=[]) == [{"a": "12"}]


@pytest.mark.parametrize(
    ("column_type", "value"),
    [("integer", "1.0"), ("number", "one"), ("boolean", "yes"), ("integer", "a much longer value")],
)
def test_csv_value_of_another_type_is_that_records_error(read_csv: Read, column_type: str, value: str) -> None:
    """The error names file, line, column, value and type, and holds the row; the next row is read."""
    bad, good = read_csv(f"id,a\n1,{value}\n2,1\n", types={"a": column_type})
    assert isinstance(bad, ferrule.InvalidDataError)
    assert re.search(rf'input\.csv, line 2: column "a" holds "{value}", and {column_type} is expected', str(bad))
    assert bad.details == {"record": f"1,{value}", "line": 2}
    assert good["id"] == 2


def test_csv_quotes(read_csv: Read) -> None:
    """Delimiters, quotes and line breaks inside of quotes are text; a quote inside of a field is, too."""
    text = 'a,b\r\n"1,""x""\r\ny",2\r\n"",a"b\r\n\r\n3,"é\t\\"\r\n'
    assert read_csv(text) == [{"a": '1,"x"\r\ny', "b": 2}, {"a": None, "b": 'a"b'}, {"a": 3, "b": "é\t\\"}]


def test_csv_dialects(read_csv: Read) -> None:
    """Delimiter and quote are the configuration's; an empty quote is none."""
    assert read_csv("a;b\n'x;y';1\n", delimiter=";", quote="'") == [{"a": "x;y", "b": 1}]
    assert read_csv('a\tb\n"x\t1\n', delimiter="\t", quote="") == [{"a": '"x', "b": 1}]


def test_csv_names_of_columns(read_csv: Read) -> None:
    """Without a header columns are c1, c2, …; `columns` names them, with a header or without."""
    assert read_csv("1,x\n2,y\n", header=False) == [{"c1": 1, "c2": "x"}, {"c1": 2, "c2": "y"}]
    assert read_csv("1,x\n", header=False, columns=["id", "n"]) == [{"id": 1, "n": "x"}]
    assert read_csv("a,a\n1,x\n", columns=["id", 'quo"te']) == [{"id": 1, 'quo"te': "x"}]
    assert read_csv("\ufeffa,b\n1,2\n") == [{"a": 1, "b": 2}]
    assert read_csv('"a\nb",""\n1,2\n') == [{"a\nb": 1, "": 2}]
    assert read_csv("", header=False) == []
    assert read_csv("a,b\n") == []


def test_csv_a_malformed_row_is_one_records_error(read_csv: Read) -> None:
    """Too few fields, too many, bytes that are not UTF-8, a quote never closed: each spoils one row, says where and
    what, and holds the row; all others are read."""
    text = b'a,b\n1\n2,x\n3,x,y\n4,\xff\n"5\n",x\n6,"x\n7,x\n'
    items = read_csv(text)
    assert [item["a"] for item in items if isinstance(item, dict)] == [2, "5\n", 7]
    errors = [(str(item).split(" (plugin")[0], item.details) for item in items if isinstance(item, ferrule.PluginError)]
    names = [message.partition(": ")[2] for message, _ in errors]
    assert names == [
        "the row has 1 field, and there are 2 columns",
        "the row has 3 fields, and there are 2 columns",
        f"the row is not UTF-8, at byte {text.index(0xFF)} of the file",
        "a quote is opened, and not closed in the rest of the file",
    ]
    assert [message.partition(": ")[0].rpartition(", ")[2] for message, _ in errors] == [
        f"line {details['line']}" for _, details in errors
    ]
    assert [details for _, details in errors] == [
        {"record": "1", "line": 2},
        {"record": "3,x,y", "line": 4},
        {"record": "4,�", "line": 5},
        {"record": '6,"x', "line": 8},
    ]


def test_csv_a_giant_bad_row_is_cut_in_its_error(read_csv: Read) -> None:
    """The error of a row of megabytes holds its beginning and says how long it is; the next row is read."""
    bad, good = read_csv("a,b\n" + "x" * 3_000_000 + "\n1,2\n")
    assert len(bad.details["record"]) == 128 * 1024
    assert bad.details["record_bytes"] == 3_000_000
    assert good == {"a": 1, "b": 2}


def test_csv_rows_of_megabytes(read_csv: Read) -> None:
    """A row may be longer than what is read at once, with quotes and without."""
    long = "word " * 200_000
    assert read_csv(f'a,b\n{long},1\n"{long}\n",2\n') == [{"a": long, "b": 1}, {"a": long + "\n", "b": 2}]


def check_positions(host: ferrule.Host, plugin: str, path: Path, pieces: list[bytes]) -> None:
    """A file of one item a piece is read piece after piece, as it grows, each time from where the last reading stood:
    that gives what one reading gives, line numbers too. Without a position a reading begins at the beginning."""
    path.write_bytes(b"".join(pieces))
    with host.source(plugin, {"path": str(path)}) as source:
        whole = [str(item) for item in read(source.read())]
        assert len(whole) == len(pieces)
        assert [str(item) for item in read(source.read())] == whole
    path.write_bytes(pieces[0])
    with host.source(plugin, {"path": str(path)}) as source:
        found: list[str] = []
        position = None
        for number in range(len(pieces)):
            path.write_bytes(b"".join(pieces[: number + 1]))
            with source.read(position) as stream:
                try:
                    found.append(str(next(stream)))
                except ferrule.InvalidDataError as error:
                    found.append(str(error))
                position = stream.position()
                assert read(stream) == []
    assert found == whole


def test_csv_goes_on_from_a_position(host: ferrule.Host, tmp_path: Path) -> None:
    """A position is the place after a row, whatever its line breaks and quotes, and after a bad row too."""
    pieces = [
        b"a,b\r\n1,x\r\n",
        b'\r\n2,"y\r\nz"\r\n',
        b"3\r\n",
        b'"4",\xc3\xa9\r',
        b'5,"a""b"\n',
        b"\n6,\xff\n",
        b'\r7,"x\n',
        b"8,x",
    ]
    check_positions(host, "csv-source", tmp_path / "input.csv", pieces)


@pytest.mark.parametrize(("plugin", "text"), [("csv-source", "a\n1\n2\n"), ("jsonl-source", '{"a":1}\n{"a":2}\n')])
def test_position_of_another_file_is_refused(host: ferrule.Host, tmp_path: Path, plugin: str, text: str) -> None:
    """A position of a file that was replaced or cut since, or one that is no position, is an INVALID_ARGUMENT that
    says so; a file that has only grown is the same file."""
    path = tmp_path / "input"
    path.write_text(text)
    with host.source(plugin, {"path": str(path)}) as source:
        with source.read() as records:
            list(records)
        with source.read() as records:
            assert next(records) == {"a": 1}
            behind = {**records.position()}
        path.write_text(text + text[-len(text.splitlines()[-1]) - 1 :])
        with source.read(behind) as records:
            assert len(list(records)) == 1
        path.write_text(text.replace("1", "7"))
        with pytest.raises(ferrule.InvalidArgumentError, match="it was replaced"):
            source.read(behind)
        path.write_text(text[:3])
        with pytest.raises(ferrule.InvalidArgumentError, match=r"not the file that was read|it was replaced"):
            source.read(behind)
        with pytest.raises(ferrule.InvalidArgumentError, match="position"):
            source.read(7)


@pytest.mark.skipif(sys.platform != "linux", reason="/proc counts what is read")
@pytest.mark.parametrize(
    ("plugin", "head", "line"), [("csv-source", b"a,b\n", b"1,%b\n"), ("jsonl-source", b"", b'{"a":1,"b":"%b"}\n')]
)
def test_a_resumed_source_reads_the_tail_alone(
    host: ferrule.Host, tmp_path: Path, plugin: str, head: bytes, line: bytes
) -> None:
    """From a position at 99 % of a file a source reads the last per cent of it, and no more than a buffer beside."""
    path = tmp_path / "input"
    row = line.replace(b"%b", b"x" * 10_000)
    path.write_bytes(head + 2000 * row)
    with host.source(plugin, {"path": str(path)}) as source:
        with source.read() as records:
            taken = len([next(records) for _ in range(1980)])
            while records.ready:  # the position is behind what was read ahead
                taken += bool(next(records))
            position = records.position()
        before = _bytes_read()
        with source.read(position) as records:
            assert len(list(records)) == 2000 - taken
        assert (2000 - taken) * len(row) <= _bytes_read() - before < 50 * len(row)


def _bytes_read() -> int:
    """What this process has read from files until now."""
    return int(re.findall(r"rchar: (\d+)", Path("/proc/self/io").read_text(encoding="ascii"))[0])


def test_csv_schema_is_that_of_its_records(host: ferrule.Host, tmp_path: Path) -> None:
    """The schema names every column with its types, and every record fits it."""
    path = tmp_path / "input.csv"
    path.write_text("a,b,c\n1,2,true\nx,,0\n-1.5,7,\n")
    config = {"path": str(path), "types": {"b": "integer", "c": "boolean"}}
    with host.source("csv-source", config) as source:
        schema = source.schema()
        records = list(source)
    assert schema["properties"]["a"] == {"type": ["number", "string", "null"]}
    assert schema["properties"]["b"] == {"type": ["integer", "null"]}
    assert schema["required"] == ["a", "b", "c"]
    validator = jsonschema_rs.validator_for(schema)
    assert len(records) == 3
    assert all(validator.is_valid(record) for record in records)
    assert not validator.is_valid({"a": 1, "b": "x", "c": None})


@pytest.mark.parametrize(
    ("config", "error", "message"),
    [
        ({"path": "none.csv"}, ferrule.NotFoundError, r"none\.csv: there is no such file \(seen from /"),
        ({"path": "."}, ferrule.PluginIOError, r"it is a folder, and a file is expected"),
        ({}, ferrule.InvalidConfigError, "path"),
        ({"path": "x", "delimiter": "é"}, ferrule.InvalidConfigError, 'delimiter: expected one ASCII character.*"é"'),
        (
            {"path": "x", "delimiter": "\n"},
            ferrule.InvalidConfigError,
            "delimiter: expected one ASCII character, and no",
        ),
        ({"path": "x", "delimiter": ",,"}, ferrule.InvalidConfigError, "delimiter"),
        ({"path": "x", "quote": "''"}, ferrule.InvalidConfigError, "quote: expected one ASCII character"),
        ({"path": "x", "quote": ","}, ferrule.InvalidConfigError, "quote: expected another character than"),
        ({"path": "x", "type": "float"}, ferrule.InvalidConfigError, "type"),
        ({"path": "x", "types": {"a": "float"}}, ferrule.InvalidConfigError, "types"),
        ({"path": "x", "columns": ["a", "b", "a"]}, ferrule.InvalidConfigError, 'columns: "a" stands there twice'),
        ({"path": "x", "separator": ";"}, ferrule.InvalidConfigError, "separator"),
        ({"path": "DATA", "types": {"c": "text"}}, ferrule.InvalidConfigError, 'no column "c"; its columns are a, b'),
        (
            {"path": "DATA", "columns": ["x"]},
            ferrule.InvalidConfigError,
            "there are 1 names, and the header of .* has 2",
        ),
        ({"path": "TWICE"}, ferrule.InvalidDataError, 'line 2: two columns are called "a"'),
        ({"path": "EMPTY"}, ferrule.InvalidDataError, "the file is empty.*header: false"),
        ({"path": "LATIN"}, ferrule.InvalidDataError, "line 1: the row of the columns' names is not UTF-8"),
    ],
)
def test_csv_refuses(
    host: ferrule.Host, tmp_path: Path, config: Record, error: type[ferrule.PluginError], message: str
) -> None:
    """A configuration or a file that cannot be is refused before a record is read, and the error says what, where."""
    files = {"DATA": b"a,b\n1,2\n", "TWICE": b"\na,b,a\n", "EMPTY": b"\n\n", "LATIN": b"a\xe9\n1\n"}
    if config.get("path") in files:
        path = tmp_path / config["path"]
        path.write_bytes(files[config["path"]])
        config = {**config, "path": str(path)}
    with pytest.raises(error, match=message) as caught:
        host.source("csv-source", config)
    assert caught.value.plugin == "csv-source"


@pytest.mark.parametrize("plugin", ["csv-source", "jsonl-source", "hello-source"])
def test_a_source_is_connected_before_it_is_read(host: ferrule.Host, tmp_path: Path, plugin: str) -> None:
    """read_data and schema before connect and after close are INVALID_STATE; closing twice is harmless; a reading
    that stops early leaves the source usable, and so does one that was never begun."""
    path = tmp_path / "input"
    path.write_text("".join(f'{{"a":{number}}}\n' for number in range(5000)))
    with host.create(plugin, {} if plugin == "hello-source" else {"path": str(path)}, language="rust") as source:
        for method in ("schema", "close"):
            if method == "schema":
                with pytest.raises(ferrule.InvalidStateError, match="before connect"):
                    source.call(method)
            with pytest.raises(ferrule.InvalidStateError, match="before connect"):
                source.open("read_data")
        source.call("connect")
        with source.open("read_data") as stream:
            first = next(stream)
        assert next(source.open("read_data")) == first
        source.open("read_data").close()
        source.call("close")
        source.call("close")
        with pytest.raises(ferrule.InvalidStateError, match="after close"):
            source.open("read_data")


@posix
@pytest.mark.parametrize(("plugin", "text"), [("csv-source", b"a\n1\n2\n"), ("jsonl-source", b'{"a":1}\n{"a":2}\n')])
def test_a_pipe_is_read_once(host: ferrule.Host, tmp_path: Path, plugin: str, text: bytes) -> None:
    """What is no regular file can be read too; asked a second time, it is UNSUPPORTED."""
    path = tmp_path / "pipe"
    os.mkfifo(path)
    writer = threading.Thread(target=path.write_bytes, args=(text,))
    writer.start()
    with host.source(plugin, {"path": str(path)}) as source:
        assert list(source) == [{"a": 1}, {"a": 2}]
        writer.join()
        with pytest.raises(ferrule.UnsupportedError, match="can be read once"):
            source.read()


TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12) | st.sampled_from(
    ["", '"', ",", "\n", "\r\n", "a\rb", "NA", "0", "-1.50", "12345678", "123456789", "\\", "\x00", "\ufeff", "é" * 9]
)


@given(data=st.data())
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_csv_gives_back_what_python_wrote(read_csv: Read, data: st.DataObject) -> None:
    """Any table that Python's csv module writes comes back, whatever stands in it and however it is quoted."""
    width = data.draw(st.integers(1, 5))
    names = data.draw(st.lists(TEXT, min_size=width, max_size=width, unique=True))
    rows = data.draw(st.lists(st.lists(TEXT, min_size=width, max_size=width), max_size=8))
    delimiter = data.draw(st.sampled_from(",;\t|"))
    file = io.StringIO()
    quoted = data.draw(st.booleans())
    writer = csv.writer(
        file, delimiter=delimiter, quoting=csv.QUOTE_ALL if quoted else csv.QUOTE_MINIMAL, lineterminator="\r\n"
    )
    writer.writerows([names, *rows])
    text = file.getvalue()
    if text.startswith("\ufeff"):
        text = "\ufeff" + text  # else it would be a byte order mark
    expected = [dict(zip(names, row, strict=True)) for row in rows]
    assert read_csv(text, delimiter=delimiter, type="text", null_values=[]) == expected


@given(text=st.text('ab,"\n\r', max_size=40))
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_csv_reads_as_python_reads(read_csv: Read, text: str) -> None:
    """Any text is the rows that Python's csv module makes of it; only a quote that is never closed is told of here."""
    rows = [row for row in csv.reader(io.StringIO(text, newline="")) if row]
    items = read_csv(text, header=False, columns=["a", "b"], type="text", null_values=[])
    if any("not closed" in str(item) for item in items):
        return
    found = [list(item.values()) if isinstance(item, dict) else None for item in items]
    assert found == [row if len(row) == 2 else None for row in rows]


# ---- jsonl-source ----------------------------------------------------------------------------------


def test_jsonl_reads_lines(read_jsonl: Read) -> None:
    """A line is a record as it stands; blank lines, spaces around it, \r\n and a byte order mark are passed over, and
    the last line needs no end."""
    text = b'\xef\xbb\xbf{"a":1}\r\n\n  \t\n {"a": {"b": [1, null]}} \n\n{"a":"\\u00e9\xc3\xa9"}'
    assert read_jsonl(text) == [{"a": 1}, {"a": {"b": [1, None]}}, {"a": "éé"}]
    assert read_jsonl(b"") == []


def test_jsonl_a_bad_line_is_one_records_error(read_jsonl: Read) -> None:
    """What is no JSON, no object or no UTF-8 is that record's error, with its place and text; the others are read."""
    items = read_jsonl(b'{"a":1}\n{"a":\n[1]\n\n{"a":"\xff"}\n{"a":2}{"a":3}\n{"a":4}\n')
    assert [item for item in items if isinstance(item, dict)] == [{"a": 1}, {"a": 4}]
    errors = [item for item in items if isinstance(item, ferrule.PluginError)]
    assert [error.details for error in errors] == [
        {"record": '{"a":', "line": 2},
        {"record": "[1]", "line": 3},
        {"record": '{"a":"�"}', "line": 5},
        {"record": '{"a":2}{"a":3}', "line": 6},
    ]
    for error, message in zip(errors, ["too soon", "Data must be a JSON object", "not UTF-8", "after"], strict=True):
        assert re.search(rf"input\.jsonl, line {error.details['line']}: .*{message}", str(error))


def test_jsonl_lines_of_megabytes(read_jsonl: Read) -> None:
    """A line may be longer than what is read at once."""
    long = "x" * 5_000_000
    assert read_jsonl(json.dumps({"a": long}).encode() + b'\n{"a":1}\n') == [{"a": long}, {"a": 1}]


def test_jsonl_goes_on_from_a_position(host: ferrule.Host, tmp_path: Path) -> None:
    """A position is the place after a line."""
    pieces = [b'{"a":1}\n', b'\n\r\n{"a":2}\r\n', b"[]\n", b'{"a":3}\n\n', b'{"a":4}']
    check_positions(host, "jsonl-source", tmp_path / "input.jsonl", pieces)


@pytest.mark.parametrize(
    ("path", "error", "message"),
    [
        ("none.jsonl", ferrule.NotFoundError, r"none\.jsonl: there is no such file \(seen from /"),
        (".", ferrule.PluginIOError, "it is a folder"),
    ],
)
def test_jsonl_source_refuses(host: ferrule.Host, path: str, error: type[ferrule.PluginError], message: str) -> None:
    """A file that is not there, or is none, is refused with its path."""
    with pytest.raises(error, match=message):
        host.source("jsonl-source", {"path": path})


# ---- jsonl-sink ------------------------------------------------------------------------------------


def test_jsonl_sink_writes_lines(host: ferrule.Host, tmp_path: Path) -> None:
    """Records are lines, in order; missing folders are made; the mark is the file's length; a new sink begins anew."""
    path = tmp_path / "new" / "folder" / "out.jsonl"
    for count in (3, 1):
        with host.sink("jsonl-sink", {"path": str(path)}) as sink:
            sink.write([{"id": number} for number in range(count)])
            sink.write({"text": "é\n"})
            sink.write([])
            assert sink.flush() == {"length": path.stat().st_size}
        lines = [json.loads(line) for line in path.read_bytes().splitlines()]
        assert lines == [*({"id": number} for number in range(count)), {"text": "é\n"}]


def test_jsonl_sink_appends(host: ferrule.Host, tmp_path: Path) -> None:
    """`append` keeps what is there; a last line without its end is ended first, so that no record joins it."""
    path = tmp_path / "out.jsonl"
    for before, after in ((None, b""), (b"", b""), (b'{"a":0}\n', b'{"a":0}\n'), (b'{"a"', b'{"a"\n')):
        path.unlink(missing_ok=True)
        if before is not None:
            path.write_bytes(before)
        with host.sink("jsonl-sink", {"path": str(path), "append": True}) as sink:
            assert sink.flush() == {"length": len(after)}
            sink.write({"a": 1})
            assert sink.flush() == {"length": len(after) + 8}
        assert path.read_bytes() == after + b'{"a":1}\n'


@pytest.mark.parametrize("append", [False, True])
def test_jsonl_sink_goes_on_from_a_mark(host: ferrule.Host, tmp_path: Path, append: bool) -> None:
    """Opened with a mark it cuts what came after and goes on there; a file that is shorter, or gone, is refused and
    left as it is."""
    path = tmp_path / "out.jsonl"
    config = {"path": str(path), "append": append}
    with host.sink("jsonl-sink", config) as sink:
        sink.write({"a": 1})
        mark = sink.flush()
        sink.write([{"a": 2}, {"a": 3}])
    with host.sink("jsonl-sink", config, mark=mark) as sink:
        assert sink.flush() == mark
        sink.write({"a": 4})
    assert path.read_bytes() == b'{"a":1}\n{"a":4}\n'
    with pytest.raises(ferrule.InvalidArgumentError, match="the mark says 99 bytes, and the file has 16"):
        host.sink("jsonl-sink", config, mark={"length": 99})
    assert path.read_bytes() == b'{"a":1}\n{"a":4}\n'
    path.unlink()
    with pytest.raises(ferrule.NotFoundError, match="no such file"):
        host.sink("jsonl-sink", config, mark=mark)
    assert not path.exists()
    with pytest.raises(ferrule.InvalidArgumentError, match="mark"):
        host.sink("jsonl-sink", config, mark="here")
    host.sink("jsonl-sink", config, mark={"length": 0}).close()
    assert path.read_bytes() == b""


def test_jsonl_sink_refuses(host: ferrule.Host, tmp_path: Path) -> None:
    """A folder, or a path through a file, is an IO error with the path; writing before open is INVALID_STATE."""
    with pytest.raises(ferrule.PluginIOError, match=re.escape(str(tmp_path))):
        host.sink("jsonl-sink", {"path": str(tmp_path)})
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(ferrule.PluginIOError, match="file"):
        host.sink("jsonl-sink", {"path": str(file / "folder" / "out.jsonl")})
    with host.create("jsonl-sink", {"path": str(tmp_path / "out")}) as sink:
        for method in ("write", "flush"):
            with pytest.raises(ferrule.InvalidStateError, match=f"{method} before open"):
                sink.call(method, b'{"a":1}\n')
        sink.call("open")
        with pytest.raises(ferrule.InvalidArgumentError, match="whole lines"):
            sink.call("write", b'{"a":1}')
        sink.call("close")
        sink.call("close")
        with pytest.raises(ferrule.InvalidStateError, match="write after close"):
            sink.call("write", b'{"a":1}\n')


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system with room for 64 KiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)]
    if not sys.platform.startswith("linux") or os.geteuid() != 0 or subprocess.run(command, check=False).returncode:
        pytest.skip("only root may mount a small file system")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.parametrize("append", [False, True])
def test_jsonl_sink_on_a_full_disk(host: ferrule.Host, small_disk: Path, append: bool) -> None:
    """A write that does not fit leaves nothing of itself: the file is whole lines, as it was, and what fits goes on
    being written."""
    path = small_disk / "out.jsonl"
    line = {"text": "x" * 1000}
    with host.sink("jsonl-sink", {"path": str(path), "append": append}) as sink:
        sink.write([line] * 40)
        mark = sink.flush()
        for _ in range(2):
            with pytest.raises(
                ferrule.PluginIOError, match=r"out\.jsonl: No space left on device.*nothing of this"
            ) as error:
                sink.write([line] * 40)
            assert error.value.details == mark
            assert path.stat().st_size == mark["length"]
        sink.write([line] * 10)
    assert [json.loads(each) for each in path.read_bytes().splitlines()] == [line] * 50


@posix
def test_jsonl_sink_on_a_closed_pipe(host: ferrule.Host, tmp_path: Path) -> None:
    """A pipe that nobody reads any more is an IO error with its path, also the second time; it has no mark."""
    path = tmp_path / "pipe"
    os.mkfifo(path)
    read_end = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    with host.sink("jsonl-sink", {"path": str(path)}) as sink:
        sink.write({"a": 1})
        assert os.read(read_end, 100) == b'{"a":1}\n'
        assert sink.flush() is None
        os.close(read_end)
        for _ in range(2):
            with pytest.raises(ferrule.PluginIOError, match=r"pipe: Broken pipe"):
                sink.write({"a": 2})
    read_end = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    with pytest.raises(ferrule.InvalidArgumentError, match="cannot be cut to a mark"):
        host.sink("jsonl-sink", {"path": str(path)}, mark={"length": 8})
    os.close(read_end)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
def test_jsonl_sink_on_a_full_device(host: ferrule.Host) -> None:
    """A device that takes nothing is an IO error with its path."""
    with (
        host.sink("jsonl-sink", {"path": "/dev/full"}) as sink,
        pytest.raises(ferrule.PluginIOError, match="/dev/full: No space left"),
    ):
        sink.write({"a": 1})


@pytest.mark.parametrize("path", ["-", "/dev/stdout"])
@pytest.mark.parametrize("kind", ["pipe", "file"])
def test_jsonl_sink_on_standard_output(tmp_path: Path, path: str, kind: str) -> None:
    """`-` is the standard output, in order with what the program prints; a file behind it is not emptied."""
    if sys.platform == "win32" and path != "-":
        pytest.skip("no such path")
    program = f"""
import ferrule
with ferrule.Host([{str(PLUGINS)!r}]) as host:
    print("before", flush=True)
    with host.sink("jsonl-sink", {{"path": {path!r}}}) as sink:
        sink.write([{{"a": 1}}, {{"a": 2}}])
        assert sink.flush() is None
    print("after", flush=True)
"""
    out = tmp_path / "out"
    with out.open("wb") as file:
        target = file if kind == "file" else subprocess.PIPE
        done = subprocess.run([sys.executable, "-c", program], stdout=target, check=True)
    text = out.read_bytes() if kind == "file" else done.stdout
    assert text.splitlines() == [b"before", b'{"a":1}', b'{"a":2}', b"after"]


# ---- redact, require, lookup -----------------------------------------------------------------------

FIELD = st.sampled_from(["a", "b", "ab", 'quo"te', "é", ""])
VALUE = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20) | st.sampled_from(["k", "12", "missing"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(FIELD, inner, max_size=3),
    max_leaves=5,
)
RECORDS = st.dictionaries(FIELD, VALUE, max_size=6)
ASCII = st.booleans()


def as_bytes(record: Any, ascii_only: bool = True) -> bytes:
    return json.dumps(record, ensure_ascii=ascii_only).encode()


@given(record=RECORDS, fields=st.lists(FIELD, min_size=1, max_size=3), ascii_only=ASCII)
@settings(max_examples=150, deadline=None)
def test_redact(host: ferrule.Host, record: Record, fields: list[str], ascii_only: bool) -> None:
    """Any record keeps its other fields, in their order; a masked one holds *** unless it is null, a dropped one is
    gone, however its name is written."""
    text = as_bytes(record, ascii_only)
    with host.function("redact", {"fields": fields}) as redact:
        found = json.loads(redact.process(text))
    masked = {name: "***" if name in fields and value is not None else value for name, value in record.items()}
    assert list(found.items()) == list(masked.items())
    with host.function("redact", {"fields": fields, "mode": "drop"}) as redact:
        found = json.loads(redact.process(text))
    assert list(found.items()) == [item for item in record.items() if item[0] not in fields]


@given(record=RECORDS, fields=st.lists(FIELD, min_size=1, max_size=3), ascii_only=ASCII)
@settings(max_examples=150, deadline=None)
def test_require(host: ferrule.Host, record: Record, fields: list[str], ascii_only: bool) -> None:
    """A record passes as it is, byte for byte, if all named fields are there and not null; else it is skipped, or
    invalid data that names the first of them and what is wrong."""
    text = as_bytes(record, ascii_only)
    lacking = next((name for name in fields if record.get(name) is None), None)
    with host.function("require", {"fields": fields}) as require:
        assert require.process(text) == (text if lacking is None else None)
    with host.function("require", {"fields": fields, "otherwise": "invalid"}) as require:
        if lacking is None:
            assert require.process(text) == text
            return
        with pytest.raises(ferrule.InvalidDataError) as error:
            require.process(text)
    problem = "null" if lacking in record else "missing"
    assert error.value.details == {"field": lacking, "problem": problem}
    assert error.value.message.startswith("field ") and error.value.message.endswith(f" is {problem}")


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("lookup") / "table.csv"
    path.write_text('key,name,size,note\nk,"Zoë ""Z""",0012,\n12,twelve,1.50,"a\nb"\ntrue,yes,7,x\n', encoding="utf-8")
    return path


ROWS: dict[str, Record] = {
    "k": {"n": 'Zoë "Z"', "size": "0012", "b": None},
    "12": {"n": "twelve", "size": 1.5, "b": "a\nb"},
    "true": {"n": "yes", "size": 7, "b": "x"},
}


@given(record=RECORDS, field=FIELD, ascii_only=ASCII)
@settings(max_examples=200, deadline=None)
def test_lookup(host: ferrule.Host, table: Path, record: Record, field: str, ascii_only: bool) -> None:
    """A text or a number that is a key gets the row's columns, in the order of the table; one that the record has is
    replaced in its place. Any other value has no row: then they are null, or the record is skipped, or invalid."""
    text = as_bytes(record, ascii_only)
    config = {"path": str(table), "key": "key", "field": field, "columns": {"size": "size", "note": "b", "name": "n"}}
    value = record.get(field)
    key = value if isinstance(value, str) else None if isinstance(value, list | dict) else json.dumps(value)
    row = ROWS.get(key) if key is not None else None
    for missing in ("null", "skip", "invalid"):
        with host.function("lookup", {**config, "missing": missing}) as lookup:
            if row is not None or missing == "null":
                found = json.loads(lookup.process(text))
                assert list(found.items()) == list((record | (row or dict.fromkeys(("n", "size", "b")))).items())
            elif missing == "skip":
                assert lookup.process(text) is None
            else:
                with pytest.raises(ferrule.InvalidDataError) as error:
                    lookup.process(text)
                assert error.value.details["field"] == field
                said = "is missing" if field not in record else "is null" if value is None else "not in column"
                assert said in str(error.value)


def test_lookup_writes_numbers_as_they_stand(host: ferrule.Host, table: Path) -> None:
    """The record's own bytes stay, and the table's numbers keep theirs."""
    config = {"path": str(table), "key": "key", "field": "id", "columns": {"size": "size"}}
    with host.function("lookup", config) as lookup:
        assert lookup.process(b'{ "id" : 12, "x": 1e2 }') == b'{ "id" : 12, "x": 1e2,"size":1.50}'
        assert lookup.process(b'{"size":"old","id":"12"}') == b'{"size":1.50,"id":"12"}'


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"path": "none.csv"}, ferrule.NotFoundError, r"path: none\.csv: there is no such file"),
        ({"path": "."}, ferrule.PluginIOError, "path: .*folder"),
        ({"key": "kye"}, ferrule.InvalidConfigError, r'key: .*no column "kye"; its columns are key, name, size, note'),
        ({"columns": {"nom": "n"}}, ferrule.InvalidConfigError, r'columns: .*no column "nom"'),
        ({"columns": {}}, ferrule.InvalidConfigError, "columns: name one column at least"),
        ({"columns": {"name": "n", "note": "n"}}, ferrule.InvalidConfigError, 'two columns become field "n"'),
        ({"delimiter": "é"}, ferrule.InvalidConfigError, "delimiter"),
        ({"missing": "ignore"}, ferrule.InvalidConfigError, "missing"),
        (
            {"text": "key,name\na,1\nb,2\na,3\n"},
            ferrule.InvalidConfigError,
            r'line 4: "a" stands in column "key" a second',
        ),
        ({"text": "key,key,name\na,1,2\n"}, ferrule.InvalidConfigError, 'more than one column "key"'),
        ({"text": "key,name\na\n"}, ferrule.InvalidConfigError, "line: 2.*1 field"),
        ({"text": b"key,name\na,\xff\n"}, ferrule.InvalidConfigError, "line 2.*UTF-8"),
        ({"text": ""}, ferrule.InvalidConfigError, 'no column "key"'),
    ],
)
def test_lookup_refuses(
    host: ferrule.Host,
    table: Path,
    tmp_path: Path,
    change: Record,
    error: type[ferrule.PluginError],
    message: str,
) -> None:
    """A table that is not there, does not hold what is asked for, or does not tell its rows apart is refused at
    create, by name and line."""
    config = {"path": str(table), "key": "key", "field": "id", "columns": {"name": "n"}, **change}
    if "text" in config:
        text = config.pop("text")
        path = tmp_path / "bad.csv"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        config["path"] = str(path)
    with pytest.raises(error, match=message):
        host.function("lookup", config)


def test_lookup_of_airports(host: ferrule.Host) -> None:
    """The flights' airports: Python's csv finds the same names and altitudes."""
    path = ROOT / "examples" / "flights" / "airports.csv"
    config = {"path": str(path), "key": "faa", "field": "dest", "columns": {"name": "airport", "alt": "altitude"}}
    with host.function("lookup", config) as lookup, path.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            found = lookup.process({"dest": row["faa"]})
            assert found == {"dest": row["faa"], "airport": row["name"], "altitude": int(row["alt"])}


@pytest.mark.parametrize("plugin", ["redact", "require"])
def test_no_fields_is_no_configuration(host: ferrule.Host, plugin: str) -> None:
    """Naming no field is refused: it would do nothing, silently."""
    with pytest.raises(ferrule.InvalidConfigError, match="fields: name one field at least"):
        host.function(plugin, {"fields": []})
    with pytest.raises(ferrule.InvalidConfigError, match="fields"):
        host.function(plugin)


FUNCTIONS: dict[str, list[Record]] = {
    "add-metadata": [{}],
    "redact": [{"fields": ["a"]}, {"fields": ["a"], "mode": "drop"}],
    "require": [{"fields": ["a"]}, {"fields": ["a"], "otherwise": "invalid"}],
    "lookup": [
        {"key": "key", "field": "a", "columns": {"name": "n"}, "missing": missing}
        for missing in ("null", "skip", "invalid")
    ],
}


@pytest.mark.parametrize(("plugin", "config"), [(name, config) for name in FUNCTIONS for config in FUNCTIONS[name]])
def test_what_is_no_record(host: ferrule.Host, table: Path, plugin: str, config: Record) -> None:
    """What is no JSON object, no JSON or no UTF-8 is invalid data that says so, in every mode, and the next record is
    processed."""
    if plugin == "lookup":
        config = {**config, "path": str(table)}
    with host.function(plugin, config, language="rust") as function:
        for bad in (b"[1]", b"null", b'"a"', b"12"):
            with pytest.raises(ferrule.InvalidDataError, match="Data must be a JSON object"):
                function.process(bad)
        for bad in (b"", b"{", b'{"a":1}{', b'{"a":"\xff"}', b'{"a":1,}', b"{'a':1}"):
            with pytest.raises(ferrule.InvalidDataError, match=r"JSON|UTF-8"):
                function.process(bad)
        assert function.process(b'{"a":"k"}') is not None


# ---- plugins that panic ----------------------------------------------------------------------------

needs_faulty = pytest.mark.skipif(
    not PANICS.exists(), reason="the faulty ones are not built: build.py plugins --faulty"
)


def panicking(plugin: str) -> str:
    return f"{PANICS}:{plugin}"


def still_works(host: ferrule.Host) -> bool:
    with host.function("add-metadata", language="rust") as stamp:
        return bool(stamp.process({"id": 1})["id"] == 1)


@needs_faulty
def test_panic_in_create(host: ferrule.Host) -> None:
    """A panic in create is a PanicError with place and text; there is no instance, and the next create panics alike."""
    for _ in range(2):
        with pytest.raises(ferrule.PanicError, match=r"panicked at .*src/lib\.rs:\d+:\d+: create panics, as it should"):
            host.function(panicking("panics-in-create"))
    assert still_works(host)


@needs_faulty
@pytest.mark.parametrize(
    ("plugin", "said"),
    [
        ("panics-in-process", "process panics, as it should"),
        ("panics-without-text", "no text"),
        ("panics-with-bomb", "no text|the payload panics"),
    ],
)
def test_panic_in_process(host: ferrule.Host, plugin: str, said: str) -> None:
    """A panic ends one call with its place; the instance is not used again, and a new one of the same plugin works."""
    with host.function(panicking(plugin), {"on": 2}) as function:
        assert function.process({"id": 1}) == {"id": 1}
        with pytest.raises(ferrule.PanicError, match=rf"panicked at .*lib\.rs:\d+:\d+: .*({said})"):
            function.process({"id": 2})
        assert function.instance.poisoned
        with pytest.raises(ferrule.InvalidStateError):
            function.process({"id": 3})
    with host.function(panicking(plugin), {"on": 2}) as function:
        assert function.process({"id": 1}) == {"id": 1}
    assert still_works(host)


@needs_faulty
def test_panic_on_a_thread_of_the_plugins_own(host: ferrule.Host) -> None:
    """It harms no call."""
    with host.function(panicking("panics-in-thread")) as function:
        assert function.process({"id": 1}) == {"id": 1}
        assert function.process({"id": 2}) == {"id": 2}


@needs_faulty
def test_panic_in_next(host: ferrule.Host) -> None:
    """What came before it is given, then it is a PanicError, and the source is not used again."""
    source = host.source(panicking("panics-in-next"), {"items": 3})
    stream = source.read()
    assert [next(stream)["id"] for _ in range(3)] == [1, 2, 3]
    with pytest.raises(ferrule.PanicError, match="next panics, as it should"):
        next(stream)
    assert source.instance.poisoned
    with pytest.raises(ferrule.InvalidStateError):
        source.read()
    source.close()
    assert still_works(host)


@needs_faulty
def test_panic_in_position(host: ferrule.Host) -> None:
    """Asking for the position raises it."""
    source = host.source(panicking("panics-in-position"))
    with source.read() as stream:
        assert next(stream) == {"id": 1}
        with pytest.raises(ferrule.PanicError, match="position panics, as it should"):
            stream.position()
    source.close()
    assert still_works(host)


@needs_faulty
def test_panic_in_close(host: ferrule.Host) -> None:
    """Closing raises it, once; the instance is given back all the same."""
    source = host.source(panicking("panics-in-close"))
    assert [record["id"] for record in source] == [1]
    with pytest.raises(ferrule.PanicError, match="close panics, as it should"):
        source.close()
    source.close()
    assert still_works(host)


@needs_faulty
def test_panic_in_drop(host: ferrule.Host) -> None:
    """A panic as an instance is destroyed, or as a stream is closed, is the plugin's own affair: nobody is called."""
    with host.function(panicking("panics-in-drop"), {"on": 9}) as function:
        assert function.process({"id": 1}) == {"id": 1}
    with host.source(panicking("panics-in-reader-drop"), {"items": 2}) as source:
        assert len(list(source)) == 2
        assert len(list(source)) == 2
    assert still_works(host)


@needs_faulty
@pytest.mark.parametrize("method", ["write", "flush"])
def test_panic_in_a_sink(host: ferrule.Host, method: str) -> None:
    """A panic in write or flush is raised there, and the sink can still be closed."""
    sink = host.sink(panicking(f"panics-in-{method}"))
    with pytest.raises(ferrule.PanicError, match=f"{method} panics, as it should"):
        sink.write({"id": 1})
        sink.flush()
    sink.close()
    assert still_works(host)


@needs_faulty
@pytest.mark.parametrize(
    ("method", "said"),
    [
        ("called", "a call panics"),
        ("opened", "open panics"),
        ("streamed", "a stream panics"),
        ("beside", "a thread beside panics"),
        ("written", "an item panics"),
        ("fed", "a block panics"),
    ],
)
def test_panic_in_a_runner(host: ferrule.Host, method: str, said: str) -> None:
    """Wherever a job panics, whoever waits for it hears so, with the place; then the instance serves nobody."""
    with host.create(panicking("panics-in-runner")) as runner:
        other = runner.open("fed", {}) if method != "fed" else None
        items: list[object] = []
        with pytest.raises(ferrule.PanicError, match=rf"panicked at .*lib\.rs:\d+:\d+: {said}, as it should"):
            if method == "called":
                runner.call(method, {})
            stream = runner.open(method, {})
            if method == "fed":
                stream.feed(b"block")
            items += stream
        assert items == ([1] if method == "streamed" else [])
        assert runner.poisoned
        with pytest.raises(ferrule.InvalidStateError):
            runner.call("fine")
        if other is not None:
            other.close()
    with host.create(panicking("panics-in-runner")) as runner:
        assert runner.call("fine") is True
    assert still_works(host)


@needs_faulty
def test_a_job_that_does_not_listen(host: ferrule.Host) -> None:
    """Cancel ends its stream for the reader at once; closing it, and its instance, waits for nobody."""
    hour = {"seconds": 3600}
    started = time.monotonic()
    with host.create(panicking("deaf"), hour) as runner:
        deaf = runner.open("deaf", {})
        deaf.cancel()
        with pytest.raises(ferrule.CancelledError):
            next(deaf)
        runner.open("deaf", {}).close()
        with runner.open("endless", {}) as endless:
            assert [next(endless) for _ in range(10_000)] == list(range(10_000))
            endless.cancel()
            with pytest.raises(ferrule.CancelledError):
                for _ in endless:
                    pass
        runner.open("endless", {})
        assert runner.call("fine") is True
    assert time.monotonic() - started < 60
    assert still_works(host)


# ---- digest ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
def test_digest(host: ferrule.Host, tmp_path: Path, algorithm: str) -> None:
    """Called, streamed and fed, it is hashlib's; progress rises to the whole, and the last item has the digest."""
    path = tmp_path / "input"
    content = os.urandom(3_000_001)
    path.write_bytes(content)
    done = {"bytes": len(content), "digest": hashlib.new(algorithm, content).hexdigest()}
    with host.create("digest", {"algorithm": algorithm, "progress_ms": 0}) as digest:
        assert digest.call("file", {"path": str(path)}) == {"total": len(content), **done}
        with digest.open("file", {"path": str(path)}) as stream:
            *progress, last = stream
        assert last == {"total": len(content), **done}
        sizes = [item["bytes"] for item in progress]
        assert sizes == sorted(set(sizes)) and sizes[-1] == len(content)
        with digest.open("blocks", {}) as stream:
            stream.feed_from(content[at : at + 65_536] for at in range(0, len(content), 65_536))
            *progress, last = stream
        assert last == {"total": None, **done}
        assert len(progress) == 46


@posix
def test_digest_is_cancelled(host: ferrule.Host) -> None:
    """Of a file without end only cancel makes an end, and only a timeout of a call."""
    with host.create("digest", {"progress_ms": 1}) as digest:
        with digest.open("file", {"path": "/dev/zero"}) as stream:
            assert next(stream)["bytes"] > 0
            stream.cancel()
            with pytest.raises(ferrule.CancelledError):
                for _ in stream:
                    pass
        with pytest.raises((ferrule.CancelledError, ferrule.PluginTimeoutError)):
            digest.call("file", {"path": "/dev/zero"}, timeout=0.05)


@needs_faulty
@pytest.mark.parametrize("on_error", ["skip", "dead_letter"])
def test_a_flow_goes_on_after_a_panic(tmp_path: Path, on_error: str) -> None:
    """A step that panics is made again for the next record; the record that it panicked on goes where on_error says."""
    out, dead = tmp_path / "out.jsonl", tmp_path / "dead.jsonl"
    flow = f"""
name: panics
source: {{plugin: "{PLUGINS / f"libhello_source{SUFFIX}"}", config: {{count: 10}}}}
steps:
  - {{name: careless, plugin: "{panicking("panics-in-process")}", config: {{on: 4}}, on_error: {on_error}}}
sink: {{plugin: "{PLUGINS / f"libjsonl_sink{SUFFIX}"}", config: {{path: "{out}"}}}}
delivery: {{dead_letter: "{dead}"}}
"""
    summary = ferrule.Flow.loads(flow).run()
    assert [json.loads(line)["id"] for line in out.read_bytes().splitlines()] == [1, 2, 3, 5, 6, 7, 9, 10]
    assert (summary.read, summary.written, summary.skipped + summary.dead) == (10, 8, 2)
    if on_error == "dead_letter":
        assert [json.loads(line)["record"]["id"] for line in dead.read_bytes().splitlines()] == [4, 8]
