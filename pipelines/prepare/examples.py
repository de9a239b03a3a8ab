"""`data.prepare`: examples of a purchase-only log, built once and cached as parquet.

    log lines --where--> positives in order of their group's time --sample_negatives--> K more rows each
    every row: context of the positive, its item's and its user's past (strictly earlier groups only), label

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
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from embtables.errors import DataError, StateError
from embtables.inputs.columns import plain_ids, ranges
from embtables.inputs.times import as_microseconds
from embtables.inputs.values import as_float64, one_array
from embtables.pipelines.prepare.negatives import Negatives, sample_negatives
from embtables.pipelines.prepare.past_counts import PastCounts
from embtables.pipelines.prepare.source_columns import check_source, id_columns, source_columns
from embtables.pipelines.sources.files.source import open_source
from embtables.pipelines.sources.rows.where import condition_mask
from embtables.pipelines.whole_parquet import WholeParquet
from embtables.schema import EventTime, SampledNegatives
from embtables.schema.prepare import SALES_WINDOWS_DAYS

Int64s = npt.NDArray[np.int64]

DAY_US = 86_400_000_000
NEVER_DAYS = 999.0
SLICE_POSITIVES = 25_000
SUMMARY_FILE = "_summary.json"
FORMAT = 3


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
    check_source(config, source, path)
    table = source.read_all(source_columns(config), ids=id_columns(config))
    positives = _Positives(config, table.filter(pa.array(condition_mask(table, config.where))))
    temporary = cache / f".{folder.name}.{secrets.token_hex(4)}"
    try:
        temporary.mkdir(parents=True)
        _write(positives, temporary, on_progress or (lambda rows: None))
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


@dataclass(frozen=True, slots=True)
class _Codes:
    """A column as numbers from 0, and its distinct values."""

    numbers: Int64s
    values: pa.Array


class _Positives:
    """The positives in order of their group's first line, with indexes over their past."""

    def __init__(self, config: SampledNegatives, table: pa.Table) -> None:
        if table.num_rows == 0:
            raise DataError("data.prepare.where leaves no positives")
        self.config = config
        moments = _without_nulls(table, config.event_time)
        line_times = as_microseconds(EventTime(column=config.event_time), moments)
        groups = _codes(table, config.group)
        # A group's lines happen at once: at the time of its first line.
        first = np.full(len(groups.values), np.iinfo(np.int64).max)
        np.minimum.at(first, groups.numbers, line_times)
        times = first[groups.numbers]
        order = np.lexsort((groups.numbers, times))
        self.table = table.take(pa.array(order))
        self.times, self.groups = times[order], groups.numbers[order]
        self.items, self.users = _codes(self.table, config.item), _codes(self.table, config.user)
        self.days = self.times // DAY_US
        self.negatives = self._sample()
        self.by_item = PastCounts(self.items.numbers, self.times)
        self.by_user = PastCounts(self.users.numbers, self.times)
        self.by_pair = PastCounts(self._pairs(self.users.numbers, self.items.numbers), self.times)
        self.item_ids = plain_ids(config.item, self.items.values)
        self.prices = None
        if config.price is not None:
            column = one_array(self.table.column(config.price))
            prices = as_float64(config.price, column, fill=0.0)
            # A sale without a price stays one: NaN, which no price of a log is.
            self.prices = np.where(column.is_null().to_numpy(zero_copy_only=False), np.nan, prices)

    def _sample(self) -> Negatives:
        c = self.config
        return sample_negatives(
            self.items.numbers,
            self.days,
            self.groups,
            num_negatives=c.negatives_per_positive,
            pool_days=c.pool_days,
            exponent=c.popularity_exponent,
            seed=c.seed,
        )

    def _pairs(self, users: Int64s, items: Int64s) -> Int64s:
        return users * len(self.items.values) + items

    def examples(self, start: int, stop: int) -> pa.Table:
        """Rows of the positives start..stop-1: each followed by its negatives; those outside the pool left out."""
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
        columns.update(self._past(rows, items))
        columns["history"] = self._history(rows)
        return pa.table(columns)

    def _past(self, rows: Int64s, items: Int64s) -> dict[str, pa.Array]:
        """Counts and ages from strictly earlier groups."""
        times, users = self.times[rows], self.users.numbers[rows]
        sales = {w: self.by_item.count(items, times, times - w * DAY_US) for w in SALES_WINDOWS_DAYS}
        first, last = self.by_item.before(items, times)
        pairs = self._pairs(users, items)
        pair_first, pair_last = self.by_pair.before(pairs, times)
        bought = pair_last - pair_first
        found: dict[str, Any] = {f"item_sales_{w}d": count for w, count in sales.items()}
        found |= {
            "item_sales": last - first,
            "item_age_days": self._days_since(self.by_item, first, last, times, oldest=True),
            "item_idle_days": self._days_since(self.by_item, first, last, times, oldest=False),
            "user_item_count": bought,
            "user_item_idle_days": self._days_since(self.by_pair, pair_first, pair_last, times, oldest=False),
            "user_count": self.by_user.count(users, times),
            "rule_score": np.log((sales[7] + 1) / (sales[28] + 4)) + 1.5 * (bought > 0),
        }
        arrays = {name: pa.array(values.astype(np.float32)) for name, values in found.items()}
        if self.prices is not None:
            known = last > first
            price = self.prices[self.by_item.order[np.maximum(last - 1, 0)]]
            arrays["last_price"] = pa.array(price.astype(np.float32), mask=~known | np.isnan(price))
        return arrays

    def _days_since(
        self, index: PastCounts, first: Int64s, last: Int64s, times: Int64s, *, oldest: bool
    ) -> npt.NDArray[np.float64]:
        """Days from the key's first (or last) earlier event; NEVER_DAYS if it has none."""
        place = np.minimum(first if oldest else np.maximum(last - 1, 0), len(index.order) - 1)
        days = (times - self.times[index.order[place]]) / DAY_US
        return np.where(last > first, np.minimum(days, NEVER_DAYS), NEVER_DAYS)

    def _history(self, rows: Int64s) -> pa.Array:
        """The last items of the user's earlier groups, oldest first, as the ids that the item column becomes."""
        first, last = self.by_user.before(self.users.numbers[rows], self.times[rows])
        lengths = np.minimum(last - first, self.config.history_length)
        places = self.by_user.order[ranges(last - lengths, lengths)]
        offsets = np.zeros(len(rows) + 1, np.int32)
        np.cumsum(lengths, out=offsets[1:])
        return pa.ListArray.from_arrays(pa.array(offsets), pa.array(self.item_ids[self.items.numbers[places]]))


def _within(rows: Int64s) -> Int64s:
    """0, 1, 2, ... within each run of equal numbers."""
    starts = np.flatnonzero(np.r_[True, rows[1:] != rows[:-1]])
    return np.arange(len(rows)) - np.repeat(starts, np.diff(np.append(starts, len(rows))))


def _without_nulls(table: pa.Table, name: str) -> pa.Array:
    """A column as one array of its values, decoded: a dictionary may hold a value twice, or none."""
    column = table.column(name)
    array = one_array(column.cast(column.type.value_type) if pa.types.is_dictionary(column.type) else column)
    if array.null_count:
        raise DataError(f"is null in {array.null_count:,} positives; leave them out: '{name} is not null'", column=name)
    return array


def _codes(table: pa.Table, name: str) -> _Codes:
    encoded = pc.dictionary_encode(_without_nulls(table, name))
    return _Codes(encoded.indices.to_numpy().astype(np.int64), encoded.dictionary)


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
