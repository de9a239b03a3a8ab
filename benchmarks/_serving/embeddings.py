"""Part `embed`: rows as float32 bytes: 26 ids beside bare granian, 2,600 beside Redis, latencies of 500."""

from __future__ import annotations

import argparse
from contextlib import ExitStack
from typing import Any

import numpy as np

from benchmarks import _harness
from benchmarks._serving import load, servers, synthetic
from benchmarks._serving.turns import capacities, half_load, milliseconds

TITLE = "Server: embeddings"
BYTES = "application/octet-stream"


BATCH = "bare granian, SCHED_BATCH"


def measure(args: argparse.Namespace) -> tuple[dict[str, Any], str]:
    """Figures, and the table."""
    rows = 100_000 if args.quick else 1_000_000
    repeats, seconds = (1, 1.0) if args.quick else (5, 3.0)
    folder = synthetic.snapshot(rows)
    random = np.random.default_rng(1)
    drawn = {size: random.integers(0, rows, (64, size)) for size in (26, 500, 2600)}
    bodies = {size: [_embed(ids) for ids in of] for size, of in drawn.items()}
    mget = [load.mget([b"item:%d" % key for key in ids]) for ids in drawn[2600]]
    noise = load.noise(1.0 if args.quick else 10.0)
    with ExitStack() as stack:
        ours = stack.enter_context(servers.ours(folder))
        bare = stack.enter_context(servers.bare(26 * 4 * synthetic.DIM))
        batch = stack.enter_context(servers.bare(26 * 4 * synthetic.DIM, like_ours=True))
        redis = stack.enter_context(servers.redis())
        values = random.standard_normal((rows, synthetic.DIM), np.float32)
        servers.fill_redis(redis.port, [b"item:%d" % key for key in range(rows)], [row.tobytes() for row in values])
        runs = {"repeats": repeats, "seconds": seconds}
        small = capacities(
            {"embtables": ours.port, "bare granian": bare.port, BATCH: batch.port},
            dict.fromkeys(["embtables", "bare granian", BATCH], bodies[26]),
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
        for size, of in ((26, small), (500, middle), (2600, large)):
            ports = {"embtables": ours.port} | ({"bare granian": bare.port} if size == 26 else {})
            rate = of["embtables"]["per_second"] / 2
            same = dict.fromkeys(ports, bodies[size])
            for name, figures in half_load(ports, same, dict.fromkeys(ports, rate), quick=args.quick).items():
                of[name]["half_load"] = figures
    result = {"rows": rows, "26": small, "500": middle, "2600": large, "noise": noise}
    return result, _markdown(result)


def _embed(ids: np.ndarray[Any, Any]) -> bytes:
    return load.post("/v1/embed?feature=item", ids.astype("<i8").tobytes(), BYTES, BYTES)


def _markdown(result: dict[str, Any]) -> str:
    def line(what: str, of: dict[str, Any], ratio: str = "") -> list[str]:
        times = milliseconds(of["half_load"], 2) if "half_load" in of else ""
        return [what, f"{of['per_second']:,.0f} ({of['low']:,.0f}-{of['high']:,.0f})", times, ratio]

    small, large = result["26"], result["2600"]
    shares = [small["embtables"]["per_second"] / small[name]["per_second"] for name in ("bare granian", BATCH)]
    times = large["embtables"]["per_second"] / large["redis"]["per_second"]
    rows = [
        line("26 ids, embtables", small["embtables"], f"{shares[0]:.0%} of bare granian"),
        line("26 ids, bare granian with the same bytes", small["bare granian"]),
        line("26 ids, the same under SCHED_BATCH as ours", small[BATCH], f"ours has {shares[1]:.0%} of it"),
        line("500 ids, embtables", result["500"]["embtables"]),
        line("2,600 ids, embtables", large["embtables"], f"{times:.1f}x of Redis"),
        line("2,600 keys, Redis MGET", large["redis"]),
    ]
    header = ["request", "requests/s", "p50 / p99 (least of the runs) at half load, ms", ""]
    return (
        f"{_harness.table(header, rows)}\n\n"
        f"Ids drawn evenly from {result['rows']:,} of a collisionless table, rows of {synthetic.DIM} float32. Each "
        "server has one core, the load another; closed loop, median of the runs; half load at a fixed rate, for "
        "bare granian at ours, latency counted from when a request was due, of the run with the median p99. "
        "Redis holds each row as 64 bytes under item:<id>. "
        f"{load.noise_said(result['noise'])}"
    )
