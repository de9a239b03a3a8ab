"""The part of a configuration that trained state depends on, compared with what a version recorded."""

from __future__ import annotations

from typing import Any

from embtables.errors import StateError
from embtables.models.version_content import TrainedSchema
from embtables.pipelines.config import RunConfig, differences
from embtables.pipelines.training.run_content import RunContent, trained_schema
from embtables.pipelines.training.start.column_origins import other_origins
from embtables.schema import CollisionlessTable

# A run may go on with other weights of its rows, as with other rows; its name says nothing.
_NOT_LEARNED = {"name", "sample_weight"}


def refuse_other_schema(config: RunConfig, saved: RunContent) -> None:
    """Raises StateError, with the fields that differ, unless the version is of this schema, model and seed.

    What the version's build did not record yet is not compared.
    """
    found = differences(_compared(trained_schema(config), saved), _compared(saved.trained, saved))
    seed = config.train.seed if saved.seed is None else saved.seed
    if seed != config.train.seed:
        found = [*found, f"train.seed: {config.train.seed} here, {seed} there"]
    if found:
        raise StateError(
            "the checkpoint belongs to another schema (here: this configuration, there: the checkpoint): "
            + "; ".join(found[:8])
        )


def refuse_other_columns(former: RunConfig, config: RunConfig) -> None:
    """Raises StateError, with both origins, where a column has values that are made of something else than before.

    Args:
        former: the run's configuration as it was, because versions do not record the data section.
    """
    found = [f"column {column} {other}" for column, other in other_origins(former, config).items()]
    if found:
        raise StateError(
            "the checkpoint belongs to other columns (here: this configuration, there: the run's): "
            + "; ".join(found[:8])
        )


def _compared(schema: TrainedSchema, saved: RunContent) -> dict[str, Any]:
    left_out = set(_NOT_LEARNED)
    if "event_time" not in saved.trained.model_fields_set or not _has_clock(saved.trained):
        left_out.add("event_time")
    found = schema.model_dump(mode="json", exclude=left_out)
    for table in found["tables"]:
        if table.get("share_ids"):  # what it is by default, too
            del table["share_ids"]
    return found


def _has_clock(schema: TrainedSchema) -> bool:
    """Whether tables remember event times."""
    return any(isinstance(table, CollisionlessTable) and table.ttl_seconds is not None for table in schema.tables)
