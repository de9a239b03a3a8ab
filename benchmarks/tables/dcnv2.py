"""A worker that trains DCN-V2 on made-up ids: `python -m benchmarks.tables.dcnv2 KIND PRECISION THREADS`.

26 single-valued features over tables of a million rows in all, dimension 16, 13 dense columns, cross 3, MLP 256 x 3,
batch 4096. Answers each question with the seconds of one whole step: forward, backward, dense Adam, row update.
"""

from __future__ import annotations

import sys
import time
import warnings
from typing import Any

import numpy as np
import torch

from benchmarks._harness import turns
from benchmarks.tables.data import draw, table_sizes
from embtables import CollisionlessTable, Feature, FixedTable, Tables
from embtables.inputs.batch import JaggedIds
from embtables.lookup.views import PooledView
from embtables.models.kinds.dcnv2 import DCNV2, DcnV2Config
from embtables.models.spec import ModelInputs
from embtables.schema import Identity, RowwiseAdagrad

FEATURES, DENSE, BATCH, BATCHES = 26, 13, 4096, 6


def make_tables(kind: str, sizes: list[int]) -> Tables:
    common: dict[str, Any] = {"dim": 16, "optimizer": RowwiseAdagrad(learning_rate=0.01)}
    if kind == "collisionless":
        tables: list[Any] = [CollisionlessTable(name=f"t{i}", **common) for i in range(FEATURES)]
    else:
        tables = [FixedTable(name=f"t{i}", num_rows=sizes[i], **common) for i in range(FEATURES)]
    features = [Feature(name=f"f{i}", table=f"t{i}", encoder=Identity()) for i in range(FEATURES)]
    return Tables(tables, features, seed=0, row_store="fbgemm" if kind == "fbgemm" else "host")


def main() -> None:
    warnings.simplefilter("ignore")
    kind, precision, threads = sys.argv[1], sys.argv[2], int(sys.argv[3])
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    sizes = table_sizes(1_000_000)[:FEATURES]
    tables = make_tables(kind, sizes)
    inputs = ModelInputs(PooledView(tables), None, None, num_dense=DENSE, num_labels=1)
    model = DCNV2.build(DcnV2Config(num_cross_layers=3, hidden_sizes=(256, 256, 256)), inputs)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, fused=True)
    rng = np.random.default_rng(0)
    names, lengths = tuple(f"f{i}" for i in range(FEATURES)), torch.ones(FEATURES * BATCH, dtype=torch.int64)
    batches = []
    for _ in range(BATCHES):
        ids = torch.from_numpy(np.concatenate([draw(rng, BATCH, size, "zipf") for size in sizes]))
        batches.append((JaggedIds(names, ids, lengths, BATCH), torch.randn(BATCH, DENSE)))
    labels = (torch.rand(BATCH, 1) < 0.3).float()
    turn = 0

    def answer(_: dict[str, Any]) -> dict[str, Any]:
        nonlocal turn
        ids, dense = batches[turn % BATCHES]
        turn += 1
        start = time.perf_counter()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == "bf16"):
            logits = model(ids, dense)
        loss = torch.nn.functional.binary_cross_entropy_with_logits(logits.float(), labels)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        tables.step()
        return {"seconds": time.perf_counter() - start}

    turns.serve({}, answer)


if __name__ == "__main__":
    main()
