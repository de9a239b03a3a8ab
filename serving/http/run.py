"""`serve`: runs the public and the admin server in this process, on one event loop, until a signal ends them.

granian's embedded server is used: its native thread reads and writes sockets, this process's loop answers. Nothing is
forked, so that tables, native threads and OpenMP may start here. At SIGTERM or SIGINT nothing new is accepted, what was
asked is answered within `drain_seconds`, and `serve` returns; a second signal ends it at once.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import uvloop
from granian.constants import HTTPModes, Interfaces
from granian.http import HTTP1Settings
from granian.server.embed import Server

from embtables.errors import ConfigError, ServingError
from embtables.serving.http.admin import AdminApp
from embtables.serving.http.app import App, create_app
from embtables.serving.service import Service
from embtables.serving.settings import Settings

_BACKLOG = 1024
# granian stops accepting at this number of open connections, idle ones included: the limit of file handles goes first.
_MAX_CONNECTIONS = 1_000_000
_OPEN = ("01", "08")  # states of /proc/net/tcp: established; closed by the other side alone
_ANY_ADDRESS = {"0.0.0.0": "127.0.0.1", "::": "::1"}


class Addresses:
    """Where a server listens. `admin` is None without admin routes."""

    def __init__(self, host: str, port: int, admin: tuple[str, int] | None) -> None:
        self.host, self.port, self.admin = host, port, admin

    @property
    def url(self) -> str:
        """`http://127.0.0.1:8080`."""
        return f"http://{_bracketed(self.host)}:{self.port}"

    @property
    def admin_url(self) -> str | None:
        """The same of the admin routes."""
        return None if self.admin is None else f"http://{_bracketed(self.admin[0])}:{self.admin[1]}"


def serve(
    settings: Settings,
    *,
    service: Service | None = None,
    on_start: Callable[[Addresses, App], None] | None = None,
) -> None:
    """Serves until SIGTERM or SIGINT; returns when what was asked is answered.

    Args:
        service: what answers; by default the versions in `settings.source`, followed.
        on_start: called once it accepts connections; versions may still be loading.

    Raises:
        ConfigError: an address is taken or none, a setting or the source is wrong.
        StateError: the source holds nothing that can be served.
        ServingError: it could not go on.
    """
    app = create_app(settings, service)
    uvloop.run(_serve(settings, app, on_start))


async def _serve(settings: Settings, app: App, on_start: Callable[[Addresses, App], None] | None) -> None:
    tokens = settings.tokens()
    held = [_hold(settings.host, settings.port, "port")]
    admin = settings.admin_port if tokens else None
    if admin is not None:
        held.append(_hold(settings.admin_host, admin, "admin_port"))
    ports = [each.getsockname()[1] for each in held]
    addresses = Addresses(settings.host, ports[0], None if admin is None else (settings.admin_host, ports[1]))
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, _on_signal, stopped)
    await app.start()
    try:
        servers = [_server(app, settings.host, ports[0], settings)]
        if admin is not None:
            servers.append(_server(AdminApp(app, tokens), settings.admin_host, ports[1], settings))
        running = [asyncio.create_task(server.serve()) for server in servers]
        await _accepting(settings.host, ports[0], running)
        app.log.event("start", url=addresses.url, admin_url=addresses.admin_url)
        if on_start is not None:
            on_start(addresses, app)
        await _until(stopped, running)
        app.log.event("drain", in_flight=app.figures.in_flight)
        deadline = time.monotonic() + settings.drain_seconds
        for server in servers:
            server.stop()
        await asyncio.gather(*running)
        answered = await app.drain(settings.drain_seconds)
        await _closed(ports, deadline)
        app.log.event("end", all_answered=answered)
    finally:
        await app.stop()
        for each in held:
            each.close()


def _on_signal(stopped: asyncio.Event) -> None:
    if stopped.is_set():
        os._exit(1)
    stopped.set()


def _server(app: Any, host: str, port: int, settings: Settings) -> Server:
    return Server(
        app,
        address=host,
        port=port,
        interface=Interfaces.ASGINL,
        http=HTTPModes.http1,
        websockets=False,
        backlog=_BACKLOG,
        backpressure=_MAX_CONNECTIONS,
        http1_settings=HTTP1Settings(header_read_timeout=int(settings.header_seconds * 1e3)),
        log_enabled=False,
    )


def _hold(host: str, port: int, setting: str) -> socket.socket:
    """A socket that holds an address, so that a free port stays ours; granian's own listens there too.

    granian shares ports (SO_REUSEPORT): a second server on a port would get half of the first one's requests. So the
    address is first taken without sharing.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except OSError:
        raise ConfigError("is no address of this machine", host=host) from None
    found: Any = address
    for shared in (False, True):
        held = socket.socket(family, kind, protocol)
        try:
            held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if shared:
                held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            held.bind(found)
        except OSError as error:
            held.close()
            text = (
                "is taken: another process listens there" if error.errno == 98 else f"cannot be used: {error.strerror}"
            )
            raise ConfigError(f"{_bracketed(host)}:{port} {text}", argument=setting) from None
        if not shared:
            found = (found[0], held.getsockname()[1], *found[2:])
            held.close()
    return held


async def _accepting(host: str, port: int, running: list[asyncio.Task[None]]) -> None:
    """Waits until a connection is accepted."""
    while True:
        _raise_ended(running)
        try:
            _, writer = await asyncio.open_connection(_ANY_ADDRESS.get(host, host), port)
        except OSError:
            await asyncio.sleep(0.005)
            continue
        writer.close()
        return


async def _until(stopped: asyncio.Event, running: list[asyncio.Task[None]]) -> None:
    waiting = asyncio.create_task(stopped.wait())
    await asyncio.wait([waiting, *running], return_when=asyncio.FIRST_COMPLETED)
    if not waiting.done():
        waiting.cancel()
        _raise_ended(running)


def _raise_ended(running: list[asyncio.Task[None]]) -> None:
    for task in running:
        if task.done():
            raise ServingError(f"the server ended by itself: {task.exception() or 'it could not listen'}")


def _connections(ports: list[int]) -> int:
    """How many connections to our ports are open, as the kernel sees them."""
    count = 0
    for file in ("tcp", "tcp6"):
        try:
            lines = Path("/proc/net", file).read_text().splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            _, local, _, state, *_ = line.split()
            count += state in _OPEN and int(local.rpartition(":")[2], 16) in ports
    return count


async def _closed(ports: list[int], deadline: float) -> None:
    """Waits until the connections are closed, whose answers granian's thread may still be writing."""
    while _connections(ports) and time.monotonic() < deadline:
        await asyncio.sleep(0.01)


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
