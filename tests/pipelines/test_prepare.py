"""Sampled negatives and derived columns: nothing of the same group or later, brute force agrees, the cache is whole."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from embtables.errors import DataError, StateError
from embtables.ids.strings import hash_strings
from embtables.inputs.columns import plain_ids
from embtables.inputs.values import one_array
from embtables.pipelines.prepare.examples import prepare
from embtables.pipelines.prepare.negatives import sample_negatives
from embtables.pipelines.prepare.past import DAY_US, codes
from embtables.pipelines.prepare.source_columns import check_source
from embtables.pipelines.sources.files.source import open_source
from embtables.schema import SampledNegatives
from embtables.schema.prepare import DERIVED_COLUMNS, NEVER_DAYS
from tests.embtables.running.oracle_for_tests import Oracle

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


RUNNING = [
    {"name": "again", "count": "events", "by": "code", "window": "7d"},
    {"name": "dear", "count": "events", "by": ["who", "code"], "where": ["price > 10"]},
    {"name": "countries", "last_n": {"column": "country", "n": 3}, "by": "who"},
    {"name": "awake_hours", "idle": "hours", "by": "who"},
]


def test_running_columns_of_ones_own_are_computed_beside_the_others(tmp_path: Path) -> None:
    positives = make_log(tmp_path / "log", 3)
    of = config(running=RUNNING)
    folder = prepare(of, str(tmp_path / "log"), "*.parquet", tmp_path / "cache")
    examples = pq.read_table(folder / "examples.parquet").to_pylist()
    began: dict[str, int] = {}
    for row in positives:
        began[row["invoice"]] = min(row["at"], began.get(row["invoice"], 2**62))
    numbers = list(dict.fromkeys(row["invoice"] for row in sorted(positives, key=lambda row: row["at"])))
    lines = sorted(positives, key=lambda row: (began[row["invoice"]], numbers.index(row["invoice"])))
    oracle = Oracle(of.running)
    oracle.fold([{**row, "event_time": began[row["invoice"]]} for row in lines])
    assert len(examples) > 200
    for example in examples:
        right = oracle.answer({**example, "event_time": began[example["invoice"]]})
        found = {name: example[name] for name in right}
        assert {**found, "countries": sorted(found["countries"])} == {**right, "countries": sorted(right["countries"])}
        assert example["again"] == example["item_sales_7d"]
    columns = {
        name: pq.read_schema(folder / "_past" / f"{name}.parquet").names for name in ("item", "user", "user_item")
    }
    assert "again" in columns["item"]
    assert {"countries", "awake_hours"} <= set(columns["user"])
    assert "dear" in columns["user_item"]


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
        ({"running": [{**RUNNING[0], "name": "label"}]}, r"'running\.0\.name' names the column 'label'"),
        (
            {"running": [RUNNING[0], RUNNING[0]]},
            r"'running\.1\.name' names the column 'again', which is already 'running",
        ),
        (
            {"running": [{**RUNNING[0], "by": "country"}]},
            "running feature 'again' is by 'country'; here it is by 'code'",
        ),
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


def rows_of(seed: int = 5) -> pa.Table:
    """A purchase log as one table: items and invoices as text, users as integers, times and prices."""
    table = pa.Table.from_pylist([{k: v for k, v in row.items() if k != "at"} for row in ROWS[seed]])
    return table.append_column("at", pa.array([row["at"] for row in ROWS[seed]], pa.timestamp("us")))


def prepared(folder: Path, *tables: pa.Table, **changes: Any) -> pa.Table:
    log = folder / f"log-{len(list(folder.iterdir()))}"
    log.mkdir()
    for number, table in enumerate(tables):
        pq.write_table(table, log / f"{number}.parquet")
    return pq.read_table(prepare(config(**changes), str(log), "*.parquet", folder / "cache"))


def changed(table: pa.Table, name: str, values: Any) -> pa.Table:
    return table.set_column(table.schema.get_field_index(name), name, values)


def purchases(seed: int) -> list[dict[str, Any]]:
    rng = np.random.default_rng(seed)
    moments = np.sort(rng.integers(0, 20 * 24, 120)) * HOUR
    return [
        {
            "invoice": f"i{n // 2}",
            "code": f"c{int(rng.integers(0, 8))}",
            "who": int(rng.integers(0, 5)),
            "at": int(moments[n // 2 * 2]),
            "price": float(rng.integers(1, 9)),
            "quantity": 1,
            "country": "UK",
        }
        for n in range(120)
    ]


ROWS = {5: purchases(5)}


def repeated_dictionary(column: pa.ChunkedArray) -> pa.Array:
    """As a dictionary that holds every value twice, and one that no row has."""
    values = pa.concat_arrays([pc.unique(column), pc.unique(column), pa.array(["nobody"])])
    half = len(pc.unique(column))
    indices = [values.index(value).as_py() + half * (n % 2) for n, value in enumerate(column)]
    return pa.DictionaryArray.from_arrays(pa.array(indices, pa.int8()), values)


ENCODINGS: dict[str, Callable[[pa.ChunkedArray], Any]] = {
    "views": lambda column: column.cast(pa.string_view()),
    "large": lambda column: column.cast(pa.large_string()),
    "bytes": lambda column: column.cast(pa.binary()),
    "categories": lambda column: column.dictionary_encode(),
    "a dictionary with values twice": repeated_dictionary,
}


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_examples_do_not_depend_on_how_ids_are_stored(tmp_path: Path, encoding: str) -> None:
    table = rows_of()
    expected = prepared(tmp_path, table)
    other = table
    for name in ("code", "invoice"):
        other = changed(other, name, ENCODINGS[encoding](table.column(name)))
    for tables in ((other,), (other.slice(0, 50), other.slice(50)), (table.slice(0, 50), other.slice(50))):
        if encoding == "bytes" and len(tables) == 2 and tables[0].schema != tables[1].schema:
            continue  # whether files may mix strings and bytes is the reader's rule
        found = prepared(tmp_path, *tables)
        for name in expected.schema.names:
            values = [v.decode() if isinstance(v, bytes) else v for v in found.column(name).to_pylist()]
            assert values == expected.column(name).to_pylist(), name


ITEM_TYPES: dict[str, Callable[[np.ndarray], pa.Array]] = {
    "int16": lambda codes: pa.array(codes, pa.int16()),
    "uint64 beyond 2^63": lambda codes: pa.array(codes.astype(np.uint64) + np.uint64(2**63)),
    "negative": lambda codes: pa.array(-codes - 2**62),
    "bool": lambda codes: pa.array(codes > 3),
    "text": lambda codes: pa.array([f"é{code}" for code in codes]),
    "timestamp": lambda codes: pa.array(codes, pa.timestamp("ms")),
}


@pytest.mark.parametrize("kind", ITEM_TYPES)
def test_a_history_holds_the_ids_that_the_item_column_becomes(tmp_path: Path, kind: str) -> None:
    numbers = np.array([int(code[1:]) for code in rows_of().column("code").to_pylist()])
    items = ITEM_TYPES[kind](numbers)
    examples = prepared(tmp_path, changed(rows_of(), "code", items))
    assert examples.column("code").type == items.type
    ids = plain_ids("code", one_array(examples.column("code")))
    histories = one_array(examples.column("history"))
    assert len(histories.flatten()) > 0
    assert set(histories.flatten().to_pylist()) <= set(ids.tolist())
    # The last item of a history is one that the user bought, in the form of the column that a feature reads.
    bought = {user: set() for user in examples.column("who").to_pylist()}
    for who, item in zip(rows_of().column("who").to_pylist(), plain_ids("code", items).tolist(), strict=True):
        bought[who].add(item)
    for who, history in zip(examples.column("who").to_pylist(), histories.to_pylist(), strict=True):
        assert set(history) <= bought[who]


def test_flags_of_files_may_differ(tmp_path: Path) -> None:
    table = rows_of()
    strict = pa.schema([pa.field(f.name, f.type, nullable=False) for f in table.schema])
    expected = prepared(tmp_path, table)
    assert prepared(tmp_path, table.slice(0, 40), table.slice(40).cast(strict)).equals(expected)
    assert prepared(tmp_path, table.slice(0, 0).cast(strict), table).equals(expected)


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        (
            "code",
            pa.array([0.5] * 120),
            "column code: holds double, which cannot be the ids of data.prepare.item; cast",
        ),
        ("who", pa.array([0.5] * 120), "column who: holds double, which cannot be the ids of data.prepare.user; cast"),
        ("code", pa.array([[1]] * 120), "holds list<element: int64>, which cannot be the ids of data.prepare.item$"),
        ("invoice", pa.array([{"a": 1}] * 120), "which cannot be the ids of data.prepare.group$"),
        ("at", pa.array([1] * 120), "column at: holds int64; data.prepare.event_time needs timestamps or dates"),
        ("at", pa.array(["x"] * 120), "column at: holds string; data.prepare.event_time needs timestamps or dates"),
        ("price", pa.array(["x"] * 120), "column price: holds string; data.prepare.price needs numbers"),
    ],
)
def test_types_that_cannot_be_are_told_by_the_footers(
    tmp_path: Path, name: str, values: pa.Array, message: str
) -> None:
    table = changed(rows_of(), name, values)
    with pytest.raises(DataError, match=rf"file .*0.parquet, .*{message}"):
        prepared(tmp_path, table)
    with pytest.raises(DataError, match=message):
        check_source(config(), open_source(str(tmp_path / "log-0"), "*.parquet", quarantine=False), "log-0")
    assert not (tmp_path / "cache").exists()


def test_files_that_disagree_and_logs_of_nothing_are_refused(tmp_path: Path) -> None:
    table = rows_of()
    numbers = changed(table, "code", pa.array(range(120)))
    for tables, message in (
        ((numbers, table), r"file .*1.parquet, column code: holds string, but int64 in .*0.parquet"),
        ((table, table.drop_columns("price")), r"file .*1.parquet, column price: is missing"),
        ((table.append_column("code", table.column("code")),), r"column code: is there 2 times"),
        ((table.slice(0, 0), table.slice(0, 0)), r"path .*: holds no rows to prepare"),
        ((changed(table, "code", pa.nulls(120)),), r"column code: is null in 120 positives; leave them out: 'code is"),
        ((changed(table, "at", pa.nulls(120, pa.timestamp("us"))),), r"column at: is null in 120 positives; leave"),
    ):
        with pytest.raises(DataError, match=message):
            prepared(tmp_path, *tables)
    assert list((tmp_path / "cache").glob("*") if (tmp_path / "cache").exists() else []) == []


def test_days_are_times_and_a_sale_without_a_price_has_none(tmp_path: Path) -> None:
    table = rows_of()
    days = prepared(tmp_path, changed(table, "at", table.column("at").cast(pa.date32())))
    assert {time.hour for time in days.column("at").to_pylist()} == {0}
    no_prices = prepared(tmp_path, changed(table, "price", pa.nulls(120, pa.float64())))
    assert no_prices.column("last_price").null_count == no_prices.num_rows
    some = pc.if_else(pc.equal(table.column("price"), 4.0), None, table.column("price"))
    assert set(prepared(tmp_path, changed(table, "price", some)).column("last_price").to_pylist()) <= {
        None,
        *(float(price) for price in range(1, 9) if price != 4),
    }


def test_a_full_disk_leaves_nothing(
    tmp_path: Path, small_disk: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("embtables.pipelines.prepare.examples.SLICE_POSITIVES", 20)
    (small_disk / "filling").write_bytes(bytes(1_010_000))
    (tmp_path / "log").mkdir()
    pq.write_table(rows_of(), tmp_path / "log" / "a.parquet")
    with pytest.raises(StateError, match=r"cannot write the prepared examples: .*No space left on device"):
        prepare(config(), str(tmp_path / "log"), "*.parquet", small_disk / "cache")
    assert not list(small_disk.glob("cache/*"))
    assert "Exception ignored" not in capfd.readouterr().err


def test_a_value_that_a_dictionary_holds_twice_is_one_item() -> None:
    column = rows_of().column("code")
    expected = codes(pa.table({"code": column}), "code")
    found = codes(pa.table({"code": repeated_dictionary(column)}), "code")
    assert found.values.to_pylist() == expected.values.to_pylist()
    assert found.numbers.tolist() == expected.numbers.tolist()
