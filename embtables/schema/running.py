"""Running features: columns of what happened before, counted from events (docs/running.md)."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, NonNegativeInt, PositiveInt, model_validator

from embtables.schema.base import Model, Name
from embtables.schema.condition import Condition
from embtables.schema.features import DenseColumn, Feature

_UNIT_US = {"s": 1_000_000, "m": 60_000_000, "h": 3_600_000_000, "d": 86_400_000_000}
_LONGEST_US = 36_500 * _UNIT_US["d"]
_DURATION = re.compile(r"([0-9]{1,10})([smhd])")
_VALUES = ("count", "age", "idle", "last_value", "last_n")
MAX_LAST_N = 1 << 20

AgeUnit = Literal["seconds", "minutes", "hours", "days"]
AGE_UNIT_US: dict[str, int] = dict(zip(("seconds", "minutes", "hours", "days"), _UNIT_US.values(), strict=True))


def duration_us(text: str) -> int:
    """Microseconds of a duration: `30s`, `15m`, `6h`, `7d`.

    Raises:
        ValueError: it is none, or longer than 36,500 days.
    """
    found = _DURATION.fullmatch(text)
    length = int(found[1]) * _UNIT_US[found[2]] if found else 0
    if not 0 < length <= _LONGEST_US:
        raise ValueError("write a duration as a whole number and its unit: 30s, 15m, 6h, 7d (at most 36500d)")
    return length


def _checked_duration(value: Any) -> Any:
    if isinstance(value, str):
        duration_us(value)
    elif value is not None:
        raise ValueError("write a duration as a whole number and its unit: 30s, 15m, 6h, 7d")
    return value


def _listed(value: Any) -> Any:
    return (value,) if isinstance(value, str) else value


Columns = Annotated[
    tuple[str, ...], Field(min_length=1), BeforeValidator(_listed, json_schema_input_type=str | tuple[str, ...])
]
Duration = Annotated[str, BeforeValidator(_checked_duration, json_schema_input_type=str)]


class LastN(Model):
    """The values of a column in the last events, as ids."""

    column: str = Field(description="column of the events; an event where it is null is passed over")
    n: Annotated[PositiveInt, Field(le=MAX_LAST_N)] = Field(description="how many are remembered")


class RunningFeature(Model):
    """One column of what happened to a key strictly before a time; `by` names the key, one other option what is told.

    Example:
        >>> from embtables.schema import RunningFeature
        >>> RunningFeature(name="item_sales_7d", count="events", by="stock_code", window="7d").by
        ('stock_code',)
        >>> RunningFeature(name="item_sales_7d", count="events", by="stock_code", window="7")
        Traceback (most recent call last):
        embtables.errors.ConfigError: RunningFeature.window: write a duration as a whole number and its unit: 30s, \
15m, 6h, 7d (at most 36500d) (received '7')
    """

    name: Name
    by: Columns = Field(description="the key: a column, or several, whose values together are the key")
    count: Literal["events"] | None = Field(None, description="how many events there were (float32)")
    window: Duration | None = Field(
        None, description="count only the events in this time before the question: 30s, 15m, 6h, 7d; by default all"
    )
    age: AgeUnit | None = Field(None, description="time since the key's first event, in this unit (float32)")
    idle: AgeUnit | None = Field(None, description="time since the key's last event, in this unit (float32)")
    last_value: str | None = Field(
        None, description="a numeric column's value in the key's last event (float32; null if that has none)"
    )
    last_n: LastN | None = Field(
        None, description="ids of a column in the key's last events, oldest first: {column: stock_code, n: 100}"
    )
    default: float | None = Field(None, description="of age and idle: what a key without events has; by default null")
    at_most: float | None = Field(None, description="of age and idle: a longer time becomes this")
    where: tuple[Condition, ...] = Field((), description="which events count")

    @property
    def window_us(self) -> int | None:
        """The window in microseconds."""
        return None if self.window is None else duration_us(self.window)

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns of events that it reads, each once."""
        values = [self.last_value] if self.last_value is not None else []
        listed = [self.last_n.column] if self.last_n is not None else []
        return tuple(dict.fromkeys([*self.by, *values, *listed, *(c.column for c in self.where)]))

    @model_validator(mode="after")
    def _check(self) -> RunningFeature:
        given = [name for name in _VALUES if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"give one of {', '.join(_VALUES)}; received {' and '.join(given) or 'none'}")
        if len(set(self.by)) < len(self.by):
            raise ValueError(f"'by' names a column twice: {', '.join(self.by)}")
        if self.window is not None and self.count is None:
            raise ValueError(f"'window' goes with 'count'; '{given[0]}' looks at all events")
        for option in ("default", "at_most"):
            if getattr(self, option) is not None and self.age is None and self.idle is None:
                raise ValueError(f"'{option}' goes with 'age' and 'idle', not with '{given[0]}'")
        return self


