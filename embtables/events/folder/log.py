"""`FolderLog`: the partitions of a folder log, its description, and waiting for new entries.

LOG/log.json                    {"format": 1, "partitions": P}
LOG/0000/00000000000000000000.events, head, lock
LOG/0001/...
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
import time
from collections.abc import Collection
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, unquote

import pyarrow as pa

from embtables.errors import ConfigError, EventLogError
from embtables.events.encoding import encode
from embtables.events.folder.disk import create_whole, named_errors, opened, read_at, sync_folder
from embtables.events.folder.position import Position
from embtables.events.folder.reader import PartitionReader
from embtables.events.folder.writer import PartitionWriter
from embtables.events.options import MAX_PARTITIONS, FolderOptions, parse_options, shown
from embtables.events.protocol import Entry, Positions

_FORMAT = 1
_POLL_SECONDS = (0.001, 0.016)  # the first pause between two looks at the heads, and the longest


class FolderLog:
    """The event log in a folder of a local disk; any number of threads and processes may append and read.

    Args:
        root: the folder, which is made if need be. Who reads has to be able to write to it as well: whoever comes
            first after a start of the machine looks at what the last loss of power has left.

    Raises:
        ConfigError: the log has another number of partitions than the options say.
        EventLogError: the folder cannot be made or read, or is no event log.
    """

    def __init__(self, root: Path, options: FolderOptions | None = None) -> None:
        options = options or FolderOptions()
        self._root = root
        with named_errors(folder=root):
            num_partitions = _describe(root, options.partitions)
            folders = [root / f"{partition:04d}" for partition in range(num_partitions)]
            for folder in folders:
                folder.mkdir(exist_ok=True)
            sync_folder(root)
        with contextlib.ExitStack() as undo:
            self._writers = []
            for partition, folder in enumerate(folders):
                self._writers.append(PartitionWriter(folder, partition, options))
                undo.callback(self._writers[-1].close)
            undo.pop_all()
        self._readers = [PartitionReader(f, p, self._writers[p].head) for p, f in enumerate(folders)]
        self._ended = threading.Event()
        self._failure: EventLogError | None = None
        self._syncer: threading.Thread | None = None
        if options.fsync == "interval":
            self._syncer = threading.Thread(
                target=self._sync_often, args=(options.fsync_seconds,), name="embtables-event-log", daemon=True
            )
            self._syncer.start()

    @classmethod
    def from_uri(cls, parts: SplitResult) -> FolderLog:
        """The log of `folder:///path` or `folder:path`. Raises as the constructor does."""
        path = unquote(parts.path)
        if parts.netloc or not path or "\0" in path:
            raise ConfigError("a folder log is folder:///path, or folder:path from here", uri=shown(parts))
        return cls(Path(path), parse_options(FolderOptions, parts))

    @property
    def num_partitions(self) -> int:
        """See EventLog."""
        return len(self._writers)

    def append(self, partition: int, events: pa.RecordBatch) -> str:
        """See EventLog. Where an fsync of earlier entries has failed since (fsync=interval), it is reported here."""
        writer = self._writers[self._checked(partition)]
        if self._failure is not None:
            failure, self._failure = self._failure, None
            raise failure
        return str(writer.append(encode(events)))

    def read(self, partition: int, after: str | None, *, max_entries: int = 1000) -> list[Entry]:
        """See EventLog."""
        return self._readers[self._checked(partition)].read(after, max_entries)

    def fetch(self, partition: int, position: str) -> pa.RecordBatch:
        """See EventLog."""
        return self._readers[self._checked(partition)].fetch(position)

    def last(self, partition: int) -> str | None:
        """See EventLog."""
        return self._readers[self._checked(partition)].last()

    def wait(self, after: Positions, timeout_seconds: float, *, partitions: Collection[int] | None = None) -> bool:
        """See EventLog. It looks at the head of each partition every few milliseconds."""
        begun = {
            partition: Position.parse(after[partition], partition=partition).entry + 1 if partition in after else 0
            for partition in (range(self.num_partitions) if partitions is None else partitions)
        }
        deadline, pause = time.monotonic() + timeout_seconds, _POLL_SECONDS[0]
        while not any(self._writers[p].head().next_entry > entry for p, entry in begun.items()):
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            time.sleep(min(pause, left))
            pause = min(2 * pause, _POLL_SECONDS[1])
        return True

    def close(self) -> None:
        """See EventLog. What is acknowledged is synced first, unless fsync is never."""
        self._ended.set()
        if self._syncer is not None:
            self._syncer.join()
            self._sync_all()
        for writer in self._writers:
            writer.close()
        if self._failure is not None:
            raise self._failure

    def _sync_often(self, seconds: float) -> None:
        while not self._ended.wait(seconds):
            self._sync_all()

    def _sync_all(self) -> None:
        for writer in self._writers:
            try:
                writer.sync()
            except EventLogError as error:
                self._failure = error

    def _checked(self, partition: int) -> int:
        if not 0 <= partition < len(self._writers):
            raise EventLogError(f"has partitions 0 to {len(self._writers) - 1}, not {partition}", folder=self._root)
        return partition


def _describe(root: Path, asked: int | None) -> int:
    """The number of partitions that the log has, which is made with those asked for where there is none."""
    path = root / "log.json"
    if not path.exists():
        missing = [folder for folder in (root, *root.parents) if not folder.exists()]
        for folder in reversed(missing):
            folder.mkdir(exist_ok=True)
            sync_folder(folder.parent)
        strange = any(not entry.name.startswith(".") and entry.name != path.name for entry in root.iterdir())
        if strange and not path.exists():
            raise EventLogError("is no event log, but holds other files; name a folder that is empty", folder=root)
        with contextlib.suppress(FileExistsError):  # another process was faster
            create_whole(path, json.dumps({"format": _FORMAT, "partitions": asked or 1}).encode())
    with opened(path, os.O_RDONLY) as handle:
        described = _parse(read_at(handle, 4096, 0), path)
    if asked is not None and asked != described:
        raise ConfigError(f"the log has {described} partitions, not {asked}", folder=root)
    return described


def _parse(content: bytes, path: Path) -> int:
    try:
        described: Any = json.loads(content)
        version, partitions = described["format"], described["partitions"]
    except (ValueError, TypeError, KeyError) as error:
        raise EventLogError(f"does not describe an event log: {error!r}", file=path) from error
    if version != _FORMAT:
        raise EventLogError(f"has format {version}, and this is for {_FORMAT}", file=path)
    if type(partitions) is not int or not 1 <= partitions <= MAX_PARTITIONS:
        raise EventLogError(f"partitions is {partitions!r}, not 1 to {MAX_PARTITIONS}", file=path)
    return partitions
