"""A real HTTP server that answers each connection or request as a script says, and keeps what it was sent."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import BinaryIO

Answer = bytes | Callable[[socket.socket], None]


def answer(status: int, body: bytes = b"", **headers: str) -> bytes:
    """A whole response; `retry_after="1"` is the header retry-after."""
    named = {name.replace("_", "-"): value for name, value in headers.items()} | {"content-length": str(len(body))}
    lines = [f"HTTP/1.1 {status} X", *(f"{name}: {value}" for name, value in named.items())]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


@dataclass(frozen=True)
class Received:
    """A request as it came."""

    line: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Scripted:
    """Gives its answers one after the other, the last one for ever. Callables are given the socket instead."""

    answers: Sequence[Answer]
    received: list[Received] = field(default_factory=list)
    connections: int = 0
    url: str = ""
    _sockets: list[socket.socket] = field(default_factory=list)
    _came: threading.Condition = field(default_factory=threading.Condition)

    def serve(self, listener: socket.socket) -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            self.connections += 1
            self._sockets.append(connection)
            threading.Thread(target=self._talk, args=(connection,), daemon=True).start()

    def _talk(self, connection: socket.socket) -> None:
        with suppress(ConnectionError), connection, connection.makefile("rb") as file:
            self._answer(connection, file)

    def _answer(self, connection: socket.socket, file: BinaryIO) -> None:
        while line := file.readline():
            headers = {}
            while (header := file.readline().decode().strip()) != "":
                name, _, value = header.partition(": ")
                headers[name.lower()] = value
            body = file.read(int(headers.get("content-length", 0)))
            with self._came:
                self.received.append(Received(line.decode().strip(), headers, body))
                self._came.notify_all()
            given = self.answers[min(len(self.received), len(self.answers)) - 1]
            if not isinstance(given, bytes):
                given(connection)
                return
            connection.sendall(given)

    def wait(self, count: int) -> None:
        """Until so many requests have come."""
        with self._came:
            assert self._came.wait_for(lambda: len(self.received) >= count, 60)

    def close(self) -> None:
        for connection in self._sockets:
            with suppress(OSError):  # the other side has closed it
                connection.shutdown(socket.SHUT_RDWR)


@contextmanager
def scripted(*answers: Answer) -> Iterator[Scripted]:
    """A server on a port of its own."""
    server = Scripted(answers)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        thread = threading.Thread(target=server.serve, args=(listener,), daemon=True)
        thread.start()
        try:
            yield server
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            server.close()
            thread.join()


def closes(_: socket.socket) -> None:
    """Breaks the connection without an answer."""


def drips(connection: socket.socket) -> None:
    """A header that never ends, a byte at a time: every single read succeeds."""
    connection.sendall(b"HTTP/1.1 200 OK\r\nx: ")
    while True:  # until the client goes
        connection.sendall(b"x")
        time.sleep(0.01)


def hangs(connection: socket.socket) -> None:
    """No answer, until the client goes."""
    connection.recv(1)
