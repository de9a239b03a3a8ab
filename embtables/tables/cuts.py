"""`CutLedger`: who follows the changes of a set of tables, and from which cut on.

A consumer (the chain of versions of one purpose, a search index, a cache) holds the cut of which it has everything.
What is kept to report changes since a cut is freed when every consumer holds a later one. Where several ranks hold the
tables, each rank has a ledger of its own, on which all make the same calls.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from types import TracebackType

from embtables.errors import StateError
from embtables.given import as_integer, as_name
from embtables.rows.exclusive import StoreLock, exclusive


class CutLedger:
    """The consumers of a set of tables: `tables.cuts`.

    Args:
        free: frees what is kept to report changes since cuts before the given one.
        lock: of the tables; each call holds it, for another thread may delete rows, which adds to what is kept.

    Example:
        >>> import embtables
        >>> item = embtables.CollisionlessTable(name="item", dim=4, optimizer=embtables.Sgd(learning_rate=0.1))
        >>> tables = embtables.Tables([item], [embtables.Feature(name="seen", table="item")], seed=0)
        >>> index = tables.cuts.consumer("index")
        >>> index.hold(tables.draw_cut())
        >>> tables.cuts.held()
        {'index': 1}
    """

    def __init__(self, free: Callable[[int], None], lock: StoreLock) -> None:
        self.lock = lock
        self._free = free
        self._held: dict[str, int | None] = {}
        self._consumers: dict[str, weakref.ref[CutConsumer]] = {}
        self._drawn = 0
        self._freed = 0

    @exclusive
    def consumer(self, name: str) -> CutConsumer:
        """A new consumer, which holds nothing yet. It leaves by `close`, at the end of a `with` statement, or when
        nobody refers to it any more.

            with tables.cuts.consumer("index") as index:
                index.hold(tables.draw_cut())
                ...
                changes = tables.changes("items", after=index.cut)

        Raises:
            ConfigError: this is no name.
            StateError: another consumer has this name.
        """
        name = as_name(name, "name")
        self._forget_gone()
        if name in self._held:
            raise StateError(
                f"there is a consumer '{name}' of these tables already: close it, or give this one another name"
            )
        made = CutConsumer(self, name)
        self._held[name], self._consumers[name] = None, weakref.ref(made)
        return made

    @exclusive
    def held(self) -> dict[str, int | None]:
        """The cut that each consumer holds, by the consumer's name; None for a consumer that holds nothing yet."""
        self._forget_gone()
        return dict(self._held)

    @exclusive
    def note_drawn(self, cut: int) -> None:
        """`Tables.draw_cut` drew this cut."""
        self._drawn = cut

    @exclusive
    def _hold(self, name: str, cut: int) -> None:
        before = self._held[name]
        least = self._freed if before is None else before
        if not least <= cut <= self._drawn or cut < 1:
            raise StateError(
                f"consumer '{name}' cannot hold cut {cut}: cuts {max(1, least)} to {self._drawn} can be held; "
                "draw a new one"
            )
        self._held[name] = cut
        self._free_unheld()

    @exclusive
    def _leave(self, name: str) -> None:
        del self._consumers[name]
        if self._held.pop(name) is not None:
            self._free_unheld()

    def _forget_gone(self) -> None:
        """Consumers that were dropped without `close`."""
        for name in [name for name, consumer in self._consumers.items() if consumer() is None]:
            del self._held[name], self._consumers[name]

    def _free_unheld(self) -> None:
        self._forget_gone()
        through = min((cut for cut in self._held.values() if cut is not None), default=self._drawn)
        if through > self._freed:
            self._freed = through
            self._free(through)


class CutConsumer:
    """One consumer; made by `CutLedger.consumer`.

    Attributes:
        name: as given.
        cut: the cut it holds; None before the first `hold`.

    Example:
        >>> import embtables, torch
        >>> item = embtables.CollisionlessTable(name="item", dim=4, optimizer=embtables.Sgd(learning_rate=0.1))
        >>> tables = embtables.Tables([item], [embtables.Feature(name="seen", table="item")], seed=0)
        >>> with tables.cuts.consumer("index") as index:
        ...     index.hold(tables.draw_cut())  # here the index takes the whole table
        ...     tables.set("item", torch.tensor([7]), torch.ones(1, 4))
        ...     changes = tables.changes("item", after=index.cut)
        ...     index.hold(tables.draw_cut())  # it has these changes too
        >>> changes.weight
        tensor([[1., 1., 1., 1.]])
    """

    def __init__(self, ledger: CutLedger, name: str) -> None:
        self._ledger = ledger
        self._open = True
        self.name = name
        self.cut: int | None = None

    def hold(self, cut: int) -> None:
        """The consumer has everything up to this cut: changes since it stay known, and nothing before is needed.

        Raises:
            ConfigError: the cut is no integer.
            StateError: the consumer has left; the cut was not drawn, is before the one that it holds, or is before what
                was freed already.
        """
        if not self._open:
            raise StateError(f"consumer '{self.name}' was closed: make a new one with tables.cuts.consumer")
        cut = as_integer(cut, "cut")
        self._ledger._hold(self.name, cut)
        self.cut = cut

    def close(self) -> None:
        """Leaves: it holds nothing any more, and its name is free."""
        if self._open:
            self._open = False
            self._ledger._leave(self.name)

    def __enter__(self) -> CutConsumer:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()
