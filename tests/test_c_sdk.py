"""The C SDK: its headers compile everywhere, and its records agree with Python's own JSON."""

import io
import json
import math
import os
import random
import re
import shutil
import struct
import subprocess
import sys
import time
import wave
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from elftools.elf.elffile import ELFFile

ROOT = Path(__file__).resolve().parent.parent
INCLUDES = [f"-I{ROOT / 'native_sdk/include'}", f"-I{ROOT / 'native_sdk/c'}"]
STRICT = ["-pedantic", "-Wall", "-Wextra", "-Werror"]
EXAMPLES = sorted((ROOT / "example_plugins/c").glob("*/*.c"))
FAULTY = sorted((ROOT / "example_plugins/faulty").glob("*.c"))
TEMPLATES = sorted((ROOT / "src/ferrule/cli/templates/c").glob("*/*.c"))
OK, END, INVALID_CONFIG, INVALID_DATA, INVALID_STATE, OUT_OF_MEMORY, IO = 0, 1, -2, -3, -4, -12, -13
INVALID_ARGUMENT, UNSUPPORTED, CANCELLED = -1, -6, -11

Answer = tuple[int, bytes, bytes]  # status, answer, error
Build = Callable[..., Path]


def filled(template: Path) -> str:
    """A template as `ferrule new` writes it for the name my-plugin."""
    return template.read_text("utf-8").replace("{{name}}", "my-plugin").replace("{{ident}}", "my_plugin")


def run(*words: str | Path, data: bytes = b"", check: bool = True) -> subprocess.CompletedProcess[bytes]:
    done = subprocess.run([str(word) for word in words], input=data, capture_output=True, timeout=300)
    assert not check or done.returncode == 0, f"{words}: {done.stderr.decode(errors='replace')}"
    return done


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> Build:
    """Compiles a C file once per set of flags: a library, or the harness as a program."""
    folder = tmp_path_factory.mktemp("c_sdk")
    made: dict[tuple[Path, tuple[str, ...]], Path] = {}

    def compile_once(source: Path, *flags: str) -> Path:
        key = (source, flags)
        if key not in made:
            target = folder / str(len(made)) / f"lib{source.stem}.so"
            target.parent.mkdir()
            kind = [] if source.stem == "harness" else ["-shared", "-fPIC"]
            libraries = ["-ldl", "-lm", "-pthread"]
            run("gcc", "-std=c11", "-O2", *STRICT, *INCLUDES, *kind, *flags, "-o", target, source, *libraries)
            made[key] = target
        return made[key]

    return compile_once


@pytest.fixture(scope="module")
def harness(build: Build) -> Path:
    return build(ROOT / "tests/abi/harness.c")


@pytest.fixture(scope="module")
def probe(build: Build) -> Path:
    return build(ROOT / "tests/abi/probe.c")


def answers(raw: bytes) -> Iterator[Answer]:
    at = 0
    while at < len(raw):
        (status,) = struct.unpack_from("=i", raw, at)
        at += 4
        texts = []
        for _ in range(2):
            (length,) = struct.unpack_from("=I", raw, at)
            texts.append(raw[at + 4 : at + 4 + length])
            at += 4 + length
        yield status, texts[0], texts[1]


def call(
    harness: Path, library: Path, plugin: str, method: str, config: object, inputs: Sequence[bytes], *limit: str
) -> list[Answer]:
    """One answer an input, from one instance."""
    frames = b"".join(struct.pack("=I", len(data)) + data for data in inputs)
    done = run(harness, "call", library, plugin, method, json.dumps(config), *limit, data=frames)
    got = list(answers(done.stdout))
    assert len(got) == len(inputs)
    return got


def converse(harness: Path, library: Path, config: object, script: Sequence[tuple[str, bytes]]) -> list[Answer]:
    """One answer a call, of different methods of one instance of my-plugin."""
    frames = b"".join(
        struct.pack("=I", len(part)) + part for method, data in script for part in (method.encode(), data)
    )
    done = run(harness, "converse", library, "my-plugin", "open", json.dumps(config), data=frames)
    return list(answers(done.stdout))


def strict_json(text: bytes) -> Any:
    """What Python reads, made as strict as RFC 8259 and UTF-8 are; ValueError for the rest."""

    def refuse(name: str) -> None:
        raise ValueError(name)

    value = json.loads(text.decode("utf-8"), parse_constant=refuse)
    json.dumps(value, ensure_ascii=False).encode("utf-8")  # a lone surrogate is no character
    return value


