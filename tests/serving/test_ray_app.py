"""Replicas on a real Ray: they answer as one process does, and follow the folder without a moment of being unready."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from embtables.errors import ConfigError
from embtables.serving import ray_app, wire
from tests.serving.versions.trainer_for_tests import trainer

SECONDS = 120.0
REPLICAS = """
import os, sys
import ray
from ray import serve
from ray.serve import HTTPOptions
from embtables.serving import ray_app

port, folder, place = sys.argv[1:]
ray.init(num_cpus=3, include_dashboard=False, log_to_driver=False, logging_level="ERROR", _temp_dir=place)
serve.start(http_options=HTTPOptions(host="127.0.0.1", port=int(port)))
serve.run(ray_app.app({"source": folder, "replicas": 2, "cpus": 0.5, "poll_seconds": 0.1}))
print("up", flush=True)
sys.stdin.read()
serve.shutdown()
ray.shutdown()
"""
REQUEST = {
    "context": {"user": 7, "country": 3},
    "candidates": [{"item": 5, "price": 0.5}, {"item": -6, "price": 0.25}],
}


@contextmanager
def replicas(folder: Path) -> Iterator[httpx.Client]:
    """A client of two replicas that serve a folder."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory(prefix="ray") as place:  # socket paths are short
        process = subprocess.Popen(
            [sys.executable, "-c", REPLICAS, str(port), str(folder), place],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "RAY_USAGE_STATS_ENABLED": "0", "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"},
        )
        try:
            assert process.stdout is not None
            assert process.stdin is not None
            assert "up\n" in iter(process.stdout.readline, ""), "no replica came up"
            with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=SECONDS) as client:
                yield client
            process.stdin.close()
            process.wait(SECONDS)
        finally:
            process.kill()
            process.wait()


@pytest.mark.slow
def test_replicas_follow_the_trainer_while_they_answer(tmp_path: Path) -> None:
    with trainer(tmp_path) as made:
        made.publish(3)
        with replicas(tmp_path) as client:
            first = client.post("/v1/score", json=REQUEST).raise_for_status().json()
            table = {"user": [7, 7], "country": [3, 3], "item": [5, -6], "price": [0.5, 0.25]}
            expected = made.scorer().score(table)[:, 0].tolist()
            assert first["scores"]["click"] == pytest.approx(expected, abs=1e-6)

            statuses: list[int] = []
            ended = threading.Event()

            def ask() -> None:
                with httpx.Client(base_url=client.base_url, timeout=SECONDS) as other:
                    while not ended.is_set():
                        statuses.append(other.post("/v1/score", json=REQUEST).status_code)

            asking = threading.Thread(target=ask)
            asking.start()
            try:
                newest = made.publish(3)
                reached = {wire.MIN_DENSE_VERSION: newest}
                # Whichever replica is asked, it answers with that version or waits until it has it.
                answers = [client.post("/v1/score", json=REQUEST, headers=reached) for _ in range(20)]
            finally:
                ended.set()
                asking.join()
            seen = [answer.raise_for_status().json() for answer in answers]
            assert {answer["versions"]["dense"] for answer in seen} == {newest}
            after = made.scorer().score(table)[:, 0].tolist()
            for answer in seen:
                assert answer["scores"]["click"] == pytest.approx(after, abs=1e-6)
            assert statuses
            assert set(statuses) == {200}


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ({"source": "x", "replica": 2}, "unknown key 'replica'"),
        ({"source": "x", "replicas": 3, "max_replicas": 2}, "max_replicas is 2, less than replicas"),
        ({"source": "x", "admin_port": 9, "admin_tokens": "0" * 16}, "leave admin_port out"),
        ({}, "give the folder of a run"),
    ],
)
def test_wrong_arguments_are_named(args: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ray_app.app(args)
