"""Several ranks in one process: each has its own tables and sees the keys of its buckets alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torchrec import KeyedJaggedTensor

from embtables import EmbeddingBagCollection, Tables
from embtables.keyspace import Buckets, buckets_of
from embtables.rows.content import restrict
from embtables.rows.stored_table import StoredTable
from embtables.shard.world import World
from embtables.state.folder.version_folder import LeaseHolder, StateFolder, VersionKind
from embtables.state.format.manifest import Manifest
from embtables.state.read.load import load as load_version
from embtables.state.write.commit_across_ranks import CommitAcrossRanks
from embtables.state.write.rank_files import rank_files
from embtables.state.write.ranks import RankPart
from tests.shard.threads_for_tests import in_threads

ONE = [(0, 1024)]


def ranges(cuts: Sequence[int]) -> list[Buckets]:
    """Ranges that end at these buckets and at the last."""
    ends = [*sorted(cuts), 1024]
    return list(zip([0, *ends[:-1]], ends, strict=True))


def write_parts(
    writer: LeaseHolder, kind: VersionKind, stored: Sequence[StoredTable], parts: Sequence[RankPart]
) -> Manifest:
    """A version of what several ranks hold, which are threads here."""

    def work(world: World) -> int:
        ranks = CommitAcrossRanks(writer if world.rank == 0 else writer.state, world)
        own = parts[world.rank]
        written = ranks.write(kind, lambda: rank_files(stored, world.rank, own, {}, kind.projection))
        return ranks.finish(written, {}, lambda _: [])[0]

    return writer.state.manifest(kind.purpose, in_threads(len(parts), work)[0])


@dataclass
class Batch:
    """ids: (F, B) a feature's id of each row, -1 for none; gradient: (B, sum of D); time in microseconds."""

    ids: npt.NDArray[np.int64]
    gradient: npt.NDArray[np.float32]
    time: int


class Ranks:
    """The same tables at several ranks; with one range, tables as any process has them."""

    def __init__(self, make: Callable[[], Tables], owned: Sequence[Buckets]) -> None:
        self.owned = tuple(owned)
        self.tables = [make() for _ in owned]
        self._views = [EmbeddingBagCollection.over(tables) for tables in self.tables]
        self._seeds = [table.seed for table in self.tables[0].stored]
        self._dims = [table.config.dim for table in self.tables[0].stored]
        self._cuts: list[int] = []

    def _lookup(self, ids: npt.NDArray[np.int64]) -> tuple[list[torch.Tensor], torch.Tensor]:
        """Each rank's output and what the owners' make together. Feature n reads table n."""
        found = []
        whole = torch.zeros(ids.shape[1], sum(self._dims))
        for owned, view in zip(self.owned, self._views, strict=True):
            buckets = np.stack([buckets_of(row, seed) for row, seed in zip(ids, self._seeds, strict=True)])
            mine = (ids >= 0) & (buckets >= owned[0]) & (buckets < owned[1])
            names = [f"f{n}" for n in range(len(ids))]
            lengths = torch.from_numpy(mine.reshape(-1).astype(np.int32))
            out = view(KeyedJaggedTensor(names, torch.from_numpy(ids[mine]), lengths=lengths)).values()
            columns = np.repeat(mine.T, self._dims, axis=1)
            whole = torch.where(torch.from_numpy(columns), out.detach(), whole)
            found.append(out)
        return found, whole

    def step(self, batch: Batch) -> torch.Tensor:
        """One step of all ranks; what the batch's rows read before it."""
        for tables in self.tables:
            tables.advance(torch.full((3,), batch.time))
        found, whole = self._lookup(batch.ids)
        for out, tables in zip(found, self.tables, strict=True):
            out.backward(torch.from_numpy(batch.gradient))
            tables.step()
        return whole

    def read(self, ids: npt.NDArray[np.int64]) -> torch.Tensor:
        """What inference reads of ids (F, B)."""
        with torch.no_grad():
            return self._lookup(ids)[1]

    def delete(self, table: int, ids: npt.NDArray[np.int64]) -> None:
        """Each rank deletes its ids."""
        buckets = buckets_of(ids, self._seeds[table])
        for owned, tables in zip(self.owned, self.tables, strict=True):
            mine = torch.from_numpy(ids[(buckets >= owned[0]) & (buckets < owned[1])])
            tables.delete(tables.configs[table].name, mine)

    def write(self, writer: LeaseHolder, parent: int | None) -> Manifest:
        """A version of all ranks: a snapshot, or a delta to the version that they last wrote or loaded."""
        parts = []
        for rank, (owned, tables) in enumerate(zip(self.owned, self.tables, strict=True)):
            content = tables.content(None if parent is None else self._cuts[rank])
            seeds = {table.config.name: table.seed for table in tables.stored}
            parts.append(RankPart(owned, {name: restrict(c, seeds[name], owned) for name, c in content.items()}))
        self._cuts = [tables.draw_cut() for tables in self.tables]
        return write_parts(writer, VersionKind("resume", parent), self.tables[0].stored, parts)

    def load(self, state: StateFolder, chain: Sequence[Manifest]) -> None:
        """Each rank reads what it owns."""
        for owned, tables in zip(self.owned, self.tables, strict=True):
            load_version(state, chain, tables, owned)
        self._cuts = [tables.draw_cut() for tables in self.tables]
