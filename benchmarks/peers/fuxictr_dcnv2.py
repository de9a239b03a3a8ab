"""DCN-V2 of FuxiCTR 2.3.10 on the split files; runs in the environment of requirements/peers-fuxictr.txt.

`python -m benchmarks.peers.fuxictr_dcnv2 '<settings as JSON>'` encodes the files with FuxiCTR's own feature processor
(once a folder), trains with its own loop, loader and early stopping, and prints one JSON object last on stdout.
FuxiCTR's wheel carries the layers and the loop but not this model, so it is put together here from the layers.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fuxictr.features import FeatureMap  # type: ignore[import-not-found]
from fuxictr.preprocess import FeatureProcessor, build_dataset  # type: ignore[import-not-found]
from fuxictr.pytorch.dataloaders import RankDataLoader  # type: ignore[import-not-found]
from fuxictr.pytorch.layers import CrossNetV2, FeatureEmbedding, MLP_Block  # type: ignore[import-not-found]
from fuxictr.pytorch.models import BaseModel  # type: ignore[import-not-found]
from fuxictr.pytorch.torch_utils import seed_everything  # type: ignore[import-not-found]
from torch import Tensor, nn

DATASET = "ml1m"
PARTS = {"train": "train", "valid": "validation", "test": "test"}
CATEGORICAL = {
    "user_id": "int",
    "movie_id": "int",
    "gender": "str",
    "age": "int",
    "occupation": "int",
    "zip": "str",
    "year": "int",
}
GENRES = {
    "name": "genres",
    "active": True,
    "dtype": "str",
    "type": "sequence",
    "splitter": "|",
    "feature_encoder": "layers.MaskedSumPooling()",
}


class ParallelDcnV2(BaseModel):  # type: ignore[misc]
    """logit = w . [cross(x), mlp(x)]; times its epochs, evaluations apart."""

    def __init__(self, feature_map: Any, settings: dict[str, Any], folder: Path) -> None:
        super().__init__(
            feature_map,
            model_id="dcnv2",
            embedding_regularizer=settings["embedding_l2"],
            verbose=0,
            model_root=str(folder),
            metrics=["AUC", "logloss"],
        )
        width = feature_map.sum_emb_out_dim()
        sizes = settings["hidden_sizes"]
        self.embeddings = FeatureEmbedding(feature_map, settings["dim"])
        self.cross = CrossNetV2(width, settings["num_cross_layers"])
        self.deep = MLP_Block(
            input_dim=width,
            hidden_units=sizes,
            dropout_rates=settings["dropout"],
            batch_norm=settings.get("batch_norm", False),
        )
        self.out = nn.Linear(width + sizes[-1], 1)
        self.epoch_seconds: list[float] = []
        self._evaluating = 0.0
        self.compile("adam", "binary_crossentropy", settings["learning_rate"])
        self.reset_parameters()
        self.model_to_device()

    def forward(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        x = self.embeddings(self.get_inputs(inputs), flatten_emb=True)
        logits = self.out(torch.cat([self.cross(x), self.deep(x)], dim=-1))
        return {"y_pred": self.output_activation(logits)}

    def eval_step(self) -> None:
        start = time.perf_counter()
        super().eval_step()
        self._evaluating += time.perf_counter() - start

    def train_epoch(self, data_generator: Any) -> None:
        start, self._evaluating = time.perf_counter(), 0.0
        super().train_epoch(data_generator)
        self.epoch_seconds.append(time.perf_counter() - start - self._evaluating)


def encode(data: Path, folder: Path) -> None:
    """FuxiCTR's own encoding of the split files to integers, as parquet and as the npz that its other loader reads."""
    columns = [{"name": n, "active": True, "dtype": d, "type": "categorical"} for n, d in CATEGORICAL.items()]
    processor = FeatureProcessor([*columns, GENRES], {"name": "label", "dtype": "float"}, DATASET, str(folder))
    files = {f"{part}_data": str(data / f"part={name}" / "rows.parquet") for part, name in PARTS.items()}
    build_dataset(processor, **files, data_format="parquet")


def as_npz(encoded: Path) -> None:
    """The encoded parquet files as npz files beside them."""
    import pyarrow.parquet as pq

    for part in PARTS:
        target = encoded / f"{part}.npz"
        if not target.exists():
            table = pq.read_table(encoded / f"{part}.parquet")
            arrays: dict[str, Any] = {n: np.array(table[n].to_pylist()) for n in table.column_names}
            np.savez(target, **arrays)


def run(settings: dict[str, Any]) -> dict[str, Any]:
    """Trains and evaluates once; the test part is scored once."""
    torch.set_num_threads(settings["threads"])
    folder = Path(settings["folder"])
    encoded = folder / DATASET
    start = time.perf_counter()
    encode(Path(settings["data"]), folder)
    suffix = settings["data_format"]
    if suffix == "npz":
        as_npz(encoded)
    encode_seconds = time.perf_counter() - start
    seed_everything(settings["seed"])
    feature_map = FeatureMap(DATASET, str(encoded))
    feature_map.load(str(encoded / "feature_map.json"), {"embedding_dim": settings["dim"]})
    loading = {
        "batch_size": settings["batch_size"],
        "data_format": suffix,
        "num_workers": settings["num_workers"],
        **{f"{part}_data": str(encoded / f"{part}.{suffix}") for part in PARTS},
    }
    train, valid, test = RankDataLoader(feature_map, **loading)
    model = ParallelDcnV2(feature_map, settings, folder)
    model.fit(train, epochs=settings["epochs"], validation_data=valid)
    figures = model.evaluate(test)
    # The first epoch also warms up loaders and allocator: the peer's figure is that of the epochs after it.
    steady = model.epoch_seconds[1:] or model.epoch_seconds
    return {
        "auc": float(figures["AUC"]),
        "log_loss": float(figures["logloss"]),
        "rows": train.num_samples * len(model.epoch_seconds),
        "rows_per_second": train.num_samples * len(steady) / sum(steady),
        "epochs": len(model.epoch_seconds),
        "epoch_seconds": model.epoch_seconds,
        "encode_seconds": encode_seconds,
    }


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, stream=sys.stderr)
    print(json.dumps(run(json.loads(sys.argv[1]))))
