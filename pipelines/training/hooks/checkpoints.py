"""Checkpoints of a run: every so many steps, when another hook asks for one, and at the end.

A checkpoint holds rows, optimizer state, dense weights, random state and the source's position after the last batch
trained on, so a killed run that is resumed ends with the same bits as one that was not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager

import pyarrow as pa

from embtables.inputs.features import FittedTransforms
from embtables.pipelines.run_place import RunPlace
from embtables.pipelines.sources.protocol import SourceItem
from embtables.pipelines.training import checkpoint
from embtables.pipelines.training.hooks.hook import Hook, StepDone
from embtables.pipelines.training.hooks.set_aside import SetAside
from embtables.pipelines.training.learner import Learner
from embtables.pipelines.training.rank_agreement import greatest, names_of_all_ranks
from embtables.pipelines.training.run_content import RunState, written_content
from embtables.pipelines.training.shutdown import OnError, closing_chain, say_failures, wait_for_last
from embtables.pipelines.training.signals import StopRequest
from embtables.state.folder.version_folder import LeaseHolder, StateFolder
from embtables.state.format.manifest import Manifest
from embtables.state.format.side_file import SideFile, side_file_name
from embtables.state.write.version_writer import VersionWriter


class Checkpoints(Hook):
    """Writes checkpoints of the learner to the run's chain, which is `open` meanwhile.

    Args:
        set_aside: is counted in time for every version.
        reader_tables: what the source's reader goes on from besides its position, by name; of several ranks each has
            its own names.
    """

    def __init__(
        self,
        learner: Learner,
        run: RunPlace,
        fitted: FittedTransforms,
        set_aside: SetAside,
        reader_tables: Callable[[], Mapping[str, pa.Table]] = dict,
    ) -> None:
        self._reader_tables = reader_tables
        self._learner = learner
        self._run = run
        self._fitted = fitted
        self._set_aside = set_aside
        self._newest_us: int | None = None  # of this rank's rows since the process began
        self._chain: VersionWriter | None = None
        self._saved_step: int | None = None

    @contextmanager
    def open(
        self,
        holder: LeaseHolder | StateFolder,
        state: RunState,
        resumed_from: Sequence[Manifest],
        stop: StopRequest,
        on_error: OnError,
    ) -> Iterator[None]:
        """The run's chain of versions, which these ranks alone write to.

        Args:
            holder: at rank 0 of the lease; elsewhere the folder.
            resumed_from: the chain of the checkpoint that the run goes on from; empty for a new run.
            stop, on_error: see `closing_chain`.
        """
        world = self._learner.world
        with ExitStack() as stack:
            chain = self._chain = VersionWriter(holder, "resume", self._learner.tables, world=world)
            if resumed_from:
                if world.rank == 0:
                    self._run.truncate_metrics(state.step)
                chain.go_on_from(resumed_from)
            stack.callback(self.report_failures, "")
            with closing_chain(chain, stop, on_error):
                yield

    @property
    def chain(self) -> VersionWriter:
        """The chain, if it is open."""
        assert self._chain is not None, "checkpoints are written within open()"
        return self._chain

    def save(self, state: RunState, pin: str | None = None) -> None:
        """Writes a checkpoint; where not every one is kept, only a pinned one.

        If that fails, training goes on, the former one stays, and the next one tries again.

        Raises:
            TrainingError: a weight of the dense net is not finite; the former version stays the last one.
        """
        checkpoint.refuse_not_finite(self._learner, state.step)
        self._set_aside.count(state)
        state.newest_event_us = greatest(self._learner.world, [state.newest_event_us, self._newest_us])
        if pin is None and not self._run.keeps_every_version:
            return
        tables = self._reader_tables()
        names = names_of_all_ranks(self._learner.world, tables)
        state.reader_files = {name: side_file_name(number) for number, name in enumerate(names)}
        files = {state.reader_files[name]: SideFile(table) for name, table in tables.items()}
        content = written_content(self._learner.config, state, self._fitted)
        self.chain.cut(checkpoint.dense_arrays(self._learner), content, () if pin is None else (pin,), files)
        self._saved_step = state.step
        self.report_failures()

    def report_failures(self, then: str = "; training goes on") -> None:
        """Says what could not be written so far."""
        say_failures(self.chain, self._learner.world, then)

    def wait(self) -> None:
        """Until the last one is on the disk; see `wait_for_last`."""
        wait_for_last(self.chain, self._run)

    def before_step(self, state: RunState, item: SourceItem) -> None:
        """See Hook: hooks before this one may have a checkpoint written after the step, and it holds this batch."""
        times = item.batch.event_time_us
        if times is not None and len(times):
            newest = int(times.max())
            self._newest_us = newest if self._newest_us is None else max(newest, self._newest_us)

    def after_step(self, state: RunState, step: StepDone) -> None:
        """See Hook: a checkpoint where one is due, unless an earlier hook has had it written."""
        every = self._learner.config.train.checkpoint_every_steps
        if every is not None and state.step % every == 0 and self._saved_step != state.step:
            self.save(state)

    def at_end(self, state: RunState) -> None:
        """See Hook."""
        if not state.finished:
            state.finished = True
            self.save(state)
        self.wait()
