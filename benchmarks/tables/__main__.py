"""`python -m benchmarks.tables [--quick] [--json]`: every question of the table engine, ratios first.

Contenders live in processes of their own and take turns, one measurement at a time, over the same ids; medians of seven
rounds with their range. The random gather of the same run says what the machine allows.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks import _harness
from benchmarks._harness.turns import contenders, take_turns

THREADS = 2
REPEATS = 7
GIB = 2**30
# Keeps glibc from giving large blocks back and asking for them again at every step.
TUNED = {"MALLOC_MMAP_THRESHOLD_": str(4 * GIB), "MALLOC_TRIM_THRESHOLD_": str(8 * GIB), "MALLOC_TOP_PAD_": str(GIB)}
ISOLATED = {"OMP_NUM_THREADS": str(THREADS)}
Answers = dict[str, list[dict[str, Any]]]


def gather_binary() -> Path:
    """The machine's own limit, compiled for it."""
    target = _harness.ROOT / "build" / "benchmarks" / "gather"
    target.parent.mkdir(parents=True, exist_ok=True)
    source = Path(__file__).with_name("gather.cpp")
    subprocess.run(["g++", "-O3", "-march=native", "-fopenmp", str(source), "-o", str(target)], check=True)
    return target


def spread(answers: Sequence[dict[str, Any]], name: str, scale: float = 1.0) -> _harness.Spread:
    return _harness.Spread.of([answer[name] * scale for answer in answers])


def shown(found: _harness.Spread, digits: int = 1) -> str:
    return f"{found.median:,.{digits}f} ({found.low:,.{digits}f}-{found.high:,.{digits}f})"


def worker(module: str, *arguments: object) -> list[str]:
    return [sys.executable, "-W", "ignore", "-m", f"benchmarks.tables.{module}", *map(str, arguments)]


def maps(keys: int, repeats: int) -> tuple[dict[str, Any], str]:
    """id -> row number."""
    env = {**os.environ, **ISOLATED}
    commands = {
        "gather": [str(gather_binary()), str(keys), "16", str(THREADS)],
        "embtables": worker("maps", "embtables", keys, THREADS),
        "torchrec MCH": worker("maps", "mch", keys, THREADS),
        "Python dict": worker("maps", "dict", keys, THREADS),
        "pandas get_indexer": worker("maps", "pandas", keys, THREADS),
    }
    single = worker("maps", "embtables", keys, 1)
    with contenders({"one thread": single}, {"one thread": env}) as alone:
        inserts_alone = alone[0].built
    found: dict[str, Answers] = {}
    with contenders(commands, dict.fromkeys(commands, env)) as group:
        built = {c.name: c.built for c in group}
        for of in ("uniform", "zipf", "misses"):
            found[of] = take_turns(group, {"of": of}, repeats)
    rates = {of: {name: spread(a, "millions") for name, a in answers.items()} for of, answers in found.items()}
    rows = []
    for name in list(commands)[1:]:
        inserts = built[name]["inserts"]
        rows.append([name, *(shown(rates[of][name]) for of in rates), f"{inserts:.2f}"])
    ours, mch, limit = ({of: rates[of][n].median for of in rates} for n in ("embtables", "torchrec MCH", "gather"))
    goals = [
        ["hits, uniform, against MCH", f"{ours['uniform'] / mch['uniform']:.1f} x", "5 x"],
        ["hits, Zipf, against MCH", f"{ours['zipf'] / mch['zipf']:.1f} x", "5 x"],
        ["hits, uniform, of the random 64-byte gather", f"{ours['uniform'] / limit['uniform']:.2f}", "0.50"],
        ["misses, M/s", f"{ours['misses']:.0f}", "40"],
        ["inserts on one thread, M/s", f"{inserts_alone['inserts']:.1f}", "10"],
        [
            "inserts on one thread, against MCH",
            f"{inserts_alone['inserts'] / built['torchrec MCH']['inserts']:.0f} x",
            "30 x",
        ],
        ["bytes per key of the map at rest", f"{built['embtables']['bytes'] / keys:.1f}", "26"],
        ["slowest batch of 16,384 new keys while growing, ms", f"{built['embtables']['slowest_batch_ms']:.0f}", "50"],
    ]
    text = (
        f"### Keys to rows, {keys:,} keys, {THREADS} threads\n\n"
        f"{_harness.table(['question', 'measured', 'goal'], goals)}\n\n"
        f"{_harness.table(['M keys/s', 'hits, uniform', 'hits, Zipf 1.05', 'misses', 'inserts'], rows)}\n\n"
        f"Random 64-byte gather: {shown(rates['uniform']['gather'])} M rows/s. Inserts: from empty, in batches of "
        "16,384 (MCH: its first 1,048,576 keys in four), the engine's with the fresh rows' memory. One shard of the "
        "map (of 32) grows at a time and keeps its entries aside meanwhile: the peak is 3 % above the rest."
    )
    return {"rates": {of: {n: vars(s) for n, s in r.items()} for of, r in rates.items()}, "built": built}, text