SEEDS = [
    b'{"id":1,"message":"Hello from Rust Source 1"}',
    b'{"a":{"b":[1,2.5e-3,-0,true,false,null,"x"],"c":{}},"d":[],"e":""}',
    '{"käse":"größe € 😀 \\ud83d\\ude00 \\u00e9 \\n\\t\\"\\\\\\/","x":0}'.encode(),
    b' \t\r\n{ "a" : 1 , "b" : [ 1 , 2 ] ,\n "c" : { "d" : 3 } } \n',
    b'{"year":2013,"month":1,"day":1,"dep_time":517,"carrier":"UA","flight":1545,"tailnum":"N14228","air_time":227.5}',
    b'{"long":"' + b"abcdefghij" * 30 + b'","after":"' + b"x" * 63 + b'"}',
    b'{"big":"' + b"0123456789abcdef" * 200 + b'","q":"end"}',
    b"[]",
    b'"text"',
    b"12",
    b"null",
    b"{}",
    b"",
]
PIECES = [b'"', b"\\", b"{", b"}", b"[", b"]", b",", b":", b"0", b"-", b".", b"e", b"E+", b"\\u", b"\\ud800", b"\x00",
          b"\x1f", b"\x7f", b"\x80", b"\xc3", b"\xc3\xa9", b"\xe2\x82\xac", b"\xed\xa0\x80", b"\xf0\x9f\x98\x80",
          b"\xf4\x90\x80\x80", b"\xc0\x80", b"\xef\xbb\xbf", b" ", b"\n", b"\r", b"\t", b"\x0b", b"true", b"nul",
          b"NaN", b"Infinity", b"1e5", b"01", b"1.", b'"a"', b'"a":1,', b"/", b"\\udc00", b"\\u00zz",
          b"\\x"]  # fmt: skip


def mutants(count: int, seed: int) -> list[bytes]:
    chance = random.Random(seed)
    texts = []
    for _ in range(count):
        text = bytearray(chance.choice(SEEDS))
        for _ in range(chance.choice([0, 1, 1, 1, 2, 3, 5])):
            at = chance.randint(0, len(text))
            match chance.randrange(5):
                case 0:
                    text[at:at] = chance.choice(PIECES)
                case 1:
                    del text[at : at + chance.choice([1, 1, 2, 5])]
                case 2:
                    text[at : at + 1] = chance.choice(PIECES)
                case 3:
                    text[at : at + 1] = bytes([chance.randrange(256)])
                case _:
                    text[at:] = text[at : at + chance.randrange(40)]
        texts.append(bytes(text))
    return texts


@pytest.mark.parametrize("flags", [[], ["-O0", "-U__SSE2__"]], ids=["sse2", "portable"])
def test_validator_agrees_with_python(build: Build, harness: Path, flags: list[str]) -> None:
    """A record is accepted exactly when Python reads an object there; it keeps its meaning, the error says why not."""
    library = build(ROOT / "tests/abi/probe.c", *flags)
    texts = mutants(60_000, seed=20130131)
    accepted = 0
    for text, (status, out, error) in zip(
        texts, call(harness, library, "probe", "edit", {"set": {"added": 1}}, texts), strict=True
    ):
        try:
            value = strict_json(text)
        except ValueError:
            value = ...
        if isinstance(value, dict):
            accepted += 1
            assert status == OK, (text, error)
            assert json.loads(out) == value | {"added": 1}, text
            assert out.startswith(b"{") and out.endswith(b"}") and b"\n" not in out and b"\r" not in out, (text, out)
        else:
            assert (status, out) == (INVALID_DATA, b""), (text, out)
            message = json.loads(error)["message"]
            if value is ...:
                assert re.fullmatch(r"Data is not valid (JSON: .+|UTF-8) at byte \d+", message), (text, message)
                assert int(message.rsplit(" ", 1)[1]) <= len(text)
            else:
                assert message == "Data must be a JSON object", text
    assert 10_000 < accepted < 50_000  # both sides were really tried


def test_faults_name_the_byte(harness: Path, probe: Path) -> None:
    """The message says what is wrong and at which byte of the input it stands, spaces before it counted."""
    cases = {
        b"": "Data is not valid JSON: expected a value at byte 0",
        b"  ": "Data is not valid JSON: expected a value at byte 2",
        b'  {"a" 1}': "Data is not valid JSON: expected ':' at byte 7",
        b'{"a":01}': "Data is not valid JSON: expected ',' or '}' at byte 6",
        b'{"a":"\xff"}': "Data is not valid UTF-8 at byte 6",
        b'{"a":"\\q"}': "Data is not valid JSON: an unknown escape at byte 6",
        b'{"a":1}x': "Data is not valid JSON: expected its end at byte 7",
        b'{"a":1,}': "Data is not valid JSON: expected a key in quotes at byte 7",
        b"[1]": "Data must be a JSON object",
    }
    got = call(harness, probe, "probe", "edit", {}, list(cases))
    assert [json.loads(error)["message"] for _, _, error in got] == list(cases.values())


def test_depth_is_limited(harness: Path, probe: Path) -> None:
    """128 levels are read, the record itself the first; one more is INVALID_DATA, and so are a million."""

    def nested(levels: int) -> bytes:
        return b'{"a":' + b"[" * (levels - 1) + b"]" * (levels - 1) + b"}"

    got = call(harness, probe, "probe", "edit", {}, [nested(128), nested(129), b'{"a":' + b"[" * 1_000_000])
    assert [status for status, _, _ in got] == [OK, INVALID_DATA, INVALID_DATA]
    assert json.loads(got[1][2])["message"].startswith("Data is nested deeper than 128 at byte")


