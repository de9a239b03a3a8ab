"""`VersionWriter`: the versions that trainers write of their tables, in the background, each a delta to the one before.

    between two steps: cut drawn -> a delta copied, or a snapshot captured -> training goes on
    one thread: files written, a snapshot's rows read meanwhile, and synced -> manifest -> pins -> garbage removed

A write that fails loses nothing: the next version holds what changed since the last one that was committed. Where
several ranks hold the tables, each has its writer of them and writes what it owns; all of it succeeds or none.
"""

from __future__ import annotations

import copy
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent import futures
from dataclasses import dataclass
from typing import Any, get_args

import torch

from embtables.errors import ConfigError, EmbtablesError, StateError, WorldError
from embtables.given import as_choice, as_integer, as_name, need
from embtables.rows.content import TableContent
from embtables.rows.protocol import Ability, Capture
from embtables.shard.world import SingleRank, World
from embtables.state.folder.version_folder import LeaseHolder, NewFile, StateFolder, VersionKind
from embtables.state.format.checksums import Buffer, checksum
from embtables.state.format.manifest import PURPOSES, Manifest, Purpose, canonical
from embtables.state.format.projection import Projection
from embtables.state.format.side_file import SideFile, side_files_of
from embtables.state.format.version import DENSE_FILE, Tensors, Version, dense_version
from embtables.state.format.weight_dtype import WEIGHT_DTYPES, WeightDtype
from embtables.state.write.commit_across_ranks import CommitAcrossRanks
from embtables.state.write.delta_budget import DeltaBudget
from embtables.state.write.merged_snapshot import write_merged_snapshot
from embtables.state.write.rank_files import RankFiles, artifact_files, rank_files
from embtables.state.write.ranks import RankPart
from embtables.tables.table_set import Tables

_LOOK_SECONDS = 0.5
_NO_CUT = -1  # says to the other ranks that one cannot take a version


@dataclass(frozen=True, slots=True)
class _Parent:
    """The last committed version, and the cut of the tables that it holds."""

    sequence: int
    cut: int | None
    deltas: int  # since its snapshot
    side_tables: Mapping[str, str]  # checksums by file; of those that this rank writes at least
    dense: str | None = None  # checksum of the dense tensors' file; rank 0's


@dataclass(frozen=True, slots=True)
class _Due:
    """A version that is to be written."""

    version: Version
    pins: tuple[str, ...]
    side_tables: Mapping[str, SideFile]
    cut: int | None
    deltas: int  # since its snapshot; 0: it is one
    whole: bool  # without regard to a budget


