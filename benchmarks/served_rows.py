"""How fast tables for serving are loaded and looked up, and what a writer beside them costs their readers.

One table of `--rows` rows x 16 without optimizer state, in a version of weights on local disk, in the page cache. Keys
of a lookup follow Zipf 1.2 over all rows. The peer has the same keys sorted, finds them by `searchsorted` and takes
rows by `index_select`, on one thread too; it can neither grow nor be changed while it is read. Beside a writer:
versions of 100,000 rows each, as many as make 1M rows a second, on a thread of the same process. Wall time has what
other processes take of the cores in it, a thread's own time has not.
"""

from __future__ import annotations

import json
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from benchmarks import _harness

if TYPE_CHECKING:
    from embtables.state.folder.version_folder import StateFolder
    from embtables.tables.served_tables import ServedTables

Keys = npt.NDArray[np.int64]
DIM, SEED = 16, 3
MANY, FEW = 2000, 26  # keys of a lookup
PIECE, ROWS_A_SECOND = 100_000, 1_000_000
LOOKUPS = 4000
BESIDE_SECONDS = 2.0


def config() -> Any:
    """The table."""
    from embtables import Adagrad, CollisionlessTable

    return CollisionlessTable(name="t", dim=DIM, optimizer=Adagrad(learning_rate=0.1))


def row_keys(rows: int) -> Keys:
    """The keys that have rows, in no order."""
    rng = np.random.default_rng(0)
    keys: Keys = np.unique(rng.integers(-(2**62), 2**62, rows))
    return rng.permutation(keys)


def write(folder: Path, rows: int) -> None:
    """A serving version of so many rows."""
    from embtables.keyspace import bucket_order, table_seed
    from embtables.rows.content import TableContent
    from embtables.rows.stored_table import StoredTable
    from embtables.state.folder.version_folder import LeaseHolder, StateFolder, VersionKind
    from embtables.state.format.version import Version
    from embtables.state.write.commit_across_ranks import write_version

    table, keys = StoredTable(config(), table_seed(SEED, "t")), row_keys(rows)
    keys = keys[bucket_order(keys, table.seed)]
    weight = np.random.default_rng(1).random((len(keys), DIM), np.float32)
    times = np.zeros(len(keys), np.uint32)
    content = TableContent(keys, {"weight": weight}, times, times[:0], cold={"weight": np.zeros((1, DIM), np.float32)})
    with LeaseHolder(StateFolder(folder)) as holder:
        kind = VersionKind("serving", projection="weights")
        write_version(holder, kind, [table], Version({"t": content}, content={"schema": {}}))


def zipf(keys: Keys, size: int, count: int) -> list[Keys]:
    """Lookups of so many keys."""
    rng = np.random.default_rng(2)
    places = rng.zipf(1.2, size * count * 5 // 4 + 1000)  # a few lie beyond the keys
    return list(keys[places[places <= len(keys)][: size * count] - 1].reshape(count, size))


def microseconds(
    look: Callable[[Any], object],
    batches: Sequence[Any],
    clock: Callable[[], int] = time.perf_counter_ns,
    seconds: float = 0.0,
) -> dict[str, float]:
    """p50 and p99 of one lookup after the other, all of them and then from the first again until the time is over."""
    times, end = list[float](), time.perf_counter() + seconds
    while not times or time.perf_counter() < end:
        for batch in batches:
            start = clock()
            look(batch)
            times.append((clock() - start) / 1000)
    return {"p50": float(np.percentile(times, 50)), "p99": float(np.percentile(times, 99))}


def loaded(folder: Path) -> tuple[ServedTables, dict[str, float]]:
    """The tables, and what it took to load them."""
    from embtables import Feature, StateFolder
    from embtables.state.read.serve import load_served
    from embtables.tables.served_tables import ServedTables

    tables = ServedTables([config()], [Feature(name="f", table="t")], seed=SEED)
    state: StateFolder = StateFolder(folder)
    chain, before, start = state.chain("serving", 1), _harness.peak_memory_mib(), time.perf_counter()
    load_served(state, chain, tables)
    seconds = time.perf_counter() - start
    held = tables.num_bytes("t") / 2**20
    return tables, {"seconds": seconds, "mib": held, "peak": (_harness.peak_memory_mib() - before) / held}


def served(folder: Path, rows: int, count: int) -> dict[str, Any]:
    """Loading, lookups on a quiet table, and beside a writer."""
    import torch

    torch.set_num_threads(1)
    tables, load = loaded(folder)
    keys, found = row_keys(rows), dict[str, Any]()
    number, native = tables.number("t"), tables.rows._rows
    for size in (MANY, FEW):
        batches, out, is_cold = zipf(keys, size, count), np.empty((size, DIM), np.float32), np.empty(size, np.bool_)
        ways: dict[str, Callable[[Any], object]] = {
            "native": lambda batch: native.gather(number, batch, 1, out, is_cold),  # noqa: B023
            "gather_into": lambda batch: tables.gather_into(number, batch, out, is_cold),  # noqa: B023
            "read": lambda batch: tables.read("t", torch.from_numpy(batch)),
        }
        found[str(size)] = {name: microseconds(look, batches) for name, look in ways.items()}
    batches, out = zipf(keys, MANY, count), np.empty((MANY, DIM), np.float32)
    clocks = {"wall": time.perf_counter_ns, "cpu": time.thread_time_ns}
    beside = {}
    for name, clock in clocks.items():
        quiet = microseconds(lambda batch: tables.gather_into(number, batch, out), batches, clock, BESIDE_SECONDS)
        with Writer(tables, keys) as writer:
            busy = microseconds(lambda batch: tables.gather_into(number, batch, out), batches, clock, BESIDE_SECONDS)
        beside[name] = {"quiet": quiet, "beside": busy, "rows_a_second": writer.rate}
    return {"load": load, "lookups": found, "beside": beside}


class Writer:
    """Takes versions over on a thread of its own, while it is entered."""

    def __init__(self, tables: ServedTables, keys: Keys) -> None:
        self._tables, self._keys = tables, keys
        self._begun, self._done = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._write)
        self.rate = 0.0

    def _write(self) -> None:
        from embtables.rows.content import TableContent

        rng, versions, times = np.random.default_rng(3), [], np.zeros(PIECE, np.uint32)
        for _ in range(8):
            keys = self._keys[rng.integers(0, len(self._keys), PIECE)]
            versions.append(TableContent(keys, {"weight": rng.random((PIECE, DIM), np.float32)}, times, times[:0]))
        start, done = time.perf_counter(), 0
        while not self._done.is_set():
            self._tables.take_over("t", versions[done % len(versions)])
            done += 1
            self._begun.set()
            self._done.wait(max(0.0, done * PIECE / ROWS_A_SECOND - (time.perf_counter() - start)))
        self.rate = done * PIECE / (time.perf_counter() - start)

    def __enter__(self) -> Writer:
        self._thread.start()
        self._begun.wait()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()


