"""`embtables online`: train on what comes in, and publish it as it is learned."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from embtables.pipelines.cli.options import Json, Set, which_of
from embtables.pipelines.cli.report_table import print_report


def online(
    config: Annotated[Path | None, typer.Argument(help="YAML file with schema, model and training.")] = None,
    set_: Set = None,
    replay: Annotated[bool, typer.Option("--replay", help="Train on the log's old days, in their order.")] = False,
    speed: Annotated[
        float | None, typer.Option(min=0.001, help="With --replay: seconds of event time per second; 86400: a day.")
    ] = None,
    former: Annotated[
        Path | None, typer.Option("--from", help="Begin with what the run in this folder has learned.")
    ] = None,
    which: Annotated[str | None, typer.Option("--checkpoint", help="Of --from: best or last.")] = None,
    fresh: Annotated[
        list[str] | None, typer.Option("--fresh", metavar="TABLE", help="With --from: this table begins afresh.")
    ] = None,
    drain: Annotated[
        bool, typer.Option("--drain", help="End when all events that the log has were read; else wait for more.")
    ] = False,
    resume: Annotated[Path | None, typer.Option("--resume", help="Go on with the online run in this folder.")] = None,
    as_json: Json = False,
) -> None:
    """Train online: every row is scored before it is trained on, and servers get a version after every interval.

    Without --replay the events of online.events.log are joined and trained on as they come.

    Example: embtables online my.yaml --from runs/my-...
    Example: embtables online my.yaml --replay --from runs/my-... --set online.part=test
    """
    if (config is None) == (resume is None):
        raise typer.BadParameter("give a configuration file, or --resume and the folder of a run", param_hint="CONFIG")
    if resume is not None and former is not None:
        raise typer.BadParameter("--resume goes on with a run as it is; --from begins a new one", param_hint="--from")
    if former is None and (which is not None or fresh):
        raise typer.BadParameter("--checkpoint and --fresh go with --from", param_hint="--from")
    if replay and drain:
        raise typer.BadParameter("--replay ends with the log's files; --drain is of event logs", param_hint="--drain")
    from embtables.pipelines.config import load_config
    from embtables.pipelines.online import run_online
    from embtables.pipelines.run_dir import RunDir

    overrides = tuple(set_ or ())
    if resume is not None:
        report = run_online.resume(RunDir.open(resume), overrides, speed=speed, drains=drain)
    else:
        assert config is not None
        begun: Any = {"former": None if former is None else RunDir.open(former), "which": which_of(which)}
        kind: run_online.Kind = "replay" if replay else "events"
        resolved = load_config(config, overrides)
        report = run_online.online(resolved, kind, fresh=fresh or (), speed=speed, drains=drain, **begun)
    print_report(report, as_json)
