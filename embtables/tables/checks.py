"""What `Tables` is made of, checked before anything is made."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence

from embtables.errors import ConfigError
from embtables.given import as_choice, as_names, need, need_all, need_mapping
from embtables.ids import Artifacts
from embtables.rows.stores import ROW_STORES
from embtables.schema import CollisionlessTable, Feature, FixedTable, Table


def check_made_of(
    tables: Sequence[Table],
    features: Sequence[Feature],
    row_store: str,
    replicated: Collection[str],
    artifacts: Mapping[str, Artifacts],
) -> None:
    """The arguments of `Tables`.

    Raises:
        ConfigError: something is no table or feature, two tables have one name, a feature reads a table twice or one
            that is not given, or a name is unknown.
    """
    need_all(tables, FixedTable | CollisionlessTable, "tables", "FixedTable or CollisionlessTable")
    need_all(features, Feature, "features", "Feature")
    names = Counter(table.name for table in tables)
    for name, times in names.items():
        if times > 1:
            raise ConfigError(f"is the name of {times} tables; give each its own", table=name)
    reads = Counter((feature.name, feature.table) for feature in features)
    for (feature, table), times in reads.items():
        if table not in names:
            raise ConfigError(f"names table '{table}', which is not given", feature=feature)
        if times > 1:
            raise ConfigError(f"reads table '{table}' {times} times; once is enough", feature=feature)
    as_choice(row_store, ROW_STORES, "row_store")
    need_mapping(artifacts, "artifacts", "a dictionary of Artifacts by feature")
    for name in as_names(replicated, "replicated"):
        if name not in names:
            raise ConfigError("is to be replicated, but is not given", table=name)
    for name in artifacts:
        if name not in {feature for feature, _ in reads}:
            raise ConfigError("has artifacts, but is not given", feature=name)
        need(artifacts[name], Artifacts, "artifacts", "a dictionary of Artifacts by feature")
