"""How many ids share rows of a fixed table, estimated from how many of its rows were ever updated.

Ids are hashed to rows as balls are thrown into bins. K throws leave each of n rows empty with probability (1 - 1/n)^K,
so m occupied rows give K = ln(1 - m/n) / ln(1 - 1/n). An id makes T throws (T hashes), so there were k = K / T ids. A
row of one id is free of the throws of all others with probability f = (1 - 1/n)^(T (k - 1)); so an id shares

    at least one of its rows with probability 1 - f^T,        every one of them with probability (1 - f)^T.
"""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Collisions:
    """Of a fixed table.

    Attributes:
        estimated: False if the encoder gives every id a row of its own.
        occupied: rows that were ever updated.
        ids: distinct ids; None if every row is taken, which any large number of ids does.
        sharing_a_row: share of ids that have a row in common with another id, 0..1; None as above.
        sharing_every_row: share of ids all of whose rows are also another's; of one hash the same.
    """

    estimated: bool
    occupied: int
    ids: float | None
    sharing_a_row: float | None
    sharing_every_row: float | None


def estimated_collisions(num_rows: int, occupied: int, hashes: int) -> Collisions:
    """The estimate for ids that are hashed to n = `num_rows` rows, T = `hashes` an id, with m = `occupied` rows in use.

    >>> round(estimated_collisions(1000, 632, 1).ids)  # as many ids as rows leave 1/e of the rows empty
    999
    """
    if occupied == 0:
        return Collisions(True, 0, 0.0, 0.0, 0.0)
    if occupied == num_rows:
        return Collisions(True, occupied, None, None, None)
    one_empty = math.log1p(-1.0 / num_rows)
    throws = max(math.log1p(-occupied / num_rows) / one_empty, float(hashes))
    free = math.exp(one_empty * (throws - hashes))
    return Collisions(True, occupied, throws / hashes, 1.0 - free**hashes, (1.0 - free) ** hashes)


def no_collisions(occupied: int) -> Collisions:
    """Of ids that are row indices: exactly none."""
    return Collisions(False, occupied, float(occupied), 0.0, 0.0)
