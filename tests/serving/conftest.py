"""Runs that were really trained, versions of them, and real server processes over them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pyarrow.parquet as pq
import pytest

from embtables.pipelines.config import RunConfig
from embtables.pipelines.training.train import train
from embtables.schema import validate
from embtables.serving.versions.served_version import ServedVersion
from tests.pipelines.conftest import content, make_table
from tests.serving.scoring import served_for_tests

TOKENS = ("first-token-of-the-admin", "second-token-of-the-admin")


class ServerProcess:
    """A server in a process of its own: `serve_for_tests`, or with `live` `embtables serve`.

    Attributes:
        url, admin_url: where it listens.
        log: its file of JSON lines.
    """

    def __init__(self, run: Path, log: Path, settings: dict[str, object], *, live: bool = False) -> None:
        flags = [f"{name}={value}" for name, value in ({"log_file": log, "port": 0} | settings).items()]
        if live:
            arguments = ["embtables", "serve", str(run), "--json", *(f"--set={flag}" for flag in flags)]
        else:
            arguments = ["tests.serving.serve_for_tests", str(run), *flags]
        command = [sys.executable, "-m", *arguments]
        environment = {name: value for name, value in os.environ.items() if not name.startswith("EMBTABLES_SERVE_")}
        self.log = log
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            self.process.wait()
            assert self.process.stderr is not None
            raise AssertionError(self.process.stderr.read())
        said = json.loads(line)
        self.url: str = said["url"]
        self.admin_url: str = said["admin_url"]

    @property
    def address(self) -> tuple[str, int]:
        host, _, port = self.url.removeprefix("http://").rpartition(":")
        return host, int(port)

    def events(self, event: str) -> list[dict[str, Any]]:
        """Lines of the log of one kind."""
        lines = [json.loads(line) for line in self.log.read_text().splitlines()]
        return [line for line in lines if line["event"] == event]

    def release(self) -> None:
        """Lets requests with the column `held` go on."""
        self.process.send_signal(signal.SIGUSR1)

    def waiting(self) -> int:
        """Requests for scores that it has taken and not answered."""
        lines = httpx.get(f"{self.url}/metrics").text.splitlines()
        return int(float(next(line.split()[1] for line in lines if line.startswith("embtables_scores_waiting "))))

    def end(self, number: int = signal.SIGTERM) -> int:
        """Its exit status after a signal."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        try:
            return self.process.wait(60)
        finally:
            if self.process.poll() is None:
                self.process.kill()
                self.process.wait()
            for stream in (self.process.stdout, self.process.stderr):
                assert stream is not None
                stream.close()


Serve = Callable[..., ServerProcess]


@pytest.fixture(scope="session")
def trained_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of columns user (integer), item (string), tags (list of integers) and price (number)."""
    folder = tmp_path_factory.mktemp("trained")
    log = folder / "log"
    log.mkdir()
    for number in range(3):
        table = make_table(600, seed=number, first=600 * number)
        pq.write_table(table, log / f"part-{number}.parquet", row_group_size=150)
    config = content(log, folder / "runs")
    config["train"]["epochs"] = 1
    return Path(train(validate(RunConfig, config), shown=False)["run_dir"])


@pytest.fixture(scope="session")
def run_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The run of a model's name in `served_for_tests.MODELS`, trained once for all tests that ask for it."""
    made: dict[str, Path] = {}

    def of(model: str) -> Path:
        if model not in made:
            made[model] = served_for_tests.trained_run(tmp_path_factory.mktemp(model), model)
        return made[model]

    return of


@pytest.fixture(scope="session")
def zoo(run_of: Callable[[str], Path]) -> ServedVersion:
    """DCN-V2 with all side tables; candidates are items."""
    return served_for_tests.served_version(run_of("dcnv2"), served_for_tests.side_tables(), "item")


@pytest.fixture(scope="session")
def server(trained_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """One server for all tests that do not change it."""
    folder = tmp_path_factory.mktemp("server")
    found = ServerProcess(trained_run, folder / "log.jsonl", {"admin_port": 0, "admin_tokens": ",".join(TOKENS)})
    yield found
    found.end()


@pytest.fixture
def serve(trained_run: Path, tmp_path: Path) -> Iterator[Serve]:
    """Starts a server with settings of its own: `serve(max_queue=2)`."""
    started: list[ServerProcess] = []

    def start(*, live: bool = False, **settings: object) -> ServerProcess:
        log = tmp_path / f"log-{len(started)}.jsonl"
        started.append(ServerProcess(trained_run, log, settings, live=live))
        return started[-1]

    yield start
    for each in started:
        each.end()
