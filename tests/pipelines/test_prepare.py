"""Sampled negatives and derived columns: nothing of the same group or later, brute force agrees, the cache is whole."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from embtables.errors import DataError
from embtables.ids.strings import hash_strings
from embtables.pipelines.prepare.examples import DAY_US, NEVER_DAYS, prepare
from embtables.pipelines.prepare.negatives import sample_negatives
from embtables.pipelines.prepare.past_counts import PastCounts
from embtables.schema import SampledNegatives
from embtables.schema.prepare import DERIVED_COLUMNS

HOUR = 3_600_000_000


def make_log(folder: Path, seed: int, lines: int = 160) -> list[dict[str, Any]]:
    rng = np.random.default_rng(seed)
    invoices = np.sort(rng.integers(0, lines // 3, lines))
    start = np.sort(rng.integers(0, 40 * 24, lines // 3)) * HOUR
    rows = [
        {
            "invoice": f"i{invoice}",
            "code": f"c{int(rng.zipf(1.5)) % 25}",
            "who": int(invoice * 7 % 9),
            "at": int(start[invoice] + rng.integers(0, 2) * 60_000_000),
            "price": float(rng.integers(1, 20)),
            "quantity": int(rng.integers(-1, 4)),
            "country": "UK" if invoice % 3 else "FR",
        }
        for invoice in invoices
    ]
    table = pa.Table.from_pylist(rows).sort_by("at")
    at = table.schema.get_field_index("at")
    table = table.set_column(at, "at", table.column("at").cast(pa.timestamp("us")))
    folder.mkdir(exist_ok=True)
    pq.write_table(table.slice(0, lines // 2), folder / "a.parquet")
    pq.write_table(table.slice(lines // 2), folder / "b.parquet")
    return [r for r in rows if r["quantity"] > 0]


def config(**changes: Any) -> SampledNegatives:
    columns = {"item": "code", "user": "who", "group": "invoice", "event_time": "at", "price": "price"}
    return SampledNegatives.model_validate(
        {**columns, "context": ["country"], "where": ["quantity > 0"], "pool_days": 5, "history_length": 4, **changes}
    )


@settings(deadline=None, max_examples=4, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 1000))
def test_every_column_is_what_strictly_earlier_groups_give(tmp_path: Path, seed: int) -> None:
    positives = make_log(tmp_path / "log", seed)
    began: dict[str, int] = {}
    for row in positives:
        began[row["invoice"]] = min(row["at"], began.get(row["invoice"], 2**62))
    folder = prepare(config(seed=seed), str(tmp_path / "log"), "*.parquet", tmp_path / "cache")
    examples = pq.read_table(folder).to_pylist()
    assert examples
    baskets = {(r["invoice"], r["code"]) for r in positives}
    for example in examples:
        now = began[example["invoice"]]
        earlier = [r for r in positives if began[r["invoice"]] < now]
        of_item = sorted(began[r["invoice"]] for r in earlier if r["code"] == example["code"])
        of_pair = [began[r["invoice"]] for r in earlier if (r["who"], r["code"]) == (example["who"], example["code"])]
        for days in (1, 3, 7, 28):
            assert example[f"item_sales_{days}d"] == len([t for t in of_item if t >= now - days * DAY_US])
        assert example["item_sales"] == len(of_item)
        age = min((now - of_item[0]) / DAY_US, NEVER_DAYS) if of_item else NEVER_DAYS
        assert example["item_age_days"] == pytest.approx(age, rel=1e-5)
        idle = (now - of_item[-1]) / DAY_US if of_item else NEVER_DAYS
        assert example["item_idle_days"] == pytest.approx(idle, rel=1e-5)
        assert example["user_item_count"] == len(of_pair)
        assert example["user_count"] == len([r for r in earlier if r["who"] == example["who"]])
        prices = {r["price"] for r in earlier if r["code"] == example["code"] and began[r["invoice"]] == of_item[-1]}
        assert example["last_price"] in prices if of_item else example["last_price"] is None
        history = sorted((began[r["invoice"]], r["code"]) for r in earlier if r["who"] == example["who"])
        assert len(example["history"]) == min(4, len(history))
        oldest = history[-len(example["history"])][0] if example["history"] else 0
        known = {int(hash_strings(pa.array([code]))[0]) for when, code in history if when >= oldest}
        assert set(example["history"]) <= known
        assert ((example["invoice"], example["code"]) in baskets) is (example["label"] == 1)
        day = now // DAY_US
        pool = {r["code"] for r in earlier if day - 5 <= began[r["invoice"]] // DAY_US < day}
        assert example["code"] in pool


def test_the_result_is_seeded_ordered_and_cached(tmp_path: Path) -> None:
    make_log(tmp_path / "log", 3)

    def build(cache: str, **changes: Any) -> Path:
        return prepare(config(**changes), str(tmp_path / "log"), "*.parquet", tmp_path / cache)

    first, other_place, other_seed = build("one"), build("two"), build("one", seed=9)
    assert first != other_seed
    assert pq.read_table(first).equals(pq.read_table(other_place))
    assert not pq.read_table(first).equals(pq.read_table(other_seed))
    table = pq.read_table(first)
    times = table.column("at").to_pylist()
    assert times == sorted(times)
    assert len(set(table.column("row_id").to_pylist())) == table.num_rows
    stamp = (first / "examples.parquet").stat().st_mtime_ns
    assert build("one") == first
    assert (first / "examples.parquet").stat().st_mtime_ns == stamp
    make_log(tmp_path / "log", 4)
    assert build("one") != first


def test_an_interrupted_build_leaves_nothing(tmp_path: Path) -> None:
    make_log(tmp_path / "log", 3)

    def interrupt(rows: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare(config(), str(tmp_path / "log"), "*.parquet", tmp_path / "cache", interrupt)
    assert list((tmp_path / "cache").iterdir()) == []


def test_negatives_follow_popularity_to_the_exponent() -> None:
    # One item sold 81 times, one 16 times, one once, on day 0; all positives of day 1 buy a fourth item.
    sold = np.repeat([0, 1, 2], [81, 16, 1])
    items = np.concatenate([sold, np.full(20_000, 3)])
    days = np.concatenate([np.zeros(len(sold), np.int64), np.ones(20_000, np.int64)])
    groups = np.arange(len(items))
    drawn = sample_negatives(items, days, groups, num_negatives=4, pool_days=28, exponent=0.75, seed=0)
    assert (drawn.items[: len(sold)] == -1).all()
    shares = np.bincount(drawn.items[len(sold) :].ravel(), minlength=3) / 80_000
    assert shares == pytest.approx(np.array([27, 8, 1]) / 36, abs=0.006)
    assert drawn.rates[-1] == pytest.approx([4 * w / 36 for w in np.array([27, 8, 1])[drawn.items[-1]]])
    assert drawn.pool_sizes[-1] == 3


def test_draws_do_not_depend_on_how_the_log_is_cut() -> None:
    rng = np.random.default_rng(0)
    items, days = rng.integers(0, 30, 500), np.sort(rng.integers(0, 20, 500))
    groups = np.arange(500)
    options: dict[str, Any] = {"num_negatives": 3, "pool_days": 4, "exponent": 0.75, "seed": 1}
    items[0] = 29  # both cuts know all items
    whole = sample_negatives(items, days, groups, **options)
    upto = int(np.searchsorted(days, 12))
    part = sample_negatives(items[:upto], days[:upto], groups[:upto], **options)
    assert np.array_equal(whole.items[:upto], part.items)


def test_a_group_that_holds_the_whole_pool_gets_no_negatives() -> None:
    items, days, groups = np.array([0, 1, 0, 1]), np.array([0, 0, 1, 1]), np.array([0, 1, 2, 2])
    drawn = sample_negatives(items, days, groups, num_negatives=2, pool_days=5, exponent=1.0, seed=0)
    assert (drawn.items == -1).all()


@settings(deadline=None, max_examples=50)
@given(
    st.lists(st.tuples(st.integers(0, 5), st.integers(-50, 50)), min_size=1, max_size=40),
    st.integers(-60, 60),
    st.integers(0, 30),
)
def test_counts_of_earlier_events(events: list[tuple[int, int]], now: int, window: int) -> None:
    keys, times = (np.array(c, np.int64) for c in zip(*events, strict=True))
    index = PastCounts(keys, times)
    asked = np.arange(8)
    at = np.full(8, now)
    assert index.count(asked, at).tolist() == [sum(k == a and t < now for k, t in events) for a in asked]
    recent = [sum(k == a and now - window <= t < now for k, t in events) for a in asked]
    assert index.count(asked, at, at - window).tolist() == recent
    first, last = index.before(asked, at)
    for key, i, j in zip(asked, first, last, strict=True):
        if j > i:
            assert times[index.order[j - 1]] == max(t for k, t in events if k == key and t < now)


def test_missing_columns_and_empty_results_are_reported(tmp_path: Path) -> None:
    make_log(tmp_path / "log", 1)
    arguments = (str(tmp_path / "log"), "*.parquet", tmp_path / "cache")
    with pytest.raises(DataError, match=r"column sku: is missing; the file has: invoice, code"):
        prepare(config(item="sku"), *arguments)
    with pytest.raises(DataError, match="leaves no positives"):
        prepare(config(where=["quantity > 99"]), *arguments)
    once = pa.table({c: ["a", "b"] for c in ("invoice", "code")} | {"who": [1, 2], "quantity": [1, 1]})
    once = once.append_column("at", pa.array([0, 40 * DAY_US], pa.timestamp("us")))
    (tmp_path / "once").mkdir()
    pq.write_table(once, tmp_path / "once" / "a.parquet")
    with pytest.raises(DataError, match="leaves no examples: no item was sold again within 5 days"):
        prepare(config(price=None, context=[]), str(tmp_path / "once"), "*.parquet", tmp_path / "cache")
    assert not list((tmp_path / "cache").glob("*"))


def test_positives_outside_the_pool_are_left_out_and_counted(tmp_path: Path) -> None:
    """An item that could not have been drawn as a negative would give a positive away by itself."""
    positives = make_log(tmp_path / "log", 5)
    folder = prepare(config(), str(tmp_path / "log"), "*.parquet", tmp_path / "cache")
    summary = json.loads((folder / "_summary.json").read_text())
    assert summary["positives_outside_pool"] > 0
    left_out = summary["positives_outside_pool"] + summary["positives_without_pool"]
    assert summary["positives"] <= len(positives) - left_out


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"context": ["label"]}, "'context.0' names the column 'label', which is already a derived column"),
        ({"context": ["country", "history"]}, "'context.1' names the column 'history'"),
        ({"context": ["code"]}, "'context.0' names the column 'code', which is already 'item' of the examples"),
        ({"context": ["country", "country"]}, "'context.1' names the column 'country', which is already 'context.0'"),
        ({"item": "who"}, "'user' names the column 'who', which is already 'item'"),
        ({"item": "row_id"}, "'item' names the column 'row_id', which is already a derived column"),
    ],
)
def test_columns_that_would_replace_another_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        config(**changes)


def test_the_derived_columns_are_those_that_the_schema_reserves(tmp_path: Path) -> None:
    make_log(tmp_path / "log", 5)
    folder = prepare(config(), str(tmp_path / "log"), "*.parquet", tmp_path / "cache")
    copied = {"code", "who", "at", "invoice", "country"}
    assert set(pq.read_schema(folder / "examples.parquet").names) - copied == set(DERIVED_COLUMNS)
