"""`Tables`: the set of tables of one model, what features read them, and the step that updates them.

`advance` says when the batch to come happened. A forward pass (through the views of lookup/) admits new keys and keeps
what its backward needs; backward keeps row gradients; `step` sums duplicates, updates every touched row once, and
evicts. Nothing else changes a row.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from embtables.arguments import as_floats, as_ids, as_microseconds, as_number
from embtables.errors import ConfigError, DataError, StateError
from embtables.given import as_flag, as_integer, need, need_iterable, shown
from embtables.ids import Artifacts
from embtables.rows.content import TableContent
from embtables.rows.exclusive import StoreLock, exclusive
from embtables.rows.protocol import Ability, Capture, RowStore
from embtables.schema import CollisionlessTable, Feature, FixedTable, Table
from embtables.shard.world import World
from embtables.tables.checks import check_made_of
from embtables.tables.clock import LAST_SECOND, EventClock
from embtables.tables.cuts import CutLedger
from embtables.tables.frozen_tables import Lookups
from embtables.tables.lookup_tables import LookupTables
from embtables.tables.row_store import RowStoreName, make_row_store
from embtables.tables.table_stats import CountedCapture, TableCounts, TableStats, quantiles, stats_of, totals
from embtables.tables.waiting import WaitingGradients

_READ_ROWS = 1 << 20


@dataclass(frozen=True, slots=True)
class TableChanges:
    """A table's rows that changed since a cut, and the keys that lost theirs.

    Attributes:
        keys: (n,) int64, ascending. For a collisionless table, all keys that training has looked up since.
        weight: (n, D) float32, their rows.
        tombstones: (m,) int64, ascending: keys that had a row and have none.
        decay: what every other row has been multiplied by since; below 1 where the table's weight decay is dense.
    """

    keys: Tensor
    weight: Tensor
    tombstones: Tensor
    decay: float = 1.0


class Tables(LookupTables):
    """Tables and the features that read them; a feature may read several tables (once each).

    Threads wait for each other: each method, and each lookup and backward of the views, holds a lock to its end. What
    another thread changes between a lookup and its backward may end that backward in a StateError. A process that was
    forked from one that had tables cannot use tables: StateError.

    Args:
        tables: their configurations, names unique.
        features: what reads them, each naming its table.
        seed: the run's seed; initial rows are a pure function of (seed, table name, key).
        row_store: `host` (native; everything), `fbgemm` (fixed tables; SGD, Adagrad, rowwise Adagrad) or `reference`
            (plain torch).
        world: the ranks that hold the tables together, each the rows of its buckets; by default this process alone.
            With several ranks, all call every method in the same order, except those that list or capture.
        replicated: names of fixed tables of which every rank holds all rows (embtables/shard/placement.py).
        artifacts: the data of encoders, by feature, from the version to load; a feature without any is of a new run.
        shares_keys: false for a version of an older build, whose first-order weights have keys of their own.

    Raises:
        ConfigError: two tables have one name, a feature names an unknown table, the row store lacks an option of a
            table, or there is no memory for them.

    Example:
        >>> import embtables, torch
        >>> item = embtables.CollisionlessTable(name="item", dim=4, optimizer=embtables.Sgd(learning_rate=0.1))
        >>> tables = embtables.Tables([item], [embtables.Feature(name="seen", table="item")], seed=0)
        >>> tables.set("item", torch.tensor([7, -42]), torch.ones(2, 4))
        >>> tables.get("item", torch.tensor([-42, 8]))  # id 8 has no row: it reads zeros
        tensor([[1., 1., 1., 1.],
                [0., 0., 0., 0.]])
        >>> tables.stats()["item"].rows
        2
    """

    def __init__(
        self,
        tables: Sequence[Table],
        features: Sequence[Feature],
        *,
        seed: int,
        row_store: RowStoreName = "host",
        world: World | None = None,
        replicated: Collection[str] = (),
        artifacts: Mapping[str, Artifacts] | None = None,
        shares_keys: bool = True,
    ) -> None:
        check_made_of(tables, features, row_store, replicated, {} if artifacts is None else artifacts)
        need(world, World | None, "world", "the World of the ranks")
        super().__init__(tables, features, seed=seed, artifacts=artifacts, shares_keys=shares_keys)
        self.lock = StoreLock()
        self.world = self.world if world is None else world
        copied, read = {self._numbers[name] for name in replicated}, self._read
        of_read = [self._numbers[table.name] for table in read]
        self.rows: RowStore = make_row_store(row_store, self.stored, of_read, self.world, copied)
        frozen = [number for number, table in enumerate(read) if not table.trainable]
        takes_beside = Ability.BESIDE in self.rows.abilities
        dims = [table.dim for table in read]
        self.lookups: Lookups = Lookups(self.rows, self.rows, dims, frozen, self.lock, takes_beside=takes_beside)
        self._clocks = {
            number: EventClock(table.max_clock_step_seconds)
            for number, table in enumerate(tables)
            if isinstance(table, CollisionlessTable) and table.ttl_seconds is not None and table.trainable
        }
        self.cuts = CutLedger(self.rows.forget_changes, self.lock)
        self._counts = [TableCounts(self.rows, n, self._clocks.get(n), self.world) for n in range(len(tables))]
        self.waiting = WaitingGradients()
        self._advanced = False
        self._refused = {n: 0 for n, table in enumerate(tables) if table.non_finite_gradients == "raise"}

    @exclusive
    def set_learning_rate_factor(self, factor: float) -> None:
        """From now on every table learns at its configured rate times `factor`, from 0 on."""
        self.rows.set_learning_rate_factor(as_number(factor, "factor", least=0.0))

    @exclusive
    def advance(self, event_time_us: Tensor) -> None:
        """Says when the next batch happened: tables with a ttl move their clocks.

        Call it before the step's first lookup.

        Args:
            event_time_us: (B,) event times of the batch: integers, in microseconds, or timestamps; each rank gives its
                own.

        Raises:
            DataError: these are no times.
            StateError: row gradients are waiting for their step.
        """
        event_time_us = as_microseconds(event_time_us)
        if self._clocks:
            event_time_us = torch.cat(self.world.all_gather(event_time_us))
        for number, clock in self._clocks.items():
            begins = clock.now == 0
            found = self.rows.capture(number, None).content() if begins else None
            self.rows.advance(number, clock.observe(event_time_us))
            if found is not None and clock.now and len(found.keys) + len(found.waiting):
                self._begin_ages(number, found, clock.now)
        self._advanced = True

    def _begin_ages(self, number: int, found: TableContent, now: int) -> None:
        """What was there before the clock had a time counts as seen now, or its ttl would be over at once."""
        found.seen, found.waiting_seen = np.full_like(found.seen, now), np.full_like(found.waiting_seen, now)
        found.now = now
        self.rows.apply(number, found)

    @exclusive
    def step(self, *, gradient_scale: float = 1.0) -> None:
        """Updates every row touched since the last step, once, and forgets its gradients; then evicts.

        Args:
            gradient_scale: factor on all row gradients (clipping by global norm), finite.

        Raises:
            ConfigError: a table has a ttl, and no `advance` said when the batch happened; or the scale is not finite.
            DataError: rows of a table with `non_finite_gradients: raise` had gradients that are not finite;
                those rows are unchanged.
        """
        scale = as_number(gradient_scale, "gradient_scale")
        if self._clocks and not self._advanced:
            table = self.configs[next(iter(self._clocks))].name
            raise ConfigError("has ttl_seconds: call advance(event_time_us) before the lookup", table=table)
        self.rows.update(scale)
        self.waiting.clear()
        self._advanced = False
        for number, config in enumerate(self.configs):
            # Without a ttl the clock counts steps: it orders rows by when they were last seen, for max_rows.
            if isinstance(config, CollisionlessTable) and config.trainable and number not in self._clocks:
                self.rows.advance(number, min(self.rows.figures(number)["steps"], LAST_SECOND))
        self._raise_refused()

    def _raise_refused(self) -> None:
        if not self._refused:
            return
        refused = torch.tensor([self.rows.figures(number)["refused_gradients"] for number in self._refused])
        self.world.all_reduce(refused)
        for (number, before), now in zip(list(self._refused.items()), refused.tolist(), strict=True):
            self._refused[number] = now
            if now > before:
                raise DataError(
                    f"gradients of {now - before} rows were not finite; look at learning rates and dense columns, "
                    "or set non_finite_gradients: skip",
                    table=self.configs[number].name,
                )

    @exclusive
    def gradient_norm(self) -> float:
        """L2 norm over the row gradients that the next `step` will apply, duplicates summed."""
        return self.rows.gradient_norm()

    @exclusive
    def discard(self) -> None:
        """Forgets the row gradients kept since the last step."""
        self.rows.discard()
        self.waiting.clear()

    @exclusive
    def keys(self, table: str) -> Tensor | None:
        """Keys that have a row, ascending, (n,) int64; None for a whole fixed table, whose keys are 0..num_rows-1."""
        found = self.rows.key_state(self._number(table))
        return None if found is None else torch.cat(self.world.all_gather(found.keys)).sort().values

    @exclusive
    def weight(self, table: str) -> Tensor:
        """All rows of a table, (n, D) float32, in the order of their keys; a copy."""
        number = self._number(table)
        return torch.cat([self.rows.read(number, "weight", keys) for keys in self._key_batches(number)])

    @exclusive
    def set_weight(self, table: str, values: Tensor, *, keys: Tensor | None = None) -> None:
        """Replaces all rows of a table (n, D), given in the order of their keys, as `weight` gives them.

        Args:
            keys: (n,), for a collisionless table: it then has rows of these keys alone, in any order given. Rows that
                stay keep their optimizer state.

        Raises:
            StateError: the shape differs, a key comes twice, or keys are given for a fixed table.
            DataError: a value is not finite as float32, or these are no keys.
        """
        number = self._number(table)
        if keys is not None:
            self._replace(number, as_ids(keys, "keys", table=table), values)
            return
        batches = self._key_batches(number)
        needed = (sum(map(len, batches)), self.configs[number].dim)
        self._need_shape(table, values, needed)
        rows = as_floats(values, needed, "values", table=table)
        for own, part in zip(batches, torch.split(rows, [len(each) for each in batches]), strict=True):
            self.rows.write(number, "weight", own, part)

    def _replace(self, number: int, keys: Tensor, values: Tensor) -> None:
        """`set_weight` of a collisionless table with keys."""
        config, world = self.configs[number], self.world
        held = self.keys(config.name)
        if not isinstance(config, CollisionlessTable) or held is None:
            raise StateError("is a fixed table, whose keys are row numbers, and is given keys", table=config.name)
        if len(np.unique(keys.numpy())) < len(keys):
            raise StateError("is given a key twice", table=config.name)
        self._need_shape(config.name, values, (len(keys), config.dim))
        rows = as_floats(values, (len(keys), config.dim), "values", table=config.name)
        gone = held[~torch.isin(held, keys)]
        for each in self._with_keys_of(number):
            self.rows.delete(each, gone[world.part_of(len(gone))])
        own = world.part_of(len(keys))
        self.set_rows(number, keys[own], rows[own])

    def _need_shape(self, table: str, values: Tensor, needed: tuple[int, int]) -> None:
        if isinstance(values, Tensor) and tuple(values.shape) != needed:
            reason = f"has shape {tuple(values.shape)}, the table needs {needed}"
            raise StateError(reason, tensor=f"tables/{table}/weight")

    @exclusive
    def draw_cut(self) -> int:
        """Ends a cut, after which `changes` can report. Call it between a step and the next lookup.

        Changes since a cut stay known while a consumer holds it or an earlier one (`cuts`); up to 256 MB per table
        are kept for that; beyond, the oldest are dropped.

        Returns:
            Its number; the first is 1.

        Raises:
            StateError: row gradients are waiting for their step.
            ConfigError: the row store knows no cuts (fbgemm).
        """
        cut = self.rows.draw_cut()
        self.cuts.note_drawn(cut)
        return cut

    @exclusive
    def changes(self, table: str, after: int) -> TableChanges:
        """What happened to a table since the cut `after`.

        A row past its ttl becomes a tombstone when the sweep reaches it. A copy that follows:

            with tables.cuts.consumer("copy") as copy:
                copy.hold(tables.draw_cut())
                ...  # the copy takes the whole table; training goes on
                changes = tables.changes("items", after=copy.cut)
                copy.hold(tables.draw_cut())
                ...  # the copy multiplies its rows by `changes.decay`, and then takes over keys and tombstones

        Raises:
            StateError: no such cut was drawn, or what happened since is not known any more: no consumer held the cut,
                or too much happened. Take the whole table then.
        """
        content = self.rows.capture(self._number(table), as_integer(after, "after")).content()
        content = content.unscaled()
        order, gone = np.argsort(content.keys), torch.from_numpy(np.sort(content.tombstones))
        rows = torch.from_numpy(content.columns["weight"][order])
        return TableChanges(torch.from_numpy(content.keys[order]), rows, gone, content.decay)

    @exclusive
    def get(self, table: str, ids: Tensor, *, feature: str | None = None) -> Tensor:
        """Vectors of raw ids (n,), as inference reads them; an id without a row reads the cold row.

        Args:
            ids: integers of any type, in a torch tensor, a numpy or Arrow array, a column of a data frame, or a list.
                A uint64 keeps its 64 bits, as in a log. Strings are hashed first, as training hashes them:
                `embtables.hash_strings`.
            feature: the feature whose encoder turns ids into keys; needed if the table's features encode differently.

        Returns:
            (n, D). If the encoder has T rows per id, they are combined; if it concatenates them: (n, T * D).

        Raises:
            ConfigError: no such table or feature, or encoders that differ.
            DataError: these are no ids, or the encoder refuses one.
        """
        return super().get(table, ids, feature=feature)

    @exclusive
    def known(self, table: str, ids: Tensor, *, feature: str | None = None) -> Tensor:
        """Which raw ids (n,) have a row, (n,) bool; all of them in a fixed table. An id with several rows has them all.

        Args:
            ids, feature: as of `get`.

        Raises:
            ConfigError, DataError: as `get`.

        Example:
            >>> import embtables, torch
            >>> item = embtables.CollisionlessTable(name="item", dim=4, optimizer=embtables.Sgd(learning_rate=0.1))
            >>> tables = embtables.Tables([item], [embtables.Feature(name="seen", table="item")], seed=0)
            >>> tables.set("item", torch.tensor([7, -42]), torch.ones(2, 4))
            >>> tables.known("item", [7, 8]).tolist()
            [True, False]
        """
        return super().known(table, ids, feature=feature)

    @exclusive
    def gather_into(
        self,
        number: int,
        keys: npt.NDArray[np.int64],
        out: npt.NDArray[np.float32],
        is_cold: npt.NDArray[np.bool_] | None = None,
    ) -> int:
        """See LookupTables."""
        return super().gather_into(number, keys, out, is_cold)

    def num_rows(self, table: str) -> int:
        """How many rows a table holds in this process, those past their ttl among them; cheaper than `stats`."""
        return self.rows.figures(self._number(table))["rows"]

    @exclusive
    def set(self, table: str, ids: Tensor, rows: Tensor, *, feature: str | None = None) -> None:
        """Sets the rows (n, D) of raw ids (n,), which are seen now. Ids without a row get one; optimizer state stays.
        If an id comes twice, its last row is used.

        Args:
            ids: as of `get`.
            rows: numbers of any type, which are rounded to float32.

        Raises:
            ConfigError: as `keys_of`.
            DataError: as `keys_of`; or the shape is wrong, or a value is not finite as float32.
            StateError: row gradients are waiting for their step.
        """
        number, keys = self.keys_of(table, ids, feature)
        rows = as_floats(rows, (len(keys), self.configs[number].dim), "rows", table=table)
        self.set_rows(number, keys, rows)

    @exclusive
    def set_rows(self, number: int, keys: Tensor, rows: Tensor) -> None:
        """`set` by the table's number and keys (n,), of rows (n, D) that are finite. Raises StateError as `set`."""
        distinct, last = np.unique(keys.numpy()[::-1], return_index=True)
        if len(distinct) < len(keys):  # threads write rows in no order: a key comes once
            places = torch.from_numpy(np.sort(len(keys) - 1 - last))
            keys, rows = keys[places], rows[places]
        for table in self._with_keys_of(number):
            self.rows.make(table, keys)
        self.rows.write(number, "weight", keys, rows)

    @exclusive
    def delete(self, table: str, ids: Tensor, *, feature: str | None = None) -> None:
        """Raw ids (n,) lose their rows, which become tombstones, and wait no longer: as if they had never been seen.
        Their first-order weights go with them.

        In a fixed table, several ids may share a row; it is fresh afterwards.

        Args:
            ids: as of `get`.

        Raises:
            ConfigError, DataError: as `keys_of`.
            StateError: row gradients are waiting for their step.
        """
        number, keys = self.keys_of(table, ids, feature)
        for each in self._with_keys_of(number):
            self.rows.delete(each, keys)

    def _with_keys_of(self, number: int) -> list[int]:
        """A table and those that share its keys: embeddings and first-order weights."""
        leaders = [table.keys_of or table.config.name for table in self.stored]
        return [n for n, leader in enumerate(leaders) if leader == leaders[number]]

    @exclusive
    def table_content(self, table: str) -> TableContent:
        """Everything of one table that training changes, copied; of weights what is stored (`TableContent.scale`)."""
        return self.rows.capture(self._number(table), None).content()

    @exclusive
    def capture(self, after: int | None = None, *, weights_only: bool = False) -> dict[str, Capture]:
        """Everything that training changes, by table, as it is now; with `after`, what changed since that cut.

        Right after `draw_cut`, all of it is captured in a moment: rows are copied when the content is asked for, on any
        thread, while training goes on.

        Args:
            weights_only: optimizer state, counts and waiting keys may be left out, which nobody but training reads.

        Raises:
            ConfigError: `after` is no integer, or `weights_only` no flag.
            StateError: with `after`, as `changes`.
        """
        after = None if after is None else as_integer(after, "after")
        as_flag(weights_only, "weights_only")
        return {
            config.name: CountedCapture(
                self.rows.capture(number, after, weights_only=weights_only), self._counts[number].to_save()
            )
            for number, config in enumerate(self.configs)
        }

    @exclusive
    def content(self, after: int | None = None) -> dict[str, TableContent]:
        """The same, copied. Raises as `capture`."""
        return {name: captured.content() for name, captured in self.capture(after).items()}

    @exclusive
    def load(self, chain: Iterable[Mapping[str, TableContent]]) -> None:
        """Makes the tables hold what a snapshot and its deltas say, in their order; open lookups are forgotten.

        Counts go on from those of the last content: rank 0 takes them over, whatever rank counted them.

        Raises:
            ConfigError: these are no contents of all tables.
            StateError: as `take_over`.
        """
        need_iterable(chain, "chain", "a list of contents by table, as Tables.content gives them")
        self.discard()
        for number in range(len(self.configs)):
            self.rows.clear(number)
        figures: dict[str, dict[str, int]] = {}
        for contents in chain:
            if not isinstance(contents, Mapping) or any(config.name not in contents for config in self.configs):
                reason = f"must hold contents by table, of all tables; received {shown(contents)} in it"
                raise ConfigError(reason, argument="chain")
            for config in self.configs:
                self.take_over(config.name, contents[config.name])
            figures = {config.name: contents[config.name].figures for config in self.configs}
        for config, counts in zip(self.configs, self._counts, strict=True):
            counts.load(figures.get(config.name, {}))

    @exclusive
    def take_over(self, table: str, content: TableContent) -> None:
        """Makes a table hold what another of its configuration held, over what it holds itself.

        Raises:
            StateError: the content has other tensors than the table's rows (weights alone, say, without the optimizer's
                state).
        """
        number = self._number(table)
        if not isinstance(content, TableContent):
            raise ConfigError(f"must be a table's content, received a {type(content).__name__}", argument="content")
        held, needed = content.columns.keys() | content.streamed.keys() - {"count"}, self.stored[number].columns.keys()
        if held != needed:
            reason = f"rows to take over have {', '.join(sorted(held))}, the table's have {', '.join(sorted(needed))}"
            raise StateError(reason, table=table)
        self.rows.apply(number, content)
        if number in self._clocks:
            self._clocks[number].now = content.now

    @exclusive
    def stats(self) -> dict[str, TableStats]:
        """Rows, dimension, bytes and counts of every table, summed over ranks. With several ranks, all call it."""
        own = {c.name: stats_of(self.rows, n, c, self._counts[n].alive()) for n, c in enumerate(self.configs)}
        if self.world.size == 1:
            return own
        return totals(own, {c.name for c in self.configs if isinstance(c, CollisionlessTable)}, self.world)

    @exclusive
    def row_quantiles(self, table: str) -> dict[str, list[int]]:
        """`age` and `count` (updates) of a collisionless table's rows: least, p50, p90, p99, greatest.

        Exact, and over the rows of all ranks; with several ranks, all call it. A list is empty if there are no rows.
        Empty for a fixed table, or if the row store keeps no ages. Takes 8 bytes per row.
        """
        found = self.rows.ages_and_counts(self._number(table))
        return {} if found is None else dict(zip(("age", "count"), quantiles(found, self.world), strict=True))

    def _key_batches(self, number: int) -> list[Tensor]:
        """The keys of a table that have a row, ascending, at most _READ_ROWS at a time; at least one batch."""
        config = self.configs[number]
        keys = self.keys(config.name)
        if keys is not None:
            return list(torch.split(keys, _READ_ROWS))
        assert isinstance(config, FixedTable)
        starts = range(0, config.num_rows, _READ_ROWS)
        return [torch.arange(start, min(start + _READ_ROWS, config.num_rows)) for start in starts]
