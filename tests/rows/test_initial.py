"""Initial rows: Philox's known answers, pinned rows, independence of order, the distributions promised."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from embtables.keyspace import table_seed
from embtables.rows.initial import initial_rows
from embtables.rows.philox import philox
from embtables.schema import Constant, Initializer, Normal, Uniform, Zeros

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "initial_rows.json").read_text())


@pytest.mark.parametrize(
    ("counter", "key", "expected"),
    [
        # Known answers published with Random123 for philox4x32-10.
        ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        ((2**32 - 1,) * 4, (2**32 - 1,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            (0xA4093822, 0x299F31D0),
            (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
        ),
    ],
)
def test_philox_gives_the_published_answers(
    counter: tuple[int, ...], key: tuple[int, int], expected: tuple[int, ...]
) -> None:
    words = philox(tuple(np.array([c], np.uint32) for c in counter), key)  # type: ignore[arg-type]
    assert tuple(int(w[0]) for w in words) == expected


@pytest.mark.parametrize("initializer", [Normal(std=0.1), Uniform(low=-1, high=2), Constant(value=0.5), Zeros()])
def test_a_row_depends_on_seed_and_key_alone(initializer: Initializer) -> None:
    keys = np.array([5, 0, -1, 2**62, 17], np.int64)
    together = initial_rows(initializer, 9, keys, 6)
    for key, row in zip(keys, together, strict=True):
        assert np.array_equal(initial_rows(initializer, 9, np.array([key]), 6)[0], row)
    assert np.array_equal(initial_rows(initializer, 9, keys, 3), together[:, :3])
    if isinstance(initializer, Normal | Uniform):
        assert not np.array_equal(initial_rows(initializer, 10, keys, 6), together)
        assert len(np.unique(together, axis=0)) == len(keys)


def test_distributions_are_the_ones_promised() -> None:
    keys = np.arange(20_000)
    normal = initial_rows(Normal(std=0.02), 1, keys, 16)
    assert normal.std() == pytest.approx(0.02, rel=0.01)
    assert abs(normal.mean()) < 0.0002
    assert np.abs(normal).max() <= 3.47 * 0.02
    assert abs(np.corrcoef(normal[:, 0], normal[:, 1])[0, 1]) < 0.03
    uniform = initial_rows(Uniform(low=-1.0, high=3.0), 1, keys, 4)
    assert uniform.min() >= -1.0
    assert uniform.max() < 3.0
    assert np.histogram(uniform, bins=8, range=(-1, 3))[0] / uniform.size == pytest.approx(np.full(8, 0.125), abs=0.005)


def test_pinned_rows_never_change() -> None:
    keys = np.array(GOLDEN["keys"], np.int64)
    assert initial_rows(Normal(std=0.01), 7, keys, 5).view(np.uint32).tolist() == GOLDEN["normal_bits"]
    assert initial_rows(Uniform(low=-0.5, high=0.5), 7, keys, 5).view(np.uint32).tolist() == GOLDEN["uniform_bits"]
    assert [table_seed(0, "user"), table_seed(1, "user"), table_seed(0, "item")] == GOLDEN["table_seeds"]
