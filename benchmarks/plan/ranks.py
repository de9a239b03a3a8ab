"""Bytes that ranks really send in a step: `python -m benchmarks.plan.ranks RANKS STEPS CONFIG [KEY=VALUE]...`.

The process that is started is rank 0; it starts the others. All take steps of training's own loop in a world that
counts; answers with the bytes per step and rank, on average over the ranks, and those of the busiest.
"""

from __future__ import annotations

import datetime
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor

from embtables.pipelines.config import load_config
from embtables.pipelines.prepare.log_splits import with_prepared_data
from embtables.pipelines.sources.parquet import Log, ParquetReader
from embtables.pipelines.training.learner import Learner
from embtables.pipelines.training.rank_agreement import totals
from embtables.shard.world import ProcessGroup


class Counted(ProcessGroup):
    """A world that counts the bytes it sends to other ranks, an all_reduce as a ring sends it."""

    sent = received = 0.0

    def all_to_all(self, out: Tensor, given: Tensor, received: Sequence[int], sent: Sequence[int]) -> None:
        """See World."""
        self.sent += (sum(sent) - sent[self.rank]) * given.element_size()
        self.received += (sum(received) - received[self.rank]) * out.element_size()
        super().all_to_all(out, given, received, sent)

    def all_reduce(self, values: Tensor) -> None:
        """See World."""
        size = 2 * values.numel() * values.element_size() * (self.size - 1) / self.size
        self.sent += size
        self.received += size
        super().all_reduce(values)

    def all_gather(self, values: Tensor) -> list[Tensor]:
        """See World."""
        found = super().all_gather(values)
        size = (8 + max(map(len, found)) * values.element_size()) * (self.size - 1)
        self.sent += size
        self.received += size
        return found


def main() -> None:
    ranks, steps, config_file, *overrides = sys.argv[1:]
    size = int(ranks)
    rank, meet = int(os.environ.get("RANK", "0")), os.environ.get("MEET") or tempfile.mkdtemp() + "/meet"
    others = [
        subprocess.Popen(
            [sys.executable, "-W", "ignore", "-m", "benchmarks.plan.ranks", *sys.argv[1:]],
            env={**os.environ, "RANK": str(n), "MEET": meet},
        )
        for n in (range(1, size) if rank == 0 else [])
    ]
    torch.set_num_threads(1)
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    timeout = datetime.timedelta(seconds=300)
    dist.init_process_group("gloo", init_method=f"file://{meet}", rank=rank, world_size=size, timeout=timeout)
    world = Counted()
    config = with_prepared_data(load_config(Path(config_file), overrides), shown=False)
    log = Log(config, config.data)
    reader = ParquetReader(
        log,
        "train",
        batch_size=config.train.batch_size,
        fitted=log.fit_transforms(config.train.seed),
        seed=config.train.seed,
        rank=rank,
        world_size=size,
    )
    learner = Learner(config, world)
    world.sent = world.received = 0.0
    items = reader.__iter__()
    for _ in range(int(steps)):
        item = next(items)
        of_all = totals(world, item.batch, item.position, stop=False)
        learner.train_step(item.batch, 1.0, of_all.weight if size > 1 else None)
    sent, received = world.sent / int(steps), world.received / int(steps)
    items.close()
    own = torch.tensor([sent, received])
    found = [torch.empty(2) for _ in range(size)]
    dist.all_gather(found, own)
    if rank == 0:
        mean = sum(float(one[0]) for one in found) / size
        print(json.dumps({"sent": mean, "busiest": max(float(one.max()) for one in found)}))
    for other in others:
        other.wait(timeout=60)
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
