"""`audit`: whether a deleted key is anywhere: in rows, waiting keys or side tables of any version, or in a live table.

    id of a feature --every feature that reads the column--> keys by table
    every manifest of the folder --its own files, each block verified--> keys that are there

Nothing is taken from indexes or counts: all keys of all files are read. A tombstone has the key, too, since followers
must learn of it; it says that the key is gone and counts as no finding.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from embtables.errors import ConfigError, RefusedError, StateError
from embtables.ids.strings import hash_strings
from embtables.inputs.columns import feature_ids
from embtables.inputs.values import one_array
from embtables.models.build import features_of, tables_of
from embtables.models.version_content import ScoringContent, scoring_content
from embtables.schema import FixedTable
from embtables.schema.schema import LINEAR_PREFIX
from embtables.serving import wire
from embtables.serving.client import Client
from embtables.serving.client.exchanges import embed_answer
from embtables.state.folder.version_folder import VERSIONS, StateFolder
from embtables.state.format.manifest import PURPOSES, Manifest
from embtables.state.format.side_file import is_side_file, parse_side_file
from embtables.state.format.table_files import TOMBSTONES_SCHEMA, WAITING_SCHEMA
from embtables.state.read.range_reader import RangeReader
from embtables.state.read.table_file import TableFile
from embtables.state.read.version_reader import read_artifacts
from embtables.tables.table_feature import TableFeature, table_features

Int64s = npt.NDArray[np.int64]
_SCHEMAS = {"rows": None, "waiting": WAITING_SCHEMA, "tombstones": TOMBSTONES_SCHEMA}


@dataclass(frozen=True, slots=True)
class Finding:
    """Where a key is.

    Attributes:
        version: `serving-3`; None: a live table.
        what: row, waiting key, tombstone, value of a side table, or live row.
        table: of embeddings, or the side table.
        file: of the version; of a live table the server's address.
    """

    version: str | None
    what: str
    table: str
    file: str


@dataclass(slots=True)
class Audit:
    """What was looked for, what was read, and where it is.

    Attributes:
        keys: by table, what was looked for.
        versions, files: how many were read.
        found: empty where the key is nowhere.
        tombstones: versions that say it is gone.
        garbage: folders of no version, left by a write that failed or still goes on; they were not read.
        live: the versions of the server that was asked.
    """

    keys: dict[str, list[int]]
    versions: int = 0
    files: int = 0
    found: list[Finding] = field(default_factory=list)
    tombstones: list[Finding] = field(default_factory=list)
    garbage: list[str] = field(default_factory=list)
    live: wire.Versions | None = None

    def report(self) -> dict[str, Any]:
        """As JSON."""
        live = None if self.live is None else {"dense": self.live.dense, "rows": self.live.rows}
        return {**asdict(self), "live": live, "clean": not self.found}


def audit(
    state: StateFolder, key: str, *, table: str | None = None, feature: str | None = None, server: str | None = None
) -> Audit:
    """Looks for a key, or for an id of a feature, in all versions of a folder and in a live table.

    Args:
        key: of `table`; or a raw id of `feature`: text that is an integer is looked for as a number and as text.
        server: address of a server; None: none is asked.

    Raises:
        ConfigError: not one of table and feature is given, there is none of that name, or its table is a fixed one,
            where ids have no row of their own.
        StateError: there is no version, or a file is damaged: then nothing can be said.
        ServingError: the server has no answer.
    """
    if (table is None) == (feature is None):
        raise ConfigError("give --table and one of its keys, or --feature and one of its ids", argument="table")
    manifests = [state.manifest(purpose, n) for purpose in PURPOSES for n in state.sequences(purpose)]
    if not manifests:
        raise StateError("there is no version", folder=state.folder.root)
    newest = manifests[-1]
    content = scoring_content(newest)
    readers = _readers(state, newest, content)
    keys = _keys_of_id(readers, key, feature) if feature is not None else _keys_of_table(readers, key, str(table))
    found = Audit({name: sorted(set(of.tolist())) for name, of in keys.items()})
    folders = {manifest.folder for manifest in manifests}
    found.garbage = sorted(name for name in state.folder.names(VERSIONS) if name not in folders)
    for manifest in manifests:
        found.versions += 1
        for each in (
            *_in_tables(state, manifest, keys, found),
            *_in_side_tables(state, manifest, readers, keys, found),
        ):
            (found.tombstones if each.what == "tombstone" else found.found).append(each)
    if server is not None:
        _in_live_tables(server, keys, found)
    return found


def _readers(state: StateFolder, newest: Manifest, content: ScoringContent) -> tuple[TableFeature, ...]:
    schema, model = content.trained, content.trained.model
    tables = {each.name: each for each in tables_of(schema, model)}
    features = features_of(schema, model)
    snapshot = state.chain(newest.purpose, newest.sequence)[0]
    return table_features(features, [tables[each.table] for each in features], read_artifacts(state, snapshot))


def _keys_of_table(readers: tuple[TableFeature, ...], key: str, table: str) -> dict[str, Int64s]:
    known = dict.fromkeys(read.table.name for read in readers)
    if table not in known:
        raise ConfigError(f"there is no such table; there are: {', '.join(known)}", table=table)
    try:
        value = int(key)
    except ValueError:
        value = 2**63
    if not -(2**63) <= value < 2**63:
        raise ConfigError(f"a key is an integer of 64 bits, received '{key}'; an id needs --feature", table=table)
    names = [name for name in (table, LINEAR_PREFIX + table) if name in known]
    _refuse_fixed(readers, names)
    return {name: np.array([value], np.int64) for name in names}


def _keys_of_id(readers: tuple[TableFeature, ...], key: str, feature: str) -> dict[str, Int64s]:
    """The keys of an id by table, of each feature that reads the same column."""
    known = {read.feature.name: read.feature for read in readers}
    if feature not in known:
        raise ConfigError(f"there is no such feature; there are: {', '.join(known)}", feature=feature)
    if known[feature].cross is not None:
        raise ConfigError("an id of a cross is made of several; give --table and its key", feature=feature)
    ids = [hash_strings(pa.array([key]))[0]]
    try:
        number = int(key)
    except ValueError:
        number = 2**64
    if -(2**63) <= number < 2**64:
        ids.append(np.int64(number if number < 2**63 else number - 2**64))
    same = [read for read in readers if read.feature.columns == known[feature].columns]
    _refuse_fixed(readers, [read.table.name for read in same if read.feature.name == feature])
    found: dict[str, Int64s] = {}
    for read in same:
        if not isinstance(read.table, FixedTable):
            keys = read.encoder.encode(np.array(ids, np.int64))
            found[read.table.name] = np.union1d(found.get(read.table.name, keys), keys)
    return found


def _refuse_fixed(readers: tuple[TableFeature, ...], tables: list[str]) -> None:
    for read in readers:
        if read.table.name in tables and isinstance(read.table, FixedTable):
            reason = "is a fixed table, whose rows belong to no id alone: no deletion can be shown"
            raise ConfigError(reason, table=read.table.name)


def _in_tables(state: StateFolder, manifest: Manifest, keys: Mapping[str, Int64s], found: Audit) -> Iterator[Finding]:
    names = {"rows": "row", "waiting": "waiting key", "tombstones": "tombstone"}
    for table, wanted in keys.items():
        if table not in manifest.tables:  # the model was another one then
            continue
        for kind, what in names.items():
            for file in manifest.files_of(table, kind):
                found.files += 1
                content = TableFile(state, manifest, file, _SCHEMAS[kind])
                if np.isin(wanted, content.read("key", 0, content.rows)).any():
                    yield Finding(manifest.name, what, table, file)


def _in_side_tables(
    state: StateFolder,
    manifest: Manifest,
    readers: tuple[TableFeature, ...],
    keys: Mapping[str, Int64s],
    found: Audit,
) -> Iterator[Finding]:
    """Side tables of which a value, read as a feature reads it, is one of the keys."""
    content = scoring_content(manifest)
    names = {of.file: of.name for of in content.side_tables}
    for file in manifest.files:
        if not is_side_file(file):
            continue
        found.files += 1
        reader = RangeReader(state, manifest, file)
        side = parse_side_file(reader.read_all(), reader.path)
        for read in readers:
            wanted, feature = keys.get(read.table.name), read.feature
            if wanted is None or not set(feature.columns) <= set(side.column_names):
                continue
            boundaries = content.fitted.boundaries(feature.name) if feature.num_buckets is not None else None
            ids = feature_ids(feature, {name: one_array(side[name]) for name in feature.columns}, boundaries)
            if np.isin(read.encoder.encode(ids.values), wanted).any():
                yield Finding(manifest.name, "value of a side table", names.get(file, file), file)
                break


def _in_live_tables(server: str, keys: Mapping[str, Int64s], found: Audit) -> None:
    with Client(server) as client:
        for table, wanted in keys.items():
            for key in wanted.tolist():
                try:
                    answer = client.call(embed_answer(key, table))
                except RefusedError as error:
                    if error.status != 404:
                        raise
                    reason = f"the server has no table '{table}': it serves another model"
                    raise ConfigError(reason, server=server) from error
                found.live = answer.versions
                if not answer.cold:
                    found.found.append(Finding(None, "live row", table, server))
