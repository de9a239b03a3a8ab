"""What the routes answer, of a real server over a really trained run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pyarrow as pa
import pytest

from embtables.models.scorer import Scorer
from embtables.serving import wire
from tests.serving.arrow_for_tests import arrow
from tests.serving.conftest import TOKENS, Serve, ServerProcess

CONTEXT = {"user": 3, "tags": [1, 2]}
CANDIDATES = [{"item": "item-1", "price": 2.0}, {"item": "item-2", "price": 0.5}, {"item": "never seen", "price": 9.0}]
ROWS = [CONTEXT | candidate for candidate in CANDIDATES]
AS_ARROW = arrow(pa.Table.from_pylist(ROWS))


@pytest.fixture(scope="module")
def scorer(trained_run: Path) -> Scorer:
    return Scorer.from_version(trained_run, "last")


@pytest.fixture(scope="module")
def expected(scorer: Scorer) -> list[float]:
    scores: list[float] = scorer.score(pa.Table.from_pylist(ROWS))[:, 0].tolist()
    return scores


@pytest.mark.parametrize("body", [{"context": CONTEXT, "candidates": CANDIDATES}, {"rows": ROWS}])
def test_scores_as_json(server: ServerProcess, expected: list[float], body: dict[str, Any]) -> None:
    answer = httpx.post(f"{server.url}/v1/score", json=body | {"request_id": "mine-7"})
    assert answer.status_code == 200, answer.text
    assert answer.json() == {
        "request_id": "mine-7",
        "scores": {"label": expected},
        "versions": {"dense": "serving-2", "rows": "serving-3"},
        "cold": {},
    }


def test_a_body_as_curl_sends_it(server: ServerProcess, expected: list[float]) -> None:
    headers = {"content-type": "application/x-www-form-urlencoded"}
    body = b'{"context": {"user": 3, "tags": [1, 2]}, "candidates": [{"item": "item-1", "price": 2}]}'
    answer = httpx.post(f"{server.url}/v1/score", content=body, headers=headers)
    assert answer.json()["scores"]["label"] == pytest.approx(expected[:1], abs=1e-6)


def test_scores_as_arrow_and_bytes(server: ServerProcess, expected: list[float]) -> None:
    headers = {"content-type": wire.ARROW, wire.REQUEST_ID: "mine-8"}
    answer = httpx.post(f"{server.url}/v1/score", content=AS_ARROW, headers=headers)
    assert answer.headers["content-type"] == wire.ARROW
    assert answer.headers[wire.REQUEST_ID] == "mine-8"
    assert answer.headers[wire.DENSE_VERSION] == "serving-2"
    assert answer.headers[wire.ROW_VERSION] == "serving-3"
    table = pa.ipc.open_stream(answer.content).read_all()
    assert table.schema == pa.schema([("label", pa.float32())])
    assert table["label"].to_pylist() == expected
    answer = httpx.post(f"{server.url}/v1/score", content=AS_ARROW, headers=headers | {"accept": wire.BYTES})
    assert np.frombuffer(answer.content, "<f4").tolist() == expected
    answer = httpx.post(f"{server.url}/v1/score", content=AS_ARROW, headers=headers | {"accept": wire.JSON})
    assert answer.json()["scores"]["label"] == expected


def test_embeddings_as_bytes_and_json(server: ServerProcess, scorer: Scorer) -> None:
    ids = np.array([3, 0, 39], np.int64)
    rows = scorer.embed("user", ids).numpy()
    headers = {"content-type": wire.BYTES}
    answer = httpx.post(f"{server.url}/v1/embed?feature=user", content=ids.tobytes(), headers=headers)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == wire.BYTES
    assert (answer.headers[wire.DIM], answer.headers[wire.COLD]) == ("8", "0")
    np.testing.assert_array_equal(np.frombuffer(answer.content, "<f4").reshape(-1, 8), rows)
    answer = httpx.post(f"{server.url}/v1/embed", json={"feature": "user", "ids": ids.tolist()})
    np.testing.assert_array_equal(np.array(answer.json()["rows"], np.float32), rows)
    answer = httpx.post(f"{server.url}/v1/embed", json={"feature": "item", "ids": ["item-1", "new"]})
    np.testing.assert_array_equal(
        np.array(answer.json()["rows"], np.float32), scorer.embed("item", ["item-1", "new"]).numpy()
    )


def test_no_ids_have_no_rows(server: ServerProcess) -> None:
    headers = {"content-type": wire.BYTES}
    answer = httpx.post(f"{server.url}/v1/embed?feature=user", content=b"", headers=headers)
    assert (answer.status_code, answer.content, answer.headers[wire.DIM]) == (200, b"", "8")


def test_what_is_asked_of_the_model(server: ServerProcess) -> None:
    info = httpx.get(f"{server.url}/v1/model").json()
    assert info["labels"] == ["label"]
    assert [each["name"] for each in info["tables"]] == ["user", "item"]
    assert httpx.get(f"{server.url}/healthz").json() == {"ready": True}
    assert httpx.get(f"{server.url}/readyz").json() == {"ready": True}
    assert httpx.get(f"{server.url}/v1/live").json()["model"]["versions"] == info["versions"]


def test_retrieval_is_not_there_yet(server: ServerProcess) -> None:
    answer = httpx.post(f"{server.url}/v1/retrieve", json={"user": 3})
    assert answer.status_code == 501
    assert "/v1/score" in answer.json()["error"]


def test_a_client_that_has_seen_a_newer_version_is_told_to_wait(server: ServerProcess) -> None:
    body = {"rows": ROWS}
    fine = httpx.post(f"{server.url}/v1/score", json=body, headers={wire.MIN_DENSE_VERSION: "serving-2"})
    assert fine.status_code == 200
    old = httpx.post(f"{server.url}/v1/score", json=body, headers={wire.MIN_ROW_VERSION: "serving-4"})
    assert (old.status_code, old.headers["retry-after"]) == (503, "1")


def test_metrics_count_what_was_asked(serve: Serve) -> None:
    own = serve()
    for _ in range(3):
        assert httpx.post(f"{own.url}/v1/score", json={"rows": ROWS}).status_code == 200
    httpx.post(f"{own.url}/v1/score", json={"row": ROWS})
    text = httpx.get(f"{own.url}/metrics").text
    for line in (
        'embtables_requests_total{route="/v1/score",status="200"} 3.0',
        'embtables_requests_total{route="/v1/score",status="422"} 1.0',
        'embtables_rows_total{route="/v1/score"} 9.0',
        'embtables_request_seconds_count{route="/v1/score"} 3.0',
        'embtables_stage_seconds_count{route="/v1/score",stage="lookup"} 3.0',
        'embtables_version{part="rows",version="serving-3"} 3.0',
        'embtables_rejected_versions_total{reason="values"} 1.0',
        'embtables_table_cold_ids_total{table="user"} 7.0',
        'embtables_follow_state{state="following"} 1.0',
        "embtables_ready 1.0",
        "embtables_staleness_seconds 20.0",
        "embtables_resident_memory_bytes 1e+08",
    ):
        assert line in text.splitlines(), line


def admin(server: ServerProcess, route: str, body: Any = None, token: str = TOKENS[0]) -> httpx.Response:
    headers = {"authorization": f"Bearer {token}"}
    return httpx.post(f"{server.admin_url}{route}", json=body, headers=headers)


def test_admin_pins_rolls_back_pauses_and_follows(serve: Serve) -> None:
    server = serve(admin_port=0, admin_tokens=",".join(TOKENS))
    assert admin(server, "/admin/pin", {"version": "serving-3"}).json()["versions"]["dense"] == "serving-3"
    assert httpx.post(f"{server.url}/v1/score", json={"rows": ROWS}).json()["versions"]["dense"] == "serving-3"
    assert admin(server, "/admin/rollback", None, TOKENS[1]).json()["versions"]["dense"] == "serving-1"
    assert admin(server, "/admin/rollback", {"version": "serving-2"}).json()["versions"]["dense"] == "serving-2"
    assert admin(server, "/admin/pause").json()["follow"]["state"] == "paused"
    assert admin(server, "/admin/follow").json()["follow"]["state"] == "following"
    status = httpx.get(f"{server.admin_url}/admin/status", headers={"authorization": f"Bearer {TOKENS[1]}"}).json()
    assert status["versions"] == {"dense": "serving-2", "rows": "serving-3"}
    wrong = admin(server, "/admin/pin", {"version": "serving-33"})
    assert (wrong.status_code, wrong.json()["field"]) == (404, "version")
    assert "did you mean serving-3?" in wrong.json()["error"]


@pytest.mark.parametrize("token", ["x", "wrong", TOKENS[0] + "x", TOKENS[0][:-1], "é"])
def test_admin_refuses_without_a_token(server: ServerProcess, token: str) -> None:
    headers = {"authorization": f"Bearer {token}".encode()}
    for route in ("/admin/pin", "/admin/rollback", "/admin/follow", "/admin/pause", "/admin/status", "/admin/nope"):
        answer = httpx.post(f"{server.admin_url}{route}", json={"version": "serving-1"}, headers=headers)
        assert answer.status_code == 401
    assert httpx.get(f"{server.url}/v1/model").json()["follow"]["state"] == "following"


def test_admin_routes_are_not_on_the_public_port(server: ServerProcess) -> None:
    headers = {"authorization": f"Bearer {TOKENS[0]}"}
    answer = httpx.post(f"{server.url}/admin/pause", headers=headers)
    assert answer.status_code == 404
    assert httpx.get(f"{server.admin_url}/v1/model", headers=headers).status_code == 404
