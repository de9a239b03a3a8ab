"""How many events per second does an event log take durably, in batches of 1,000, and how many are read back?

An event has event_id, kind, event_time, request_id and ten columns of numbers, about 175 bytes. Each contender is a
process that appends for some seconds and then reads everything. `raw file` writes as many bytes and calls fdatasync,
which is what the disk allows one writer; `sqlite` inserts the encoded batch as a blob (WAL, synchronous=FULL). The
folder log with 4 writers has 4 processes on one partition. Redis runs with appendfsync=always; the broker with Kafka's
protocol keeps everything in memory, so its figures say what the client costs, not what a disk does.
"""

from __future__ import annotations

import argparse
import json
import os
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from benchmarks._harness import ROOT, Spread, finish, interleave, parser, table
from embtables.events import EventLog, open_log
from embtables.events.encoding import encode

ROWS = 1000
GOAL = 200_000.0
KINDS = ("raw file", "sqlite", "folder, 1 writer", "folder, 4 writers", "folder, fsync=interval", "redis", "kafka")


def batch() -> pa.RecordBatch:
    rng = np.random.default_rng(0)
    columns = {
        "event_id": pa.array([f"{i:032x}" for i in range(ROWS)]),
        "kind": pa.array(["impression"] * ROWS),
        "event_time": pa.array(np.arange(ROWS), pa.timestamp("us")),
        "request_id": pa.array([f"{i // 100:032x}" for i in range(ROWS)]),
    }
    columns |= {f"id{i}": pa.array(rng.integers(0, 1 << 40, ROWS)) for i in range(5)}
    columns |= {f"x{i}": pa.array(rng.random(ROWS)) for i in range(5)}
    return pa.record_batch(columns)


def per_second(append: Callable[[], object], seconds: float) -> dict[str, float]:
    """Events appended per second, and milliseconds of an append (median, 99th percentile)."""
    for _ in range(5):
        append()
    took: list[float] = []
    start = time.perf_counter()
    while (now := time.perf_counter()) - start < seconds:
        append()
        took.append(time.perf_counter() - now)
    spent = time.perf_counter() - start
    return {
        "append": len(took) * ROWS / spent,
        "p50_ms": float(np.quantile(took, 0.5)) * 1e3,
        "p99_ms": float(np.quantile(took, 0.99)) * 1e3,
    }


def raw_file(folder: Path, seconds: float) -> dict[str, float]:
    payload = bytes(encode(batch()))
    handle = os.open(folder / "raw", os.O_CREAT | os.O_RDWR | os.O_APPEND)

    def append() -> None:
        os.write(handle, payload)
        os.fdatasync(handle)

    found = per_second(append, seconds)
    os.lseek(handle, 0, os.SEEK_SET)
    start, size = time.perf_counter(), 0
    while part := os.read(handle, 1 << 20):
        size += len(part)
    found["read"] = size / len(payload) * ROWS / (time.perf_counter() - start)
    return found


def sqlite(folder: Path, seconds: float) -> dict[str, float]:
    given = batch()
    with closing(sqlite3.connect(folder / "events.sqlite", isolation_level=None)) as base:
        base.execute("PRAGMA journal_mode=WAL")
        base.execute("PRAGMA synchronous=FULL")
        base.execute("CREATE TABLE entries (n INTEGER PRIMARY KEY, events BLOB)")
        found = per_second(
            lambda: base.execute("INSERT INTO entries (events) VALUES (?)", (bytes(encode(given)),)), seconds
        )
        start, rows = time.perf_counter(), 0
        for (events,) in base.execute("SELECT events FROM entries ORDER BY n"):
            rows += pa.ipc.open_stream(events).read_next_batch().num_rows
        found["read"] = rows / (time.perf_counter() - start)
    return found


def read_rate(log: EventLog) -> float:
    start, rows, after = time.perf_counter(), 0, None
    while entries := log.read(0, after):
        rows += sum(entry.events.num_rows for entry in entries)
        after = entries[-1].position
    return rows / (time.perf_counter() - start)


def one_writer(uri: str, seconds: float) -> dict[str, float]:
    given = batch()
    with closing(open_log(uri)) as log:
        found = per_second(lambda: log.append(0, given), seconds)
        found["read"] = read_rate(log)
    return found


