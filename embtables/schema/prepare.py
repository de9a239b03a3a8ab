"""The `prepare` part of the data section: making examples of a purchase-only log."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from embtables.schema.base import Model
from embtables.schema.condition import Condition
from embtables.schema.running import MAX_LAST_N, RunningFeature

SALES_WINDOWS_DAYS = (1, 3, 7, 28)
NEVER_DAYS = 999.0
_OF_ITEM = ("item", "group", "event_time")
_OF_USER = ("user", "group", "event_time")
_OF_BOTH = ("item", "user", "group", "event_time")
# Each with the options that say what its values are made of. Which lines are positives, as any condition, is none.
DERIVED_COLUMNS: Mapping[str, tuple[str, ...]] = {
    "label": (),
    "row_id": (),
    "negative_rate": (*_OF_ITEM, "negatives_per_positive", "pool_days", "popularity_exponent"),
    "history": (*_OF_BOTH, "history_length"),
    **{f"item_sales_{days}d": _OF_ITEM for days in SALES_WINDOWS_DAYS},
    "item_sales": _OF_ITEM,
    "item_age_days": _OF_ITEM,
    "item_idle_days": _OF_ITEM,
    "user_item_count": _OF_BOTH,
    "user_item_idle_days": _OF_BOTH,
    "user_count": _OF_USER,
    "rule_score": _OF_BOTH,
    "last_price": (*_OF_ITEM, "price"),
}


class SampledNegatives(Model):
    """Positives of a log that holds purchases only, each with seeded negatives drawn from the recently sold items.

    Every derived column uses strictly earlier groups (invoices) alone; docs/negatives.md lists them.
    """

    kind: Literal["sampled_negatives"] = Field("sampled_negatives", description="the only kind there is")
    item: str = Field(description="column of the item sold")
    user: str = Field(description="column of who bought it")
    group: str = Field(description="column of the invoice or session: its lines happen at once")
    event_time: str = Field(description="timestamp column")
    price: str | None = Field(None, description="numeric column whose last earlier value becomes last_price")
    context: tuple[str, ...] = Field((), description="columns to copy as they are")
    where: tuple[Condition, ...] = Field((), description="which lines are positives")
    negatives_per_positive: PositiveInt = Field(4, description="negatives drawn for each positive")
    pool_days: PositiveInt = Field(28, description="negatives are items sold in this many days before the positive's")
    popularity_exponent: Annotated[PositiveFloat, Field(le=1.0)] = Field(
        0.75, description="negatives are drawn in proportion to an item's sales, to this power"
    )
    seed: Annotated[int, Field(ge=0, lt=2**63)] = Field(0, description="seed of the drawing")
    history_length: Annotated[PositiveInt, Field(le=MAX_LAST_N)] = Field(
        100, description="the user's last items that are kept, oldest first"
    )

    running: tuple[RunningFeature, ...] = Field(
        (), description="more columns of what happened before, by item, by user or by both"
    )

    def running_features(self) -> tuple[RunningFeature, ...]:
        """The derived columns that are counted from lines; `where` of each begins with the conditions of positives.

        A server that folds the lines, each at the time of its group's first one, has the same.
        """
        item, user, both = {"by": self.item}, {"by": self.user}, {"by": (self.user, self.item)}
        never = {"default": NEVER_DAYS, "at_most": NEVER_DAYS}
        columns: list[dict[str, Any]] = [
            *({"name": f"item_sales_{d}d", "count": "events", "window": f"{d}d", **item} for d in SALES_WINDOWS_DAYS),
            {"name": "item_sales", "count": "events", **item},
            {"name": "item_age_days", "age": "days", **never, **item},
            {"name": "item_idle_days", "idle": "days", **never, **item},
            {"name": "user_item_count", "count": "events", **both},
            {"name": "user_item_idle_days", "idle": "days", **never, **both},
            {"name": "user_count", "count": "events", **user},
            {"name": "history", "last_n": {"column": self.item, "n": self.history_length}, **user},
        ]
        if self.price is not None:
            columns.append({"name": "last_price", "last_value": self.price, **item})
        features = [*(RunningFeature.model_validate(column) for column in columns), *self.running]
        return tuple(f.model_copy(update={"where": (*self.where, *f.where)}) for f in features)

    @model_validator(mode="after")
    def _keys_of_running(self) -> SampledNegatives:
        for feature in self.running:
            other = [column for column in feature.by if column not in (self.item, self.user)]
            if other:
                raise ValueError(
                    f"running feature '{feature.name}' is by '{other[0]}'; here it is by '{self.item}', '{self.user}' "
                    "or both: of a negative nothing else is known"
                )
        return self

    @model_validator(mode="after")
    def _columns_apart(self) -> SampledNegatives:
        # A copied column under a taken name would replace it: `label` would be the log's, and no row a negative.
        taken = dict.fromkeys(DERIVED_COLUMNS, "a derived column")
        roles = {"item": self.item, "user": self.user, "group": self.group, "event_time": self.event_time}
        roles |= {f"context.{place}": name for place, name in enumerate(self.context)}
        roles |= {f"running.{place}.name": feature.name for place, feature in enumerate(self.running)}
        for role, name in roles.items():
            if name in taken:
                raise ValueError(f"'{role}' names the column '{name}', which is already {taken[name]} of the examples")
            taken[name] = f"'{role}'"
        return self
