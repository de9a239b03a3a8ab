"""`embtables data describe` and `embtables init`: from a log to a first configuration."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from embtables.pipelines.cli.options import Json
from embtables.pipelines.json_text import json_text

if TYPE_CHECKING:
    from embtables.frames.suggest import Wishes

app = typer.Typer(help="Look at a log before training.", no_args_is_help=True)

LogPath = Annotated[str, typer.Argument(metavar="LOG", help="Parquet file, folder, glob or URI.", show_default=False)]
LabelColumns = Annotated[list[str] | None, typer.Option("--label", metavar="COLUMN", help="What to predict.")]
PositiveAbove = Annotated[float | None, typer.Option(help="A label above it is a positive; for ratings and amounts.")]
Dim = Annotated[int, typer.Option(min=1, max=4096, help="Values per row of every table.")]
Ids = Annotated[list[str] | None, typer.Option("--ids", metavar="COLUMN", help="This column is a feature.")]
Numbers = Annotated[list[str] | None, typer.Option("--numbers", metavar="COLUMN", help="This column is a number.")]
Ignore = Annotated[list[str] | None, typer.Option("--ignore", metavar="COLUMN", help="Leave this column out.")]


@app.command()
def describe(
    log: LogPath,
    label: LabelColumns = None,
    positive_above: PositiveAbove = None,
    dim: Dim = 16,
    ids: Ids = None,
    numbers: Numbers = None,
    ignore: Ignore = None,
    as_json: Json = False,
) -> None:
    """Types, values, nulls, label and time of a log, what gives the label away, and a schema for it on stdout.

    Example: embtables data describe logs/ --label click
    """
    from embtables.pipelines.describe import describe as look

    report = look(log, _wishes(label, positive_above, dim, ids, numbers, ignore))
    if as_json:
        sys.stdout.write(json_text(report) + "\n")
        return
    _show(report)
    sys.stdout.write(report["schema"])


def init(
    log: LogPath,
    label: LabelColumns = None,
    positive_above: PositiveAbove = None,
    dim: Dim = 16,
    ids: Ids = None,
    numbers: Numbers = None,
    ignore: Ignore = None,
) -> None:
    """Write the configuration of a first run on a log to stdout.

    Example: embtables init logs/ --label click > my.yaml
    """
    from embtables.pipelines.describe import starting_config

    sys.stdout.write(starting_config(log, _wishes(label, positive_above, dim, ids, numbers, ignore)))


def _wishes(
    label: list[str] | None,
    positive_above: float | None,
    dim: int,
    ids: list[str] | None,
    numbers: list[str] | None,
    ignore: list[str] | None,
) -> Wishes:
    from embtables.frames.suggest import Wishes

    lists = (tuple(each or ()) for each in (ids, numbers, ignore))
    return Wishes(tuple(label or ()), positive_above, dim, *lists)


def _show(report: dict[str, Any]) -> None:
    """The report as a table on stderr."""
    from rich.table import Table

    from embtables.pipelines.progress import console, say

    rows, looked = report["rows"], report["rows_looked_at"]
    say(f"{rows:,} rows in {report['files']:,} files" + ("" if rows == looked else f"; {looked:,} were looked at"))
    table = Table(box=None, pad_edge=False)
    for heading in ("column", "type", "distinct", "nulls", "range", "role"):
        table.add_column(heading, overflow="fold")
    for name, facts in report["columns"].items():
        ends = f"{facts['low']} to {facts['high']}" if "low" in facts else ""
        if "max_length" in facts:
            ends = f"{facts['mean_length']:g} long, at most {facts['max_length']}"
        table.add_row(name, facts["type"], f"{facts['distinct']:,}", f"{facts['nulls']:,}", ends, facts["role"])
    console().print(table)
    for name, of in report["labels"].items():
        say(f"label {name}: {of['positive_share']:.2%} positive")
    for name, reason in report["leaks"].items():
        say(f"warning: column '{name}' {reason}")
    for name in report["files_left_out"]:
        say(f"file {name} lacks the label and was not looked at; data.join adds its columns")
