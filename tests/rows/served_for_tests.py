"""Readers beside a writer of served rows: each row that a reader sees is the one that its key has in a version that was
being taken over while it looked.

Three tables: one that grows, loses keys and lets rows expire; a fixed one; one of which every version changes the scale
of all weights, and every eighth makes it 1 again. Each row has one value throughout, so that a torn one shows.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from embtables.rows.content import TableContent
from embtables.rows.protocol import Lookup
from embtables.rows.served.rows import ServedRows
from embtables.rows.stored_table import StoredTable
from embtables.schema import CollisionlessTable, FixedTable, Sgd

Floats = npt.NDArray[np.float32]
DIM, KEYS, EXTRA, TTL = 24, 300, 200, 6
EXTRAS_LIVE = 5  # versions
MOST_BYTES = 64 << 20  # of rows that were never given back there would be hundreds of MiB
LARGE = 20_000  # keys of a lookup that lasts while versions come
OF: dict[str, Any] = {"dim": DIM, "optimizer": Sgd(learning_rate=0.1)}
ITEM, USER, DECAYED = range(3)
TABLES = [
    StoredTable(CollisionlessTable(name="item", ttl_seconds=TTL, **OF), 7),
    StoredTable(FixedTable(name="user", num_rows=KEYS, **OF), 3),
    StoredTable(CollisionlessTable(name="decayed", **OF), 5),
]


@dataclass
class Written:
    """What the writer has done, as readers see it.

    Attributes:
        expected: by version and table, what keys 0..KEYS-1 read; 0: the cold row.
        begun, done: the last version that the writer began, and the last that it took over whole.
    """

    expected: dict[int, list[Floats]] = field(default_factory=dict)
    begun: int = 0
    done: int = 0


class Writer:
    """Makes one version after the other and takes it over, in pieces."""

    def __init__(self, served: ServedRows) -> None:
        self.served, self.written, self._rng = served, Written(), np.random.default_rng(0)
        self._stored = [np.full(KEYS, table != ITEM, np.float32) for table in range(len(TABLES))]
        self._seen = np.zeros(KEYS, np.int64)
        self._begin(0)
        for table in (USER, DECAYED):
            self._give(table, 0, np.arange(KEYS), self._stored[table])

    def _begin(self, version: int) -> None:
        scale = scale_of(version)
        item = np.where(version - self._seen > TTL, 0, self._stored[ITEM])
        user, decayed = self._stored[USER].copy(), self._stored[DECAYED] * scale
        self.written.expected[version] = [item.astype(np.float32), user, decayed]
        self.written.expected.pop(version - 64, None)
        self.written.begun = version

    def version(self) -> None:
        """The next version."""
        number = self.written.begun + 1
        changed = [np.flatnonzero(self._rng.random(KEYS) < 0.3) for _ in TABLES]
        if number % 8 == 0:
            changed[DECAYED] = np.arange(KEYS)
        gone = np.setdiff1d(np.flatnonzero(self._rng.random(KEYS) < 0.1), changed[ITEM])
        for table, keys in enumerate(changed):
            # Exact at every scale, and another in every version.
            self._stored[table][keys] = keys + 1 + 1024 * (number % 4096)
        self._stored[ITEM][gone], self._seen[changed[ITEM]] = 0, number
        self._begin(number)
        fresh, old = (extras(n) for n in (number, number - EXTRAS_LIVE))
        self._give(
            ITEM,
            number,
            fresh,
            np.full(EXTRA, number, np.float32),
            old if number > EXTRAS_LIVE else gone[:0],
            more=True,
        )
        self._give(ITEM, number, changed[ITEM], self._stored[ITEM][changed[ITEM]], gone)
        for table in (USER, DECAYED):
            halves = np.array_split(changed[table], 2)
            for keys in halves:
                self._give(table, number, keys, self._stored[table][keys], more=keys is halves[0])
        self.written.done = number

    def _give(self, table: int, version: int, keys: Any, values: Floats, gone: Any = (), *, more: bool = False) -> None:
        weights = np.repeat(values[:, None], DIM, axis=1)
        seen = np.full(len(keys), version if table == ITEM else 0, np.uint32)
        change = TableContent(np.array(keys, np.int64), {"weight": weights}, seen, seen[:0], now=version)
        change.tombstones = np.array(gone, np.int64)
        change.scale = float(scale_of(version)) if table == DECAYED else 1.0
        self.served.take_over(table, change, more=more)


def scale_of(version: int) -> np.float32:
    """1, and a half less with each version, for eight of them."""
    return np.float32(0.5 ** (version % 8))


def extras(version: int) -> npt.NDArray[np.int64]:
    """Keys that come with a version and go again: the map grows and is made anew."""
    return np.arange(EXTRA) + 10**9 + EXTRA * version


def read(writer: Writer, rng: np.random.Generator) -> str | None:
    """One lookup of a reader, and what was wrong with it."""
    served, written, table = writer.served, writer.written, int(rng.integers(0, len(TABLES)))
    size = LARGE if rng.integers(0, 8) == 0 else int(rng.integers(1, 80))
    keys, how = rng.integers(0, KEYS, size), int(rng.integers(0, 3))
    low = written.done
    asked = np.concatenate([keys, extras(low)[:5]]) if table == ITEM else keys
    if how == 0:
        rows = served.read(table, "weight", torch.from_numpy(asked)).numpy()
    elif how == 1:
        rows = np.empty((len(asked), DIM), np.float32)
        served.gather_into(table, asked, rows, np.empty(len(asked), np.bool_))
    else:
        lookup = Lookup((table,), torch.from_numpy(asked), torch.arange(len(asked) + 1), None, len(asked))
        rows = served.pooled(lookup).numpy()
    high = written.begun
    found = [written.expected.get(version) for version in range(low, high + 1)]
    expected = [each for each in found if each is not None]
    if len(expected) < len(found):
        return None  # this thread slept; what was expected then is forgotten
    if not (rows == rows[:, :1]).all():
        return f"a torn row of table {table}"
    values = rows[:, 0]
    right = np.zeros(len(keys), np.bool_)
    for each in expected:
        right |= values[: len(keys)] == each[table][keys]
    if not right.all():
        key = int(keys[~right][0])
        value = float(values[: len(keys)][~right][0])
        return f"key {key} of table {table} reads {value}, which it has in no version from {low} to {high}"
    if (
        table == ITEM
        and low
        and not np.isin(values[len(keys) :], (low, 0) if high >= low + EXTRAS_LIVE else (low,)).all()
    ):
        return f"keys of version {low} read {values[len(keys) :]} at version {high}"
    return None


def run(is_enough: Callable[[int, int], bool], readers: int = 2) -> tuple[int, int, list[str]]:
    """Versions taken over, lookups made, and what was wrong. Stops at the first wrong row.

    Args:
        is_enough: whether so many versions and lookups are.
    """
    served = ServedRows(TABLES, range(len(TABLES)))
    writer, wrong, lookups = Writer(served), list[str](), [0] * readers
    done = threading.Event()

    def look(number: int) -> None:
        rng = np.random.default_rng(number)
        while not done.is_set():
            try:
                found = read(writer, rng)
            except BaseException as error:  # a reader that ended would find nothing wrong
                found = f"a reader failed: {error!r}"
            if found is not None:
                wrong.append(found)
                done.set()
            lookups[number] += 1

    threads = [threading.Thread(target=look, args=(number,)) for number in range(readers)]
    for thread in threads:
        thread.start()
    while not done.is_set() and not is_enough(writer.written.done, sum(lookups)):
        writer.version()
    done.set()
    for thread in threads:
        thread.join()
    writer.version()  # gives back what a reader that slept within a lookup has held
    left = sum(served.num_bytes(table) for table in range(len(TABLES)))
    if left > MOST_BYTES:  # a reader that sleeps within a lookup holds rows, but not for ever
        wrong.append(f"{left:,} bytes at the end, for some {5 * KEYS + EXTRAS_LIVE * EXTRA:,} rows")
    return writer.written.done, sum(lookups), wrong
