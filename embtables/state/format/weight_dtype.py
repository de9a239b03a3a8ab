"""How a version of `weights` stores them: float32, or rounded to bf16, fp16 or int8. Shape letters: n rows, D dim.

int8 is fbgemm's fused row-wise format: a row's D bytes q, then its `scale` and `bias` in float32, with

    bias = min(x)    scale = (max(x) - min(x)) / 255    q = round((x - bias) / scale)    x' = q * scale + bias

Every value is rounded to the nearest one, ties to even, so that the same weights give the same bytes everywhere.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from embtables.errors import StateError
from embtables.rows.content import Streamed

WeightDtype = Literal["fp32", "bf16", "fp16", "int8"]
WEIGHT_DTYPES: tuple[WeightDtype, ...] = get_args(WeightDtype)

Array = npt.NDArray[Any]
Weights = npt.NDArray[np.float32]

_NUMPY: dict[WeightDtype, np.dtype[Any]] = {
    "fp32": np.dtype("<f4"),
    "bf16": np.dtype("<u2"),  # the upper half of a float32; numpy and Arrow have no such type
    "fp16": np.dtype("<f2"),
    "int8": np.dtype("u1"),
}
_TAIL = 8  # bytes of scale and bias at the end of a row of int8
_LEVELS = 255
_PIECE_ROWS = 1 << 16


def stored_dtype(dtype: WeightDtype) -> np.dtype[Any]:
    """Of the values of the column `weight` in files."""
    return _NUMPY[dtype]


def stored_width(dtype: WeightDtype, dim: int) -> int:
    """Values of a row in files."""
    return dim + _TAIL if dtype == "int8" else dim


def dim_of(dtype: WeightDtype, width: int) -> int:
    """D, of a row of so many values in files."""
    return width - _TAIL if dtype == "int8" else width


def decoded(stored: Array, dtype: WeightDtype) -> Weights:
    """Weights (n, D) float32, of what files have of them."""
    if dtype == "bf16":
        return (stored.astype(np.uint32) << np.uint32(16)).view(np.float32)
    if dtype == "fp16":
        return stored.astype(np.float32)
    if dtype == "int8":
        dim = dim_of(dtype, stored.shape[1])
        scale, bias = (np.ascontiguousarray(part).view("<f4") for part in np.split(stored[:, dim:], 2, axis=1))
        # A damaged scale gives weights that are not finite: whoever takes over judges values.
        with np.errstate(invalid="ignore", over="ignore"):
            return np.asarray(stored[:, :dim].astype(np.float32) * scale + bias, np.float32)
    return np.asarray(stored, np.float32)


@dataclass(slots=True)
class RoundingError:
    """How far stored weights are from the true ones, of all values seen so far."""

    max_abs: float = 0.0
    squares: float = 0.0
    values: int = 0

    def add(self, other: RoundingError) -> None:
        """The values of another are seen too."""
        self.max_abs = max(self.max_abs, other.max_abs)
        self.squares += other.squares
        self.values += other.values

    def to_json(self) -> dict[str, float]:
        """Greatest absolute error, and root mean square over all values."""
        return {"max_abs": self.max_abs, "rms": math.sqrt(self.squares / self.values) if self.values else 0.0}


class WeightEncoder:
    """Makes what files have of one table's weights, and refuses those that are not finite.

    Args:
        table: is named in errors.
        key_at: gives the key of a row by its place among those that come; asked for an error alone.
        scale: a true weight is this times what comes (`TableContent.scale`).

    Attributes:
        error: of the rows that were encoded so far, of true weights.
    """

    def __init__(self, dtype: WeightDtype, table: str, key_at: Callable[[int], int], scale: float = 1.0) -> None:
        self._dtype: WeightDtype = dtype
        self._table = table
        self._key_at = key_at
        self._scale = float(np.float32(scale))
        self._at = 0
        self.error = RoundingError()

    def streamed(self, column: Streamed | Array) -> Streamed:
        """The column as files have it, made while it is written."""
        dim = column.shape[1]
        shape = (column.shape[0], stored_width(self._dtype, dim))

        def pieces() -> Iterator[Array]:
            self._at, self.error = 0, RoundingError()
            for piece in column.pieces() if isinstance(column, Streamed) else _pieces(column):
                yield self._encode(piece)
                self._at += len(piece)

        return Streamed(shape, stored_dtype(self._dtype), pieces)

    def _encode(self, weights: Weights) -> Array:
        finite = np.isfinite(weights)
        if not finite.all():
            self._refuse("has a weight that is not finite", ~finite)
        if self._dtype == "fp32":
            return np.asarray(weights, stored_dtype("fp32"))
        stored = _ENCODERS[self._dtype](weights)
        back = decoded(stored, self._dtype)
        fits = np.isfinite(back)
        if not fits.all():
            self._refuse(f"has a weight that is too large for {self._dtype}", ~fits)
        self._note(weights, back)
        return stored

    def _note(self, weights: Weights, back: Weights) -> None:
        # Doubles: the squares of the greatest weights are no floats.
        differences = (back.astype(np.float64) - weights) * self._scale
        found = float(np.abs(differences).max(initial=0.0))
        self.error.add(RoundingError(found, float(np.square(differences).sum()), differences.size))

    def _refuse(self, what: str, values: npt.NDArray[np.bool_]) -> None:
        key = self._key_at(self._at + int(np.flatnonzero(values)[0]) // values.shape[1])
        raise StateError(f"key {key} {what}; versions for servers hold finite weights alone", table=self._table)


def _pieces(column: Array) -> Iterator[Array]:
    for start in range(0, max(1, len(column)), _PIECE_ROWS):
        yield column[start : start + _PIECE_ROWS]


def _to_bf16(weights: Weights) -> Array:
    bits = np.ascontiguousarray(weights, np.float32).view(np.uint32)
    # Half of what is cut off, less one where the kept part is even: a tie goes to the even one.
    rounded = bits + (np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1)))
    return (rounded >> np.uint32(16)).astype("<u2")


def _to_fp16(weights: Weights) -> Array:
    with np.errstate(over="ignore"):  # what does not fit is found in what is read back
        return weights.astype("<f2")


def _to_int8(weights: Weights) -> Array:
    values = weights.astype(np.float64)
    least, greatest = values.min(axis=1), values.max(axis=1)
    scale, bias = ((greatest - least) / _LEVELS).astype("<f4"), least.astype("<f4")
    # A row whose range is too small for a scale has that of its bias alone.
    step = np.where(scale > 0, scale, 1).astype(np.float64)
    levels = np.rint((values - least[:, None]) / step[:, None]).clip(0, _LEVELS)
    stored = np.empty((len(weights), stored_width("int8", weights.shape[1])), np.uint8)
    dim = weights.shape[1]
    stored[:, :dim] = levels
    stored[:, dim : dim + 4] = scale[:, None].view(np.uint8)
    stored[:, dim + 4 :] = bias[:, None].view(np.uint8)
    return stored


_ENCODERS = {"bf16": _to_bf16, "fp16": _to_fp16, "int8": _to_int8}
