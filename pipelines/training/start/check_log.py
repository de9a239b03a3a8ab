"""What is looked at before anything is trained: columns and their types, the rows of every part, their classes.

    footers -> columns, types, conditions -> one pass over the columns that divide the log, labels and weights -> counts

`embtables schema check` and training call the same function. Of a log without a validation or test part nothing but
footers is read (and what `data.where` needs), because its labels would be read for a warning alone.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from embtables.errors import DataError
from embtables.inputs.features import Needs
from embtables.inputs.id_kinds import id_kinds
from embtables.inputs.values import BadRowsError, Float64s, Mask, as_float64, one_array
from embtables.models.task import task_of
from embtables.pipelines.config import RunConfig
from embtables.pipelines.prepare.log_splits import has_part
from embtables.pipelines.sources.files.partitions import check_declared
from embtables.pipelines.sources.log import Log, LogRows, locate
from embtables.pipelines.sources.parquet import LogPart
from embtables.pipelines.sources.rows.split import part_mask
from embtables.pipelines.training.start.check_types import check_types
from embtables.schema import Label

PARTS: tuple[LogPart, ...] = ("train", "validation", "test")


@dataclass(slots=True)
class PartCount:
    """Rows of a part.

    Attributes:
        judged: rows whose labels and weight can be used; None: they were not looked at. Others are bad rows, which the
            reader refuses or sets aside.
        weight: the sum of their weights: their number without weights.
        positives: by label the share of `weight` whose label is 1.
    """

    rows: int = 0
    judged: int | None = None
    weight: float = 0.0
    positives: dict[str, float] = field(default_factory=dict)

    def add(self, labels: dict[str, Float64s], weight: Float64s) -> None:
        """Adds rows: labels and weights (n,), NaN where a row cannot be used."""
        usable = np.isfinite(weight)
        for values in labels.values():
            usable &= np.isfinite(values)
        self.judged = (self.judged or 0) + int(usable.sum())
        self.weight += float(weight[usable].sum())
        for name, values in labels.items():
            self.positives[name] = self.positives.get(name, 0.0) + float((weight * values)[usable].sum())

    def only_label(self, name: str) -> int | None:
        """The one value that a label has in all rows with a weight; None if it has both, or was not looked at."""
        if not self.judged or self.weight <= 0.0:
            return None
        positives = self.positives[name]
        return 0 if positives <= 0.0 else 1 if positives >= self.weight else None


@dataclass(frozen=True, slots=True)
class LogCheck:
    """What was found.

    Attributes:
        parts: the rows of each part that the log is divided in.
        kinds: by column what the ids of features are made of: strings, integers, times.
        warnings: sentences.
    """

    parts: dict[LogPart, PartCount]
    kinds: dict[str, str]
    warnings: tuple[str, ...]


def check_log(config: RunConfig, log: Log) -> LogCheck:
    """Looks at a log before a run trains on it.

    Raises:
        DataError, ConfigError: a column is missing or of an impossible type (the file and column are named), a type is
            declared for a column that no folder gives, a part holds no rows or only weights of zero, or the figure that
            decides the best version needs both classes and the validation part has one.
    """
    check_declared(config.data, log.source.partition_names)
    task = task_of(config)
    needs = task.needs(config)
    table = check_types(config, log, needs)
    parts = _counts(config, log, needs)
    for part, count in parts.items():
        _refuse_empty(config, part, count)
    stopping = config.train.early_stopping
    monitored = task.monitor(None if stopping is None else stopping.metric).figure
    warnings = [*_labels_read(config), *_one_class(config, parts, monitored)]
    return LogCheck(parts, id_kinds(config, table), tuple(warnings))


def _counts(config: RunConfig, log: Log, needs: Needs) -> dict[LogPart, PartCount]:
    parts = [part for part in PARTS if has_part(config, part)]
    found = {part: PartCount() for part in parts}
    if parts == ["train"]:
        found["train"].rows = log.count_rows("train")
        return found
    labels = config.labels if needs.labels else ()
    weight = config.sample_weight if needs.weight else None
    read = [*(label.column for label in labels), *([] if weight is None else [weight])]
    # One pass for all parts, or, where they lie apart, one over the files of each.
    passes = [(part,) for part in parts] if config.data.parts is not None else [tuple(parts)]
    for here in passes:
        for block in log.blocks(0, None, here[0] if len(here) == 1 else None):
            rows = log.rows(block, None, [*read, *log.filter_columns("train")])
            table = rows.table
            values = {label.name or label.column: _label(label, table) for label in labels}
            weights = np.ones(table.num_rows) if weight is None else _usable(weight, table)
            weights[weights < 0.0] = np.nan
            for part in here:
                mask = _mask(config, log, rows, part)
                found[part].rows += int(mask.sum())
                found[part].add({name: of_label[mask] for name, of_label in values.items()}, weights[mask])
    return found


def _mask(config: RunConfig, log: Log, rows: LogRows, part: LogPart) -> Mask:
    """(n,) which rows are of a part; those for which none can be found are dealt with those to train on."""
    if config.data.parts is not None:
        return np.ones(rows.table.num_rows, np.bool_)
    mask, bad = part_mask(rows.table, config.data.split, config.event_time, part)
    if bad and config.data.on_bad_row == "error":
        raise locate(bad[0].error(), rows)
    if part == "train":
        for each in bad:
            mask[each.rows] = True
    return mask


def _label(label: Label, table: pa.Table) -> Float64s:
    """(n,) 0 or 1, NaN where there is no label."""
    values = _usable(label.column, table)
    if label.positive_above is not None:
        return np.where(np.isnan(values), np.nan, values > label.positive_above)
    values[(values != 0.0) & (values != 1.0)] = np.nan
    return values


def _usable(name: str, table: pa.Table) -> Float64s:
    """(n,) the numbers of a column, NaN for what is no finite number."""
    array = one_array(table.column(name))
    found = np.full(len(array), np.nan)
    places = np.arange(len(array))
    while True:
        try:
            found[places] = as_float64(name, array.take(pa.array(places)), fill=None)
            return found
        except BadRowsError as error:
            places = np.delete(places, error.rows)


def _refuse_empty(config: RunConfig, part: LogPart, count: PartCount) -> None:
    if count.rows == 0:
        raise DataError(f"the {part} part holds no rows; look at data.split and data.where")
    if count.judged and count.weight <= 0.0:
        raise DataError(
            f"all sample weights of the {part} part are 0, so that "
            + ("nothing can be learned" if part == "train" else "no figure is defined")
            + "; look at sample_weight, data.split and data.where",
            column=config.sample_weight,
        )


def _one_class(config: RunConfig, parts: dict[LogPart, PartCount], monitored: str) -> list[str]:
    """Warnings of parts with one class, by each label. The first label's figures decide which version is best."""
    found = []
    for part, count in parts.items():
        for label in config.labels:
            only = count.only_label(label.name or label.column)
            if only is None:
                continue
            if part == "validation" and label is config.labels[0] and monitored in ("auc", "gauc"):
                raise DataError(
                    f"holds only the label {only} in the validation part, so that {monitored}, which decides which "
                    "version is best, is undefined; set train.early_stopping.metric to log_loss, or look at data.split",
                    column=label.column,
                )
            found.append(one_class(part, label.column, only))
    return found


def one_class(part: LogPart, column: str, only: int) -> str:
    """The warning of a part whose rows all have one label."""
    figures = "nothing can be learned" if part == "train" else "auc and normalised_entropy are undefined"
    return (
        f"the {part} part holds only the label {only} in column {column}: {figures}; look at data.split and data.where"
    )


def _labels_read(config: RunConfig) -> list[str]:
    """Warnings of features, dense columns and weights that are a label."""
    labels = {label.column for label in config.labels}
    read = [(f"feature {f.name}", column) for f in config.features for column in f.columns]
    read += [(f"dense column {dense.column}", dense.column) for dense in config.dense]
    return [
        f"{what} reads column {column}, which is the label: the model is shown what it should predict; leave it out"
        for what, column in read
        if column in labels
    ]
