"""The service that a team would write in a day for the model of online_retail: FastAPI, pydantic, `nn.EmbeddingBag`,
a dict from id to row. It runs in an environment of its own, without this project.

    NAIVE_FOLDER=... [NAIVE_CONTEXT=once] uvicorn --app-dir benchmarks/_serving/naive app:app

The folder is what `benchmarks._serving.naive_export` writes: the same weights, so that scores are the same.
"""

from __future__ import annotations

import json
import math
import os
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fastapi import FastAPI
from pydantic import BaseModel
from torch import nn

torch.set_num_threads(1)
FOLDER = Path(os.environ["NAIVE_FOLDER"])
CONTEXT_ONCE = os.environ.get("NAIVE_CONTEXT") == "once"
# feature, table; in the order of the model's input
FEATURES = (
    ("stock_code", "item"),
    ("history", "item"),
    ("customer_id", "customer"),
    ("description", "word"),
    ("country", "context"),
    ("hour", "context"),
    ("weekday", "context"),
    ("customer_item", "customer_item"),
)
OF_CONTEXT = ("history", "customer_id", "country", "hour", "weekday")
DENSE = (
    *("last_price", "item_sales_1d", "item_sales_3d", "item_sales_7d", "item_sales_28d", "item_sales"),
    *("item_age_days", "item_idle_days", "user_item_count", "user_item_idle_days", "user_count"),
)


class Context(BaseModel):
    customer_id: int
    country: str
    event_time: datetime
    history: list[int]
    user_count: float


class Candidate(BaseModel):
    stock_code: str
    description: str | None
    last_price: float | None
    item_sales_1d: float
    item_sales_3d: float
    item_sales_7d: float
    item_sales_28d: float
    item_sales: float
    item_age_days: float
    item_idle_days: float
    user_item_count: float
    user_item_idle_days: float


class Request(BaseModel):
    context: Context
    candidates: list[Candidate]


class Answer(BaseModel):
    scores: list[float]


class Net(nn.Module):
    """DCN-V2: two cross layers beside two hidden ones."""

    def __init__(self, weights: dict[str, np.ndarray[Any, Any]]) -> None:
        super().__init__()
        width = weights["cross.layers.0.weight"].shape[0]
        hidden, last = (weights[f"deep.net.{place}.weight"].shape[0] for place in (0, 3))
        self.cross = nn.ModuleDict({"layers": nn.ModuleList(nn.Linear(width, width) for _ in range(2))})
        self.deep = nn.ModuleDict(
            {"net": nn.Sequential(nn.Linear(width, hidden), nn.ReLU(), nn.Identity(), nn.Linear(hidden, last))}
        )
        self.out_deep = nn.Linear(last, 1)
        self.out_cross = nn.Linear(width, 1, bias=False)
        self.load_state_dict({name: torch.from_numpy(values) for name, values in weights.items()})

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        crossed = x
        for layer in self.cross["layers"].children():
            crossed = x * layer(crossed) + crossed
        return torch.sigmoid(self.out_cross(crossed) + self.out_deep(torch.relu(self.deep["net"](x))))


class Model:
    """Tables, dicts and net, loaded once."""

    def __init__(self, folder: Path) -> None:
        self.rows: dict[str, dict[Any, int]] = {}
        for feature, _ in FEATURES:
            pairs = json.loads((folder / f"ids-{feature}.json").read_text())
            self.rows[feature] = {tuple(raw) if isinstance(raw, list) else raw: row for raw, row in pairs}
        with np.load(folder / "tables.npz") as tables:
            weights = {name: torch.from_numpy(tables[name]) for name in tables.files}
        self.bags = {
            feature: nn.EmbeddingBag.from_pretrained(
                weights[table],
                mode="mean" if feature in ("history", "description") else "sum",
                include_last_offset=True,
            )
            for feature, table in FEATURES
        }
        self.moments: dict[str, tuple[float, float]] = json.loads((folder / "moments.json").read_text())
        with np.load(folder / "net.npz") as net:
            self.net = Net({name: net[name] for name in net.files}).eval()

    def ids(self, row: dict[str, Any], features: tuple[str, ...]) -> list[list[int]]:
        """The rows in the tables of a row's ids, by feature; row 0 is that of ids never seen."""
        raw: dict[str, list[Any]] = {
            "stock_code": [row.get("stock_code")],
            "history": row["history"],
            "customer_id": [row["customer_id"]],
            "description": [word for word in (row.get("description") or "").split(" ") if word],
            "country": [row["country"]],
            "hour": [row["event_time"].hour],
            "weekday": [row["event_time"].weekday()],
            "customer_item": [(row["customer_id"], row.get("stock_code"))],
        }
        return [[self.rows[name].get(each, 0) for each in raw[name]] for name in features]

    def dense(self, row: dict[str, Any]) -> list[float]:
        """The numbers of a row, transformed as in training."""
        values = []
        for name in DENSE:
            mean, deviation = self.moments[name]
            values.append((math.log1p(row[name] or 0.0) - mean) / deviation)
        return values

    def pooled(self, feature: str, lists: list[list[int]]) -> torch.Tensor:
        offsets = [0]
        for each in lists:
            offsets.append(offsets[-1] + len(each))
        values = [row for each in lists for row in each]
        found: torch.Tensor = self.bags[feature](torch.tensor(values, dtype=torch.long), torch.tensor(offsets))
        return found

    @torch.no_grad()
    def score(self, context: dict[str, Any], candidates: list[dict[str, Any]]) -> list[float]:
        rows = [{**context, **candidate} for candidate in candidates]
        names = tuple(name for name, _ in FEATURES)
        of_rows = tuple(name for name in names if not (CONTEXT_ONCE and name in OF_CONTEXT))
        of_each = [self.ids(row, of_rows) for row in rows]
        parts = {name: self.pooled(name, [ids[place] for ids in of_each]) for place, name in enumerate(of_rows)}
        if CONTEXT_ONCE:
            once = self.ids({**context}, OF_CONTEXT)
            for name, ids in zip(OF_CONTEXT, once, strict=True):
                parts[name] = self.pooled(name, [ids]).expand(len(rows), -1)
        dense = torch.tensor([self.dense(row) for row in rows])
        scores: list[float] = self.net(torch.cat([*(parts[name] for name in names), dense], dim=1))[:, 0].tolist()
        return scores


model = Model(FOLDER)
app = FastAPI()


@app.post("/v1/score")
async def score(request: Request) -> Answer:
    context = request.context.model_dump()
    return Answer(scores=model.score(context, [candidate.model_dump() for candidate in request.candidates]))


@app.get("/readyz")
async def ready() -> dict[str, bool]:
    return {"ready": True}