class VersionWriter:
    """Writes one purpose's versions of one set of tables; the caller holds the lease.

    Several writers may write the same tables: each is a consumer of their changes (`Tables.cuts`), and each version is
    a delta to the one before with the same purpose.

    Args:
        holder: at rank 0 the holder of the lease; at other ranks the folder, the same one.
        projection: what a version holds of the tables: all that training needs (`full`), or what a server reads
            (`weights`).
        consumer: the name under which it holds cuts of the tables; by default the purpose.
        world: the ranks that hold the tables; each captures the rows of its buckets and nothing else. All ranks make
            the writer and call its methods in the same order. By default there is one rank.
        keep: newest versions that stay, besides pinned ones.
        longest: deltas in a row before the next snapshot. In a chain of `serving` that one comes right after a delta
            and has the same content, so that a follower which keeps up never reads a snapshot again.
        dtype: how files have the weights of rows; others than float32 only in a version of `weights`.
        max_delta_bytes: of rows in a delta, of a chain of `weights` at one rank; see DeltaBudget.

    Attributes:
        failures: what could not be written so far.
        held_back: rows that the last version on the disk lacks for its budget.

    Raises:
        ConfigError: an argument is of another kind; or a budget goes with several ranks, another projection, or tables
            whose rows all decay.
        StateError: rank 0 does not hold the lease, or another does; or the tables have a consumer of this name.

    Example:
        >>> import embtables, torch
        >>> from pathlib import Path
        >>> item = embtables.CollisionlessTable(name="item", dim=4, optimizer=embtables.Sgd(learning_rate=0.1))
        >>> tables = embtables.Tables([item], [embtables.Feature(name="seen", table="item")], seed=0)
        >>> state = embtables.StateFolder(Path("state"))
        >>> with embtables.LeaseHolder(state) as holder:
        ...     resume = embtables.VersionWriter(holder, "resume", tables)
        ...     serving = embtables.VersionWriter(holder, "serving", tables, projection="weights")
        ...     for step in (1, 2):
        ...         tables.set("item", torch.tensor([step]), torch.ones(1, 4))  # or train
        ...         resume.cut({}, {"step": step})  # the dense tensors, and what is to be read again
        ...         serving.cut({}, {"step": step})
        ...     resume.close()
        ...     serving.close()
        >>> resume.failures + serving.failures
        []
        >>> [version.name for version in state.chain("serving", 2)]  # a snapshot, then a delta to it
        ['serving-1', 'serving-2']
    """

    def __init__(
        self,
        holder: LeaseHolder | StateFolder,
        purpose: Purpose,
        tables: Tables,
        *,
        projection: Projection = "full",
        consumer: str | None = None,
        world: World | None = None,
        keep: int = 2,
        longest: int = 16,
        dtype: WeightDtype = "fp32",
        max_delta_bytes: int | None = None,
    ) -> None:
        need(holder, LeaseHolder | StateFolder, "holder", "the holder of the lease, or at other ranks the folder")
        as_choice(purpose, PURPOSES, "purpose")
        need(tables, Tables, "tables", "the Tables to write")
        as_choice(projection, get_args(Projection), "projection")
        as_choice(dtype, WEIGHT_DTYPES, "dtype")
        if dtype != "fp32" and projection != "weights":
            raise ConfigError(f"is {dtype}, which only versions of weights have", argument="dtype")
        need(world, World | None, "world", "the World of the ranks")
        self._world = SingleRank() if world is None else world
        if isinstance(holder, LeaseHolder) is not (self._world.rank == 0):
            raise StateError("rank 0 must hold the lease to write, and no other rank may", rank=self._world.rank)
        self._holder = holder
        self._commit = CommitAcrossRanks(holder, self._world.another())
        self._purpose: Purpose = purpose
        self._projection: Projection = projection
        self._dtype: WeightDtype = dtype
        self._budget = None if max_delta_bytes is None else self._made_budget(tables, max_delta_bytes)
        self._tables = tables
        self._keep = as_integer(keep, "keep", least=1)
        self._longest = as_integer(longest, "longest", least=0)
        knows_cuts = Ability.CUTS in tables.rows.abilities
        named = purpose if consumer is None else as_name(consumer, "consumer")
        self._consumer = tables.cuts.consumer(named) if knows_cuts else None
        self._parent: _Parent | None = None
        self._pending: futures.Future[_Parent] | None = None
        self._thread = futures.ThreadPoolExecutor(1, thread_name_prefix="state")
        self._abandoned = threading.Event()
        self.failures: list[EmbtablesError] = []
        self.held_back = 0

    def _made_budget(self, tables: Tables, max_delta_bytes: int) -> DeltaBudget:
        if self._world.size > 1 or self._projection != "weights":
            reason = "is of versions of weights that one rank writes"
            raise ConfigError(reason, argument="max_delta_bytes")
        return DeltaBudget(tables.stored, as_integer(max_delta_bytes, "max_delta_bytes", least=1), self._dtype)

    def go_on_from(self, chain: Sequence[Manifest]) -> None:
        """The tables hold the last version of this chain: the next one is a delta to it, if it holds the same of them
        and there is no budget, which has to know what the version holds.

        Args:
            chain: a snapshot and its deltas.
        """
        number, last = self._draw_cut(), chain[-1]
        if number is not None and self._consumer is not None:
            self._consumer.hold(number)
        is_same = last.projection == self._projection and all(t.dtype == self._dtype for t in last.tables.values())
        if is_same and self._budget is None:
            side_tables = {name: version.files[name].xxh3 for name, version in side_files_of(chain).items()}
            dense = dense_version(chain).files[DENSE_FILE].xxh3
            self._parent = _Parent(last.sequence, number, len(chain) - 1, side_tables, dense)

    def cut(
        self,
        tensors: Tensors,
        content: Mapping[str, Any],
        pins: Sequence[str] = (),
        side_tables: Mapping[str, SideFile] | None = None,
        *,
        whole: bool = False,
    ) -> None:
        """Takes a version between two steps and writes it in the background. Waits while the one before is written.

        What fails on the way to the disk is found in `failures`, or raised by `wait`.

        Args:
            tensors: everything dense; copied. With several ranks, rank 0's are used; so are its `content` and `pins`. A
                delta has none where they are those of the version before, bit for bit.
            content: what is to be read again with the version; JSON-able, copied.
            pins: names of pins that are to keep this version.
            side_tables: by file (`side.0.arrow`) what a server joins to requests, or a reader of events goes on from,
                as the content says; with several ranks each gives and writes files of its own. A delta has those alone
                that are not those of the version before.
            whole: with all rows that changed, whatever the budget is.

        Raises:
            StateError: the content is not JSON; gradients wait for their step; or this is so at another rank.
            WorldError: a rank is gone or silent, now or while the version before was written.
        """
        self._note(self._harvest())
        parent = self._parent
        try:
            version = self._dense(tensors, content)
            number = self._draw_cut()
            changed = None if parent is None or self._needs_snapshot(parent) else self._changes(parent)
        except Exception:
            self._of_all_ranks(_NO_CUT)
            raise
        base = self._base(parent if changed is not None else None)
        if changed is None or base is None:
            _let_go(changed or {})
            changed, base = self._capture(None), None
            version.artifacts = {} if self._world.rank else self._tables.artifacts
        deltas = 0 if base is None or parent is None else parent.deltas + 1
        due = _Due(version, tuple(pins), dict(side_tables or {}), number, deltas, whole)
        self._pending = self._thread.submit(self._write, changed, due, None if deltas == 0 else parent)

    def _needs_snapshot(self, parent: _Parent) -> bool:
        """Whether the next version is not to be a delta. In a chain of `serving` each is one where that is possible."""
        return self._purpose != "serving" and parent.deltas >= self._longest

    def _draw_cut(self) -> int | None:
        """A cut of the tables, held from now on if none is held yet; None if the tables do not support cuts."""
        if self._consumer is None:
            return None
        number = self._tables.draw_cut()
        if self._consumer.cut is None:
            self._consumer.hold(number)
        return number

    def _dense(self, tensors: Tensors, content: Mapping[str, Any]) -> Version:
        """What rank 0 writes besides the tables, copied."""
        if self._world.rank:
            return Version({})
        try:
            canonical(content)
        except (TypeError, ValueError) as error:
            raise StateError(f"the content of a version must be JSON: {error}") from error
        return Version({}, {n: v.copy() for n, v in tensors.items()}, copy.deepcopy(dict(content)))

    def _changes(self, parent: _Parent) -> dict[str, Capture] | None:
        """What changed since the parent; None if that is not known and the next version is a snapshot."""
        if parent.cut is None:
            return None
        try:
            return self._capture(parent.cut)
        except StateError:
            return None

    def _capture(self, after: int | None) -> dict[str, Capture]:
        return self._tables.capture(after, weights_only=self._projection == "weights")

    def _base(self, parent: _Parent | None) -> int | None:
        """The version that all ranks can make a delta to; None if one of them cannot, and all write the whole.

        Args:
            parent: the version to which this rank can.
        """
        parents = self._of_all_ranks(0 if parent is None else parent.sequence)
        if _NO_CUT in parents:
            raise StateError("could not take a version, so no rank does", rank=parents.index(_NO_CUT))
        return None if parent is None or any(each != parent.sequence for each in parents) else parent.sequence

    def _of_all_ranks(self, number: int) -> list[int]:
        """The number that each rank gives, this one the given."""
        return [int(each) for each in self._world.all_gather(torch.tensor([number]))]

    def _write(self, captured: Mapping[str, Capture], due: _Due, parent: _Parent | None) -> _Parent:
        """Writes a version, a delta to its parent if there is one; returns what the next one is a delta to."""
        try:
            kind = VersionKind(self._purpose, None if parent is None else parent.sequence, self._projection)
            streamed, held_back = self._chosen(captured, parent, whole=due.whole)
            dense: list[str] = []
            written = self._commit.write(kind, lambda: self._files(streamed, due, parent, dense))
        finally:
            # An error would hold them in its traceback, and the tables would go on saving rows for them.
            _let_go(captured)
        content, pins = due.version.content, due.pins
        sequence, failed = self._commit.finish(written, content, lambda made: self._keep_only(made, pins))
        self.failures += failed
        self.held_back = held_back
        if self._budget is not None:
            self._budget.took(streamed, is_snapshot=parent is None)
        # What was held back changed since the cut of which everything is written.
        cut = due.cut if parent is None or not held_back else parent.cut
        deltas = due.deltas
        if self._purpose == "serving" and deltas >= max(1, self._longest):
            sequence, deltas = self._merged(sequence, deltas)
        side_tables = {name: file.xxh3 for name, file in due.side_tables.items()}
        return _Parent(sequence, cut, deltas, side_tables, *dense)

    def _chosen(
        self, captured: Mapping[str, Capture], parent: _Parent | None, *, whole: bool
    ) -> tuple[dict[str, TableContent], int]:
        """What is written of the tables, and how many rows wait for a later version."""
        if self._budget is None:
            return {name: capture.streamed() for name, capture in captured.items()}, 0
        contents = {name: capture.content() for name, capture in captured.items()}
        if parent is None or whole:
            return contents, 0
        chosen = self._budget.choose(contents)
        return chosen.contents, chosen.held_back

    def _merged(self, sequence: int, deltas: int) -> tuple[int, int]:
        """Has the chain that this version ends written as a snapshot; returns the newest version and its deltas.

        A failure leaves the chain as it is: it is longer by one then, and the next delta tries again.
        """
        try:
            return self._commit.at_rank_0(lambda holder: self._write_merged(holder, sequence)), 0
        except StateError as error:
            self.failures.append(error)
            return sequence, deltas

    def _write_merged(self, holder: LeaseHolder, sequence: int) -> int:
        chain = holder.state.chain(self._purpose, sequence)
        return write_merged_snapshot(holder, chain, self._need_not_abandoned).sequence

    def _files(self, tables: dict[str, TableContent], due: _Due, parent: _Parent | None, dense: list[str]) -> RankFiles:
        """This rank's files, without side tables and dense tensors that are those of the parent.

        Args:
            dense: takes the checksum of the dense tensors.
        """
        there = {} if parent is None else parent.side_tables
        part, version = RankPart(self._world.buckets(), tables), due.version
        found = rank_files(self._tables.stored, self._world.rank, part, version.tensors, self._projection, self._dtype)
        found.files |= artifact_files(version.artifacts)
        if self._world.rank == 0:
            dense.append(checksum(found.files[DENSE_FILE].chunks))
            if parent is not None and dense == [parent.dense]:
                del found.files[DENSE_FILE]
        new = {name: file for name, file in due.side_tables.items() if there.get(name) != file.xxh3}
        found.files |= {name: NewFile(file.chunks()) for name, file in new.items()}
        for file in found.files.values():
            file.chunks = self._unless_abandoned(file.chunks)
        return found

    def _unless_abandoned(self, chunks: Iterable[Buffer]) -> Iterator[Buffer]:
        for chunk in chunks:
            self._need_not_abandoned()
            yield chunk

    def _need_not_abandoned(self) -> None:
        if self._abandoned.is_set():
            raise StateError("the version that was being written was given up; earlier versions are intact")

    def _keep_only(self, manifest: Manifest, pins: tuple[str, ...]) -> list[StateError]:
        """Pins the version and removes what is no longer needed. It is there: what fails takes nothing of it back."""
        holder = self._holder
        assert isinstance(holder, LeaseHolder)
        try:
            for pin in pins:
                holder.pin(pin, manifest)
            holder.collect({self._purpose: self._keep})
        except StateError as error:
            return [error]
        return []

    def _harvest(self) -> StateError | None:
        """What became of the version being written: None if it is there, or there was none."""
        if self._pending is None:
            return None
        written = self._pending
        # Ctrl-C may end the wait, which is then to be taken up again. One that comes just as it begins is seen once
        # it ends.
        while futures.wait([written], _LOOK_SECONDS).not_done:
            pass
        self._pending = None
        try:
            self._parent = written.result()
        except StateError as error:
            return error
        if self._parent.cut is not None and self._consumer is not None:
            self._consumer.hold(self._parent.cut)
        return None

    def _note(self, error: EmbtablesError | None) -> None:
        if error is not None:
            self.failures.append(error)

    def wait(self) -> None:
        """Until the last version is on the disk. Raises StateError or WorldError if it could not be written."""
        error = self._harvest()
        if error is not None:
            raise error

    def is_written(self, seconds: float) -> bool:
        """Whether nothing is being written any more; waits at most `seconds`. Raises nothing."""
        return self._pending is None or not futures.wait([self._pending], seconds).not_done

    def abandon(self) -> None:
        """Gives up the version that is being written: it fails as soon as the disk has written the current piece.

        If all of its files are already written, the version is complete all the same.
        """
        self._abandoned.set()

    def close(self) -> None:
        """Waits for what is being written; what fails is found in `failures`. The writer then holds no cut any more."""
        try:
            self._note(self._harvest())
        except WorldError as error:
            self._note(error)
        self._thread.shutdown()
        if self._consumer is not None:
            self._consumer.close()


def _let_go(captured: Mapping[str, Capture]) -> None:
    for capture in captured.values():
        capture.close()
