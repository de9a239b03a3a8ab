"""Bytes and calls of one step, as shard/exchange.py, training/learner.py and training/rank_agreement.py make them.

An all_reduce of n bytes sends 2 n (N - 1) / N from each rank, as gloo's ring does. What stays at a rank counts nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

from embtables.pipelines.plan.load import Job, StepLoad, num_limits
from embtables.schema import CollisionlessTable, FixedTable, Table


@dataclass(frozen=True)
class Traffic:
    """Of one step and one rank.

    Attributes:
        keys, counts, rows, gradients: bytes sent as the mean rank does.
        sizes: bytes that tell how long messages are and which have gradients.
        reduced: bytes of all_reduces sent: dense gradients, totals, clocks, limits.
        busiest: bytes that the rank with the hottest owner sends or receives, whichever is more.
        exchanges, reductions: calls of all_to_all and of all_reduce.
    """

    keys: float
    counts: float
    rows: float
    gradients: float
    sizes: float
    reduced: float
    busiest: float
    exchanges: int
    reductions: int

    @property
    def sent(self) -> float:
        """All bytes that the mean rank sends; it receives as many."""
        return self.keys + self.counts + self.rows + self.gradients + self.sizes + self.reduced

    @property
    def exchanged(self) -> float:
        """Those of all_to_all."""
        return self.sent - self.reduced


def traffic(job: Job, load: StepLoad) -> Traffic:
    """What one step sends."""
    n = load.ranks
    if n == 1:
        return Traffic(0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0, 0)
    keys = counts = rows = gradients = sizes = 0.0
    exchanges = 0
    for asking in job.sharded:
        foreign = {name: load.tables[name].asked * (n - 1) / n for name in asking.tables}
        floats = sum(asked * job.tables[name].dim for name, asked in foreign.items())
        asked = sum(foreign.values())
        header = len(asking.tables) * (n - 1)
        keys += 8 * asked
        rows += 4 * floats
        sizes += (8 + 4) * header
        exchanges += 3
        if asking.keep:
            counts += 4 * asked
            gradients += 4 * floats
            sizes += 4 * header
            exchanges += 1
    reduced, reductions = _reduced(job, load)
    mean = keys + counts + rows + gradients
    # As an owner it receives keys and gradients of others and sends rows; as one who asks it does the reverse.
    sent = keys + counts + gradients + rows * load.skew
    received = rows + (keys + counts + gradients) * load.skew
    busiest = max(sent, received) + sizes + reduced if mean else sizes + reduced
    return Traffic(keys, counts, rows, gradients, sizes, reduced, busiest, exchanges, reductions)


def _reduced(job: Job, load: StepLoad) -> tuple[float, int]:
    """Bytes that a rank sends for what is summed or gathered over all, and how many calls that is."""
    n = load.ranks
    summed = [4 * (job.dense_parameters + 1), 4 * 8]  # gradients with the loss; totals of the batch
    limits = num_limits(job)
    summed += [8 * limits] if limits else []
    summed += [8] if job.clips else []
    copied = [_copied_floats(t, t.name in job.replicated) for t in job.tables.values()]
    summed += [4 * sum(copied)] if any(copied) else []
    refuses = sum(t.non_finite_gradients == "raise" for t in job.tables.values())
    summed += [8 * refuses] if refuses else []
    sent = sum(2 * size * (n - 1) / n for size in summed)
    gathers = 0
    if any(
        isinstance(t, CollisionlessTable) and t.ttl_seconds is not None and t.trainable for t in job.tables.values()
    ):
        sent += (8 + 8 * load.part_rows) * (n - 1)  # every rank's event times go to all
        gathers = 2
    return sent, len(summed) + gathers


def _copied_floats(table: Table, is_replicated: bool) -> int:
    """What is summed of the rows that every rank has (shard/copies.py)."""
    if not table.trainable:
        return 0
    if is_replicated and isinstance(table, FixedTable):
        return table.num_rows * (table.dim + 1) + 1
    return table.dim + 2 if isinstance(table, CollisionlessTable) and table.cold_row == "trained" else 0
