"""`LogFold`: running features of an event log, folded in the log's order, each event once.

    log --read after the positions--> entries --UsableEvents--> RunningFeatures
    checkpoint: state, positions and ids of one moment

The log is the only way to the state: what this server appends is read back from it, as what others append is. So an
entry is folded once, by its position, and a restart that goes on from a checkpoint comes to the same state.
"""

from __future__ import annotations

import fcntl
import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pyarrow as pa

from embtables.errors import ConfigError, DataError, EventLogError, StateError
from embtables.events.protocol import EventLog, Positions
from embtables.inputs.id_kinds import IdKind
from embtables.running import RunningFeatures, read_checkpoint, write_checkpoint
from embtables.schema import Running
from embtables.serving.running.fold_position import FoldPosition
from embtables.serving.running.usable_events import UsableEvents

_ENTRIES = 256  # read at a time
_REACH_SECONDS = 20.0
_LOOK_SECONDS = 0.05
_LAST_FOLDED = 1024  # positions of each partition that are known to have been folded


class LogFold:
    """See above; used by any thread. Questions wait for nothing.

    Args:
        log: that is read.
        running: the definitions.
        id_kinds: by column what training made ids of.
        folder: of checkpoints; None: there are none. No other process uses it at the same time.

    Raises:
        StateError: the checkpoint is damaged, or of other definitions; or another process has the folder.
    """

    def __init__(
        self, log: EventLog, running: Running, id_kinds: Mapping[str, IdKind], folder: Path | None = None
    ) -> None:
        self.running = running
        self.features = RunningFeatures(running.features, running.options)
        self._log, self._folder = log, folder
        self._turn = threading.Lock()  # who folds, or takes the state
        self._lock = None if folder is None else _held(folder)
        self._usable = UsableEvents(running, id_kinds)
        self.positions: dict[int, str] = {}
        self._folded: dict[int, dict[str, None]] = {p: {} for p in range(log.num_partitions)}
        self.checkpoint_at: float | None = None
        self._written: dict[int, str] | None = None
        try:
            self._load(id_kinds)
        except BaseException:
            self.close()
            raise

    def _load(self, id_kinds: Mapping[str, IdKind]) -> None:
        found = None if self._folder is None else read_checkpoint(self._folder)
        if found is None or self._folder is None:
            return
        at = FoldPosition.read(found.position, self._folder)
        if at.kinds != self.running.kinds:
            raise StateError(
                f"counts events of the kinds {_shown(at.kinds)}, and the model those of {_shown(self.running.kinds)}; "
                "fold the log again in another folder",
                folder=self._folder,
            )
        for column, kind in id_kinds.items():
            if at.id_kinds.get(column, kind) != kind:
                reason = f"holds {at.id_kinds[column]} in the checkpoint's events, and {kind} in training"
                raise StateError(reason, folder=self._folder, column=column)
        if max(at.positions, default=0) >= self._log.num_partitions:
            reason = f"has a position in partition {max(at.positions)}, the log has {self._log.num_partitions}"
            raise StateError(f"{reason}: it is of another log", folder=self._folder)
        self.features.load(found.state)
        self._usable = UsableEvents(self.running, {**id_kinds, **at.id_kinds}, at.until_us)
        try:
            if found.of_reader:
                self._usable.ids.load(found.of_reader)
        except KeyError as error:
            raise StateError(f"is damaged: there is no array {error}", folder=self._folder) from None
        self._usable.counts.update(at.counts)
        self._usable.ignored.update(at.ignored)
        self.positions = dict(at.positions)

    def catch_up(self, go_on: Callable[[], None] = lambda: None) -> None:
        """Folds what the log has and was not folded yet.

        Args:
            go_on: called between reads; what it raises ends it.

        Raises:
            EventsLostError, EventLogError: the log cannot be read on.
        """
        for partition in range(self._log.num_partitions):
            while True:
                go_on()
                with self._turn:
                    if not self._read(partition):
                        break

    def reach(self, positions: Positions) -> None:
        """Returns when these entries, which were appended, are folded.

        Raises:
            EventLogError: the log cannot be read, or does not give them in time.
        """
        end = time.monotonic() + _REACH_SECONDS
        for partition, position in positions.items():
            while True:
                with self._turn:
                    if position in self._folded[partition]:
                        break
                    if self._read(partition):
                        continue  # it may be among them: to wait for news would be to wait in vain
                    if self._log.last(partition) == self.positions.get(partition):
                        break  # others' entries came after it, more than are remembered
                if time.monotonic() > end:
                    raise EventLogError("does not give back what was appended", partition=partition, position=position)
                self.wait(_LOOK_SECONDS)

    def _read(self, partition: int) -> int:
        """Folds the next entries of a partition; returns how many there were."""
        entries = self._log.read(partition, self.positions.get(partition), max_entries=_ENTRIES)
        folded = self._folded[partition]
        for entry in entries:
            self._fold(self._usable.of(entry.events))
            self.positions[partition] = entry.position
            folded[entry.position] = None
            if len(folded) > _LAST_FOLDED:
                del folded[next(iter(folded))]
        return len(entries)

    def _fold(self, events: pa.RecordBatch) -> None:
        """Takes events in; a column of a type that features can make nothing of is as if it were null."""
        while events.num_rows:
            try:
                self.features.fold(events)
                return
            except (DataError, ConfigError) as error:
                column = str(error.path.get("column", error.path.get("condition", ""))).split(".")[0]
                if column not in events.schema.names or pa.types.is_null(events.schema.field(column).type):
                    self._usable.ignored[column] += events.num_rows
                    return
                events = self._usable.without(events, column)

    def counts(self, events: pa.RecordBatch) -> bool:
        """Whether some of these events are of a kind that counts."""
        return bool(self._usable.counted(events).num_rows)

    def of_other_kinds(self, events: pa.RecordBatch) -> tuple[pa.Array, str] | None:
        """(n,) bool which events have an id of another kind than its column has, and the column; None: none has."""
        for name in self._usable.other_kinds(events):
            mask = pa.compute.and_(self._usable.counted_mask(events), events.column(name).is_valid())
            if pa.compute.any(mask).as_py():
                return mask, name
        return None

    @property
    def id_kinds(self) -> Mapping[str, IdKind]:
        """By column of keys what its ids are made of, as far as that is known."""
        return self._usable.id_kinds

    @property
    def ignored(self) -> Counter[str]:
        """By column the events that have no usable value there; `damaged`, `repeated`, `before_begin`: see
        `UsableEvents`.
        """
        return Counter(self.features.counts.ignored) + self._usable.ignored + self._usable.counts

    def columns(self, questions: pa.Table, names: Sequence[str]) -> dict[str, pa.Array]:
        """See RunningFeatures."""
        return self.features.columns(questions, names)

    def write_checkpoint(self) -> None:
        """Writes a checkpoint if there is a folder and something new; questions go on meanwhile, folding nearly so.

        Raises:
            StateError: it cannot be written.
        """
        if self._folder is None:
            return
        with self._turn:
            if self.positions == self._written:
                return
            state, ids = self.features.state(), self._usable.ids.arrays()
            position = FoldPosition(
                positions=dict(self.positions),
                until_us=self._usable.until_us,
                kinds=self.running.kinds,
                id_kinds=dict(self._usable.id_kinds),
                counts=dict(self._usable.counts),
                ignored=dict(self._usable.ignored),
            )
        write_checkpoint(self._folder, state, position.model_dump(mode="json"), ids)
        self._written, self.checkpoint_at = dict(position.positions), time.time()

    def wait(self, seconds: float) -> bool:
        """Until the log has something that was not folded, or the time is over. Returns whether it has."""
        return self._log.wait(dict(self.positions), seconds)

    def close(self) -> None:
        """Gives the folder back. Writes nothing."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


def _held(folder: Path) -> int:
    """A handle that holds a folder for this process."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise StateError(f"cannot be used: {error.strerror}", folder=folder) from error
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(handle)
        raise StateError("another process folds into it; give each server a folder of its own", folder=folder) from None
    return handle


def _shown(kinds: Sequence[str] | None) -> str:
    return "all but impressions" if kinds is None else ", ".join(kinds)
