"""Arguments and options that several commands have."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

ConfigPath = Annotated[Path, typer.Argument(help="YAML file with schema, model and training.", show_default=False)]
FolderPath = Annotated[Path, typer.Argument(metavar="FOLDER", help="A run, or a state folder.", show_default=False)]
Set = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a value: --set train.epochs=2")
]
Version = Annotated[
    str | None, typer.Option("--version", help="resume-<n>, serving-<n> or a pin; by default the newest.")
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object last on stdout.")]


def which_of(value: str | None) -> Any:
    """The value of an option `--checkpoint`."""
    if value is not None:
        one_of("--checkpoint", value, ("best", "last"))
    return value


def one_of(option: str, value: str, known: Any) -> None:
    """Refuses a value that is none of those known."""
    if value not in known:
        raise typer.BadParameter(f"received '{value}'; choose one of: {', '.join(known)}", param_hint=option)
