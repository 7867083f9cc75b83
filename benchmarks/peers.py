"""Measures the peers, one thing a process: `PYTHON benchmarks/peers.py CASE` prints nanoseconds a record.

Each does add-metadata's work on the same record: the plugin's own function wherever the peer can call C, the same
source compiled to WebAssembly for Extism and wasmtime, a Python function for orjson. Runs in an environment of its own,
without ferrule; `--versions` prints what is in it.
"""

from __future__ import annotations

import asyncio
import csv
import ctypes
import importlib
import importlib.metadata
import importlib.util
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Iterator
from contextlib import (
    AbstractAsyncContextManager,
    AbstractContextManager,
    asynccontextmanager,
    contextmanager,
    nullcontext,
)
from datetime import UTC, datetime
from importlib.machinery import ExtensionFileLoader
from pathlib import Path

from common import BUILT, CHUNK, CONFIG, FLIGHTS, ITEM, LIBRARY, LINES, NAME, RECORD, ROOT, best, scaled, timed

SETTINGS = json.dumps(CONFIG["add"])
SERVER = [str(LIBRARY["c"]), "add-metadata", SETTINGS]


def check(answer: bytes, lines: int = 1) -> None:
    """That a peer did the work."""
    made = [json.loads(line) for line in answer.splitlines()]
    added = {"processed_by_rust_plugin", "rust_enriched_timestamp"}
    for record in made:
        if not added <= record.keys() or record.keys() - added != json.loads(RECORD).keys():
            raise SystemExit(f"not the work that was asked for: {answer[:400]!r}")
    if len(made) != lines or made[0]["processed_by_rust_plugin"] != NAME:
        raise SystemExit(f"{len(made)} records, expected {lines}: {answer[:400]!r}")


def measured(call: Callable[[bytes], bytes], calls: int, *, lines: bool) -> float:
    """Nanoseconds a record, of a record a call or of a chunk a call."""
    data, records = (LINES, CHUNK) if lines else (RECORD, 1)
    check(call(data), records)
    return timed(lambda: call(data), scaled(calls), records)


# ---- WebAssembly ---------------------------------------------------------------------------------


def extism(form: str) -> float:
    plugin = importlib.import_module("extism").Plugin({"wasm": [{"path": str(BUILT / "extism.wasm")}]}, wasi=True)
    if form == "lines":
        return measured(lambda data: bytes(plugin.call("process_lines", data)), 50, lines=True)
    return measured(lambda data: bytes(plugin.call("process", data)), 3000, lines=False)


def wasmtime(form: str) -> float:
    package = importlib.import_module("wasmtime")
    engine = package.Engine()
    store = package.Store(engine)
    store.set_wasi(package.WasiConfig())
    linker = package.Linker(engine)
    linker.define_wasi()
    exports = linker.instantiate(store, package.Module.from_file(engine, str(BUILT / "bare.wasm"))).exports(store)
    exports["_initialize"](store)
    memory = exports["memory"]
    process = exports["process_lines" if form == "lines" else "process"]
    data = LINES if form == "lines" else RECORD
    at = exports["room"](store, len(data))
    memory.write(store, data, at)
    process(store, len(data))
    start = exports["answer"](store)  # neither place moves any more: one call a record is all that is left

    def call(data: bytes) -> bytes:
        memory.write(store, data, at)
        length = process(store, len(data))
        return bytes(memory.read(store, start, start + length))

    return measured(call, 50 if form == "lines" else 1000, lines=form == "lines")


# ---- other processes -----------------------------------------------------------------------------


