"""Values of a version, judged before any of it is applied: finite, and rows not far longer than the table's were.

A file that is whole can still hold what no server should answer with: a learning rate too high, a loss that exploded, a
bug of a trainer. `RowNorms` has the norms of the rows that were taken over so far, per table; a row that is a hundred
times as long as 999 of 1000 of them, or a delta with many rows ten times as long, is not taken over.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from embtables.errors import StateError
from embtables.rows.content import TableContent
from embtables.rows.optimizers import WEIGHT
from embtables.state.format.version import Tensors

Norms = npt.NDArray[np.float32]

_ROWS_AT_ONCE = 1 << 15  # a piece stays in the processor's cache
_QUANTILE = 0.999
_PER_OCTAVE = 8  # buckets of norms between a power of two and the next: a quantile is exact to 9 %
_LEAST_OCTAVE, _OCTAVES = -64, 192  # norms from 2^-64 on; float32 values of 4,096 dimensions end below 2^134


class BadValuesError(StateError):
    """A version holds values that are not to be served, in files that are as they were written."""


@dataclass(frozen=True, slots=True)
class ValueLimits:
    """What a version may hold. Norms are L2, of a row's D weights.

    Attributes:
        greatest_norm: of any row, whatever the table held before.
        norm_ratio: a row may be so many times as long as the 99.9 % quantile of the table's rows.
        shifted_ratio, shifted_share: at most this share of a delta's rows may be so many times as long.
        least_norm: shorter rows are never too long: a table that begins at zeros grows by any factor.
        least_rows: of a table that were taken over before ratios are looked at.
    """

    greatest_norm: float = 1e6
    norm_ratio: float = 100.0
    shifted_ratio: float = 10.0
    shifted_share: float = 0.5
    least_norm: float = 10.0
    least_rows: int = 1000


class RowNorms:
    """Norms of one table's rows as they were taken over, in buckets that grow by 2^(1/8).

    A row that changed is there again with its new norm.

    Attributes:
        most_rows: when more have come, all count half: so old ones fade.
    """

    def __init__(self) -> None:
        self._counts = np.zeros(_OCTAVES * _PER_OCTAVE, np.float64)
        self.most_rows = float("inf")

    def add(self, norms: Norms) -> None:
        """Takes the norms (n,) of rows that were taken over."""
        self._counts += np.bincount(_buckets(norms), minlength=len(self._counts))
        if self.rows > self.most_rows:
            self._counts /= 2

    @property
    def rows(self) -> float:
        """How many there are; halved ones count half."""
        return float(self._counts.sum())

    def quantile(self, q: float) -> float:
        """The norm below which a share `q` of the rows is, rounded up to the end of its bucket; 0 without rows."""
        total = self._counts.sum()
        if total == 0:
            return 0.0
        bucket = int(np.searchsorted(np.cumsum(self._counts), q * total))
        return 2.0 ** (_LEAST_OCTAVE + (bucket + 1) / _PER_OCTAVE) if bucket else 0.0


def _buckets(norms: Norms) -> npt.NDArray[np.int64]:
    with np.errstate(divide="ignore"):
        octaves = np.log2(norms.astype(np.float64))  # -inf of zeros
    places = np.floor((octaves - _LEAST_OCTAVE) * _PER_OCTAVE).clip(0, _OCTAVES * _PER_OCTAVE - 1)
    found: npt.NDArray[np.int64] = places.astype(np.int64)
    return found


class ValueChecks:
    """The checks of one set of tables, and the norms of what was taken over.

    Args:
        limits: what is let through.
        before: of the tables that answer, while a snapshot is loaded that will replace them: its rows are held against
            theirs.
    """

    def __init__(self, limits: ValueLimits, before: ValueChecks | None = None) -> None:
        self._limits = limits
        self._norms: dict[str, RowNorms] = {}
        self._before = self._norms if before is None else before._norms
        self._longest: dict[str, tuple[float, int]] = {}  # by table the norm and the key

    def check_rows(self, version: str, contents: Mapping[str, TableContent]) -> dict[str, Norms]:
        """Judges the rows of a version, or of a piece of it.

        Returns:
            By table the norms (n,), for `took_over`.

        Raises:
            BadValuesError: a weight is not finite, or a row is too long; names table and key.
        """
        found = {}
        for table, content in contents.items():
            for name, values in content.cold.items():
                if not np.isfinite(values).all():
                    raise BadValuesError(f"its cold row has a {name} that is not finite", version=version, table=table)
            norms = found[table] = _norms(version, table, content)
            if len(norms):
                self._check_norms(version, table, content, norms)
        return found

    def _check_norms(self, version: str, table: str, content: TableContent, norms: Norms) -> None:
        limits, worst = self._limits, int(norms.argmax())
        self._check_longest(version, table, float(norms[worst]), int(content.keys[worst]), self._before.get(table))
        known = self._before.get(table)
        if known is None or min(known.rows, len(norms)) < limits.least_rows:
            return
        shifted = max(limits.shifted_ratio * known.quantile(_QUANTILE), limits.least_norm)
        share = float((norms > shifted).mean())
        if share > limits.shifted_share:
            raise BadValuesError(
                f"{share:.0%} of {len(norms):,} rows have a norm above {shifted:.3g}, which is "
                f"{limits.shifted_ratio:g} times that of 99.9 % of the rows before; look at the training",
                version=version,
                table=table,
            )

    def _check_longest(self, version: str, table: str, norm: float, key: int, known: RowNorms | None) -> None:
        limits = self._limits
        greatest, of_what = limits.greatest_norm, "the greatest allowed is"
        if known is not None and known.rows >= limits.least_rows:
            relative = max(limits.norm_ratio * known.quantile(_QUANTILE), limits.least_norm)
            if relative < greatest:
                greatest, of_what = relative, f"{limits.norm_ratio:g} times that of 99.9 % of the rows is"
        if norm > greatest:
            raise BadValuesError(
                f"the row of key {key} has the norm {norm:.3g}, {of_what} {greatest:.3g}; look at the training",
                version=version,
                table=table,
            )
        self._longest[table] = max(self._longest.get(table, (0.0, 0)), (norm, key))

    def end_snapshot(self, version: str) -> None:
        """Judges the longest rows of a snapshot beside all others of it; from now on they are what others are held
        against. Raises BadValuesError.
        """
        self._before = self._norms
        for table, (norm, key) in self._longest.items():
            self._check_longest(version, table, norm, key, self._norms.get(table))
        for norms in self._norms.values():
            norms.most_rows = 4 * max(norms.rows, 1e6)

    def took_over(self, norms: Mapping[str, Norms]) -> None:
        """From now on rows are held against these, too."""
        for table, of_rows in norms.items():
            self._norms.setdefault(table, RowNorms()).add(of_rows)


def check_tensors(version: str, tensors: Tensors) -> None:
    """Judges what a version has beside its rows. Raises BadValuesError if a number is not finite; names the tensor."""
    for name, values in tensors.items():
        if np.issubdtype(values.dtype, np.floating) and not np.isfinite(values).all():
            raise BadValuesError("holds numbers that are not finite", version=version, tensor=name)


def _norms(version: str, table: str, content: TableContent) -> Norms:
    """The norms (n,) of rows. Raises BadValuesError if a weight is not finite."""
    weights: npt.NDArray[Any] = content.columns[WEIGHT]
    norms = np.empty(len(weights), np.float32)
    for first, piece in _pieces(weights):
        with np.errstate(over="ignore", invalid="ignore"):
            squares = np.square(piece, dtype=np.float64).sum(axis=1)
            norms[first : first + len(piece)] = np.sqrt(squares) * content.scale
        if not np.isfinite(squares).all():  # squares of float32 are finite as doubles
            key = content.keys[first + int(np.flatnonzero(~np.isfinite(squares))[0])]
            raise BadValuesError(f"the row of key {key} has a weight that is not finite", version=version, table=table)
    return norms


def _pieces(weights: npt.NDArray[Any]) -> Iterator[tuple[int, npt.NDArray[Any]]]:
    for first in range(0, len(weights), _ROWS_AT_ONCE):
        yield first, weights[first : first + _ROWS_AT_ONCE]
