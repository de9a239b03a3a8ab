"""Lines that are written beside the requests: in order, rotated, dropped where the disk takes none."""

from __future__ import annotations

import asyncio
import json
import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pyarrow as pa
import pytest

from embtables.errors import ConfigError
from embtables.serving import wire
from embtables.serving.http.app import App
from embtables.serving.http.logs.lines import LineFile
from embtables.serving.settings import Settings
from tests.serving.arrow_for_tests import arrow
from tests.serving.conftest import Serve
from tests.serving.http.sockets_for_tests import ROW
from tests.serving.scorer_service import HELD, ScorerService


def test_lines_are_written_in_order_and_appended(tmp_path: Path) -> None:
    path = tmp_path / "lines"
    for turn in range(2):
        lines = LineFile(path)
        for number in range(1000):
            lines.put(b"%d-%d" % (turn, number))
        lines.close()
        assert lines.dropped == 0
    assert path.read_text().split() == [f"{turn}-{number}" for turn in range(2) for number in range(1000)]
    assert path.stat().st_mode & 0o777 == 0o600


def test_files_rotate_by_size_and_the_oldest_go(tmp_path: Path) -> None:
    path = tmp_path / "lines"
    for number in range(8):
        lines = LineFile(path, max_bytes=50, kept=2)
        lines.put(b"%d" % number * 60)
        lines.close()
    assert {file.name for file in tmp_path.iterdir()} == {"lines", "lines.1", "lines.2"}
    assert [path.with_name(f"lines.{number}").read_text()[0] for number in (1, 2)] == ["7", "6"]
    assert path.read_text() == ""


def test_a_slow_reader_holds_nobody_up(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    lines = LineFile(path)
    for _ in range(50_000):
        lines.put(b"x" * 100)
    assert 0 < lines.dropped < 50_000
    os.close(reader)  # and writes fail now
    lines.close()


def test_a_file_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be written: No such file"):
        LineFile(tmp_path / "no" / "lines")


def test_lines_that_are_dropped_are_a_metric(trained_run: Path, tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    settings = Settings.read({"source": trained_run, "log_file": path, "request_log": tmp_path / "requests"}, {})

    async def ask() -> tuple[str, str, int]:
        app = App(settings, ScorerService(trained_run))
        await app.start()
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://here") as client:
            before = (await client.get("/metrics")).text
            for number in range(50_000):
                app.log.event("one", number=number, text="x" * 100)
            after = (await client.get("/metrics")).text
        dropped = app.log.dropped
        os.close(reader)
        await app.stop()
        return before, after, dropped

    before, after, dropped = asyncio.run(ask())
    assert dropped > 0
    for text, count in ((before, 0), (after, dropped)):
        assert f'embtables_dropped_log_lines_total{{log="log"}} {float(count)}' in text.splitlines()
        assert 'embtables_dropped_log_lines_total{log="request_log"} 0.0' in text.splitlines()


@pytest.mark.parametrize("values", [True, False])
def test_sampled_requests_can_be_asked_again(serve: Serve, tmp_path: Path, values: bool) -> None:
    file = tmp_path / "requests.jsonl"
    own = serve(request_log=file, request_log_rate=1, request_log_values=values)
    body = {
        "context": {"user": 3, "tags": [1]},
        "candidates": [{"item": "a-secret", "price": 2.0}],
        "request_id": "one",
    }
    first = httpx.post(f"{own.url}/v1/score", json=body).json()
    headers = {"content-type": wire.ARROW, "accept": wire.JSON, wire.REQUEST_ID: "two"}
    second = httpx.post(f"{own.url}/v1/score", content=arrow(pa.Table.from_pylist([ROW, ROW])), headers=headers).json()
    httpx.post(f"{own.url}/v1/score", json={"rows": [{"usr": 1}]})  # a refused one has no scores to be replayed
    assert own.end() == 0
    logged = [json.loads(line) for line in file.read_text().splitlines()]
    assert [(line["request_id"], line["size"]) for line in logged] == [("one", 1), ("two", 2)]
    assert [line["scores"] for line in logged] == [first["scores"], second["scores"]]
    assert [line["versions"] for line in logged] == [first["versions"], second["versions"]]
    assert [line.get("request") for line in logged] == ([body, {"rows": [ROW, ROW]}] if values else [None, None])
    assert ("a-secret" in file.read_text()) == values


def test_a_sample_is_a_share(serve: Serve, tmp_path: Path) -> None:
    file = tmp_path / "requests.jsonl"
    own = serve(request_log=file, request_log_rate=0.2)
    with httpx.Client() as client:
        for _ in range(300):
            client.post(f"{own.url}/v1/score", json={"rows": [ROW]})
    assert own.end() == 0
    assert 25 < len(file.read_text().splitlines()) < 110


def test_slow_requests_are_logged_with_their_stages(serve: Serve) -> None:
    own = serve(slow_ms=300)
    httpx.post(f"{own.url}/v1/score", json={"rows": [ROW]})
    with ThreadPoolExecutor(1) as pool:
        body = {"rows": [ROW | {HELD: True}], "request_id": "slow-one"}
        asked = pool.submit(httpx.post, f"{own.url}/v1/score", json=body, timeout=60)
        while own.waiting() < 1:
            assert not asked.done()
        time.sleep(0.4)  # it is slow by the clock
        own.release()
        assert asked.result().status_code == 200
    assert own.end() == 0
    slow = [line for line in own.events("request") if line["request_id"] == "slow-one"]
    assert len(slow) == 1
    assert slow[0]["slow"] is True
    assert slow[0]["us"] >= 400_000
    assert {"read", "parse", "features", "lookup", "dense", "encode"} <= set(slow[0]["stages_us"])


def test_logs_have_no_values_of_features(serve: Serve) -> None:
    own = serve(log_requests=True)
    secret = "a-name-that-nobody-logs"
    for body in (
        {"rows": [ROW | {"item": secret}]},
        {"rows": [{"item": [secret]}]},
        {"rows": [ROW | {"price": secret}]},
    ):
        httpx.post(f"{own.url}/v1/score", json=body)
    httpx.post(f"{own.url}/v1/embed", json={"feature": "item", "ids": [secret]})
    httpx.post(f"{own.url}/v1/embed", json={"feature": "user", "ids": [secret]})
    assert own.end() == 0
    assert len(own.events("request")) == 5
    assert secret not in own.log.read_text()
    first = own.events("request")[0]
    assert (first["status"], first["size"], first["dense_version"]) == (200, 1, "serving-2")
    assert {"read", "parse", "features", "lookup", "dense", "encode"} <= set(first["stages_us"])
