"""Rows and bytes of collisionless tables over a year of real invoices: docs/tables-over-time.svg.

Replays the customers and items of examples/data/online_retail in order of time, a batch an hour, through tables that
keep everything, forget after 28 days, or also want two occurrences first.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import torch
from torchrec.sparse.jagged_tensor import KeyedJaggedTensor

from benchmarks import _harness
from embtables import CollisionlessTable, EmbeddingBagCollection, Feature, Tables
from embtables.schema import MinCount, RowwiseAdagrad

LOG = _harness.ROOT / "examples" / "data" / "online_retail" / "log"
PICTURE = _harness.ROOT / "docs" / "tables-over-time.svg"
DAY = 86_400
POLICIES: dict[str, dict[str, Any]] = {
    "keeps everything": {},
    "ttl 28 days": {"ttl_seconds": 28 * DAY},
    "ttl 28 days, 2 occurrences": {"ttl_seconds": 28 * DAY, "admission": MinCount(count=2)},
}
COLOURS = ("#4477aa", "#ee6677", "#228833")
Ints = npt.NDArray[np.int64]


def invoice_lines() -> tuple[Ints, Ints]:
    """(seconds, keys) of customers and items together, in order of time."""
    table = ds.dataset(LOG, format="parquet").to_table(columns=["event_time", "customer_id", "stock_code"])
    table = table.filter(pc.is_valid(table["customer_id"])).sort_by("event_time")
    seconds = table["event_time"].cast(pa.timestamp("s")).cast(pa.int64()).to_numpy()
    items = pc.dictionary_encode(table["stock_code"]).combine_chunks().indices.to_numpy().astype(np.int64)
    return np.repeat(seconds, 2), np.stack([table["customer_id"].to_numpy(), -1 - items], axis=1).ravel()


def replay(policy: dict[str, Any], seconds: Ints, keys: Ints) -> list[dict[str, Any]]:
    """Rows and bytes at the end of every day."""
    table = CollisionlessTable(name="t", dim=16, optimizer=RowwiseAdagrad(learning_rate=0.05), **policy)
    tables = Tables([table], [Feature(name="id", table="t", encoder={"kind": "identity"})], seed=0)
    view = EmbeddingBagCollection.over(tables)
    hours = np.flatnonzero(np.diff(seconds // 3600, prepend=-1))
    days: dict[int, dict[str, Any]] = {}
    for start, stop in zip(hours, [*hours[1:], len(seconds)], strict=True):
        tables.advance(torch.from_numpy(seconds[start:stop] * 1_000_000))
        ids = torch.from_numpy(keys[start:stop])
        view(KeyedJaggedTensor(["id"], ids, lengths=torch.ones(len(ids), dtype=torch.int64))).values().sum().backward()
        tables.step()
        stats = tables.stats()["t"]
        alive = tables.keys("t")
        assert alive is not None
        day = int(seconds[start] // DAY)
        days[day] = {"day": day, "rows": len(alive), "bytes": sum(stats.bytes_by_column.values()), **stats.counts}
    return list(days.values())


def picture(found: dict[str, list[dict[str, Any]]]) -> str:
    """Two charts side by side, as SVG."""
    parts = [
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 860 300" font-family="sans-serif" font-size="12">',
        '<rect width="860" height="300" fill="white"/>',
    ]
    for left, name, unit in ((60, "rows", "rows alive"), (490, "bytes", "KiB of rows, state and map")):
        scale = 1024 if name == "bytes" else 1
        top = max(day[name] / scale for days in found.values() for day in days)
        first, last = (found["keeps everything"][i]["day"] for i in (0, -1))
        parts.append(f'<text x="{left}" y="24">{unit}</text>')
        for mark in np.linspace(0, top, 5):
            y = 250 - 210 * mark / top
            parts.append(f'<line x1="{left}" x2="{left + 340}" y1="{y:.1f}" y2="{y:.1f}" stroke="#ddd"/>')
            parts.append(f'<text x="{left - 6}" y="{y + 4:.1f}" text-anchor="end">{mark:,.0f}</text>')
        for (policy, days), colour in zip(found.items(), COLOURS, strict=True):
            points = " ".join(
                f"{left + 340 * (d['day'] - first) / (last - first):.1f},{250 - 210 * d[name] / scale / top:.1f}"
                for d in days
            )
            parts.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"/>')
            if name == "rows":
                at = 60 + 220 * list(found).index(policy)
                parts.append(f'<text x="{at}" y="288" fill="{colour}">{policy}</text>')
        for day in (first, last):
            x = left + 340 * (day - first) / (last - first)
            parts.append(f'<text x="{x:.0f}" y="268" text-anchor="middle">{np.datetime64(day, "D")}</text>')
    return "\n".join([*parts, "</svg>"]) + "\n"


def main() -> None:
    args = _harness.parser(__doc__).parse_args()
    seconds, keys = invoice_lines()
    if args.quick:
        seconds, keys = seconds[: len(keys) // 4], keys[: len(keys) // 4]
    found = {name: replay(policy, seconds, keys) for name, policy in POLICIES.items()}
    rows = []
    for name, days in found.items():
        end = days[-1]
        most = max(day["rows"] for day in days)
        cells = [most, end["rows"], end["bytes"] // 1024, end["admitted"], end["expired"], end["waiting"]]
        rows.append([name, *(f"{cell:,}" for cell in cells), f"{end['cold_reads'] / len(keys):.1%}"])
    header = ["table", "most rows", "rows at the end", "KiB at the end", "admitted", "expired", "waiting", "cold reads"]
    if not args.quick:
        Path(PICTURE).write_text(picture(found), encoding="utf-8")
    about = f"Customers and items of {len(keys) // 2:,} invoice lines, dim 16, rowwise Adagrad."
    text = f"{_harness.table(header, rows)}\n\n{about}"
    _harness.finish("expiry", "Rows and bytes over time", {"days": found}, text, args)


if __name__ == "__main__":
    main()
