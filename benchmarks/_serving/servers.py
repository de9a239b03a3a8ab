"""Servers in processes of their own, each on the first core: ours, the naive one, bare granian, Redis."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import embtables
from benchmarks import _harness
from benchmarks._serving.load import Cores, pinned
from benchmarks.peers.environment import peer_python

START_SECONDS = 120.0


@dataclass(frozen=True)
class Running:
    """A server that answers."""

    port: int
    pid: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def memory_mib(self, field: str = "VmRSS") -> float:
        """Resident memory now, or the greatest so far (VmHWM)."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        return int(status.split(f"{field}:")[1].split()[0]) / 1024


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


@contextmanager
def running(
    name: str,
    command: Sequence[str],
    port: int,
    env: Mapping[str, str] | None = None,
    *,
    is_http: bool = True,
    cores: Sequence[int] | None = None,
) -> Iterator[Running]:
    """A server, once it is ready; ended afterwards. Ends the process where it does not start; holds what it said."""
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(
            pinned(Cores.of_machine().server if cores is None else cores, command),
            cwd=_harness.ROOT,
            env={**os.environ, **(env or {})},
            stdout=said,
            stderr=said,
        )
        try:
            if not _waits(process, port, is_http=is_http):
                said.seek(0)
                sys.exit(f"{name} did not start:\n{said.read().decode()[-4000:]}")
            yield Running(port, process.pid)
            if process.poll() is not None:
                said.seek(0)
                raise RuntimeError(f"{name} has ended with {process.poll()}:\n{said.read().decode()[-4000:]}")
        except Exception as error:
            said.seek(0)
            error.add_note(f"{name} (ended: {process.poll()}) has said:\n{said.read().decode()[-4000:]}")
            raise
        finally:
            process.terminate()
            process.wait(timeout=30)


def _waits(process: subprocess.Popen[bytes], port: int, *, is_http: bool) -> bool:
    end = time.monotonic() + START_SECONDS
    with embtables.Client(f"http://127.0.0.1:{port}", attempts=1) as client:
        while process.poll() is None and time.monotonic() < end:
            if client.ready(deadline_seconds=1.0) if is_http else _listens(port):
                return True
            time.sleep(0.02)
    return False


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 0.5).close()
    except OSError:
        return False
    return True


@contextmanager
def ours(
    source: Path, mode: str = "exact", cores: Sequence[int] | None = None, options: Sequence[str] = ()
) -> Iterator[Running]:
    """`embtables serve`, with a thread for each of its cores."""
    port, used = free_port(), Cores.of_machine().server if cores is None else cores
    command = [sys.executable, "-W", "ignore", "-m", "embtables", "serve", str(source), "--port", str(port)]
    command += ["--mode", mode, "--threads", str(len(used)), *options]
    env = {"OMP_NUM_THREADS": str(len(used))}
    with running(f"embtables, {mode}", command, port, env, cores=used) as server:
        yield server


@contextmanager
def naive(folder: Path, context: str) -> Iterator[Running]:
    """The naive service over what `naive_export` wrote; `context`: `each` (candidate) or `once`."""
    port = free_port()
    command = [str(peer_python("naive")), "-m", "uvicorn", "--app-dir", "benchmarks/_serving/naive"]
    command += ["--port", str(port), "--log-level", "warning", "--no-access-log", "app:app"]
    env = {"NAIVE_FOLDER": str(folder), "NAIVE_CONTEXT": context, "OMP_NUM_THREADS": "1"}
    with running(f"naive, context {context}", command, port, env) as server:
        yield server


@contextmanager
def bare(answer_bytes: int, *, like_ours: bool = False) -> Iterator[Running]:
    """granian alone; `like_ours`: under the policy that our server sets for its threads."""
    port = free_port()
    command = [str(Path(sys.executable).parent / "granian"), "--interface", "rsgi", "--http", "1", "--port", str(port)]
    command += ["--workers", "1", "--no-ws", "--log-level", "error", "--loop", "uvloop", "benchmarks._serving.bare:app"]
    command = ["chrt", "--batch", "0", *command] if like_ours else command
    with running("bare granian", command, port, {"ANSWER_BYTES": str(answer_bytes)}) as server:
        yield server


@contextmanager
def redis() -> Iterator[Running]:
    """Debian's redis-server, in memory alone. Ends the process where it is not installed."""
    if shutil.which("redis-server") is None:
        sys.exit("this part compares with Redis: apt-get install redis-server")
    port = free_port()
    command = ["redis-server", "--port", str(port), "--save", "", "--appendonly", "no", "--bind", "127.0.0.1"]
    with running("redis-server", command, port, is_http=False) as server:
        yield server


def fill_redis(port: int, keys: Sequence[bytes], values: Sequence[bytes]) -> None:
    """Sets keys, a thousand in a command."""
    with socket.create_connection(("127.0.0.1", port)) as connection:
        file = connection.makefile("rb")
        for start in range(0, len(keys), 1000):
            parts = [b"MSET"]
            for key, value in zip(keys[start : start + 1000], values[start : start + 1000], strict=True):
                parts += [key, value]
            connection.sendall(b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%s\r\n" % (len(p), p) for p in parts))
            if file.readline() != b"+OK\r\n":
                raise RuntimeError("redis-server refused values")
