"""`embtables doctor`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from embtables.pipelines.cli.options import Json, Set
from embtables.pipelines.json_text import json_text

if TYPE_CHECKING:
    from embtables.pipelines.doctor.finding import Finding

ConfigPath = Annotated[
    Path | None, typer.Argument(help="YAML file of a run, whose needs are compared with free memory.")
]
_COLOURS = {"ok": "green", "warning": "yellow", "broken": "red"}


def doctor(config: ConfigPath = None, set_: Set = None, as_json: Json = False) -> None:
    """Examine this machine and installation: what is broken or slow, why it matters, and what to do.

    Exit status 1 if something is broken; warnings do not count.

    Example: embtables doctor
    Example: embtables doctor my.yaml --json
    """
    if config is None and set_:
        raise typer.BadParameter("goes with a configuration file", param_hint="--set")
    from embtables.pipelines.config import load_config
    from embtables.pipelines.doctor.examine import examine, report

    findings = examine(None if config is None else load_config(config, tuple(set_ or ())))
    found = report(findings)
    if as_json:
        sys.stdout.write(json_text(found) + "\n")
    else:
        _show(findings)
    if not found["healthy"]:
        raise typer.Exit(1)


def _show(findings: list[Finding]) -> None:
    from rich.table import Table
    from rich.text import Text

    from embtables.pipelines.progress import console

    table = Table(show_header=False, box=None, pad_edge=False)
    for _ in range(3):
        table.add_column(overflow="fold")
    for finding in findings:
        lines = [finding.found, *([f"{finding.why}.", f"-> {finding.remedy}"] if finding.why else [])]
        table.add_row(Text(finding.state, _COLOURS[finding.state]), Text(finding.check), Text("\n".join(lines)))
    console().print(table)