def escaped(chance: random.Random, text: str) -> str:
    """A JSON string for `text` with some characters escaped that need not be."""

    def one(character: str) -> str:
        if chance.random() < 0.7:
            return json.dumps(character, ensure_ascii=False)[1:-1]
        units = character.encode("utf-16-be").hex()
        return "".join(f"\\u{units[at : at + 4]}" for at in range(0, len(units), 4))

    return f'"{"".join(map(one, text))}"'


def test_a_field_replaces_every_spelling_of_its_name(harness: Path, probe: Path) -> None:
    """Set and removed keys compare unescaped, also beyond the 32 that a record remembers; none leaves twice."""
    chance = random.Random(7)
    names = ["a", "b", "id", "", 'quo"te', "back\\slash", "\\n", "\n", "ключ", "😀", "tab\t", "\u0001", "a\\u0062", "/"]
    for round_ in range(120):
        choice: list[Any] = [1, None, "text", 'q"\\\n\u0007ü😀', [1, {"x": "}"}], {}]
        setting = {name: chance.choice(choice) for name in chance.sample(names, chance.randint(1, 4))}
        dropping = chance.sample(names, chance.randint(0, 3))
        texts, wanted = [], []
        for _ in range(20):
            many = [f"key{n}" for n in range(chance.choice([0, 0, 3, 30, 31, 32, 33, 60]))]
            keys = [chance.choice(names + many) for _ in range(chance.randint(0, 8))] + many
            chance.shuffle(keys)
            pad = chance.choice(["", " ", "\n  "])
            members = [f"{escaped(chance, key)}{pad}:{pad}{json.dumps(chance.choice([1, 'v', {'a': ['}']}, [], True]))}"
                       for key in keys]  # fmt: skip
            text = "{" + pad + f"{pad},{pad}".join(members) + pad + "}"
            texts.append(text.encode())
            value = {key: item for key, item in json.loads(text).items() if key not in dropping}
            wanted.append((value | setting, [key for key in keys if key not in dropping and key not in setting]))
        config = {"set": setting, "remove": dict.fromkeys(dropping)}
        for written, (value, others), (status, out, error) in zip(
            texts, wanted, call(harness, probe, "probe", "edit", config, texts), strict=True
        ):
            assert status == OK, error
            pairs = json.loads(out, object_pairs_hook=list)
            assert json.loads(out) == value, (round_, written, config, out)
            assert sorted(key for key, _ in pairs) == sorted([*others, *setting]), (written, config, out)


def test_adding_a_field_twice_keeps_the_last(harness: Path, probe: Path) -> None:
    """A field that the plugin itself set before is replaced too."""
    config = '{"set":{"a":1,"b":2,"a":"three"}}'
    frame = struct.pack("=I", 2) + b"{}"
    done = run(harness, "call", probe, "probe", "edit", config, data=frame)
    assert list(answers(done.stdout)) == [(OK, b'{"b":2,"a":"three"}', b"")]


def test_refused_memory_is_an_error(harness: Path, probe: Path) -> None:
    """A host that gives no more room gets OUT_OF_MEMORY at any size, and never a byte past what it gave."""
    text = [b'{"id":1,"text":"' + b"x" * 100 + b'"}']
    config = {"set": {"added": 'with "escapes" ' * 20, 'ke"y': 12}}
    statuses = [call(harness, probe, "probe", "edit", config, text, str(limit))[0][0] for limit in range(0, 900, 13)]
    assert statuses[0] == OUT_OF_MEMORY and statuses[-1] == OK
    assert statuses == sorted(statuses)  # once it fits, it fits


def test_readers_and_writers_agree_with_python(harness: Path, probe: Path) -> None:
    """Text, numbers, integers, flags and times pass through the SDK's readers and writers unchanged."""
    chance = random.Random(11)
    values: list[dict[str, Any]] = [{}]
    for _ in range(300):
        values.append({
            "text": "".join(chance.choice('ab"\\\n\x00\x1fé€😀/') for _ in range(chance.randrange(12))),
            "number": chance.choice([0.1, 1e300, -2.5e-310, 3.0, chance.random(), chance.uniform(-1e18, 1e18)]),
            "integer": chance.choice([0, -1, 2**63 - 1, -(2**63), chance.randrange(-(2**63), 2**63)]),
            "flag": chance.random() < 0.5,
            "seconds": chance.choice([0, 951782400, 1709164800, 4102444799, chance.randrange(253402300800)]),
            "microseconds": chance.randrange(1_000_000),
        })  # fmt: skip
    inputs = [json.dumps(value, ensure_ascii=chance.random() < 0.5).encode() for value in values]
    for value, (status, out, _) in zip(values, call(harness, probe, "probe", "convert", {}, inputs), strict=True):
        assert status == OK
        got = json.loads(out)
        assert got["text"] == value.get("text", "none")
        assert got["number"] == value.get("number", -1.5)
        assert got["integer"] == value.get("integer", -1)
        assert got["flag"] is value.get("flag", True)
        assert got["found"] is True
        when = datetime.fromtimestamp(value.get("seconds", 0), UTC).replace(microsecond=value.get("microseconds", 0))
        assert got["time"] == when.strftime("%Y-%m-%dT%H:%M:%S.%fZ").rjust(27, "0")
        assert abs((datetime.fromisoformat(got["now"]) - datetime.now(UTC)).total_seconds()) < 60
    large = [b'{"integer":1e3}', b'{"integer":2.0}', b'{"integer":9e99}', b'{"integer":-99999999999999999999}']
    got = [json.loads(out)["integer"] for _, out, _ in call(harness, probe, "probe", "convert", {}, large)]
    assert got == [1000, 2, 2**63 - 1, -(2**63)]


