"""What of a plan does not fit, and what to change."""

from __future__ import annotations

from dataclasses import dataclass

from embtables.keyspace import NUM_BUCKETS
from embtables.pipelines.plan.scaling import Point, Scenario
from embtables.rows.optimizers import optimizer_spec
from embtables.schema import CollisionlessTable, RowwiseAdagrad

_MOST_KEPT = 0.9  # of max_rows that fit: a table holds more for a moment


@dataclass(frozen=True)
class Advice:
    """Whether a plan fits, and lines for the user."""

    fits: bool
    lines: tuple[str, ...]


def advise(scenario: Scenario, point: Point, memory_bytes: float | None) -> Advice:
    """Looks at a point, and at what would change it."""
    lines: list[str] = []
    fits = memory_bytes is None or point.memory.total <= memory_bytes
    if memory_bytes is not None and not fits:
        lines += _smaller(scenario, point, memory_bytes)
    elif memory_bytes is not None and point.memory.total + point.memory.image > memory_bytes:
        lines.append(
            f"a rank needs {_gb(point.memory.total)} and fits; while a snapshot is written, up to "
            f"{_gb(point.memory.image)} more, which does not: more workers, or fewer rows"
        )
    return Advice(fits, (*lines, *_slow(scenario, point)))


def _smaller(scenario: Scenario, point: Point, memory_bytes: float) -> list[str]:
    ranks, needed = point.load.ranks, point.memory.total
    lines = [f"does not fit: a rank needs {_gb(needed)}, it has {_gb(memory_bytes)}"]
    enough = _least_ranks(scenario, ranks, memory_bytes)
    if enough is None:
        lines.append(f"more workers do not help: at {NUM_BUCKETS:,}, the most there can be, it does not fit either")
    else:
        lines.append(f"--workers {enough}: a rank needs {_gb(scenario.at(enough).memory.total)}")
    name, largest = max(point.memory.tables.items(), key=lambda item: item[1].total)
    table = scenario.job.tables[name]
    rest = memory_bytes - (needed - largest.total)
    if rest > 0 and isinstance(table, CollisionlessTable) and largest.num_rows:
        limit = int(_MOST_KEPT * rest / (largest.total / largest.num_rows) * ranks)
        lines.append(f"table '{name}' with max_rows: {limit:,} would fit; a ttl_seconds bounds it by time instead")
    elif rest <= 0:
        lines.append(f"without table '{name}', the largest, it would not fit either")
    changes: list[tuple[str, dict[str, object]]] = []
    if any(column.per_element for column in optimizer_spec(table.optimizer).state.values()):
        changed = RowwiseAdagrad(learning_rate=table.optimizer.learning_rate)
        changes.append(("optimizer: {kind: rowwise_adagrad}", {"optimizer": changed}))
    if table.dim >= 2:
        changes.append((f"dim: {table.dim // 2}", {"dim": table.dim // 2}))
    for text, change in changes:
        smaller = scenario.with_table(name, **change).at(ranks).memory.total
        if smaller < needed:
            lines.append(f"table '{name}' with {text}: a rank needs {_gb(smaller)}")
    return lines


def _least_ranks(scenario: Scenario, ranks: int, memory_bytes: float) -> int | None:
    """By halving: memory of a rank falls with their number."""
    low, high = ranks, NUM_BUCKETS
    if scenario.at(high).memory.total > memory_bytes:
        return None
    while low < high:
        middle = (low + high) // 2
        if scenario.at(middle).memory.total <= memory_bytes:
            high = middle
        else:
            low = middle + 1
    return low


_WHY = {
    "batch": "putting batches together",
    "dense": "the dense net",
    "asking": "lookups and sums of embeddings",
    "owning": "rows looked up and updated for all ranks",
    "skew": "the owner of the hottest keys; a larger batch does not help, fewer ranks do",
    "latency": "the number of messages; a larger train.batch_size makes them longer instead",
    "wire": "bytes on the wire: a faster link, a smaller dim, or a larger batch with more duplicates",
    "reading": "reading: every rank decodes the whole log, so more ranks do not read faster; fewer columns do",
}


def _slow(scenario: Scenario, point: Point) -> list[str]:
    """Where a plan gains little from its ranks."""
    n = point.load.ranks
    if n == 1:
        return []
    alone = scenario.at(1).rows_per_second
    gain = point.rows_per_second / alone
    if gain >= n / 2:
        return []
    found = (
        f"{n:,} ranks train {gain:.2f} times the rows of one a second; most of a step is {_WHY[point.time.bound_by]}"
    )
    return [found]


def _gb(size: float) -> str:
    return f"{size / 1e9:,.2f} GB"
