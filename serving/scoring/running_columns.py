"""The running columns of a request: filled where it does not give them, at its time.

    context's keys                 --one question---> columns of the context
    keys of context and candidate  --K questions----> columns of the candidates

What a request gives is never replaced, so that a request with all its columns means the same at any time.
Shape letters: K candidates or rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from embtables.errors import DataError
from embtables.events.columns import EVENT_TIME
from embtables.inputs.id_kinds import id_kind
from embtables.inputs.times import as_microseconds
from embtables.inputs.values import one_array
from embtables.schema import EventTime, RunningFeature
from embtables.serving.refusals import Refusal
from embtables.serving.running.log_fold import LogFold
from embtables.serving.scoring.columns.column_rules import ColumnRules
from embtables.serving.scoring.columns.given import Given, Mask
from embtables.serving.scoring.refused import refused
from embtables.serving.scoring.side_tables import SideTables

Int64s = npt.NDArray[np.int64]


class RunningColumns:
    """Fills the requests of one version; used by any thread.

    Args:
        fold: of the log.
        rules: the columns of the version's requests.
        side_tables: which may give keys that requests do not.
        event_time: the column in which a request may say its time.
    """

    def __init__(
        self, fold: LogFold, rules: ColumnRules, side_tables: SideTables, event_time: EventTime | None
    ) -> None:
        self._fold, self._side_tables, self._event_time = fold, side_tables, event_time
        self._features = fold.running.features
        self._names = {feature.name: pa.nulls(1) for feature in self._features}
        keys = dict.fromkeys(name for feature in self._features for name in feature.by)
        self._joined_keys = [name for name in keys if name in rules.joined]

    def filled(self, given: Given) -> Given:
        """The request with its running columns.

        A feature of which a key is neither given nor joined is left out. A key that is null has no events.

        Raises:
            Refusal: 422, a key's ids are of another kind than those of the events, or cannot be ids; or some rows lack
                a key that others have.
        """
        wanted = [f for f in self._features if not _is_given(f.name, given)] if given.k else []
        if not wanted:
            return given
        shared, own = self._with_joined_keys(given)
        times, is_own = self._times(given)
        of_context = [f for f in wanted if not is_own and all(name in shared for name in f.by)]
        of_rows = [f for f in wanted if f not in of_context and all(name in shared or name in own for name in f.by)]
        try:
            found = self._ask(given, of_context, shared, times[:1], 1)
            found_own = self._ask(given, of_rows, {**shared, **own}, times, given.k)
        except DataError as error:
            raise refused(error, given) from None
        for name in given.gaps.keys() & (found.keys() | found_own.keys()):
            whole = found_own.pop(name) if name in found_own else _repeated(found.pop(name), given.k)
            found_own[name] = _with_gaps(given, name, whole)
        gaps = {name: mask for name, mask in given.gaps.items() if name not in found_own}
        # Without `ids`: what is kept of side tables by candidates' ids would stand for what is filled here.
        return replace(given, shared={**given.shared, **found}, own={**given.own, **found_own}, gaps=gaps, ids=())

    def _with_joined_keys(self, given: Given) -> tuple[Mapping[str, pa.Array], Mapping[str, pa.Array]]:
        """The request's columns of both levels, with keys that side tables give."""
        if all(name in given.shared or name in given.own for name in self._joined_keys):
            return given.shared, given.own
        known = {**self._names, **given.shared, **given.own}
        joined = self._side_tables.joined(known, given.k, place=given.place)
        keys = {name: joined.columns[name] for name in self._joined_keys if name in joined.columns}
        return given.shared, {**given.own, **keys}

    def _times(self, given: Given) -> tuple[Int64s, bool]:
        """(K,) microseconds at which its questions are asked, and whether rows may differ in it."""
        column = None if self._event_time is None else self._event_time.column
        if self._event_time is None or column is None or not (column in given.shared or column in given.own):
            return np.full(given.k, given.at_us), False
        is_own = column in given.own
        array = one_array(pa.chunked_array([given.own[column] if is_own else given.shared[column]]))
        times = np.full(len(array), given.at_us)
        said = array.is_valid().to_numpy(zero_copy_only=False)
        if said.any():
            try:
                times[said] = as_microseconds(self._event_time, array.drop_null())
            except DataError as error:
                raise refused(error, given) from None
        return (times if is_own else np.full(given.k, times[0])), is_own

    def _ask(
        self,
        given: Given,
        features: Sequence[RunningFeature],
        columns: Mapping[str, pa.Array],
        times: Int64s,
        rows: int,
    ) -> dict[str, pa.Array]:
        if not features:
            return {}
        keys = dict.fromkeys(name for feature in features for name in feature.by)
        asked = {name: self._key(given, name, columns[name], rows) for name in keys}
        asked[EVENT_TIME] = pa.array(times).cast(pa.timestamp("us"))
        return self._fold.columns(pa.table(asked), [feature.name for feature in features])

    def _key(self, given: Given, name: str, array: pa.Array, rows: int) -> pa.Array:
        """(rows,) a column of keys."""
        if name in given.gaps:
            what = f"lacks '{name}', which other rows have; running features are looked up by it"
            raise Refusal(422, what, given.place(name, int(given.gaps[name].argmax())))
        known, here = self._fold.id_kinds.get(name), id_kind(array.type)
        if known is not None and here is not None and known != here and array.null_count < len(array):
            reason = f"holds {here}, but {known} in the events that running features count; write it as they have it"
            raise Refusal(422, reason, given.place(name, 0))
        return _repeated(array, rows)


def _is_given(name: str, given: Given) -> bool:
    return name in given.shared or (name in given.own and name not in given.gaps)


def _repeated(array: pa.Array, rows: int) -> pa.Array:
    return array if len(array) == rows else array.take(pa.array(np.zeros(rows, np.int64)))


def _with_gaps(given: Given, name: str, found: pa.Array) -> pa.Array:
    """(K,) what the request gives, and in the rows that lack it what was found."""
    gaps: Mask = given.gaps[name]
    try:
        there = given.own[name].cast(found.type)
    except pa.ArrowException:
        raise Refusal(422, f"holds {given.own[name].type}; {found.type} is needed", given.place(name, None)) from None
    places = np.arange(given.k) + np.where(gaps, given.k, 0)
    return pa.concat_arrays([there, found]).take(pa.array(places))
