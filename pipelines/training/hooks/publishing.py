"""Serving versions of a run (docs/format.md): every so many steps or seconds, and at the end.

    the live state of training -> rows, dense weights, transforms, side tables -> a delta to the version before

They are a chain of their own beside the checkpoints, under the same lease. What only training needs is not in them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from embtables.errors import StateError
from embtables.inputs.features import FittedTransforms
from embtables.models.version_content import Published, SideTableContent, step_of
from embtables.pipelines.config import Publish
from embtables.pipelines.run_place import RunPlace
from embtables.pipelines.sources.log import Log
from embtables.pipelines.training import checkpoint
from embtables.pipelines.training.hooks.hook import Hook, StepDone
from embtables.pipelines.training.learner import Learner
from embtables.pipelines.training.rank_agreement import rank_0_says
from embtables.pipelines.training.run_content import RunState, serving_content
from embtables.pipelines.training.shutdown import closing_chain, say_failures
from embtables.pipelines.training.signals import StopRequest
from embtables.pipelines.training.start.try_publication import space_warning, try_publication
from embtables.pipelines.warn import Warnings
from embtables.state.folder.version_folder import LeaseHolder, StateFolder
from embtables.state.format.manifest import Manifest
from embtables.state.format.side_file import SideFile, side_files_of
from embtables.state.write.gather_results import gather_results
from embtables.state.write.version_writer import VersionWriter


@dataclass(frozen=True, slots=True)
class ToServe:
    """What servers need besides what training changes; of rank 0.

    Attributes:
        side_tables: what they join to requests.
        candidate_key: the column whose value a candidate is that a request names by its id alone.
    """

    side_tables: Sequence[tuple[SideTableContent, pa.Table]] = ()
    candidate_key: str | None = None


class Publishing(Hook):
    """Writes versions for servers to the run's folder; its chain is `open` meanwhile.

    Args:
        log: its first rows are scored with a small version, before anything is trained.
        each_stretch: a version at the end of every stretch, where `may_publish` says so, and not by steps or seconds.
    """

    def __init__(
        self,
        learner: Learner,
        run: RunPlace,
        fitted: FittedTransforms,
        publish: Publish,
        to_serve: ToServe,
        log: Log,
        warnings: Warnings,
        *,
        each_stretch: bool = False,
        may_publish: Callable[[], bool] = lambda: True,
    ) -> None:
        self._each_stretch = each_stretch
        self._may_publish = may_publish
        self._learner = learner
        self._run = run
        self._fitted = fitted
        self._publish = publish
        self._to_serve = to_serve
        self._log = log
        self._warnings = warnings
        self._files = {of.file: SideFile(table) for of, table in to_serve.side_tables}
        self._chain: VersionWriter | None = None
        self._dense: dict[str, npt.NDArray[np.generic]] | None = None  # of the version before
        self._old_dense = 0  # versions since that with new dense weights
        self._published_step: int | None = None
        self._published_at = time.monotonic()

    @contextmanager
    def open(
        self,
        holder: LeaseHolder | StateFolder,
        state: RunState,
        resumed_from: Sequence[Manifest],
        stop: StopRequest,
    ) -> Iterator[None]:
        """The chain of serving versions. First a small version is tried.

        Args:
            holder: at rank 0 of the lease; elsewhere the folder.
            resumed_from: the chain of the checkpoint that the run goes on from; empty for a new run.
            stop: see `closing_chain`.

        Raises:
            EmbtablesError: publishing would fail; one sentence says why. At all ranks.
        """
        publish, world = self._publish, self._learner.world
        gather_results(world, lambda: self._try(holder, state) if isinstance(holder, LeaseHolder) else None)
        with ExitStack() as stack:
            chain = self._chain = VersionWriter(
                holder,
                "serving",
                self._learner.tables,
                projection="weights",
                world=world,
                keep=publish.keep,
                dtype=publish.dtype,
                max_delta_bytes=publish.max_delta_bytes,
            )
            if resumed_from and not self._may_lag:
                self._go_on(holder.state if isinstance(holder, LeaseHolder) else holder, state, resumed_from[-1])
            stack.callback(self._report_failures, "")
            with closing_chain(chain, stop, lambda error, waits: None):
                yield

    def _try(self, holder: LeaseHolder, state: RunState) -> None:
        side_tables, dtype = self._to_serve.side_tables, self._publish.dtype
        try_publication(self._learner, holder, dtype, self._content(state), side_tables, self._log)
        if self._run.path is not None:
            warned = space_warning(self._learner, self._run.path, dtype, side_tables)
            self._warnings.add([] if warned is None else [warned])

    def _go_on(self, versions: StateFolder, state: RunState, resumed_from: Manifest) -> None:
        """Goes on with the chain where its newest version has the very state of the checkpoint."""
        world = self._learner.world
        if not rank_0_says(world, lambda: _has_same_state(versions, resumed_from)):
            return
        chain = versions.chain("serving", versions.sequences("serving")[-1])
        self.chain.go_on_from(chain)
        if rank_0_says(world, lambda: self._is_same(chain, state)):
            self._published_step = state.step

    def _is_same(self, chain: Sequence[Manifest], state: RunState) -> bool:
        """Whether the last version of a chain with these rows is the one that would be written now."""
        last = chain[-1]
        there = {name: version.files[name].xxh3 for name, version in side_files_of(chain).items()}
        return (
            last.content == self._content(state)
            and there == {name: file.xxh3 for name, file in self._files.items()}
            and all(entry.dtype == self._publish.dtype for entry in last.tables.values())
        )

    def _content(self, state: RunState) -> dict[str, Any]:
        """What a version of this state says."""
        named = "memory" if self._run.path is None else self._run.path.name
        side_tables = [of for of, _ in self._to_serve.side_tables]
        published = Published(run=named, step=state.step)
        key = self._to_serve.candidate_key
        return serving_content(self._learner.config, self._fitted, side_tables, published, key, state.id_kinds)

    @property
    def chain(self) -> VersionWriter:
        """The chain, if it is open."""
        assert self._chain is not None, "versions are published within open()"
        return self._chain

    def after_step(self, state: RunState, step: StepDone) -> None:
        """See Hook."""
        if self._each_stretch:
            return
        every_steps, every_seconds = self._publish.every_steps, self._publish.every_seconds
        if every_steps is not None:
            is_due = state.step % every_steps == 0
        elif every_seconds is not None:
            is_due = rank_0_says(self._learner.world, lambda: self._is_time(every_seconds))
        else:
            is_due = False
        if is_due:
            self._write(state)

    def begin(self, state: RunState) -> None:
        """Publishes what a run begins with, so that servers have it before anything is trained."""
        self._write(state)

    def after_stretch(self, state: RunState, *, whole: bool) -> None:
        """See Hook."""
        if whole and self._each_stretch and self._may_publish():
            self._write(state)

    def _is_time(self, seconds: float) -> bool:
        return time.monotonic() - self._published_at >= seconds and self.chain.is_written(0.0)

    def at_end(self, state: RunState) -> None:
        """See Hook: the last version, which has all that was learned. Waits until it is on the disk.

        Raises:
            StateError: it could not be written.
        """
        if self._may_publish():
            self._write(state, whole=True)
        try:
            self.chain.wait()
        except StateError as error:
            then = f"publish it with: embtables state publish {self._run.path} --to FOLDER"
            reason = f"the last version for servers could not be written: {error.message}; {then}"
            raise StateError(reason, **error.path) from error

    @property
    def _may_lag(self) -> bool:
        """Whether a version may lack what was learned by its step."""
        return self._publish.max_delta_bytes is not None or self._publish.dense_every > 1

    def _write(self, state: RunState, *, whole: bool = False) -> None:
        """A version of this step, if there is none yet. If it fails, training goes on and the next one has it all."""
        if self._published_step == state.step and not (whole and self._may_lag):
            return
        checkpoint.refuse_not_finite(self._learner, state.step)
        dense = self._dense_arrays(whole=whole)
        self.chain.cut(dense, self._content(state), side_tables=self._files, whole=whole)
        self._published_step = state.step
        self._published_at = time.monotonic()
        self._report_failures()

    def _dense_arrays(self, *, whole: bool) -> dict[str, npt.NDArray[np.generic]]:
        """The newest dense weights, or those of the version before where it is not yet time for new ones."""
        self._old_dense += 1
        if self._dense is None or whole or self._old_dense >= self._publish.dense_every:
            arrays = checkpoint.served_arrays(self._learner)
            self._dense, self._old_dense = {name: values.copy() for name, values in arrays.items()}, 0
        return self._dense

    def _report_failures(self, then: str = "; training goes on") -> None:
        say_failures(self.chain, self._learner.world, then)


def _has_same_state(versions: StateFolder, trained: Manifest) -> bool:
    """Whether the newest serving version surely has the very state of a checkpoint.

    A process that trains has one state at each step, and each holds the lease under a number of its own: two versions
    with the same number and step are of the same state. A crash may have lost either of them, or both.
    """
    newest = versions.latest("serving")
    if newest is None or (newest.writer, newest.schema_hash) != (trained.writer, trained.schema_hash):
        return False
    return step_of(newest) is not None and step_of(newest) == step_of(trained)
