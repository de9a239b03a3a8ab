"""How many strings per second does the pinned hash take, one thread, by instruction set and length?

Each contender is a process that hashes Arrow arrays of 131,072 strings (a batch of the reader) over and over:
`hash_strings` with each instruction set of this machine, and a Python loop over the `xxhash` package.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from functools import partial
from statistics import median

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import xxhash

from benchmarks._harness import Spread, finish, interleave, parser, table
from embtables.ids.strings import hash_strings
from embtables.native import _core

NUM_STRINGS = 131_072
LOOP = "xxhash loop"
GOAL = ("8 characters", 100e6)


def decimal_lengths(rng: np.random.Generator) -> npt.NDArray[np.int64]:
    """Digits of numbers spread evenly over the magnitudes from 10^4 to 10^10."""
    return np.floor(rng.uniform(4, 10, NUM_STRINGS)).astype(np.int64) + 1


CASES: dict[str, Callable[[np.random.Generator], npt.NDArray[np.int64]]] = {
    "8 characters": lambda rng: np.full(NUM_STRINGS, 8),
    "5 to 10 digits": decimal_lengths,
    "12 characters": lambda rng: np.full(NUM_STRINGS, 12),
    "0 to 16 characters": lambda rng: rng.integers(0, 17, NUM_STRINGS),
    "36 characters": lambda rng: np.full(NUM_STRINGS, 36),
    "100 to 400 characters": lambda rng: rng.integers(100, 401, NUM_STRINGS),
}


def make(case: str) -> pa.Array:
    rng = np.random.default_rng(0)
    offsets = np.concatenate([[0], np.cumsum(CASES[case](rng))]).astype(np.int32)
    digits = rng.integers(48, 58, offsets[-1], dtype=np.uint8)
    return pa.Array.from_buffers(pa.string(), NUM_STRINGS, [None, pa.py_buffer(offsets), pa.py_buffer(digits)])


def strings_per_second(run: Callable[[], object], seconds: float) -> float:
    """Median over the passes that fit into `seconds`, after one that is not counted."""
    run()
    passes: list[float] = []
    while sum(passes) < seconds:
        start = time.perf_counter()
        run()
        passes.append(time.perf_counter() - start)
    return NUM_STRINGS / median(passes)


def loop(values: list[bytes]) -> npt.NDArray[np.uint64]:
    return np.fromiter(map(xxhash.xxh3_64_intdigest, values), np.uint64, len(values))


def contend(name: str, seconds: float) -> dict[str, float]:
    found = {}
    for case in CASES:
        array = make(case)
        run = partial(loop, array.cast(pa.binary()).to_pylist()) if name == LOOP else partial(hash_strings, array)
        found[case] = strings_per_second(run, seconds)
    return found


def markdown(result: dict[str, dict[str, Spread]]) -> str:
    best = next(name for name in reversed(result) if name != LOOP)
    peers = [name for name in (LOOP, "scalar") if name != best]
    header = ["strings", *(f"{best} / {peer}" for peer in peers), *(f"{name}, M/s (low-high)" for name in result)]
    rows = []
    for case in CASES:
        ratios = [f"{result[best][case].median / result[peer][case].median:.1f}" for peer in peers]
        rates = [result[name][case] for name in result]
        rows.append([case, *ratios, *(f"{r.median / 1e6:.1f} ({r.low / 1e6:.1f}-{r.high / 1e6:.1f})" for r in rates)])
    case, goal = GOAL
    reached = result[best][case].median
    return (
        f"{table(header, rows)}\n\nMillions of strings per second on one thread, median of the repeats; the loop "
        f"starts from a ready list of bytes. Goal: {goal / 1e6:.0f} at {case}: "
        f"{'reached' if reached >= goal else 'missed'} with {reached / 1e6:.0f}."
    )


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--contender", help=argparse.SUPPRESS)
    args = options.parse_args()
    if args.contender:
        print(json.dumps(contend(args.contender, 0.02 if args.quick else 0.2)))
        return
    child = [sys.executable, "-m", "benchmarks.string_hash", *(["--quick"] if args.quick else []), "--contender"]
    commands = {isa: ["env", f"EMBTABLES_ISA={isa}", *child, isa] for isa in _core.available_isas()}
    runs = interleave({**commands, LOOP: [*child, LOOP]}, repeats=2 if args.quick else 9)
    spreads = {name: {case: Spread.of([run[case] for run in found]) for case in CASES} for name, found in runs.items()}
    figures = {name: {case: vars(spread) for case, spread in cases.items()} for name, cases in spreads.items()}
    finish("string_hash", "String hash", {"strings_per_second": figures}, markdown(spreads), args)


if __name__ == "__main__":
    main()
