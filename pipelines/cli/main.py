"""The command line `embtables`. Heavy imports happen inside the commands, so that `--help` is quick.

`--json` prints one JSON object last on stdout; everything else goes to stderr. Exit status: 0 done, 1 failed, 2 bad
usage or configuration. A user's mistake is one message without a traceback.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from embtables.errors import EmbtablesError
from embtables.pipelines.cli.data import app as data_app
from embtables.pipelines.cli.data import init
from embtables.pipelines.cli.doctor import doctor
from embtables.pipelines.cli.events import app as events_app
from embtables.pipelines.cli.export import export
from embtables.pipelines.cli.inspect import inspect
from embtables.pipelines.cli.online import online
from embtables.pipelines.cli.options import ConfigPath, Json, Set, one_of, which_of
from embtables.pipelines.cli.plan import plan
from embtables.pipelines.cli.report_table import print_report
from embtables.pipelines.cli.running import app as running_app
from embtables.pipelines.cli.serve import serve
from embtables.pipelines.cli.state import app as state_app
from embtables.pipelines.cli.trust import audit, replay

app = typer.Typer(
    name="embtables",
    help="Train CTR models on parquet logs with embedding tables.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
schema_app = typer.Typer(help="Check a configuration, or print its JSON Schema for editors.", no_args_is_help=True)
app.add_typer(schema_app, name="schema")
app.add_typer(state_app, name="state")
app.add_typer(data_app, name="data")
app.add_typer(events_app, name="events")
app.add_typer(running_app, name="running")
app.command()(init)
app.command()(doctor)
app.command()(inspect)
app.command()(plan)
app.command()(export)
app.command()(replay)
app.command(context_settings={"ignore_unknown_options": True})(audit)  # a key may begin with a minus sign
app.command()(serve)
app.command()(online)

RunPath = Annotated[Path, typer.Argument(help="Folder of a run: runs/<id>.", show_default=False)]
Which = Annotated[str | None, typer.Option("--checkpoint", help="best or last; by default best if there is one.")]


@app.command()
def train(
    config: Annotated[Path | None, typer.Argument(help="YAML file with schema, model and training.")] = None,
    set_: Set = None,
    resume: Annotated[Path | None, typer.Option("--resume", help="Go on with the run in this folder.")] = None,
    former: Annotated[
        Path | None, typer.Option("--from", help="Begin a new run with what the run in this folder has learned.")
    ] = None,
    which: Annotated[str | None, typer.Option("--checkpoint", help="Of --from: best or last.")] = None,
    fresh: Annotated[
        list[str] | None, typer.Option("--fresh", metavar="TABLE", help="With --from: this table begins afresh.")
    ] = None,
    workers: Annotated[int, typer.Option(min=1, max=1024, help="Ranks that share the tables, on Ray if several.")] = 1,
    ray_address: Annotated[
        str | None, typer.Option(help="With --workers: an existing Ray cluster, host:port or auto.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Train a model and evaluate it on the test part.

    Example: embtables train examples/online_retail/dcnv2.yaml --set train.epochs=2 --json
    Example: embtables train examples/online_retail/dcnv2.yaml --workers 2
    Example: embtables train changed.yaml --from runs/online_retail-... --fresh customer
    """
    if (config is None) == (resume is None):
        raise typer.BadParameter("give a configuration file, or --resume and the folder of a run", param_hint="CONFIG")
    if former is None and (which is not None or fresh):
        raise typer.BadParameter(
            "--checkpoint and --fresh go with --from and a configuration file", param_hint="--from"
        )
    if former is not None and resume is not None:
        raise typer.BadParameter("--resume goes on with a run as it is; --from begins a new one", param_hint="--from")
    if ray_address is not None and workers == 1:
        raise typer.BadParameter("goes with --workers of at least 2", param_hint="--ray-address")
    from embtables.pipelines.call import runs
    from embtables.pipelines.config import load_config
    from embtables.pipelines.run_dir import DEFAULT_RUNS_DIR

    overrides = tuple(set_ or ())
    if resume is not None:
        run = runs.resume(resume, overrides=overrides, workers=workers, ray_address=ray_address)
    else:
        assert config is not None
        resolved = load_config(config, overrides)
        run = runs.train(
            resolved,
            runs_dir=resolved.train.runs_dir or DEFAULT_RUNS_DIR,
            continue_from=former,
            checkpoint=which_of(which),
            fresh=fresh or (),
            workers=workers,
            ray_address=ray_address,
        )
    print_report(run.report(), as_json)


@app.command()
def evaluate(
    run: RunPath,
    part: Annotated[str, typer.Option(help="train, validation, test or all.")] = "test",
    which: Which = None,
    set_: Set = None,
    as_json: Json = False,
) -> None:
    """Evaluate a trained run on a part of its log, or of another one.

    Example: embtables evaluate runs/online_retail-... --part validation --set data.path=other/log
    """
    one_of("--part", part, ("train", "validation", "test", "all"))
    from embtables.pipelines.call import runs

    chosen: Any = part
    print_report(runs.evaluate(run, chosen, checkpoint=which_of(which), overrides=set_ or ()), as_json)


@app.command()
def predict(
    run: RunPath,
    source: Annotated[str, typer.Argument(metavar="INPUT", help="Parquet file, folder, glob or URI.")],
    output: Annotated[Path, typer.Argument(help="Parquet file to write.")],
    columns: Annotated[str | None, typer.Option(help="Input columns to carry over, separated by commas.")] = None,
    on_bad_row: Annotated[
        str, typer.Option(help="A row with a value that has no meaning: error, or null for its scores.")
    ] = "error",
    which: Which = None,
    as_json: Json = False,
) -> None:
    """Score every row of a parquet log.

    Example: embtables predict runs/online_retail-... new.parquet scores.parquet --columns customer_id,stock_code
    """
    from embtables.pipelines.call import runs

    carried = None if columns is None else [name.strip() for name in columns.split(",") if name.strip()]
    one_of("--on-bad-row", on_bad_row, ("error", "null"))
    choice: Any = on_bad_row
    report = runs.predict(run, source, output, columns=carried, on_bad_row=choice, checkpoint=which_of(which))
    print_report(report, as_json)


@schema_app.command("check")
def schema_check(config: ConfigPath, set_: Set = None, as_json: Json = False) -> None:
    """Check a configuration, and the log's columns against it, without training.

    Example: embtables schema check examples/online_retail/dcnv2.yaml
    """
    from embtables.pipelines.check import check

    print_report(check(config, tuple(set_ or ())), as_json)


@schema_app.command("export")
def schema_export() -> None:
    """Print the JSON Schema of configuration files, for editors.

    Example: embtables schema export > embtables.schema.json
    """
    from embtables.pipelines.config import RunConfig
    from embtables.schema import json_schema

    sys.stdout.write(json_schema(RunConfig))


def main() -> None:
    """Entry point of the `embtables` command."""
    try:
        app()
    except EmbtablesError as error:
        sys.stderr.write(f"error: {error}\n")
        raise SystemExit(error.exit_status) from None
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(1) from None
    except OSError as error:
        sys.stderr.write(f"error: {error.filename or ''}: {error.strerror or error}\n")
        raise SystemExit(1) from None
    except KeyboardInterrupt:
        sys.stderr.write("stopped\n")
        raise SystemExit(1) from None
