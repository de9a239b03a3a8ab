"""Training, evaluation and prediction as Python calls: what the commands of the same names do.

What is wrong with the arguments is reported before torch is imported, which takes seconds.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from embtables.errors import ConfigError
from embtables.models.registry import ModelCode
from embtables.pipelines.config import RunConfig, load_config
from embtables.pipelines.own_model import take_model
from embtables.pipelines.run_dir import RunDir

if TYPE_CHECKING:
    from embtables.pipelines.load_run import LoadedRun

CheckpointName = Literal["best", "last"]
PartName = Literal["train", "validation", "test", "all"]


def train(
    config: RunConfig | Path | str,
    *,
    overrides: Sequence[str] = (),
    continue_from: Path | str | None = None,
    checkpoint: CheckpointName | None = None,
    fresh: Sequence[str] = (),
    workers: int = 1,
    ray_address: str | None = None,
    shown: bool = True,
) -> dict[str, Any]:
    """Trains a new run and returns its report: `auc`, `log_loss`, `rows`, `run_dir` and more (docs/training.md).

    Args:
        config: a configuration, or the path of its YAML file.
        overrides: `KEY=VALUE` texts that replace values of the file, for example `train.epochs=2`.
        continue_from: folder of an earlier run, whose rows, optimizer state and dense weights the new run begins with,
            under the rules of docs/format.md.
        checkpoint: which version of that run; by default the best one if there is one.
        fresh: names of tables that begin with fresh rows nevertheless.
        workers: ranks that share the tables; several run on Ray.
        ray_address: address of a running Ray cluster, `host:port` or `auto`; by default one is started here.
        shown: whether progress is written to stderr; with several ranks, rank 0 always writes it.

    Raises:
        ConfigError: a value of the configuration or an argument is wrong.
        DataError: the log cannot be read, or holds values without meaning.
        StateError: the earlier run has no such version, or no rule converts it; or the run's folder cannot be written.

    Example:
        >>> import embtables
        >>> report = embtables.train("my.yaml", overrides=["train.max_steps=20"], shown=False)
        >>> report["steps"], report["part"]
        (20, 'test')
    """
    if continue_from is None and (checkpoint is not None or fresh):
        raise ConfigError("'checkpoint' and 'fresh' go with 'continue_from'")
    _check_workers(workers, ray_address)
    former = None if continue_from is None else RunDir.open(Path(continue_from))
    begins: dict[str, Any] = {"former": former, "which": checkpoint, "fresh": tuple(fresh)}
    resolved = _resolved(config, overrides)
    if workers == 1:
        from embtables.pipelines.training.train import train as train_here

        return train_here(resolved, shown=shown, **begins)
    from embtables.pipelines.distributed.cluster import Cluster
    from embtables.pipelines.distributed.train import train_on_ray

    with RunDir.new(resolved) as run:
        return train_on_ray(run, Cluster(workers, ray_address), **begins)


def resume(
    run: Path | str,
    *,
    overrides: Sequence[str] = (),
    model: ModelCode | None = None,
    workers: int = 1,
    ray_address: str | None = None,
    shown: bool = True,
) -> dict[str, Any]:
    """Goes on with the run in a folder, from its last version, to the same bits as a run that never stopped.

    Args:
        run: the run's folder.
        overrides: `KEY=VALUE` texts that replace values of its configuration; the tables and features stay as they are.
        model: as for `load`.
        workers, ray_address, shown: as for `train`; the number of workers may differ from the former one.

    Raises:
        ConfigError: the folder holds no run, or an override is wrong.
        StateError: there is no version, it is damaged, or it is of another schema.

    Example:
        >>> import embtables
        >>> report = embtables.train("my.yaml", overrides=["train.epochs=1"], shown=False)
        >>> embtables.resume(report["run_dir"], overrides=["train.epochs=2"], shown=False)["epochs"]
        2
    """
    _check_workers(workers, ray_address)
    folder, changes = RunDir.open(Path(run)), tuple(overrides)
    take_model(folder, model)
    folder.config(changes)
    if workers == 1:
        from embtables.pipelines.training.train import resume as resume_here

        return resume_here(folder, changes, shown=shown)
    from embtables.pipelines.distributed.cluster import Cluster
    from embtables.pipelines.distributed.train import train_on_ray

    return train_on_ray(folder, Cluster(workers, ray_address), overrides=changes, goes_on=True)


def load(
    run: Path | str,
    *,
    checkpoint: CheckpointName | None = None,
    overrides: Sequence[str] = (),
    model: ModelCode | None = None,
) -> LoadedRun:
    """A trained run for inference: its configuration, fitted transforms, tables and model.

    Args:
        run: the run's folder.
        checkpoint: which version; by default the best one if there is one, else the last.
        overrides: `KEY=VALUE` texts that replace values of its configuration.
        model: the code of its model, if that is your own and this process has not registered it.

    Raises:
        ConfigError: the folder holds no run, or its model is not known here.
        StateError: there is no such version, or it is damaged.

    Example:
        >>> import embtables
        >>> report = embtables.train("my.yaml", overrides=["train.max_steps=20"], shown=False)
        >>> loaded = embtables.load(report["run_dir"])
        >>> loaded.step, list(loaded.scorer.tables.stats())
        (20, ['user', 'item'])
    """
    from embtables.pipelines.load_run import load_run

    folder = RunDir.open(Path(run))
    take_model(folder, model)
    return load_run(folder, checkpoint, tuple(overrides))


def evaluate(
    run: Path | str,
    part: PartName = "test",
    *,
    checkpoint: CheckpointName | None = None,
    overrides: Sequence[str] = (),
) -> dict[str, Any]:
    """Figures of a trained run on a part of its log, or of the log that the overrides name.

    Args:
        run: the run's folder.
        part: a part of the log, as `data.split` divides it.
        checkpoint, overrides: as for `load`.

    Raises:
        ConfigError: the folder holds no run, or its log has no such part.
        StateError: there is no such version, or it is damaged.

    Example:
        >>> import embtables
        >>> report = embtables.train("my.yaml", overrides=["train.max_steps=20"], shown=False)
        >>> embtables.evaluate(report["run_dir"])["auc"] == report["auc"]
        True
    """
    from embtables.pipelines.load_run import evaluate_run

    return evaluate_run(Path(run), None if part == "all" else part, checkpoint, tuple(overrides))


def predict(
    run: LoadedRun | Path | str,
    source: Path | str,
    output: Path | str,
    *,
    columns: Sequence[str] | None = None,
    on_bad_row: Literal["error", "null"] = "error",
    checkpoint: CheckpointName | None = None,
    shown: bool = True,
) -> dict[str, Any]:
    """Scores every row of a parquet log and writes the rows with their scores, in the same order.

    Args:
        run: a run's folder, or what `load` returned.
        source: parquet file, folder, glob or URI.
        output: the parquet file to write; it appears whole or not at all.
        columns: input columns to carry over, joined ones included; by default all that the input has. Files may
            store them in different types, which become one.
        on_bad_row: what a row does whose value has no meaning (NaN in a dense column): it ends the call with an error
            that names it, or has null for its scores and counts in `unscored_rows`.
        checkpoint: as for `load`; a loaded run has its version already.
        shown: whether progress is written to stderr.

    Raises:
        ConfigError: the folder holds no run, the input has a column with the name of the scores, or the output is a
            folder or a part of the input.
        DataError: the input cannot be read, lacks a column, or has one whose types have none in common.
        StateError: there is no such version, it is damaged, or the output cannot be written.

    Example:
        >>> import embtables
        >>> report = embtables.train("my.yaml", overrides=["train.max_steps=20"], shown=False)
        >>> done = embtables.predict(report["run_dir"], "log.parquet", "scores.parquet", columns=["user"], shown=False)
        >>> done["rows"], done["columns"]
        (20000, ['user', 'score'])
    """
    from embtables.pipelines.load_run import LoadedRun
    from embtables.pipelines.predict import predict as write_scores

    if on_bad_row not in ("error", "null"):
        raise ConfigError(f"'on_bad_row' must be 'error' or 'null', received {on_bad_row!r}")
    if isinstance(run, LoadedRun) and checkpoint is not None:
        raise ConfigError("'checkpoint' goes with a run's folder; a loaded run has its version already")
    loaded = run if isinstance(run, LoadedRun) else load(run, checkpoint=checkpoint)
    return write_scores(loaded, str(source), Path(output), columns=columns, on_bad_row=on_bad_row, shown=shown)


def _resolved(config: RunConfig | Path | str, overrides: Sequence[str]) -> RunConfig:
    if isinstance(config, RunConfig):
        if overrides:
            raise ConfigError("'overrides' go with the path of a file; a RunConfig holds its values already")
        return config
    return load_config(config, tuple(overrides))


def _check_workers(workers: int, ray_address: str | None) -> None:
    if workers < 1:
        raise ConfigError(f"'workers' must be at least 1, received {workers}")
    if ray_address is not None and workers == 1:
        raise ConfigError("'ray_address' goes with 'workers' of at least 2")
