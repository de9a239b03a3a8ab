"""How a server starts and what keeps it from it, as `embtables serve` says it; nothing is forked."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from embtables.errors import StateError
from embtables.serving.http.run import serve as serve_here
from embtables.serving.settings import Settings
from tests.serving.conftest import TOKENS, Serve, ServerProcess
from tests.serving.scorer_service import ScorerService


def embtables(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "embtables", "serve", *map(str, arguments)]
    own = {**os.environ, **environment, "COLUMNS": "80"}
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120, env=own)


def test_mistakes_are_one_line(trained_run: Path, tmp_path: Path) -> None:
    for arguments, status, text in (
        ((), 2, "give the folder of a run or of its versions, or set EMBTABLES_SERVE_SOURCE"),
        ((tmp_path / "nothing",), 2, "is no folder"),
        ((tmp_path,), 2, "has no versions"),
        ((trained_run, "--mode", "quick"), 2, "mode: Input should be 'exact' or 'fast'"),
        ((trained_run, "--set", "max_ids"), 2, "--set takes NAME=VALUE, received 'max_ids'"),
        ((trained_run, "--set", "max_id=3"), 2, "did you mean 'max_ids'?"),
        ((trained_run, "--admin-port", "0"), 2, "admin_port needs a token"),
        ((trained_run, "--host", "999.1.1.1"), 2, "is no address"),
        ((trained_run, "--host", "192.0.2.7", "--port", "0"), 2, "192.0.2.7:0 cannot be used"),
        ((trained_run, "--set", "log_file=/nowhere/log"), 2, "file /nowhere/log: cannot be written"),
    ):
        done = embtables(*arguments)
        assert (done.returncode, done.stdout) == (status, ""), done.stderr
        assert text in done.stderr
        assert len(done.stderr.splitlines()) == 1
    done = embtables(trained_run, EMBTABLES_SERVE_PROT="1")
    assert (done.returncode, "did you mean EMBTABLES_SERVE_PORT?" in done.stderr) == (2, True)


def test_a_port_that_is_taken(server: ServerProcess, trained_run: Path) -> None:
    port = server.address[1]
    done = embtables(trained_run, "--port", port)
    assert done.returncode == 2
    assert done.stderr == f"error: argument port: 127.0.0.1:{port} is taken: another process listens there\n"
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        done = embtables(
            trained_run, "--port", 0, "--admin-port", other.getsockname()[1], EMBTABLES_SERVE_ADMIN_TOKENS=TOKENS[0]
        )
    assert done.returncode == 2
    assert "argument admin_port: 127.0.0.1:" in done.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_serves_a_run_until_a_signal(serve: Serve, number: int) -> None:
    own = serve(live=True, admin_port=0, admin_tokens=TOKENS[0])
    answer = httpx.post(f"{own.url}/v1/score", json={"rows": [{"user": 1, "item": "a", "tags": [], "price": 1.0}]})
    assert answer.status_code == 200, answer.text
    headers = {"authorization": f"Bearer {TOKENS[0]}"}
    status = httpx.get(f"{own.admin_url}/admin/status", headers=headers).json()
    assert status["versions"] == answer.json()["versions"]
    children = Path(f"/proc/{own.process.pid}/task/{own.process.pid}/children").read_text()
    assert children == ""  # one process: nothing was forked
    assert own.end(number) == 0
    assert [line["event"] for line in map(json.loads, own.log.read_text().splitlines())][-2:] == ["drain", "end"]
    assert TOKENS[0] not in own.log.read_text()


class NothingToServe(ScorerService):
    """One whose start fails halfway."""

    is_stopped = False

    async def start(self) -> None:
        raise StateError("there is nothing to serve")

    async def stop(self) -> None:
        self.is_stopped = True


def test_a_start_that_fails_leaves_nothing_behind(tmp_path: Path) -> None:
    with socket.socket() as one, socket.socket() as two:
        one.bind(("127.0.0.1", 0))
        two.bind(("127.0.0.1", 0))
        ports = [one.getsockname()[1], two.getsockname()[1]]
    settings = Settings.read(
        {
            "source": tmp_path,
            "log_file": tmp_path / "log",
            "port": ports[0],
            "admin_port": ports[1],
            "admin_tokens": TOKENS[0],
        },
        {},
    )
    service = NothingToServe(tmp_path)
    with pytest.raises(StateError, match="there is nothing to serve") as failed:
        serve_here(settings, service=service)
    assert service.is_stopped
    for port in ports:  # while the error, and with it whatever the server had, is still there
        with socket.socket() as other:
            other.bind(("127.0.0.1", port))
    del failed
