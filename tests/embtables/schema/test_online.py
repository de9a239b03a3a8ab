"""The online section: what does not go together is refused with its place."""

from __future__ import annotations

from typing import Any

import pytest

from embtables.errors import ConfigError
from embtables.schema import EventSamples, LateActions, validate

GIVEN: dict[str, Any] = {"log": "folder:///events", "item": "item_id", "window_seconds": 600}


def test_what_is_not_given_has_the_documented_defaults() -> None:
    online = validate(EventSamples, GIVEN)
    assert online.actions == ("click",)
    assert (online.late_window_seconds, online.late, online.negative_rate) == (0, LateActions(), None)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"window_seconds": 0}, "window_seconds"),
        ({"window_seconds": 10**12}, "window_seconds"),
        ({"actions": []}, "actions"),
        ({"actions": ["click", "click"]}, "names a kind twice"),
        ({"actions": ["impression"]}, "what they belong to"),
        ({"late": {"correction": "weighting"}, "late_window_seconds": 60}, "late.*share"),
        ({"late": {"share": 0.5}}, "late.*share"),
        ({"late": {"correction": "weighting", "share": 0.0}, "late_window_seconds": 60}, "share"),
        ({"late": {"correction": "calibration", "share": 0.5}}, "needs late_window_seconds"),
        ({"late": {"correction": "magic"}}, "correction"),
        ({"negative_rate": 0.0}, "negative_rate"),
        ({"negative_rates": 0.5}, "did you mean 'negative_rate'"),
        ({"idle_seconds": 0}, "idle_seconds"),
    ],
)
def test_what_is_wrong_is_refused_with_its_place(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        validate(EventSamples, GIVEN | changes)