@pytest.mark.parametrize("flags", [[], ["-U__SSE2__"], ["-fsanitize=address"]], ids=["fast", "plain", "asan"])
def test_lines_are_python_s(build: Build, flags: list[str]) -> None:
    """A chunk of lines of any lengths, empty ones and a last one without its newline among them, is walked over line by
    line, with vectors and without, and nothing is read behind it."""
    chance = random.Random(12)
    chunks = [b"", b"\n", b"\n" * 200, b"x", b"x" * 64 + b"\n", b"x" * 63 + b"\n", (b"y" * 127 + b"\n") * 3]
    for _ in range(500):
        most = chance.choice([2, 20, 70, 300])
        lines = [b"\xff" * chance.randrange(most) for _ in range(chance.randrange(12))]
        chunks.append(b"\n".join(lines))
    harness, probe = (build(ROOT / "tests/abi" / f"{name}.c", *flags) for name in ("harness", "probe"))
    for chunk, (status, out, _) in zip(chunks, call(harness, probe, "probe", "lines", {}, chunks), strict=True):
        assert status == OK
        got = []
        while out:
            (length,) = struct.unpack_from("=I", out)
            got.append(out[4 : 4 + length])
            out = out[4 + length :]
        expected = chunk.split(b"\n")
        assert got == (expected if expected[-1] else expected[:-1])


def test_errors_are_objects(harness: Path, probe: Path) -> None:
    """A failure resets what stood in the error, escapes its message, and carries details and retry_after_ms."""
    cases: list[dict[str, Any]] = [
        {"message": 'with "quotes" and\nlines'},
        {"message": "100% äöü", "details": {"record": '{"a'}},
        {"message": "later", "retry_after_ms": 250, "status": -9},
        {"message": "both", "details": [1], "retry_after_ms": 0},
    ]
    inputs = [json.dumps(case).encode() for case in cases] + [json.dumps({"message": "€" * 5000}).encode()]
    *got, huge = call(harness, probe, "probe", "fail", {}, inputs)
    for case, (status, out, error) in zip(cases, got, strict=True):
        assert (status, out) == (case.get("status", INVALID_DATA), b"")
        assert json.loads(error) == {key: value for key, value in case.items() if key != "status"}
    assert json.loads(huge[2])["message"].rstrip("\ufffd") == "€" * 682  # cut after 2 KB, and still UTF-8


def test_failed_create_leaves_nothing(harness: Path, probe: Path, build: Build) -> None:
    """A create that refuses answers its status, an error and no instance; an unknown plugin is NOT_FOUND."""
    refused = run(harness, "call", probe, "probe", "edit", '{"refuse": true}', check=False)
    assert refused.stderr == b'create: -2 {"message":"The config says refuse"}\n'
    unknown = run(harness, "call", probe, "other", "edit", "{}", check=False)
    assert unknown.stderr.startswith(b"create: -5 ") and b"'other'" in unknown.stderr


def test_hello_source_is_the_twin(build: Build, harness: Path) -> None:
    """Exactly the two records, a position after each that resumes behind it, and a count that can be set."""
    library = build(ROOT / "example_plugins/c/hello_source/hello_source.c")

    def read(config: str, request: str) -> list[Answer]:
        return list(answers(run(harness, "stream", library, "hello-source", "read_data", config, request).stdout))

    first, second = (b'{"id":%d,"message":"Hello from Rust Source %d"}' % (n, n) for n in (1, 2))
    end = (END, b"", b"")
    assert read("{}", "{}") == [(OK, first, b""), (OK, b"1", b""), (OK, second, b""), (OK, b"2", b""), end]
    assert read("{}", '{"position":1}') == [(OK, second, b""), (OK, b"2", b""), end]
    assert len(read('{"count":5}', "{}")) == 11
    early = call(harness, library, "hello-source", "schema", {}, [b"{}"])
    assert early[0][0] == INVALID_STATE


def test_add_metadata_is_the_twin(build: Build, harness: Path) -> None:
    """Both fields, the name as configured, an earlier stamp replaced; what is no object is EKB's error."""
    library = build(ROOT / "example_plugins/c/add_metadata/add_metadata.c")
    inputs = [b'{"id":1}', b'{"processed_by_rust_plugin":"x","id":2}', b"[]", b"{}"]
    for config, name in (({}, "unknown_rust_plugin"), ({"plugin_name": 'd"e\u0000mo'}, 'd"e\u0000mo')):
        got = call(harness, library, "add-metadata", "process", config, inputs)
        for status, out, _ in (got[0], got[1], got[3]):
            record = json.loads(out)
            assert status == OK and record["processed_by_rust_plugin"] == name
            assert datetime.fromisoformat(record["rust_enriched_timestamp"]).tzinfo == UTC
        assert (got[2][0], json.loads(got[2][2])) == (INVALID_DATA, {"message": "Data must be a JSON object"})
        assert json.loads(got[1][1])["id"] == 2


