"""Part `score`: 100 candidates of online_retail's DCN-V2 as JSON, exact and fast, beside the naive service."""

from __future__ import annotations

import argparse
import json
from contextlib import ExitStack
from typing import Any

import numpy as np

import embtables
from benchmarks import _harness
from benchmarks._serving import load, naive_export, online_retail, servers
from benchmarks._serving.turns import capacities, half_load, milliseconds

TITLE = "Server: scores"
CANDIDATES = 100
OURS = ("embtables, exact", "embtables, fast")
NAIVE = {"naive": "each", "naive, context once": "once"}


def measure(args: argparse.Namespace) -> tuple[dict[str, Any], str]:
    """Figures, and the table."""
    run = online_retail.trained(args.quick)
    asked = online_retail.requests(run, CANDIDATES, 50 if args.quick else 300)
    newest = embtables.StateFolder(run / "checkpoints").latest("serving")
    assert newest is not None
    folder = run / "naive"
    scorer = _scorer_of(run)
    if not (folder / "tables.npz").exists():
        naive_export.export(run, scorer, folder)
    bodies = [load.post("/v1/score", json.dumps(request).encode(), "application/json") for request in asked]
    repeats, seconds = (1, 2.0) if args.quick else (5, 4.0)
    noise = load.noise(1.0 if args.quick else 10.0)
    with ExitStack() as stack:
        started = {name: stack.enter_context(servers.ours(run, name.split(", ")[1])) for name in OURS}
        started |= {name: stack.enter_context(servers.naive(folder, how)) for name, how in NAIVE.items()}
        errors = {name: _error(server.url, name, asked[:20], scorer) for name, server in started.items()}
        with embtables.Client(started["embtables, fast"].url) as client:
            engine = client.model().engine
        ports = {name: server.port for name, server in started.items()}
        same = dict.fromkeys(ports, bodies)
        found = capacities(ports, same, repeats=repeats, seconds=seconds, connections=16)
        rates = {name: of["per_second"] / 2 for name, of in found.items()}
        for name, half in half_load(ports, same, rates, quick=args.quick).items():
            found[name] |= {"half_load": half, "error": errors[name]}
            found[name]["memory_mib"] = started[name].memory_mib("VmHWM")
    result = {"version": newest.name, "engine": engine.name, "contenders": found, "body_bytes": len(bodies[0])}
    result["noise"] = noise
    return result, _markdown(result)


def _scorer_of(run: Any) -> embtables.Scorer:
    """What `embtables predict` would score with: the checkpoint of the newest version for servers."""
    return embtables.Scorer.from_version(run, "last")


def _error(url: str, name: str, asked: list[dict[str, Any]], scorer: embtables.Scorer) -> float:
    """The greatest difference to prediction. Raises RuntimeError where it is another model's score."""
    worst = 0.0
    with embtables.Client(url) as client:
        for request in asked:
            if name in NAIVE:
                scores = np.array(_naive_scores(url, request))
            else:
                scores = client.score(request["context"], request["candidates"]).values[:, 0]
            worst = max(worst, float(np.abs(scores - naive_export.reference(scorer, request).numpy()).max()))
    if worst > 0.02:
        raise RuntimeError(f"{name} gives other scores than prediction: they differ by {worst:.3g}")
    return worst


def _naive_scores(url: str, request: dict[str, Any]) -> list[float]:
    import httpx

    found: list[float] = httpx.post(f"{url}/v1/score", json=request, timeout=30.0).raise_for_status().json()["scores"]
    return found


def _markdown(result: dict[str, Any]) -> str:
    found = result["contenders"]
    rows = []
    for name, of in found.items():
        ratio = of["per_second"] / found["naive"]["per_second"]
        rows.append(
            [
                name,
                f"{of['per_second']:,.0f} ({of['low']:,.0f}-{of['high']:,.0f})",
                f"{ratio:.1f}x",
                milliseconds(of["half_load"], 1),
                f"{of['error']:.1e}",
                f"{of['memory_mib']:,.0f}",
            ]
        )
    times = "p50 / p99 (least of the runs) at half load, ms"
    header = ["server", "requests/s", "to naive", times, "error of a score", "MiB"]
    once = found["embtables, exact"]["per_second"] / found["naive, context once"]["per_second"]
    return (
        f"{_harness.table(header, rows)}\n\n"
        f"{CANDIDATES} candidates with all columns, {result['body_bytes'] / 1024:.0f} KiB of JSON, the same bytes to "
        "all. Each server has one core, the load another; closed loop of 16 connections, median of the runs; half load "
        "at a fixed rate, latency counted from when a request was due, of the run with the median p99. "
        "naive: FastAPI, pydantic, nn.EmbeddingBag, "
        "dicts, features of each row in Python; context once: it encodes and pools the context once "
        f"(exact: {once:.1f}x of that). fast has chosen {result['engine']}. Errors are differences to prediction. "
        f"{load.noise_said(result['noise'])}"
    )
