"""The native side of a lookup that others answer, against plain loops."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embtables.keyspace import buckets_of
from embtables.native import _core

SEEDS = np.array([3, 2**64 - 1, 0], np.uint64)


class Case:
    """A lookup of F features and B bags whose blocks have several dims; and how plain loops would send it."""

    def __init__(self, rng: np.random.Generator, ranks: int, bags: int, longest: int, values: int, header: int) -> None:
        self.dims = np.array([1, 4, 5], np.int32)
        self.of_feature = np.array([1, 0, 2, 1], np.int32)
        self.ranks, self.bags, self.header = ranks, bags, header
        lengths = rng.integers(0, longest + 1, len(self.of_feature) * bags)
        self.offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        self.keys = rng.integers(-values, values, self.offsets[-1]) * 2**40
        self.weights = rng.standard_normal(len(self.keys)).astype(np.float32)
        ends = np.sort(rng.integers(0, 1025, ranks - 1))
        self.owners = np.repeat(np.arange(ranks), np.diff([0, *ends, 1024])).astype(np.uint16)
        self.holders = rng.integers(-ranks, ranks, len(self.dims)).clip(-1).astype(np.int32)
        self.table = {b: rng.standard_normal((2 * values, d)).astype(np.float32) for b, d in enumerate(self.dims)}
        self.values = values

    def made(self, isa: str) -> Any:
        arguments = (SEEDS, self.dims, self.of_feature, self.keys, self.offsets, self.bags, self.owners, self.holders)
        return _core.KeyExchange(*arguments, self.ranks, self.header, 2, isa)

    def occurrences(self) -> list[tuple[int, int, int]]:
        """(place, feature, bag) of every key."""
        found = []
        for feature in range(len(self.of_feature)):
            for bag in range(self.bags):
                start, stop = self.offsets[feature * self.bags + bag : feature * self.bags + bag + 2]
                found += [(place, feature, bag) for place in range(start, stop)]
        return found

    def row(self, block: int, key: int) -> Any:
        return self.table[block][key // 2**40 + self.values]

    def sent(self) -> list[tuple[int, int, int, int]]:
        """(rank, block, key, count) in the order of the message."""
        counts: dict[tuple[int, int], int] = {}
        for block in range(len(self.dims)):
            for place, feature, _ in self.occurrences():
                if self.of_feature[feature] == block:
                    at = block, int(self.keys[place])
                    counts[at] = counts.get(at, 0) + 1
        found = []
        for rank in range(self.ranks):
            for (block, key), count in counts.items():
                by_bucket = self.owners[buckets_of(np.array([key]), int(SEEDS[block]))[0]]
                if rank == (by_bucket if self.holders[block] < 0 else self.holders[block]):
                    found.append((rank, block, key, count))
        return found

    def message(self, rows: dict[tuple[int, int], Any], fill: float) -> Any:
        """The rows of (block, key), each rank's after its header."""
        found: list[Any] = []
        for rank in range(self.ranks):
            found.append(np.full(self.header, fill, np.float32))
            found += [rows[block, key] for of, block, key, _ in self.sent() if of == rank]
        return np.concatenate(found) if found else np.zeros(0, np.float32)


CASES = {
    "seed": st.integers(0, 2**20),
    "ranks": st.integers(1, 5),
    "bags": st.integers(0, 6),
    "longest": st.integers(0, 5),
    "values": st.sampled_from([1, 4, 50]),
    "header": st.integers(0, 3),
}


