"""The online section: where events come from, and how impressions and actions become samples (docs/online.md)."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal
from urllib.parse import parse_qs, urlsplit

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from embtables.schema.base import Model

# Beyond a thousand years of microseconds nothing is gained, and sums of them stay far from the end of int64.
_Seconds = Annotated[PositiveInt, Field(le=31_536_000_000)]
_SecondsOrNone = Annotated[NonNegativeInt, Field(le=31_536_000_000)]


class LateActions(Model):
    """How the loss makes up for positives that come after their negatives (docs/online.md, "Late positives").

    `weighting` weights the loss of every sample, `calibration` corrects scores. Both need the share of the positives
    that come late: the joiner counts `late_positives` and `positives`.
    """

    correction: Literal["none", "weighting", "calibration"] = Field(
        "none", description="what makes up for negatives that a late action made positives"
    )
    share: Annotated[float, Field(gt=0.0, le=1.0)] | None = Field(
        None, description="positives that come after the window, as a share of all; needed by a correction"
    )

    @model_validator(mode="after")
    def _check(self) -> LateActions:
        if (self.correction == "none") != (self.share is None):
            raise ValueError(
                "'share', the share of positives that come late, goes with correction weighting or calibration"
            )
        return self


class EventSamples(Model):
    """Impressions and actions of an event log, joined by request and item."""

    log: str = Field(description="URI of the event log: folder:///path, redis://host/..., kafka://host/...")
    item: str = Field(
        description="events' column of the item: strings or integers, the same in impressions and actions"
    )
    actions: Annotated[tuple[str, ...], Field(min_length=1)] = Field(
        ("click",), description="kinds of events that make an impression a positive; other kinds are ignored"
    )
    begin_after: datetime | None = Field(
        None,
        description="impressions up to this event time give no samples: another run was trained on them; by default, "
        "with --from, the newest event time that the former run was trained on",
    )
    window_seconds: _Seconds = Field(description="an action that is no later makes its impression a positive")
    late_window_seconds: _SecondsOrNone = Field(
        0, description="an action that comes up to this much later than the window corrects the negative"
    )
    late: LateActions = LateActions()
    negative_rate: Annotated[float, Field(gt=0.0, le=1.0)] | None = Field(
        None, description="share of negatives that are kept; evaluate.negative_sampling_rate must be the same"
    )
    negative_seed: Annotated[int, Field(ge=0, lt=2**63)] = Field(0, description="seed of which negatives are kept")
    max_skew_seconds: _SecondsOrNone = Field(
        60, description="an action this much earlier than its impression still joins: clocks differ"
    )
    max_clock_step_seconds: _Seconds = Field(
        3600, description="one entry moves the clock of its partition at most this far"
    )
    max_ahead_seconds: _Seconds = Field(
        2_592_000, description="an event that is further ahead of its partition's clock is set aside"
    )
    batch_seconds: PositiveFloat = Field(
        1.0,
        description="a batch that is not full is trained on after this long; clicks come alone and negatives together, "
        "so that smaller batches would weigh clicks too much",
    )
    idle_seconds: PositiveFloat = Field(
        30.0, description="a partition without entries for this long does not hold the watermark; not in a replay"
    )

    @model_validator(mode="after")
    def _check(self) -> EventSamples:
        if len(set(self.actions)) < len(self.actions):
            raise ValueError("'actions' names a kind twice")
        if "impression" in self.actions:
            raise ValueError("'actions' names 'impression', which is what they belong to")
        if self.late.correction != "none" and not self.late_window_seconds:
            raise ValueError("late.correction needs late_window_seconds: without it no positive is late")
        kept, needed = _kept_seconds(self.log), self.window_seconds + self.late_window_seconds
        if kept is not None and kept <= needed:
            raise ValueError(
                f"the log keeps events for {kept:g} s, but impressions are read again after window_seconds and "
                f"late_window_seconds, {needed:,} s: let it keep them longer"
            )
        return self


def _kept_seconds(uri: str) -> float | None:
    """How long the log keeps events, where its URI says so; what is wrong with it is said where it is opened."""
    try:
        return float(parse_qs(urlsplit(uri).query)["keep_seconds"][0])
    except (KeyError, ValueError):
        return None
