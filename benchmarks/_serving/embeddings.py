"""Part `embed`: rows as float32 bytes: 26 ids beside bare granian, 2,600 beside Redis, latencies of 500."""

from __future__ import annotations

import argparse
from contextlib import ExitStack
from typing import Any

import numpy as np

from benchmarks import _harness
from benchmarks._serving import load, servers, synthetic
from benchmarks._serving.turns import capacities, latencies

TITLE = "Server: embeddings"
BYTES = "application/octet-stream"


def measure(args: argparse.Namespace) -> tuple[dict[str, Any], str]:
    """Figures, and the table."""
    rows = 100_000 if args.quick else 1_000_000
    repeats, seconds = (1, 1.0) if args.quick else (5, 3.0)
    folder = synthetic.snapshot(rows)
    random = np.random.default_rng(1)
    drawn = {size: random.integers(0, rows, (64, size)) for size in (26, 500, 2600)}
    bodies = {size: [_embed(ids) for ids in of] for size, of in drawn.items()}
    mget = [load.mget([b"item:%d" % key for key in ids]) for ids in drawn[2600]]
    with ExitStack() as stack:
        ours = stack.enter_context(servers.ours(folder))
        bare = stack.enter_context(servers.bare(26 * 4 * synthetic.DIM))
        redis = stack.enter_context(servers.redis())
        values = random.standard_normal((rows, synthetic.DIM), np.float32)
        servers.fill_redis(redis.port, [b"item:%d" % key for key in range(rows)], [row.tobytes() for row in values])
        runs = {"repeats": repeats, "seconds": seconds}
        small = capacities(
            {"embtables": ours.port, "bare granian": bare.port},
            {"embtables": bodies[26], "bare granian": bodies[26]},
            connections=16,
            **runs,  # type: ignore[arg-type]
        )
        large = capacities(
            {"embtables": ours.port, "redis": redis.port},
            {"embtables": bodies[2600], "redis": mget},
            connections=8,
            redis=["redis"],
            **runs,  # type: ignore[arg-type]
        )
        middle = capacities({"embtables": ours.port}, {"embtables": bodies[500]}, connections=8, **runs)  # type: ignore[arg-type]
        half = {
            size: latencies(ours.port, bodies[size], of["embtables"]["per_second"] / 2, seconds=2 * seconds, repeats=3)
            for size, of in ((26, small), (500, middle), (2600, large))
        }
    for size, of_half in half.items():
        if of_half["failed"]:
            raise RuntimeError(f"{size} ids: {of_half['failed']} requests failed or were not sent")
    result = {"rows": rows, "26": small, "500": middle, "2600": large, "half_load": half}
    return result, _markdown(result)


def _embed(ids: np.ndarray[Any, Any]) -> bytes:
    return load.post("/v1/embed?feature=item", ids.astype("<i8").tobytes(), BYTES, BYTES)


def _markdown(result: dict[str, Any]) -> str:
    def line(what: str, of: dict[str, Any], half: dict[str, Any] | None, ratio: str) -> list[str]:
        times = "" if half is None else f"{half['p50_us'] / 1e3:.2f} / {half['p99_us'] / 1e3:.2f}"
        return [what, f"{of['per_second']:,.0f} ({of['low']:,.0f}-{of['high']:,.0f})", times, ratio]

    small, large, half = result["26"], result["2600"], result["half_load"]
    share = small["embtables"]["per_second"] / small["bare granian"]["per_second"]
    times = large["embtables"]["per_second"] / large["redis"]["per_second"]
    rows = [
        line("26 ids, embtables", small["embtables"], half[26], f"{share:.0%} of bare granian"),
        line("26 ids, bare granian with the same bytes", small["bare granian"], None, ""),
        line("500 ids, embtables", result["500"]["embtables"], half[500], ""),
        line("2,600 ids, embtables", large["embtables"], half[2600], f"{times:.1f}x of Redis"),
        line("2,600 keys, Redis MGET", large["redis"], None, ""),
    ]
    header = ["request", "requests/s", "p50 / p99 at half load, ms", ""]
    return (
        f"{_harness.table(header, rows)}\n\n"
        f"Ids drawn evenly from {result['rows']:,} of a collisionless table, rows of {synthetic.DIM} float32. Each "
        "server has one core, the load another; closed loop, median of the runs; half load at a fixed rate, latency "
        "counted from when a request was due. Redis holds each row as 64 bytes under item:<id>."
    )
