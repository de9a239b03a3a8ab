"""The whole loop, parts of which are killed while it runs: a client posts visits and clicks until each is acknowledged.

    client -> server (--log-served, /v1/events) -> event log -> live trainer -> versions -> server

What is killed is started again, the server and the broker on the same port. At the end the trainer drains the log. The
broker with Kafka's protocol keeps everything in memory: it is not killed.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from datetime import UTC, datetime
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any, Literal

import httpx

from embtables.events import open_log
from tests.events.servers_for_tests import KafkaBroker, RedisServer, Server, free_port
from tests.faults import forked
from tests.faults.online import drains, world
from tests.faults.online.world import SECOND_US, Event, Visit

Part = Literal["trainer", "server", "broker"]
LogKind = Literal["folder", "redis", "kafka"]
_WAIT = 120.0  # seconds


class Loop:
    """The processes of one loop; see the module."""

    def __init__(self, folder: Path, uri: str, broker: Server | None) -> None:
        self.folder, self.uri, self._broker = folder, uri, broker
        self.config, self._port, self._begin_us = world.prepare(folder, uri), free_port(), _now_us() - 3600 * SECOND_US
        with closing(open_log(f"{uri}?partitions=2")):
            pass  # is made with two partitions
        self.trainer = self._trainer()
        self.run = _wait_for(self._published, self.trainer)
        self.server = self._server()
        self.client = httpx.Client(base_url=f"http://127.0.0.1:{self._port}", timeout=15)
        self._retry("get", "/readyz")

    def _published(self) -> Path | None:
        found = list((self.folder / "runs").glob("*/checkpoints/manifests/serving-*.json"))
        return found[0].parents[2] if found else None

    def _trainer(self) -> ForkServerProcess:
        run = drains.resumable(self.folder / "runs")
        arguments = ["--resume", str(run)] if run is not None else [str(self.config)]
        return forked.command(self.folder / "trainer", "online", *arguments)

    def _server(self) -> ForkServerProcess:
        flags = ["--port", str(self._port), "--threads", "1", "--events", self.uri, "--log-served"]
        return forked.command(self.folder / "server", "serve", str(self.run), *flags)

    def kill(self, part: Part) -> None:
        """SIGKILL, and a new process."""
        if part == "broker":
            assert self._broker is not None
            self._broker.kill()
            self._broker.start()
            return
        process: ForkServerProcess = getattr(self, part)
        process.kill()
        process.join()
        assert process.exitcode == -9, (self.folder / part).read_text()
        setattr(self, part, getattr(self, f"_{part}")())

    def visit(self, visit: Visit) -> None:
        """Asks for scores until it is answered."""
        first = visit.impressions[0]
        body = {
            "request_id": first.request,
            "context": {"user": first.values["user"], "event_time": self._time(first)},
            "candidates": [{name: e.values[name] for name in ("item", "shown")} for e in visit.impressions],
        }
        self._retry("post", "/v1/score", json=body)

    def click(self, clicks: Sequence[Event]) -> None:
        """Posts events until they are acknowledged."""
        body = [
            {
                **{"event_id": e.event_id, "kind": e.kind, "event_time": self._time(e), "request_id": e.request},
                "item": e.values["item"],
            }
            for e in clicks
        ]
        answer = self._retry("post", "/v1/events", json={"events": body}).json()
        assert (answer["accepted"], answer["refused"]) == (len(body), [])

    def _time(self, event: Event) -> str:
        return datetime.fromtimestamp((self._begin_us + round(event.at * SECOND_US)) / 1e6, UTC).isoformat()

    def _retry(self, method: str, path: str, **options: Any) -> httpx.Response:
        deadline = time.monotonic() + _WAIT
        while True:
            answer = None
            try:
                answer = self.client.request(method, path, **options)
            except httpx.TransportError:
                self.client.close()  # what broke may still be in its pool
                self.client = httpx.Client(base_url=self.client.base_url, timeout=15)
            if answer is not None and answer.status_code == 200:
                return answer
            assert answer is None or answer.status_code in (429, 503), answer.text
            for part in ("trainer", "server"):
                process: ForkServerProcess = getattr(self, part)
                assert process.is_alive(), (self.folder / part).read_text()
            assert time.monotonic() < deadline, answer and answer.text
            time.sleep(0.02)

    def drain(self) -> drains.Drained:
        """Ends the live trainer; another one drains the log."""
        assert self.trainer.is_alive(), (self.folder / "trainer").read_text()
        self.trainer.kill()
        self.trainer.join()
        with closing(open_log(self.uri)) as log:
            world.end(log, self._begin_us)
        return drains.drain(self.config)

    def close(self) -> None:
        """Ends all processes."""
        self.client.close()
        for process in (self.trainer, self.server):
            process.kill()
            process.join()


@contextmanager
def loop(folder: Path, kind: LogKind) -> Iterator[Loop]:
    """A loop over a log of its own."""
    with ExitStack() as stack:
        broker: Server | None = None
        if kind != "folder":
            broker = RedisServer(folder) if kind == "redis" else KafkaBroker(folder)
            stack.callback(broker.kill)
        uri = f"folder://{folder}/events" if broker is None else f"{broker.uri}/events"
        made = Loop(folder, uri, broker)
        stack.callback(made.close)
        yield made


def survive(folder: Path, kind: LogKind, kills: Sequence[Part], seed: int, made: Sequence[Visit]) -> None:
    """Lets the world go by while parts are killed, in this order, at random moments."""
    rng = random.Random(seed)
    moments = world.in_order(made)
    at = sorted(rng.sample(range(len(moments)), len(kills)))
    due = dict(zip(at, kills, strict=True))
    of = {visit.impressions[0].event_id: visit for visit in made}
    with loop(folder, kind) as running:
        for number, event in enumerate(moments):
            if number in due:
                running.kill(due[number])
            if event.kind == "click":
                running.click([event])
            elif event.event_id in of:
                running.visit(of[event.event_id])
        drained = running.drain()
        with closing(open_log(running.uri)) as log:
            joined = drains.assert_used_once(drained, log)
    # Everything was acknowledged: nothing of it may be missing.
    assert joined.ids - {"end-0", "end-1"} == {event.event_id for event in moments}


def _wait_for(look: Callable[[], Path | None], process: ForkServerProcess) -> Path:
    deadline = time.monotonic() + _WAIT
    while (found := look()) is None:
        assert process.is_alive() and time.monotonic() < deadline, "the trainer has ended"
        process.join(0.05)
    return found


def _now_us() -> int:
    return time.time_ns() // 1000
