"""Running features: events per second of the fold, and milliseconds in which the columns of 100 candidates are filled.

All columns of examples/online_retail (counts over four windows, ages, the last price, a history of 100, user x item
counts) are folded from its log, time and again with users and times of their own, in batches of 1,000 events. Asked are
100 items for one user, as a server does: while nothing else happens, and beside a thread that folds. The other
contenders are the same in a server (events are appended to its log, checked and read back; columns are filled in a
request) and what a server would do in Python: a dict of deques for each column's keys.
"""

from __future__ import annotations

import argparse
import bisect
import json
import sys
import tempfile
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks import _harness
from embtables.events import open_log
from embtables.events.columns import EVENT_ID, KIND
from embtables.inputs.where import condition_mask
from embtables.pipelines.config import load_config
from embtables.running import RunningFeatures
from embtables.schema import EventTime, Running, RunningOptions, SampledNegatives
from embtables.serving.running.log_fold import LogFold
from embtables.serving.scoring.columns.given import Given
from embtables.serving.scoring.running_columns import RunningColumns
from embtables.serving.scoring.side_tables import SideTables

EXAMPLE = Path("examples/online_retail/dcnv2.yaml")
BATCH, CANDIDATES = 1000, 100
GOAL_EVENTS, GOAL_MS = 300_000, 0.3
DAY_US = 86_400_000_000
WINDOWS = {f"item_sales_{days}d": days * DAY_US for days in (1, 3, 7, 28)}


def log() -> tuple[SampledNegatives, pa.Table]:
    """The example's definition, and its positives in order of time."""
    data = load_config(EXAMPLE).data
    assert data.prepare is not None
    paths = sorted(Path(str(data.path)).glob(data.files))
    table = pa.concat_tables([pq.read_table(path) for path in paths])
    table = table.filter(pa.array(condition_mask(table, data.prepare.where)))
    times = table.column("event_time").cast(pa.timestamp("us"))
    return data.prepare, table.set_column(
        table.schema.get_field_index("event_time"), "event_time", times
    ).combine_chunks()


def question(events: pa.Table) -> pa.Table:
    """The last items sold, for one user, a second after the last event."""
    items = pa.array(events.column("stock_code").to_pylist()[-5000:]).unique()[:CANDIDATES]
    user = events.column("customer_id")[-1].as_py()
    moment = events.column("event_time").cast(pa.int64())[-1].as_py() + 1_000_000
    return pa.table(
        {
            "stock_code": items,
            "customer_id": pa.array([user] * CANDIDATES, pa.int32()),
            "event_time": pa.array([moment] * CANDIDATES).cast(pa.timestamp("us")),
        }
    )


class Native:
    """Running features as they are."""

    def __init__(self, of: SampledNegatives) -> None:
        self._running = RunningFeatures(of.running_features(), RunningOptions(event_time=of.event_time))

    def fold(self, events: pa.RecordBatch) -> None:
        self._running.fold(events)

    def ask(self, questions: pa.Table) -> None:
        self._running.columns(questions)

    @property
    def bytes(self) -> int:
        return self._running.bytes


class Server:
    """What a server does: events are appended to a folder log and read back, and requests' columns are filled."""

    def __init__(self, of: SampledNegatives) -> None:
        self._folder = tempfile.TemporaryDirectory()
        # What a disk takes for fsync is no matter of the fold.
        self._log = open_log(f"folder://{self._folder.name}/log?partitions=1&fsync=never")
        running = Running(features=of.running_features())
        self._fold = LogFold(self._log, running, {})
        rules: Any = SimpleNamespace(joined=frozenset())  # no key comes from a side table
        self._columns = RunningColumns(self._fold, rules, SideTables(()), EventTime(column=of.event_time))
        self._appended = 0

    def fold(self, events: pa.RecordBatch) -> None:
        numbers = np.arange(self._appended, self._appended + events.num_rows)
        self._appended += events.num_rows
        events = events.append_column(EVENT_ID, pa.array(numbers).cast(pa.string()))
        events = events.append_column(KIND, pa.array(["sale"] * events.num_rows))
        self._fold.reach({0: self._log.append(0, events)})

    def ask(self, questions: pa.Table) -> None:
        columns = {name: questions.column(name).chunk(0) for name in questions.column_names}
        own = {"stock_code": columns.pop("stock_code")}
        shared = {name: column.slice(0, 1) for name, column in columns.items()}
        self._columns.filled(Given(k=questions.num_rows, shared=shared, own=own))

    @property
    def bytes(self) -> int:
        return self._fold.features.bytes


