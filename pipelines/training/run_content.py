"""What a version of a run records: what scoring needs, and where training stands.

This is the only place that knows how a run's content is laid out; docs/format.md lists the fields.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field

from embtables.inputs.features import FittedTransforms
from embtables.models.version_content import (
    CONTENT_FORMAT,
    Published,
    Scoring,
    ScoringContent,
    SideTableContent,
    TrainedSchema,
    read_content,
)
from embtables.pipelines.config import RunConfig
from embtables.schema import Model
from embtables.state.format.manifest import Manifest

Count = Annotated[int, Field(strict=True, ge=0, lt=2**63)]
Time = Annotated[int, Field(strict=True, ge=-(2**63), lt=2**63)]


class RunState(Model):
    """The state of a run that is not a tensor but must survive. Training changes it in place.

    Attributes:
        kind: what it trains on: the epochs of a log (`train`), a replay of one (`replay`), an event log (`events`).
        stretch: the number of the batch source's present stretch: of a log, how many epochs are done. `epoch` in files.
        position: of the batch source, as it writes and reads it; None at the beginning of a stretch.
        epoch_rows, total_steps: counted once, so that schedules are a pure function of the step.
        quarantined_rows: bad rows set aside so far, of all ranks; quarantined: of this stretch, by cause.
        quarantined_files: bad files with the reason.
        started_from: what the run began with, for its report.
        id_kinds: by column what the ids of features were made of: `strings`, `integers`, `times`.
        warnings: what the user was warned of.
        reader_files: of an event log, by table the file of the version that its reader goes on from.
        newest_event_us: the greatest event time of the rows trained on, microseconds since 1970-01-01 UTC.
        begin_after_us: of an event log, impressions up to this time give no samples: a run before had them.
    """

    model_config = ConfigDict(frozen=False)

    kind: Literal["train", "replay", "events"] = "train"
    step: Count = 0
    stretch: Count = Field(0, alias="epoch")
    position: dict[str, Any] | None = None
    rows: Count = 0
    train_seconds: Annotated[float, Field(strict=True, ge=0.0)] = 0.0
    epoch_rows: Count | None = None
    total_steps: Count | None = None
    best: Annotated[float, Field(strict=True)] | None = None
    best_step: Count | None = None
    evaluated_step: Count | None = None
    evaluations_without_gain: Count = 0
    finished: Annotated[bool, Field(strict=True)] = False
    quarantined_rows: Count = 0
    quarantined: dict[str, Count] = Field(default_factory=dict)
    quarantined_files: dict[str, str] = Field(default_factory=dict)
    started_from: dict[str, Any] = Field(default_factory=dict)
    id_kinds: dict[str, str] = Field(default_factory=dict)
    warnings: list[str] = Field(default_factory=list)
    reader_files: dict[str, str] = Field(default_factory=dict)
    newest_event_us: Time | None = None
    begin_after_us: Time | None = None


class RunContent(ScoringContent):
    """All of a version's content."""

    state: RunState


def run_content(version: Manifest) -> RunContent:
    """What a run's version says besides its tables and tensors.

    Raises:
        StateError: it is of another build, or edited; names the version and the field.
    """
    return read_content(RunContent, version, version.content)


def trained_schema(config: RunConfig) -> TrainedSchema:
    """The part of a configuration that a version records as `schema`."""
    return TrainedSchema(**{n: getattr(config, n) for n in TrainedSchema.model_fields if n != "name"})


def written_content(config: RunConfig, state: RunState, fitted: FittedTransforms) -> Mapping[str, Any]:
    """The content of a version of this run, as JSON."""
    return {**_scoring(config, fitted), "state": state.model_dump(mode="json", by_alias=True)}


def serving_content(
    config: RunConfig,
    fitted: FittedTransforms,
    side_tables: Sequence[SideTableContent],
    published: Published,
    candidate_key: str | None,
    id_kinds: Mapping[str, str],
) -> dict[str, Any]:
    """The content of a serving version of this run, as JSON: what scoring needs, and not where training stands."""
    return _scoring(config, fitted) | {
        "published": published.model_dump(mode="json"),
        "side_tables": [of.model_dump(mode="json") for of in side_tables],
        "candidate_key": candidate_key,
        "id_kinds": dict(id_kinds),
    }


def _scoring(config: RunConfig, fitted: FittedTransforms) -> dict[str, Any]:
    evaluate, train = config.evaluate, config.train
    calibrated = config.late is not None and config.late.correction == "calibration"
    scoring = Scoring(
        negative_sampling_rate=evaluate.negative_sampling_rate,
        precision=train.precision,
        late=config.late if calibrated else None,
    )
    running = config.running_columns()
    return {
        "format": CONTENT_FORMAT,
        "schema": trained_schema(config).model_dump(mode="json", exclude={"name"}),
        "seed": train.seed,
        "transforms": fitted.to_json(),
        # Without it where scores do not depend on it: builds that do not know it can read the version.
        "scoring": scoring.model_dump(mode="json", exclude=None if calibrated else {"late"}),
        **({} if running is None else {"running": running.model_dump(mode="json")}),
    }
