"""The fixed 64-bit bijective mix that encoders share: the finaliser of splitmix64.

mix(x): x ^= x >> 30, x *= 0xBF58476D1CE4E5B9, x ^= x >> 27, x *= 0x94D049BB133111EB, x ^= x >> 31, modulo 2^64
(Steele, Lea and Flood 2014, "Fast splittable pseudorandom number generators"; constants of Stafford's variant 13).
Pinned for ever by tests/golden/encoders.json: trained rows lie where it put them.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from embtables.native import _core

GOLDEN_GAMMA = 0x9E3779B97F4A7C15
_INVERSE_M1 = np.uint64(pow(0xBF58476D1CE4E5B9, -1, 2**64))
_INVERSE_M2 = np.uint64(pow(0x94D049BB133111EB, -1, 2**64))
_S30, _S27, _S31 = np.uint64(30), np.uint64(27), np.uint64(31)

Ids = npt.NDArray[np.int64]
UInts = npt.NDArray[np.uint64]


def mix(x: UInts, offset: int = 0) -> UInts:
    """A bijection of 64-bit words, uint64 of any shape; `offset`, 0..2^64-1, is added first."""
    out = np.empty(x.shape, np.uint64)
    _core.mix(np.ascontiguousarray(x).reshape(-1), offset, out.reshape(-1))
    return out


def unmix(x: UInts) -> UInts:
    """The inverse of `mix`, (n,) uint64 -> (n,) uint64."""
    x = _unshifted(x, _S31) * _INVERSE_M2
    x = _unshifted(x, _S27) * _INVERSE_M1
    return _unshifted(x, _S30)


def _unshifted(y: UInts, shift: np.uint64) -> UInts:
    """x from y = x ^ (x >> shift), where three shifts leave nothing of 64 bits: x = y ^ (y >> s) ^ (y >> 2s)."""
    y = y ^ (y >> shift)
    return y ^ (y >> (shift + shift))


def mix_one(x: int) -> int:
    """The same of one word, a Python integer in 0..2^64-1."""
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
    x = (x ^ (x >> 27)) * 0x94D049BB133111EB % 2**64
    return x ^ (x >> 31)


def salted(values: Ids, salt: int) -> Ids:
    """A bijection of 64-bit integers (n,) for each salt, mix(value + (salt + 1) * golden gamma)."""
    return seeded_mix(values, salt).view(np.int64)


def unsalted(values: Ids, salt: int) -> Ids:
    """The inverse of `salted`."""
    return seeded_unmix(values.view(np.uint64), salt)


def reduced(words: UInts, key_range: int | None) -> Ids:
    """Keys of hashed words: modulo the key range if there is one."""
    return (words if key_range is None else words % np.uint64(key_range)).view(np.int64)


def seeded_mix(ids: Ids, seed: int) -> UInts:
    """mix(id + (seed + 1) * golden gamma): for each seed another bijection."""
    return mix(ids.view(np.uint64), (seed + 1) * GOLDEN_GAMMA % 2**64)


def seeded_unmix(words: UInts, seed: int) -> Ids:
    """The ids (n,) int64 that `seeded_mix` turned into these words."""
    return (unmix(words) - np.uint64((seed + 1) * GOLDEN_GAMMA % 2**64)).view(np.int64)
