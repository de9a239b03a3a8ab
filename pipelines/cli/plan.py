"""`embtables plan`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from embtables.pipelines.cli.options import ConfigPath, Json, Set
from embtables.pipelines.json_text import json_text

Workers = Annotated[int, typer.Option("--workers", help="Ranks that share the tables, at most 1,024.")]
Bandwidth = Annotated[
    float | None,
    typer.Option("--bandwidth-gbps", help="Gbit/s of each rank's link; by default as fast as this machine's loopback."),
]
MemoryGb = Annotated[float | None, typer.Option("--memory-gb", help="GB (10^9 bytes) of each rank.")]
SampleRows = Annotated[int, typer.Option("--sample-rows", help="Rows of the log to look at.")]
TableRows = Annotated[
    list[str] | None,
    typer.Option("--rows", metavar="TABLE=NUMBER", help="A table's rows, instead of what the sample predicts."),
]
MachineFile = Annotated[
    Path | None,
    typer.Option(
        "--machine",
        help="JSON file of the machine's constants; if it does not exist, they are measured here and written to it.",
    ),
]


def plan(
    config: ConfigPath,
    workers: Workers = 1,
    bandwidth: Bandwidth = None,
    memory: MemoryGb = None,
    sample_rows: SampleRows = 500_000,
    rows: TableRows = None,
    machine: MachineFile = None,
    set_: Set = None,
    as_json: Json = False,
) -> None:
    """Predict what a run will hold, send and take at N ranks: rows, memory, bytes, step time, what does not fit.

    Example: embtables plan examples/online_retail/dcnv2.yaml --workers 2
    Example: embtables plan my.yaml --workers 64 --bandwidth-gbps 25 --memory-gb 32 --rows item=1e9
    Example: embtables plan my.yaml --workers 8 --machine node.json --json
    """
    from embtables.pipelines.config import load_config
    from embtables.pipelines.plan.plan import PlanRequest
    from embtables.pipelines.plan.plan import plan as make

    request = PlanRequest(workers, bandwidth, memory, sample_rows, tuple(rows or ()), machine)
    request.check()
    loaded = load_config(config, tuple(set_ or ()))
    found = make(loaded, request)
    if as_json:
        sys.stdout.write(json_text(found.to_json()) + "\n")
        return
    from embtables.pipelines.plan.terminal import show

    show(found)
