"""Requests for rows as bytes whose head came before are answered as the first one was, and refused as it would be."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path

import httpx
import numpy as np
import pytest

from embtables.models.scorer import Scorer
from embtables.serving import wire
from tests.serving.conftest import ServerProcess

BYTES = {"content-type": wire.BYTES}
AS_JSON = {"content-type": wire.JSON}


@pytest.fixture
def live(serve: Callable[..., ServerProcess]) -> ServerProcess:
    return serve(live=True, body_seconds=1.0)


def test_each_has_its_own_rows_and_is_counted(live: ServerProcess, trained_run: Path) -> None:
    scorer = Scorer.from_version(trained_run, "best")
    with httpx.Client(base_url=live.url, headers=BYTES) as client:
        names = set()
        for first in range(5):
            ids = np.arange(first, first + 4)
            answer = client.post("/v1/embed?feature=user", content=ids.tobytes())
            assert answer.status_code == 200, answer.text
            rows = np.frombuffer(answer.content, "<f4").reshape(4, int(answer.headers[wire.DIM]))
            assert rows.tobytes() == scorer.embed("user", ids).numpy().tobytes()
            by_json = client.post("/v1/embed", json={"feature": "user", "ids": ids.tolist()}, headers=AS_JSON).json()
            assert int(answer.headers[wire.COLD]) == len(by_json["cold"])
            assert by_json["versions"]["dense"] == answer.headers[wire.DENSE_VERSION]
            names.add(answer.headers[wire.REQUEST_ID])
        assert len(names) == 5
        counted = client.get("/metrics").text
        assert 'embtables_requests_total{route="/v1/embed",status="200"} 10.0' in counted
        assert 'embtables_rows_total{route="/v1/embed"} 40.0' in counted


def test_one_that_is_refused_says_why(live: ServerProcess) -> None:
    with httpx.Client(base_url=live.url, headers=BYTES) as client:
        for number, (status, field) in {"3": (200, None), "a": (422, "ids")}.items():
            # The same head each time: a length that is no number of ids is refused by what came, not by what is known.
            body = np.arange(3).tobytes() if number == "3" else b"x" * 23
            answers = [client.post("/v1/embed?feature=user", content=body) for _ in range(3)]
            assert [answer.status_code for answer in answers] == [status] * 3
            if field is not None:
                assert {answer.json()["field"] for answer in answers} == {field}
        named = client.post("/v1/embed?feature=user", content=np.arange(3).tobytes(), headers={wire.REQUEST_ID: "mine"})
        assert named.headers[wire.REQUEST_ID] == "mine"
        behind = client.post(
            "/v1/embed?feature=user", content=np.arange(3).tobytes(), headers={wire.MIN_DENSE_VERSION: "serving-999"}
        )
        assert behind.status_code == 503


def test_a_slow_body_after_a_known_head_is_cut(live: ServerProcess) -> None:
    head = (
        f"POST /v1/embed?feature=user HTTP/1.1\r\nhost: {live.address[0]}\r\n"
        f"content-type: {wire.BYTES}\r\ncontent-length: 24\r\n\r\n"
    ).encode()
    body = np.arange(3).tobytes()
    for is_slow in (False, False, True):
        with socket.create_connection(live.address, timeout=30) as connection:
            connection.sendall(head + (body[:8] if is_slow else body))
            status = connection.recv(4096).split(b" ", 2)[1]
        assert status == (b"408" if is_slow else b"200")