class RunningTimes(Model):
    """How running features keep time, and for how long they remember."""

    lateness_seconds: NonNegativeInt = Field(
        3600, description="a question so long before the clock still has its exact answer", le=_LONGEST_US // 1_000_000
    )
    keep_seconds: Annotated[PositiveInt, Field(le=_LONGEST_US // 1_000_000)] | None = Field(
        None, description="a key without an event for longer is forgotten; by default none is"
    )
    max_clock_step_seconds: PositiveInt = Field(
        86_400, description="the clock moves at most this far with a batch of events", le=_LONGEST_US // 1_000_000
    )


class RunningOptions(RunningTimes):
    """The same, and where the time of events and questions lies."""

    event_time: str = Field("event_time", description="timestamp column of events and of questions")


class Running(RunningTimes):
    """The `running` part of a run: columns of the model that its servers compute from the events of their log."""

    features: tuple[RunningFeature, ...] = Field(
        (), description="columns that the model reads; besides them those of `data.prepare` that it reads"
    )
    kinds: Annotated[tuple[str, ...], Field(min_length=1)] | None = Field(
        None, description="the kinds of events that count, such as [purchase]; by default all but impressions"
    )

    @property
    def options(self) -> RunningOptions:
        """Those of the fold of an event log, whose events have their time in `event_time`."""
        return RunningOptions(**{name: getattr(self, name) for name in RunningTimes.model_fields})

    @property
    def keys(self) -> tuple[str, ...]:
        """The columns that are read as ids, each once: keys, and those whose last values are remembered."""
        listed = [f.last_n.column for f in self.features if f.last_n is not None]
        return tuple(dict.fromkeys([*(name for f in self.features for name in f.by), *listed]))


def check_read(running: Running, features: tuple[Feature, ...], dense: tuple[DenseColumn, ...]) -> None:
    """Looks at what a model makes of running features.

    Raises:
        ValueError: there are none, they do not go together, the model does not read one, or reads lists of ids as
            numbers, or numbers as ids.
    """
    check_running(running.features, running.options)
    numbers = {d.column for d in dense} | {f.column for f in features if f.num_buckets is not None}
    numbers |= {f.weights_column for f in features if f.weights_column is not None}
    ids = {name for f in features if f.num_buckets is None for name in f.columns if name != f.weights_column}
    for feature in running.features:
        name = feature.name
        if name not in ids | numbers:
            raise ValueError(
                f"the model does not read running feature '{name}': no feature or dense column has its name"
            )
        if feature.last_n is not None and name in numbers:
            raise ValueError(f"running feature '{name}' is a list of ids, but the model reads numbers there")
        if feature.last_n is None and name in ids:
            raise ValueError(
                f"running feature '{name}' is a number, but a feature reads ids there: make it a dense column, or give "
                "the feature num_buckets"
            )


def check_running(features: tuple[RunningFeature, ...], options: RunningOptions) -> None:
    """Looks at running features together.

    Raises:
        ValueError: there are none, two have one name, or keys are forgotten before they leave a window.
    """
    if not features:
        raise ValueError("there are no running features")
    names = [feature.name for feature in features]
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise ValueError(f"two running features have the name '{twice[0]}'")
    if options.keep_seconds is None:
        return
    for feature in features:
        needed = (feature.window_us or 0) // 1_000_000 + options.lateness_seconds
        if options.keep_seconds < needed:
            raise ValueError(
                f"keep_seconds is {options.keep_seconds}, but '{feature.name}' needs its events for {needed} seconds "
                "(its window and lateness_seconds)"
            )
