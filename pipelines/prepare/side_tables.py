"""What a server joins to requests: the side tables of the log, and what `data.prepare` made of the log's past.

    data.prepare --> by item, by user, by (user, item): the past as of the end of the log
    data.join    --> each side table: its key under the log's name, and its columns under the names that the model reads

Only columns that a feature or a dense column reads are published. Columns of a row alone (context columns of
`data.prepare`, its group, event time, `negative_rate`, `rule_score`) are the request's.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path, PurePath
from typing import Any, Literal

import pyarrow as pa

from embtables.errors import ConfigError
from embtables.models.version_content import SideTableContent
from embtables.pipelines.config import RunConfig
from embtables.pipelines.prepare.log_splits import with_absolute_joins, with_prepared_data
from embtables.pipelines.prepare.past_at_end import past_keys, read_past_at_end
from embtables.pipelines.sources.log import Log
from embtables.pipelines.sources.rows.join import SideTable
from embtables.schema import SampledNegatives, Schema
from embtables.state.format.side_file import side_file_name

Published = tuple[SideTableContent, pa.Table]


def published_side_tables(config: RunConfig, log: Log | None = None) -> list[Published]:
    """The side tables of a version for servers, in the order in which they are joined; each key once, none null.

    Args:
        config: the run's, with its `data.prepare`: not as a reader takes it (`with_prepared_data`).
        log: the log that the run has opened, whose side tables are taken as they are; by default they are read.

    Raises:
        DataError, BadFileError: a side table or the log cannot be read.
        StateError: the prepared examples cannot be written.
    """
    needed = columns_needed(config)
    found = []
    if config.data.prepare is not None:
        folder = Path(str(with_prepared_data(config, shown=False).data.path))
        found += list(_prepared(config.data.prepare, folder, needed))
    opened = [SideTable(join) for join in with_absolute_joins(config).data.join] if log is None else log.side_tables
    for join, name, side in zip(config.data.join, _names(config), opened, strict=True):
        table = side.rows(needed)
        if table.num_columns > 1:
            found.append((_content(name, (join.key,), table, join.on_missing), table))
    return [(of.model_copy(update={"file": side_file_name(n)}), table) for n, (of, table) in enumerate(found)]


def columns_needed(schema: Schema) -> set[str]:
    """The columns that scoring reads."""
    return {name for f in schema.features for name in f.columns} | {dense.column for dense in schema.dense}


def candidate_key(config: RunConfig) -> str | None:
    """The column that a bare candidate id is a value of: by default the item of `data.prepare`, else the key of the
    only join.

    Raises:
        ConfigError: `publish.candidate_key` names a column by which nothing is looked up and that no feature reads.
    """
    data = config.data
    named = None if config.publish is None else config.publish.candidate_key
    if named is not None:
        known = {join.key for join in data.join} | columns_needed(config)
        if data.prepare is not None:
            known |= {data.prepare.item, data.prepare.user}
        if named not in known:
            raise ConfigError(
                f"publish.candidate_key: no feature reads '{named}', and no side table is looked up by it; there are: "
                + ", ".join(sorted(known))
            )
        return named
    if data.prepare is not None:
        return data.prepare.item
    return data.join[0].key if len(data.join) == 1 else None


def _prepared(prepare: SampledNegatives, folder: Path, needed: set[str]) -> Iterator[Published]:
    for name, keys in past_keys(prepare).items():
        table = read_past_at_end(folder, name)
        columns = [column for column in table.column_names if column not in keys and column in needed]
        if columns:
            rows = table.num_rows - 1
            unseen = table.select(columns).slice(rows).to_pylist()[0]
            defaults = {column: value for column, value in unseen.items() if value is not None}
            table = table.select([*keys, *columns]).slice(0, rows)
            yield _content(f"data.prepare by {' and '.join(keys)}", keys, table, "defaults", defaults), table


def _content(
    name: str,
    keys: tuple[str, ...],
    table: pa.Table,
    missing: Literal["error", "null", "defaults"],
    defaults: dict[str, Any] | None = None,
) -> SideTableContent:
    columns = tuple(column for column in table.column_names if column not in keys)
    return SideTableContent(
        name=name,
        keys=keys,
        columns=columns,
        file="",
        rows=table.num_rows,
        missing=missing,
        defaults=defaults or {},
    )


def _names(config: RunConfig) -> list[str]:
    """A name for each join: its path as it is written in the configuration, with its key where two have the same."""
    base = config.data.path
    paths = [_below(join.path, base) for join in config.data.join]
    twice = {path for path, count in Counter(paths).items() if count > 1}
    return [
        f"{path} by {join.key}" if path in twice else path for path, join in zip(paths, config.data.join, strict=True)
    ]


def _below(path: str, base: str | None) -> str:
    """A path relative to the log's, if it lies there."""
    if base is None or not PurePath(path).is_relative_to(base):
        return path
    return str(PurePath(path).relative_to(base))
