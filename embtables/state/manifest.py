"""The manifest: the file that makes a version exist. docs/format.md says what each field means.

It is JSON in one canonical form (sorted keys, no spaces), so that its checksum and the schema's hash have one value.
"""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

import xxhash
from pydantic import Field, StringConstraints, ValidationError, model_validator

from embtables.errors import StateError
from embtables.schema.base import Model, Name, config_error

FORMAT = 0
MAX_BYTES = 64 << 20
NUM_BUCKETS = 1024
Purpose = Literal["resume", "serving"]
PURPOSES: tuple[Purpose, ...] = ("resume", "serving")

Digest = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{32}$")]
FileName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.\-]{0,254}$")]
Count = Annotated[int, Field(strict=True, ge=0, lt=2**63)]
Sequence = Annotated[int, Field(strict=True, ge=1, le=10**9)]
Bucket = Annotated[int, Field(strict=True, ge=0, le=1024)]


class File(Model):
    """A file of the version: its bytes, their checksum and, of a table's file, how many rows it has.

    `buckets` is the range [first, end) of the key space that a table's file may hold.
    """

    bytes: Count
    xxh3: Digest
    rows: Count | None = None
    buckets: tuple[Bucket, Bucket] | None = None


class TableEntry(Model):
    """What a version says of a table besides its files."""

    now: Annotated[int, Field(strict=True, ge=0, lt=2**32)]
    steps: Count
    updates: Count
    files: list[FileName]


class Manifest(Model):
    """One version of a set of tables: a snapshot where `parent` is None, else a delta to it."""

    format: Literal[0]
    purpose: Purpose
    sequence: Sequence
    parent: Sequence | None
    writer: Count
    written: str
    folder: FileName
    buckets: Count
    files: dict[FileName, File]
    tables: dict[Name, TableEntry]
    schema_hash: Digest
    content: dict[str, Any]
    checksum: Digest

    @model_validator(mode="after")
    def _check(self) -> Manifest:
        if self.parent is not None and self.parent != self.sequence - 1:
            raise ValueError(f"the parent of {self.sequence} must be {self.sequence - 1}, received {self.parent}")
        if self.buckets != NUM_BUCKETS:
            raise ValueError(f"has {self.buckets} buckets, this build has {NUM_BUCKETS}")
        for table, entry in self.tables.items():
            unknown = [name for name in entry.files if name not in self.files]
            if unknown:
                raise ValueError(f"table {table} has a file '{unknown[0]}' that is not listed")
        return self

    @property
    def name(self) -> str:
        """What users call the version: `resume-12`."""
        return f"{self.purpose}-{self.sequence}"


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
        StateError: it is damaged, of another format, or says what no manifest may say; `file` is named.
    """
    try:
        fields = json.loads(raw)
        if not isinstance(fields, dict) or canonical(fields) != raw:
            raise StateError("is damaged: it is no manifest", file=file)
    except (ValueError, RecursionError, UnicodeDecodeError):
        raise StateError("is damaged: it is no manifest", file=file) from None
    checksum = fields.pop("checksum", None)
    if checksum != hash_of(fields):
        raise StateError("is damaged: its checksum is not that of its content", file=file)
    if fields.get("format") != FORMAT:
        raise StateError(f"has format {fields.get('format')!r}, this build reads {FORMAT}", file=file)
    try:
        return Manifest(**fields, checksum=checksum)
    except ValidationError as error:
        raise StateError(f"is no manifest: {config_error(error)}", file=file) from None