@contextmanager
def grpc_server() -> Iterator[str]:
    """Its address."""
    with subprocess.Popen([str(BUILT / "grpc_server"), *SERVER], stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            yield f"127.0.0.1:{int(server.stdout.readline())}"
        finally:
            server.kill()


def grpc(form: str) -> float:
    package = importlib.import_module("grpc")
    sizes = [(f"grpc.max_{way}_message_length", 64 << 20) for way in ("send", "receive")]
    with grpc_server() as address, package.insecure_channel(address, options=sizes) as channel:
        method = channel.unary_unary("/bench/ProcessLines" if form == "lines" else "/bench/Process")
        return measured(lambda data: bytes(method(data)), 50 if form == "lines" else 1000, lines=form == "lines")


def pipe(form: str) -> float:
    command = [str(BUILT / "pipe"), *SERVER]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdin is not None and child.stdout is not None
        write, flush, read = child.stdin.write, child.stdin.flush, child.stdout.readline

        def one(data: bytes) -> bytes:
            write(data + b"\n")
            flush()
            return read()

        def several(data: bytes) -> bytes:
            # Less at a time than the two pipes hold, so that neither side waits for the other's reading.
            made = []
            pieces = 10
            step = len(data) // pieces
            for piece in range(pieces):
                write(data[piece * step : (piece + 1) * step])
                flush()
                made += [read() for _ in range(CHUNK // pieces)]
            return b"".join(made)

        try:
            return measured(several if form == "lines" else one, 50 if form == "lines" else 2000, lines=form == "lines")
        finally:
            child.kill()


# ---- streams: nanoseconds an item of ITEM bytes ---------------------------------------------------


def read(items: Callable[[int], AbstractContextManager[Iterable[bytes]]], count: int) -> float:
    """Of a stream that a `for` reads: what opens one of so many items."""

    def run(count: int) -> float:
        seen = 0
        began = time.perf_counter()
        with items(count) as stream:
            for _ in stream:
                seen += 1
        return checked(seen, count, began)

    return best(run, scaled(count))


def awaited(items: Callable[[int], AbstractAsyncContextManager[AsyncIterable[bytes]]], count: int) -> float:
    """The same, of one that an `async for` reads."""

    async def run(count: int) -> float:
        seen = 0
        began = time.perf_counter()
        async with items(count) as stream:
            async for _ in stream:
                seen += 1
        return checked(seen, count, began)

    return best(lambda count: asyncio.run(run(count)), scaled(count))


def checked(seen: int, count: int, began: float) -> float:
    took = time.perf_counter() - began
    if seen != count:
        raise SystemExit(f"{seen} items, expected {count}")
    return took / count * 1e9


def grpc_stream(form: str) -> float:
    package = importlib.import_module("grpc")
    with grpc_server() as address:
        if form == "read":
            with package.insecure_channel(address) as channel:
                method = channel.unary_stream("/bench/Items")
                return read(lambda count: nullcontext(method(f"{count} {ITEM}".encode())), 5_000)

        @asynccontextmanager
        async def items(count: int) -> AsyncIterator[AsyncIterable[bytes]]:
            async with importlib.import_module("grpc.aio").insecure_channel(address) as channel:
                yield channel.unary_stream("/bench/Items")(f"{count} {ITEM}".encode())

        return awaited(items, 5_000)


def pipe_stream(form: str) -> float:
    def command(count: int) -> list[str]:
        return [str(BUILT / "pipe"), str(count), str(ITEM)]

    @contextmanager
    def lines(count: int) -> Iterator[Iterable[bytes]]:
        with subprocess.Popen(command(count), stdout=subprocess.PIPE) as child:
            assert child.stdout is not None
            yield child.stdout

    @asynccontextmanager
    async def awaited_lines(count: int) -> AsyncIterator[AsyncIterable[bytes]]:
        child = await asyncio.create_subprocess_exec(*command(count), stdout=subprocess.PIPE)
        assert child.stdout is not None
        yield child.stdout
        await child.wait()

    return read(lines, 1_000_000) if form == "read" else awaited(awaited_lines, 200_000)


def pyo3_stream() -> float:
    """An async generator over a tokio channel."""
    loader = ExtensionFileLoader("pyo3_stream", str(BUILT / "cargo" / "release" / "libpyo3_stream.so"))
    spec = importlib.util.spec_from_loader("pyo3_stream", loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)

    @asynccontextmanager
    async def items(count: int) -> AsyncIterator[AsyncIterable[bytes]]:
        yield module.Items(count, ITEM)

    return awaited(items, 4_000)


# ---- foreign functions ---------------------------------------------------------------------------


def with_ctypes() -> float:
    class Buffer(ctypes.Structure):
        pass

    Reserve = ctypes.CFUNCTYPE(ctypes.c_int32, ctypes.POINTER(Buffer), ctypes.c_size_t)
    Buffer._fields_ = [
        ("struct_size", ctypes.c_uint32),
        ("flags", ctypes.c_uint32),
        ("data", ctypes.c_void_p),
        ("len", ctypes.c_size_t),
        ("capacity", ctypes.c_size_t),
        ("reserve", Reserve),
    ]

    class Call(ctypes.Structure):
        _fields_ = [
            ("struct_size", ctypes.c_uint32),
            ("flags", ctypes.c_uint32),
            ("id", ctypes.c_uint64),
            ("cancelled", ctypes.POINTER(ctypes.c_int32)),
            ("timeout_ms", ctypes.c_int64),
            ("metadata", ctypes.c_char_p),
            ("metadata_len", ctypes.c_size_t),
            ("metadata_out", ctypes.c_void_p),
        ]

    class Ops(ctypes.Structure):
        _fields_ = [
            ("struct_size", ctypes.c_uint32),
            ("flags", ctypes.c_uint32),
            ("method", ctypes.CFUNCTYPE(ctypes.c_int32, ctypes.c_void_p, ctypes.c_char_p, ctypes.c_size_t)),
            (
                "call",
                ctypes.CFUNCTYPE(
                    ctypes.c_int32,
                    ctypes.c_void_p,
                    ctypes.c_int32,
                    ctypes.POINTER(Call),
                    ctypes.c_char_p,
                    ctypes.c_size_t,
                    ctypes.POINTER(Buffer),
                    ctypes.POINTER(Buffer),
                ),
            ),
        ]

    refuse = Reserve(lambda buffer, additional: -12)  # the room below is enough
    room = [ctypes.create_string_buffer(65536) for _ in range(2)]
    out, error = (
        Buffer(ctypes.sizeof(Buffer), 0, ctypes.cast(each, ctypes.c_void_p), 0, 65536, refuse) for each in room
    )
    about = Call(ctypes.sizeof(Call), 0, 1, ctypes.pointer(ctypes.c_int32(0)), -1, None, 0, None)
    library = ctypes.CDLL(str(LIBRARY["c"]))
    instance = ctypes.c_void_p()
    host = ctypes.create_string_buffer(256)  # add-metadata asks nothing of it
    settings = SETTINGS.encode()
    status = library.ferrule_plugin_create(
        host, ctypes.byref(about), b"add-metadata", ctypes.c_size_t(12), settings, ctypes.c_size_t(len(settings)),
        ctypes.byref(instance), ctypes.byref(error),
    )  # fmt: skip
    if status != 0:
        raise SystemExit(f"create: {status}")
    ops = ctypes.cast(instance, ctypes.POINTER(ctypes.POINTER(Ops))).contents.contents
    number = ops.method(instance, b"process", 7)
    function, at, out_at, error_at = ops.call, ctypes.byref(about), ctypes.byref(out), ctypes.byref(error)
    string_at = ctypes.string_at

    def call(data: bytes) -> bytes:
        out.len = 0
        if function(instance, number, at, data, len(data), out_at, error_at) != 0:
            raise RuntimeError("process")
        return string_at(out.data, out.len)

    return measured(call, 20_000, lines=False)


def with_cffi() -> float:
    """ABI mode: declarations read at run time, the library opened by cffi."""
    ffi = importlib.import_module("cffi").FFI()
    header = (ROOT / "native_sdk" / "include" / "ferrule.h").read_text(encoding="utf-8")
    found = re.findall(r"/\* ferrule-cdef-begin \*/(.*?)/\* ferrule-cdef-end \*/", header, re.DOTALL)
    text = re.sub(r"/\*.*?\*/", " ", "\n".join(found), flags=re.DOTALL)
    ffi.cdef(re.sub(r"^[ \t]*#.*$", "", text, flags=re.MULTILINE))
    ffi.cdef(
        "int32_t ferrule_plugin_create(const ferrule_host *, const ferrule_call *, const char *, size_t, const char *,"
        " size_t, ferrule_instance **, ferrule_buffer *);"
    )
    library = ffi.dlopen(str(LIBRARY["c"]))
    refuse = ffi.callback("int32_t(ferrule_buffer *, size_t)", lambda buffer, additional: -12)
    room = [ffi.new("uint8_t[]", 65536) for _ in range(2)]
    out, error = (
        ffi.new(
            "ferrule_buffer *",
            {"struct_size": ffi.sizeof("ferrule_buffer"), "data": each, "capacity": 65536, "reserve": refuse},
        )
        for each in room
    )
    never = ffi.new("int32_t *")
    about = ffi.new("ferrule_call *", {"struct_size": ffi.sizeof("ferrule_call"), "cancelled": never, "timeout_ms": -1})
    host = ffi.new("ferrule_host *", {"struct_size": ffi.sizeof("ferrule_host")})
    made = ffi.new("ferrule_instance **")
    settings = SETTINGS.encode()
    if library.ferrule_plugin_create(host, about, b"add-metadata", 12, settings, len(settings), made, error) != 0:
        raise SystemExit("create failed")
    instance = made[0]
    number = instance.ops.method(instance, b"process", 7)
    function, buffer, data_at = instance.ops.call, ffi.buffer, out.data

    def call(data: bytes) -> bytes:
        out.len = 0
        if function(instance, number, about, data, len(data), out, error) != 0:
            raise RuntimeError("process")
        answer: bytes = buffer(data_at, out.len)[:]
        return answer

    return measured(call, 20_000, lines=False)


# ---- Python --------------------------------------------------------------------------------------


def with_orjson() -> float:
    package = importlib.import_module("orjson")
    loads, dumps, now = package.loads, package.dumps, datetime.now

    def call(data: bytes) -> bytes:
        record = loads(data)
        record["processed_by_rust_plugin"] = NAME
        record["rust_enriched_timestamp"] = now(UTC).isoformat()
        answer: bytes = dumps(record)
        return answer

    return measured(call, 20_000, lines=False)


def polars(data: str) -> float:
    """Nanoseconds a row of the flights' work. It is columnar: one timestamp for all rows."""
    pl = importlib.import_module("polars")
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "flights.jsonl")
        runs = []
        for _ in range(3):
            began = time.perf_counter()
            airlines = pl.scan_csv(FLIGHTS / "airlines.csv").rename({"name": "airline"})
            rows = pl.scan_csv(data, null_values=["", "NA"], infer_schema_length=None, try_parse_dates=False)
            work = (
                rows.filter(pl.col("dep_time").is_not_null())
                .join(airlines, on="carrier", how="left", maintain_order="left")
                .with_columns(
                    tailnum=pl.when(pl.col("tailnum").is_not_null()).then(pl.lit("***")),
                    processed_by_rust_plugin=pl.lit("flights-demo"),
                    rust_enriched_timestamp=pl.lit(datetime.now(UTC).isoformat()),
                )
            )
            work.sink_ndjson(out)
            runs.append(time.perf_counter() - began)
        with open(data, newline="", encoding="utf-8") as file:
            count = sum(1 for _ in csv.reader(file)) - 1
        return min(runs) / count * 1e9


CASES: dict[str, Callable[..., float]] = {
    "extism": extism,
    "wasmtime": wasmtime,
    "grpc": grpc,
    "pipe": pipe,
    "grpc_stream": grpc_stream,
    "pipe_stream": pipe_stream,
    "pyo3_stream": pyo3_stream,
    "ctypes": with_ctypes,
    "cffi": with_cffi,
    "orjson": with_orjson,
    "polars": polars,
}

if __name__ == "__main__":
    if sys.argv[1] == "--versions":
        names = ("extism", "extism-sys", "wasmtime", "grpcio", "cffi", "orjson", "polars")
        print(json.dumps({name: importlib.metadata.version(name) for name in names}))
    else:
        print(CASES[sys.argv[1]](*sys.argv[2:]), flush=True)
        os._exit(0)  # not by way of the interpreter's end, where tokio's threads crashed about one run in ten
