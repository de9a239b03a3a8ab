"""The `prepare` part of the data section: making examples of a purchase-only log."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, PositiveFloat, PositiveInt

from embtables.schema.base import Model
from embtables.schema.condition import Condition


class SampledNegatives(Model):
    """Positives of a log that holds purchases only, each with seeded negatives drawn from the recently sold items.

    Every derived column uses strictly earlier groups (invoices) alone; docs/negatives.md lists them.
    """

    kind: Literal["sampled_negatives"] = "sampled_negatives"
    item: str = Field(description="column of the item sold")
    user: str = Field(description="column of who bought it")
    group: str = Field(description="column of the invoice or session: its lines happen at once")
    event_time: str = Field(description="timestamp column")
    price: str | None = Field(None, description="numeric column whose last earlier value becomes last_price")
    context: tuple[str, ...] = Field((), description="columns to copy as they are")
    where: tuple[Condition, ...] = Field((), description="which lines are positives")
    negatives_per_positive: PositiveInt = 4
    pool_days: PositiveInt = Field(28, description="negatives are items sold in this many days before the positive's")
    popularity_exponent: Annotated[PositiveFloat, Field(le=1.0)] = 0.75
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    history_length: PositiveInt = Field(100, description="the user's last items that are kept, oldest first")
