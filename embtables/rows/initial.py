"""Initial rows: a pure function of (table seed, key), by Philox and plain arithmetic, without the maths library.

normal: the sum of four 16-bit uniforms (Irwin-Hall), centred and scaled to the standard deviation: one float32
product of an exact integer, so any language gives the same bits. Excess kurtosis is -0.3 and |x| <= 3.47 std, like the
truncated normals in common use. uniform: low + (high - low) * u, u a multiple of 2^-24 in [0, 1).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from embtables.rows.philox import row_words
from embtables.schema import Constant, Initializer, Normal, Uniform

RowValues = npt.NDArray[np.float32]

_HALF = np.uint32(0xFFFF)
_MEAN = 2 * 0xFFFF
# Variance of the sum of four uniforms on 0..65535: 4 * (65536^2 - 1) / 12.
_STD = float(np.sqrt(4 * (65536.0**2 - 1) / 12))


def normal_factor(std: float) -> float:
    """What the centred sum of four 16-bit uniforms is multiplied by, to have the standard deviation `std`."""
    return std / _STD


def initial_rows(initializer: Initializer, seed: int, keys: npt.NDArray[np.int64], dim: int) -> RowValues:
    """Fresh rows of `keys` (n,) int64: (n, dim) float32."""
    if isinstance(initializer, Normal):
        words = row_words(seed, keys, 2 * dim)
        halves = (words & _HALF) + (words >> np.uint32(16))  # (n, 2 * dim), sums of two uniforms
        total = (halves[:, 0::2] + halves[:, 1::2]).astype(np.int32) - np.int32(_MEAN)
        return total.astype(np.float32) * np.float32(normal_factor(initializer.std))
    if isinstance(initializer, Uniform):
        u = (row_words(seed, keys, dim) >> np.uint32(8)).astype(np.float32) * np.float32(2.0**-24)
        return np.float32(initializer.low) + np.float32(initializer.high - initializer.low) * u
    value = initializer.value if isinstance(initializer, Constant) else 0.0
    return np.full((len(keys), dim), value, np.float32)
