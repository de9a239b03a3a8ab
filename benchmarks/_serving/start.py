"""Part `start`: ten million rows: from the command to the first answer, and what memory that takes."""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path
from typing import Any

import embtables
from benchmarks import _harness
from benchmarks._serving import servers, synthetic

TITLE = "Server: start"


def measure(args: argparse.Namespace) -> tuple[dict[str, Any], str]:
    """Figures, and the table."""
    rows, repeats = (1_000_000, 1) if args.quick else (10_000_000, 3)
    small, large = synthetic.snapshot(1000), synthetic.snapshot(rows)
    result = {"rows": rows, "small": _starts(small, repeats), "large": _starts(large, repeats)}
    return result, _markdown(result)


def _starts(folder: Path, repeats: int) -> dict[str, Any]:
    for file in folder.rglob("*"):  # into the page cache
        if file.is_file():
            file.read_bytes()
    seconds, peaks, tables = [], [], 0
    for _ in range(repeats):
        began = time.monotonic()
        with servers.ours(folder, cores=sorted(os.sched_getaffinity(0))) as server:
            seconds.append(time.monotonic() - began)
            with embtables.Client(server.url) as client:
                tables = sum(table.bytes for table in client.model().tables)
            peaks.append(server.memory_mib("VmHWM"))
    return {"seconds": sorted(seconds), "peak_mib": sorted(peaks), "tables_mib": tables / 2**20}


def _markdown(result: dict[str, Any]) -> str:
    rows = []
    for name, of in ((f"{result['rows']:,} rows of {synthetic.DIM}", result["large"]), ("1,000 rows", result["small"])):
        seconds, peak = of["seconds"], of["peak_mib"]
        rows.append(
            [
                name,
                f"{seconds[len(seconds) // 2]:.1f} ({seconds[0]:.1f}-{seconds[-1]:.1f})",
                f"{peak[-1]:,.0f}",
                f"{of['tables_mib']:,.0f}",
            ]
        )
    large, small = result["large"], result["small"]
    whole = large["peak_mib"][-1] / large["tables_mib"]
    beyond = (large["peak_mib"][-1] - small["peak_mib"][-1]) / (large["tables_mib"] - small["tables_mib"])
    header = ["version", "command to ready, s", "peak memory, MiB", "rows and map, MiB"]
    return (
        f"{_harness.table(header, rows)}\n\n"
        f"Peak memory is {whole:.2f}x of rows and map; what comes with the rows beyond a server of 1,000 is "
        f"{beyond:.2f}x of them. Files are in the page cache; imports are part of the time."
    )
