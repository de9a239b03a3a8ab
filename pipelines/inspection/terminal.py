"""An inspection for people at a terminal of 80 columns."""

from __future__ import annotations

from rich import box
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table as Shown
from rich.text import Text

from embtables.pipelines.inspection import words
from embtables.pipelines.inspection.report import Inspection
from embtables.pipelines.progress import console
from embtables.state.tools.figures import TableFigures
from embtables.state.tools.histograms import QUANTILES, Distribution

_LEVELS = " ▁▂▃▄▅▆▇█"
_BARS = 16


def show(inspection: Inspection) -> None:
    """Prints it on stderr."""
    out = console()
    step = "" if inspection.step is None else f", step {inspection.step:,}"
    out.print(Text(f"{inspection.version}{step}", style="bold"))
    stands = f" on {inspection.chain[0]}" if inspection.kind == "delta" else ""
    versions = len(inspection.chain)
    of = f"{words.size(inspection.bytes)} in {versions} version{'s' if versions > 1 else ''}"
    out.print(f"{inspection.kind}{stands}, written {inspection.written}, {of}")
    for table in inspection.tables:
        out.print(_shown(table))


def _shown(table: TableFigures) -> RenderableType:
    title = Text.assemble("\n", (table.table, "bold"), f"  {table.rows:,} rows; {words.heading(table)}")
    parts: list[RenderableType] = [title, Padding(_facts(table), (0, 0, 0, 2))]
    if found := words.distributions(table):
        parts.append(Padding(_distributions(found), (1, 0, 0, 2)))
    if table.top:
        parts.append(Padding(_top(table), (1, 0, 0, 2)))
    if words.top_name(table) == "id":
        parts.append(Text(f"  {words.STRING_IDS}", style="dim"))
    return Group(*parts)


def _facts(table: TableFigures) -> Shown:
    shown = Shown(show_header=False, box=None, padding=(0, 2, 0, 0), pad_edge=False)
    for name, value in words.facts(table):
        shown.add_row(name, value)
    return shown


def _distributions(found: list[tuple[str, Distribution]]) -> Shown:
    shown = Shown(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1), pad_edge=False)
    shown.add_column("", no_wrap=True)
    for name in QUANTILES:
        shown.add_column(name, justify="right", no_wrap=True)
    shown.add_column("histogram", no_wrap=True)
    for name, values in found:
        amounts = (words.amount(value, values.unit) for value in values.quantiles.values())
        shown.add_row(name, *amounts, _bars(values))
    return shown


def _bars(values: Distribution) -> str:
    """At most `_BARS` characters, each for the same number of bins; one with any row is never blank."""
    each = -(-len(values.bins) // _BARS)
    rows = [sum(b.rows for b in values.bins[start : start + each]) for start in range(0, len(values.bins), each)]
    return "".join(_LEVELS[-(-8 * count // max(rows))] for count in rows)


def _top(table: TableFigures) -> Shown:
    shown = Shown(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1), pad_edge=False)
    for name in (f"top {words.top_name(table)}s by count", "count", "age", "norm"):
        shown.add_column(name, justify="right", no_wrap=True)
    for row in table.top:
        age = "-" if row.age is None or table.age is None else words.amount(row.age, table.age.unit)
        norm = "-" if row.norm is None else f"{row.norm:.3g}"
        shown.add_row(str(row.key if row.id is None else row.id), f"{row.count:,}", age, norm)
    return shown
