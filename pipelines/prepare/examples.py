"""`data.prepare`: examples of a purchase-only log, built once and cached as parquet.

    log lines --where--> positives in order of their group's time --sample_negatives--> K more rows each
    every row: context of the positive, its item's and its user's past (strictly earlier groups only), label
    beside them: the same past as of the end of the log, for servers

The positives are held in memory (about 100 bytes per line); rows are written in slices. The folder is named by a hash
of the configuration and of the input files' names, sizes and times, written under a temporary name and renamed, so what
is found under its name is complete.
"""

from __future__ import annotations

import hashlib
import json
import secrets
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from embtables.errors import DataError, StateError
from embtables.pipelines.prepare.negatives import Negatives, sample_negatives
from embtables.pipelines.prepare.past import DAY_US, Past
from embtables.pipelines.prepare.past_at_end import write_past_at_end
from embtables.pipelines.prepare.positives import OrderedPositives, read_positives
from embtables.pipelines.sources.files.source import open_source
from embtables.pipelines.whole_parquet import WholeParquet
from embtables.schema import SampledNegatives

Int64s = npt.NDArray[np.int64]

SLICE_POSITIVES = 25_000
SUMMARY_FILE = "_summary.json"
FORMAT = 4


def prepare(
    config: SampledNegatives, path: str, files: str, cache: Path, on_progress: Callable[[int], None] | None = None
) -> Path:
    """The folder of the prepared examples, built below `cache` unless it is there already.

    Raises:
        DataError: no line is a positive, or a column is missing or of the wrong type.
        StateError: the cache cannot be written.
    """
    source = open_source(path, files, quarantine=False)
    folder = cache / _key(config, source.files[0].filesystem.get_file_info([f.path for f in source.files]))
    if folder.is_dir():
        return folder
    positives = _Positives(config, read_positives(config, source, path))
    temporary = cache / f".{folder.name}.{secrets.token_hex(4)}"
    try:
        temporary.mkdir(parents=True)
        _write(positives, temporary, on_progress or (lambda rows: None))
        write_past_at_end(positives.past, temporary)
        temporary.rename(folder)
    except OSError as error:
        if not folder.is_dir():  # another run may have built the same folder meanwhile
            raise StateError(f"cannot write the prepared examples: {error.strerror or error}", folder=cache) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return folder


def _key(config: SampledNegatives, infos: list[pa.fs.FileInfo]) -> str:
    content = [FORMAT, config.model_dump(mode="json"), [[i.path, i.size, i.mtime_ns] for i in infos]]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]


class _Positives:
    """The positives in order of their group's first line, with their past."""

    def __init__(self, config: SampledNegatives, lines: OrderedPositives) -> None:
        self.config = config
        self.table, self.times, self.groups = lines.table, lines.times, lines.groups
        self.past = Past(config, self.table, self.times)
        self.items, self.users = self.past.items, self.past.users
        self.negatives = self._sample()

    def _sample(self) -> Negatives:
        c = self.config
        return sample_negatives(
            self.items.numbers,
            self.times // DAY_US,
            self.groups,
            num_negatives=c.negatives_per_positive,
            pool_days=c.pool_days,
            exponent=c.popularity_exponent,
            seed=c.seed,
        )

    def examples(self, start: int, stop: int) -> pa.Table:
        """Rows of the positives start..stop-1: each followed by its negatives; those outside the pool left out.

        Calls come in order: each begins where the one before stopped.
        """
        k = self.config.negatives_per_positive
        drawn = self.negatives.items[start:stop]
        rows = np.repeat(np.arange(start, stop), k + 1)
        items = np.concatenate([self.items.numbers[start:stop, None], drawn], axis=1).ravel()
        rates = np.concatenate([np.ones((stop - start, 1)), self.negatives.rates[start:stop]], axis=1).ravel()
        usable = self.negatives.in_pool[start:stop] & (drawn >= 0).any(axis=1)
        keep = (items >= 0) & np.repeat(usable, k + 1)
        label = np.tile(np.arange(k + 1) == 0, stop - start)[keep].astype(np.int8)
        rows, items, rates = rows[keep], items[keep], rates[keep]
        c = self.config
        columns: dict[str, pa.Array | pa.ChunkedArray] = {
            "label": pa.array(label),
            "row_id": pa.array(rows * (k + 1) + _within(rows)),
            c.item: self.items.values.take(pa.array(items)),
            c.user: self.users.values.take(pa.array(self.users.numbers[rows])),
            c.event_time: pa.array(self.times[rows]).cast(pa.timestamp("us")),
            "negative_rate": pa.array(rates.astype(np.float32)),
        }
        for name in (c.group, *c.context):
            columns[name] = self.table.column(name).take(pa.array(rows))
        columns.update(self._past(start, stop, rows, items))
        return pa.table(columns)

    def _past(self, start: int, stop: int, rows: Int64s, items: Int64s) -> dict[str, pa.Array]:
        """Counts, ages and lists from strictly earlier groups, and the rule's score."""
        found = self.past.take(start, stop, rows, items)
        week, month, bought = (
            found[name].to_numpy().astype(np.float64) for name in ("item_sales_7d", "item_sales_28d", "user_item_count")
        )
        rule = np.log((week + 1) / (month + 4)) + 1.5 * (bought > 0)
        order = [*(name for name in found if name not in ("last_price", "history")), "rule_score"]
        order += [name for name in ("last_price", "history") if name in found]
        found["rule_score"] = pa.array(rule.astype(np.float32))
        return {name: found[name] for name in order}


def _within(rows: Int64s) -> Int64s:
    """0, 1, 2, ... within each run of equal numbers."""
    starts = np.flatnonzero(np.r_[True, rows[1:] != rows[:-1]])
    return np.arange(len(rows)) - np.repeat(starts, np.diff(np.append(starts, len(rows))))


def _write(positives: _Positives, folder: Path, on_progress: Callable[[int], None]) -> None:
    rows = labels = 0
    with WholeParquet(folder / "examples.parquet", compression="zstd", write_page_checksum=True) as file:
        for start in range(0, len(positives.times), SLICE_POSITIVES):
            table = positives.examples(start, min(start + SLICE_POSITIVES, len(positives.times)))
            file.write(table)
            rows += table.num_rows
            labels += int(pc.sum(table.column("label")).as_py() or 0)
            on_progress(table.num_rows)
    if labels == 0:
        raise DataError(f"leaves no examples: no item was sold again within {positives.config.pool_days} days")
    sizes = positives.negatives.pool_sizes
    mean_pool = float(sizes[sizes > 0].mean()) if (sizes > 0).any() else 0.0
    summary = {
        "rows": rows,
        "positives": labels,
        "positives_without_pool": int((sizes == 0).sum()),
        "positives_outside_pool": int((~positives.negatives.in_pool & (sizes > 0)).sum()),
        "mean_pool_items": mean_pool,
        "negative_sampling_rate": positives.config.negatives_per_positive / mean_pool if mean_pool else None,
    }
    (folder / SUMMARY_FILE).write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
