"""A contender of several ranks: `python -m benchmarks.sharded.ranks KIND RANKS ROWS`.

The process that is started is rank 0; it starts the others, hands every question on to them, and reports how long all
of them took. KIND: fixed, collisionless, replicated, torchrec (DistributedModelParallel, row-wise), or local (our
tables without ranks). Answers {"of": distribution} with the seconds of one step: pooled lookup of 26 features, backward
(the gradient is given) and rowwise Adagrad, batch 4,096 per rank.
"""

from __future__ import annotations

import contextlib
import datetime
import functools
import json
import os
import subprocess
import sys
import tempfile
import time
import warnings
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor
from torchrec import KeyedJaggedTensor

from benchmarks import _harness
from benchmarks._harness import turns
from benchmarks.tables.data import draw
from embtables import CollisionlessTable, EmbeddingBagCollection, Feature, FixedTable, Tables
from embtables.schema import Constant, Identity, RowwiseAdagrad
from embtables.shard.world import ProcessGroup, World

FEATURES, DIM, BATCH, BATCHES = 26, 32, 4096, 6
NAMES = [f"f{n}" for n in range(FEATURES)]


class Counted(ProcessGroup):
    """A world that counts the bytes it sends to other ranks."""

    sent = 0

    def all_to_all(self, out: Tensor, given: Tensor, received: Any, sent: Any) -> None:
        """See World."""
        foreign = sum(sent) - sent[self.rank]
        self.sent += foreign * given.element_size() * (given[0].numel() if given.dim() > 1 and len(given) else 1)
        super().all_to_all(out, given, received, sent)


class Ours:
    """Our tables, all rows made."""

    def __init__(self, kind: str, sizes: list[int], world: World | None) -> None:
        common: dict[str, Any] = {
            "dim": DIM,
            "optimizer": RowwiseAdagrad(learning_rate=0.01),
            "initializer": Constant(value=0.01),
        }
        tables: list[Any] = [
            CollisionlessTable(name=f"t{n}", **common)
            if kind == "collisionless"
            else FixedTable(name=f"t{n}", num_rows=rows, **common)
            for n, rows in enumerate(sizes)
        ]
        features = [Feature(name=name, table=f"t{n}", encoder=Identity()) for n, name in enumerate(NAMES)]
        replicated = [t.name for t in tables] if kind == "replicated" else []
        self.tables = Tables(tables, features, seed=0, world=world, replicated=replicated)
        self.view = EmbeddingBagCollection.over(self.tables)
        if kind == "collisionless":
            for number, rows in enumerate(sizes):
                for start in range(0, rows, 1 << 16):
                    self.tables.rows.make(number, torch.arange(start, min(rows, start + (1 << 16))))

    def step(self, batch: KeyedJaggedTensor, gradient: Tensor) -> None:
        """One step."""
        self.view(batch).values().backward(gradient)
        self.tables.step()


class TorchRec:
    """TorchRec's row-wise sharded collection, its optimizer fused into the backward."""

    def __init__(self, sizes: list[int]) -> None:
        import torchrec
        from torchrec.distributed.embeddingbag import EmbeddingBagCollectionSharder
        from torchrec.distributed.model_parallel import DistributedModelParallel
        from torchrec.distributed.planner import EmbeddingShardingPlanner, Topology
        from torchrec.distributed.types import ShardingEnv
        from torchrec.optim.apply_optimizer_in_backward import apply_optimizer_in_backward

        class RowWise(EmbeddingBagCollectionSharder):  # type: ignore[misc]
            def sharding_types(self, compute_device_type: str) -> list[str]:
                return ["row_wise"]

            def compute_kernels(self, sharding_type: str, compute_device_type: str) -> list[str]:
                return ["fused"]

        configs = [
            torchrec.EmbeddingBagConfig(name=f"t{n}", embedding_dim=DIM, num_embeddings=rows, feature_names=[NAMES[n]])
            for n, rows in enumerate(sizes)
        ]
        bags = torchrec.EmbeddingBagCollection(configs, device=torch.device("cpu"))
        apply_optimizer_in_backward(torchrec.optim.RowWiseAdagrad, bags.parameters(), {"lr": 0.01, "eps": 1e-8})
        ranks = dist.get_world_size()
        topology = Topology(world_size=ranks, local_world_size=ranks, compute_device="cpu")
        plan = EmbeddingShardingPlanner(topology=topology).collective_plan(bags, [RowWise()], dist.group.WORLD)
        self.model = DistributedModelParallel(
            bags,
            env=ShardingEnv.from_process_group(dist.group.WORLD),
            device=torch.device("cpu"),
            plan=plan,
            sharders=[RowWise()],
            init_data_parallel=False,
        )

    def step(self, batch: KeyedJaggedTensor, gradient: Tensor) -> None:
        """One step."""
        out = self.model(batch)
        out = out.wait() if hasattr(out, "wait") else out
        out.values().backward(gradient)