def peer(folder: Path, rows: int, count: int) -> dict[str, Any]:
    """The same lookups in sorted keys."""
    import torch

    del folder
    torch.set_num_threads(1)
    shuffled = row_keys(rows)
    keys, weight = torch.from_numpy(np.sort(shuffled)), torch.rand(len(shuffled), DIM)
    found = {}
    for size in (MANY, FEW):
        batches, out = [torch.from_numpy(batch) for batch in zipf(shuffled, size, count)], torch.empty(size, DIM)

        def look(batch: torch.Tensor, out: torch.Tensor = out) -> None:
            torch.index_select(weight, 0, torch.searchsorted(keys, batch), out=out)

        found[str(size)] = {"searchsorted": microseconds(look, batches)}
    return {"lookups": found}


CONTENDERS = {"served": served, "peer": peer}


def spread(values: Sequence[float], unit: str) -> str:
    """Median, and least to greatest of the repeats."""
    of = _harness.Spread.of(values)
    return f"{of.median:.1f} {unit} ({of.low:.1f}..{of.high:.1f})"


def report(runs: dict[str, list[dict[str, Any]]], rows: int) -> str:
    """Ratios first, then what they are made of."""
    own, other = runs["served"], runs["peer"]
    lines = []
    for size in (MANY, FEW):
        base = [run["lookups"][str(size)]["searchsorted"]["p50"] for run in other]
        for name in ("native", "gather_into", "read"):
            times = [run["lookups"][str(size)][name]["p50"] for run in own]
            ratio = np.median(base) / np.median(times)
            lines.append([f"{ratio:.1f}x", f"{size:,} keys, p50: {name}", spread(times, "us"), spread(base, "us")])
    for clock in ("wall", "cpu"):
        for mark in ("p50", "p99"):
            busy, quiet = ([run["beside"][clock][at][mark] for run in own] for at in ("beside", "quiet"))
            ratio = np.median([b / q for b, q in zip(busy, quiet, strict=True)])
            what = f"{MANY:,} keys, {mark} of {clock} time: beside a writer / quiet"
            lines.append([f"{ratio:.2f}", what, spread(busy, "us"), spread(quiet, "us")])
    peaks, seconds = ([run["load"][name] for run in own] for name in ("peak", "seconds"))
    mib = own[0]["load"]["mib"]
    lines.append([f"{np.median(peaks):.2f}", "peak memory of loading / rows and map", f"{mib:,.0f} MiB held", ""])
    lines.append(["", f"{rows:,} rows loaded from the page cache", spread(seconds, "s"), ""])
    rates = [run["beside"]["wall"]["rows_a_second"] / 1e6 for run in own]
    lines.append(["", "rows taken over beside the lookups, M/s", spread(rates, "M/s"), ""])
    return _harness.table(["ratio", "what", "served rows", "searchsorted, or quiet"], lines)


def main() -> None:
    options = _harness.parser(__doc__)
    options.add_argument("--rows", type=int, default=None, help="by default 10,000,000; with --quick 200,000")
    options.add_argument("--contender", choices=CONTENDERS, help="what one process measures; with --folder")
    options.add_argument("--folder", type=Path)
    args = options.parse_args()
    rows = args.rows or (200_000 if args.quick else 10_000_000)
    count = LOOKUPS // 10 if args.quick else LOOKUPS
    if args.contender:
        print(json.dumps(CONTENDERS[args.contender](args.folder, rows, count)))
        return
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder), rows)
        command = [sys.executable, "-m", "benchmarks.served_rows", "--rows", str(rows), "--folder", folder]
        command += ["--quick"] if args.quick else []
        commands = {name: [*command, "--contender", name] for name in CONTENDERS}
        runs = _harness.interleave(commands, 1 if args.quick else 3)
    _harness.finish("served_rows", "Rows that are served", {"runs": runs}, report(runs, rows), args)


if __name__ == "__main__":
    main()
