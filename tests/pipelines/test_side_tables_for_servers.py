"""Side tables for servers: the columns that training joined or prepared, equal to what training reads.

The tests look them up as a server does (`SideTables`), so that what is shown is what a request gets.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from embtables.errors import BadFileError, ConfigError, DataError
from embtables.inputs.features import FeatureTransform
from embtables.inputs.times import as_microseconds
from embtables.models.version_content import SideTableContent
from embtables.pipelines.config import Publish, RunConfig, load_config
from embtables.pipelines.prepare.log_splits import with_prepared_data
from embtables.pipelines.prepare.past import Past
from embtables.pipelines.prepare.side_tables import candidate_key, published_side_tables
from embtables.pipelines.sources.log import Log
from embtables.schema import EventTime, validate
from embtables.schema.prepare import NEVER_DAYS
from embtables.serving.scoring.side_tables import SideTables
from embtables.serving.versions.side_tables.side_table import PublishedSideTable

EXAMPLE = Path(__file__).parents[2] / "examples" / "online_retail" / "dcnv2.yaml"
PAST = (
    *("item_sales_1d", "item_sales_3d", "item_sales_7d", "item_sales_28d", "item_sales", "item_age_days"),
    *("item_idle_days", "user_item_count", "user_item_idle_days", "user_count", "last_price"),
)


def config(path: Path, runs: Path, **data: Any) -> RunConfig:
    """Reads all that `data.prepare` derives, and the columns of joins that are `wanted`."""
    wanted = data.pop("wanted", ())
    table = {"dim": 4, "num_rows": 100, "optimizer": {"kind": "sgd", "learning_rate": 0.1}}
    dense = [{"column": name, "fill_null": 0} for name in (PAST if "prepare" in data else ())]
    named = [{"name": name.replace(".", "_"), "column": name, "table": "t"} for name in ("code", "who", *wanted)]
    history = [{"name": "history", "table": "t"}] if "prepare" in data else []
    return validate(
        RunConfig,
        {
            "name": "shop",
            "tables": [{"name": "t", **table}],
            "features": [*named, *history],
            "labels": [{"column": "label"}],
            "dense": dense,
            "data": {"path": str(path), **data},
            "model": {"kind": "lr"},
            "train": {"runs_dir": str(runs)},
        },
    )


def prepare(**changes: Any) -> dict[str, Any]:
    columns = {"item": "code", "user": "who", "group": "invoice", "event_time": "at", "price": "price"}
    drawn = {"negatives_per_positive": 60, "pool_days": 400, "popularity_exponent": 0.01}
    return {**columns, **drawn, "history_length": 4, "where": ["quantity > 0"], **changes}


def lines(seed: int, count: int = 200) -> list[dict[str, Any]]:
    rng = np.random.default_rng(seed)
    invoices = np.sort(rng.integers(0, count // 3, count))
    began = np.sort(rng.integers(0, 50 * 24 * 3_600, count // 3)) * 1_000_000
    return [
        {
            "invoice": f"i{invoice}",
            "code": f"c{int(rng.integers(0, 25))}",
            "who": int(invoice * 7 % 9),
            "at": int(began[invoice] + rng.integers(0, 2) * 60_000_000),
            "price": None if rng.random() < 0.2 else float(rng.integers(1, 20)),
            "quantity": int(rng.integers(-1, 4)),
        }
        for invoice in invoices
    ]


def write_log(folder: Path, rows: list[dict[str, Any]]) -> Path:
    folder.mkdir(exist_ok=True)
    table = pa.Table.from_pylist(rows)
    at = table.schema.get_field_index("at")
    table = table.set_column(at, "at", table.column("at").cast(pa.timestamp("us")))
    pq.write_table(table, folder / "log.parquet")
    return folder


def of_server(published: list[tuple[SideTableContent, pa.Table]]) -> SideTables:
    assert [of.file for of, _ in published] == [f"side.{n}.arrow" for n in range(len(published))]
    return SideTables([PublishedSideTable(of, "", table) for of, table in published])


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_past_is_what_the_preparation_writes_for_the_moment_after_the_log(tmp_path: Path, seed: int) -> None:
    rows = lines(seed)
    before = config(write_log(tmp_path / "log", rows), tmp_path / "runs", prepare=prepare())
    tables = of_server(published_side_tables(before))

    # The oracle: one more invoice of every customer, and of a new one, a microsecond after the last line. They are at
    # one moment, so that none counts for another, and their negatives are drawn from all items of earlier days.
    began: dict[str, int] = {}
    for row in rows:
        if row["quantity"] > 0:
            began[row["invoice"]] = min(row["at"], began.get(row["invoice"], row["at"]))
    moment = max(began.values()) + 1
    users = [*sorted({row["who"] for row in rows}), 99]
    last = [
        {"invoice": f"last {who}", "code": rows[0]["code"], "who": who, "at": moment, "price": 1.0, "quantity": 1}
        for who in users
    ]
    after = config(write_log(tmp_path / "longer", rows + last), tmp_path / "runs", prepare=prepare())
    examples = pq.read_table(str(with_prepared_data(after, shown=False).data.path))
    examples = examples.filter(pa.array([invoice.startswith("last") for invoice in examples["invoice"].to_pylist()]))
    assert len(set(examples["code"].to_pylist())) > 20
    assert set(examples["who"].to_pylist()) == set(users)

    keys = {name: examples[name].combine_chunks() for name in ("who", "code")}
    joined = tables.joined(keys, examples.num_rows)
    assert sorted(joined.columns) == sorted((*PAST, "history"))
    for name, column in joined.columns.items():
        assert column.to_pylist() == examples[name].to_pylist(), name
    assert joined.missing["data.prepare by who"] == examples["who"].to_pylist().count(99)


def test_an_item_that_the_log_never_saw_is_one_before_its_first_sale(tmp_path: Path) -> None:
    shop = config(write_log(tmp_path / "log", lines(3)), tmp_path / "runs", prepare=prepare())
    assert shop.data.prepare is not None
    table = pq.read_table(tmp_path / "log").sort_by("at")
    times = as_microseconds(EventTime(column="at"), table["at"].combine_chunks())
    past = Past(shop.data.prepare, table, times)
    _, first = np.unique(past.items.numbers, return_index=True)
    before_first = past.take(0, len(times), first, past.items.numbers[first])
    keys = {"who": pa.nulls(1, pa.int64()), "code": pa.nulls(1, pa.string())}
    for names in (["code"], ["who", "code"]):
        unseen = past.at_end({name: keys[name] for name in names})
        for name in unseen.column_names:
            assert set(before_first[name].to_pylist()) == set(unseen[name].to_pylist()), name

    by_name = {of.name: of for of, _ in published_side_tables(shop)}
    sales = dict.fromkeys((name for name in PAST if "sales" in name), 0.0)
    days = dict.fromkeys(("item_age_days", "item_idle_days"), NEVER_DAYS)
    assert by_name["data.prepare by code"].defaults == {**sales, **days}
    assert by_name["data.prepare by who"].defaults == {"user_count": 0.0, "history": []}
    assert by_name["data.prepare by who and code"].defaults == {"user_item_count": 0, "user_item_idle_days": NEVER_DAYS}


def test_only_what_the_model_reads_is_published(tmp_path: Path) -> None:
    log = write_log(tmp_path / "log", lines(4))
    whole = config(log, tmp_path / "runs", prepare=prepare())
    fewer = whole.model_copy(update={"dense": whole.dense[4:5], "features": whole.features[:2]})
    assert [(of.name, of.columns) for of, _ in published_side_tables(fewer)] == [
        ("data.prepare by code", ("item_sales",))
    ]
    none = whole.model_copy(update={"dense": (), "features": whole.features[:2]})
    assert published_side_tables(none) == []


def test_a_damaged_past_is_refused_and_says_what_to_do(tmp_path: Path) -> None:
    shop = config(write_log(tmp_path / "log", lines(5)), tmp_path / "runs", prepare=prepare())
    published_side_tables(shop)
    (file,) = (tmp_path / "runs").glob("prepared/*/_past/item.parquet")
    file.write_bytes(file.read_bytes()[:-20])
    with pytest.raises(BadFileError, match="remove the folder of prepared examples"):
        published_side_tables(shop)


@pytest.fixture
def side(tmp_path: Path) -> Callable[..., str]:
    """A side table beside the log, in some files."""

    def write(name: str, *tables: dict[str, Any]) -> str:
        folder = tmp_path / "log" / name
        folder.mkdir(parents=True, exist_ok=True)
        for number, table in enumerate(tables):
            pq.write_table(pa.table(table), folder / f"{number}.parquet")
        return name

    return write


def test_joined_columns_are_those_of_training(tmp_path: Path, side: Callable[..., str]) -> None:
    side("items", {"code": ["c1", "c2"], "text": ["a", None]}, {"code": ["c3", None], "text": ["b", "none"]})
    side("people", {"id": pa.array([2, 3, None], pa.int8()), "town": ["Bern", "Rome", "Ulm"], "age": [1, 2, 3]})
    joins = [
        {"path": "items", "key": "code"},
        {"path": "people", "key": "who", "side_key": "id", "prefix": "of.", "on_missing": "null"},
    ]
    rows = {"code": ["c3", "c1", "c2", "c3"], "who": pa.array([3, 4, None, 2], pa.int64()), "label": [0, 1, 0, 1]}
    pq.write_table(pa.table(rows), tmp_path / "log" / "log.parquet")
    shop = config(tmp_path / "log", tmp_path, files="*.parquet", join=joins, wanted=("text", "of.town"))
    absolute = with_prepared_data(shop)
    log = Log(absolute, absolute.data)
    for published in (published_side_tables(shop), published_side_tables(shop, log)):
        assert [(of.name, of.keys, of.columns, of.rows, of.missing) for of, _ in published] == [
            ("items", ("code",), ("text",), 3, "error"),
            ("people", ("who",), ("of.town",), 2, "null"),
        ]
        wanted = {name: pa.array(rows[name]) for name in ("code", "who")}
        joined = of_server(published).joined(wanted, 4)
        (block,) = log.blocks(0, None)
        training = log.rows(block, None, ("text", "of.town")).table
        assert {n: c.to_pylist() for n, c in joined.columns.items()} == training.select(joined.columns).to_pydict()
        assert joined.missing == {"people": 2}
    assert candidate_key(shop) is None


def test_two_joins_of_one_file_have_names_apart(tmp_path: Path, side: Callable[..., str]) -> None:
    side("towns", {"town": ["Bern"], "size": [3]})
    joins = [{"path": "towns", "key": key, "side_key": "town", "prefix": f"{key}."} for key in ("code", "who")]
    pq.write_table(pa.table({"code": ["Bern"], "who": ["Bern"], "label": [1]}), tmp_path / "log" / "log.parquet")
    shop = config(tmp_path / "log", tmp_path, files="*.parquet", join=joins, wanted=("code.size", "who.size"))
    assert [of.name for of, _ in published_side_tables(shop)] == ["towns by code", "towns by who"]


def test_the_only_joins_key_is_the_candidates_by_default(tmp_path: Path) -> None:
    joins = [{"path": "items", "key": "code"}]
    assert candidate_key(config(tmp_path, tmp_path, join=joins)) == "code"
    assert candidate_key(config(tmp_path, tmp_path)) is None
    assert candidate_key(config(tmp_path, tmp_path, prepare=prepare(), join=[*joins, *joins])) == "code"


def test_another_candidate_key_is_one_that_something_is_looked_up_by(tmp_path: Path) -> None:
    shop = config(tmp_path, tmp_path, prepare=prepare())
    by_user = shop.model_copy(update={"publish": Publish(candidate_key="who")})
    assert candidate_key(by_user) == "who"
    wrong = shop.model_copy(update={"publish": Publish(candidate_key="whom")})
    with pytest.raises(ConfigError, match=r"publish\.candidate_key: no feature reads 'whom'.*there are: code,"):
        candidate_key(wrong)


def test_a_side_table_that_is_gone_is_named(tmp_path: Path) -> None:
    joins = [{"path": "items.parquet", "key": "code"}]
    with pytest.raises(DataError, match=r"items\.parquet"):
        published_side_tables(config(tmp_path, tmp_path, join=joins, wanted=("text",)))


def test_a_request_to_online_retail_needs_only_the_ids(tmp_path: Path) -> None:
    december = ["data.files=log/2010-12-*.parquet", f"train.runs_dir={tmp_path}"]
    retail = load_config(EXAMPLE, december)
    prepared = with_prepared_data(retail, shown=False)
    log = Log(prepared, prepared.data)
    transform = FeatureTransform.for_scoring(retail, log.fit_transforms(0))
    tables = of_server(published_side_tables(retail, log))
    assert candidate_key(retail) == "stock_code"

    context = {"customer_id": pa.array([17850]), "country": pa.array(["United Kingdom"])}
    context["event_time"] = pa.array([1_293_840_000_000_000], pa.timestamp("us"))
    shared = tables.joined(context, 1).columns
    codes = {"stock_code": pa.array(["85123A", "71053"])}
    own = tables.joined({**context, **shared, **codes}, 2).columns
    assert sorted((*context, *shared, *codes, *own)) == sorted(transform.columns)
    repeated = {name: column.take(pa.array([0, 0])) for name, column in (context | shared).items()}
    batch = transform.batch(repeated | codes | own)
    assert batch.num_rows == 2
    assert np.isfinite(batch.dense.numpy()).all()
    assert len(shared["history"][0]) == 100

    # What is joined by the server is what the reader joins to the rows of the log.
    block = log.blocks(0, None)[0]
    rows = log.rows(block, None, transform.columns).table.slice(0, 500)
    given = {name: rows[name].combine_chunks() for name in transform.columns if name != "description"}
    joined = tables.joined(given, 500)
    assert sorted(joined.columns) == ["description"]
    got, right = transform.batch(given | joined.columns), transform.batch(rows)
    assert got.ids.values.tolist() == right.ids.values.tolist()
    assert got.ids.lengths.tolist() == right.ids.lengths.tolist()
    assert got.dense.tolist() == right.dense.tolist()
