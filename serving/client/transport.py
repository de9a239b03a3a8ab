"""Connections for threads, with one deadline for all of a call.

httpx knows time-outs of single reads only: a server that sends a byte from time to time would never be cut off. Here
every read and write has what is left of the call's time.
"""

from __future__ import annotations

import ssl
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import httpcore
import httpx


class _Call(threading.local):
    """The deadline of the call that this thread is in, of `time.monotonic()`."""

    end: float = float("inf")


_call = _Call()


@contextmanager
def deadline(end: float) -> Iterator[None]:
    """Within it whatever this thread reads or writes ends in time: httpcore.TimeoutException."""
    before, _call.end = _call.end, end
    try:
        yield
    finally:
        _call.end = before


def _left() -> float:
    left = _call.end - time.monotonic()
    if left <= 0:
        raise httpcore.ReadTimeout("the deadline of the call is over")
    return left


class _Stream(httpcore.NetworkStream):
    def __init__(self, stream: httpcore.NetworkStream) -> None:
        self._stream = stream

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._stream.read(max_bytes, _left())

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._stream.write(buffer, _left())

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        return _Stream(self._stream.start_tls(ssl_context, server_hostname, _left()))

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)


class _Backend(httpcore.SyncBackend):
    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        return _Stream(super().connect_tcp(host, port, _left(), local_address, socket_options))


class DeadlineTransport(httpx.BaseTransport):
    """Keeps connections open and gives them to one thread at a time.

    Args:
        connections: how many at most; a call waits for one until its deadline.
    """

    def __init__(self, connections: int) -> None:
        self._pool = httpcore.ConnectionPool(
            ssl_context=httpx.create_ssl_context(),
            max_connections=connections,
            max_keepalive_connections=connections,
            keepalive_expiry=30.0,
            network_backend=_Backend(),
        )

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Sends a request and reads all of the answer.

        Raises:
            httpcore.TimeoutException: the deadline is over.
            httpcore.NetworkError, httpcore.ProtocolError: there is no connection, or it broke.
        """
        url = request.url
        response = self._pool.handle_request(
            httpcore.Request(
                method=request.method,
                url=httpcore.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path),
                headers=request.headers.raw,
                content=request.read(),
                extensions={"timeout": {"pool": _left()}},
            )
        )
        try:
            content = response.read()
        finally:
            response.close()
        return httpx.Response(
            response.status, headers=response.headers, content=content, extensions=response.extensions
        )

    def close(self) -> None:
        """Closes all connections."""
        self._pool.close()