def test_identity_gives_the_input_back(build: Build, harness: Path) -> None:
    """Any bytes, none at all included."""
    library = build(ROOT / "example_plugins/c/identity/identity.c")
    inputs = [b'{"a":1}', b"", b"\x00\xff not json"]
    assert call(harness, library, "identity", "process", {}, inputs) == [(OK, data, b"") for data in inputs]


def fed(
    harness: Path,
    library: Path,
    plugin: str,
    method: str,
    *,
    given: object = None,
    data: bytes = b"",
    block: int = 0,
    config: object = None,
    cancel: int = -1,
) -> list[Answer]:
    """A stream, fed with `data` in blocks: its items, each with its metadata; its end; its metadata after that."""
    words = [plugin, method, json.dumps(config or {}), json.dumps(given or {}), str(block), str(cancel)]
    done = run(harness, "feed", library, *words, data=data)
    assert done.stderr == b""
    return list(answers(done.stdout))


@pytest.fixture(scope="module")
def my_runner(build: Build) -> Path:
    return build(ROOT / "example_plugins/c/my_runner/my_runner.c")


def test_my_runner_answers(harness: Path, my_runner: Path) -> None:
    """The text is processed as it is, escapes included; runs are counted until reset; no text is the caller's fault."""
    script = [
        ("run", json.dumps({"input_data": 'a "b" \\ ü'}).encode()),
        ("run", b'{"input_data":""}'),
        ("run", b'{"input_data":7}'),
        ("run", b"{}"),
        ("count", b""),
        ("reset", b""),
        ("count", b""),
    ]
    frames = b"".join(struct.pack("=I", len(part)) + part for name, data in script for part in (name.encode(), data))
    got = list(answers(run(harness, "converse", my_runner, "my-runner", "run", "{}", data=frames).stdout))
    assert [json.loads(out) for _, out, _ in got[:2]] == ['Processed: a "b" \\ ü', "Processed: "]
    assert [status for status, _, _ in got] == [OK, OK, INVALID_ARGUMENT, INVALID_ARGUMENT, OK, OK, OK]
    assert b"no text" in got[2][2] and b"missing" in got[3][2]
    assert [out for _, out, _ in got[4:]] == [b"2", b"null", b"0"]


def test_my_runner_speaks_protobuf(harness: Path, my_runner: Path) -> None:
    """MyJobArgs in, MyResult out: long texts, other fields, repeated ones and none; what is no message is refused."""
    long = b"x" * 300
    inputs = [
        b"\x0a\x03abc",
        b"\x0a\xac\x02" + long,
        b"\x10\x96\x01\x1d\x00\x00\x00\x00\x21" + bytes(8) + b"\x0a\x01a\x0a\x01b\x1a\x02zz",
        b"",
        b"\x0a\x04abc",
        b"\x0a",
        b"\x0b",
        b"\x80" * 12,
        b"\x00\x00",
    ]
    got = call(harness, my_runner, "my-runner", "encode", {}, inputs)
    texts = [b"abc", long, b"b", b""]
    for (status, out, _), text in zip(got, texts, strict=False):
        body = b"Processed: " + text
        head = bytes([10, len(body)]) if len(body) < 128 else bytes([10, len(body) & 127 | 128, len(body) >> 7])
        assert (status, out) == (OK, head + body)
    assert [status for status, _, _ in got[4:]] == [INVALID_ARGUMENT] * 5


def test_my_runner_streams(harness: Path, my_runner: Path) -> None:
    """Five chunks, none earlier than its interval after the one before, stamped with the monotonic clock; one end."""
    before = time.monotonic_ns()
    *items, end, after = fed(harness, my_runner, "my-runner", "run", given={"input_data": 'q"', "interval_ms": 20})
    assert [json.loads(out) for _, out, _ in items] == [f'Stream chunk {i} for q"' for i in range(5)]
    stamps = [json.loads(metadata)["monotonic_ns"] for _, _, metadata in items]
    assert before < stamps[0] and stamps[-1] < time.monotonic_ns()
    assert all(later - earlier >= 20_000_000 for earlier, later in pairwise(stamps))
    assert (end, after) == ((END, b"", b""), (OK, b"{}", b""))


def test_my_runner_is_cancelled(harness: Path, my_runner: Path) -> None:
    """A cancel ends the wait for the next chunk, which would last an hour, and is the stream's one end."""
    given = {"input_data": "x", "chunks": 50, "interval_ms": 3_600_000}
    first, end, _ = fed(harness, my_runner, "my-runner", "run", given=given, cancel=1)
    assert (first[0], first[1], end[0]) == (OK, b'"Stream chunk 0 for x"', CANCELLED)
    assert b"cancelled" in end[2]