class Naive:
    """Dicts of deques in Python, a lock around them."""

    def __init__(self, of: SampledNegatives) -> None:
        self._length = of.history_length
        self._recent: dict[str, deque[int]] = defaultdict(deque)
        self._first: dict[str, int] = {}
        self._last: dict[str, tuple[int, float]] = {}
        self._sales: dict[str, int] = defaultdict(int)
        self._users: dict[int, deque[str]] = defaultdict(lambda: deque(maxlen=self._length))
        self._user_counts: dict[int, int] = defaultdict(int)
        self._pairs: dict[tuple[int, str], tuple[int, int]] = {}
        self._lock = threading.Lock()
        self.bytes = 0  # unknown

    def fold(self, events: pa.RecordBatch) -> None:
        with self._lock:
            columns = (events.column(name) for name in ("stock_code", "customer_id", "unit_price"))
            items, users, prices = (column.to_pylist() for column in columns)
            times = events.column("event_time").cast(pa.int64()).to_pylist()
            for item, user, price, moment in zip(items, users, prices, times, strict=True):
                recent = self._recent[item]
                recent.append(moment)
                while recent[0] < moment - WINDOWS["item_sales_28d"]:
                    recent.popleft()
                self._first.setdefault(item, moment)
                self._last[item] = (moment, price)
                self._sales[item] += 1
                self._users[user].append(item)
                self._user_counts[user] += 1
                self._pairs[user, item] = (self._pairs.get((user, item), (0, 0))[0] + 1, moment)

    def ask(self, questions: pa.Table) -> None:
        with self._lock:
            times = questions.column("event_time").cast(pa.int64()).to_pylist()
            rows = zip(
                questions.column("stock_code").to_pylist(),
                questions.column("customer_id").to_pylist(),
                times,
                strict=True,
            )
            pa.Table.from_pylist([self._row(*row) for row in rows])

    def _row(self, item: str, user: int, moment: int) -> dict[str, Any]:
        recent = self._recent.get(item, deque())
        row: dict[str, Any] = {
            name: len(recent) - bisect.bisect_left(recent, moment - window) for name, window in WINDOWS.items()
        }
        last, price = self._last.get(item, (None, None))
        count, at = self._pairs.get((user, item), (0, None))
        return {
            **row,
            "item_sales": self._sales.get(item, 0),
            "item_age_days": (moment - self._first[item]) / DAY_US if item in self._first else 999.0,
            "item_idle_days": 999.0 if last is None else (moment - last) / DAY_US,
            "user_item_count": count,
            "user_item_idle_days": 999.0 if at is None else (moment - at) / DAY_US,
            "user_count": self._user_counts.get(user, 0),
            "last_price": price,
            "history": list(self._users.get(user, ())),
        }


CONTENDERS: dict[str, Callable[[SampledNegatives], Any]] = {
    "embtables": Native,
    "server": Server,
    "dict of deques": Naive,
}


def batches(events: pa.Table, rounds: int) -> Iterator[pa.RecordBatch]:
    """The log again and again, a year later each time, by other users."""
    year = 374 * DAY_US
    for number in range(rounds):
        users = pa.array(events.column("customer_id").to_numpy() + 100_000 * number)
        times = pa.array(events.column("event_time").cast(pa.int64()).to_numpy() + year * number)
        moved = events.set_column(events.schema.get_field_index("customer_id"), "customer_id", users)
        place = events.schema.get_field_index("event_time")
        yield from moved.set_column(place, "event_time", times.cast(pa.timestamp("us"))).to_batches(BATCH)


