"""The native string hash: pinned vectors, an independent oracle, every instruction set, memory bounds, damage."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st

from embtables.native import _core

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "string_hash.json").read_text())
PATTERN = bytes((131 * i + 7 * (i // 8)) % 256 for i in range(5000))
ISAS = _core.available_isas()
OFFSETS: list[type[np.int32 | np.int64]] = [np.int32, np.int64]
# One range a path of the algorithm, then the borders of the paths for whole groups, then mixtures.
PATHS = [(0, 3), (4, 8), (9, 16), (17, 128), (129, 240), (241, 2500)]
LENGTHS = [*PATHS, (3, 4), (3, 8), (4, 9), (8, 9), (8, 16), (9, 17), (16, 17), (3, 10), (0, 16), (0, 40)]


def oracle(values: list[bytes]) -> npt.NDArray[np.int64]:
    return np.array([xxhash.xxh3_64_intdigest(v) for v in values], np.uint64).view(np.int64)


def run(values: list[bytes], isa: str, offset_type: type[np.int32 | np.int64] = np.int32) -> npt.NDArray[np.int64]:
    # The strings start past the beginning of the data, as a slice's do, and at an odd address.
    offsets = np.cumsum([3, *map(len, values)], dtype=offset_type)
    out = np.empty(len(values), np.int64)
    _core.hash_strings(np.frombuffer(b"..." + b"".join(values), np.uint8), offsets, out, isa)
    return out


@pytest.mark.parametrize("isa", ISAS)
def test_pinned_vectors_never_change(isa: str) -> None:
    values = [PATTERN[: int(n)] for n in GOLDEN["pattern"]] + [w.encode() for w in GOLDEN["strings"]]
    expected = [*GOLDEN["pattern"].values(), *GOLDEN["strings"].values()]
    assert set(range(301)) <= {int(n) for n in GOLDEN["pattern"]}
    assert run(values, isa).view(np.uint64).tolist() == expected


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("offset_type", OFFSETS)
@settings(deadline=None, max_examples=40)
@given(
    lengths=st.lists(st.integers(0, 20) | st.integers(4, 8) | st.integers(200, 1500), max_size=200),
    seed=st.integers(0, 99),
)
def test_every_instruction_set_agrees_with_the_oracle(
    isa: str, offset_type: type[np.int32 | np.int64], lengths: list[int], seed: int
) -> None:
    rng = np.random.default_rng(seed)
    values = [rng.bytes(n) for n in lengths]
    assert np.array_equal(run(values, isa, offset_type), oracle(values))


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("offset_type", OFFSETS)
@pytest.mark.parametrize(("low", "high"), LENGTHS)
def test_long_runs_of_a_length_class_agree_with_the_oracle(
    isa: str, offset_type: type[np.int32 | np.int64], low: int, high: int
) -> None:
    rng = np.random.default_rng(low)
    values = [rng.bytes(n) for n in rng.integers(low, high + 1, 500)]
    assert np.array_equal(run(values, isa, offset_type), oracle(values))


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("length", [0, 1, 3, 4, 8, 9, 16, 17, 240, 241, 1025])
@pytest.mark.parametrize("position", [0, 31, 63])
def test_one_odd_string_in_a_group_of_short_ids(isa: str, length: int, position: int) -> None:
    values = [str(i).encode() for i in range(1000, 1000 + 3 * 64)]
    values[64 + position] = PATTERN[:length]
    assert np.array_equal(run(values, isa), oracle(values))


# A string beside an unmapped page: one byte read too far, before it or after it, ends the process.
GUARDED = """
import ctypes, mmap, sys
import numpy as np
from embtables.native import _core

page, isa = mmap.PAGESIZE, sys.argv[1]
area = mmap.mmap(-1, 34 * page)
memory = np.frombuffer(area, np.uint8)
protect = ctypes.CDLL(None, use_errno=True).mprotect
for guard in (0, 33):
    start = memory.ctypes.data + guard * page
    assert protect(ctypes.c_void_p(start), ctypes.c_size_t(page), 0) == 0
data = memory[page : 33 * page]
for n in (1, 64, 67):
    for length in [*range(301), 1024, 1025]:
        for first in (0, len(data) - n * length):
            offsets = first + length * np.arange(n + 1, dtype=np.int64)
            out = np.empty(n, np.int64)
            _core.hash_strings(data, offsets, out, isa)
            assert (out == out[0]).all()
print("within bounds")
"""


@pytest.mark.parametrize("isa", ISAS)
def test_nothing_outside_the_strings_is_read(isa: str) -> None:
    done = subprocess.run([sys.executable, "-c", GUARDED, isa], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "within bounds\n"), done.stderr


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("offset_type", OFFSETS)
@pytest.mark.parametrize(
    "offsets", [[0, 5, 3], [0, 2, 7], [0, 2**31 - 1, 2**31 - 1], [-1, 2, 3], [0, 2, -3], [0, -3, 2]]
)
def test_damaged_offsets_are_refused_before_anything_is_read(
    isa: str, offset_type: type[np.int32 | np.int64], offsets: list[int]
) -> None:
    out = np.full(2, 7, np.int64)
    with pytest.raises(ValueError, match="damaged"):
        _core.hash_strings(np.frombuffer(b"abcdef", np.uint8), np.array(offsets, offset_type), out, isa)
    assert out.tolist() == [7, 7]


@pytest.mark.parametrize("isa", ISAS)
def test_a_fall_anywhere_among_many_offsets_is_refused(isa: str) -> None:
    for position in range(1, 200):
        offsets = 8 * np.arange(201, dtype=np.int32)
        offsets[position] = offsets[position + 1] + 1
        with pytest.raises(ValueError, match="damaged"):
            _core.hash_strings(np.zeros(1600, np.uint8), offsets, np.empty(200, np.int64), isa)


@pytest.mark.parametrize("offsets", [[], [0], [0, 1, 2, 3]])
def test_sizes_that_do_not_fit_are_refused(offsets: list[int]) -> None:
    with pytest.raises(ValueError, match=r"n \+ 1 offsets"):
        _core.hash_strings(np.zeros(9, np.uint8), np.array(offsets, np.int32), np.empty(2, np.int64), "scalar")


@pytest.mark.parametrize("out", [np.empty(2, np.float64), np.empty(2, np.int32), np.empty(4, np.int64)[::2]])
def test_an_output_that_would_need_a_copy_is_refused(out: npt.NDArray[np.int64]) -> None:
    with pytest.raises(TypeError, match="incompatible"):
        _core.hash_strings(np.zeros(9, np.uint8), np.array([0, 4, 8], np.int32), out, "scalar")


def test_an_unknown_instruction_set_is_refused_with_the_available_ones() -> None:
    with pytest.raises(ValueError, match=r"'sse9' is not available here; choose one of: scalar"):
        _core.hash_strings(np.zeros(9, np.uint8), np.array([0, 4], np.int32), np.empty(1, np.int64), "sse9")


@pytest.mark.parametrize("forced", [*ISAS, None, "sse9", ""])
def test_the_environment_forces_an_instruction_set(forced: str | None) -> None:
    environment = {k: v for k, v in os.environ.items() if k != "EMBTABLES_ISA"}
    if forced is not None:
        environment["EMBTABLES_ISA"] = forced
    code = "from embtables.native import isa; print(isa())"
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    if forced is None or forced in ISAS:
        assert done.stdout.strip() == (forced or ISAS[-1])
    else:
        assert done.returncode != 0
        assert f"EMBTABLES_ISA: received {forced!r}; this machine has: {', '.join(ISAS)}" in done.stderr
