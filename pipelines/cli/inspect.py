"""`embtables inspect`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from embtables.pipelines.cli.options import FolderPath, Json, Version
from embtables.pipelines.json_text import json_text

Names = Annotated[list[str] | None, typer.Option("--table", help="Only this table; may be given more than once.")]
Top = Annotated[int, typer.Option("--top", min=0, max=10_000, help="Rows with the highest counts to list.")]
Page = Annotated[Path | None, typer.Option("--html", help="Also write a self-contained HTML page.", show_default=False)]


def inspect(
    folder: FolderPath,
    version: Version = None,
    table: Names = None,
    top: Top = 10,
    html: Page = None,
    as_json: Json = False,
) -> None:
    """Show what a version's tables hold: rows, bytes, ages, counts, norms, top ids, admission and collisions.

    Example: embtables inspect runs/online_retail-... --table item --html page.html
    """
    from embtables.pipelines.inspection.report import inspect as look

    found = look(folder, version, table or [], top)
    if html is not None:
        from embtables.pipelines.inspection.page import write_page

        write_page(html, found)
    if as_json:
        sys.stdout.write(json_text(found.to_json()) + "\n")
        return
    from embtables.pipelines.inspection.terminal import show

    show(found)
