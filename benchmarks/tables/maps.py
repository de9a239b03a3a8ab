"""A worker that maps keys to row numbers: `python -m benchmarks.tables.maps KIND KEYS THREADS`.

Builds its map from empty in batches of 16,384 new keys, says how long that took, then answers
{"of": "uniform" | "zipf" | "misses"} with millions of keys per second.
"""

from __future__ import annotations

import sys
import time
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks._harness import turns
from benchmarks.tables.data import draw

BATCH = 16_384
QUESTION = 1 << 20
MCH_KEYS = 1 << 20  # it inserts a quarter of a million a second: its rate is taken from this many
Keys = npt.NDArray[np.int64]


def distinct_keys(n: int) -> Keys:
    """n different odd 62-bit keys in random order, so key - 1 is a miss."""
    values = np.random.default_rng(1).permutation(n).astype(np.uint64)
    spread = values * np.uint64(0x9E3779B97F4A7C15) % np.uint64(2**61)
    return (spread * np.uint64(2) + np.uint64(1)).view(np.int64)


class Ours:
    """A collisionless table of dimension 1 with rows of zeros, so that the map is what takes time."""

    def __init__(self, threads: int) -> None:
        import torch

        from embtables.rows.host.store import HostRowStore
        from embtables.rows.stored_table import StoredTable
        from embtables.schema import CollisionlessTable, Sgd, Zeros

        torch.set_num_threads(threads)
        table = CollisionlessTable(name="t", dim=1, optimizer=Sgd(learning_rate=0.1), initializer=Zeros())
        self._store = HostRowStore([StoredTable(table, 1)], [0])._store
        self._threads = threads
        self._features = np.zeros(1, np.int32)

    def insert(self, keys: Keys) -> None:
        rows = np.empty(len(keys), np.uint32)
        self._store.resolve(self._features, keys, np.array([0, len(keys)]), 1, True, self._threads, rows)

    def find(self, keys: Keys) -> None:
        self._store.find(0, keys, self._threads, np.empty(len(keys), np.uint32))

    def figures(self) -> dict[str, Any]:
        return {"bytes": self._store.stats(0)["map_bytes"]}


class Mch:
    """TorchRec's managed collision module."""

    def __init__(self, size: int) -> None:
        import torch
        from torchrec.modules.mc_modules import LFU_EvictionPolicy, MCHManagedCollisionModule
        from torchrec.sparse.jagged_tensor import JaggedTensor

        self._torch, self._jagged = torch, JaggedTensor
        self._module = MCHManagedCollisionModule(
            zch_size=size,
            device=torch.device("cpu"),
            eviction_policy=LFU_EvictionPolicy(),
            eviction_interval=1,
            input_hash_size=2**62,
        )

    def _batch(self, keys: Keys) -> dict[str, Any]:
        lengths = self._torch.ones(len(keys), dtype=self._torch.int64)
        return {"f": self._jagged(values=self._torch.from_numpy(keys), lengths=lengths)}

    def insert(self, keys: Keys) -> None:
        self._module.train()
        self._module.profile(self._batch(keys))

    def find(self, keys: Keys) -> None:
        self._module.eval()
        with self._torch.no_grad():
            self._module.remap(self._batch(keys))

    def figures(self) -> dict[str, Any]:
        return {"bytes": sum(b.numel() * b.element_size() for b in self._module.buffers())}


class Dict:
    """A Python dict."""

    def __init__(self) -> None:
        self._rows: dict[int, int] = {}

    def insert(self, keys: Keys) -> None:
        rows = self._rows
        for key in keys.tolist():
            rows.setdefault(key, len(rows))

    def find(self, keys: Keys) -> None:
        get = self._rows.get
        np.fromiter((get(key, -1) for key in keys.tolist()), np.int64, len(keys))

    def figures(self) -> dict[str, Any]:
        return {}


class Pandas:
    """pandas' Index, which cannot grow: built once."""

    def __init__(self, keys: Keys) -> None:
        import pandas as pd

        self._index = pd.Index(keys)
        self._index.get_indexer(keys[:1])

    def find(self, keys: Keys) -> None:
        self._index.get_indexer(keys)

    def figures(self) -> dict[str, Any]:
        return {}


def build(kind: str, keys: Keys, threads: int) -> tuple[Any, dict[str, Any]]:
    """The map with all keys in it, and how its making went."""
    start = time.perf_counter()
    if kind == "pandas":
        made: Any = Pandas(keys)
        return made, {"inserts": len(keys) / (time.perf_counter() - start) / 1e6}
    made = Ours(threads) if kind == "embtables" else Mch(len(keys)) if kind == "mch" else Dict()
    wanted = keys[:MCH_KEYS] if kind == "mch" else keys
    batch = len(wanted) // 4 if kind == "mch" else BATCH
    seconds = []
    for begin in range(0, len(wanted), batch):
        start = time.perf_counter()
        made.insert(wanted[begin : begin + batch])
        seconds.append(time.perf_counter() - start)
    return made, {"inserts": len(wanted) / sum(seconds) / 1e6, "slowest_batch_ms": max(seconds) * 1e3}


def questions(keys: Keys) -> dict[str, Keys]:
    """2^20 keys each."""
    rng = np.random.default_rng(2)
    hits = {of: keys[draw(rng, QUESTION, len(keys), of)] for of in ("uniform", "zipf")}
    return {**hits, "misses": hits["uniform"] - 1}


def main() -> None:
    warnings.simplefilter("ignore")
    kind, count, threads = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    keys = distinct_keys(count)
    made, built = build(kind, keys, threads)
    asked = questions(keys[:MCH_KEYS] if kind == "mch" else keys)

    def answer(question: dict[str, Any]) -> dict[str, Any]:
        wanted = asked[question["of"]]
        find: Callable[[Keys], None] = made.find
        start = time.perf_counter()
        find(wanted)
        return {"millions": len(wanted) / (time.perf_counter() - start) / 1e6}

    turns.serve({**built, **made.figures()}, answer)


if __name__ == "__main__":
    main()
