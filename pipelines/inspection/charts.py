"""Histograms as Vega-Lite specifications, made with altair."""

from __future__ import annotations

from typing import Any

import altair as alt

from embtables.pipelines.inspection import words
from embtables.state.tools.histograms import Distribution

WIDTH, HEIGHT = 280, 150
# Dark enough for 3:1 against the page, apart from each other for the colour-blind (Wong 2011, Nature Methods 8:441).
COLOURS = ("#0072b2", "#00805f", "#b8530a", "#8a4f7d")
_INK, _SOFT, _GRID = "#3d4852", "#52606d", "#e4e8ec"
_CONFIG = {
    "font": "system-ui, sans-serif",
    "background": "transparent",
    "view": {"stroke": None},
    "title": {"anchor": "start", "fontSize": 14, "color": _INK, "subtitleColor": _SOFT, "subtitleFontSize": 12},
    "axis": {
        "labelColor": _INK,
        "titleColor": _INK,
        "labelFontSize": 11,
        "titleFontSize": 12,
        "gridColor": _GRID,
        "titleFontWeight": "normal",
    },
    "axisX": {"grid": False, "tickColor": "#9aa5b1", "domainColor": "#9aa5b1"},
    "axisY": {"domain": False, "ticks": False},
}


# Of bins that double: from 1,000 on two digits, `4.1k`; the tooltip has them all.
_BIN_LABEL = "datum.value < 1000 ? datum.value : format(datum.value, '.2~s')"

_ROWS_LABEL = "datum.value < 10000 ? format(datum.value, ',') : format(datum.value, '~s')"


def histogram(name: str, values: Distribution, colour: str) -> dict[str, Any]:
    """One histogram: bars over the range of values, rows upwards, exact figures in a tooltip."""
    divisor, unit = _scale(values)
    rows = sum(bin_.rows for bin_ in values.bins)
    data = [
        {
            "start": bin_.start / divisor,
            "end": bin_.end / divisor,
            "range": words.bin_range(bin_, values.unit),
            "rows": bin_.rows,
            "share": bin_.rows / rows,
        }
        for bin_ in values.bins
    ]
    doubling = values.unit in ("gradients", "occurrences")
    bars = alt.Chart(alt.InlineData(values=data), width=WIDTH, height=HEIGHT)
    bars = bars.mark_bar(color=colour).encode(
        y=alt.Y("rows:Q", title="rows", axis=alt.Axis(tickCount=4, labelExpr=_ROWS_LABEL, minExtent=34)),
        tooltip=[
            alt.Tooltip("range:N", title=name),
            alt.Tooltip("rows:Q", title="rows", format=","),
            alt.Tooltip("share:Q", title="share of rows", format=".2%"),
        ],
    )
    if doubling:
        axis = alt.Axis(title=f"{unit} (bins double)", labelExpr=_BIN_LABEL, labelAngle=0, labelOverlap="parity")
        bars = bars.encode(x=alt.X("start:O", axis=axis, scale=alt.Scale(paddingInner=0.08)))
    else:
        axis = alt.Axis(title=unit, tickCount=5, format="~s" if values.unit != "L2 norm" else "~g")
        bars = bars.encode(x=alt.X("start:Q", bin="binned", axis=axis), x2="end:Q")
    title = alt.TitleParams(f"Rows by {name}", subtitle=_medians(values), offset=10)
    spec: dict[str, Any] = bars.properties(title=title).to_dict()
    spec["config"] = _CONFIG
    # The page brings the code that draws it: nothing is to be looked up by this address.
    del spec["$schema"]
    return spec


def _scale(values: Distribution) -> tuple[float, str]:
    """What seconds are divided by to be read, and the name of the axis."""
    if values.unit != "seconds":
        return 1.0, values.unit
    for seconds, name in ((86_400, "days"), (3_600, "hours"), (60, "minutes")):
        if values.quantiles["greatest"] >= 2 * seconds:
            return float(seconds), name
    return 1.0, "seconds"


def _medians(values: Distribution) -> str:
    """The quantiles that a histogram does not show."""
    shown = {name: words.amount(values.quantiles[name], values.unit) for name in ("p50", "p99")}
    return f"half of them at most {shown['p50']}, 99 % at most {shown['p99']}"
