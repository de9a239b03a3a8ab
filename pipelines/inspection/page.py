"""An inspection as one self-contained HTML page: it loads nothing from anywhere, and may not."""

from __future__ import annotations

import json
import os
from html import escape
from pathlib import Path

import vl_convert

from embtables.errors import StateError
from embtables.pipelines.inspection import words
from embtables.pipelines.inspection.charts import COLOURS, histogram
from embtables.pipelines.inspection.report import Inspection
from embtables.pipelines.run_dir import write_atomically
from embtables.state.tools.figures import TableFigures
from embtables.state.tools.histograms import QUANTILES

# The browser itself keeps the page from loading anything; Vega interprets its expressions where `eval` is forbidden.
_POLICY = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data:"
_STYLE = """
:root { color-scheme: light; --ink: #1f2933; --soft: #52606d; --line: #d9dfe5; --accent: #0b5c8f; }
* { box-sizing: border-box; }
body { margin: 0; background: #f5f7f9; color: var(--ink); font: 15px/1.45 system-ui, sans-serif; }
main, header { max-width: 1152px; margin: 0 auto; padding: 0 24px; }
header { padding-top: 28px; padding-bottom: 16px; }
h1 { margin: 0; font-size: 28px; letter-spacing: -0.01em; }
h1 span { color: var(--soft); font-weight: 400; }
header p, h2 + p { margin: 4px 0 0; color: var(--soft); overflow-wrap: anywhere; }
section { background: #fff; border: 1px solid var(--line); border-radius: 8px; padding: 18px 22px; }
section { margin-bottom: 18px; }
h2 { margin: 0; font-size: 20px; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; font-size: 14px; }
th, td { padding: 4px 14px 4px 0; text-align: right; border-bottom: 1px solid var(--line); white-space: nowrap; }
th { color: var(--soft); font-weight: 500; }
th:first-child, td.name { text-align: left; }
th:last-child, td:last-child { padding-right: 0; }
tr:last-child td { border-bottom: 0; }
a { color: var(--accent); text-decoration: none; }
a:hover, a:focus { text-decoration: underline; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 3px 16px; margin: 0; font-size: 14px; }
dt { color: var(--soft); }
dd { margin: 0; }
.charts { display: flex; flex-wrap: wrap; gap: 12px 16px; margin: 16px 0 12px; }
.beside { display: grid; grid-template-columns: minmax(0, 5fr) minmax(0, 4fr); gap: 16px 40px; align-items: start; }
.wide { overflow-x: auto; }
.note { margin: 6px 0 0; color: var(--soft); font-size: 13px; }
@media (max-width: 900px) { .beside { grid-template-columns: minmax(0, 1fr); } }
"""


def write_page(output: Path, inspection: Inspection) -> None:
    """Writes the page completely or not at all. Raises StateError if it cannot be written."""
    try:
        write_atomically(output, page(inspection).encode())
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise StateError(f"cannot be written: {reason}", file=output) from error