def many_writers(uri: str, seconds: float, writers: int) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.loop.event_log", "--writer", uri, "--seconds", str(seconds)]
    started = [subprocess.Popen(command, cwd=ROOT, stdin=-1, stdout=-1, text=True) for _ in range(writers)]
    for process in started:
        assert process.stdout is not None
        process.stdout.readline()  # it has opened the log
    answers = [json.loads(process.communicate("go\n")[0]) for process in _told(started)]
    with closing(open_log(uri)) as log:
        return {
            "append": sum(answer["append"] for answer in answers),
            "p50_ms": float(np.median([answer["p50_ms"] for answer in answers])),
            "p99_ms": max(answer["p99_ms"] for answer in answers),
            "read": read_rate(log),
        }


def _told(started: list[subprocess.Popen[str]]) -> list[subprocess.Popen[str]]:
    """All begin at once."""
    for process in started:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    return started


def writer(uri: str, seconds: float) -> None:
    given = batch()
    with closing(open_log(uri)) as log:
        print("ready", flush=True)
        sys.stdin.readline()
        print(json.dumps(per_second(lambda: log.append(0, given), seconds)))


def contend(kind: str, seconds: float) -> dict[str, float]:
    # Beside the repository, on its disk: /tmp may be memory.
    with tempfile.TemporaryDirectory(dir=ROOT / "build", prefix="event_log-") as name:
        folder = Path(name)
        if kind == "raw file":
            return raw_file(folder, seconds)
        if kind == "sqlite":
            return sqlite(folder, seconds)
        if kind == "folder, 4 writers":
            return many_writers(f"folder://{folder}/log", seconds, 4)
        if kind.startswith("folder"):
            return one_writer(f"folder://{folder}/log{'?fsync=interval' if 'interval' in kind else ''}", seconds)
        from tests.events.servers_for_tests import KafkaBroker, RedisServer

        server: Any = RedisServer(folder) if kind == "redis" else KafkaBroker(folder)
        try:
            return one_writer(f"{server.uri}/events", min(seconds, 2.0))
        finally:
            server.kill()


def markdown(result: dict[str, dict[str, Spread]]) -> str:
    floor = result["raw file"]
    header = ["log", "appends / raw file", "k events/s appended (low-high)", "p50 ms", "p99 ms", "k events/s read"]
    rows = []
    for kind, of in result.items():
        rate = of["append"]
        spread = f"{rate.median / 1e3:,.0f} ({rate.low / 1e3:,.0f}-{rate.high / 1e3:,.0f})"
        times = [f"{of[name].median:.2f}" for name in ("p50_ms", "p99_ms")]
        rows.append(
            [kind, f"{rate.median / floor['append'].median:.2f}", spread, *times, f"{of['read'].median / 1e3:,.0f}"]
        )
    reached = result["folder, 1 writer"]["append"].median
    verdict = "reached" if reached >= GOAL else "missed"
    return (
        f"{table(header, rows)}\n\nBatches of {ROWS:,} events, each durable before the next; median of the repeats. "
        f"Goal for the folder log: {GOAL:,.0f} events/s: {verdict} with {reached:,.0f}."
    )


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--contender", help=argparse.SUPPRESS)
    options.add_argument("--writer", help=argparse.SUPPRESS)
    options.add_argument("--seconds", type=float, help=argparse.SUPPRESS)
    args = options.parse_args()
    seconds = args.seconds or (1.0 if args.quick else 5.0)
    if args.writer:
        writer(args.writer, seconds)
        return
    if args.contender:
        print(json.dumps(contend(args.contender, seconds)))
        return
    (ROOT / "build").mkdir(exist_ok=True)
    child = [
        sys.executable,
        "-W",
        "ignore",
        "-m",
        "benchmarks.loop.event_log",
        "--seconds",
        str(seconds),
        "--contender",
    ]
    runs = interleave({kind: [*child, kind] for kind in KINDS}, repeats=1 if args.quick else 5)
    spreads = {
        kind: {name: Spread.of([run[name] for run in found]) for name in found[0]} for kind, found in runs.items()
    }
    figures = {kind: {name: vars(spread) for name, spread in of.items()} for kind, of in spreads.items()}
    finish("event_log", "Event log", {"logs": figures}, markdown(spreads), args, "loop.event_log")


if __name__ == "__main__":
    main()
