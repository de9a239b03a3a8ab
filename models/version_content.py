"""What a version of a trained model records besides its tables and tensors, as the `content` of its manifest.

`ScoringContent` is the part that scoring needs, so that a version can be served without the configuration of its run.
A training run's versions hold more: embtables.pipelines.training.run_content.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeVar

from pydantic import ConfigDict, Field, ValidationError, model_validator

from embtables.errors import StateError
from embtables.inputs.id_kinds import IdKind
from embtables.inputs.transforms import FittedTransforms, TransformsContent
from embtables.models.registry import ModelConfig
from embtables.schema import LateActions, Model, Running, Schema, error_lines
from embtables.state.format.manifest import Manifest

CONTENT_FORMAT = 1
OF_TRAINING = "state"  # what a run needs to go on, and nobody else

C = TypeVar("C", bound="ScoringContent")


class TrainedSchema(Schema):
    """A schema and the model over it. Without a name: two runs of other names may have the same."""

    model: ModelConfig


class Scoring(Model):
    """What scores depend on besides schema and weights. None of it changes what was learned.

    Attributes:
        negative_sampling_rate: share of negatives that the log kept; scores are corrected by its log-odds.
        precision: bf16: autocast of the dense net.
        late: how scores are calibrated for positives that come after their negatives; None: they are not.
    """

    negative_sampling_rate: Annotated[float, Field(strict=True, gt=0.0, le=1.0)] | None = None
    precision: Literal["fp32", "bf16"] = "fp32"
    late: LateActions | None = None


class SideTableContent(Model):
    """A side table that a server joins to requests, as it lies beside the version's other files.

    Attributes:
        name: the path in the configuration, or what the columns were prepared from.
        keys: columns of a request that are looked up, one or more.
        columns: what it gives, under the names that the model reads.
        file: an Arrow IPC file among the version's, with the keys (unique) and the columns. A delta that does not list
            it has that of the version before.
        rows: of the file.
        missing: what a key that it lacks gives: an error, nulls, or `defaults`.
        defaults: by column, for `missing: defaults`.
    """

    name: str
    keys: Annotated[tuple[str, ...], Field(min_length=1)]
    columns: tuple[str, ...]
    file: str
    rows: Annotated[int, Field(strict=True, ge=0)]
    missing: Literal["error", "null", "defaults"] = "error"
    defaults: dict[str, Any] = Field(default_factory=dict)


class Published(Model):
    """What a serving version was made of.

    Attributes:
        run: the folder's name of the training run.
        step: of that run.
        version: of a published checkpoint its name, `resume-12`; None where training published its own state.
    """

    run: str
    step: Annotated[int, Field(strict=True, ge=0, lt=2**63)]
    version: str | None = None


class ScoringContent(Model):
    """All that scoring needs of a version's content.

    Attributes:
        format: 0: written before it was recorded, and without `scoring`, `schema.event_time` and
            `schema.sample_weight`, which then have their defaults.
        seed: of the run; tables derive theirs from it and their names. None in versions older than it.
        transforms: fitted on training data; those that the schema asks for.
        side_tables: of a serving version, what its server joins to requests.
        published: of a serving version, where it comes from.
        candidate_key: the column whose value a candidate is that a request names by its id alone.
        id_kinds: of a serving version, by column what training made ids of; a request must have the same.
        running: the columns that a server computes from events; None: there are none.
    """

    # Written and read under its own name; as an attribute it would hide one of pydantic's.
    model_config = ConfigDict(populate_by_name=True)

    format: Literal[0, 1] = 0
    trained: TrainedSchema = Field(alias="schema")
    seed: Annotated[int, Field(strict=True, ge=0, lt=2**63)] | None = None
    transforms: TransformsContent
    scoring: Scoring = Scoring()
    side_tables: tuple[SideTableContent, ...] = ()
    published: Published | None = None
    candidate_key: str | None = None
    id_kinds: dict[str, IdKind] = Field(default_factory=dict)
    running: Running | None = None

    @model_validator(mode="after")
    def _transforms_fit(self) -> ScoringContent:
        try:
            self.transforms.check(self.trained)
        except ValueError as error:
            raise ValueError(f"transforms.{error}") from None
        return self

    @model_validator(mode="after")
    def _side_tables_apart(self) -> ScoringContent:
        sides = self.side_tables
        for what, names in (
            ("the name", [side.name for side in sides]),
            ("the file", [side.file for side in sides]),
            ("the column", [column for side in sides for column in side.columns]),
        ):
            twice = next((name for name in names if names.count(name) > 1), None)
            if twice is not None:
                raise ValueError(f"side_tables: two have {what} '{twice}'")
        return self

    @property
    def fitted(self) -> FittedTransforms:
        """The transforms, ready to apply."""
        return FittedTransforms.of(self.transforms)


def step_of(version: Manifest) -> int | None:
    """The step of training that a version is of; None: it does not say, or another program has written it."""
    origin = version.content.get(OF_TRAINING, version.content.get("published"))
    step = origin.get("step") if isinstance(origin, dict) else None
    return step if type(step) is int else None


def scoring_content(version: Manifest) -> ScoringContent:
    """What a version says about scoring; its training state is not looked at.

    Raises:
        StateError: see `read_content`.
    """
    return read_content(ScoringContent, version, {k: v for k, v in version.content.items() if k != OF_TRAINING})


def read_content(model: type[C], version: Manifest, content: Mapping[str, Any]) -> C:
    """The content of a version as a `model`.

    Raises:
        StateError: a field is missing, unknown or of another type: another build wrote it, or it was edited. One
            sentence, which names the version and the first such field.
    """
    try:
        return model.model_validate(content)
    except ValidationError as error:
        first, *others = error_lines(error, "content")
        if error.errors()[0]["type"] in ("missing_code", "broken_code"):
            raise StateError(f"this build cannot read its content: {first}", version=version.name) from None
        more = f" (and {len(others)} more)" if others else ""
        raise StateError(
            f"this build cannot read its content: {first}{more}; "
            "read it with the build that wrote it, or take an older version",
            version=version.name,
        ) from None
