"""`RunConfig`: a schema of features, a log, and the model, training and evaluation sections; read from YAML.

`load_config` reads the file, lays the `--set key=value` overrides over it, makes paths absolute (those of the file
relative to the file's folder, those of the command line relative to the working folder) and validates the whole.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    field_validator,
    model_validator,
)

from embtables.errors import ConfigError
from embtables.given import as_names, as_path
from embtables.models.metrics import monitor_of
from embtables.models.registry import ModelConfig
from embtables.pickles import refuse_pickle
from embtables.schema import (
    CollisionlessTable,
    Condition,
    EventSamples,
    Label,
    LateActions,
    LogConfig,
    Model,
    Name,
    Running,
    Schema,
    TimeSplit,
    parse_value,
    read_yaml,
    validate,
)
from embtables.schema.running import check_read
from embtables.state.format.weight_dtype import WeightDtype


class DenseOptimizer(Model):
    """Adam over the dense parameters (Kingma and Ba 2015); weight_decay is its L2 term."""

    learning_rate: PositiveFloat = Field(1e-3, description="step size of the dense weights")
    beta1: Annotated[float, Field(ge=0.0, lt=1.0)] = Field(0.9, description="decay of the mean of gradients")
    beta2: Annotated[float, Field(ge=0.0, lt=1.0)] = Field(0.999, description="decay of the mean of squared gradients")
    eps: PositiveFloat = Field(1e-8, description="added to the root of the second moment")
    weight_decay: NonNegativeFloat = Field(0.0, description="L2 term added to the gradient")


class ConstantSchedule(Model):
    """The configured learning rates, after `warmup_steps` of linear warm-up."""

    kind: Literal["constant"] = "constant"
    warmup_steps: NonNegativeInt = Field(0, description="steps over which learning rates rise from zero, linearly")


class CosineSchedule(Model):
    """Warm-up, then a half cosine from 1 to `final_factor` at the last step of the run."""

    kind: Literal["cosine"] = "cosine"
    warmup_steps: NonNegativeInt = Field(0, description="steps over which learning rates rise from zero, linearly")
    final_factor: Annotated[float, Field(ge=0.0, le=1.0)] = Field(
        0.0, description="share of the configured learning rates at the last step"
    )


class EpochDecaySchedule(Model):
    """Warm-up, then every learning rate times `factor` after each epoch."""

    kind: Literal["epoch_decay"] = "epoch_decay"
    warmup_steps: NonNegativeInt = Field(0, description="steps over which learning rates rise from zero, linearly")
    factor: Annotated[float, Field(gt=0.0, le=1.0)] = Field(
        description="factor on every learning rate after each epoch"
    )


Schedule = Annotated[ConstantSchedule | CosineSchedule | EpochDecaySchedule, Field(discriminator="kind")]


class EarlyStopping(Model):
    """Training ends after `patience` evaluations of the validation part without a better `metric`."""

    metric: str = Field("auc", description="figure of a metric, such as auc, gauc, log_loss")
    patience: PositiveInt = Field(1, description="evaluations without a better value")

    @field_validator("metric")
    @classmethod
    def _check_metric(cls, value: str) -> str:
        try:
            return monitor_of(value).figure
        except ConfigError as error:
            raise ValueError(error.message) from error


class Train(Model):
    """How to train: for how long, with what, and what to keep."""

    epochs: PositiveInt = Field(1, description="passes over the training part")
    max_steps: PositiveInt | None = Field(None, description="end after this many steps, whatever the epochs")
    batch_size: PositiveInt = Field(4096, description="rows of a batch, of all workers together")
    seed: Annotated[int, Field(ge=0, lt=2**63)] = Field(
        0, description="seed of initial rows, dense weights, dropout and the order of rows"
    )
    threads: PositiveInt | None = Field(None, description="torch threads; by default all cores")
    precision: Literal["fp32", "bf16"] = Field("fp32", description="bf16: autocast of the dense net")
    row_store: Literal["host", "fbgemm", "reference"] = Field(
        "host",
        description="what holds the rows: host (native) and reference (plain torch, slow) have every option, fbgemm "
        "some (docs/tables.md)",
    )
    dense_optimizer: DenseOptimizer = DenseOptimizer()
    schedule: Schedule = ConstantSchedule()
    clip_norm: PositiveFloat | None = Field(None, description="global L2 norm over dense and row gradients")
    evaluate_every_steps: PositiveInt | None = Field(
        None, description="steps between evaluations; by default one per epoch"
    )
    early_stopping: EarlyStopping | None = None
    checkpoint_every_steps: PositiveInt | None = Field(
        None, description="steps between checkpoints, besides those after evaluations"
    )
    log_every_steps: PositiveInt = Field(50, description="steps between two lines of metrics.jsonl")
    max_restarts: Annotated[int, Field(ge=0)] = Field(
        3, description="how often several ranks begin again after one failed"
    )
    runs_dir: str | None = Field(
        None,
        description="folder that holds the folders of runs; by default `runs` on the command line, while the Python "
        "call writes nothing",
    )


class Publish(Model):
    """Versions for servers, written while a run trains: rows, dense weights and transforms, without what only training
    needs. They follow the live state of training, not the best checkpoint; the last one is written at the end.
    """

    every_steps: PositiveInt | None = Field(
        None, description="steps between versions; training waits where the version before is still being written"
    )
    every_seconds: PositiveFloat | None = Field(
        None, description="seconds between versions at least; one that is due waits until the one before is written"
    )
    dtype: WeightDtype = Field(
        "fp32",
        description="how files have the weights of rows: fp32, or rounded to bf16, fp16 or int8 (row-wise, with a "
        "scale and a bias for each row); servers compute in float32",
    )
    keep: PositiveInt = Field(8, description="newest versions that stay, and what they depend on")
    max_delta_bytes: Annotated[int, Field(ge=1024)] | None = Field(
        None,
        description="bytes of rows that a version brings at most besides the first and the last: those that moved most "
        "go first, the others wait; takes the memory of a server's rows (one rank, no dense weight decay)",
    )
    dense_every: PositiveInt = Field(
        1,
        description="versions from one with new dense weights to the next; those between have its dense weights",
    )
    candidate_key: str | None = Field(
        None,
        description="column whose value a candidate is that a request names by its id alone; by default the item of "
        "data.prepare, else the key of the only join",
    )

    @model_validator(mode="after")
    def _check(self) -> Publish:
        if self.every_steps is not None and self.every_seconds is not None:
            raise ValueError("give every_steps or every_seconds, not both")
        return self


class Drift(Model):
    """When the newest rows are judged worse than they should be, nothing is published; training goes on."""

    window_rows: PositiveInt = Field(10_000, description="newest rows, by event time, that are judged together")
    least_calibration: PositiveFloat = Field(0.5, description="least sum of scores over sum of labels")
    greatest_calibration: PositiveFloat = Field(2.0, description="greatest sum of scores over sum of labels")
    greatest_entropy: PositiveFloat = Field(
        1.5, description="greatest normalised entropy: log loss over that of the mean label as every row's score"
    )

    @model_validator(mode="after")
    def _check(self) -> Drift:
        if self.least_calibration >= self.greatest_calibration:
            raise ValueError("'least_calibration' must be below 'greatest_calibration'")
        return self


class Online(Model):
    """The online loop: how often what was learned reaches servers, and how it is watched. All times are event times."""

    sync_seconds: PositiveFloat | None = Field(
        None, description="seconds between versions for servers; by default 300, unless sync_rows is given"
    )
    sync_rows: PositiveInt | None = Field(None, description="rows between versions for servers, in place of a time")
    part: Literal["train", "validation", "test"] | None = Field(
        None, description="the part of the log that --replay replays; by default all rows that data.where admits"
    )
    max_clock_step_seconds: PositiveInt = Field(
        86_400, description="how far one batch moves the clock at most, so that a stray time does not end an interval"
    )
    report_seconds: PositiveFloat = Field(3600.0, description="seconds that a line of figures in metrics.jsonl is of")
    checkpoint_every_syncs: PositiveInt = Field(1, description="versions for servers between two checkpoints")
    drift: Drift | None = Field(None, description="when not to publish; by default every interval is published")
    events: EventSamples | None = Field(None, description="an event log whose impressions and actions are learned from")

    @model_validator(mode="after")
    def _check(self) -> Online:
        if self.sync_seconds is not None and self.sync_rows is not None:
            raise ValueError("give sync_seconds or sync_rows, not both")
        return self


class WarmStart(Model):
    """Rows that a new run begins with: a parquet file of ids and vectors for one table, or a TorchRec state_dict.

    The state_dict is a `.safetensors` file and names its tables itself.
    """

    path: str = Field(description="parquet or safetensors file; a relative path is relative to the configuration file")
    table: Name | None = Field(None, description="the table whose rows the parquet file holds")
    id: str | None = Field(None, description="the parquet file's column of raw ids")
    vector: str | None = Field(None, description="the parquet file's column of vectors, dim numbers each")
    feature: Name | None = Field(
        None,
        description="the feature whose encoder turns ids into keys; needed if the table's features encode differently",
    )

    @property
    def is_state_dict(self) -> bool:
        """Whether it is a state_dict."""
        return self.path.endswith(".safetensors")

    @model_validator(mode="after")
    def _check(self) -> WarmStart:
        try:
            refuse_pickle(self.path)
        except ConfigError as error:
            raise ValueError(str(error)) from error
        wanted = ("table", "id", "vector")
        given = [name for name in (*wanted, "feature") if getattr(self, name) is not None]
        if self.is_state_dict and given:
            raise ValueError(f"'{given[0]}' does not go with a .safetensors file, which names its tables itself")
        missing = [name for name in wanted if getattr(self, name) is None]
        if not self.is_state_dict and missing:
            raise ValueError(f"'{missing[0]}' is missing; a parquet file needs table, id and vector")
        return self


class Slice(Model):
    """A named part of the evaluated rows with figures of its own."""

    name: Name
    where: Annotated[tuple[Condition, ...], Field(min_length=1)]


class Evaluate(Model):
    """What to report beside the usual figures."""

    batch_size: PositiveInt = Field(16384, description="rows of a batch in evaluation and prediction")
    group_column: str | None = Field(
        None, description="column whose groups GAUC averages over; rows in which it is null are left out and counted"
    )
    slices: tuple[Slice, ...] = ()
    baseline_columns: tuple[str, ...] = Field(
        (),
        description="numeric columns that rank rows as if they were predictions; rows where one is null are left out",
    )
    negative_sampling_rate: Annotated[float, Field(gt=0.0, le=1.0)] | None = Field(
        None, description="share of negatives kept in the log; predictions are corrected by its log-odds"
    )


class RunConfig(Schema):
    """Everything a training run needs: what a model reads of a row, where rows come from, and how to train on them.

    In YAML the sections of `Schema` are on the same level as the others.
    """

    name: Name
    labels: tuple[Label, ...]
    data: LogConfig
    model: ModelConfig
    train: Train = Train()
    evaluate: Evaluate = Evaluate()
    publish: Publish | None = Field(
        None,
        description="versions for servers: of the live state of training, not of the best checkpoint; `{}` writes one "
        "at the end alone, and by default there are none",
    )
    warm_start: tuple[WarmStart, ...] = Field((), description="rows to begin a new run with, in this order")
    online: Online | None = Field(None, description="the online loop (`embtables online`); by default its defaults")

    running: Running | None = Field(
        None,
        description="columns that servers compute from the events of their log; `{}`: those of data.prepare; by "
        "default there are none",
    )

    @model_validator(mode="after")
    def _check_run(self) -> RunConfig:
        if not self.labels:
            raise ValueError("'labels' is empty; at least 1 item is needed")
        if isinstance(self.data.split, TimeSplit) and self.event_time is None:
            raise ValueError("a split by time needs 'event_time'")
        divided = self.data.split is not None or self.data.parts is not None
        if self.train.early_stopping is not None and not divided:
            raise ValueError("train.early_stopping needs data.split, or data.parts, with a validation part")
        for table in self.tables:
            if isinstance(table, CollisionlessTable) and table.ttl_seconds is not None and table.trainable:
                self._check_order(table.name)
        known = [t.name for t in (*self.tables, *self.linear_tables())]
        for warm in self.warm_start:
            if warm.table is not None and warm.table not in known:
                raise ValueError(f"warm_start: there is no table '{warm.table}'; there are: {', '.join(known)}")
        self._check_published()
        self._check_online()
        running = self.running_columns()
        if running is not None:
            check_read(running, self.features, self.dense)
        names = [s.name for s in self.evaluate.slices]
        if len(names) != len(set(names)):
            raise ValueError("evaluate.slices: two slices have the same name")
        return self

    @property
    def late(self) -> LateActions | None:
        """How samples or scores make up for late positives; None: the run does not learn from events."""
        events = None if self.online is None else self.online.events
        return None if events is None else events.late

    def running_columns(self) -> Running | None:
        """The `running` section with the columns of `data.prepare` that the model reads; None: there is no section."""
        prepare = self.data.prepare
        if self.running is None or prepare is None:
            return self.running
        read = {name for f in self.features for name in f.columns} | {dense.column for dense in self.dense}
        features = [f for f in prepare.running_features() if f.name in read]
        return self.running.model_copy(update={"features": (*features, *self.running.features)})

    def _check_published(self) -> None:
        """Weights at a scale are stored as multiples of up to 2^32, beyond what fp16 can express."""
        decays = [table.name for table in self.tables if table.optimizer.dense_decay > 0.0]
        if self.publish is not None and self.publish.dtype == "fp16" and decays:
            reason = "fp16 does not go with weight_decay of kind dense; use bf16, int8 or fp32"
            raise ValueError(f"publish.dtype: table '{decays[0]}': {reason}")

    def _check_online(self) -> None:
        """The joiner makes one label, and drops negatives that scores must make up for."""
        events = None if self.online is None else self.online.events
        if events is None:
            return
        if len(self.labels) > 1:
            names = ", ".join(label.column for label in self.labels)
            raise ValueError(f"online.events: events are joined to one label, received {len(self.labels)}: {names}")
        if self.labels[0].positive_above is not None:
            raise ValueError("online.events: samples have the labels 0 and 1, so the label takes no positive_above")
        kept, corrected = events.negative_rate, self.evaluate.negative_sampling_rate
        if kept != corrected:
            raise ValueError(
                f"online.events.negative_rate is {kept} and evaluate.negative_sampling_rate {corrected}; scores are "
                "corrected by the latter, so give both the same value"
            )

    def _check_order(self, table: str) -> None:
        """A ttl counts event time, so the log must pass once, in order of time."""
        wrong = {
            "needs event_time": self.event_time is None,
            f"needs one pass over the log, but train.epochs is {self.train.epochs}": self.train.epochs > 1,
            "needs the log in order of time, but data.shuffle is set": self.data.shuffle is not None,
        }
        for reason, is_so in wrong.items():
            if is_so:
                raise ValueError(f"table '{table}': ttl_seconds {reason}")


def load_config(path: Path | str, overrides: Sequence[str] = ()) -> RunConfig:
    """The run configuration in the YAML file at `path` with `key=value` overrides laid over it.

    Raises:
        ConfigError: the file cannot be read, an override names no existing place, or a value is wrong.

    Example:
        >>> import embtables
        >>> config = embtables.load_config("my.yaml", ["train.epochs=2"])
        >>> (config.train.epochs, [table.name for table in config.tables])
        (2, ['user', 'item'])
    """
    path = as_path(path, "path")
    content = read_yaml(path)
    resolve_paths(content, path.resolve().parent)
    apply_overrides(content, overrides)
    return validate(RunConfig, content, file=path)


def apply_overrides(content: dict[str, Any], overrides: Sequence[str]) -> None:
    """Lays `key=value` overrides over a configuration; their paths are relative to the working folder."""
    for override in as_names(overrides, "overrides"):
        _apply(content, override)
    resolve_paths(content, Path.cwd())


def _apply(content: dict[str, Any], override: str) -> None:
    key, sign, text = override.partition("=")
    if not sign or not key:
        raise ConfigError(f"--set takes KEY=VALUE, received {override!r}; for example --set train.epochs=2")
    node: Any = content
    *parents, last = key.split(".")
    for depth, part in enumerate(parents):
        node = _descend(node, part, ".".join(parents[: depth + 1]))
    value = parse_value(text, key)
    if isinstance(node, list):
        node[_index(node, last, key)] = value
    elif isinstance(node, dict):
        node[last] = value
    else:
        raise ConfigError(f"--set {key}: '{'.'.join(parents)}' is a value, not a section")


def _descend(node: Any, part: str, so_far: str) -> Any:
    """The child of `node`: a key of a mapping (made if absent), or an item of a list by its name or number."""
    if isinstance(node, list):
        return node[_index(node, part, so_far)]
    if not isinstance(node, dict):
        raise ConfigError(f"--set {so_far}: what stands above it is a value, not a section")
    if node.get(part) is None:
        node[part] = {}
    return node[part]


def _index(items: list[Any], part: str, so_far: str) -> int:
    named = {str(i.get("name", i.get("column"))): n for n, i in enumerate(items) if isinstance(i, dict)}
    if part in named:
        return named[part]
    if part.isdigit() and int(part) < len(items):
        return int(part)
    raise ConfigError(f"--set {so_far}: no item '{part}'; there are: {', '.join(named) or len(items)}")


def resolve_paths(content: dict[str, Any], base: Path) -> None:
    """Makes data.path, data.parts and the paths of warm_start absolute.

    The paths of joins are relative to data.path and follow it; with data.parts they are made absolute here as well.
    """
    data = content.get("data")
    parts = data.get("parts") if isinstance(data, dict) else None
    if isinstance(data, dict) and isinstance(parts, dict):
        parts.update({part: absolute(path, base) for part, path in parts.items() if isinstance(path, str)})
        for join in data["join"] if isinstance(data.get("join"), list) else ():
            if isinstance(join, dict) and isinstance(join.get("path"), str):
                join["path"] = absolute(join["path"], base)
    warm_start = content.get("warm_start")
    for section in (content.get("data"), *(warm_start if isinstance(warm_start, list) else ())):
        if isinstance(section, dict) and isinstance(section.get("path"), str):
            section["path"] = absolute(section["path"], base)


def absolute(path: str, base: Path) -> str:
    """`path` made absolute against `base`; URIs (`scheme://`) stay as they are."""
    if "://" in path:
        return path
    return str((base / Path(path).expanduser()).absolute()) if not Path(path).is_absolute() else path


def differences(ours: Mapping[str, Any], theirs: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Paths at which two dumped configurations differ, each with both values: `tables.0.dim: 16 here, 8 there`."""
    found = []
    for key in sorted(set(ours) | set(theirs)):
        found += _difference(ours.get(key), theirs.get(key), f"{prefix}{key}")
    return found


def _difference(here: Any, there: Any, where: str) -> list[str]:
    if here == there:
        return []
    if isinstance(here, Mapping) and isinstance(there, Mapping):
        return differences(here, there, where + ".")
    if isinstance(here, list) and isinstance(there, list) and len(here) == len(there):
        return [
            line for i, (a, b) in enumerate(zip(here, there, strict=True)) for line in _difference(a, b, f"{where}.{i}")
        ]
    return [f"{where}: {here!r} here, {there!r} there"]