def batch(sizes: list[int], of: str, seed: int) -> KeyedJaggedTensor:
    """One rank's part: one id per feature and row."""
    rng = np.random.default_rng(seed)
    ids = np.concatenate([draw(rng, BATCH, rows, of) for rows in sizes])
    return KeyedJaggedTensor(NAMES, torch.from_numpy(ids), lengths=torch.ones(FEATURES * BATCH, dtype=torch.int64))


def foreign_bytes(parts: list[KeyedJaggedTensor], world: World, tables: Tables) -> int:
    """What the goal allows a rank to send for a step: of each foreign distinct key 8 + 4 bytes and its row twice, half
    of that by the rank that asks and half by the one that answers."""
    from embtables.keyspace import buckets_of

    first, end = world.buckets()
    ids = parts[0].values().numpy().reshape(FEATURES, BATCH)
    foreign = 0
    for number, stored in enumerate(tables.stored):
        buckets = buckets_of(np.unique(ids[number]), stored.seed)
        foreign += int(((buckets < first) | (buckets >= end)).sum())
    return foreign * (8 + 4 + 2 * DIM * 4)


def the_others(ranks: int, meet: str) -> list[subprocess.Popen[str]]:
    """Ranks 1 and on, started by rank 0."""
    return [
        subprocess.Popen(
            [sys.executable, "-W", "ignore", "-m", "benchmarks.sharded.ranks", *sys.argv[1:4], str(n), meet],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for n in range(1, ranks)
    ]


def join(rank: int, ranks: int, meet: str) -> Counted:
    """The world of a rank."""
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(ranks), "LOCAL_RANK": str(rank), "GLOO_SOCKET_IFNAME": "lo"}
    os.environ |= {"LOCAL_WORLD_SIZE": str(ranks), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0"}
    timeout = datetime.timedelta(seconds=300)
    dist.init_process_group("gloo", init_method=f"file://{meet}", rank=rank, world_size=ranks, timeout=timeout)
    return Counted()


def main() -> None:
    warnings.simplefilter("ignore")
    kind, ranks, rows = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    rank, meet = (int(sys.argv[4]), sys.argv[5]) if len(sys.argv) > 4 else (0, tempfile.mkdtemp() + "/meet")
    others = [] if rank else the_others(ranks, meet)
    torch.set_num_threads(max(1, len(os.sched_getaffinity(0)) // ranks))
    world = None if kind == "local" else join(rank, ranks, meet)
    sizes = [rows] * FEATURES
    with contextlib.redirect_stdout(sys.stderr):
        made: Any = TorchRec(sizes) if kind == "torchrec" else Ours(kind, sizes, world)
    gradient = torch.randn(BATCH, FEATURES * DIM, generator=torch.Generator().manual_seed(rank)) * 1e-3

    @functools.lru_cache(maxsize=2)
    def batches(of: str) -> list[KeyedJaggedTensor]:
        return [batch(sizes, of, seed * ranks + rank) for seed in range(BATCHES)]

    turn = 0

    def answer(question: dict[str, Any]) -> dict[str, Any]:
        nonlocal turn
        for other in others:
            assert other.stdin is not None
            other.stdin.write(json.dumps(question) + "\n")
            other.stdin.flush()
        part = batches(question["of"])[turn % BATCHES]
        turn += 1
        if world is not None:
            world.sent = 0
            dist.barrier()
        start = time.perf_counter()
        made.step(part, gradient)
        sent = 0 if world is None else world.sent
        if world is not None:
            dist.barrier()
        seconds = time.perf_counter() - start
        found = {"seconds": seconds, "sent": sent, "peak_mib": _harness.peak_memory_mib()}
        if kind in ("fixed", "collisionless") and world is not None:
            found["allowed"] = foreign_bytes([part], world, made.tables)
        for other in others:
            assert other.stdout is not None
            other.stdout.readline()
        return found

    for other in others:
        assert other.stdout is not None
        other.stdout.readline()
    turns.serve({}, answer)
    for other in others:
        assert other.stdin is not None
        other.stdin.close()
        other.wait(timeout=60)


if __name__ == "__main__":
    main()