def asked_ms(contender: Any, questions: pa.Table, count: int) -> list[float]:
    found = []
    for _ in range(count):
        started = time.perf_counter()
        contender.ask(questions)
        found.append((time.perf_counter() - started) * 1e3)
    return found


def contend(name: str, rounds: int) -> dict[str, Any]:
    """One contender's figures, in this process."""
    of, events = log()
    contender = CONTENDERS[name](of)
    folded, cpu = 0, time.process_time()
    for batch in batches(events, rounds):
        contender.fold(batch)
        folded += batch.num_rows
    cpu = time.process_time() - cpu
    questions = question(events)
    quiet = asked_ms(contender, questions, 500)
    stop = threading.Event()

    def fold_on() -> None:
        while not stop.is_set():
            for batch in events.slice(0, 100_000).to_batches(BATCH):
                if stop.is_set():
                    return
                contender.fold(batch)

    folding = threading.Thread(target=fold_on)
    folding.start()
    beside = asked_ms(contender, questions, 500)
    stop.set()
    folding.join()
    p50, p99 = (
        {key: float(np.quantile(of, q)) for key, of in (("quiet", quiet), ("beside", beside))} for q in (0.5, 0.99)
    )
    return {"events_per_second": folded / cpu, "p50": p50, "p99": p99, "bytes": contender.bytes, "events": folded}


def report(found: dict[str, list[dict[str, Any]]]) -> tuple[dict[str, Any], str]:
    def median(name: str, *path: str) -> float:
        values = []
        for run in found[name]:
            value: Any = run
            for part in path:
                value = value[part]
            values.append(float(value))
        return float(np.median(values))

    lines = []
    for name in found:
        times = [f"{median(name, q, of):.2f}" for of in ("quiet", "beside") for q in ("p50", "p99")]
        lines.append([name, f"{median(name, 'events_per_second'):,.0f}", *times])
    header = ["contender", "events/s per core", "100 candidates p50 ms", "p99 ms", "p50 ms beside a fold", "p99 ms"]
    rate = median("embtables", "events_per_second")
    fill = median("embtables", "p50", "quiet")
    ratio = rate / median("dict of deques", "events_per_second")
    faster = median("dict of deques", "p50", "quiet") / fill
    size = median("embtables", "bytes") / 2**20
    text = (
        f"The fold takes {ratio:.1f} times as many events per second of CPU time as Python's dicts, and fills 100 "
        f"candidates {faster:.1f} times as fast.\n\n{_harness.table(header, lines)}\n\n"
        f"{median('embtables', 'events'):,.0f} events; the state is {size:,.0f} MiB. Goals: {GOAL_EVENTS:,} events/s "
        f"(measured {rate:,.0f}), 100 candidates in {GOAL_MS} ms (measured {fill:.2f}, median)."
    )
    return {"events_per_second": rate, "fill_ms": fill, "ratio": ratio, "fill_ratio": faster}, text


def main() -> None:
    parser = _harness.parser(__doc__)
    parser.add_argument("--contender", choices=CONTENDERS, help=argparse.SUPPRESS)
    parser.add_argument("--rounds", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.contender is not None:
        print(json.dumps(contend(args.contender, args.rounds)))
        return
    rounds = 1 if args.quick else 5
    command = [sys.executable, "-m", "benchmarks.loop.running_features", "--rounds", str(rounds), "--contender"]
    found = _harness.interleave({name: [*command, name] for name in CONTENDERS}, 1 if args.quick else 5)
    result, text = report(found)
    _harness.finish("running_features", "Running features", result, text, args, "loop.running_features")


if __name__ == "__main__":
    main()
