"""Definitions of running features: how they are written, and what is said of those that mean nothing."""

from __future__ import annotations

from typing import Any

import pytest

from embtables.errors import ConfigError
from embtables.schema import RunningFeature, SampledNegatives, parse_yaml, validate
from embtables.schema.prepare import DERIVED_COLUMNS
from embtables.schema.running import duration_us

COUNT = {"name": "n", "count": "events", "by": "item"}


def test_definitions_as_they_are_written() -> None:
    text = """running:
    - {name: item_sales_7d, count: events, by: stock_code, window: 7d}
    - {name: history, last_n: {column: stock_code, n: 100}, by: customer_id}
    - {name: item_age_days, age: days, by: stock_code, default: 999, at_most: 999}
    - {name: bought_idle_hours, idle: hours, by: [customer_id, stock_code], where: ["quantity > 0"]}
    - {name: last_price, last_value: unit_price, by: stock_code}
    """
    sales, history, age, idle, price = (validate(RunningFeature, of) for of in parse_yaml(text)["running"])
    assert (sales.by, sales.window_us) == (("stock_code",), 7 * 86_400_000_000)
    assert history.last_n is not None
    assert history.columns == ("customer_id", "stock_code")
    assert (age.default, age.at_most, age.window_us) == (999, 999, None)
    assert idle.columns == ("customer_id", "stock_code", "quantity")
    assert price.columns == ("stock_code", "unit_price")


@pytest.mark.parametrize(("text", "seconds"), [("1s", 1), ("15m", 900), ("6h", 21_600), ("36500d", 36_500 * 86_400)])
def test_durations(text: str, seconds: int) -> None:
    assert duration_us(text) == seconds * 1_000_000


@pytest.mark.parametrize("text", ["0d", "7", "d", "1.5h", "-1d", "1w", "36501d", "7 d", "99999999999d", ""])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="write a duration as a whole number and its unit: 30s, 15m, 6h, 7d"):
        validate(RunningFeature, {**COUNT, "window": text})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "n", "by": "item"}, "give one of count, age, idle, last_value, last_n; received none"),
        ({**COUNT, "idle": "days"}, "give one of count, age, idle, last_value, last_n; received count and idle"),
        ({"name": "n", "count": "events"}, "by: Field required"),
        ({**COUNT, "by": []}, "by: .*at least 1 item"),
        ({**COUNT, "by": ["a", "a"]}, "'by' names a column twice: a, a"),
        ({**COUNT, "window": 7}, "write a duration as a whole number and its unit"),
        ({**COUNT, "default": 1}, "'default' goes with 'age' and 'idle', not with 'count'"),
        ({"name": "n", "age": "days", "by": "item", "window": "1d"}, "'window' goes with 'count'; 'age' looks at all"),
        ({"name": "n", "age": "weeks", "by": "item"}, "'seconds', 'minutes', 'hours' or 'days'"),
        ({"name": "n", "last_n": {"column": "c", "n": 0}, "by": "item"}, r"last_n\.n: .*greater than 0"),
        ({**COUNT, "windw": "7d"}, "unknown key 'windw'; did you mean 'window'"),
        ({**COUNT, "name": "../n"}, "name: "),
    ],
)
def test_definitions_that_mean_nothing(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        validate(RunningFeature, options)


def test_prepared_columns_are_running_features() -> None:
    columns = {"item": "code", "user": "who", "group": "invoice", "event_time": "at", "price": "price"}
    prepare = validate(SampledNegatives, {**columns, "where": ["quantity > 0"]})
    made = {feature.name: feature for feature in prepare.running_features()}
    rest = {"label", "row_id", "negative_rate", "rule_score"}
    assert set(made) == set(DERIVED_COLUMNS) - rest
    assert all(feature.where == prepare.where for feature in made.values())
    for name, feature in made.items():
        options = {getattr(prepare, option) for option in DERIVED_COLUMNS[name] if option in columns}
        assert set(feature.by) <= options, name  # what a version says its values depend on
