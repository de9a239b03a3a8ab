"""The schema: YAML in and out, strictness, suggestions, defaults and cross-checks."""

from __future__ import annotations

import copy
import json
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import pytest
import yaml

from embtables.errors import ConfigError
from embtables.pipelines.config import RunConfig
from embtables.schema import (
    Condition,
    FixedTable,
    Schema,
    json_schema,
    parse_value,
    parse_yaml,
    read_yaml,
    to_yaml,
    validate,
)

TEXT = """
name: shop
tables:
  - {name: item, dim: 16, num_rows: 1000, optimizer: {kind: rowwise_adagrad, learning_rate: 5e-2}}
  - name: customer
    dim: 8
    num_rows: 500
    optimizer: {kind: adam, learning_rate: 0.001, weight_decay: 1e-6}
    initializer: {kind: uniform, low: -0.1, high: 0.1}
features:
  - {name: stock_code, table: item}
  - {name: history, table: item, pooling: mean, max_length: 100, weights_column: history_weight}
  - {name: customer_item, cross: [customer_id, stock_code], table: customer, encoder: {kind: multi_hash}}
labels:
  - {column: rating, positive_above: 3}
dense:
  - {column: price, transforms: [log1p, standardise], fill_null: 0}
event_time: {column: time, unit: s}
data:
  path: logs
  where: ["rating != 3", "country in [UK, FR]", "customer_id is not null"]
  join: [{path: items.parquet, key: stock_code}]
  split: {kind: time, test_from: 2011-11-01}
model: {kind: lr}
"""


def content() -> dict[str, Any]:
    return parse_yaml(TEXT)


def test_yaml_out_and_in_gives_an_equal_schema() -> None:
    schema = validate(RunConfig, content())
    assert validate(RunConfig, parse_yaml(to_yaml(schema))) == schema


def test_what_a_model_reads_needs_no_log_and_no_labels() -> None:
    sections = content()
    reads = {name: sections[name] for name in ("tables", "features", "dense")}
    schema = validate(Schema, reads)
    assert (schema.labels, schema.event_time, schema.sample_weight) == ((), None, None)
    whole = validate(RunConfig, sections)
    assert (schema.tables, schema.features, schema.dense) == (whole.tables, whole.features, whole.dense)
    assert isinstance(whole, Schema)
    with pytest.raises(ConfigError, match="labels"):
        validate(RunConfig, {name: value for name, value in sections.items() if name != "labels"})


def test_a_file_begins_with_the_name_and_goes_on_in_the_order_of_the_docs() -> None:
    keys = list(parse_yaml(to_yaml(validate(RunConfig, content()))))
    assert keys[:8] == ["name", "tables", "features", "labels", "sample_weight", "dense", "event_time", "data"]
    assert keys[8:] == ["model", "train", "evaluate", "publish", "warm_start", "online", "running"]


def test_a_feature_describes_a_side() -> None:
    sections = content()
    sections["features"][0]["side"] = "item"
    assert [f.side for f in validate(RunConfig, sections).features] == ["item", "context", "context"]
    sections["features"][0]["side"] = "buyer"
    with pytest.raises(ConfigError, match=r"features\.0\.side: .*'user', 'item' or 'context'"):
        validate(RunConfig, sections)


def test_a_feature_reads_the_column_of_its_name_by_default() -> None:
    schema = validate(RunConfig, content())
    assert schema.features[0].columns == ("stock_code",)
    assert schema.features[1].columns == ("history", "history_weight")
    assert schema.features[2].columns == ("customer_id", "stock_code")


def test_numbers_in_scientific_notation_are_numbers() -> None:
    assert validate(RunConfig, content()).tables[0].optimizer.learning_rate == 0.05
    assert parse_value("1e-4") == 1e-4
    assert parse_value("-2E3") == -2000.0


@pytest.mark.parametrize(
    ("place", "key", "value", "message"),
    [
        ((), "feature", [], "unknown key 'feature'; did you mean 'features'?"),
        (("tables", 0), "num_row", 3, "did you mean 'num_rows'?"),
        (("data",), "wehre", [], "did you mean 'where'?"),
        (("tables", 0, "optimizer"), "learning_rat", 1, "did you mean 'learning_rate'?"),
        (("tables", 0, "optimizer"), "kind", "adagradd", "adagradd"),
        (("tables", 0), "dim", 0, "greater than or equal to 1"),
        (("tables", 0), "num_rows", -5, "greater than 0"),
        (("tables", 0), "name", "../../etc/passwd", "tables.0.name"),
        (("features", 0), "table", "itme", "names table 'itme'"),
        (("features", 1), "name", "stock_code", "'stock_code' is used twice"),
        (("features", 2), "cross", ["a"], "two or more different columns"),
        (("features", 2), "split", "|", "'split' does not go with 'cross'"),
        (("features", 2), "column", "x", "'column' or 'cross', not both"),
        (("dense", 0), "transforms", ["quantile", "log1p"], "'quantile' stands alone"),
        (("data",), "where", ["rating"], "write '<column> <op> <value>'"),
        (("data",), "where", ["rating in 3"], "'in' needs a list"),
        (("data", "split"), "validation_from", "2012-01-01", "'validation_from' must come before 'test_from'"),
        # 2011-11-01, which has no zone, is UTC.
        (("data", "split"), "validation_from", "2011-11-01T00:30:00-01:00", "'validation_from' must come before"),
        ((), "event_time", None, "a split by time needs 'event_time'"),
        ((), "labels", [], "at least 1 item"),
    ],
)
def test_what_is_wrong_is_refused_with_its_place(place: tuple[Any, ...], key: str, value: Any, message: str) -> None:
    changed = copy.deepcopy(content())
    node: Any = changed
    for part in place:
        node = node[part]
    node[key] = value
    with pytest.raises(ConfigError) as raised:
        validate(RunConfig, changed, file="shop.yaml")
    assert message in str(raised.value)
    assert "shop.yaml" in str(raised.value)
    assert raised.value.exit_status == 2


