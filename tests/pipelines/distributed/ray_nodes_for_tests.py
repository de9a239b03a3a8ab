"""A Ray cluster of several nodes on this machine, each `ray start --block` in a process and a folder of its own.

Its token is its own: neither the tests' environment nor a token of the user who runs them plays a part.
"""

from __future__ import annotations

import json
import os
import secrets
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import psutil


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("", 0))
        return int(found.getsockname()[1])


class Nodes:
    """A cluster that grows by `add`; used as a context.

    Args:
        token: that the nodes want, by default a new one.
    """

    def __init__(self, token: str | None = None) -> None:
        self.token = secrets.token_hex(32) if token is None else token
        self.nodes: list[subprocess.Popen[str]] = []
        self.port = free_port()
        self.address = ""
        # Paths of sockets are limited to 107 bytes.
        self.folder = Path(tempfile.mkdtemp(prefix="r", dir="/tmp"))

    def __enter__(self) -> Nodes:
        return self

    def __exit__(self, *error: object) -> None:
        ours = [psutil.Process(node.pid) for node in self.nodes if node.poll() is None]
        every = [*ours, *(child for each in ours for child in each.children(recursive=True))]
        for process in every:
            if process.is_running():
                process.kill()
        for node in self.nodes:
            node.wait()
            assert node.stdout is not None
            node.stdout.close()
        psutil.wait_procs(every, timeout=20)
        shutil.rmtree(self.folder, ignore_errors=True)

    def environment(self, **more: str) -> dict[str, str]:
        """That of a process which has the token, and a home without another."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "GLOO_"))}
        home = self.folder / "home"
        home.mkdir(exist_ok=True)
        token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": self.token}
        return {**kept, "HOME": str(home), "PYTHONSAFEPATH": "1", **token, **more}

    def add(self, cpus: int, without: Path | None = None, **more: str) -> subprocess.Popen[str]:
        """Starts the next node, the first being the head, and waits until it is one.

        Args:
            without: a folder that is not on the node's disk.
            more: environment.
        """
        own = self.folder / f"n{len(self.nodes)}"
        own.mkdir()
        sizes = ["--num-cpus", str(cpus), "--object-store-memory", "80000000", "--min-worker-port", "0"]
        options = [*sizes, "--max-worker-port", "0", "--disable-usage-stats", "--block"]
        if self.nodes:
            role = ["--address", self.address]
        else:
            role = ["--head", "--port", str(self.port), "--temp-dir", str(self.folder), "--include-dashboard", "false"]
        command = [sys.executable, "-m", "ray.scripts.scripts", "start", *role, *options]
        if without is not None:
            hidden = f'mount -t tmpfs none {shlex.quote(str(without))} && exec "$@"'
            command = ["unshare", "--mount", "sh", "-c", hidden, "sh", *command]
        environment = self.environment(RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER="1", **more)
        pipes: Any = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        node = subprocess.Popen(command, cwd=own, env=environment, **pipes)
        self.nodes.append(node)
        assert node.stdout is not None
        said = []
        for line in node.stdout:
            said.append(line)
            if "Local node IP" in line:
                self.address = self.address or f"{line.split()[-1]}:{self.port}"
            if "Ray runtime started" in line:
                return node
        raise AssertionError("".join(said))

    def workers(self) -> list[list[psutil.Process]]:
        """By node, the processes that are ranks."""
        return [ranks_below(node) for node in self.nodes]


def ranks_below(process: subprocess.Popen[str]) -> list[psutil.Process]:
    found = []
    for child in psutil.Process(process.pid).children(recursive=True):
        try:
            if "RayTrainWorker" in " ".join(child.cmdline()):
                found.append(child)
        except psutil.Error:
            continue
    return found


def last_json(out: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(out.splitlines()[-1])
    return found
