"""The files that one rank adds to a version: rows, waiting keys, tombstones and sketches of tables; tensors."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import safetensors.numpy

from embtables.errors import StateError
from embtables.ids import Artifacts
from embtables.keyspace import Buckets, bucket_offsets, bucket_order, check_keys
from embtables.rows.content import TableContent
from embtables.rows.optimizers import WEIGHT
from embtables.rows.stored_table import StoredTable
from embtables.state.folder.version_folder import NewFile
from embtables.state.format.manifest import table_file
from embtables.state.format.projection import Projection, project
from embtables.state.format.table_files import (
    file_columns,
    rows_file,
    sketch_file,
    tombstones_file,
    waiting_file,
)
from embtables.state.format.version import DENSE_FILE, TABLES_FILE, Tensors, artifact_file
from embtables.state.format.weight_dtype import RoundingError, WeightDtype, WeightEncoder
from embtables.state.write.ranks import RankPart, check_agreed, shared_of


@dataclass
class RankFiles:
    """What one rank adds to a version.

    Attributes:
        files: by name; what they are made of may be read while they are written.
        tables: for each table the names of this rank's `files`, and what must be equal at all ranks (`shared`).
        encoders: of tables whose weights are rounded while they are written; they know the error afterwards.
    """

    files: dict[str, NewFile]
    tables: dict[str, dict[str, Any]]
    encoders: dict[str, WeightEncoder] = field(default_factory=dict)

    def described(self) -> dict[str, dict[str, Any]]:
        """`tables`, with the errors of rounding: asked for when all files are written."""
        return {
            name: entry | ({"error": asdict(self.encoders[name].error)} if name in self.encoders else {})
            for name, entry in self.tables.items()
        }


def rank_files(
    stored: Sequence[StoredTable],
    rank: int,
    part: RankPart,
    tensors: Tensors,
    projection: Projection,
    dtype: WeightDtype = "fp32",
) -> RankFiles:
    """One rank's files of a version. Of `weights`, one that is not finite raises StateError when it is written.

    Args:
        tensors: everything dense, by name; rank 0 alone writes it, and the cold rows.
        dtype: of the weights of rows, in a version of `weights`.

    Raises:
        StateError: the rank has a key of another's buckets, or a weight of a cold row is not finite.
    """
    found = RankFiles({}, {})
    beside: Tensors = {}
    for table in stored:
        name = table.config.name
        content = project(part.tables[name], projection)
        encoder = None if projection == "full" else _encoder(dtype, name, content)
        own = _files(table, rank, content, part.buckets, projection, (dtype, encoder))
        found.files |= own
        found.tables[name] = {"files": list(own), "shared": shared_of(content), "figures": content.figures}
        if encoder is not None:
            for values in content.cold.values():
                need_finite_cold(values, name)
            if dtype != "fp32":
                found.encoders[name] = encoder
                found.tables[name]["dtype"] = dtype
        found.tables[name] |= {} if table.keys_of is None else {"keys_of": table.keys_of}
        beside |= {f"{name}/cold/{of}": values for of, values in content.cold.items()}
    for file, named in ((TABLES_FILE, beside), (DENSE_FILE, tensors)) if rank == 0 else ():
        # ascontiguousarray would make a vector of a scalar.
        contiguous = {name: np.asarray(values, order="C") for name, values in named.items()}
        found.files[file] = NewFile([safetensors.numpy.save(contiguous)])
    return found


def artifact_files(artifacts: Mapping[str, Artifacts]) -> dict[str, NewFile]:
    """The data of the features' encoders, a file each, which rank 0 writes with a snapshot."""
    return {
        artifact_file(feature, name): NewFile([content])
        for feature, of in artifacts.items()
        for name, content in of.items()
    }


def table_entries(ranks: Sequence[Mapping[str, Mapping[str, Any]]]) -> dict[str, dict[str, Any]]:
    """What the manifest says of the tables, from the `tables` of each rank's RankFiles.

    Raises:
        StateError: the ranks differ in what they share.
    """
    found = {}
    for name in ranks[0]:
        shared = [rank[name]["shared"] for rank in ranks]
        check_agreed(shared, name)
        clock = {of: shared[0][of] for of in ("now", "steps", "updates")}
        found[name] = {**clock, "files": [file for rank in ranks for file in rank[name]["files"]]}
        found[name] |= {"scale": shared[0]["scale"]} if shared[0]["scale"] != 1.0 else {}
        figures: Counter[str] = Counter()
        for rank in ranks:
            figures.update(rank[name]["figures"])
        found[name] |= {"figures": dict(figures)} if figures else {}
        found[name] |= _rounding([rank[name] for rank in ranks])
        found[name] |= {"keys_of": ranks[0][name]["keys_of"]} if "keys_of" in ranks[0][name] else {}
    return found


def _rounding(ranks: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """How the weights of a table are stored, and what that did to them; nothing for float32."""
    if "dtype" not in ranks[0]:
        return {}
    error = RoundingError()
    for rank in ranks:
        error.add(RoundingError(**rank["error"]))
    return {"dtype": ranks[0]["dtype"], "error": error.to_json()}


def _encoder(dtype: WeightDtype, table: str, content: TableContent) -> WeightEncoder:
    return WeightEncoder(dtype, table, lambda at: int(content.keys[at]), content.scale)


def need_finite_cold(values: npt.NDArray[Any], table: str) -> None:
    """Raises StateError if the weights of a table's cold row are not finite, which no server is to read."""
    if not np.isfinite(values).all():
        raise StateError("its cold row is not finite; versions for servers hold finite weights alone", table=table)


def _files(
    table: StoredTable,
    rank: int,
    content: TableContent,
    buckets: Buckets,
    projection: Projection,
    weights: tuple[WeightDtype, WeightEncoder | None],
) -> dict[str, NewFile]:
    """One rank's files of a table."""
    dtype, encoder = weights
    gone = content.tombstones[bucket_order(content.tombstones, table.seed)]
    for keys in (content.keys, content.waiting, gone):
        check_keys(keys, table.seed, buckets, table=table.config.name, rank=rank)
    begins = bucket_offsets(content.keys, table.seed) if content.begins is None else content.begins
    columns = file_columns(content, table.format)
    if encoder is not None:
        columns[WEIGHT] = encoder.streamed(columns[WEIGHT])
    chunks = rows_file(columns, table.format, table.columns, begins, projection, dtype)
    found = {"rows": NewFile(chunks, len(content.keys), buckets)}
    if len(content.waiting):
        found["waiting"] = NewFile(waiting_file(content, table.seed), len(content.waiting), buckets)
    if len(gone):
        found["tombstones"] = NewFile(tombstones_file(gone, table.seed), len(gone), buckets)
    if len(content.sketch):
        found["sketch"] = NewFile(sketch_file(content.sketch, buckets), buckets[1] - buckets[0], buckets)
    return {table_file(table.config.name, what, rank): file for what, file in found.items()}
