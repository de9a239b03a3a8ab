"""A small world to serve: users with tastes that drift, items that come and go, clicks that are delayed and depend on
the place. What it knows of itself is the truth that a model can be held against.

    chance of a click = sigmoid(4 taste . item - 2) 0.85^place        taste, item: unit vectors of 4 numbers

All of it is synthetic, and drawn from one seed.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa

Floats = npt.NDArray[np.float64]
DIM = 4
NUM_USERS, NUM_ITEMS, SHOWN = 30, 50, 10
TURN_PER_SECOND = 0.01  # of a taste, as an angle
ITEM_SECONDS = 60.0  # that an item lives, in the mean
DELAY_SECONDS = 1.5  # of a click, in the mean; one in eight comes ten times as late


class World:
    """Its state at a time, in seconds; `advance` goes on."""

    def __init__(self, seed: int = 0) -> None:
        self.rng = np.random.default_rng(seed)
        self.tastes = _units(self.rng, NUM_USERS)
        self._turns = _units(self.rng, NUM_USERS)  # in which direction a taste turns
        self.items = _units(self.rng, NUM_ITEMS)
        self.item_ids = np.arange(NUM_ITEMS)
        self.now = 0.0

    def advance(self, seconds: float) -> None:
        """Tastes drift, and some items make way for new ones."""
        self.now += seconds
        self.tastes = _unit(self.tastes + TURN_PER_SECOND * seconds * self._turns)
        gone = np.flatnonzero(self.rng.random(NUM_ITEMS) < 1.0 - np.exp(-seconds / ITEM_SECONDS))
        self.items[gone] = _units(self.rng, len(gone))
        self.item_ids[gone] = self.item_ids.max() + 1 + np.arange(len(gone))

    def visit(self) -> tuple[int, npt.NDArray[np.int64]]:
        """Who comes, and the places of the items that may be shown."""
        user = int(self.rng.integers(NUM_USERS))
        return user, self.rng.choice(NUM_ITEMS, SHOWN, replace=False)

    def chances(self, user: int, shown: npt.NDArray[np.int64]) -> Floats:
        """(n,) that the user clicks on items shown in this order."""
        wanted = 1.0 / (1.0 + np.exp(2.0 - 4.0 * (self.items[shown] @ self.tastes[user])))
        chances: Floats = wanted * 0.85 ** np.arange(len(shown))
        return chances

    def clicks(self, user: int, shown: npt.NDArray[np.int64]) -> list[tuple[int, float]]:
        """(place, delay in seconds) of each click."""
        clicked = np.flatnonzero(self.rng.random(len(shown)) < self.chances(user, shown))
        delays = self.rng.exponential(DELAY_SECONDS, len(clicked))
        late = self.rng.random(len(clicked)) < 0.125
        return list(zip(clicked.tolist(), np.where(late, 10 * delays, delays).tolist(), strict=True))

    def log(self, visits: int, until_us: int) -> pa.Table:
        """A log of visits in which items were shown in no order: one a second, the last one at a time."""
        users, items, labels, times = list[int](), list[int](), list[int](), list[int]()
        for number in range(visits):
            user, shown = self.visit()
            clicked = {place for place, _ in self.clicks(user, shown)}
            users += [user] * SHOWN
            items += self.item_ids[shown].tolist()
            labels += [int(place in clicked) for place in range(SHOWN)]
            times += [until_us - (visits - number) * 1_000_000] * SHOWN
        moments = pa.array(times, pa.timestamp("us"))
        return pa.table({"user": users, "item": items, "click": labels, "event_time": moments})


def _units(rng: np.random.Generator, count: int) -> Floats:
    return _unit(rng.normal(size=(count, DIM)))


def _unit(vectors: Floats) -> Floats:
    found: Floats = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return found
