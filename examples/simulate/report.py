"""The report page of `make online`: one HTML file with what was seen over time, no scripts, nothing fetched."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

WIDTH, HEIGHT, LEFT, BOTTOM = 720, 200, 50, 24
COLORS = ("#1f6feb", "#8b949e")
STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;max-width:760px;margin:2em auto;padding:0 1em;color:#1f2328}"
    "table{border-collapse:collapse}td{padding:.2em 1.2em .2em 0;border-bottom:1px solid #d1d9e0}"
    "svg{width:100%;height:auto}text{font:12px system-ui,sans-serif;fill:#59636e}h2{font-size:17px;margin:1.6em 0 .2em}"
)


@dataclass
class Line:
    """What one line of a chart shows: values at seconds since the beginning."""

    name: str
    points: list[tuple[float, float]] = field(default_factory=list)


@dataclass
class Seen:
    """What was seen while the world lived."""

    live: Line = field(default_factory=lambda: Line("live server"))
    frozen: Line = field(default_factory=lambda: Line("frozen server"))
    age: Line = field(default_factory=lambda: Line("served version"))
    auc: Line = field(default_factory=lambda: Line("trainer"))


def chart(title: str, lines: Sequence[Line], unit: str) -> str:
    """A line chart; nothing where nothing was seen."""
    points = [point for line in lines for point in line.points]
    if not points:
        return ""
    last = max(x for x, _ in points) or 1.0
    low, high = min(y for _, y in points), max(y for _, y in points)
    low, high = (low, high) if high > low else (low - 0.5, high + 0.5)

    def place(x: float, y: float) -> str:
        across = LEFT + x / last * (WIDTH - LEFT - 10)
        return f"{across:.1f},{10 + (high - y) / (high - low) * (HEIGHT - BOTTOM - 20):.1f}"

    drawn = [
        f'<text x="0" y="14">{high:.3g}</text><text x="0" y="{HEIGHT - BOTTOM - 6}">{low:.3g}</text>',
        f'<text x="{LEFT}" y="{HEIGHT - 6}">0 s</text>',
        f'<text x="{WIDTH - 10}" y="{HEIGHT - 6}" text-anchor="end">{last:.0f} s</text>',
    ]
    for number, line in enumerate(lines):
        path = " ".join(place(x, y) for x, y in line.points)
        drawn.append(f'<polyline points="{path}" fill="none" stroke="{COLORS[number]}" stroke-width="2"/>')
        drawn.append(
            f'<text x="{LEFT + 70 + 150 * number}" y="{HEIGHT - 6}" style="fill:{COLORS[number]}">{line.name}</text>'
        )
    return f'<h2>{title} ({unit})</h2><svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img">{"".join(drawn)}</svg>'


def write(path: Path, seen: Seen, figures: Sequence[tuple[str, str]], seconds: float) -> None:
    """Writes the page.

    Args:
        figures: of the end, with their names.
    """
    rows = "".join(f"<tr><td>{html.escape(name)}</td><td>{html.escape(value)}</td></tr>" for name, value in figures)
    charts = (
        chart("How often users click", [seen.live, seen.frozen], "clicks per visit, of the newest visits"),
        chart("How old the served version is", [seen.age], "seconds"),
        chart("How well rows were scored before they were trained on", [seen.auc], "AUC of 10 s"),
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>make online</title><style>{STYLE}</style>'
        f"<h1>The online loop, {seconds:.0f} seconds</h1><p>A synthetic world whose tastes drift. Half of its visits "
        "were ranked by a server that followed the trainer, half by one that was frozen before.</p>"
        f"<table>{rows}</table>{''.join(charts)}</html>\n"
    )
