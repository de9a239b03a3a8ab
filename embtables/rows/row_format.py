"""How the weights of a row lie in memory, in messages and in files; optimizer state is float32 beside them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from embtables.native import _core


@dataclass(frozen=True, slots=True)
class RowFormat:
    """The weights of a table's rows.

    Attributes:
        dim: D values for each row.
        dtype: of the values.

    Example:
        >>> RowFormat(24).bytes_per_row, RowFormat(24).stride
        (96, 32)
    """

    dim: int
    dtype: Literal["float32"] = "float32"

    @property
    def value_bytes(self) -> int:
        """Bytes of a value."""
        return np.dtype(self.dtype).itemsize

    @property
    def bytes_per_row(self) -> int:
        """Bytes of a row in files and messages, where rows lie one after the other."""
        return self.dim * self.value_bytes

    @property
    def stride(self) -> int:
        """Values from one row to the next in the native core, which keeps small rows within a cache line."""
        return _core.stride_of(self.dim)
