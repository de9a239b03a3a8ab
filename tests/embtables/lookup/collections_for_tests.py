"""Batches, tables and TorchRec's side of a step, for the tests of the views."""

from __future__ import annotations

from typing import Any

import torch
from torchrec import KeyedJaggedTensor

from embtables import Feature, FixedTable, Tables
from embtables.schema import Hash, MultiHash, RowwiseAdagrad

STORES = ["host", "fbgemm", "reference"]


def kjt(keys: list[str], rows: int, vocabulary: int, *, weighted: bool = False, seed: int = 0) -> KeyedJaggedTensor:
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(0, 4, (len(keys) * rows,), generator=generator)
    values = torch.randint(0, vocabulary, (int(lengths.sum()),), generator=generator)
    weights = torch.rand(len(values), generator=generator).requires_grad_() if weighted else None
    return KeyedJaggedTensor(keys, values, lengths=lengths, weights=weights)


def assert_same_step(ours: Any, theirs: torch.nn.Module, atol: float = 1e-5) -> None:
    """Takes plain SGD's step at rate 0.5 on TorchRec's side; both then hold the same rows."""
    with torch.no_grad():
        for parameter in theirs.parameters():
            if parameter.grad is not None:
                parameter.sub_(0.5 * parameter.grad)
    for name, value in theirs.state_dict().items():
        assert torch.allclose(ours.state_dict()[name], value, atol=atol), name


def schema_tables(store: Any, optimizer: Any = None) -> Tables:
    learns = optimizer or RowwiseAdagrad(learning_rate=0.1)
    return Tables(
        [
            FixedTable(name="t", dim=4, num_rows=50, optimizer=learns),
            FixedTable(name="s", dim=8, num_rows=30, optimizer=learns),
        ],
        [
            Feature(name="a", table="t"),
            Feature(name="m", table="t", pooling="mean", encoder=Hash(seed=5)),
            Feature(name="h", table="s", pooling="mean", encoder=MultiHash(num_hashes=3)),
            Feature(name="q", table="s", pooling="none", encoder=MultiHash(num_hashes=2)),
        ],
        seed=1,
        row_store=store,
    )
