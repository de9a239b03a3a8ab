"""The manifest: the file that makes a version exist. docs/format.md says what each field means.

It is JSON in one canonical form (sorted keys, no spaces), so that its checksum and the schema's hash have one value.
"""

from __future__ import annotations

import json
import re
from typing import Annotated, Any, Literal

import xxhash
from pydantic import Field, StringConstraints, ValidationError, model_validator

from embtables.errors import StateError
from embtables.keyspace import NUM_BUCKETS, check_tiles
from embtables.rows.content import LEAST_SCALE
from embtables.schema.base import Model, Name, config_error
from embtables.state.format import checksums
from embtables.state.format.json_values import parse_json
from embtables.state.format.projection import Projection
from embtables.state.format.weight_dtype import WeightDtype

FORMAT = 0
MAX_BYTES = 64 << 20
Purpose = Literal["resume", "serving"]
PURPOSES: tuple[Purpose, ...] = ("resume", "serving")

Digest = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{32}$")]
FileName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.\-]{0,254}$")]
Count = Annotated[int, Field(strict=True, ge=0, lt=2**63)]
# More steps, and what counts add up to, must have room in 63 bits.
Growing = Annotated[int, Field(strict=True, ge=0, lt=2**61)]
Scale = Annotated[float, Field(strict=True, ge=LEAST_SCALE, le=1.0)]
Sequence = Annotated[int, Field(strict=True, ge=1, le=10**9)]
Bucket = Annotated[int, Field(strict=True, ge=0, le=NUM_BUCKETS)]
_OF_A_RANK = re.compile(r"(rows|waiting|tombstones|sketch)\.(0|[1-9][0-9]{0,3})\.arrow")


