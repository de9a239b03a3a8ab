"""Ids that no training has seen, negative and huge ones among them, are served: their rows are cold."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
import torch

from embtables.serving import wire
from tests.serving.conftest import ServerProcess
from tests.serving.versions.trainer_for_tests import DIM, Trainer, trainer

STRANGE = [10**15, -(10**9), 2**63 - 1, -(2**63)]


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[Trainer, ServerProcess]]:
    folder = tmp_path / "versions"
    with trainer(folder) as made:
        made.publish(5)
        server = ServerProcess(folder, tmp_path / "log.jsonl", {}, live=True)
        yield made, server
        server.end()


def test_they_are_scored_and_looked_up_cold(served: tuple[Trainer, ServerProcess]) -> None:
    made, server = served
    known = next(item for item in range(-100, 100) if made.tables.get("item", torch.tensor([item])).any())
    candidates = [{"item": item, "price": 0.5} for item in [known, *STRANGE]]
    answer = httpx.post(
        f"{server.url}/v1/score",
        json={"context": {"user": 2**62, "country": 3}, "candidates": candidates},
        headers={wire.MIN_DENSE_VERSION: "serving-1"},
    )
    assert answer.status_code == 200, answer.text
    said = answer.json()
    assert said["cold"] == {"context": ["user"], "candidates": {"item": [1, 2, 3, 4]}}
    n = len(candidates)
    rows = {"user": [2**62] * n, "country": [3] * n, "item": [known, *STRANGE], "price": [0.5] * n}
    assert said["scores"]["click"] == pytest.approx(made.scorer().score(rows)[:, 0].tolist(), abs=1e-6)
    ids = np.array([known, *STRANGE])
    found = httpx.post(
        f"{server.url}/v1/embed?feature=item", content=ids.tobytes(), headers={"content-type": wire.BYTES}
    )
    assert (found.status_code, found.headers[wire.COLD]) == (200, "4")
    embedded = np.frombuffer(found.content, "<f4").reshape(n, DIM)
    assert embedded[0].any()
    assert not embedded[1:].any()
