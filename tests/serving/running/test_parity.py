"""What a server fills while events of a real log are posted is what `data.prepare` wrote, bit for bit."""

from __future__ import annotations

from pathlib import Path

import httpx
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from embtables.events import open_log
from embtables.events.columns import IMPRESSION
from embtables.pipelines.config import load_config
from embtables.pipelines.prepare.examples import prepare
from embtables.pipelines.training.train import train
from embtables.serving import wire
from tests.embtables.running.test_live_is_prepared import EXAMPLE, digest, invoices
from tests.serving.arrow_for_tests import arrow
from tests.serving.conftest import ServerProcess

FILES = "log/2010-12-*.parquet"
INVOICES = 30


def events_of(lines: pa.Table, invoice: str) -> pa.RecordBatch:
    """The lines of an invoice as events, and two that do not count: one sent back, one of nobody."""
    beside = lines.slice(0, 1)
    sent_back = beside.set_column(
        beside.schema.get_field_index("quantity"), "quantity", pa.array([-1], beside.schema.field("quantity").type)
    )
    nobody = beside.set_column(
        beside.schema.get_field_index("customer_id"),
        "customer_id",
        pa.nulls(1, beside.schema.field("customer_id").type),
    )
    table = pa.concat_tables([lines, sent_back, nobody]).select(
        ["event_time", "stock_code", "customer_id", "quantity", "unit_price"]
    )
    table = table.append_column("event_id", pa.array([f"{invoice}/{n}" for n in range(table.num_rows)]))
    return table.append_column("kind", pa.array(["sale"] * table.num_rows)).combine_chunks().to_batches()[0]


def test_columns_filled_by_a_server_are_the_prepared_ones(tmp_path: Path) -> None:
    changes = [f"data.files={FILES}", "running={}", "data.split=null", "publish={}", f"train.runs_dir={tmp_path}/runs"]
    config = load_config(EXAMPLE, [*changes, "model.hidden_sizes=[4]", "evaluate.slices=[]"])
    of = config.data.prepare
    assert of is not None
    examples = pq.read_table(
        prepare(of, str(config.data.path), FILES, tmp_path / "runs" / "prepared") / "examples.parquet"
    )
    run = Path(train(config, shown=False)["run_dir"])
    names = examples.column(of.group).to_pylist()
    starts = [n for n in range(len(names)) if n == 0 or names[n] != names[n - 1]]
    places = {names[start]: (start, stop) for start, stop in zip(starts, [*starts[1:], len(names)], strict=True)}
    uri, asked = f"folder://{tmp_path}/events", list[pa.Table]()
    settings = {"events": uri, "log_served": True, "event_max_behind_days": 100_000}
    server = ServerProcess(run, tmp_path / "log.jsonl", settings, live=True)
    try:
        with httpx.Client(base_url=server.url, headers={"content-type": wire.ARROW}, timeout=60) as client:
            for number, lines in enumerate(invoices(config, of, FILES)):
                invoice = lines.column(of.group)[0].as_py()
                start, stop = places.get(invoice, (0, 0))
                if len(asked) == INVOICES:
                    break
                if stop > start:
                    rows = examples.slice(start, stop - start)
                    question = rows.select(["stock_code", "customer_id", "country", "event_time"])
                    headers = {"x-request-id": f"{len(asked):06}"}
                    answer = client.post("/v1/score", content=arrow(question), headers=headers)
                    assert answer.status_code == 200, answer.text
                    asked.append(rows)
                batch = pa.Table.from_batches([events_of(lines, f"{invoice}-{number}")])
                answer = client.post("/v1/events", content=arrow(batch))
                assert answer.json()["accepted"] == batch.num_rows, answer.text
    finally:
        server.end()
    served = impressions(uri)
    right = pa.concat_tables(asked)
    columns = [name for name in right.column_names if name in {f.name for f in of.running_features()}]
    assert served.num_rows == right.num_rows > 400
    assert len(columns) == 12
    for name in columns:
        assert digest(served.select([name])) == digest(right.select([name])), name
    assert np.asarray(right.column("item_sales").combine_chunks()).max() > 5


def impressions(uri: str) -> pa.Table:
    """Those of the log, in the order in which requests were answered."""
    log = open_log(uri)
    parts, position = [], None
    while entries := log.read(0, position):
        position = entries[-1].position
        parts += [e.events for e in entries if e.events.column("kind")[0].as_py() == IMPRESSION]
    log.close()
    return pa.Table.from_batches(parts)
