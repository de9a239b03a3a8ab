"""`LiveRunning`: the running features of a server: made for the first version that has some, then kept up to date.

follow thread: need(version) --the whole log is folded--> the version may answer
appender's thread: reach(positions) --folded--> events are acknowledged
a thread of its own: what others append, and checkpoints
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pyarrow as pa

from embtables.errors import ConfigError, EmbtablesError, EventLogError
from embtables.events import open_log
from embtables.events.protocol import EventLog, Positions
from embtables.models.version_content import ScoringContent
from embtables.serving import wire
from embtables.serving.running.log_fold import LogFold

_WAIT_SECONDS = 0.5
_RETRY_SECONDS = 1.0


class LiveRunning:
    """See above. Cheap until a version has running features.

    Args:
        uri: of the event log.
        folder: of checkpoints; None: every start folds the log from its beginning.
        checkpoint_seconds: between two checkpoints.
    """

    def __init__(self, uri: str, folder: Path | None, checkpoint_seconds: float) -> None:
        self._uri, self._folder, self._checkpoint_seconds = uri, folder, checkpoint_seconds
        self._log: EventLog | None = None
        self._making: LogFold | None = None
        self.fold: LogFold | None = None
        self._failure: str | None = None
        self._ended = threading.Event()
        self._threads: list[threading.Thread] = []

    def need(self, content: ScoringContent) -> LogFold | None:
        """The fold that a version's columns come from, once all of the log is in it; None: the version has none.

        Called by one thread at a time.

        Raises:
            ConfigError: this server folds other definitions: only a restart changes them.
            StateError, EventLogError: the checkpoint or the log cannot be used.
        """
        if content.running is None:
            return None
        if self.fold is None:
            self._begin(content)
        fold = self.fold
        assert fold is not None
        if fold.running != content.running:
            raise ConfigError("its running features are not those that this server folds: restart the server")
        return fold

    def _begin(self, content: ScoringContent) -> None:
        assert content.running is not None
        if self._log is None:
            self._log = open_log(self._uri)
        fold = self._making = LogFold(self._log, content.running, content.id_kinds, self._folder)
        try:
            fold.catch_up(self._go_on)
            fold.write_checkpoint()
            # From here on events are acknowledged once they are folded. Those acknowledged before are in the log.
            self.fold = fold
            fold.catch_up(self._go_on)
        except BaseException:
            self.fold = None
            fold.close()
            raise
        finally:
            self._making = None
        for name, run in (("embtables-running", self._follow), ("embtables-checkpoints", self._write_checkpoints)):
            thread = threading.Thread(target=run, args=(fold,), name=name, daemon=True)
            self._threads.append(thread)
            thread.start()

    def _go_on(self) -> None:
        if self._ended.is_set():
            raise EventLogError("is not folded to its end: the server ends")

    def _follow(self, fold: LogFold) -> None:
        def once() -> None:
            if fold.wait(_WAIT_SECONDS):
                fold.catch_up(self._go_on)

        self._again_and_again(once)

    def _write_checkpoints(self, fold: LogFold) -> None:
        def once() -> None:
            if not self._ended.wait(self._checkpoint_seconds):
                fold.write_checkpoint()

        self._again_and_again(once)

    def _again_and_again(self, do: Callable[[], None]) -> None:
        """Until the end; a failure is told by `why_not_ready` until it does not come again."""
        failed = False
        while not self._ended.is_set():
            try:
                do()
            except Exception as error:  # the thread lives on: a disk or a broker may come back
                failed, self._failure = True, str(error) if isinstance(error, EmbtablesError) else repr(error)
                self._ended.wait(_RETRY_SECONDS)
            else:
                if failed:
                    failed, self._failure = False, None

    def counts(self, events: pa.RecordBatch) -> bool:
        """Whether some of these events are folded, as far as is known yet."""
        return self.fold is not None and self.fold.counts(events)

    def reach(self, positions: Positions) -> None:
        """Returns when entries that were appended are folded. Raises EventLogError as LogFold."""
        if self.fold is not None and not self._ended.is_set():
            self.fold.reach(positions)

    def of_other_kinds(self, events: pa.RecordBatch) -> tuple[pa.Array, str] | None:
        """See LogFold."""
        return None if self.fold is None else self.fold.of_other_kinds(events)

    def why_not_ready(self) -> str | None:
        """Why its columns are not what they should be; None: they are."""
        making = self._making
        if making is not None:
            return f"the event log is being folded: {making.features.counts.events:,} events so far"
        return None if self._failure is None else f"running features: {self._failure}"

    def info(self) -> wire.RunningInfo | None:
        """What it knows; None: no version needs it."""
        fold = self.fold
        if fold is None:
            return None
        counts, clock = fold.features.counts, fold.features.clock
        features = [
            wire.RunningFeatureInfo(f.name, list(f.by), f.model_dump(mode="json", exclude_defaults=True))
            for f in fold.running.features
        ]
        return wire.RunningInfo(
            features=features,
            events=counts.events,
            late_events=counts.late_events,
            late_questions=counts.late_questions,
            held_back=counts.held_back,
            ignored={name: count for name, count in fold.ignored.items() if count},
            keys=fold.features.num_keys,
            bytes=fold.features.bytes,
            clock=None if clock is None else clock / 1e6,
            checkpoint_at=fold.checkpoint_at,
        )

    def end(self) -> None:
        """Ends what goes on in threads, that of `need` among them."""
        self._ended.set()

    def close(self) -> None:
        """Waits for the threads and writes a last checkpoint. `need` is not called any more."""
        self._ended.set()
        for thread in self._threads:
            thread.join()
        if self.fold is not None:
            with suppress(EmbtablesError):  # the one before it stands: more of the log is folded at the next start
                self.fold.write_checkpoint()
            self.fold.close()
        if self._log is not None:
            self._log.close()
