"""docs/online-auc.svg: what a shorter time between versions gains, by log."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks import _harness

PICTURE = _harness.ROOT / "docs" / "online-auc.svg"
COLOURS = ("#4477aa", "#ee6677", "#228833")
LEFT, RIGHT, TOP, BOTTOM = 70, 610, 40, 250
LEAST_GAIN = 0.001  # of the axis, so that no difference at all is no picture of noise

Runs = Mapping[str, Sequence[dict[str, Any]]]
"""By contender its reports, one for each seed; `frozen` among them."""


def picture(logs: Mapping[str, Runs], intervals: Sequence[str]) -> str:
    """AUC above that of the frozen model, against the time between versions, as SVG; bars reach over all seeds."""
    gains = {name: _gains(runs, intervals) for name, runs in logs.items()}
    bounds = [bound for of in gains.values() for spread in of.values() for bound in (spread.low, spread.high)]
    top, least = max([LEAST_GAIN, *bounds]), min([0.0, *bounds])
    places = {title: LEFT + (RIGHT - LEFT) * (n + 0.5) / len(intervals) for n, title in enumerate(intervals)}

    def height(gain: float) -> float:
        return BOTTOM - (BOTTOM - TOP) * (gain - least) / (top - least)

    parts = [
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 640 320" font-family="sans-serif" font-size="12">',
        '<rect width="640" height="320" fill="white"/>',
        f'<text x="{LEFT}" y="24">AUC above that of the frozen model</text>',
    ]
    for step in range(5):
        gain = least + (top - least) * step / 4
        parts.append(f'<line x1="{LEFT}" x2="{RIGHT}" y1="{height(gain):.1f}" y2="{height(gain):.1f}" stroke="#ddd"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{height(gain) + 4:.1f}" text-anchor="end">{gain:+.4f}</text>')
    for title, x in places.items():
        parts.append(f'<text x="{x:.1f}" y="{BOTTOM + 18}" text-anchor="middle">{title}</text>')
    for number, (name, of) in enumerate(gains.items()):
        colour, shift = COLOURS[number % len(COLOURS)], 4 * (number - (len(gains) - 1) / 2)
        line = " ".join(f"{places[title] + shift:.1f},{height(spread.median):.1f}" for title, spread in of.items())
        parts.append(f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="2"/>')
        for title, spread in of.items():
            x = places[title] + shift
            ends = f'y1="{height(spread.low):.1f}" y2="{height(spread.high):.1f}"'
            parts.append(f'<line x1="{x:.1f}" x2="{x:.1f}" {ends} stroke="{colour}" stroke-width="1.5"/>')
            parts.append(f'<circle cx="{x:.1f}" cy="{height(spread.median):.1f}" r="3" fill="{colour}"/>')
        parts.append(f'<text x="{LEFT + 180 * number}" y="306" fill="{colour}">{name}</text>')
    parts.append(f'<text x="{RIGHT}" y="{BOTTOM + 36}" text-anchor="end">time between versions</text>')
    return "\n".join([*parts, "</svg>"]) + "\n"


def _gains(runs: Runs, intervals: Sequence[str]) -> dict[str, _harness.Spread]:
    base = [report["auc"] for report in runs["frozen"]]
    return {
        title: _harness.Spread.of([report["auc"] - auc for report, auc in zip(runs[title], base, strict=True)])
        for title in intervals
        if title in runs
    }
