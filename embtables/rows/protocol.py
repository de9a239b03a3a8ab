"""Row stores: rows of several tables, looked up and updated by key. What is behind one may be RAM, disk or a device.

    RowLookups   lookups that change nothing, by feature         what views need for inference
    RowReader    the same, and rows by table                     the server's side
    RowTrainer   lookups of training, and the update             a lookup of training takes its gradients itself
    RowState     contents, given and taken back; cuts
    RowAdmin     rows by key: written, made, deleted; figures
    RowStore     all of these
    PartStore    a RowStore of a part of a table's keys

A store serves *features*: one (feature, table) pair each, by number, in the order of the features. A lookup names its
features and holds their keys; the store pools by weighted sums and nothing else (mean pooling and per-id weights arrive
as weights). Row gradients are kept until `update`, which sums duplicates over all lookups of the step and updates each
touched row once.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from itertools import pairwise
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from embtables.rows.content import TableContent, Words


class Ability(Enum):
    """What not every store can do."""

    ADAM = "adam"
    WEIGHT_DECAY = "weight_decay"
    ANY_DIM = "any_dim"
    COLLISIONLESS = "collisionless"
    REFUSES_NON_FINITE = "refuses_non_finite"
    CUTS = "cuts"
    BESIDE = "beside"  # lookups with features `beside`


@dataclass(frozen=True, slots=True)
class Lookup:
    """Keys of F features for B rows. Shape letters: B rows, F features, N keys, D dim.

    Attributes:
        features: F features of the store, by number.
        keys: (N,) int64, feature after feature, row after row; each in the key range of its table.
        offsets: (F * B + 1,) int64: feature f's keys of row b are keys[offsets[f * B + b] : offsets[f * B + b + 1]].
        weights: (N,) float32 factors of the rows in the sum, or None for ones.
        num_rows: B.
        beside: none, or F more features: the i-th reads the keys of the i-th of `features` with the same factors, and
            its table shares the keys of that one's table (`StoredTable.keys_of`). Their columns come after the others.
    """

    features: tuple[int, ...]
    keys: Tensor
    offsets: Tensor
    weights: Tensor | None
    num_rows: int
    beside: tuple[int, ...] = ()

    def repeated(self) -> Lookup:
        """The same with nothing beside: the keys stand twice."""
        if not self.beside:
            return self
        return Lookup(
            self.features + self.beside,
            torch.cat([self.keys, self.keys]),
            torch.cat([self.offsets, self.offsets[1:] + len(self.keys)]),
            None if self.weights is None else torch.cat([self.weights, self.weights]),
            self.num_rows,
        )


@dataclass(frozen=True, slots=True)
class Segments:
    """Where the keys that R ranks ask for lie, F features of each rank, and where their rows lie in a message.

    Attributes:
        features: F features of the store, by number.
        bounds: (F * R + 1,) int64: feature f's keys of rank r are keys[bounds[f * R + r] : bounds[f * R + r + 1]].
        places: (F * R,) int64: the first float of their rows, which lie one after the other.
    """

    features: tuple[int, ...]
    bounds: npt.NDArray[np.int64]
    places: npt.NDArray[np.int64]

    @property
    def ranks(self) -> int:
        """R."""
        return len(self.places) // len(self.features)

    def sizes(self) -> list[int]:
        """How many keys each feature has."""
        found: list[int] = np.diff(self.bounds[:: self.ranks]).tolist()
        return found

    def each(self) -> Iterator[tuple[int, slice, int]]:
        """Each segment's feature, keys and place."""
        for number, (begin, end) in enumerate(pairwise(self.bounds.tolist())):
            yield self.features[number // self.ranks], slice(begin, end), int(self.places[number])


@dataclass(frozen=True, slots=True)
class Changes:
    """What happened to a table's keys since a cut.

    Attributes:
        keys: (n,) int64, ascending: those whose rows changed. A row of a collisionless table changes when training
            looks it up, for then it was seen; of a fixed table when it gets a gradient; any when it is written.
        tombstones: (m,) int64, ascending: those that lost their row and have none.
    """

    keys: Tensor
    tombstones: Tensor


@dataclass(frozen=True, slots=True)
class KeyState:
    """What a table knows of its keys: n with a row, m waiting. Unsigned figures lie in int32.

    A part of a fixed table has neither waiting keys nor a clock: all times are 0.

    Attributes:
        keys: (n,) int64, ascending; those alive at the clock.
        seen: (n,) int32, the clock when each was last seen.
        waiting: (m,) int64, ascending.
        waiting_counts: (m,) int32 occurrences so far.
        waiting_seen: (m,) int32.
        now: the table's clock.
        steps: steps the table has seen.
    """

    keys: Tensor
    seen: Tensor
    waiting: Tensor
    waiting_counts: Tensor
    waiting_seen: Tensor
    now: int
    steps: int


class Capture(ABC):
    """A table's content at one moment, whatever the table has done since. On any thread."""

    @abstractmethod
    def streamed(self) -> TableContent:
        """The content, for writing: large columns may be made only while they are written."""

    def content(self) -> TableContent:
        """The content, copied whole."""
        return self.streamed().gathered()

    def close(self) -> None:  # noqa: B027
        """Nobody will ask for it any more: the table goes on without saving rows for it, and its memory is free."""


class CopiedCapture(Capture):
    """A content that was copied at once."""

    def __init__(self, content: TableContent) -> None:
        self._content = content

    def streamed(self) -> TableContent:
        """See Capture."""
        return self._content


class PooledLookup(Protocol):
    """A pooled lookup of training, until its backward. It does not hold the output: autograd's graph, which holds the
    lookup, would keep itself alive."""

    def add_gradient(self, gradient: Tensor, *, of_weights: bool) -> Tensor | None:
        """Keeps the row gradients for the step, of a gradient (B, sum of D). Returns d/d weights (N,) if asked.

        Raises:
            StateError: a step or another change lies between, so that rows may be gone.
        """


class RowsLookup(Protocol):
    """A lookup of single rows for training, until its backward."""

    def add_gradients(self, gradients: Sequence[Tensor | None]) -> None:
        """Keeps the gradients (n, D) of each feature's rows for the step; None: the feature's rows were not used.

        Raises:
            StateError: as `PooledLookup.add_gradient`.
        """


class RowLookups(Protocol):
    """Lookups by features, which change nothing. A key without a row reads its table's cold row."""

    def pooled(self, lookup: Lookup) -> Tensor:
        """(B, sum of D over the features), weighted sums of rows.

        Raises:
            DataError: a key is outside its table.
        """

    def gather(self, features: Sequence[int], keys: Sequence[Tensor]) -> list[Tensor]:
        """Rows of each feature's keys (n,) -> (n, D), copied. Raises as `pooled`."""


class RowReader(RowLookups, Protocol):
    """Reading that changes nothing, by feature and by table."""

    def has_rows(self, table: int, keys: Tensor) -> Tensor:
        """Which keys (n,) have a row, (n,) bool; all of them in a fixed table. Raises as `pooled`."""

    def read(self, table: int, name: str, keys: Tensor) -> Tensor:
        """The column `name` of the rows of keys (n,): (n, D), or (n,) for a state of one value for each row; copied.
        Raises as `pooled`."""


class RowTrainer(Protocol):
    """Lookups of training, and the step that updates what they looked up.

    A lookup of training counts all its keys in collisionless tables, admits, marks rows as seen and makes fresh rows,
    and reads only then. Frozen tables (`trainable: false`) are read by a RowReader; `update` does nothing to them.
    """

    def train_pooled(self, lookup: Lookup) -> tuple[Tensor, PooledLookup]:
        """(B, sum of D over the features), and what takes their gradient. Raises as `RowReader.pooled`."""

    def train_rows(self, features: Sequence[int], keys: Sequence[Tensor]) -> tuple[list[Tensor], RowsLookup]:
        """Rows of each feature's keys (n,) -> (n, D), copied, and what takes their gradients. Raises as `pooled`."""

    def gradient_norm(self) -> float:
        """L2 norm over the kept row gradients, duplicates summed."""

    def set_learning_rate_factor(self, factor: float) -> None:
        """Updates go at the configured learning rates times `factor`. Cheapest when set before the step's lookups."""

    def update(self, gradient_scale: float) -> None:
        """Sums duplicates of the kept gradients times the scale, updates every touched row once, forgets them.

        A store that can leaves rows whose gradient is not finite as they are, and counts them. Then, and only here,
        collisionless tables evict what is past its ttl or above their limits.
        """

    def advance(self, table: int, now: int) -> None:
        """The clock of the lookups to come, of a collisionless table: 0..2^32-1, never back.

        Raises:
            StateError: gradients are waiting for `update`.
        """

    def discard(self) -> None:
        """Forgets the kept gradients."""


class RowState(Protocol):
    """What a table holds, given and taken back; and what changed since a cut."""

    def state_names(self, table: int) -> Sequence[str]:
        """What a row of the table consists of, by name: `weight` and its optimizer state."""

    def key_state(self, table: int) -> KeyState | None:
        """The keys of a collisionless table or of a part of a fixed one, copied; None for a whole fixed one."""

    def capture(self, table: int, after: int | None, *, weights_only: bool = False) -> Capture:
        """What a table holds now: all rows, or those changed since the cut `after`, and what `changes` reports.

        With `weights_only` it may be without what only training needs: optimizer state, counts, waiting keys, sketch.

        Of all rows a store may copy what it still needs when the content is asked for: cheaply where a cut was just
        drawn.

        Raises:
            StateError: as `changes`.
        """

    def apply(self, table: int, content: TableContent) -> None:
        """Takes over what another table of this configuration held: rows (over those of their keys), tombstones,
        waiting keys, cold row, clock and steps. This cannot be undone. The caller must have checked the content.
        """

    def clear(self, table: int) -> None:
        """Empties a collisionless table, before a snapshot is applied."""

    def draw_cut(self) -> int:
        """Ends a cut between two steps and returns its number, 1 being the first; later changes belong to the next.

        Raises:
            StateError: gradients are waiting for `update`.
            ConfigError: the store knows no cuts.
        """

    def changes(self, table: int, after: int) -> Changes:
        """What changed since the cut `after`, which was drawn. The cold row is not in it: it may always have changed.

        Raises:
            StateError: tombstones as old as that are not kept any more; or no such cut was drawn.
        """

    def forget_changes(self, through: int) -> None:
        """Nobody will ask for changes since a cut before `through`: frees the tombstones kept for them."""


class RowAdmin(Protocol):
    """Rows by key, outside of training; and figures."""

    def write(self, table: int, name: str, keys: Tensor, values: Tensor) -> None:
        """Sets the column `name` of the rows of keys (n,). Raises StateError for a key without a row."""

    def make(self, table: int, keys: Tensor) -> None:
        """Keys (n,) of a collisionless table are seen now, and get a fresh row where they have none, admitted or not.

        Raises:
            StateError: gradients are waiting for `update`.
        """

    def delete(self, table: int, keys: Tensor) -> None:
        """Keys (n,) lose their rows and wait no longer; rows of a fixed table become fresh. Raises as `make`."""

    def figures(self, table: int) -> Mapping[str, int]:
        """Counts since the table was made: rows, waiting, admitted, expired, ...; see docs/tables.md."""

    def num_steps(self, table: int) -> int:
        """How many updates touched the table's store (Adam's t)."""

    def num_alive(self, table: int) -> tuple[int, int]:
        """How many rows and waiting keys a collisionless table has, without those past their ttl that it still holds.
        It looks at each of them."""

    def ages_and_counts(self, table: int) -> tuple[Words, Words] | None:
        """Of a collisionless table's rows in any order, (n,) each: clock less when it was seen, updates. Else None."""

    def num_bytes(self, table: int) -> dict[str, int]:
        """Bytes by tensor name."""


class RowStore(RowReader, RowTrainer, RowState, RowAdmin, Protocol):
    """Rows of several tables. Constructed with the stored tables and, for each feature, its table's number."""

    abilities: frozenset[Ability]


class OwnedRows(Protocol):
    """Rows that ranks ask for, at the store that owns them."""

    def rows_into(self, message: Tensor) -> None:
        """Copies the rows of the lookup's keys to their places in a message."""


class OwnedLookup(OwnedRows, Protocol):
    """The same for training, until the gradients come."""

    def add_message(self, message: Tensor, used: npt.NDArray[np.bool_]) -> None:
        """Keeps the gradients of the lookup's keys, which lie in a message as their rows do; used (F * R,): the
        segments that have any. Raises StateError as `PooledLookup.add_gradient`."""

    def cold_keys(self) -> Tensor:
        """Which keys read the cold row of a collisionless table, (N,) bool."""


class PartStore(RowStore, Protocol):
    """What a row store does besides for parts of tables: lookups of several ranks, and what all parts decide together.

    At the end of a step a part drops what is past its ttl and leaves `max_rows` and `max_waiting` to the caller
    (embtables/rows/limits.py). Gradients of messages whose keys read a part's cold row are left to the caller too:
    only what `add_cold_gradient` was given is applied. Methods with `waiting` are about waiting keys, or else about
    rows.
    """

    def owned(self, segments: Segments, keys: Tensor) -> OwnedRows:
        """Looks up what ranks ask for, keys (N,); changes nothing."""

    def train_owned(self, segments: Segments, keys: Tensor, counts: Tensor | None) -> OwnedLookup:
        """Looks up what ranks ask for in training, keys (N,).

        Args:
            counts: (N,) int32: a key counts for admission as that many occurrences in a row. None: as one.
        """

    def num_held(self, table: int) -> tuple[int, int]:
        """How many rows and waiting keys there are; those past their ttl may count too. Cheap."""

    def age_bins(self, table: int, waiting: bool) -> Tensor:
        """How many alive lie in each bin of age, (NUM_AGE_BINS,) int64. Those past their ttl are dropped."""

    def of_age(self, table: int, waiting: bool, chosen: int) -> tuple[Tensor, Tensor]:
        """Those alive in a bin of age, in any order: when they were seen, (k,) int64, and the mixes of their keys, (k,)
        unsigned numbers in int64."""

    def evict(self, table: int, waiting: bool, chosen: int, seen: int, mix: int) -> None:
        """Evicts all in older bins, and of that bin those up to (seen, mix), by `seen` and then the unsigned mix.

        Raises:
            StateError: gradients are waiting for `update`.
        """

    def add_cold_gradient(self, table: int, gradient: Tensor) -> None:
        """Keeps a gradient (D,) of the table's trained cold row, after what is kept already: it counts as one key's.

        Call it only if a key in some part read the cold row; otherwise the row would get an update that an unsplit
        table would not make.
        """
