"""The work of flights.yaml as one would write it in Python without ferrule: csv and orjson.

    python examples/flights/plain_python.py FLIGHTS_CSV AIRLINES_CSV OUT

`demo.py --compare` times it beside the flow.
"""

from __future__ import annotations

import csv
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson


def convert(text: str) -> Any:
    """A CSV value: null for NA and nothing, a number where it is written as JSON writes one, else text."""
    if text in ("", "NA"):
        return None
    try:
        number = int(text)
    except ValueError:
        return text
    return number if str(number) == text else text


def run(flights: Path, airlines: Path, out: Path) -> tuple[int, int]:
    """Write the flights that flew as JSON lines; return how many were read and written."""
    with airlines.open(newline="", encoding="utf-8") as file:
        names = {row["carrier"]: row["name"] for row in csv.DictReader(file)}
    read = written = 0
    with flights.open(newline="", encoding="utf-8") as source, out.open("wb") as sink:
        rows = csv.reader(source)
        header = next(rows)
        for row in rows:
            read += 1
            record = dict(zip(header, map(convert, row), strict=True))
            if record["dep_time"] is None:
                continue
            record["airline"] = names.get(record["carrier"])
            if record["tailnum"] is not None:
                record["tailnum"] = "***"
            record["processed_by_python"] = "flights-demo"
            record["python_enriched_timestamp"] = datetime.now(UTC).isoformat()
            sink.write(orjson.dumps(record, option=orjson.OPT_APPEND_NEWLINE))
            written += 1
    return read, written


if __name__ == "__main__":
    print("read {}, written {}".format(*run(*map(Path, sys.argv[1:4]))))