@pytest.mark.parametrize("isa", _core.available_isas())
@settings(deadline=None, max_examples=60)
@given(**CASES)
def test_distinct_keys_go_out_and_rows_are_pooled(isa: str, seed: int, **options: int) -> None:
    case = Case(np.random.default_rng(seed), **options)
    exchange, sent = case.made(isa), case.sent()
    sizes = np.zeros((case.ranks, len(case.dims)), np.int64)
    for rank, block, _, _ in sent:
        sizes[rank, block] += 1
    assert exchange.sizes().tolist() == sizes.reshape(-1).tolist()
    by_block = sorted(sent, key=lambda one: (one[1], one[0]))
    for counted in (False, True):
        asked, counts = _core.by_block(exchange.asked(counted), sizes.reshape(-1), case.ranks, counted)
        assert asked.tolist() == [key for _, _, key, _ in by_block]
        assert counts.tolist() == ([count for *_, count in by_block] if counted else [])
    message = case.message({(block, key): case.row(block, key) for _, block, key, _ in sent}, np.nan)
    assert exchange.num_floats == len(message)
    width = int(case.dims[case.of_feature].sum())
    columns = np.cumsum([0, *case.dims[case.of_feature]])
    gradient = np.random.default_rng(seed + 1).standard_normal((case.bags, width)).astype(np.float32)
    for weights in (None, case.weights):
        expected = np.zeros((case.bags, width), np.float32)
        sums: dict[tuple[int, int], Any] = {
            (block, key): np.zeros(case.dims[block], np.float32) for _, block, key, _ in sent
        }
        dots = np.zeros(len(case.keys), np.float32)
        for place, feature, bag in case.occurrences():
            block, key = int(case.of_feature[feature]), int(case.keys[place])
            of = slice(columns[feature], columns[feature + 1])
            factor = np.float32(1) if weights is None else weights[place]
            expected[bag, of] += case.row(block, key) * factor
            sums[block, key] += gradient[bag, of] * factor
            dots[place] = case.row(block, key) @ gradient[bag, of]
        out = np.full((case.bags, width), np.nan, np.float32)
        exchange.pooled(message, case.offsets, weights, case.bags, 2, out)
        np.testing.assert_allclose(out, expected, atol=1e-5)
        back = np.full(len(message), 7, np.float32)
        exchange.sum_pooled(gradient, case.offsets, weights, case.bags, 2, back)
        np.testing.assert_allclose(back, case.message(sums, 7), atol=1e-5)
        found = np.full(len(case.keys), np.nan, np.float32)
        exchange.dots(message, case.offsets, case.bags, gradient, 2, found)
        np.testing.assert_allclose(found, dots, atol=1e-4)


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 2**20), ranks=st.integers(1, 4), sizes=st.lists(st.integers(0, 9), min_size=3, max_size=3))
def test_rows_of_features_are_brought_and_their_gradients_summed(seed: int, ranks: int, sizes: list[int]) -> None:
    rng = np.random.default_rng(seed)
    dims, offsets = np.array([2, 3, 2], np.int32), np.concatenate([[0], np.cumsum(sizes)])
    keys = rng.integers(0, 4, offsets[-1])
    owners = np.repeat(np.arange(ranks), np.diff(np.linspace(0, 1024, ranks + 1).astype(int))).astype(np.uint16)
    isa = _core.available_isas()[-1]
    by_slot, of_buckets = np.arange(3, dtype=np.int32), np.full(3, -1, np.int32)
    exchange = _core.KeyExchange(SEEDS, dims, by_slot, keys, offsets, 1, owners, of_buckets, ranks, 1, 1, isa)
    parts = exchange.sizes().reshape(ranks, 3)
    message, at, begins = rng.standard_normal(exchange.num_floats).astype(np.float32), 0, {}
    asked, _ = _core.by_block(exchange.asked(False), exchange.sizes(), ranks, False)
    ends = np.cumsum(parts.T).reshape(3, ranks)
    for rank in range(ranks):
        at += 1
        for block in range(3):
            end = ends[block, rank]
            for key in asked[end - parts[rank, block] : end].tolist():
                begins[block, key] = at
                at += int(dims[block])
    gradients = [rng.standard_normal((n, d)).astype(np.float32) for n, d in zip(sizes, dims, strict=True)]
    back = np.full(exchange.num_floats, 9, np.float32)
    exchange.sum_gathered([gradients[0], None, gradients[2]], 1, back)
    expected = np.full(exchange.num_floats, 9, np.float32)
    for block in (0, 2):
        for (of, _), begin in begins.items():
            expected[begin : begin + dims[block]] = 0 if of == block else expected[begin : begin + dims[block]]
    for block in range(3):
        out = np.empty((sizes[block], dims[block]), np.float32)
        exchange.gather(message, block, 1, out)
        for n, key in enumerate(keys[offsets[block] : offsets[block + 1]].tolist()):
            row = slice(begins[block, key], begins[block, key] + int(dims[block]))
            assert out[n].tolist() == message[row].tolist()
            if block != 1:
                expected[row] += gradients[block][n]
    np.testing.assert_allclose(back, expected, atol=1e-5)


def test_sizes_that_do_not_fit_are_refused() -> None:
    for sizes, what in (([2, -1], "below 0"), ([1, 1], "add up"), ([1], "as many blocks")):
        with pytest.raises(ValueError, match=what):
            _core.by_block(np.zeros(3, np.int32), np.array(sizes), 2, True)
    case = Case(np.random.default_rng(0), 2, 3, 3, 4, 1)
    exchange = case.made("scalar")
    message = np.zeros(exchange.num_floats, np.float32)
    width = int(case.dims[case.of_feature].sum())
    with pytest.raises(ValueError, match="another lookup"):
        exchange.pooled(message, np.zeros_like(case.offsets), None, 3, 1, np.empty((3, width), np.float32))
    with pytest.raises(ValueError, match="num_floats"):
        exchange.pooled(message[:-1].copy(), case.offsets, None, 3, 1, np.empty((3, width), np.float32))
    with pytest.raises(ValueError, match="bags, width"):
        exchange.sum_pooled(np.zeros((3, width + 1), np.float32), case.offsets, None, 3, 1, message)
    most, last = (case.keys, case.offsets, 3), (2, 0, 1, "scalar")
    for owners, holders in ((case.owners + 2, case.holders), (case.owners, case.holders + 3)):
        with pytest.raises(ValueError, match="no such rank"):
            _core.KeyExchange(SEEDS, case.dims, case.of_feature, *most, owners.astype(np.uint16), holders, *last)
    with pytest.raises(ValueError, match="no such block"):
        _core.KeyExchange(SEEDS, case.dims, case.of_feature + 1, *most, case.owners, case.holders, *last)