def page(inspection: Inspection) -> str:
    """The page's text."""
    specs: dict[str, object] = {}
    sections = [_section(number, table, specs) for number, table in enumerate(inspection.tables)]
    step = "" if inspection.step is None else f" <span>step {inspection.step:,}</span>"
    title = escape(f"{inspection.version} of {Path(inspection.folder).name}")
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{_POLICY}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>{_STYLE}</style>
</head>
<body>
<header>
<h1>{escape(inspection.version)}{step}</h1>
<p>{escape(Path(inspection.folder).name)}: {escape(_about(inspection))}</p>
</header>
<main>
{_overview(inspection)}
{"".join(sections)}
</main>
<script>{_bundle()}</script>
<script>
const specs = {_in_script(specs)};
for (const [place, spec] of Object.entries(specs)) {{
  vegaEmbed("#" + place, spec, {{mode: "vega-lite", renderer: "svg", actions: false, ast: true}});
}}
</script>
</body>
</html>
"""


def _bundle() -> str:
    """Vega, Vega-Lite and what embeds them, as text that cannot end its script element."""
    script = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;")
    return script.replace("</script", "<\\/script")


def _in_script(value: object) -> str:
    """JSON that cannot end its script element."""
    return json.dumps(value, allow_nan=False).replace("<", "\\u003c")


def _about(inspection: Inspection) -> str:
    versions = len(inspection.chain)
    stands = f"delta on {inspection.chain[0]}" if inspection.kind == "delta" else "snapshot"
    files = f"{words.size(inspection.bytes)} in {versions} version{'s' if versions > 1 else ''}"
    return f"{stands}, written {inspection.written.replace('T', ' ').replace('Z', ' UTC')}, {files}"


def _overview(inspection: Inspection) -> str:
    head = (
        "table",
        "kind",
        "dim",
        "rows",
        "bytes",
        "never updated",
        "median age",
        "median gradients",
        "median L2 norm",
    )
    rows = []
    for number, table in enumerate(inspection.tables):
        halves = [
            words.amount(values.quantiles["p50"], values.unit) if values is not None and values.quantiles else "-"
            for values in (table.age, table.count, table.norm)
        ]
        unit = "" if table.age is None or table.age.unit == "seconds" else f" {table.age.unit}"
        age = halves[0] + (unit.removesuffix("s") if halves[0] == "1" else unit)
        shown = [f'<td class="name"><a href="#table{number}">{escape(table.table)}</a></td>']
        shown += [
            f"<td>{escape(text)}</td>"
            for text in (
                table.kind,
                str(table.dim),
                f"{table.rows:,}",
                words.size(sum(table.bytes_by_part.values())),
                words.share(table.never_updated),
                age,
                *halves[1:],
            )
        ]
        rows.append(f"<tr>{''.join(shown)}</tr>")
    return f'<section class="wide"><table>{_head(head)}{"".join(rows)}</table></section>'


def _section(number: int, table: TableFigures, specs: dict[str, object]) -> str:
    places: list[str] = []
    for (name, values), colour in zip(words.distributions(table), COLOURS, strict=False):
        place = f"chart{number}-{len(places)}"
        specs[place] = histogram(name, values, colour)
        places.append(f'<div id="{place}"></div>')
    listed = "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in words.facts(table))
    return f"""<section id="table{number}">
<h2>{escape(table.table)}</h2>
<p>{table.rows:,} rows; {escape(words.heading(table))}</p>
<div class="charts">{"".join(places)}</div>
<div class="beside">
<div><div class="wide">{_quantiles(table)}</div><br><dl>{listed}</dl></div>
<div class="wide">{_top(table)}</div>
</div>
</section>
"""


def _quantiles(table: TableFigures) -> str:
    rows = []
    for name, values in words.distributions(table):
        amounts = "".join(f"<td>{words.amount(value, values.unit)}</td>" for value in values.quantiles.values())
        rows.append(f'<tr><td class="name">{escape(name)}</td>{amounts}</tr>')
    return f"<table>{_head(('', *QUANTILES))}{''.join(rows)}</table>" if rows else ""


def _top(table: TableFigures) -> str:
    if not table.top:
        return ""
    name, rows = words.top_name(table), []
    for row in table.top:
        age = "-" if row.age is None or table.age is None else words.amount(row.age, table.age.unit)
        norm = "-" if row.norm is None else f"{row.norm:.3g}"
        shown = (str(row.key if row.id is None else row.id), f"{row.count:,}", age, norm)
        rows.append(f"<tr>{''.join(f'<td>{text}</td>' for text in shown)}</tr>")
    note = f'<p class="note">{words.STRING_IDS}</p>' if name == "id" else ""
    head = (f"top {name}s by gradients", "gradients", "age", "L2 norm")
    return f"<table>{_head(head)}{''.join(rows)}</table>{note}"


def _head(names: tuple[str, ...]) -> str:
    return f"<tr>{''.join(f'<th>{escape(name)}</th>' for name in names)}</tr>"
