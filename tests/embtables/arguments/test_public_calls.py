"""Every public name of `embtables`, each argument by each kind of wrong object: it works, or it is a typed error.

The table is generated: arguments are those of the signature, and a name that has no row here fails a test.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn
from torchrec.modules.embedding_configs import EmbeddingBagConfig, EmbeddingConfig, PoolingType

import embtables as et
from embtables.errors import EmbtablesError
from embtables.models.metrics import forget_metric
from embtables.models.registry import forget_model
from embtables.models.task import task_of
from embtables.schema import Model, to_yaml
from tests.pipelines.conftest import content, make_table

SGD = et.Sgd(learning_rate=0.1)
TABLE = et.CollisionlessTable(name="t", dim=2, optimizer=SGD)
FEATURE = et.Feature(name="f", table="t")
SCHEMA = et.Schema(tables=(TABLE,), features=(FEATURE,), labels=(et.Label(column="y"),))
Call = tuple[Callable[..., Any], dict[str, Any]]


class Folder(SimpleNamespace):
    """A trained run, its log as a frame, and files that are not what is expected."""

    run: et.Run
    frame: pd.DataFrame
    path: Path

    def state(self) -> et.StateFolder:
        return et.StateFolder(self.path / "state")

    def versions(self) -> et.StateFolder:
        assert self.run.path is not None
        return et.StateFolder(self.run.path / "checkpoints")

    def draws(self) -> dict[str, Any]:
        return {
            "None": None,
            "an integer": 3,
            "a negative integer": -1,
            "a large integer": 10**30,
            "true": True,
            "nan": float("nan"),
            "text": "no such thing",
            "no text": "",
            "text with a null": "a\0b",
            "bytes": b"run",
            "a list": [1, None],
            "an empty list": [],
            "a list of text": ["no such thing"],
            "a dict": {"a": 1},
            "an empty dict": {},
            "a dict by number": {1: 2},
            "an object": object(),
            "a class": object,
            "a function": lambda *given: None,
            "a generator": (i for i in range(3)),
            "complex numbers": np.ones(3, np.complex64),
            "strings": np.array(["a", "b"]),
            "nothing in 0 dimensions": np.array(None),
            "a tensor": torch.ones(2, 2),
            "a missing path": self.path / "nothing" / "here",
            "an empty folder": self.path / "empty",
            "a file of text": self.path / "text.yaml",
            "a file of bytes": self.path / "bytes.parquet",
            "a table": TABLE,
            "a feature": FEATURE,
            "an error": ValueError("x"),
        }


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    path = tmp_path_factory.mktemp("calls")
    (path / "empty").mkdir()
    (path / "text.yaml").write_text("- a\n- b\n")
    (path / "bytes.parquet").write_bytes(b"PAR1" + bytes(range(256)) + b"PAR1")
    frame = make_table(300).to_pandas()
    made = content(Path("unused"), path / "runs")
    del made["data"]["path"]
    run = et.train(made, frame, max_steps=2, shown=False)
    frame.to_parquet(path / "log.parquet")
    made["data"]["path"] = str(path / "log.parquet")
    (path / "my.yaml").write_text(to_yaml(run.config))
    return Folder(run=run, frame=frame, path=path, made=made)


def tables() -> et.Tables:
    return et.Tables([TABLE], [FEATURE], seed=0)


def encoder() -> Any:
    return et.EncoderSpec(et.Hash, type(tables().features[0].encoder))


IDS, WEIGHTS = torch.tensor([1, 2]), torch.ones(2, 2)
NAMED: dict[str, Any] = {"name": "a", "embedding_dim": 4, "num_embeddings": 9, "feature_names": ["f"]}
BAGS, ROWS = [EmbeddingBagConfig(**NAMED, pooling=PoolingType.SUM)], [EmbeddingConfig(**NAMED)]


def scored() -> dict[str, Any]:
    return {"schema": SCHEMA, "tables": tables(), "model": nn.Identity(), "fitted": et.FittedTransforms()}


# By name a call that works: what is called, and its arguments.
CLIENT: dict[str, Any] = {
    "url": "http://127.0.0.1:9",
    "deadline_seconds": 1.0,
    "attempts": 1,
    "connections": 1,
    "never_older": False,
}
CALLS: dict[str, Callable[[Folder], Call]] = {
    "train": lambda f: (
        et.train,
        {
            "schema": f.made,
            "data": f.frame,
            "model": "lr",
            "split": None,
            "evaluate": None,
            "runs_dir": None,
            "overrides": (),
            "continue_from": None,
            "checkpoint": None,
            "fresh": (),
            "workers": 1,
            "ray_address": None,
            "max_steps": 1,
            "batch_size": 100,
            "shown": False,
        },
    ),
    "resume": lambda f: (
        et.resume,
        {
            "run": f.run,
            "data": f.frame,
            "overrides": (),
            "model": None,
            "workers": 1,
            "ray_address": None,
            "shown": False,
        },
    ),
    "load": lambda f: (et.load, {"run": f.run, "checkpoint": "last", "overrides": (), "model": None}),
    "evaluate": lambda f: (
        et.evaluate,
        {"run": f.run, "part": "test", "data": f.frame, "checkpoint": None, "overrides": (), "shown": False},
    ),
    "predict": lambda f: (
        et.predict,
        {
            "run": f.run,
            "data": f.frame,
            "output": None,
            "columns": None,
            "on_bad_row": "error",
            "checkpoint": None,
            "shown": False,
        },
    ),
    "Run.evaluate": lambda f: (f.run.evaluate, {"part": "all", "data": f.frame, "shown": False}),
    "Run.predict": lambda f: (
        f.run.predict,
        {"data": f.frame, "output": None, "columns": None, "on_bad_row": "error", "shown": False},
    ),
    "Run.table": lambda f: (f.run.table, {"name": "user"}),
    "load_config": lambda f: (et.load_config, {"path": f.path / "my.yaml", "overrides": ()}),
    "Schema.infer": lambda f: (
        et.Schema.infer,
        {
            "data": f.frame,
            "label": "label",
            "positive_above": None,
            "dim": 4,
            "ids": (),
            "numbers": (),
            "ignore": (),
            "most_rows": 100,
        },
    ),
    "Scorer": lambda f: (et.Scorer, {**scored(), "task": task_of(SCHEMA), "autocast": False}),
    "Scorer.from_version": lambda f: (
        et.Scorer.from_version,
        {"folder": f.run.path, "which": "last", "row_store": "host"},
    ),
    "Scorer.score": lambda f: (f.run.scorer.score, {"rows": f.frame}),
    "Scorer.embed": lambda f: (f.run.scorer.embed, {"feature": "user", "ids": IDS}),
    "Tables": lambda f: (
        et.Tables,
        {
            "tables": [TABLE],
            "features": [FEATURE],
            "seed": 0,
            "row_store": "host",
            "world": None,
            "replicated": (),
            "artifacts": None,
            "shares_keys": True,
        },
    ),
    "Tables.get": lambda f: (tables().get, {"table": "t", "ids": IDS, "feature": None}),
    "Tables.set": lambda f: (tables().set, {"table": "t", "ids": IDS, "rows": WEIGHTS, "feature": None}),
    "Tables.delete": lambda f: (tables().delete, {"table": "t", "ids": IDS, "feature": None}),
    "Tables.keys": lambda f: (tables().keys, {"table": "t"}),
    "Tables.weight": lambda f: (tables().weight, {"table": "t"}),
    "Tables.set_weight": lambda f: (tables().set_weight, {"table": "t", "values": WEIGHTS, "keys": IDS}),
    "Tables.advance": lambda f: (tables().advance, {"event_time_us": IDS}),
    "Tables.step": lambda f: (tables().step, {"gradient_scale": 1.0}),
    "Tables.set_learning_rate_factor": lambda f: (tables().set_learning_rate_factor, {"factor": 1.0}),
    "Tables.changes": lambda f: (tables().changes, {"table": "t", "after": 1}),
    "Client": lambda f: (et.Client, dict(CLIENT)),
    "AsyncClient": lambda f: (et.AsyncClient, dict(CLIENT)),
    "Tables.capture": lambda f: (tables().capture, {"after": None, "weights_only": False}),
    "Tables.content": lambda f: (tables().content, {"after": None}),
    "Tables.load": lambda f: (tables().load, {"chain": [tables().content()]}),
    "Tables.take_over": lambda f: (tables().take_over, {"table": "t", "content": tables().content()["t"]}),
    "Tables.table_content": lambda f: (tables().table_content, {"table": "t"}),
    "Tables.row_quantiles": lambda f: (tables().row_quantiles, {"table": "t"}),
    "EmbeddingBagCollection": lambda f: (
        et.EmbeddingBagCollection,
        {
            "tables": BAGS,
            "is_weighted": False,
            "device": None,
            "optimizer": None,
            "seed": 0,
            "row_store": "host",
            "update": "step",
        },
    ),
    "EmbeddingCollection": lambda f: (
        et.EmbeddingCollection,
        {"tables": ROWS, "device": None, "optimizer": None, "seed": 0, "row_store": "host", "update": "step"},
    ),
    "EmbeddingBagCollection.over": lambda f: (et.EmbeddingBagCollection.over, {"tables": tables(), "names": None}),
    "EmbeddingCollection.over": lambda f: (et.EmbeddingCollection.over, {"tables": tables(), "names": None}),
    "StateFolder": lambda f: (et.StateFolder, {"place": f.path / "state"}),
    "LeaseHolder": lambda f: (et.LeaseHolder, {"state": f.state()}),
    "VersionWriter": lambda f: (
        et.VersionWriter,
        {
            "holder": f.state(),
            "purpose": "resume",
            "tables": tables(),
            "projection": "full",
            "consumer": None,
            "world": None,
            "keep": 2,
            "longest": 16,
        },
    ),
    "Follower": lambda f: (
        et.Follower,
        {"state": f.state(), "purpose": "resume", "position": None, "poll_seconds": 0.01},
    ),
    "read_version": lambda f: (
        et.read_version,
        {
            "state": f.versions(),
            "manifest": f.versions().latest("resume"),
            "stored": f.run.scorer.tables.stored,
            "buckets": (0, 1024),
        },
    ),
    "read_rows": lambda f: (
        lambda **given: list(et.read_rows(**given)),
        {"source": f.run.path, "table": "user", "columns": None},
    ),
    "register_encoder": lambda f: (et.register_encoder, {"spec": encoder()}),
    "register_metric": lambda f: (et.register_metric, {"spec": et.MetricSpec("m", SimpleNamespace)}),
    "register_model": lambda f: (et.register_model, {"model": None, "name": "a_name"}),
    "register_optimizer": lambda f: (et.register_optimizer, {"spec": None}),
    "hash_strings": lambda f: (et.hash_strings, {"array": ["a"]}),
    "FeatureTransform": lambda f: (
        et.FeatureTransform,
        {"schema": SCHEMA, "fitted": et.FittedTransforms(), "labels": (), "sample_weight": None, "event_time": None},
    ),
    "FeatureTransform.batch": lambda f: (
        et.FeatureTransform(SCHEMA, et.FittedTransforms()).batch,
        {"table": {"f": [1]}},
    ),
    "Artifacts": lambda f: (et.Artifacts, {"files": None}),
    "CutConsumer.hold": lambda f: (tables().cuts.consumer("a").hold, {"cut": 1}),
    "CutLedger.consumer": lambda f: (tables().cuts.consumer, {"name": "a"}),
    "warm_start.from_parquet": lambda f: (
        et.warm_start.from_parquet,
        {
            "tables": tables(),
            "table": "t",
            "path": f.path / "log.parquet",
            "id_column": "user",
            "vector_column": "tags",
            "feature": None,
            "on_rows": None,
        },
    ),
    "warm_start.from_state_dict": lambda f: (
        et.warm_start.from_state_dict,
        {"tables": tables(), "state_dict": {}, "on_rows": None, "file": None},
    ),
}


def _of_model(model: type[Model]) -> Callable[[Folder], Call]:
    return lambda _: (model, dict.fromkeys(model.model_fields))


CALLS |= {
    name: _of_model(getattr(et, name))
    for name in et.__all__
    if isinstance(getattr(et, name), type) and issubclass(getattr(et, name), Model)
}


def outcome(call: Callable[..., Any], arguments: dict[str, Any]) -> str | None:
    """What a call ends in that is neither a result nor a typed error."""
    try:
        call(**arguments)
    except EmbtablesError as error:
        return None if len(str(error)) < 3_000 else f"{type(error).__name__} of {len(str(error)):,} letters"
    except Exception as error:
        return f"{type(error).__name__}: {str(error)[:100]}"
    return None


def wrong_ends(name: str, folder: Folder) -> Iterator[str]:
    _, arguments = CALLS[name](folder)
    for argument in arguments:
        for draw in folder.draws():
            call, arguments = CALLS[name](folder)
            found = outcome(call, {**arguments, argument: folder.draws()[draw]})
            if found is not None:
                yield f"{argument} = {draw}: {found}"


# Records that the library makes, and protocols and bases of a user's own code.
NO_CALLS = {
    "Scores",
    "Batch",
    "CutLedger",
    "CutConsumer",
    "Encoder",
    "EncoderSpec",
    "Followed",
    "FittedTransforms",
    "Metric",
    "MetricSpec",
    "ModelInputs",
    "ModelSpec",
    "OptimizerSpec",
    "Run",
    "StateColumn",
    "TableChanges",
    "TableStats",
}


def test_every_public_name_has_a_row() -> None:
    named = {name.split(".")[0] for name in CALLS}
    public = {name for name in et.__all__ if callable(getattr(et, name))}
    errors = {
        name for name in public if isinstance(getattr(et, name), type) and issubclass(getattr(et, name), Exception)
    }
    assert public - errors - named <= NO_CALLS


@pytest.fixture(autouse=True)
def _forgotten(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(folder.path / "empty")
    yield
    forget_model("a_name")
    forget_metric("m")


# Calls whose arguments fit no table or version here; and what registers a kind that is there already.
NOT_RUN = {
    "Tables.changes",
    "CutConsumer.hold",
    "EmbeddingCollection.over",
    "warm_start.from_parquet",
    "warm_start.from_state_dict",
    "register_encoder",
    "register_optimizer",
}


@pytest.mark.parametrize("name", [name for name in CALLS if "." in name or name[0].islower()])
def test_a_row_names_every_argument_and_its_own_ones_are_right(name: str, folder: Folder) -> None:
    call, arguments = CALLS[name](folder)
    if name not in ("read_rows", "train"):
        assert set(arguments) >= set(inspect.signature(call).parameters)
    if name not in NOT_RUN:
        call(**arguments)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", CALLS)
def test_a_wrong_object_is_a_typed_error(name: str, folder: Folder) -> None:
    assert not list(wrong_ends(name, folder))
