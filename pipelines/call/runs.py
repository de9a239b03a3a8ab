"""The Python call: `train`, `resume`, `load`, `evaluate` and `predict`. The commands of the same names are made of it.

    train(schema or configuration, rows) -> Run -> metrics, predict, evaluate, table, report

Nothing is written unless `runs_dir` is given, by argument or in the configuration: history, figures and model of such a
run are in the `Run`. With it there is a folder per run, versions, and `resume`. What is wrong with the arguments is
reported before torch is imported, which takes seconds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from embtables.errors import ConfigError
from embtables.frames.table import Frame
from embtables.given import as_choice, as_flag, as_name, as_names, as_path
from embtables.models.registry import ModelCode
from embtables.pipelines.call.own_model import take_model
from embtables.pipelines.call.run_config import ModelLike, SchemaLike, SplitLike, run_config
from embtables.pipelines.config import RunConfig
from embtables.pipelines.prepare.log_splits import with_absolute_joins
from embtables.pipelines.run_dir import RunDir
from embtables.pipelines.run_place import RunInMemory
from embtables.pipelines.sources.memory import MemorySource, source_of
from embtables.pipelines.trained.run import CheckpointName, PartName, Run

if TYPE_CHECKING:
    from embtables.pipelines.config import Evaluate
    from embtables.pipelines.trained.predict import OnBadRow


def train(
    schema: SchemaLike,
    data: Frame | Path | str | None = None,
    *,
    model: ModelLike | None = None,
    split: SplitLike = "hash",
    evaluate: Evaluate | Mapping[str, Any] | None = None,
    runs_dir: Path | str | None = None,
    overrides: Sequence[str] = (),
    continue_from: Run | Path | str | None = None,
    checkpoint: CheckpointName | None = None,
    fresh: Sequence[str] = (),
    workers: int = 1,
    ray_address: str | None = None,
    shown: bool = True,
    **options: Any,
) -> Run:
    """Trains a new run.

    Args:
        schema: what columns mean: a `Schema` (`Schema.infer` suggests one), a dictionary, or a YAML file. A whole
            configuration, `RunConfig` or its YAML file, may say the rest too: the arguments replace its values.
        data: the rows: a pandas or polars DataFrame, an Arrow table or dataset, a dictionary of columns, or the path of
            a parquet log. Parts that lie apart are a dictionary, `{"train": df, "validation": df2, "test": df3}`. Rows
            in memory are not copied and stay with the run: do not change them while it is used.
        model: the section `model`, the model's name alone, or its code, which is then registered (`register_model`). By
            default `dcnv2`.
        split: the section `split` of `data`. By default a tenth of the rows each validates and tests, by a hash of the
            columns of ids (`hash`), so that equal rows are in one part; None: all rows are trained on. Rows of a schema
            without a `data` section are shuffled too, unless a table has a `ttl_seconds`.
        evaluate: the section `evaluate`.
        runs_dir: folder that holds the folders of runs. Without it nothing is written: the run is in memory, and
            cannot be resumed.
        overrides: `KEY=VALUE` texts that replace values of a YAML file, for example `train.epochs=2`.
        continue_from: an earlier run with a folder, whose rows, optimizer state and dense weights the new run begins
            with, under the rules of docs/format.md.
        checkpoint: which version of that run; by default the best one if there is one.
        fresh: names of tables that begin with fresh rows nevertheless.
        workers: ranks that share the tables; several run on Ray, and need a log in files and `runs_dir`.
        ray_address: address of a running Ray cluster, `host:port` or `auto`; by default one is started here.
        shown: whether progress is shown; with several ranks, rank 0 always writes it.
        options: values of the section `train`: `epochs=3, batch_size=1024, early_stopping={"metric": "auc"}`.

    Raises:
        ConfigError: a value of the configuration or an argument is wrong.
        DataError: the log cannot be read, or holds values without meaning; names file (or `<DataFrame>`), column, row.
        StateError: the earlier run has no such version, or no rule converts it; or the run's folder cannot be written.

    Example:
        >>> import embtables, pandas
        >>> df = pandas.read_parquet("log.parquet")
        >>> run = embtables.train(embtables.Schema.infer(df, label="click"), df, max_steps=20, shown=False)
        >>> run.report()["steps"], run.report()["part"]
        (4, 'test')
        >>> embtables.train("my.yaml", max_steps=20, shown=False).report()["steps"]
        20
    """
    _check_workers(workers, ray_address)
    as_flag(shown, "shown")
    begins = _beginning(continue_from, checkpoint, fresh)
    if runs_dir is not None:
        options["runs_dir"] = str(as_path(runs_dir, "runs_dir"))
    source = source_of(data)
    path = data if source is None else None
    config = run_config(
        schema, path, source, model=model, split=split, evaluate=evaluate, overrides=overrides, options=options
    )
    if workers == 1:
        return _train_here(config, source, begins, shown=shown)
    return _train_on_ray(config, source, begins, workers, ray_address)


def _beginning(
    former: Run | Path | str | None, checkpoint: CheckpointName | None, fresh: Sequence[str]
) -> dict[str, Any]:
    """What a new run begins with, as arguments of what trains it."""
    fresh = as_names(fresh, "fresh")
    if former is None and (checkpoint is not None or fresh):
        raise ConfigError("'checkpoint' and 'fresh' go with 'continue_from'")
    _check_checkpoint(checkpoint)
    return {"former": None if former is None else _folder_of(former), "which": checkpoint, "fresh": fresh}


def _train_on_ray(
    config: RunConfig, source: MemorySource | None, begins: dict[str, Any], workers: int, ray_address: str | None
) -> Run:
    if source is not None or config.train.runs_dir is None:
        raise ConfigError("several workers read a log in files and keep versions: give its path, and runs_dir")
    from embtables.pipelines.distributed.cluster import Cluster
    from embtables.pipelines.distributed.train import train_on_ray

    with RunDir.new(config) as place:
        train_on_ray(place, Cluster(workers, ray_address), **begins)
    return Run(place, config)


def _train_here(config: RunConfig, source: MemorySource | None, begins: dict[str, Any], *, shown: bool) -> Run:
    in_memory = RunInMemory() if config.train.runs_dir is None else None
    if in_memory is not None and config.data.prepare is not None:
        raise ConfigError("data.prepare writes the examples that it makes: give runs_dir, the folder for them")
    from embtables.pipelines.training.train import train as train_here

    report = train_here(config, run=in_memory, source=source, shown=shown, **begins)
    # Its side tables lie beside its own log, not beside what it predicts.
    return Run(in_memory or RunDir(Path(report["run_dir"])), with_absolute_joins(config), source)


def resume(
    run: Run | Path | str,
    data: Frame | None = None,
    *,
    overrides: Sequence[str] = (),
    model: ModelCode | None = None,
    workers: int = 1,
    ray_address: str | None = None,
    shown: bool = True,
) -> Run:
    """Goes on with the run in a folder, from its last version, to the same bits as a run that never stopped.

    Args:
        run: the run's folder, or the run, which has one.
        data: the same rows again, if they were in memory and `run` is a folder.
        overrides: `KEY=VALUE` texts that replace values of its configuration; the tables and features stay as they are.
        model: as for `load`.
        workers, ray_address, shown: as for `train`; the number of workers may differ from the former one.

    Raises:
        ConfigError: the folder holds no run, its rows were in memory and are not given, or an override is wrong.
        StateError: there is no version, it is damaged, or it is of another schema.

    Example:
        >>> import embtables
        >>> run = embtables.train("my.yaml", runs_dir="runs", epochs=1, shown=False)
        >>> embtables.resume(run, overrides=["train.epochs=2"], shown=False).report()["epochs"]
        2
    """
    _check_workers(workers, ray_address)
    as_flag(shown, "shown")
    folder, changes = _folder_of(run), as_names(overrides, "overrides")
    take_model(folder, model)
    config = folder.config(changes)
    source = source_of(data)
    if source is None and isinstance(run, Run):
        source = run.source
    if workers > 1 and source is not None:
        raise ConfigError("several workers read a log in files, and the rows of this run are in memory")
    if workers == 1:
        from embtables.pipelines.training.train import resume as resume_here

        resume_here(folder, changes, source=source, shown=shown)
    else:
        from embtables.pipelines.distributed.cluster import Cluster
        from embtables.pipelines.distributed.train import train_on_ray

        train_on_ray(folder, Cluster(workers, ray_address), overrides=changes, goes_on=True)
    return Run(folder, config, source)


def load(
    run: Run | Path | str,
    *,
    checkpoint: CheckpointName | None = None,
    overrides: Sequence[str] = (),
    model: ModelCode | None = None,
) -> Run:
    """A trained run from its folder: its configuration, fitted transforms, tables and model.

    Args:
        run: the run's folder, or a run that has one, to read another of its versions.
        checkpoint: which version; by default the best one if there is one, else the last.
        overrides: `KEY=VALUE` texts that replace values of its configuration.
        model: the code of its model, if that is your own and this process has not registered it.

    Raises:
        ConfigError: the folder holds no run, or its model is not known here.
        StateError: there is no such version, or it is damaged.

    Example:
        >>> import embtables
        >>> trained = embtables.train("my.yaml", runs_dir="runs", max_steps=20, shown=False)
        >>> run = embtables.load(trained.path)
        >>> run.step, run.tables
        (20, ('user', 'item'))
    """
    folder, changes = _folder_of(run), as_names(overrides, "overrides")
    _check_checkpoint(checkpoint)
    from embtables.pipelines.trained.load_run import load_run

    take_model(folder, model)
    loaded = load_run(folder, checkpoint, changes)
    return Run(folder, loaded.config, loaded=loaded)


def evaluate(
    run: Run | Path | str,
    part: PartName | None = None,
    *,
    data: Frame | Path | str | None = None,
    checkpoint: CheckpointName | None = None,
    overrides: Sequence[str] = (),
    shown: bool = True,
) -> dict[str, Any]:
    """Figures of a trained run on a part of its log, or on other rows.

    Args:
        run: the run, or its folder.
        part, data, shown: as for `Run.evaluate`.
        checkpoint, overrides: as for `load`; they go with a folder.

    Raises:
        ConfigError: the folder holds no run, its log has no such part, or its model is not known here: `load` takes
            the code of one of your own, and gives the run to evaluate.
        StateError: there is no such version, or it is damaged.

    Example:
        >>> import embtables
        >>> run = embtables.train("my.yaml", runs_dir="runs", max_steps=20, shown=False)
        >>> embtables.evaluate(run.path)["auc"] == run.metrics["auc"]
        True
    """
    report = _loaded(run, checkpoint, overrides).evaluate(part, data=data, shown=shown)
    return {**report, "run_dir": None if isinstance(run, Run) and run.path is None else str(_path_of(run))}


@overload
def predict(
    run: Run | Path | str,
    data: Frame,
    output: None = None,
    *,
    columns: Sequence[str] | None = None,
    on_bad_row: OnBadRow = "error",
    checkpoint: CheckpointName | None = None,
    shown: bool = True,
) -> Frame: ...


@overload
def predict(
    run: Run | Path | str,
    data: Path | str,
    output: Path | str,
    *,
    columns: Sequence[str] | None = None,
    on_bad_row: OnBadRow = "error",
    checkpoint: CheckpointName | None = None,
    shown: bool = True,
) -> dict[str, Any]: ...


def predict(
    run: Run | Path | str,
    data: Frame | Path | str,
    output: Path | str | None = None,
    *,
    columns: Sequence[str] | None = None,
    on_bad_row: OnBadRow = "error",
    checkpoint: CheckpointName | None = None,
    shown: bool = True,
) -> Any:
    """Scores every row, in the same order: of a DataFrame, which is returned with them, or of a parquet log.

    Args:
        run: the run, or its folder.
        data, output, columns, on_bad_row, shown: as for `Run.predict`.
        checkpoint: as for `load`; it goes with a folder.

    Raises:
        ConfigError: the folder holds no run, the input has a column with the name of the scores, the output is a
            folder or a part of the input, or the model is not known here: `load` takes the code of one of your own, and
            gives the run to predict with.
        DataError: the input cannot be read, lacks a column, or has one whose types have none in common.
        StateError: there is no such version, it is damaged, or the output cannot be written.
        TrainingError: a score is not finite; names its row, and the columns with the largest values.

    Example:
        >>> import embtables, pandas
        >>> run = embtables.train("my.yaml", max_steps=20, shown=False)
        >>> done = embtables.predict(run, "log.parquet", "scores.parquet", columns=["user"], shown=False)
        >>> done["rows"], done["columns"]
        (20000, ['user', 'score'])
        >>> embtables.predict(run, pandas.DataFrame({"user": [7], "item": [3]}), shown=False).columns.tolist()
        ['user', 'item', 'score']
    """
    return _loaded(run, checkpoint).predict(data, output, columns=columns, on_bad_row=on_bad_row, shown=shown)


def _loaded(run: Run | Path | str, checkpoint: CheckpointName | None, overrides: Sequence[str] = ()) -> Run:
    if not isinstance(run, Run):
        return load(run, checkpoint=checkpoint, overrides=overrides)
    if checkpoint is not None or as_names(overrides, "overrides"):
        raise ConfigError("'checkpoint' and 'overrides' go with a run's folder; a run has its version already")
    return run


def _path_of(run: Run | Path | str) -> Path:
    """The run's folder. Raises ConfigError if it has none."""
    path = run.path if isinstance(run, Run) else as_path(run, "run")
    if path is None:
        raise ConfigError("the run has no folder to go on from: train it with runs_dir")
    return path


def _folder_of(run: Run | Path | str) -> RunDir:
    return RunDir.open(_path_of(run))


def _check_checkpoint(checkpoint: CheckpointName | None) -> None:
    if checkpoint is not None:
        as_choice(checkpoint, ("best", "last"), "checkpoint")


def _check_workers(workers: int, ray_address: str | None) -> None:
    if ray_address is not None:
        as_name(ray_address, "ray_address")
    if not isinstance(workers, int) or isinstance(workers, bool) or workers < 1:
        raise ConfigError(f"'workers' must be at least 1, received {workers!r}")
    if ray_address is not None and workers == 1:
        raise ConfigError("'ray_address' goes with 'workers' of at least 2")
