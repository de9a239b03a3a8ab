"""A trainer of a small model for the tests of following: real tables, real versions for servers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from embtables import CollisionlessTable, Feature, FixedTable, Tables
from embtables.inputs.features import FeatureTransform
from embtables.inputs.transforms import FittedTransforms
from embtables.models.build import build_model, features_of, tables_of
from embtables.models.dense import dense_tensors
from embtables.models.scorer import Scorer
from embtables.models.task import task_of
from embtables.models.version_content import TrainedSchema
from embtables.schema import Adagrad, DenseColumn, EventTime, Label
from embtables.state.folder.version_folder import LeaseHolder, StateFolder
from embtables.state.format.manifest import Manifest
from embtables.state.write.version_writer import VersionWriter

DIM = 8
SECOND = 1_000_000
START = 1_700_000_000  # of event time, in seconds
TTL_SECONDS = 1000


def schema(**changes: Any) -> TrainedSchema:
    """Users whose rows have a ttl, items, and a price."""
    optimizer = Adagrad(learning_rate=0.05)
    made: dict[str, Any] = {
        "tables": (
            CollisionlessTable(name="user", dim=DIM, optimizer=optimizer, ttl_seconds=TTL_SECONDS),
            CollisionlessTable(name="item", dim=DIM, optimizer=optimizer),
            FixedTable(name="country", dim=DIM, num_rows=50, optimizer=optimizer),
        ),
        "features": (
            Feature(name="user", table="user"),
            Feature(name="item", table="item"),
            Feature(name="country", table="country"),
        ),
        "labels": (Label(column="click"),),
        "dense": (DenseColumn(column="price"),),
        "event_time": EventTime(column="time", unit="s"),
        "model": {"kind": "deepfm", "hidden_sizes": [8]},
    }
    return TrainedSchema(**(made | changes))


class Trainer:
    """Trains on random rows, the same for the same steps, and publishes.

    Attributes:
        tables, model: as they are trained.
        now: event time in seconds.
    """

    def __init__(
        self, holder: LeaseHolder, purpose: Any = "serving", made: TrainedSchema | None = None, **options: Any
    ):
        self.schema = made or schema()
        config = self.schema.model
        self.tables = Tables(tables_of(self.schema, config), features_of(self.schema, config), seed=5)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.model = build_model(self.schema, config, self.tables)
        self._task = task_of(self.schema, None)
        self._fitted = FittedTransforms()
        self._transform = FeatureTransform.for_scoring(self.schema, self._fitted)
        self.state = holder.state
        projection = "weights" if purpose == "serving" else "full"
        options = {"keep": 99, "longest": 99, "projection": projection, **options}
        self.writer = VersionWriter(holder, purpose, self.tables, **options)
        self.step, self.now = 0, START

    def rows(self, n: int, seed: int, users: int = 300) -> pa.Table:
        """Random rows."""
        rng = np.random.default_rng(seed)
        columns = {"user": rng.integers(0, users, n), "item": rng.integers(-100, 100, n)}
        country = rng.integers(0, 50, n)
        return pa.table({**columns, "country": country, "land": country, "price": rng.random(n, np.float32)})

    def train(self, steps: int = 1, users: int = 300) -> None:
        """Steps on rows of 60 seconds each; dense weights move too."""
        for _ in range(steps):
            self.step += 1
            self.now += 60
            self.tables.advance(torch.full((40,), self.now * SECOND))
            batch = self._transform.batch(self.rows(40, self.step, users))
            self.model.train()
            outputs = self._task.forward(self.model, batch)
            logits = outputs if isinstance(outputs, torch.Tensor) else outputs.logits
            loss = (
                logits - torch.from_numpy(np.random.default_rng(self.step).random(logits.shape, np.float32))
            ).square()
            loss.mean().backward()
            self.tables.step()
            with torch.no_grad():
                for parameter in self.model.parameters():
                    if parameter.grad is not None:
                        parameter.sub_(0.1 * parameter.grad)
                        parameter.grad = None

    def content(self, **changes: Any) -> dict[str, Any]:
        """What a version records."""
        recorded = self.schema.model_dump(mode="json", exclude={"name"})
        return {"format": 1, "schema": recorded, "seed": 5, "transforms": self._fitted.to_json(), **changes}

    def dense(self) -> dict[str, Any]:
        """Dense weights, as versions have them."""
        return {name: value.detach().numpy().copy() for name, value in dense_tensors(self.model).items()}

    def cut(self, dense: Mapping[str, Any] | None = None, pins: tuple[str, ...] = (), **changes: Any) -> str:
        """Publishes; returns the name of the newest version when it is on the disk."""
        self.writer.cut({**self.dense(), **(dense or {})}, self.content(**changes), pins)
        self.writer.wait()
        newest = self.state.latest(self.writer._purpose)
        assert newest is not None
        return newest.name

    def publish(self, steps: int = 1) -> str:
        """Trains, and publishes."""
        self.train(steps)
        return self.cut()

    def scorer(self) -> Scorer:
        """What the trainer itself answers with."""
        return Scorer(self.schema, self.tables, self.model, self._fitted, self._task)


@contextmanager
def trainer(folder: Path, **options: Any) -> Iterator[Trainer]:
    """A trainer in a folder, which holds the lease."""
    with LeaseHolder(StateFolder(folder)) as holder:
        made = Trainer(holder, **options)
        try:
            yield made
        finally:
            made.writer.close()


def keys_of(made: Tables, table: str) -> torch.Tensor:
    """Keys with a row; of a fixed table all."""
    found = made.keys(table)
    return torch.arange(50) if found is None else found


def manifest_file(state: StateFolder, version: Manifest) -> Path:
    """The path of a manifest."""
    return Path(str(state.folder.path(f"manifests/{version.purpose}-{version.sequence:010d}.json")))


def data_file(state: StateFolder, version: Manifest, name: str) -> Path:
    """The path of a file of a version."""
    return Path(str(state.folder.path(state.file(version, name))))
