"""The load client, and a probe of the machine's noise: compiled when needed, each in a process on a core of its own."""

from __future__ import annotations

import json
import os
import shutil
import struct
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import _harness

BUILT = _harness.ROOT / "build" / "benchmarks"


def built(name: str) -> Path:
    """The path of `load` or `noise`; compiles it where it is older than its source. Ends the process without g++."""
    source, program = Path(__file__).with_name(f"{name}.cpp"), BUILT / name
    if program.exists() and program.stat().st_mtime >= source.stat().st_mtime:
        return program
    if shutil.which("g++") is None:
        sys.exit("the load client needs g++: apt-get install g++")
    BUILT.mkdir(parents=True, exist_ok=True)
    subprocess.run(["g++", "-O2", "-std=c++20", "-o", str(program), str(source)], check=True)
    return program


def post(path: str, body: bytes, content_type: str, accept: str | None = None) -> bytes:
    """A whole HTTP request."""
    lines = [f"POST {path} HTTP/1.1", "host: 127.0.0.1", f"content-type: {content_type}"]
    lines += [f"accept: {accept}"] if accept is not None else []
    return "\r\n".join([*lines, f"content-length: {len(body)}"]).encode() + b"\r\n\r\n" + body


def mget(keys: Sequence[bytes]) -> bytes:
    """A Redis command for the values of keys."""
    parts = [b"MGET", *keys]
    return b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%s\r\n" % (len(part), part) for part in parts)


@dataclass(frozen=True)
class Cores:
    """Where processes run: a server has the first core, load and whatever else goes on have the others.

    On a machine with one core both share it.
    """

    server: tuple[int, ...]
    others: tuple[int, ...]

    @classmethod
    def of_machine(cls) -> Cores:
        """Of the cores that this process may use."""
        cores = sorted(os.sched_getaffinity(0))
        return cls((cores[0],), tuple(cores[1:]) or (cores[0],))


def pinned(cores: Sequence[int], command: Sequence[str]) -> list[str]:
    """A command that runs on some cores only."""
    return ["taskset", "--cpu-list", ",".join(map(str, cores)), *command]


def measure(
    port: int,
    requests: Sequence[bytes],
    *,
    seconds: float,
    rate: float | None = None,
    connections: int = 16,
    warmup: float = 1.0,
    redis: bool = False,
) -> dict[str, Any]:
    """Latencies and answers of requests, sent in turn for some seconds.

    Args:
        rate: requests per second, each due at its time; None: every connection sends as soon as it has its answer.

    Raises:
        RuntimeError: the client failed; holds what it said.
    """
    with tempfile.NamedTemporaryFile() as file:
        for request in requests:
            file.write(struct.pack("<I", len(request)) + request)
        file.flush()
        options = {"connections": connections, "seconds": seconds, "warmup": warmup}
        options |= {} if rate is None else {"rate": rate}
        command = [str(built("load")), "127.0.0.1", str(port), file.name]
        command += [text for name, value in options.items() for text in (f"--{name}", str(value))]
        command += ["--redis"] if redis else []
        done = subprocess.run(pinned(Cores.of_machine().others, command), capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"the load client ended with status {done.returncode}: {done.stderr.strip()}")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def noise(seconds: float) -> dict[str, float]:
    """How evenly the server's core does the same work over and over; for a time in which nothing else runs."""
    command = pinned(Cores.of_machine().server, [str(built("noise")), str(seconds)])
    found: dict[str, float] = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    return found


def noise_said(found: dict[str, float]) -> str:
    """The same in a sentence."""
    return (
        f"The machine's own noise, from {found['seconds']:g} s of the same work on the server's core with nothing "
        f"beside it: {found['slow_share']:.1%} of windows of {found['window_ms']:.0f} ms took more than 1.3x of the "
        f"median, and the longest of its items of 0.1 ms took {found['longest_ms']:.1f} ms."
    )
