"""Which part of its tables a version holds: everything (`full`), or what a server reads (`weights`).

`weights`: keys, weights and last sights of rows (a row past its ttl must read cold), cold rows, tombstones, clocks. No
optimizer state, no counts of gradients, no waiting keys: a server looks up, and training cannot continue from it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal

import numpy as np

from embtables.rows.content import TableContent

Projection = Literal["full", "weights"]
# Columns of a rows file after those that a row consists of.
SCALARS: dict[Projection, tuple[str, ...]] = {"full": ("seen", "count"), "weights": ("seen",)}


def held_columns(columns: Mapping[str, bool], projection: Projection) -> dict[str, bool]:
    """Those of a row's columns (True: D values per row) that a version of this projection holds."""
    return dict(columns) if projection == "full" else {"weight": columns["weight"]}


def project(content: TableContent, projection: Projection) -> TableContent:
    """The part of a table's content that such a version holds. Copies no rows."""
    if projection == "full":
        return content
    no_words, no_keys = np.empty(0, np.uint32), np.empty(0, np.int64)
    return replace(
        content,
        columns=_weight(content.columns),
        counts=no_words,
        waiting=no_keys,
        waiting_counts=no_words,
        waiting_seen=no_words,
        sketch=np.empty(0, np.uint8),
        cold=_weight(content.cold),
        streamed=_weight(content.streamed),
    )


def _weight(named: Mapping[str, Any]) -> dict[str, Any]:
    return {name: values for name, values in named.items() if name == "weight"}
