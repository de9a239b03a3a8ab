"""`embtables online`: train on what comes in, and publish it as it is learned."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypedDict

import typer

from embtables.pipelines.cli.options import Json, Set, which_of
from embtables.pipelines.cli.report_table import print_report

if TYPE_CHECKING:
    from embtables.pipelines.config import RunConfig
    from embtables.pipelines.online.run_online import Kind
    from embtables.pipelines.run_dir import RunDir


class _Options(TypedDict):
    speed: float | None
    drains: bool


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
    workers: Annotated[int, typer.Option(min=1, max=1024, help="Ranks that share the tables, on Ray if several.")] = 1,
    ray_address: Annotated[
        str | None, typer.Option(help="With --workers: an existing Ray cluster, host:port or auto.")
    ] = None,
    drain: Annotated[
        bool, typer.Option("--drain", help="End when all events that the log has were read; else wait for more.")
    ] = False,
    resume: Annotated[Path | None, typer.Option("--resume", help="Go on with the online run in this folder.")] = None,
    as_json: Json = False,
) -> None:
    """Train online: every row is scored before it is trained on, and servers get a version after every interval.

    Without --replay the events of online.events.log are joined and trained on as they come. Of several workers each
    reads some partitions of the event log, or a part of every batch of a replay.

    Example: embtables online my.yaml --from runs/my-...
    Example: embtables online my.yaml --replay --from runs/my-... --set online.part=test
    Example: embtables online --resume runs/my-... --workers 4
    """
    if (config is None) == (resume is None):
        raise typer.BadParameter("give a configuration file, or --resume and the folder of a run", param_hint="CONFIG")
    if resume is not None and former is not None:
        raise typer.BadParameter("--resume goes on with a run as it is; --from begins a new one", param_hint="--from")
    if former is None and (which is not None or fresh):
        raise typer.BadParameter("--checkpoint and --fresh go with --from", param_hint="--from")
    if replay and drain:
        raise typer.BadParameter("--replay ends with the log's files; --drain is of event logs", param_hint="--drain")
    if ray_address is not None and workers == 1:
        raise typer.BadParameter("goes with --workers of at least 2", param_hint="--ray-address")
    from embtables.pipelines.config import load_config
    from embtables.pipelines.run_dir import RunDir

    overrides = tuple(set_ or ())
    options: _Options = {"speed": speed, "drains": drain}
    if resume is not None:
        report = _go_on(RunDir.open(resume), overrides, options, workers, ray_address)
    else:
        assert config is not None
        former_run = None if former is None else RunDir.open(former)
        begins = {"former": former_run, "which": which_of(which), "fresh": tuple(fresh or ())}
        kind: Kind = "replay" if replay else "events"
        report = _begin(load_config(config, overrides), kind, begins, options, workers, ray_address)
    print_report(report, as_json)


def _begin(
    config: RunConfig, kind: Kind, begins: dict[str, Any], options: _Options, workers: int, ray_address: str | None
) -> dict[str, Any]:
    from embtables.pipelines.online import run_online
    from embtables.pipelines.run_dir import RunDir

    run_online.online_of(config, kind)  # a mistake is found before Ray is started
    if workers == 1:
        return run_online.online(config, kind, **begins, **options)
    from embtables.pipelines.distributed.cluster import Cluster
    from embtables.pipelines.distributed.train import train_on_ray
    from embtables.pipelines.distributed.worker import OnlineWork

    with RunDir.new(config) as run:
        return train_on_ray(run, Cluster(workers, ray_address), online=OnlineWork(kind, **options), **begins)


def _go_on(
    run: RunDir, overrides: tuple[str, ...], options: _Options, workers: int, ray_address: str | None
) -> dict[str, Any]:
    if workers == 1:
        from embtables.pipelines.online import run_online

        return run_online.resume(run, overrides, **options)
    from embtables.pipelines.distributed.cluster import Cluster
    from embtables.pipelines.distributed.train import train_on_ray
    from embtables.pipelines.distributed.worker import OnlineWork

    cluster, work = Cluster(workers, ray_address), OnlineWork(None, **options)
    return train_on_ray(run, cluster, overrides=overrides, goes_on=True, online=work)
