"""Philox4x32-10: counter-based random words (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3").

The words of (seed, key, block) depend on nothing else, so a row's initial values are the same whatever came before it,
on any machine.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Words = npt.NDArray[np.uint32]

_M0, _M1 = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
_W0, _W1 = 0x9E3779B9, 0xBB67AE85
_LOW = np.uint64(0xFFFFFFFF)
_32 = np.uint64(32)
ROUNDS = 10


def philox(counter: tuple[Words, Words, Words, Words], key: tuple[int, int]) -> tuple[Words, Words, Words, Words]:
    """Four random words for each counter of four words (arrays of one shape), under one key of two words."""
    c0, c1, c2, c3 = (c.astype(np.uint64) for c in counter)
    k0, k1 = key
    for _ in range(ROUNDS):
        p0, p1 = c0 * _M0, c2 * _M1
        c0, c1, c2, c3 = (p1 >> _32) ^ c1 ^ np.uint64(k0), p1 & _LOW, (p0 >> _32) ^ c3 ^ np.uint64(k1), p0 & _LOW
        k0, k1 = (k0 + _W0) & 0xFFFFFFFF, (k1 + _W1) & 0xFFFFFFFF
    return c0.astype(np.uint32), c1.astype(np.uint32), c2.astype(np.uint32), c3.astype(np.uint32)


def row_words(seed: int, keys: npt.NDArray[np.int64], num_words: int) -> Words:
    """Random words of rows: (n,) int64 keys -> (n, num_words) uint32, word w from block w // 4 of the row."""
    blocks = -(-num_words // 4)
    unsigned = keys.view(np.uint64)
    shape = (len(keys), blocks)
    low = np.broadcast_to((unsigned & _LOW).astype(np.uint32)[:, None], shape)
    high = np.broadcast_to((unsigned >> _32).astype(np.uint32)[:, None], shape)
    block = np.broadcast_to(np.arange(blocks, dtype=np.uint32)[None, :], shape)
    words = philox((low, high, block, np.zeros(shape, np.uint32)), (seed & 0xFFFFFFFF, seed >> 32 & 0xFFFFFFFF))
    return np.stack(words, axis=2).reshape(len(keys), blocks * 4)[:, :num_words]
