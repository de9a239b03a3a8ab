"""A server's scores are those that `predict` gives, on real logs, with joined columns left out of the request."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

import embtables
from embtables.serving import wire
from embtables.serving.live_service import live_service
from embtables.serving.settings import Settings
from embtables.tables.lookup_tables import LookupTables

DATA = os.environ.get("EMBTABLES_DATA")
EXAMPLES = Path(__file__).parents[2] / "examples"
Scored = tuple[Any, Any, LookupTables]


async def served(run: Path, log: pa.Table, requests: Sequence[wire.ScoreRequest]) -> tuple[Any, list[Any], Any]:
    """Scores of an Arrow table, and of requests one by one, by a server of the run; and its scorer."""
    service = live_service(Settings(source=run, threads=2))
    await service.start()
    assert await asyncio.to_thread(service.live.wait, 120) is not None
    try:
        of_table = (await service.score_table(log)).scores[:, 0]
        answers = await asyncio.gather(*(service.score(request) for request in requests))
        assert service.live.current is not None
        return of_table, [answer.scores[:, 0] for answer in answers], service.live.current.scorer
    finally:
        await service.stop()


def json_rows(log: pa.Table) -> list[dict[str, Any]]:
    """Rows as JSON has them."""
    rows = log.to_pylist()
    for row in rows:
        for name, value in row.items():
            if isinstance(value, datetime):
                row[name] = value.isoformat()
    return rows


def check(run: embtables.Run, log: pa.Table, left_out: Sequence[str], user: str, item: str, tmp_path: Path) -> None:
    """The server's scores of a log without the columns that training joins are those of `predict`; rows are the bits
    that it read."""
    pq.write_table(log, tmp_path / "log.parquet")
    run.predict(tmp_path / "log.parquet", tmp_path / "scores.parquet", shown=False)
    wanted = pq.read_table(tmp_path / "scores.parquet").column("score").to_numpy()
    assert not set(left_out) & set(log.column_names)
    needed = [name for name in log.column_names if name in columns_of(run)]
    rows = json_rows(log.select(needed))
    requests = [wire.ScoreRequest(rows=rows[start : start + 90]) for start in range(0, len(rows), 90)]
    of_user = [row for row in rows if row[user] == rows[0][user]]
    shared = {name for name in of_user[0] if all(row[name] == of_user[0][name] for row in of_user)} - {item}
    candidates = [{name: value for name, value in row.items() if name not in shared} for row in of_user]
    one_context = wire.ScoreRequest(context={name: of_user[0][name] for name in shared}, candidates=candidates)
    of_table, of_json, scorer = asyncio.run(served(Path(run.path), log, [*requests, one_context]))
    assert np.abs(of_table - wanted).max() <= 1e-6
    assert np.abs(np.concatenate(of_json[:-1]) - wanted).max() <= 1e-6
    places = [place for place, row in enumerate(rows) if row[user] == rows[0][user]]
    assert np.abs(of_json[-1] - wanted[places]).max() <= 1e-6
    trained = embtables.Scorer.from_version(run.path, "last")
    for feature, ids in ((item, log.column(item).unique()), (user, log.column(user).unique())):
        assert np.array_equal(scorer.embed(feature, ids).numpy(), trained.embed(feature, ids).numpy())


def columns_of(run: embtables.Run) -> set[str]:
    schema = run.config
    return {c for feature in schema.features for c in feature.columns} | {d.column for d in schema.dense}


@pytest.mark.slow
def test_the_test_days_of_online_retail(tmp_path: Path) -> None:
    run = embtables.train(
        EXAMPLES / "online_retail" / "dcnv2.yaml",
        runs_dir=tmp_path / "runs",
        max_steps=40,
        shown=False,
    )
    (examples,) = (tmp_path / "runs" / "prepared").glob("*/examples.parquet")
    log = pq.read_table(examples)
    log = log.filter(pc.greater_equal(log.column("event_time"), pa.scalar(datetime(2011, 11, 1), pa.timestamp("us"))))
    check(run, log.slice(0, 2000), ("description", "first_seen"), "customer_id", "stock_code", tmp_path)


@pytest.mark.slow
@pytest.mark.skipif(DATA is None, reason="MovieLens may not be shipped; set EMBTABLES_DATA to a folder with ml1m/")
def test_movielens(tmp_path: Path) -> None:
    run = embtables.train(
        EXAMPLES / "movielens" / "dcnv2.yaml",
        overrides=[f"data.path={DATA}/ml1m", "publish={every_steps: 30}"],
        runs_dir=tmp_path / "runs",
        max_steps=30,
        shown=False,
    )
    log = pq.read_table(f"{DATA}/ml1m/ratings.parquet").slice(0, 2000)
    check(run, log, ("gender", "age", "occupation", "zip", "genres"), "user_id", "movie_id", tmp_path)