def steps(rows: int, dim: int, repeats: int, shapes: Sequence[tuple[int, str]]) -> tuple[list[list[str]], list[str]]:
    """One table size: lines of figures, and what the goals ask."""
    kinds = {
        "fixed": ("fixed", ISOLATED),
        "collisionless": ("collisionless", ISOLATED),
        "fbgemm": ("fbgemm", ISOLATED),
        "fbgemm, tuned malloc": ("fbgemm", {**ISOLATED, **TUNED}),
    }
    if rows <= 10_000_000:
        kinds["nn.EmbeddingBag"] = ("bags", ISOLATED)
    if rows <= 1_000_000:
        kinds["torchrec EBC"] = ("torchrec", ISOLATED)
    commands = {name: worker("steps", kind, rows, dim, THREADS) for name, (kind, _) in kinds.items()}
    env = {name: {**os.environ, **extra} for name, (_, extra) in kinds.items()}
    lines = []
    limit_command = {"gather": [str(gather_binary()), str(rows), str(dim), str(THREADS)]}
    with contenders({**commands, **limit_command}, env) as group:
        *stores, gather = group
        for count, of in shapes:
            ask = {"rows": count, "of": of}
            forward = take_turns([*stores, gather], {**ask, "what": "forward"}, repeats)
            trained = take_turns([c for c in stores if c.name != "torchrec EBC"], {**ask, "what": "step"}, repeats)
            lines.append(_line(rows, dim, count, of, forward, trained))
    return lines, list(kinds)


def _line(rows: int, dim: int, count: int, of: str, forward: Answers, trained: Answers) -> list[str]:
    ids = forward["fixed"][0]["ids"]
    ms = {name: spread(a, "seconds", 1e3) for name, a in forward.items() if name != "gather"}
    step = {name: spread(a, "seconds", 1e3) for name, a in trained.items()}
    limit = spread(forward["gather"], "millions").median
    best = min(step["fbgemm"].median, step["fbgemm, tuned malloc"].median)
    fixed = step["fixed"].median
    cells = [f"{rows // 1_000_000}M x {dim}", f"{count:,}", of]
    cells += [f"{best / fixed:.2f}"]
    cells += [f"{step['nn.EmbeddingBag'].median / fixed:.1f}" if "nn.EmbeddingBag" in step else ""]
    cells += [f"{step['collisionless'].median / fixed:.2f}"]
    cells += [f"{ids / ms['fixed'].median / 1e3 / limit:.2f}"]
    cells += [shown(step[name]) for name in ("fixed", "collisionless", "fbgemm", "fbgemm, tuned malloc")]
    cells += [shown(step["nn.EmbeddingBag"], 0) if "nn.EmbeddingBag" in step else ""]
    cells += [shown(ms["fixed"]), shown(ms["collisionless"]), shown(ms["fbgemm"])]
    cells += [shown(ms["torchrec EBC"]) if "torchrec EBC" in ms else ""]
    return cells


def dcnv2(repeats: int) -> tuple[dict[str, Any], str]:
    """A whole training step of a model."""
    precision = "bf16" if torch.ops.mkldnn._is_mkldnn_bf16_supported() else "fp32"
    kinds = ("fixed", "collisionless", "fbgemm")
    commands = {kind: worker("dcnv2", kind, precision, THREADS) for kind in kinds}
    with contenders(commands, {kind: {**os.environ, **ISOLATED} for kind in kinds}) as group:
        found = take_turns(group, {}, 2 * repeats)
    ms = {name: spread(answers, "seconds", 1e3) for name, answers in found.items()}
    rows = [[n, f"{ms['fbgemm'].median / s.median:.2f}", shown(s)] for n, s in ms.items()]
    missing = "" if precision == "bf16" else " This processor has no bf16 instructions: measured in fp32."
    text = (
        f"### DCN-V2 training step, batch 4096, 26 features, {precision}\n\n"
        f"{_harness.table(['tables', 'fbgemm / it', 'step ms'], rows)}\n\nGoal: not slower than fbgemm.{missing}"
    )
    return {name: vars(s) for name, s in ms.items()}, text


HEADER = [
    "tables",
    "batch",
    "ids",
    "step: fbgemm / fixed",
    "nn.EmbeddingBag / fixed",
    "collisionless / fixed",
    "forward, of gather",
    "step ms: fixed",
    "collisionless",
    "fbgemm",
    "fbgemm, tuned malloc",
    "nn.EmbeddingBag",
    "forward ms: fixed",
    "collisionless",
    "fbgemm",
    "torchrec EBC",
]


def main() -> None:
    args = _harness.parser(__doc__).parse_args()
    keys, repeats = (1_000_000, 3) if args.quick else (10_000_000, REPEATS)
    sizes = [(1_000_000, 16)] if args.quick else [(10**6, 16), (10**6, 64), (10**7, 16), (10**7, 64), (5 * 10**7, 16)]
    shapes = [(4096, "zipf")] if args.quick else [(b, of) for b in (4096, 16384) for of in ("zipf", "uniform")]
    result, text = maps(keys, repeats)
    lines: list[list[str]] = []
    for rows, dim in sizes:
        lines += steps(rows, dim, repeats, shapes)[0]
    text += (
        "\n\n### Pooled lookups and whole steps\n\n"
        "28 tables of unequal size (together the rows given), 26 single-valued and 2 twenty-valued features, rowwise "
        "Adagrad, fp32. Goals: 2 x fbgemm (the faster of its two), 10 x nn.EmbeddingBag (sparse gradients, Adagrad), "
        "collisionless at most 1.35 of fixed, forward at least 0.80 of the random row gather for uniform ids at 10M "
        f"rows.\n\n{_harness.table(HEADER, lines)}"
    )
    trained, section = dcnv2(repeats)
    text += f"\n\n{section}"
    _harness.finish("tables", "Table engine", {**result, "steps": lines, "dcnv2": trained}, text, args)


if __name__ == "__main__":
    main()
