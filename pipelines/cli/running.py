"""`embtables running`: running features outside of a server."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from embtables.pipelines.cli.options import Json, Set
from embtables.pipelines.json_text import json_text

app = typer.Typer(help="Running features of a log.", no_args_is_help=True)


@app.callback()
def _commands() -> None:
    """Keeps the name of the only command."""


@app.command()
def fold(
    config: Annotated[
        Path, typer.Argument(metavar="CONFIG_OR_RUN", help="Whose `running` section it is.", show_default=False)
    ],
    log: Annotated[
        str | None,
        typer.Argument(metavar="[LOG]", help="Parquet file, folder or glob of events; by default data.prepare's."),
    ] = None,
    to: Annotated[Path | None, typer.Option("--to", metavar="DIR", help="A server's running_dir; needed.")] = None,
    event_time: Annotated[str, typer.Option(help="The column of LOG with the times of events.")] = "event_time",
    until: Annotated[
        str | None, typer.Option(metavar="TIME", help="Leave out what is at this time (RFC 3339) or later.")
    ] = None,
    set_: Set = None,
    as_json: Json = False,
) -> None:
    """Fold a log in parquet into the checkpoint that a server begins with.

    The server folds the events of its own log from the end of this one on (or from --until); earlier ones are left out.

    Example: embtables running fold examples/online_retail/dcnv2.yaml --set running={} --to state/running
    Example: embtables running fold runs/shop-... exported/events --to state/running --until 2026-11-01T00:00:00Z
    """
    from datetime import datetime

    from embtables.errors import ConfigError
    from embtables.inputs.times import moment_us
    from embtables.pipelines.config import load_config
    from embtables.pipelines.prepare.fold_log import fold_log
    from embtables.pipelines.run_dir import RunDir

    if to is None:
        raise ConfigError("name the folder of the checkpoint", argument="--to")
    until_us = None
    if until is not None:
        try:
            until_us = moment_us(datetime.fromisoformat(until))
        except ValueError:
            raise ConfigError(f"is no time like 2011-11-01T08:30:00Z, received '{until}'", argument="--until") from None
    overrides = tuple(set_ or ())
    found = RunDir.open(config).config(overrides) if config.is_dir() else load_config(config, overrides)
    report = fold_log(found, to, log, event_time=event_time, until_us=until_us)
    if as_json:
        sys.stdout.write(json_text(report) + "\n")
    else:
        sys.stderr.write(", ".join(f"{name}: {value}" for name, value in report.items()) + "\n")