def test_every_wrong_value_is_reported_at_once() -> None:
    changed = content()
    changed["tables"][0]["dim"] = "wide"
    changed["tables"][1]["num_rows"] = 0
    with pytest.raises(ConfigError, match=r"2 values are wrong") as raised:
        validate(RunConfig, changed)
    assert "tables.0.dim" in str(raised.value)
    assert "tables.1.num_rows" in str(raised.value)


def test_a_schema_is_frozen() -> None:
    schema = validate(RunConfig, content())
    with pytest.raises(ValueError, match="frozen"):
        schema.name = "other"  # type: ignore[misc]


@pytest.mark.parametrize(
    ("text", "column", "op", "value"),
    [
        ("rating != 3", "rating", "!=", "3"),
        ("x>=1.50", "x", ">=", "1.50"),
        ("country == UK", "country", "==", "UK"),
        ("c not in [01, NO]", "c", "not in", ("01", "NO")),
        ("c in ['a, b', \"null\"]", "c", "in", ("a, b", "null")),
        ("c == 'null'", "c", "==", "null"),
        ("c == a#b: [c", "c", "==", "a#b: [c"),
        ("dt >= 2024-01-02", "dt", ">=", "2024-01-02"),
        ("c is null", "c", "is null", None),
        ("flag == true", "flag", "==", "true"),
    ],
)
def test_conditions_are_read_from_text(text: str, column: str, op: str, value: object) -> None:
    condition = Condition.model_validate(text)
    assert (condition.column, condition.op, condition.value) == (column, op, value)
    assert validate(Condition, yaml.safe_load(to_yaml(condition))) == condition


def test_a_condition_takes_plain_values_of_python() -> None:
    def value(of: object) -> object:
        return Condition(column="c", op="==", value=of).value  # type: ignore[arg-type]

    moment = datetime(2024, 1, 2, 3, tzinfo=UTC)
    assert [value(v) for v in (3, 1.5, True, date(2024, 1, 2), Decimal("1.10"))] == [
        "3",
        "1.5",
        "true",
        "2024-01-02",
        "1.10",
    ]
    assert value(moment) == "2024-01-02T03:00:00+00:00"


@pytest.mark.parametrize(
    "text", ["c == null", "c != ~", "c in 3", "c == [1]", "user id == 3", "c == 'a", "c in [{a: b}]"]
)
def test_a_condition_that_cannot_be_read_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"is null|needs a list|not with a list|mapping|cannot read"):
        Condition.model_validate(text)


def test_plain_yaml_values_keep_their_text_where_they_are_compared_with_the_log() -> None:
    text = """
    where: [{column: c, op: ==, value: 1.10}, {column: c, op: in, value: [NO, 0x1F, 12:30, "null"]}]
    split: {kind: column, column: p, train: [01, no], test: [2024-01-02]}
    null_id: 007
    flag: NO
    number: 010
    share: 1e-4
    rows: 1_000
    """
    found = parse_yaml(text)
    assert [c["value"] for c in found["where"]] == ["1.10", ["NO", "0x1F", "12:30", "null"]]
    assert (found["split"]["train"], found["split"]["test"]) == (["01", "no"], ["2024-01-02"])
    assert [found[k] for k in ("null_id", "flag", "number", "share", "rows")] == ["007", "NO", 10, 1e-4, 1000]
    assert parse_value("1.10", "data.where.0.value") == "1.10"
    assert parse_value("[no]", "data.split.train") == ["no"]


def test_duplicate_and_odd_yaml_is_refused(tmp_path: Any) -> None:
    for text, message in [
        ("a: 1\na: 2", "'a' is given twice"),
        ("[1, 2]", "must be a mapping"),
        ("a: [", "is not valid YAML"),
        ("a: !!python/object/apply:os.system ['true']", "is not valid YAML"),
    ]:
        with pytest.raises(ConfigError, match=r"config\.yaml") as raised:
            parse_yaml(text, file="config.yaml")
        assert message in str(raised.value)
    (tmp_path / "latin.yaml").write_bytes(b"name: \xff\xfe")
    with pytest.raises(ConfigError, match="not UTF-8"):
        read_yaml(tmp_path / "latin.yaml")
    with pytest.raises(ConfigError, match="No such file"):
        read_yaml(tmp_path / "none.yaml")


def test_json_schema_names_every_key_with_its_kind() -> None:
    exported = json.loads(json_schema(RunConfig))
    assert exported["additionalProperties"] is False
    assert set(exported["properties"]) == set(RunConfig.model_fields)
    assert exported["$defs"]["FixedTable"]["properties"]["optimizer"]["discriminator"]["propertyName"] == "kind"


def test_linear_tables_mirror_the_tables_at_dimension_one() -> None:
    schema = validate(RunConfig, content())
    assert [(t.name, t.dim, t.num_rows) for t in schema.linear_tables() if isinstance(t, FixedTable)] == [
        ("linear.item", 1, 1000),
        ("linear.customer", 1, 500),
    ]
    assert [f.table for f in schema.linear_features()] == ["linear.item", "linear.item", "linear.customer"]


def test_anchors_merge_and_are_overridden() -> None:
    text = "a: &a {x: 1, y: 2}\nb: {<<: *a, y: 3}"
    assert parse_yaml(text)["b"] == {"x": 1, "y": 3}
