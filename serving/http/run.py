"""`serve`: runs the public and the admin server in this process, on one event loop, until a signal ends them.

granian's embedded server is used: its native thread reads and writes sockets, this process's loop answers. Nothing is
forked, so that tables, native threads and OpenMP may start here. At SIGTERM or SIGINT nothing new is accepted, what was
asked is answered within `drain_seconds`, and `serve` returns; a second SIGINT ends it at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import uvloop
from granian.constants import HTTPModes, Interfaces
from granian.http import HTTP1Settings
from granian.server.embed import Server

from embtables.errors import ConfigError, ServingError
from embtables.serving import wire
from embtables.serving.http.admin import AdminApp
from embtables.serving.http.app import App, create_app
from embtables.serving.service import Service
from embtables.serving.settings import Settings

_BACKLOG = 1024
# granian stops accepting at this number of open connections, idle ones included: the limit of file handles goes first.
_MAX_CONNECTIONS = 1_000_000
_LOOK_SECONDS = 0.02
_END_SECONDS = 5.0  # for granian to end, once its connections are closed
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
    on_start: Callable[[Addresses], None] | None = None,
    on_ready: Callable[[Addresses, wire.ModelInfo], None] | None = None,
) -> None:
    """Serves until SIGTERM or SIGINT; returns when what was asked is answered.

    Args:
        service: what answers; by default the versions in `settings.source`, followed.
        on_start: called once it accepts connections; versions may still be loading.
        on_ready: called once a version answers.

    Raises:
        ConfigError: an address is taken or none, a setting or the source is wrong.
        StateError: the source holds nothing that can be served.
        ServingError: it could not go on.
    """
    app = create_app(settings, service)
    with _turns_less_often():
        uvloop.run(_serve(settings, app, on_start or _nothing, on_ready or _nothing))


@contextlib.contextmanager
def _turns_less_often() -> Iterator[None]:
    """Threads that begin meanwhile do not interrupt each other when they wake.

    A request goes through three threads. On one busy core each would interrupt the one before it, at every request;
    so they take what has come meanwhile together: embeddings of 26 ids, 23,000 a second in place of 14,000. Whoever
    gave the process a policy of its own keeps it.
    """
    is_set = False
    with contextlib.suppress(AttributeError, OSError):  # another system, or a sandbox that forbids it
        if os.sched_getscheduler(0) == os.SCHED_OTHER:
            os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
            is_set = True
    try:
        yield
    finally:
        if is_set:
            os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))


def _nothing(*_: Any) -> None:
    """Nobody wants to be called."""


async def _serve(
    settings: Settings,
    app: App,
    on_start: Callable[[Addresses], None],
    on_ready: Callable[[Addresses, wire.ModelInfo], None],
) -> None:
    tokens = settings.tokens()
    admin = settings.admin_port if tokens else None
    with contextlib.ExitStack() as held:
        ports = [held.enter_context(_hold(settings.host, settings.port, "port")).getsockname()[1]]
        if admin is not None:
            ports.append(held.enter_context(_hold(settings.admin_host, admin, "admin_port")).getsockname()[1])
        addresses = Addresses(settings.host, ports[0], None if admin is None else (settings.admin_host, ports[1]))
        try:
            await _until_a_signal(settings, app, tokens, addresses, on_start, on_ready)
        finally:
            await app.stop()


async def _until_a_signal(
    settings: Settings,
    app: App,
    tokens: tuple[str, ...],
    addresses: Addresses,
    on_start: Callable[[Addresses], None],
    on_ready: Callable[[Addresses, wire.ModelInfo], None],
) -> None:
    """Starts, and answers at these addresses until a signal comes; then answers what was asked by then."""
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, _on_signal, number, stopped)
    await app.start()
    servers, ports = [_server(app, addresses.host, addresses.port, settings)], [addresses.port]
    if addresses.admin is not None:
        servers.append(_server(AdminApp(app, tokens), *addresses.admin, settings))
        ports.append(addresses.admin[1])
    running = [asyncio.create_task(server.serve()) for server in servers]
    await _accepting(addresses.host, addresses.port, running)
    app.log.event("start", url=addresses.url, admin_url=addresses.admin_url)
    on_start(addresses)
    waits = asyncio.create_task(_ready(app, addresses, on_ready))
    await _until(stopped, running)
    waits.cancel()
    app.log.event("drain", in_flight=app.figures.in_flight)
    deadline = time.monotonic() + settings.drain_seconds
    for server in servers:
        server.stop()  # type: ignore[no-untyped-call]
    answered = await app.drain(settings.drain_seconds)
    await _close_connections(ports, deadline)
    await asyncio.wait(running, timeout=_END_SECONDS)
    app.log.event("end", all_answered=answered)


def _on_signal(number: int, stopped: asyncio.Event) -> None:
    if stopped.is_set() and number == signal.SIGINT:
        os._exit(1)
    stopped.set()


def _server(app: Any, host: str, port: int, settings: Settings) -> Server:
    return Server(
        app,
        address=host,
        port=port,
        interface=Interfaces.RSGI,
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


async def _ready(app: App, addresses: Addresses, on_ready: Callable[[Addresses, wire.ModelInfo], None]) -> None:
    while not app.service.is_ready()[0]:
        await asyncio.sleep(_LOOK_SECONDS)
    # What is loaded now stays: a full collection of garbage would look at all of it, and hold every request meanwhile.
    gc.collect()
    gc.freeze()
    info = app.service.model()
    app.log.event("ready", dense_version=info.versions.dense, row_version=info.versions.rows)
    on_ready(addresses, info)


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


def _connections(ports: list[int]) -> list[socket.socket]:
    """The open connections to our ports, each once more; granian's thread has them."""
    found = []
    for handle in Path("/proc/self/fd").iterdir():
        try:
            if not handle.is_socket():
                continue
            opened = socket.socket(fileno=os.dup(int(handle.name)))
        except OSError:  # closed by now
            continue
        try:
            if opened.getsockname()[1] in ports and opened.getpeername():
                found.append(opened)
                continue
        except (OSError, IndexError):  # it listens, or is of another kind
            pass
        opened.close()
    return found


async def _close_connections(ports: list[int], deadline: float) -> None:
    """Waits until the connections are closed, whose answers granian's thread may still be writing; then closes them."""
    while opened := _connections(ports):
        late = time.monotonic() >= deadline
        for each in opened:
            if late:
                with contextlib.suppress(OSError):
                    each.shutdown(socket.SHUT_RDWR)
            each.close()
        if late:
            return
        await asyncio.sleep(0.01)


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
