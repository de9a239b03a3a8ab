"""Figures that a user should not take as they are: an AUC of 1 or one half, a log loss above that of the mean label."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# An AUC this close to 1 or to one half is as good as equal to it.
_AS_GOOD_AS = 0.0005
_WRONG_WAY = 0.05
# A net that predicts the mean label alone has a normalised entropy of 1, but for what its training left.
_BASE = 1.001


def odd_figures(figures: Mapping[str, Any], part: str | None) -> list[str]:
    """Warnings of an evaluation's figures; one that is undefined says nothing.

    Args:
        part: of the log; None: all of it.
    """
    where = f"of the {part} part" if part is not None else "of the log"
    auc, entropy, log_loss = (figures.get(name) for name in ("auc", "normalised_entropy", "log_loss"))
    found = []
    if auc is not None and auc >= 1.0 - _AS_GOOD_AS:
        found.append(
            f"the AUC {where} is {auc:.4f}: a column may tell the label; look for one that is known only after it"
        )
    elif auc is not None and auc < 0.5 - _WRONG_WAY:
        found.append(
            f"the AUC {where} is {auc:.4f}, far below one half: scores order these rows the wrong way round; the model "
            "has learned too little, or these rows differ from those it was trained on"
        )
    elif auc is not None and auc <= 0.5 + _AS_GOOD_AS:
        found.append(
            f"the AUC {where} is {auc:.4f}, no better than scores drawn by lot: the model has learned too little, or "
            "nothing that holds for these rows; look at learning rates, epochs and data.split"
        )
    if entropy is not None and entropy > _BASE:
        found.append(
            f"the log loss {where} is {log_loss:.4f}, above {log_loss / entropy:.4f}, which the mean label alone "
            "reaches: scores are too sure or off; look at learning rates and at dense columns without transforms"
        )
    if nulls := figures.get("null_group_rows"):
        found.append(
            f"{nulls:,} of {figures['rows']:,} rows {where} have no group, because evaluate.group_column is null "
            "there: gauc leaves them out"
        )
    return found
