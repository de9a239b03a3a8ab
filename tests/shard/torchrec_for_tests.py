"""One rank of TorchRec's DistributedModelParallel, row-wise, beside one of ours: the same batches, the same rows."""

from __future__ import annotations

import logging
import os
import warnings
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torchrec import EmbeddingBagCollection as Theirs
from torchrec import EmbeddingBagConfig, KeyedJaggedTensor

from embtables import EmbeddingBagCollection, Feature, FixedTable, Tables
from embtables.schema import Adagrad, Identity, RowwiseAdagrad, Sgd
from embtables.shard.world import World

SIZES, DIMS = (300, 41, 7), (8, 4, 16)
NAMES = ("a", "b", "c", "again")
TABLE_OF = (0, 1, 2, 0)
LEARNERS: dict[str, tuple[Any, str, dict[str, float]]] = {
    "sgd": (Sgd(learning_rate=0.1), "SGD", {"lr": 0.1}),
    "adagrad": (Adagrad(learning_rate=0.1), "Adagrad", {"lr": 0.1, "eps": 1e-8}),
    "rowwise_adagrad": (RowwiseAdagrad(learning_rate=0.1), "RowWiseAdagrad", {"lr": 0.1, "eps": 1e-8}),
}


def batch(step: int, rank: int) -> KeyedJaggedTensor:
    """Lists of ids of every feature, some empty, with repetitions."""
    rng = np.random.default_rng([step, rank])
    rows = 16
    lengths = rng.integers(0, 5, (len(NAMES), rows))
    ids = [rng.zipf(1.3, n) % SIZES[table] for n, table in zip(lengths.sum(axis=1), TABLE_OF, strict=True)]
    flat = torch.from_numpy(np.concatenate(ids))
    return KeyedJaggedTensor(list(NAMES), flat, lengths=torch.from_numpy(lengths.reshape(-1)).int())


def sharded(world: World, name: str, weights: list[torch.Tensor]) -> Any:
    """TorchRec's, with these rows."""
    from torchrec.distributed.embeddingbag import EmbeddingBagCollectionSharder
    from torchrec.distributed.model_parallel import DistributedModelParallel
    from torchrec.distributed.planner import EmbeddingShardingPlanner, Topology
    from torchrec.distributed.types import ShardingEnv
    from torchrec.optim import optimizers, rowwise_adagrad
    from torchrec.optim.apply_optimizer_in_backward import apply_optimizer_in_backward

    class RowWise(EmbeddingBagCollectionSharder):
        def sharding_types(self, compute_device_type: str) -> list[str]:
            return ["row_wise"]

        def compute_kernels(self, sharding_type: str, compute_device_type: str) -> list[str]:
            return ["fused"]

    os.environ |= {"LOCAL_RANK": str(world.rank), "LOCAL_WORLD_SIZE": str(world.size)}
    configs = [
        EmbeddingBagConfig(
            name=f"t{n}",
            embedding_dim=DIMS[n],
            num_embeddings=SIZES[n],
            feature_names=[f for f, table in zip(NAMES, TABLE_OF, strict=True) if table == n],
        )
        for n in range(len(SIZES))
    ]
    made = Theirs(configs, device=torch.device("cpu"))
    kind = LEARNERS[name][1]
    optimizer = rowwise_adagrad.RowWiseAdagrad if kind == "RowWiseAdagrad" else getattr(optimizers, kind)
    apply_optimizer_in_backward(optimizer, made.parameters(), LEARNERS[name][2])
    topology = Topology(world_size=world.size, local_world_size=world.size, compute_device="cpu")
    plan = EmbeddingShardingPlanner(topology=topology).collective_plan(made, [RowWise()], dist.group.WORLD)
    model = DistributedModelParallel(
        made,
        env=ShardingEnv.from_process_group(dist.group.WORLD),
        device=torch.device("cpu"),
        plan=plan,
        sharders=[RowWise()],
        init_data_parallel=False,
    )
    for n, (start, rows) in enumerate(own_rows(model)):
        rows.copy_(weights[n][start : start + len(rows)])
    return model


def own_rows(model: Any) -> list[tuple[int, torch.Tensor]]:
    """Of each table: the first row of this rank, and its rows."""
    state, found = model.state_dict(), []
    for n in range(len(SIZES)):
        (shard,) = next(v for k, v in state.items() if f".t{n}." in k).local_shards() or [None]
        found.append((0, torch.empty(0, DIMS[n])) if shard is None else (shard.metadata.shard_offsets[0], shard.tensor))
    return found


def compare(world: World, name: str, steps: int) -> tuple[float, float, float]:
    """Greatest differences of outputs and of rows after some steps, and how far the rows have moved."""
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    tables = [
        FixedTable(name=f"t{n}", dim=DIMS[n], num_rows=SIZES[n], optimizer=LEARNERS[name][0]) for n in range(len(SIZES))
    ]
    features = [
        Feature(name=f, table=f"t{n}", encoder=Identity(), pooling="sum") for f, n in zip(NAMES, TABLE_OF, strict=True)
    ]
    ours = Tables(tables, features, seed=3, world=world)
    view = EmbeddingBagCollection.over(ours)
    begin = [ours.weight(f"t{n}") for n in range(len(SIZES))]
    theirs = sharded(world, name, begin)
    outputs = 0.0
    columns = {f: DIMS[n] for f, n in zip(NAMES, TABLE_OF, strict=True)}
    for step in range(steps):
        part = batch(step, world.rank)
        mine = view(part)
        other = theirs(part).wait()
        outputs = max(outputs, *(float((mine[f] - other[f]).abs().max()) for f in NAMES))
        rng = torch.Generator().manual_seed(step * 10 + world.rank)
        given = {f: torch.randn(16, columns[f], generator=rng) for f in NAMES}
        sum((mine[f] * given[f]).sum() for f in NAMES).backward()
        # TorchRec takes the mean over the ranks' gradients.
        ours.step(gradient_scale=1.0 / world.size)
        sum((other[f] * given[f]).sum() for f in NAMES).backward()
    rows = moved = 0.0
    for n, (start, own) in enumerate(own_rows(theirs)):
        weight = ours.weight(f"t{n}")
        if len(own):
            rows = max(rows, float((weight[start : start + len(own)] - own).abs().max()))
        moved = max(moved, float((weight - begin[n]).abs().max()))
    return outputs, rows, moved
