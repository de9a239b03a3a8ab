"""The columns that `data.prepare` reads of a log, and what their types must be; the footers tell."""

from __future__ import annotations

import pyarrow as pa

from embtables.arrow.types import is_text, plain_type
from embtables.errors import DataError
from embtables.pipelines.sources.files.source import Source
from embtables.schema import SampledNegatives


def source_columns(config: SampledNegatives) -> list[str]:
    """The columns that the configuration names, each once."""
    price = [config.price] if config.price is not None else []
    wanted = [config.item, config.user, config.group, config.event_time, *price, *config.context]
    wanted += [name for feature in config.running for name in feature.columns]
    return list(dict.fromkeys(wanted + [c.column for c in config.where]))


def id_columns(config: SampledNegatives) -> tuple[str, ...]:
    """Those of them that hold ids."""
    listed = [feature.last_n.column for feature in config.running if feature.last_n is not None]
    return tuple(dict.fromkeys([config.item, config.user, config.group, *listed]))


def check_source(config: SampledNegatives, source: Source, path: str) -> None:
    """Looks at the footers of a log that is to be prepared.

    Args:
        path: the log's, for errors.

    Raises:
        DataError: there are no rows; a column is missing, differs between files, or is of a type that cannot be what
            the configuration makes of it.
    """
    for name in source_columns(config):
        source.column_type(name, ids=name in id_columns(config))
    for file in source.files:
        for role in ("item", "user", "group", "event_time", "price"):
            name = getattr(config, role)
            if name in file.schema.names:
                _check_role(role, file.schema.field(name).type, file=file.path, column=name)
    if not any(file.num_rows for file in source.files):
        raise DataError("holds no rows to prepare", path=path)


def _check_role(role: str, kind: pa.DataType, **path: object) -> None:
    kind = plain_type(kind)
    if pa.types.is_null(kind):
        return
    is_time = pa.types.is_timestamp(kind) or pa.types.is_date(kind)
    is_whole = pa.types.is_integer(kind) or pa.types.is_boolean(kind)
    is_whole = is_whole or (pa.types.is_decimal(kind) and kind.scale == 0)
    if role == "event_time":
        if not is_time:
            raise DataError(f"holds {kind}; data.prepare.event_time needs timestamps or dates", **path)
    elif role == "price":
        if not (is_whole or pa.types.is_floating(kind) or pa.types.is_decimal(kind)):
            raise DataError(f"holds {kind}; data.prepare.price needs numbers", **path)
    elif not (is_whole or is_time or is_text(kind)):
        hint = "; cast it to an integer" if pa.types.is_floating(kind) else ""
        raise DataError(f"holds {kind}, which cannot be the ids of data.prepare.{role}{hint}", **path)
