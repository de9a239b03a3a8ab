"""Requests as bytes on a socket, for what no HTTP client would send."""

from __future__ import annotations

import contextlib
import json
import socket
from collections.abc import Iterator

import httpx

from tests.serving.conftest import ServerProcess

ROW = {"user": 3, "item": "item-1", "tags": [1, 2], "price": 2.0}
GOOD = json.dumps({"rows": [ROW]}).encode()


@contextlib.contextmanager
def connection(server: ServerProcess) -> Iterator[socket.socket]:
    with socket.create_connection(server.address, timeout=60) as opened:
        yield opened


def raw(server: ServerProcess, data: bytes) -> tuple[int, bytes]:
    """Status and all that a server says to these bytes until it closes the connection or has answered."""
    with connection(server) as opened:
        opened.sendall(data)
        return answer_of(opened)


def answer_of(opened: socket.socket) -> tuple[int, bytes]:
    data = b""
    while b"\r\n\r\n" not in data:
        part = opened.recv(65536)
        if not part:
            return (int(data.split()[1]) if data else 0), data
        data += part
    head, _, body = data.partition(b"\r\n\r\n")
    lengths = [line.split(b":")[1] for line in head.lower().split(b"\r\n") if line.startswith(b"content-length")]
    while len(body) < int(lengths[0]):
        body += opened.recv(65536)
    return int(head.split()[1]), head + b"\r\n\r\n" + body


def post(body: bytes, *headers: bytes, path: bytes = b"/v1/score", host: bytes = b"Host: here") -> bytes:
    lines = [b"POST " + path + b" HTTP/1.1", host, *headers, b"Content-Length: %d" % len(body)]
    return b"\r\n".join(line for line in lines if line) + b"\r\n\r\n" + body


def is_fine(server: ServerProcess) -> None:
    answer = httpx.post(f"{server.url}/v1/score", content=GOOD)
    assert answer.status_code == 200, answer.text
