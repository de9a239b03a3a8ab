"""`RowStore`: rows of several tables, looked up and updated by key. What is behind it may be RAM, disk or a device.

A store serves *slots*: one (feature, table) pair each, in the order of the features. A lookup names its slots and holds
their keys; the store pools by weighted sums and nothing else (mean pooling and per-id weights arrive as weights). Row
gradients are kept until `update`, which sums duplicates over all lookups of the step and updates each touched row once.
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


@dataclass(frozen=True, slots=True)
class Lookup:
    """Keys of F slots for B rows. Shape letters: B rows, F slots, N keys, D dim.

    Attributes:
        slots: F slot numbers of the store.
        keys: (N,) int64, slot after slot, row after row; each in the key range of its table.
        offsets: (F * B + 1,) int64: the keys of slot f and row b are keys[offsets[f * B + b] : offsets[f * B + b + 1]].
        weights: (N,) float32 factors of the rows in the sum, or None for ones.
        num_rows: B.
    """

    slots: tuple[int, ...]
    keys: Tensor
    offsets: Tensor
    weights: Tensor | None
    num_rows: int


@dataclass(frozen=True, slots=True)
class Segments:
    """Where the keys that R ranks ask for lie, F slots of each rank, and where their rows lie in a message.

    Attributes:
        slots: F slot numbers of the store.
        bounds: (F * R + 1,) int64: slot f's keys of rank r are keys[bounds[f * R + r] : bounds[f * R + r + 1]].
        places: (F * R,) int64: the first float of their rows, which lie one after the other.
    """

    slots: tuple[int, ...]
    bounds: npt.NDArray[np.int64]
    places: npt.NDArray[np.int64]

    @property
    def ranks(self) -> int:
        """R."""
        return len(self.places) // len(self.slots)

    def sizes(self) -> list[int]:
        """How many keys each slot has."""
        found: list[int] = np.diff(self.bounds[:: self.ranks]).tolist()
        return found

    def each(self) -> Iterator[tuple[int, slice, int]]:
        """Each segment's slot, keys and place."""
        for number, (begin, end) in enumerate(pairwise(self.bounds.tolist())):
            yield self.slots[number // self.ranks], slice(begin, end), int(self.places[number])


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


class Taken(Capture):
    """A content that was copied at once."""

    def __init__(self, taken: TableContent) -> None:
        self._taken = taken

    def streamed(self) -> TableContent:
        """See Capture."""
        return self._taken


class RowStore(Protocol):
    """Rows of several tables. Constructed with the stored tables and, for each slot, its table's number.

    Lookups with `keep` are training: of a collisionless table they count all keys of the lookup, admit, mark rows as
    seen and make fresh rows, and read only then. Lookups without change nothing; keys without a row read the cold row.
    Of a frozen table (`trainable: false`) there are only lookups without, and `update` does nothing to it.
    """

    abilities: frozenset[Ability]

    def pooled(self, lookup: Lookup, *, keep: bool) -> tuple[Tensor, object]:
        """(B, sum of D over the slots) weighted sums, and a context for `add_gradient`; `keep`: one will come."""

    def add_gradient(self, context: object, gradient: Tensor, *, of_weights: bool) -> Tensor | None:
        """Keeps the row gradients of a pooled lookup; gradient (B, sum D). Returns d/d weights (N,) if asked."""

    def gather(self, slots: Sequence[int], keys: Sequence[Tensor], *, keep: bool) -> tuple[list[Tensor], object]:
        """Rows of each slot's keys (n,) -> (n, D), copied, and a context for `add_row_gradients`."""

    def add_row_gradients(self, context: object, gradients: Sequence[Tensor | None]) -> None:
        """Keeps the gradients (n, D) of each slot's gathered rows; None: the slot's rows were not used."""

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

    def state_names(self, table: int) -> Sequence[str]:
        """Names of the table's tensors a row has a part of: `weight` and its optimizer states."""

    def read(self, table: int, name: str, keys: Tensor) -> Tensor:
        """That tensor's part of keys (n,): (n, D), or (n,) for a state of one value a row. A copy. Changes nothing."""

    def write(self, table: int, name: str, keys: Tensor, values: Tensor) -> None:
        """Sets that tensor's part of keys (n,). Raises StateError for a key without a row."""

    def num_steps(self, table: int) -> int:
        """How many updates touched the table's store (Adam's t)."""

    def key_state(self, table: int) -> KeyState | None:
        """The keys of a collisionless table or of a part of a fixed one, copied; None for a whole fixed one."""

    def capture(self, table: int, after: int | None) -> Capture:
        """What a table holds now: all rows, or those changed since the cut `after`, and what `changes` tells.

        Of all rows a store may copy what it still needs when the content is asked for: cheaply where a cut was just
        drawn.

        Raises:
            StateError: as `changes`.
        """

    def apply(self, table: int, content: TableContent) -> None:
        """Takes over what another table of this configuration held: rows (over those of their keys), tombstones,
        waiting keys, cold row, clock and steps. Not to be undone: who gives part of it has checked it.
        """

    def clear(self, table: int) -> None:
        """Empties a collisionless table, before a snapshot is applied."""

    def make(self, table: int, keys: Tensor) -> None:
        """Keys (n,) of a collisionless table are seen now, and get a fresh row where they have none, admitted or not.

        Raises:
            StateError: gradients are waiting for `update`.
        """

    def delete(self, table: int, keys: Tensor) -> None:
        """Keys (n,) lose their rows and wait no longer; rows of a fixed table become fresh. Raises as `make`."""

    def draw_cut(self) -> int:
        """Ends a cut between two steps and returns its number, 1 being the first; later changes belong to the next.

        Raises:
            StateError: gradients are waiting for `update`.
            ConfigError: the store knows no cuts.
        """

    def changes(self, table: int, after: int) -> Changes:
        """What changed since the cut `after`, which was drawn. The cold row is not told: it may always have changed.

        Raises:
            StateError: tombstones as old as that are not kept any more; or no such cut was drawn.
        """

    def forget_changes(self, through: int) -> None:
        """Nobody will ask for changes since a cut before `through`: frees the tombstones kept for them."""

    def figures(self, table: int) -> Mapping[str, int]:
        """Counts since the table was made: rows, waiting, admitted, expired, ...; see docs/tables.md."""

    def ages_and_counts(self, table: int) -> tuple[Words, Words] | None:
        """Of a collisionless table's rows in any order, (n,) each: clock less when it was seen, updates. Else None."""

    def num_bytes(self, table: int) -> dict[str, int]:
        """Bytes by tensor name."""


class PartStore(RowStore, Protocol):
    """What a row store does besides for parts of tables: lookups of several ranks, and what all parts decide together.

    At the end of a step a part drops what is past its ttl and leaves `max_rows` and `max_waiting` to the caller
    (embtables/rows/limits.py). Gradients of messages whose keys read a part's cold row are left to the caller too:
    only what `add_cold_gradient` was given is applied. Methods with `waiting` are about waiting keys, or else about
    rows.
    """

    def resolve(self, segments: Segments, keys: Tensor, counts: Tensor | None, *, keep: bool) -> object:
        """Looks up what ranks ask for, keys (N,): the context for the methods below.

        Args:
            counts: (N,) int32: a key counts for admission as that many occurrences in a row. None: as one.
        """

    def rows_into(self, message: Tensor, context: object) -> None:
        """Copies the rows of a lookup's keys to their places in a message."""

    def add_message(self, message: Tensor, context: object, used: npt.NDArray[np.bool_]) -> None:
        """Keeps the gradients of a lookup's keys, which lie in a message as their rows do; used (F * R,): the segments
        that have any."""

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

    def cold_keys(self, context: object) -> Tensor:
        """Which keys that were resolved with `keep` read the cold row of a collisionless table, (N,) bool."""

    def add_cold_gradient(self, table: int, gradient: Tensor) -> None:
        """Keeps a gradient (D,) of the table's trained cold row, after what is kept already: it counts as one key's.

        Only where a key of some part read the row, or it would be updated in steps in which the whole table's is not.
        """
