"""How the columns of a row lie in memory and in files. Optimizer state is float32, whatever the weights are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from embtables.native import _core
from embtables.rows.optimizers import WEIGHT

RowDtype = Literal["float32"]
ROW_DTYPES: tuple[RowDtype, ...] = get_args(RowDtype)
STATE_DTYPE = np.dtype(np.float32)  # of optimizer state
Values = npt.NDArray[Any]  # of a column of rows, (n, D) or (n,), as `RowFormat.dtype_of` says


@dataclass(frozen=True, slots=True)
class RowFormat:
    """The rows of a table.

    Attributes:
        dim: D values for each row.
        dtype: of the weights.

    Example:
        >>> RowFormat(24).bytes_per_row, RowFormat(24).stride
        (96, 32)
    """

    dim: int
    dtype: RowDtype = "float32"

    def dtype_of(self, column: str) -> np.dtype[Any]:
        """Of the values of the weights or of a column of optimizer state."""
        return np.dtype(self.dtype) if column == WEIGHT else STATE_DTYPE

    def column_bytes(self, column: str, *, per_element: bool) -> int:
        """Bytes of a row's values of a column in files, where rows lie one after the other.

        Args:
            per_element: D values; else one.
        """
        return self.dtype_of(column).itemsize * (self.dim if per_element else 1)

    @property
    def bytes_per_row(self) -> int:
        """Bytes of a row's weights in files."""
        return self.column_bytes(WEIGHT, per_element=True)

    @property
    def stride(self) -> int:
        """Values from one row to the next in the native core, which keeps small rows within a cache line."""
        return _core.stride_of(self.dim)
