"""A state of running features in a folder, with the position of the log that it has come to.

    running-<n>.arrow   the arrays: an Arrow IPC file of one row, a large list of int64 for each array; those of the
                        reader, beside the state, begin with "reader."
    running.json        makes it a checkpoint: file, bytes and XXH3-128 of the arrays, definitions, clock, position

`running.json` is replaced last, so a crash leaves the checkpoint before or the one after, whole.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import pyarrow as pa
from pydantic import Field, NonNegativeInt, ValidationError

from embtables.errors import StateError
from embtables.running.key_table import Int64s
from embtables.running.state import FORMAT, RunningCounts, RunningState
from embtables.schema.base import Model, config_error
from embtables.state.folder.local_folder import LocalFolder, sync
from embtables.state.folder.protocol import TEMPORARY
from embtables.state.format.arrow_footer import need_metadata
from embtables.state.format.arrow_writer import batch_pieces
from embtables.state.format.checksums import Digests
from embtables.state.format.json_values import parse_json

MANIFEST = "running.json"
MAX_MANIFEST_BYTES = 1 << 24
_ARRAYS = re.compile(r"running-([0-9]{1,18})\.arrow")
_NOT_ARROW = (pa.ArrowException, OSError, ValueError, LookupError, TypeError, ArithmeticError)
_COUNTS = ("events", "late_events", "late_questions", "held_back")
_KIND = pa.large_list(pa.field("item", pa.int64(), nullable=False))
Int64 = Annotated[int, Field(strict=True, ge=-(2**63), lt=2**63)]


_OF_READER = "reader"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What a checkpoint holds.

    Attributes:
        position: JSON, of the log.
        of_reader: int64 arrays that whoever folds keeps beside the state, by name.
    """

    state: RunningState
    position: Any
    of_reader: Mapping[str, Int64s]


class _Manifest(Model):
    format: Literal[1]
    file: Annotated[str, Field(pattern=_ARRAYS.pattern)]
    bytes: NonNegativeInt
    xxh3: Annotated[str, Field(pattern="[0-9a-f]{32}")]
    definitions: str
    clock: Int64 | None
    counts: dict[str, NonNegativeInt]
    ignored: dict[str, NonNegativeInt]
    position: Any


def write_checkpoint(
    folder: Path, state: RunningState, position: object, of_reader: Mapping[str, Int64s] | None = None
) -> None:
    """Writes a checkpoint, in the place of the one before; it is durable then.

    Args:
        folder: made if there is none; no other process writes to it at the same time.
        position: JSON; whoever folds says what it means.
        of_reader: arrays that belong to the position, by name.

    Raises:
        StateError: it cannot be written.
    """
    place = LocalFolder(folder)
    try:
        if not folder.exists():
            folder.mkdir(parents=True)
            sync(folder.parent)
        former = [entry.name for entry in folder.iterdir()]
        numbers = [int(match[1]) for entry in former if (match := _ARRAYS.fullmatch(entry))]
        name = f"running-{max(numbers, default=-1) + 1}.arrow"
        written = place.write(name, batch_pieces(_batch(state, of_reader or {})))
        sync(folder)
        counts = state.counts
        manifest = {
            "format": FORMAT,
            "file": name,
            "bytes": written.bytes,
            "xxh3": written.xxh3,
            "definitions": state.definitions,
            "clock": state.clock,
            "counts": {key: getattr(counts, key) for key in _COUNTS},
            "ignored": counts.ignored,
            "position": position,
        }
        place.replace(MANIFEST, json.dumps(manifest, indent=1).encode())
        for entry in former:
            if _ARRAYS.fullmatch(entry) or entry.startswith(TEMPORARY):
                place.remove(entry)
    except OSError as error:
        raise StateError(f"cannot write running features: {error.strerror or error}", folder=folder) from error


def read_checkpoint(folder: Path) -> Checkpoint | None:
    """A folder's checkpoint; None: there is none.

    Raises:
        StateError: it is damaged, or of a newer build; `file` is named.
    """
    place = LocalFolder(folder)
    path = place.path(MANIFEST)
    try:
        manifest = _Manifest.model_validate(parse_json(place.read(MANIFEST, MAX_MANIFEST_BYTES)))
        raw = place.read(manifest.file, manifest.bytes)
    except FileNotFoundError as error:
        if not path.exists():
            return None
        raise StateError("is named by running.json, but is not there", file=error.filename) from error
    except ValidationError as error:
        raise StateError(f"is damaged: {config_error(error)}", file=path) from None
    except (OSError, ValueError) as error:
        raise StateError(f"cannot be read: {error}", file=path) from error
    digests = Digests()
    digests.update(raw)
    if len(raw) != manifest.bytes or digests.written().xxh3 != manifest.xxh3:
        raise StateError("is damaged: its checksum is not that of running.json", file=place.path(manifest.file))
    if set(manifest.counts) != set(_COUNTS):
        raise StateError(f"is damaged: 'counts' must have {', '.join(_COUNTS)}", file=path)
    counts = RunningCounts(**manifest.counts, ignored=manifest.ignored)
    groups, of_reader = _groups(memoryview(raw), place.path(manifest.file))
    state = RunningState(manifest.definitions, manifest.clock, counts, groups)
    return Checkpoint(state, manifest.position, of_reader)


def _batch(state: RunningState, of_reader: Mapping[str, Int64s]) -> pa.RecordBatch:
    arrays = {f"{g}.{name}": array for g, group in enumerate(state.groups) for name, array in group.items()}
    arrays |= {f"{_OF_READER}.{name}": array for name, array in of_reader.items()}
    schema = pa.schema([pa.field(name, _KIND, nullable=False) for name in arrays])
    columns = [
        pa.LargeListArray.from_arrays(pa.array([0, len(a)], pa.int64()), pa.array(a), type=_KIND)
        for a in arrays.values()
    ]
    return pa.record_batch(columns, schema=schema)


def _groups(raw: memoryview, file: object) -> tuple[tuple[dict[str, Int64s], ...], dict[str, Int64s]]:
    """The arrays of each group, and those of the reader."""

    def need(first: int, end: int) -> None:
        if not 0 <= first <= end <= len(raw):
            raise StateError(f"is damaged: it points to bytes {first}..{end} of its {len(raw)}", file=file)

    groups: list[dict[str, Int64s]] = []
    of_reader: dict[str, Int64s] = {}
    try:
        need_metadata(raw, need, file)
        batch = pa.ipc.open_file(pa.BufferReader(raw)).get_batch(0)
        batch.validate(full=True)
        for field, column in zip(batch.schema, batch.columns, strict=True):
            number, _, name = field.name.partition(".")
            if field.type != _KIND or len(column) != 1:
                raise StateError("is damaged: a column is not one list of integers", file=file, column=field.name)
            array = np.ascontiguousarray(column.flatten().to_numpy())
            if number == _OF_READER:
                of_reader[name] = array
                continue
            if int(number) == len(groups):
                groups.append({})
            groups[int(number)][name] = array
    except _NOT_ARROW as error:
        raise StateError(f"is damaged: {(str(error) or type(error).__name__).splitlines()[0]}", file=file) from error
    return tuple(groups), of_reader
