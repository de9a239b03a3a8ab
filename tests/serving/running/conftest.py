"""A run whose model reads running features, and servers over it that have an event log."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from embtables.pipelines.config import RunConfig
from embtables.pipelines.training.train import train
from embtables.schema import validate
from tests.pipelines.conftest import content, make_table
from tests.serving.conftest import ServerProcess

FEATURES: list[dict[str, Any]] = [
    {"name": "user_clicks", "count": "events", "by": "user"},
    {"name": "item_clicks_1h", "count": "events", "by": "item", "window": "1h"},
    {"name": "pair_clicks", "count": "events", "by": ["user", "item"]},
    {"name": "last_price", "last_value": "price_paid", "by": "item"},
    {"name": "bought", "count": "events", "by": "shop", "where": ["quantity > 0"]},
    {"name": "last_items", "last_n": {"column": "item", "n": 5}, "by": "user"},
]
NUMBERS = [feature["name"] for feature in FEATURES if "last_n" not in feature]


def running_config(log: Path, runs: Path) -> dict[str, Any]:
    """Of a log with the running columns; `shop` is a key that the model does not read."""
    config = content(log, runs)
    config["features"].append({"name": "last_items", "table": "item", "pooling": "mean", "max_length": 5})
    config["dense"] = [*config.get("dense", ()), *({"column": name, "fill_null": 0.0} for name in NUMBERS)]
    config |= {"running": {"features": FEATURES}, "publish": {}}
    config["train"]["epochs"] = 1
    return config


@pytest.fixture(scope="session")
def running_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was trained on a log in which these columns lie."""
    folder = tmp_path_factory.mktemp("running")
    log = folder / "log"
    log.mkdir()
    table, rng = make_table(900, seed=5), np.random.default_rng(5)
    for name in NUMBERS:
        table = table.append_column(name, pa.array(rng.integers(0, 5, 900).astype(np.float32)))
    table = table.append_column("last_items", pa.array([[1, 2]] * 900))
    pq.write_table(table, log / "part.parquet", row_group_size=150)
    return Path(train(validate(RunConfig, running_config(log, folder / "runs")), shown=False)["run_dir"])


ServeRunning = Callable[..., ServerProcess]


@pytest.fixture
def serve_running(running_run: Path, tmp_path: Path) -> Iterator[ServeRunning]:
    """Starts a server over the log in `tmp_path`: `serve_running(running_dir=...)`."""
    started: list[ServerProcess] = []

    def start(**settings: object) -> ServerProcess:
        log = tmp_path / f"log-{len(started)}.jsonl"
        settings = {"events": f"folder://{tmp_path}/events?partitions=3"} | settings
        started.append(ServerProcess(running_run, log, settings, live=True))
        return started[-1]

    yield start
    for each in started:
        each.end()
