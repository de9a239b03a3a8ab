"""Which files an epoch reads: recorded when it begins, so that a run that goes on reads exactly these.

    runs/<id>/files/<digest>.json      one for each list of files; a position names its digest

A log changes while a run is stopped. The record tells what did:

    nothing                                       the epoch goes on
    files were added after the last one, and the  the epoch goes on, and takes them at its end
    log is read in the order of its files
    other files were added                        the epoch goes on without them; the next one reads them
    a file is gone, or has other rows             refused, with the difference: rows would be read twice or never

A file is known by its path below the log's root, its size, and the rows and bytes of each row group; a table in memory
by its rows and a checksum of each column, so that the table that a run goes on with has the same values.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import Field, StringConstraints, ValidationError

from embtables.errors import StateError
from embtables.pipelines.sources.files.source import LogFile
from embtables.schema import Model, error_lines

_Count = Annotated[int, Field(strict=True, ge=0, lt=2**63)]
Digest = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$", strict=True)]
_MAX_BYTES = 1 << 30
_SHOWN = 3


class ReadFile(Model):
    """One file of a record.

    Attributes:
        columns: of a table in memory, the checksum of each column; None of a file.
    """

    name: str
    size: _Count
    groups: tuple[tuple[_Count, _Count], ...]
    columns: dict[str, str] | None = None

    @property
    def rows(self) -> int:
        """Rows by its footer."""
        return sum(rows for rows, _ in self.groups)

    def fault(self, here: ReadFile) -> str | None:
        """Why what goes by this file's name now is another one; None: it is the same."""
        had = f"{self.name} had {self.rows:,} rows in {self.size:,} bytes"
        if here.rows != self.rows:
            return f"{had} and has {here.rows:,} rows"
        if here.groups != self.groups or self.columns is None or here.columns is None:
            same = (self.size, self.groups) == (here.size, here.groups)
            return None if same else f"{had} and has the same number of rows, but other bytes"
        changed = [name for name, checksum in self.columns.items() if here.columns.get(name) != checksum]
        return f"{had} and has other values in {_listed(changed)}" if changed else None


class FilesRead(Model):
    """The files of an epoch. Each batch of files was there when the one before had been recorded.

    Attributes:
        batches: files in the order in which an unshuffled epoch reads them.
    """

    batches: tuple[tuple[ReadFile, ...], ...]

    @property
    def digest(self) -> str:
        """SHA-256 of its JSON: what a position names."""
        return hashlib.sha256(self.to_bytes()).hexdigest()

    def to_bytes(self) -> bytes:
        """Its JSON."""
        return json.dumps(
            self.model_dump(mode="json", exclude_none=True), separators=(",", ":"), sort_keys=True
        ).encode()

    @property
    def files(self) -> list[ReadFile]:
        """All of them, in order."""
        return [file for batch in self.batches for file in batch]


def file_name(file: LogFile) -> str:
    """What names a file in a record."""
    return file.relative if file.part is None else f"{file.part}:{file.relative}"


def record_of(files: Sequence[LogFile], columns_of: Callable[[LogFile], dict[str, str] | None]) -> FilesRead:
    """The record of an epoch that begins with these files.

    Args:
        columns_of: checksums of a file's columns, if it has any.
    """
    found = (ReadFile(name=file_name(f), size=f.size, groups=f.groups, columns=columns_of(f)) for f in files)
    return FilesRead(batches=(tuple(found),))


def _listed(columns: Sequence[str]) -> str:
    more = f" and {len(columns) - _SHOWN:,} more" if len(columns) > _SHOWN else ""
    return f"column{'s' if len(columns) > 1 else ''} {', '.join(columns[:_SHOWN])}{more}"


@dataclass(frozen=True)
class Continued:
    """The files that an epoch goes on with, and the names of those that were added since it was recorded."""

    files: FilesRead
    taken: tuple[str, ...] = ()
    left: tuple[str, ...] = ()


def go_on(recorded: FilesRead, present: FilesRead, *, in_order: bool) -> Continued:
    """What an epoch that began with the recorded files reads of the present ones.

    Args:
        in_order: whether files are read in their order, so that what comes after the last one can be added.

    Raises:
        StateError: a recorded file is gone, or is not what it was.
    """
    now = {file.name: file for file in present.files}
    faults = []
    for file in recorded.files:
        here = now.get(file.name)
        if here is None:
            faults.append(f"{file.name} is gone (it had {file.rows:,} rows)")
        elif fault := file.fault(here):
            faults.append(fault)
    if faults:
        more = f", and {len(faults) - _SHOWN:,} more" if len(faults) > _SHOWN else ""
        raise StateError(
            f"the log is not what the run has read: {'; '.join(faults[:_SHOWN])}{more}. To go on would read rows twice "
            "or never: go on with the files or rows that it began with, or begin a new run with --from"
        )
    known = {file.name for file in recorded.files}
    added = [file for file in present.files if file.name not in known]
    names = tuple(file.name for file in added)
    if not added:
        return Continued(recorded)
    at_end = [file.name for file in present.files[-len(added) :]] == list(names)
    if in_order and at_end:
        return Continued(FilesRead(batches=(*recorded.batches, tuple(added))), taken=names)
    return Continued(recorded, left=names)


class FilesRecord:
    """The records of a run, in a folder of its own.

    Args:
        folder: None keeps them in memory: such a run cannot be gone on with elsewhere.
        writes: whether this process writes them; all ranks read them.
    """

    def __init__(self, folder: Path | None, *, writes: bool = True) -> None:
        self._folder = folder
        self._writes = writes

    @property
    def is_kept(self) -> bool:
        """Whether a run can be gone on with by these records."""
        return self._folder is not None

    def keep(self, files: FilesRead) -> None:
        """Writes a record, whole and synced, before any version names it. Raises StateError if it cannot."""
        if self._folder is None or not self._writes:
            return
        path = self._folder / f"{files.digest}.json"
        if path.exists():
            return
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            with temporary.open("wb") as out:
                out.write(files.to_bytes())
                out.flush()
                os.fsync(out.fileno())
            temporary.replace(path)
            folder = os.open(self._folder, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
        except OSError as error:
            temporary.unlink(missing_ok=True)
            raise StateError(f"cannot be written: {error.strerror or error}", file=path) from error

    def read(self, digest: str) -> FilesRead:
        """The record that a position names.

        Raises:
            StateError: it is missing or damaged.
        """
        if self._folder is None:
            raise StateError("the list of files that the run has read was not kept")
        path = self._folder / f"{digest}.json"
        try:
            if path.stat().st_size > _MAX_BYTES:
                raise StateError(f"is larger than {_MAX_BYTES} bytes: it is damaged", file=path)
            raw = path.read_bytes()
        except OSError as error:
            raise StateError(
                f"the list of files that the run has read cannot be read: {error.strerror}", file=path
            ) from error
        if hashlib.sha256(raw).hexdigest() != digest:
            raise StateError("the list of files that the run has read is damaged: its checksum differs", file=path)
        try:
            return FilesRead.model_validate_json(raw)
        except ValidationError as error:
            raise StateError(f"the list of files that the run has read is damaged: {error_lines(error)[0]}") from None