@pytest.mark.parametrize("block", [1, 7, 4096, 65536, 1 << 20])
def test_my_runner_echoes(harness: Path, my_runner: Path, block: int) -> None:
    """Every block comes back as it was fed, in order, past what the queues hold, and then the end."""
    data = random.Random(block).randbytes(min(3 * block * 1000 + 5, 3_000_000))
    *items, end, _ = fed(harness, my_runner, "my-runner", "echo", data=data, block=block)
    assert [out for _, out, _ in items] == [data[at : at + block] for at in range(0, len(data), block)]
    assert end[0] == END


WAV = ROOT / "example_plugins/c/pcm_levels/one-two.wav"


def wav(samples: Sequence[int], channels: int, rate: int) -> bytes:
    file = io.BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setparams((channels, 2, rate, 0, "NONE", ""))
        writer.writeframes(struct.pack(f"<{len(samples)}h", *samples))
    return file.getvalue()


def levels_of(data: bytes, silence: float) -> list[dict[str, Any]]:
    """What pcm-levels must say of a WAV file, by Python's reader and arithmetic."""
    with wave.open(io.BytesIO(data)) as reader:
        rate, channels = reader.getframerate(), reader.getnchannels()
        raw = reader.readframes(reader.getnframes())
    samples = struct.unpack(f"<{len(raw) // 2}h", raw)

    def dbfs(amplitude: float) -> float:
        return round(20 * math.log10(amplitude / 32768), 1) if amplitude else -100

    items: list[dict[str, Any]] = []
    silent = None
    frames = len(samples) // channels
    for n in range(-(-frames * 10 // rate)):
        part = samples[n * rate // 10 * channels : min((n + 1) * rate // 10, frames) * channels]
        rms = dbfs(math.sqrt(math.fsum(x * x for x in part) / len(part)))
        if silent is not (rms < silence):
            silent = rms < silence
            items.append({"at_ms": 100 * n, "silence": silent})
        items.append({"at_ms": 100 * n, "rms_dbfs": rms, "peak_dbfs": dbfs(max(map(abs, part)))})
    return items


@pytest.fixture(scope="module")
def pcm_levels(build: Build) -> Path:
    return build(ROOT / "example_plugins/c/pcm_levels/pcm_levels.c")


@pytest.mark.parametrize("block", [1, 7, 45, 4410, 1 << 20])
def test_pcm_levels_hears_a_voice(harness: Path, pcm_levels: Path, block: int) -> None:
    """The shipped voice's levels are those that Python computes, in blocks of any size; the pause between its words is
    the only silence before its end."""
    data = WAV.read_bytes()
    *items, end, after = fed(harness, pcm_levels, "pcm-levels", "levels", data=data, block=block)
    got = [json.loads(out) for _, out, _ in items]
    assert got == levels_of(data, -50)
    assert [item["silence"] for item in got if "silence" in item] == [False, True, False, True]
    assert end[0] == END
    assert json.loads(after[1]) == {"rate": 22050, "channels": 1, "milliseconds": 938}


def damaged(data: bytes, seed: int) -> bytes:
    """The same with a few bytes of its header replaced."""
    chance = random.Random(seed)
    text = bytearray(data)
    for _ in range(chance.choice([1, 2, 4])):
        text[chance.randrange(12, 44)] = chance.choice([0, 1, 2, 16, 255])
    return bytes(text)


def test_pcm_levels_reads_what_recorders_write(harness: Path, pcm_levels: Path) -> None:
    """Stereo; a rate that 10 does not divide; full scale; chunks before the samples; a length that is not known yet; a
    last sample cut in two; bytes behind the samples; no samples at all."""
    chance = random.Random(5)
    tone = [round(32767 * math.sin(n / 9)) for n in range(9000)] + [-32768] * 999 + [0] * 6001
    odd = struct.pack("<4sI", b"LIST", 5) + b"abcde\0"
    plain = wav(tone, 1, 11025)
    endless = plain[:40] + b"\xff\xff\xff\xff" + plain[44:]
    for data, sent in [
        (wav(tone, 2, 8000), wav(tone, 2, 8000)),
        (wav(tone[:8001], 1, 7919), wav(tone[:8001], 1, 7919)),
        (plain, plain[:12] + odd + plain[12:36] + odd + plain[36:]),
        (plain, endless),
        (plain, endless + b"\x01"),
        (plain, plain + odd),
        (wav([], 1, 8000), wav([], 1, 8000)),
    ]:
        block = chance.choice([1, 3, 64, 5000])
        config = {"silence_dbfs": -60}
        *items, end, _ = fed(harness, pcm_levels, "pcm-levels", "levels", data=sent, block=block, config=config)
        assert [json.loads(out) for _, out, _ in items] == levels_of(data, -60)
        assert end[0] == END


def test_pcm_levels_refuses_what_it_cannot_read(harness: Path, pcm_levels: Path) -> None:
    """No WAV, one cut short in its head, samples before their format, other formats: each with its own words."""
    good = wav([1, 2, 3], 1, 8000)
    for data, status, words in [
        (b"", INVALID_DATA, "ended after 0 bytes"),
        (b"not a wav file at all", INVALID_DATA, "does not begin with RIFF"),
        (good[:30], INVALID_DATA, "ended after 30 bytes"),
        (good[:12] + good[36:], INVALID_DATA, "samples before their format"),
        (good[:34] + b"\x18" + good[35:], UNSUPPORTED, "24 bits"),
        (good[:20] + b"\x03" + good[21:], UNSUPPORTED, "format 3"),
        (good[:22] + b"\x06" + good[23:], UNSUPPORTED, "6 channels"),
    ]:
        end, _ = fed(harness, pcm_levels, "pcm-levels", "levels", data=data, block=1000)
        assert (end[0], words in json.loads(end[2])["message"]) == (status, True), end


@pytest.mark.parametrize("source", EXAMPLES, ids=lambda path: path.stem)
@pytest.mark.parametrize("standard", ["c99", "c11", "c17", "gnu17", "c++11", "c++17", "c++20"])
def test_examples_compile_everywhere(source: Path, standard: str) -> None:
    """Header, SDK and examples are clean C99 to C17 and C++11 to C++20, with every warning an error."""
    compiler = ["g++", "-x", "c++"] if "++" in standard else ["gcc"]
    run(*compiler, f"-std={standard}", "-O2", *STRICT, *INCLUDES, "-fPIC", "-fsyntax-only", source)


@pytest.mark.parametrize("source", FAULTY, ids=lambda path: path.stem)
def test_the_zoo_compiles(source: Path, build: Build) -> None:
    """Every faulty plugin builds without a warning: its fault is against the contract, not the language."""
    build(source)


@pytest.mark.parametrize("source", TEMPLATES, ids=lambda path: path.parent.name)
def test_templates_compile(source: Path, tmp_path: Path) -> None:
    """What `ferrule new --lang c` writes compiles as it is, in C and in C++."""
    text = filled(source)
    assert "{{" not in text
    target = tmp_path / "plugin.c"
    target.write_text(text, "utf-8")
    for compiler in (["gcc", "-std=c99"], ["gcc", "-std=gnu17"], ["g++", "-x", "c++", "-std=c++17"]):
        run(*compiler, "-O2", *STRICT, *INCLUDES, "-shared", "-fPIC", "-o", tmp_path / "plugin.so", target)


def test_templates_work(build: Build, harness: Path, tmp_path: Path) -> None:
    """Function, source and runner do what they say; the sink writes, tells its mark, and cuts a file back to it."""
    made = {}
    for source in TEMPLATES:
        target = tmp_path / source.parent.name / "my_plugin.c"
        target.parent.mkdir()
        target.write_text(filled(source), "utf-8")
        made[source.parent.name] = build(target)
    got = call(harness, made["function"], "my-plugin", "process", {"field": "f", "value": 'v"'}, [b'{"id":1,"f":0}'])
    assert got == [(OK, b'{"id":1,"f":"v\\""}', b"")]
    done = run(harness, "stream", made["source"], "my-plugin", "read_data", '{"name":"Ada"}', '{"position":2}')
    assert next(answers(done.stdout)) == (OK, b'{"id":3,"message":"Hello, Ada"}', b"")

    out = tmp_path / "out.jsonl"
    script = [
        ("open", b"{}"),
        ("write", b'{"a":1}\n{"a":2}\n'),
        ("flush", b"{}"),
        ("write", b'{"a":3}\n'),
        ("close", b""),
    ]
    statuses = converse(harness, made["sink"], {"path": str(out)}, script)
    assert [answer for _, answer, _ in statuses] == [b"null", b"null", b'{"mark":16}', b"null", b"null"]
    assert out.read_bytes() == b'{"a":1}\n{"a":2}\n{"a":3}\n'
    converse(harness, made["sink"], {"path": str(out)}, [("open", b'{"mark":16}'), ("write", b"{}\n"), ("close", b"")])
    assert out.read_bytes() == b'{"a":1}\n{"a":2}\n{}\n'
    *items, end, _ = fed(harness, made["runner"], "my-plugin", "run", given={"text": "a"}, config={"interval_ms": 0})
    assert [out for _, out, _ in items] == [b'"a"'] * 3
    *items, end, _ = fed(harness, made["runner"], "my-plugin", "shout", data=b"one two", block=4)
    assert ([out for _, out, _ in items], end[0]) == ([b"ONE ", b"TWO"], END)
    full = converse(
        harness, made["sink"], {"path": "/dev/full"}, [("write", b"{}\n"), ("open", b""), ("write", b"{}\n")]
    )
    assert [status for status, _, _ in full] == [INVALID_STATE, OK, IO]
    assert b"No space left" in full[2][2]
    absent = converse(harness, made["sink"], {"path": str(tmp_path / "no/such")}, [("open", b"")])
    assert absent[0][0] == IO and b"no/such: No such file" in absent[0][2]


def test_headers_compile_alone() -> None:
    """Each header includes what it needs, and may be included after others and twice."""
    for header in ("ferrule.h", "ferrule_sdk.h", "ferrule_pusher.h"):
        for compiler, standard in (("c", "c99"), ("c", "c17"), ("c++", "c++11"), ("c++", "c++20")):
            text = f'#include "{header}"\n#include <stdio.h>\n#include "{header}"\nint used;\n'.encode()
            run("gcc", "-x", compiler, f"-std={standard}", *STRICT, *INCLUDES, "-fsyntax-only", "-", data=text)


def manifest_of(library: Path) -> dict[str, Any]:
    with library.open("rb") as file:
        section = ELFFile(file).get_section_by_name(".ferrule")
        assert section is not None
        data: bytes = section.data()
    magic, major, minor, length = struct.unpack_from("<8sIIQ", data)
    assert (magic, major, minor) == (b"ferrule\x00", 0, 1)
    assert not data[24 + length :].strip(b"\x00")
    value: dict[str, Any] = json.loads(data[24 : 24 + length])
    return value


LTO = ["-flto", "-Os", "-ffunction-sections", "-fdata-sections", "-Wl,--gc-sections", "-fvisibility=hidden", "-s"]


@pytest.mark.parametrize("flags", [["-O0"], LTO], ids=["plain", "lto"])
@pytest.mark.parametrize("source", EXAMPLES, ids=lambda path: path.stem)
def test_manifest_survives_the_linker(source: Path, flags: list[str], build: Build, tmp_path: Path) -> None:
    """The section is there, whole and valid, after LTO, --gc-sections and strip; the three symbols are exported."""
    library = tmp_path / "stripped.so"
    shutil.copy(build(source, *flags), library)
    run("strip", "--strip-all", library)
    manifest = manifest_of(library)
    assert manifest["plugins"][0]["name"] == source.stem.replace("_", "-")
    assert manifest["plugins"][0]["language"] == "c"
    exported = run("nm", "-D", "--defined-only", library).stdout.decode().split()
    assert {"ferrule_plugin_manifest", "ferrule_plugin_create", "ferrule_plugin_destroy"} <= set(exported)


def test_a_long_manifest_compiles(tmp_path: Path, build: Build) -> None:
    """JSON past the 4,095 bytes that C99 promises, with quotes, commas and UTF-8, arrives byte for byte in meaning."""
    manifest = {"name": "long", "text": 'ä "quoted" \\ / 😀 \n', "list": [{"n": n, "t": "x" * 40} for n in range(300)]}
    source = tmp_path / "long.c"
    body = json.dumps(manifest, ensure_ascii=False)
    source.write_text(
        f'#include "ferrule_sdk.h"\nFERRULE_MANIFEST({body});\n'
        'FERRULE_PLUGINS(FERRULE_PLUGIN("long", ferrule_instance, NULL, NULL, FERRULE_UNARY(NULL, NULL)));\n',
        "utf-8",
    )
    assert manifest_of(build(source)) == manifest


def test_sanitizers_find_nothing(build: Build) -> None:
    """Mutated records, replaced keys, refused memory and streams run clean under ASan and UBSan, leaks included."""
    flags = ["-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-fno-wrapv"]
    harness = build(ROOT / "tests/abi/harness.c", *flags)
    probe = build(ROOT / "tests/abi/probe.c", *flags)
    hello = build(ROOT / "example_plugins/c/hello_source/hello_source.c", *flags)
    texts = mutants(6_000, seed=3)
    config = {"set": {"a": 'q"\n', "id": 1, "e": [1]}, "remove": {"b": 0, "käse": 0}}
    call(harness, probe, "probe", "edit", config, texts)
    for limit in range(0, 600, 7):
        call(harness, probe, "probe", "edit", config, [SEEDS[2], SEEDS[3]], str(limit))
    objects = [text for text in texts if text.startswith(b"{")]
    call(harness, probe, "probe", "convert", {}, objects)  # readers on broken texts stay within them
    run(harness, "stream", hello, "hello-source", "read_data", "{}", '{"position":')
    runner = build(ROOT / "example_plugins/c/my_runner/my_runner.c", *flags)
    fed(harness, runner, "my-runner", "echo", data=SEEDS[6] * 1000, block=5000)
    fed(harness, runner, "my-runner", "run", given={"input_data": "x", "interval_ms": 5}, cancel=2)
    call(harness, runner, "my-runner", "encode", {}, [b"\x0a\x04abc", *texts[:500]])
    levels = build(ROOT / "example_plugins/c/pcm_levels/pcm_levels.c", *flags)
    for text in (WAV.read_bytes(), *(damaged(WAV.read_bytes()[:3000], seed) for seed in range(60))):
        fed(harness, levels, "pcm-levels", "levels", data=text, block=999)
    run(harness, "call", probe, "probe", "edit", '{"refuse":true}', check=False)


@pytest.mark.skipif(not os.environ.get("FERRULE_ZIG"), reason="cross compiling is slow; FERRULE_ZIG=1 runs it")
@pytest.mark.parametrize("target", ["x86_64-windows-gnu", "aarch64-macos", "aarch64-linux-gnu", "x86_64-macos"])
@pytest.mark.parametrize("source", EXAMPLES, ids=lambda path: path.stem)
def test_examples_cross_compile(source: Path, target: str, tmp_path: Path) -> None:
    """clang builds the same files for Windows and macOS, where the section has another name."""
    run(sys.executable, "-m", "ziglang", "cc", "-target", target, "-shared", "-O2", *STRICT, *INCLUDES, "-o",
        tmp_path / "plugin.bin", source)  # fmt: skip
    assert b"ferrule\x00" in (tmp_path / "plugin.bin").read_bytes()
