"""Serves the newest run of this example for a moment: real requests of the test days, their scores, latency, version.

    python examples/online_retail/serve_for_a_moment.py [RUN]

A request is an invoice: its customer, country and time as context, 100 items as candidates, of which some are the
invoice's. What the model reads besides (history, sales, prices, descriptions) the server joins. It knows the log to its
end, these invoices included, so the scores show how a request goes, not how well the model predicts.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq

import embtables

LOG = Path(__file__).parents[1] / "data" / "online_retail" / "log"
TEST_DAYS = "2011-11-01"
REQUESTS, CANDIDATES, SHOWN = 200, 100, 3


def invoices(rng: np.random.Generator) -> list[dict[str, Any]]:
    """Invoices of the test days: context, candidates, and the items that were bought."""
    files = sorted(file for file in LOG.glob("*.parquet") if file.stem >= TEST_DAYS)
    table = pq.read_table(files, columns=["invoice", "stock_code", "quantity", "event_time", "customer_id", "country"])
    table = table.filter((pc.field("quantity") > 0) & pc.field("customer_id").is_valid())
    items = np.array(pc.unique(table.column("stock_code")).to_pylist())
    by_invoice = table.group_by(["invoice", "customer_id", "country", "event_time"]).aggregate([("stock_code", "list")])
    rows = by_invoice.take(np.sort(rng.choice(by_invoice.num_rows, REQUESTS, replace=False))).to_pylist()
    found = []
    for row in rows:
        bought = row["stock_code_list"][: CANDIDATES // 10]
        others = [item for item in rng.choice(items, CANDIDATES, replace=False) if item not in bought]
        context = {"customer_id": row["customer_id"], "country": row["country"], "event_time": row["event_time"]}
        context["event_time"] = context["event_time"].isoformat() + "Z"
        found.append({"context": context, "candidates": [*bought, *others][:CANDIDATES], "bought": set(bought)})
    return found


def newest_run(folder: Path) -> Path:
    """The newest run of this example."""
    runs = sorted(folder.glob("online_retail-*"), key=lambda run: run.stat().st_mtime)
    if not runs:
        sys.exit(f"error: {folder} holds no run of online_retail; train one, or name its folder")
    return runs[-1]


def ask(url: str) -> None:
    """Sends the requests and prints what comes back."""
    requests = invoices(np.random.default_rng(0))
    milliseconds = []
    print("  three requests of the test days (the server's side tables know these invoices: no measure of the model)")
    with embtables.Client(url) as client:
        for number, request in enumerate(requests):
            began = time.perf_counter()
            answer = client.score(request["context"], [str(item) for item in request["candidates"]])
            milliseconds.append(1e3 * (time.perf_counter() - began))
            if number < SHOWN:
                scores = answer.values[:, 0]
                best = np.argsort(-scores)[:3]
                shown = ", ".join(
                    f"{request['candidates'][i]} {scores[i]:.3f}"
                    f"{' (bought)' if request['candidates'][i] in request['bought'] else ''}"
                    for i in best
                )
                context = request["context"]
                print(f"  customer {context['customer_id']}, {context['country']}, {context['event_time']}: {shown}")
        p50, p99 = np.percentile(milliseconds, [50, 99])
        print(f"  {REQUESTS} requests of {CANDIDATES} candidates, one after the other: {p50:.1f} ms p50, {p99:.1f} p99")
        print(f"  version {answer.versions.dense}, rows of {answer.versions.rows}")


def main() -> None:
    """Starts the server, asks, and ends it."""
    run = Path(sys.argv[1]) if len(sys.argv) > 1 else newest_run(Path("runs"))
    print(f"embtables serve {run}")
    command = [sys.executable, "-m", "embtables", "serve", str(run), "--port", "0", "--json"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        line = server.stdout.readline()
        if not line:
            sys.exit(server.wait())
        ask(json.loads(line)["url"])
        server.send_signal(signal.SIGTERM)
        server.wait()
    finally:
        server.kill()


if __name__ == "__main__":
    main()