class File(Model):
    """A file of the version: its bytes, their checksum and, for a table's file, how many rows it has.

    `buckets` is the range [first, end) of the key space that a table's file may hold; `blocks` has the checksums of a
    file's blocks if it is longer than one.
    """

    bytes: Count
    xxh3: Digest
    rows: Count | None = None
    buckets: tuple[Bucket, Bucket] | None = None
    blocks: list[Digest] = Field(default_factory=list)

    @model_validator(mode="after")
    def _check(self) -> File:
        needed = -(-self.bytes // checksums.BLOCK) if self.bytes > checksums.BLOCK else 0
        if len(self.blocks) != needed:
            raise ValueError(f"has {len(self.blocks):,} checksums of blocks, its {self.bytes:,} bytes need {needed:,}")
        return self


class Rounding(Model):
    """How far weights in files are from those they were made of, over all values of the version's rows."""

    max_abs: Annotated[float, Field(strict=True, ge=0.0, allow_inf_nan=False)]
    rms: Annotated[float, Field(strict=True, ge=0.0, allow_inf_nan=False)]


class TableEntry(Model):
    """What a version says of a table besides its files.

    `figures`: counts since the table was made, summed over ranks; for a table with a ttl also how many rows and waiting
    keys it held, those past their ttl included. Counts of 0 are absent. `keys_of`: the table whose keys it shares, if
    any; the seed of that table then decides in which bucket a row is. `scale`: a weight, also one that a version before
    wrote, is this in float32 times what the files have. `dtype`: how files have the weights of rows; `error`: what
    rounding to it did.
    """

    now: Annotated[int, Field(strict=True, ge=0, lt=2**32)]
    steps: Growing
    updates: Growing
    figures: dict[Name, Growing] = Field(default_factory=dict)
    keys_of: Name | None = None
    scale: Scale = 1.0
    dtype: WeightDtype = "fp32"
    error: Rounding | None = None
    files: list[FileName]


class Manifest(Model):
    """One version of a set of tables: a snapshot if `parent` is None, else a delta to its parent.

    `projection` says which part of the tables it holds; `same_as`, only in a compacted chain, names the folder of the
    version with the same content.
    """

    format: Literal[0]
    purpose: Purpose
    sequence: Sequence
    parent: Sequence | None
    writer: Growing
    written: Annotated[str, StringConstraints(pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$")]
    folder: FileName
    buckets: Count
    files: dict[FileName, File]
    tables: dict[Name, TableEntry]
    schema_hash: Digest
    content: dict[str, Any]
    projection: Projection = "full"
    same_as: FileName | None = None
    checksum: Digest

    @model_validator(mode="after")
    def _check(self) -> Manifest:
        if self.parent is not None and self.parent != self.sequence - 1:
            raise ValueError(f"the parent of {self.sequence} must be {self.sequence - 1}, received {self.parent}")
        if self.parent is not None and self.same_as is not None:
            raise ValueError("is a delta; only a snapshot can be the same as another version")
        if self.buckets != NUM_BUCKETS:
            raise ValueError(f"has {self.buckets} buckets, this build has {NUM_BUCKETS}")
        for table, entry in self.tables.items():
            self._check_shared(table, entry)
            if entry.dtype != "fp32" and self.projection != "weights":
                raise ValueError(f"table {table} has weights in {entry.dtype}, which only versions of weights have")
            unknown = [name for name in entry.files if name not in self.files]
            if unknown:
                raise ValueError(f"table {table} has a file '{unknown[0]}' that is not listed")
            _check_ranks(table, {name: self.files[name] for name in entry.files}, len(entry.files))
        return self

    def _check_shared(self, table: str, entry: TableEntry) -> None:
        if entry.keys_of is None:
            return
        leader = self.tables.get(entry.keys_of)
        if leader is None or leader.keys_of is not None:
            raise ValueError(f"table {table} shares the keys of {entry.keys_of}, which has none of its own here")
        if (entry.now, entry.steps) != (leader.now, leader.steps):
            raise ValueError(
                f"table {table} has the clock {entry.now} after {entry.steps} steps; {entry.keys_of}, whose keys it "
                f"shares, has {leader.now} after {leader.steps}"
            )

    def files_of(self, table: str, what: str) -> list[str]:
        """A table's files of rows, waiting keys, tombstones or the sketch, by bucket."""
        names = [name for name in self.tables[table].files if _parsed(table, name)[0] == what]
        return sorted(names, key=lambda name: self.files[name].buckets or (0, 0))

    def rows_of(self, table: str, what: str) -> int:
        """Rows of a table's files of that kind."""
        return sum(self.files[name].rows or 0 for name in self.files_of(table, what))

    @property
    def name(self) -> str:
        """What users call the version: `resume-12`."""
        return f"{self.purpose}-{self.sequence}"


def table_file(table: str, what: str, rank: int) -> str:
    """The name of a table's file: `user.rows.0.arrow`."""
    return f"{table}.{what}.{rank}.arrow"


def _parsed(table: str, name: str) -> tuple[str, int]:
    """What a table's file holds, and the rank that wrote it. Raises ValueError if it is not a table's file."""
    found = _OF_A_RANK.fullmatch(name.removeprefix(f"{table}."))
    if found is None or name != table_file(table, found[1], int(found[2])):
        raise ValueError(f"table {table} has a file '{name}', which is not the name of a table's file")
    return found[1], int(found[2])


def _check_ranks(table: str, files: dict[str, File], listed: int) -> None:
    """Every bucket is one rank's, and a rank's files are all of the same buckets."""
    if len(files) != listed:
        raise ValueError(f"table {table} lists a file twice")
    parsed = {name: _parsed(table, name) for name in files}
    ranges = {rank: files[name].buckets for name, (what, rank) in parsed.items() if what == "rows"}
    for name, (_, rank) in parsed.items():
        if files[name].rows is None or files[name].buckets is None or files[name].buckets != ranges.get(rank):
            raise ValueError(f"{name} has other buckets than the rows of rank {rank}")
    try:
        check_tiles([ranges[rank] or (0, 0) for rank in range(len(ranges))])
    except KeyError as rank:
        raise ValueError(f"table {table} has no rows of rank {rank}") from None
    except ValueError as error:
        raise ValueError(f"table {table}: {error}") from None


def file_name(purpose: Purpose, sequence: int) -> str:
    """The manifest's file name."""
    return f"{purpose}-{sequence:010d}.json"


def canonical(value: Any) -> bytes:
    """JSON in its one form."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def hash_of(value: Any) -> str:
    """Hexadecimal XXH3-128 of a value's canonical JSON."""
    return str(xxhash.xxh3_128_hexdigest(canonical(value)))


def encode(fields: dict[str, Any]) -> bytes:
    """The manifest's bytes from its fields without `checksum`."""
    return canonical({**fields, "checksum": hash_of(fields)})


def decode(raw: bytes, file: object) -> Manifest:
    """A manifest from its bytes.

    Raises:
        StateError: it is damaged, has another format, or a value that a manifest must not have; names `file`.
    """
    try:
        fields = parse_json(raw)
        if not isinstance(fields, dict) or canonical(fields) != raw:
            raise StateError("is damaged: it is not a manifest", file=file)
    except ValueError:
        raise StateError("is damaged: it is not a manifest", file=file) from None
    checksum = fields.pop("checksum", None)
    if checksum != hash_of(fields):
        raise StateError("is damaged: its checksum is not that of its content", file=file)
    if fields.get("format") != FORMAT:
        raise StateError(f"has format {fields.get('format')!r}, this build reads {FORMAT}", file=file)
    try:
        return Manifest.model_validate({**fields, "checksum": checksum})
    except ValidationError as error:
        raise StateError(f"is not a valid manifest: {config_error(error)}", file=file) from None
