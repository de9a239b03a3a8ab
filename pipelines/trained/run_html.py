"""A run as HTML for notebooks: its figures, its tables, and its curves as inline SVG. It needs no network or script."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

WIDTH, HEIGHT, MARGIN = 320, 150, 34
_COLOURS = {"train": "#4c78a8", "validation": "#f58518"}
Line = list[tuple[float, float]]


def run_html(title: str, metrics: dict[str, Any], report: dict[str, Any], history: Sequence[dict[str, Any]]) -> str:
    """Everything as one block.

    Args:
        history: lines of metrics.jsonl; those without a `part` have no figures.
    """
    counts = {name: f"{table['rows']:,} rows" for name, table in report.get("tables", {}).items()}
    part = report.get("part")
    figures = {name: _figure(value) for name, value in metrics.items() if not isinstance(value, dict)}
    blocks = [
        f"<p><b>{escape(title)}</b></p>",
        '<div style="display:flex;flex-wrap:wrap;gap:2em;align-items:flex-start">',
        _rows(f"{part} part" if part else "not evaluated", figures),
        _rows("tables", counts),
        _chart("log loss", {"train": _line(history, "train", "loss"), **_of(history, "log_loss")}),
        _chart("AUC", _of(history, "auc")),
        "</div>",
    ]
    return "".join(blocks)


def _of(history: Sequence[dict[str, Any]], figure: str) -> dict[str, Line]:
    return {"validation": _line(history, "validation", figure)}


def _line(history: Sequence[dict[str, Any]], part: str, figure: str) -> Line:
    of_part = (line for line in history if line.get("part") == part)
    return [(line["step"], float(line[figure])) for line in of_part if isinstance(line.get(figure), int | float)]


def _figure(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4f}" if abs(value) < 1000 else f"{value:,.0f}"
    return "-" if value is None else f"{value:,}" if isinstance(value, int) else str(value)


def _rows(heading: str, values: dict[str, str]) -> str:
    cells = (
        f"<tr><td>{escape(name.replace('_', ' '))}</td><td style='text-align:right'>{escape(value)}</td></tr>"
        for name, value in values.items()
    )
    head = f"<thead><tr><th colspan='2'>{escape(heading)}</th></tr></thead>"
    return f"<table>{head}<tbody>{''.join(cells)}</tbody></table>"


def _chart(title: str, lines: dict[str, Line]) -> str:
    """Curves over steps with the ends of both axes; nothing if no line has two points."""
    lines = {name: line for name, line in lines.items() if line}
    if not any(len(line) > 1 for line in lines.values()):
        return ""
    steps = [x for line in lines.values() for x, _ in line]
    values = [y for line in lines.values() for _, y in line]
    left, right, low, high = min(steps), max(steps), min(values), max(values)

    def place(x: float, y: float) -> str:
        across = MARGIN + (WIDTH - 2 * MARGIN) * (x - left) / max(right - left, 1e-12)
        down = HEIGHT - MARGIN + (2 * MARGIN - HEIGHT) * (y - low) / max(high - low, 1e-12)
        return f"{across:.1f},{down:.1f}"

    drawn = []
    for number, (name, line) in enumerate(lines.items()):
        points = " ".join(place(x, y) for x, y in line)
        drawn.append(f'<polyline points="{points}" fill="none" stroke="{_COLOURS[name]}" stroke-width="1.5"/>')
        drawn.append(_label(MARGIN + 70 * number, HEIGHT - 4, name, _COLOURS[name]))
    bottom, top = HEIGHT - MARGIN, MARGIN
    axes = f'<path d="M{MARGIN},{top}V{bottom}H{WIDTH - MARGIN}" fill="none" stroke="currentColor" opacity="0.4"/>'
    ends = [
        _label(2, top + 4, f"{high:.3g}"),
        _label(2, bottom, f"{low:.3g}"),
        _label(MARGIN, bottom + 14, f"step {left:,}"),
        _label(WIDTH - MARGIN - 40, bottom + 14, f"{right:,}"),
        _label(MARGIN, 14, title),
    ]
    size = f'width="{WIDTH}" height="{HEIGHT}" viewBox="0 0 {WIDTH} {HEIGHT}"'
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size}>{axes}{"".join(drawn)}{"".join(ends)}</svg>'


def _label(x: float, y: float, text: str, colour: str = "currentColor") -> str:
    return f'<text x="{x}" y="{y}" font-size="10" font-family="sans-serif" fill="{colour}">{escape(text)}</text>'
