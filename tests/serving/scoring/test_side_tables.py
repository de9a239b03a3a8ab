"""What side tables give to a request: joined in order, overridden by the request, missing keys counted or refused."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embtables.errors import DataError, StateError
from embtables.inputs.features import FeatureTransform, FittedTransforms
from embtables.models.version_content import ScoringContent, SideTableContent
from embtables.schema import DenseColumn, Feature, FixedTable, Schema, Sgd
from embtables.serving import wire
from embtables.serving.refusals import Refusal
from embtables.serving.scoring.columns.column_rules import ColumnRules
from embtables.serving.scoring.columns.json_columns import json_column
from embtables.serving.scoring.request_scorer import RequestScorer
from embtables.serving.scoring.side_tables import SideTables
from embtables.serving.versions.served_version import ServedVersion
from embtables.serving.versions.side_tables.side_table import PublishedSideTable
from tests.serving.scoring.served_for_tests import rows_table, side_table


def side(
    table: Mapping[str, Any] | pa.Table, *keys: str, name: str = "items.parquet", **options: Any
) -> PublishedSideTable:
    rows = table if isinstance(table, pa.Table) else pa.table(dict(table))
    columns = tuple(column for column in rows.column_names if column not in keys)
    of = SideTableContent(name=name, keys=keys, columns=columns, file="side.0.arrow", rows=rows.num_rows, **options)
    return PublishedSideTable(of, "c", rows)


ITEMS = {
    "item": ["pen", "cup", "hat"],
    "price": pa.array([1.5, 4.0, None], pa.float32()),
    "text": pa.array(["a pen", "a cup", None]).dictionary_encode(),
    "tags": [[1, 2], [], None],
}


def in_request(place: str, row: int | None) -> str:
    return place if row is None else f"candidates.{row}.{place}"


def test_rows_and_missing_keys_get_what_the_table_says() -> None:
    defaults = {"price": 9.5, "tags": [7], "text": "unknown"}
    nulls = side(ITEMS, "item", missing="null")
    filled = side(ITEMS, "item", missing="defaults", defaults=defaults)
    wanted = {"item": pa.array(["hat", "new", "pen", None])}
    joined = SideTables([nulls]).joined(wanted, 4)
    assert joined.columns["price"].to_pylist() == [None, None, 1.5, None]
    assert joined.columns["text"].to_pylist() == [None, None, "a pen", None]
    assert joined.columns["tags"].to_pylist() == [None, None, [1, 2], None]
    assert joined.missing == {"items.parquet": 2}
    joined = SideTables([filled]).joined(wanted, 4)
    assert joined.columns["price"].to_pylist() == [None, 9.5, 1.5, 9.5]
    assert joined.columns["text"].to_pylist() == [None, "unknown", "a pen", "unknown"]
    assert joined.columns["tags"].to_pylist() == [None, [7], [1, 2], [7]]


def test_strings_come_without_the_dictionary_of_all() -> None:
    texts = pa.array([f"text {n}" for n in range(1000)]).dictionary_encode()
    taken = side({"item": list(range(1000)), "text": texts}, "item").take(np.array([3, 5]))["text"]
    assert taken.type == pa.string()
    assert taken.to_pylist() == ["text 3", "text 5"]


def test_what_the_request_gives_is_never_replaced() -> None:
    tables = SideTables([side(ITEMS, "item")])
    given = {"item": pa.array(["pen", "cup"]), "price": pa.array([None, 3.0])}
    joined = tables.joined(given, 2)
    assert sorted(joined.columns) == ["tags", "text"]
    everything = {"item": pa.array(["new"]), "price": pa.array([1.0]), "text": pa.array(["x"]), "tags": pa.array([[1]])}
    assert tables.joined(everything, 1).columns == {}


def test_rows_in_which_the_request_does_not_give_a_column_are_filled() -> None:
    tables = SideTables([side(ITEMS, "item")])
    given = {
        "item": pa.array(["pen", "cup", "new"]),
        "price": pa.array([None, None, 5], pa.int64()),
        "text": pa.array([None, "mine", "new"]),
        "tags": pa.array([[], [3], [4]], pa.list_(pa.int32())),
    }
    gaps = {"price": np.array([False, True, False]), "text": np.array([True, False, False])}
    joined = tables.joined(given, 3, gaps=gaps)
    # A null that is given stays one, and a key that is missing is no fault where nothing of it is needed.
    assert joined.columns["price"].to_pylist() == [None, 4.0, 5.0]
    assert joined.columns["text"].to_pylist() == ["a pen", "mine", "new"]
    assert "tags" not in joined.columns
    assert joined.missing == {}
    with pytest.raises(Refusal, match="lacks item 'new'; send price, text with"):
        tables.joined(given, 3, gaps={**gaps, "price": np.array([False, True, True])})


def test_a_given_value_that_does_not_go_with_the_tables_is_refused() -> None:
    given = {"item": pa.array(["pen", "cup"]), "price": pa.array(["dear", None])}
    gaps = {"price": np.array([False, True])}
    with pytest.raises(Refusal, match="holds string; a float is needed") as caught:
        SideTables([side(ITEMS, "item")]).joined(given, 2, gaps=gaps, place=in_request)
    assert (caught.value.status, caught.value.field) == (422, "price")


def test_a_missing_key_is_refused_with_its_table_value_and_place() -> None:
    with pytest.raises(Refusal) as caught:
        SideTables([side(ITEMS, "item")]).joined({"item": pa.array(["pen", "new", None])}, 3, place=in_request)
    assert caught.value.status == 422
    assert caught.value.reason.startswith("the side table items.parquet lacks item 'new'; send price, text, tags with")
    assert caught.value.field == "candidates.1.item"


def test_a_long_key_is_shown_shortened() -> None:
    with pytest.raises(Refusal) as caught:
        SideTables([side(ITEMS, "item")]).joined({"item": pa.array(["x" * 100_000])}, 1)
    assert len(caught.value.reason) < 400


@pytest.mark.parametrize("values", [pa.array([1, 2]), pa.array([1.5, 2.5]), pa.array([["pen"], []])])
def test_a_key_of_another_kind_is_refused_and_named(values: pa.Array) -> None:
    with pytest.raises(Refusal) as caught:
        SideTables([side(ITEMS, "item")]).joined({"item": values}, 2, place=in_request)
    assert caught.value.status == 422
    assert caught.value.field == "item"
    assert caught.value.reason.startswith("holds ")


def test_a_table_whose_keys_are_not_given_is_left_out() -> None:
    pairs = side({"user": [1, 2], "item": ["pen", "cup"], "count": [3, 4]}, "user", "item", name="pairs")
    tables = SideTables([pairs, side(ITEMS, "item")])
    joined = tables.joined({"user": pa.array([1])}, 1)
    assert joined.columns == {}
    assert tables.keys_of("count") == ("user", "item")
    assert tables.columns == {"count", "price", "text", "tags"}
    assert tables.keys == {"user", "item"}


@settings(deadline=None, max_examples=60)
@given(
    known=st.lists(st.tuples(st.integers(0, 3), st.sampled_from("abc")), unique=True, max_size=12),
    user=st.none() | st.integers(0, 4),
    items=st.lists(st.none() | st.sampled_from("abcd"), min_size=1, max_size=8),
)
def test_pairs_of_the_context_and_the_candidates_are_those_of_a_dict(
    known: list[tuple[int, str]], user: int | None, items: list[str | None]
) -> None:
    counts = {pair: float(n) for n, pair in enumerate(known)}
    users, codes = [pair[0] for pair in known], [pair[1] for pair in known]
    table = {"user": pa.array(users, pa.int32()), "item": pa.array(codes, pa.string()), "count": [*counts.values()]}
    typed = pa.table({**table, "count": pa.array(table["count"], pa.float32())})
    pairs = side(typed, "user", "item", missing="defaults", defaults={"count": -1.0})
    request = {"user": pa.array([user], pa.int64()), "item": pa.array(items, pa.string())}
    joined = SideTables([pairs]).joined(request, len(items))
    right = [counts.get((user, item), -1.0) for item in items]
    assert joined.columns["count"].to_pylist() == right


def test_a_column_of_one_table_is_the_key_of_a_later_one() -> None:
    tables = SideTables(
        [
            side({"item": ["pen", "cup"], "shop": [7, 8]}, "item"),
            side({"shop": [8], "town": ["Bern"]}, "shop", name="shops.parquet", missing="null"),
        ]
    )
    joined = tables.joined({"item": pa.array(["cup", "pen"])}, 2)
    assert joined.columns["town"].to_pylist() == ["Bern", None]
    # The request's shop goes before the joined one.
    assert tables.joined({"item": pa.array(["pen"]), "shop": pa.array([8])}, 1).columns["town"].to_pylist() == ["Bern"]


def test_a_filled_key_is_looked_up_as_filled() -> None:
    tables = SideTables(
        [
            side({"shop": [8], "owner": ["Ada"]}, "shop", name="owners.parquet", missing="null"),
            side({"item": ["pen", "cup"], "shop": [7, 8]}, "item"),
            side({"shop": [7, 8], "town": ["Basel", "Bern"]}, "shop", name="shops.parquet"),
        ]
    )
    given = {"item": pa.array(["cup", "pen"]), "shop": pa.array([None, 8], pa.int64())}
    joined = tables.joined(given, 2, gaps={"shop": np.array([True, False])})
    assert joined.columns["town"].to_pylist() == ["Bern", "Bern"]
    assert joined.columns["owner"].to_pylist() == [None, "Ada"]  # as joins go: in their order


def test_the_features_of_a_joined_request_are_those_of_the_whole_row() -> None:
    vectors = FixedTable(name="item", dim=4, num_rows=100, optimizer=Sgd(learning_rate=0.1))
    schema = Schema(
        tables=(vectors,),
        features=(
            Feature(name="item", table="item"),
            Feature(name="text", table="item", split=" ", pooling="mean"),
            Feature(name="tags", table="item", pooling="mean"),
        ),
        labels=(),
        dense=(DenseColumn(column="price", fill_null=0.0),),
    )
    transform = FeatureTransform.for_scoring(schema, FittedTransforms())
    table = side(ITEMS, "item", missing="null")
    keys = {"item": pa.array(["hat", "cup", "pen", "new"])}
    joined = SideTables([table]).joined(keys, 4)
    whole = pa.table(
        {
            **keys,
            "price": pa.array([None, 4.0, 1.5, None], pa.float64()),
            "text": [None, "a cup", "a pen", None],
            "tags": [None, [], [1, 2], None],
        }
    )
    got, right = transform.batch({**keys, **joined.columns}), transform.batch(whole)
    assert got.ids.values.tolist() == right.ids.values.tolist()
    assert got.ids.lengths.tolist() == right.ids.lengths.tolist()
    assert got.dense.tolist() == right.dense.tolist()


def test_a_key_that_is_a_time_is_read_as_one_from_json() -> None:
    days = pa.array([datetime(2024, 1, 1), datetime(2024, 1, 2)], pa.timestamp("ms"))
    tables = SideTables([side({"day": days, "price": [1.0, 2.0]}, "day", name="days.parquet")])
    assert tables.times == {"day"}
    version = {
        "schema": {
            "tables": [{"name": "t", "dim": 4, "num_rows": 9, "optimizer": {"kind": "sgd", "learning_rate": 0.1}}],
            "features": [{"name": "item", "table": "t"}],
            "labels": [{"column": "label"}],
            "dense": [{"column": "price"}],
            "model": {"kind": "lr"},
        },
        "transforms": {},
    }
    rules = ColumnRules(ScoringContent.model_validate(version), tables)
    assert rules.reading("day") == "times"
    assert rules.reading("item") == "ids"
    wanted = json_column("day", ["2024-01-02T00:00:00Z"], rules.reading("day"), in_request)
    assert tables.joined({"day": wanted}, 1).columns["price"].to_pylist() == [2.0]


def content(**changes: Any) -> SideTableContent:
    given = {"name": "items.parquet", "keys": ("item",), "columns": ("price",), "file": "side.0.arrow", "rows": 2}
    return SideTableContent.model_validate({**given, **changes})


@pytest.mark.parametrize(
    ("of", "table", "says"),
    [
        (content(), {"item": ["a", "a"], "price": [1, 2]}, "the key 'a' is there twice"),
        (content(), {"item": ["a", None], "price": [1, 2]}, "1 keys are null"),
        (content(), {"item": [1.5, 2.5], "price": [1, 2]}, "holds double, which cannot be the key"),
        (content(), {"item": ["a"], "price": [1]}, "holds 1 rows where the version says 2"),
        (content(), {"item": ["a", "b"]}, "lacks the column price"),
        (
            content(missing="defaults", defaults={"price": "dear"}),
            {"item": ["a", "b"], "price": [1, 2]},
            "has the default 'dear' for the column price, which holds int64",
        ),
    ],
)
def test_a_table_that_is_not_what_the_version_says_is_refused(
    of: SideTableContent, table: dict[str, Any], says: str
) -> None:
    with pytest.raises(StateError, match=says) as caught:
        PublishedSideTable(of, "c", pa.table(table))
    assert caught.value.path == {"side": "items.parquet", "file": "side.0.arrow"}
    assert "publish the version again" in caught.value.message


def test_positions_refuse_a_key_that_cannot_be_compared() -> None:
    with pytest.raises(DataError, match=r"holds integers, but the side table items.parquet is looked up by strings"):
        side(ITEMS, "item").positions([pa.array([1])], 1)


@pytest.mark.parametrize("kind", ["timestamp[s]", "timestamp[us]", "timestamp[ns]", "date32", "date64"])
@pytest.mark.parametrize("candidate_key", ["item", None])
def test_a_table_may_be_looked_up_by_a_time(zoo: ServedVersion, kind: str, candidate_key: str | None) -> None:
    days = pa.array([datetime(1970, 6, day) for day in (1, 2, 30)], pa.timestamp("s")).cast(kind)
    table = side_table("days", ("day",), pa.table({"day": days, "age": [20.0, 30.0, 60.0]}), "error")
    content = zoo.content.model_copy(update={"side_tables": (table.of,), "candidate_key": candidate_key})
    scorer = RequestScorer(replace(zoo, content=content, side_tables={"days": table}))
    row = {name: rows_table(1).column(name)[0].as_py() for name in rows_table(1).column_names}
    del row["age"], row["click"]
    row["time"] = row["time"].isoformat()

    (column,) = [column for column in scorer.description.columns if column.name == "age"]
    assert column.is_joined
    assert scorer.side_tables.times == {"day"}

    def scores(**given: Any) -> Any:
        (found,) = scorer.score_all([wire.ScoreRequest(context=row | given, candidates=[{}, {}])])
        return found if isinstance(found, BaseException) else found.scores.tolist()

    for day, age in (("1970-06-02T00:00:00Z", 30.0), ("1970-06-30T00:00:00+00:00", 60.0)):
        assert scores(day=day) == scores(age=age)
    assert scores(day="1970-06-02T00:00:00Z") != scores(age=20.0)
    missing = scores(day="1970-06-02T00:00:01Z")
    assert isinstance(missing, Refusal)
    assert "the side table days lacks day datetime.datetime(1970, 6, 2, 0, 0, 1)" in missing.reason
    assert isinstance(scores(day=3), Refusal)
