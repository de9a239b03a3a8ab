"""One table's content under a changed configuration of the same table: optimizer, ttl, admission, limits, seed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from embtables.keyspace import bucket_order
from embtables.rows.content import TableContent
from embtables.rows.row_format import STATE_DTYPE, Values
from embtables.rows.stored_table import StoredTable
from embtables.schema import CollisionlessTable, MinCount, Table


class Conversion:
    """How a table's rows are converted, decided from the configurations alone; kind, dim and meaning of keys are equal.

    Attributes:
        notes: what is different, and what happens.
        counts_anew: the table counts waiting keys in a sketch and none goes over; `apply` gives none.
    """

    def __init__(self, was: StoredTable, now: StoredTable) -> None:
        self._was = was
        self._now = now
        self.notes: list[str] = []
        self._reordered = was.seed != now.seed
        if now.keys_of != was.keys_of:
            self.notes.append("rows stay; new keys are " + ("its own" if now.keys_of is None else now.keys_of + "'s"))
        elif self._reordered:
            self.notes.append("another seed: rows stay; new keys get the initial rows of the new seed")
        self._optimizer()
        self._other_options()
        self._ages = "kept"
        self._cold = True
        self._waiting = self._sketch = True
        self.counts_anew = False
        if isinstance(was.config, CollisionlessTable) and isinstance(now.config, CollisionlessTable):
            self._clock(was.config, now.config)
            self._admission(was.config, now.config)
            self._limits(was.config, now.config)

    def apply(self, content: TableContent) -> TableContent:
        """The content that the table continues with; `content` is all that it held, and is not changed."""
        content = content.unscaled()  # rows that the table has beside them are at scale 1
        made = replace(content, columns=self._columns(content.columns), cold=self._columns(content.cold))
        if self._was.config.optimizer.kind != self._now.config.optimizer.kind:
            made.updates = 0
        if not self._cold:
            made.cold = {name: np.zeros_like(values) for name, values in made.cold.items()}
        if not self._waiting:
            made.waiting = content.waiting[:0]
            made.waiting_counts, made.waiting_seen = content.waiting_counts[:0], content.waiting_seen[:0]
        if not self._sketch:
            made.sketch = content.sketch[:0]
        if self._ages != "kept":
            self._set_ages(made)
        return self._in_order(made) if self._reordered else made

    def _optimizer(self) -> None:
        then, here = self._was.config.optimizer, self._now.config.optimizer
        if then == here:
            return
        if then.kind == here.kind:
            changed = _changed(then.model_dump(), here.model_dump())
            self.notes.append(f"optimizer {changed}: rows and optimizer state stay")
        else:
            kept = self._kept()
            hows = [self._how(name, of) for name, of in kept.items()]
            if kept and kept.keys() != self._now.optimizer.state.keys():
                hows.append("its other optimizer state at zero")
            text = f"rows stay, each with {', '.join(hows)}" if hows else "rows stay, optimizer state begins at zero"
            self.notes.append(f"optimizer {then.kind} -> {here.kind}: {text}")

    def _kept(self) -> dict[str, str]:
        """The columns of optimizer state that are made of the former optimizer's, and of which: those that mean the
        same."""
        then, here = self._was.optimizer.state, self._now.optimizer.state
        by_meaning = {column.meaning: name for name, column in then.items() if column.meaning is not None}
        return {name: by_meaning[column.meaning] for name, column in here.items() if column.meaning in by_meaning}

    def _how(self, name: str, of: str) -> str:
        """In words, how a column is made of a former one."""
        here, then = self._now.columns[name], self._was.columns[of]
        if here == then:
            return f"its {of}"
        return f"its row's {of} in each element" if here else f"the mean of its elements' {of}"

    def _columns(self, columns: dict[str, Values]) -> dict[str, Values]:
        """Weight and optimizer state, of rows or of the cold row."""
        if self._was.optimizer is self._now.optimizer or not columns:
            return columns
        weight, kept = columns["weight"], self._kept()
        made: dict[str, Values] = {"weight": weight}
        for name, column in self._now.optimizer.state.items():
            if name in kept:
                made[name] = _as(columns[kept[name]], weight.shape[1], column.per_element)
            else:
                made[name] = np.zeros(weight.shape if column.per_element else len(weight), STATE_DTYPE)
        return made

    def _other_options(self) -> None:
        then, here = self._was.config, self._now.config
        for name, text in (
            ("initializer", "rows stay, new rows begin as the new one says"),
            ("non_finite_gradients", "rows stay"),
            ("num_rows", "rows stay, the new ones are fresh"),
            ("trainable", "rows stay" if here.trainable else "rows stay as they are from now on"),
            ("max_clock_step_seconds", "rows stay"),
        ):
            ours, theirs = getattr(here, name, None), getattr(then, name, None)
            if ours != theirs:
                self.notes.append(f"{name} {_short(theirs)} -> {_short(ours)}: {text}")

    def _clock(self, then: CollisionlessTable, here: CollisionlessTable) -> None:
        thawed = here.trainable and not then.trainable and here.ttl_seconds is not None
        if then.ttl_seconds == here.ttl_seconds and not thawed:
            return
        change = f"ttl_seconds {_short(then.ttl_seconds)} -> {_short(here.ttl_seconds)}"
        if then.ttl_seconds is None or thawed:
            self._ages = "from the first batch"
            text = "rows stay, their ages begin with the first batch"
            self.notes.append(f"{change if then.ttl_seconds is None else 'learns again with a ttl'}: {text}")
        elif here.ttl_seconds is None:
            self._ages = "in steps"
            self.notes.append(f"{change}: rows stay, ages count in steps from now on")
        else:
            self.notes.append(f"{change}: rows stay, those that are older expire")

    def _set_ages(self, made: TableContent) -> None:
        """Event times and counts of steps cannot be compared: only the order is kept."""
        now = made.now
        made.now = made.steps if self._ages == "in steps" else 0
        for name in ("seen", "waiting_seen"):
            seen: npt.NDArray[np.uint32] = getattr(made, name)
            # In steps: as many as seconds, so that what was seen last is still last.
            ages = np.minimum(now - np.minimum(seen.astype(np.int64), now), made.now)
            setattr(made, name, (made.now - ages).astype(np.uint32))

    def _admission(self, then: CollisionlessTable, here: CollisionlessTable) -> None:
        exact = _counting(then) == "exact" == _counting(here)
        same = then.admission == here.admission and then.ttl_seconds == here.ttl_seconds and not self._reordered
        self._waiting = exact or then.admission == here.admission
        self._sketch = _counting(then) == "sketch" and same
        self.counts_anew = _counting(here) == "sketch" and not self._sketch
        lost = (_counting(then) == "exact" and not self._waiting) or (_counting(then) == "sketch" and not self._sketch)
        if then.admission != here.admission:
            text = ", waiting keys begin again" if lost else ", waiting keys keep their counts" if exact else ""
            self.notes.append(f"admission {_policy(then)} -> {_policy(here)}: rows stay{text}")
        elif lost:
            self.notes.append("the sketch does not fit another seed or ttl: waiting keys begin again")

    def _limits(self, then: CollisionlessTable, here: CollisionlessTable) -> None:
        if then.max_rows != here.max_rows:
            lower = here.max_rows is not None and (then.max_rows is None or here.max_rows < then.max_rows)
            lower = lower and here.trainable
            text = (
                "rows above it are evicted by the first step, the least recently seen first" if lower else "rows stay"
            )
            self.notes.append(f"max_rows {_short(then.max_rows)} -> {_short(here.max_rows)}: {text}")
        if then.cold_row != here.cold_row:
            self._cold = here.cold_row == "trained"
            text = "it begins at zero and learns" if self._cold else "what it had learned is dropped"
            self.notes.append(f"cold_row {then.cold_row} -> {here.cold_row}: rows stay, {text}")

    def _in_order(self, made: TableContent) -> TableContent:
        """By the buckets of the new seed."""
        order = bucket_order(made.keys, self._now.seed)
        waits = bucket_order(made.waiting, self._now.seed)
        return replace(
            made,
            keys=made.keys[order],
            columns={name: values[order] for name, values in made.columns.items()},
            seen=made.seen[order],
            counts=made.counts[order],
            waiting=made.waiting[waits],
            waiting_counts=made.waiting_counts[waits],
            waiting_seen=made.waiting_seen[waits],
            begins=None,
        )


def _as(values: Values, dim: int, of_elements: bool) -> Values:
    """Optimizer state, (n, D) of elements or (n,) of rows, as of elements or of rows."""
    if of_elements == (values.ndim == 2):
        return values
    if of_elements:
        return np.repeat(values[:, None], dim, axis=1)
    mean: Values = values.astype(np.float64).mean(axis=1).astype(STATE_DTYPE)
    return mean


def _policy(table: CollisionlessTable) -> str:
    return "none" if table.admission is None else str(table.admission.model_dump())


def _counting(table: Table) -> str | None:
    """How a table counts keys that wait."""
    admission = table.admission if isinstance(table, CollisionlessTable) else None
    return admission.counting if isinstance(admission, MinCount) else None


def _changed(then: dict[str, object], here: dict[str, object]) -> str:
    return ", ".join(f"{name} {then[name]} -> {here[name]}" for name in here if then[name] != here[name])


def _short(value: object) -> str:
    if value is None:
        return "none"
    return str(value).lower() if isinstance(value, bool) else f"{value:,}" if isinstance(value, int) else str(value)
