"""A worker that trains tables: `python -m benchmarks.tables.steps KIND ROWS DIM THREADS`.

Answers {"rows": B, "of": distribution, "what": "forward" | "step"} with seconds: a pooled lookup without gradients, or
lookup, backward (the gradient is given) and rowwise Adagrad (Adagrad where there is no rowwise one).
"""

from __future__ import annotations

import functools
import sys
import time
import warnings
from typing import Any

import torch
from torch import Tensor

from benchmarks._harness import turns
from benchmarks.tables.data import lookup, table_sizes
from embtables.rows.fbgemm.store import FbgemmRowStore
from embtables.rows.host.store import HostRowStore
from embtables.rows.protocol import Lookup, RowStore
from embtables.rows.stored_table import StoredTable
from embtables.schema import CollisionlessTable, Constant, FixedTable, RowwiseAdagrad

BATCHES = 6
LEARNS = RowwiseAdagrad(learning_rate=0.01)


class Store:
    """One of our row stores."""

    def __init__(self, kind: str, sizes: list[int], dim: int) -> None:
        common: dict[str, Any] = {"dim": dim, "optimizer": LEARNS, "initializer": Constant(value=0.01)}
        features = list(range(len(sizes)))
        if kind == "collisionless":
            stored = [StoredTable(CollisionlessTable(name=f"t{i}", **common), i) for i in features]
        else:
            stored = [StoredTable(FixedTable(name=f"t{i}", num_rows=n, **common), i) for i, n in enumerate(sizes)]
        self._store: RowStore = (FbgemmRowStore if kind == "fbgemm" else HostRowStore)(stored, features)
        if kind == "collisionless":
            for feature, size in enumerate(sizes):
                for start in range(0, size, 1 << 16):
                    self._store.train_rows([feature], [torch.arange(start, min(size, start + (1 << 16)))])
            self._store.update(1.0)

    def forward(self, batch: Lookup) -> None:
        with torch.no_grad():
            self._store.pooled(batch)

    def step(self, batch: Lookup, gradient: Tensor) -> None:
        _, kept = self._store.train_pooled(batch)
        kept.add_gradient(gradient, of_weights=False)
        self._store.update(1.0)


class Bags:
    """nn.EmbeddingBag with sparse gradients and torch's Adagrad."""

    def __init__(self, sizes: list[int], dim: int) -> None:
        made = (torch.full((n, dim), 0.01) for n in sizes)
        self._bags = torch.nn.ModuleList(
            torch.nn.EmbeddingBag(len(w), dim, mode="sum", sparse=True, include_last_offset=True, _weight=w)
            for w in made
        )
        self._optimizer = torch.optim.Adagrad(self._bags.parameters(), lr=0.01)

    def _pooled(self, batch: Lookup) -> Tensor:
        b, found = batch.num_rows, []
        for feature, bag in enumerate(self._bags):
            offsets = batch.offsets[feature * b : (feature + 1) * b + 1]
            found.append(bag(batch.keys[int(offsets[0]) : int(offsets[-1])], offsets - offsets[0]))
        return torch.cat(found, dim=1)

    def forward(self, batch: Lookup) -> None:
        with torch.no_grad():
            self._pooled(batch)

    def step(self, batch: Lookup, gradient: Tensor) -> None:
        self._optimizer.zero_grad()
        self._pooled(batch).backward(gradient)  # type: ignore[no-untyped-call]
        self._optimizer.step()


class TorchRec:
    """TorchRec's EmbeddingBagCollection, forward alone: unsharded it has dense gradients of whole tables."""

    def __init__(self, sizes: list[int], dim: int) -> None:
        from torchrec import EmbeddingBagCollection, EmbeddingBagConfig

        configs = [
            EmbeddingBagConfig(name=f"t{i}", embedding_dim=dim, num_embeddings=n, feature_names=[f"f{i}"])
            for i, n in enumerate(sizes)
        ]
        self._collection = EmbeddingBagCollection(tables=configs)

    def forward(self, batch: Lookup) -> None:
        from torchrec import KeyedJaggedTensor

        keys = [f"f{i}" for i in range(len(batch.features))]
        features = KeyedJaggedTensor(keys, batch.keys, lengths=batch.offsets.diff())
        with torch.no_grad():
            self._collection(features).values()

    def step(self, batch: Lookup, gradient: Tensor) -> None:
        raise AssertionError("forward alone")


def main() -> None:
    warnings.simplefilter("ignore")
    kind, rows, dim, threads = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
    torch.set_num_threads(threads)
    sizes = table_sizes(rows)
    start = time.perf_counter()
    made: Any
    if kind == "bags":
        made = Bags(sizes, dim)
    elif kind == "torchrec":
        made = TorchRec(sizes, dim)
    else:
        made = Store(kind, sizes, dim)
    built = time.perf_counter() - start

    @functools.lru_cache(maxsize=2)
    def batches(count: int, of: str) -> list[Lookup]:
        return [lookup(sizes, count, of, seed) for seed in range(BATCHES)]

    @functools.lru_cache(maxsize=1)
    def gradient(count: int) -> Tensor:
        return torch.randn(count, len(sizes) * dim, generator=torch.Generator().manual_seed(0)) * 1e-3

    turn = 0

    def answer(question: dict[str, Any]) -> dict[str, Any]:
        nonlocal turn
        batch = batches(question["rows"], question["of"])[turn % BATCHES]
        turn += 1
        values = gradient(question["rows"])
        start = time.perf_counter()
        if question["what"] == "forward":
            made.forward(batch)
        else:
            made.step(batch, values)
        return {"seconds": time.perf_counter() - start, "ids": len(batch.keys)}

    turns.serve({"seconds": built}, answer)


if __name__ == "__main__":
    main()
