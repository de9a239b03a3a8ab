"""The `prepare` part of the data section: making examples of a purchase-only log."""

from __future__ import annotations

from typing import Literal

from embtables.schema.base import Model


class SampledNegatives(Model):
    """Positives of a purchase log with seeded negatives drawn from the recently sold items."""

    kind: Literal["sampled_negatives"] = "sampled_negatives"
