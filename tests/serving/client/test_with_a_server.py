"""The client, replay, explain and audit with `embtables serve` over a run that was really trained and published."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from embtables import AsyncClient, Client, RefusedError, Scorer, ServingError, hash_strings
from embtables.pipelines.cli.main import app
from embtables.pipelines.state_tools.publish import publish
from tests.serving.conftest import ServerProcess

CONTEXT = {"user": 3}
CANDIDATES: list[dict[str, Any]] = [
    {"item": "item-4", "tags": [1, 2], "price": 1.5},
    {"item": "item-7", "tags": [], "price": 0.25},
    {"item": "no such item", "tags": [99_999], "price": 1000.0},
]
ROWS = [CONTEXT | candidate for candidate in CANDIDATES]


@pytest.fixture(scope="module")
def published(trained_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("published") / "versions"
    publish(trained_run, folder, "last", "fp32", keep=2, with_side_tables=False)
    return folder


@pytest.fixture(scope="module")
def live(published: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server for all tests that do not change it."""
    found = ServerProcess(published, tmp_path_factory.mktemp("live") / "log.jsonl", {}, live=True)
    yield found
    found.end()


@pytest.fixture(scope="module")
def scorer(trained_run: Path) -> Scorer:
    return Scorer.from_version(trained_run, "last")


@pytest.fixture
def client(live: ServerProcess) -> Iterator[Client]:
    with Client(live.url, deadline_seconds=60.0) as made:
        yield made


def predicted(scorer: Scorer) -> Any:
    return scorer.score({name: [row[name] for row in ROWS] for name in ROWS[0]}).numpy()


def test_scores_are_those_of_prediction_in_every_form(client: Client, scorer: Scorer) -> None:
    wanted = predicted(scorer)
    for scores in (
        client.score(CONTEXT, CANDIDATES),
        client.score(CONTEXT, CANDIDATES, form="arrow"),
        client.score_rows(ROWS),
        client.score_rows(ROWS, form="arrow"),
    ):
        assert scores.labels == ("label",)
        np.testing.assert_allclose(scores.values, wanted, atol=1e-6, rtol=0)
        assert (scores.versions.dense, scores.versions.rows) == ("serving-1", "serving-1")
    assert client.last_versions == scores.versions


def test_coroutines_too(live: ServerProcess, scorer: Scorer) -> None:
    async def asked() -> list[Any]:
        async with AsyncClient(live.url, deadline_seconds=60.0) as client:
            many = await asyncio.gather(*(client.score(CONTEXT, CANDIDATES) for _ in range(20)))
            assert (await client.model()).versions == many[0].versions
            assert (await client.explain(CONTEXT, CANDIDATES[0])).scores["label"] == pytest.approx(
                float(many[0].values[0, 0]), abs=1e-6
            )
            return [each.values for each in many]

    for values in asyncio.run(asked()):
        np.testing.assert_allclose(values, predicted(scorer), atol=1e-6, rtol=0)


def test_embeddings_are_the_rows_bit_for_bit(client: Client, scorer: Scorer) -> None:
    names = ["item-4", "item-7", "no such item"]
    wanted = scorer.embed("item", names).numpy()
    assert np.array_equal(client.embed(names, feature="item"), wanted)
    assert np.array_equal(client.embed(hash_strings(names), feature="item"), wanted)
    assert np.array_equal(client.embed(hash_strings(names).tolist(), feature="item", form="json"), wanted)


def test_an_error_names_its_place(client: Client) -> None:
    with pytest.raises(RefusedError) as caught:
        client.score(CONTEXT, [CANDIDATES[0], CANDIDATES[1] | {"prise": 1.0}], request_id="mine")
    assert (caught.value.status, caught.value.field) == (422, "candidates.1.prise")
    assert caught.value.request_id == "mine"
    assert "did you mean price" in str(caught.value)
    with pytest.raises(RefusedError) as caught:
        client.embed([1], feature="itm")
    assert caught.value.status == 404


def test_an_older_version_than_one_seen_is_not_taken(live: ServerProcess) -> None:
    with Client(live.url, never_older=True, deadline_seconds=5.0) as client:
        seen = client.score(CONTEXT, CANDIDATES).versions
        assert client.score(CONTEXT, CANDIDATES).versions == seen
        later = type(seen)("serving-2", "serving-2")
        client._session.last_versions = later
        with pytest.raises(ServingError, match="has not come to serving-2 yet"):
            client.score(CONTEXT, CANDIDATES)


def test_an_explanation(client: Client, scorer: Scorer) -> None:
    found = client.explain(CONTEXT, CANDIDATES[0], request_id="why")
    assert found.request_id == "why"
    assert found.scores["label"] == pytest.approx(float(predicted(scorer)[0, 0]), abs=1e-6)
    parts = {part.feature: part for part in found.features}
    assert {"user", "item", "tags", "price"} <= set(parts)
    assert any(part.contribution["label"] != 0.0 for part in found.features)
    with pytest.raises(RefusedError, match="one candidate is explained at a time"):
        client.call(embed_and_two())


def embed_and_two() -> Any:
    """An exchange that no method makes: two candidates to explain."""
    from embtables.serving.client import exchanges

    made = exchanges.explain(CONTEXT, CANDIDATES[0], None)
    body = json.dumps({"context": CONTEXT, "candidates": CANDIDATES[:2]}).encode()
    return type(made)(made.method, made.path, made.read, body, made.headers)


def test_what_it_has_logged_is_the_same_offline(published: Path, tmp_path: Path) -> None:
    log = tmp_path / "requests.jsonl"
    settings = {"request_log": log, "request_log_rate": 1.0, "request_log_values": True}
    own = ServerProcess(published, tmp_path / "log.jsonl", settings, live=True)
    try:
        with Client(own.url, deadline_seconds=60.0) as client:
            client.wait_until_ready(60.0)
            for _ in range(5):
                client.score(CONTEXT, CANDIDATES)
                client.score_rows(ROWS, form="arrow")
    finally:
        assert own.end() == 0  # writes what waits
    arguments = ["replay", str(log), "--folder", str(published), "--version", "serving-1", "--json"]
    done = CliRunner().invoke(app, arguments)
    assert done.exception is None, done.exception
    report = json.loads(done.stdout)
    assert (done.exit_code, report["differing"], report["skipped"]) == (0, 0, {})
    assert report["compared"] == 10
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    lines[3]["request"]["candidates" if "candidates" in lines[3]["request"] else "rows"][0]["price"] = 7.0
    log.write_text("\n".join(map(json.dumps, lines)) + "\n")
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 1
    assert json.loads(done.stdout)["differences"][0]["feature"] == "dense/price"
