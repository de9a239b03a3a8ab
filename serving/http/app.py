"""`create_app`: the server as an application, of ASGI and of granian's own interface (RSGI).

Requests for scores and embeddings are answered here: their head is checked, their body read within limits, what is
asked is answered (routes.py), counted and logged. Pages go to starlette (pages.py). RSGI hands a request over in half
the time that ASGI takes, so `embtables serve` uses it; any ASGI server, such as Ray Serve's, uses the other.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias

from embtables.errors import ConfigError, DataError, EmbtablesError
from embtables.serving.events.events import Events
from embtables.serving.http.exchange import answers
from embtables.serving.http.exchange.body import LEFT, AsgiSource, Bodies, Receive, Source
from embtables.serving.http.exchange.call import Answer, Call, new_id
from embtables.serving.http.exchange.known_heads import Head
from embtables.serving.http.figures import Figures
from embtables.serving.http.logs.log import Log
from embtables.serving.http.logs.request_log import RequestLog
from embtables.serving.http.pages.pages import Pages
from embtables.serving.http.routes import Routes
from embtables.serving.refusals import Refusal
from embtables.serving.service import Service
from embtables.serving.settings import Settings

Send: TypeAlias = Callable[[dict[str, Any]], Awaitable[None]]

_EMBED = "/v1/embed"
_FAULT = "a fault of the server, which its log describes"


def create_app(settings: Settings | None = None, service: Service | None = None) -> App:
    """The application; it starts nothing before its lifespan begins, in the process that answers.

    Args:
        settings: by default those of the environment, `EMBTABLES_SERVE_*`.
        service: what answers; by default the versions in `settings.source`, followed.

    Raises:
        ConfigError: a setting is wrong.
    """
    settings = Settings.read({}) if settings is None else settings
    if service is None:
        from embtables.serving.live_service import live_service

        service = live_service(settings)
    return App(settings, service)


class App:
    """An application over a service.

    Attributes:
        figures: counts of requests.
    """

    def __init__(self, settings: Settings, service: Service) -> None:
        self.settings, self.service = settings, service
        self.figures = Figures()
        self._bodies = Bodies(settings.max_body_bytes, settings.max_buffered_bytes, settings.body_seconds)
        self._routes = Routes(settings, service, self.figures)
        self._pages = Pages(service, self.figures, lambda: self.is_draining, self._dropped_lines)
        self.is_draining = False
        self._idle = asyncio.Event()
        self._log: Log | None = None

    async def start(self) -> None:
        """Begins to load versions and to write logs. Raises EmbtablesError: there is nothing to serve."""
        self._log = Log(self.settings)
        if self.settings.request_log is not None:
            self._routes.request_log = RequestLog(self.settings)
        if self.settings.events is not None:
            self._routes.events = Events(self.settings, self.service.running)
        await self.service.start()

    async def drain(self, seconds: float) -> bool:
        """Waits until the requests that came are answered; whether they were, within that time."""
        self.is_draining = True
        self._idle.clear()
        if self.figures.in_flight:
            try:
                await asyncio.wait_for(self._idle.wait(), seconds)
            except TimeoutError:
                return False
        return True

    async def stop(self) -> None:
        """Ends what `start` began."""
        await self.service.stop()
        for log in (self._log, self._routes.request_log, self._routes.events):
            if log is not None:
                log.close()

    def _dropped_lines(self) -> dict[str, int]:
        """By log how many of its lines were not written."""
        logs = {"log": self._log, "request_log": self._routes.request_log}
        return {name: log.dropped for name, log in logs.items() if log is not None}

    @property
    def log(self) -> Log:
        """Where it says what happens; once started."""
        assert self._log is not None
        return self._log

    async def __call__(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        """ASGI: one request, or the lifespan."""
        if scope["type"] == "http":
            await self.asgi(self.answer, scope, receive, send)
        elif scope["type"] == "lifespan":
            await self._lifespan(receive, send)
        else:
            raise RuntimeError(f"no {scope['type']} here")

    async def __rsgi__(self, scope: Any, protocol: Any) -> None:
        """RSGI: one request."""
        if scope.path == _EMBED and not self.is_draining:
            head = self._routes.known_heads.find(scope)
            if head is not None:
                await self._rows(head, scope, protocol)
                return
        await self.rsgi(self.answer, scope, protocol)

    async def _rows(self, head: Head, scope: Any, protocol: Any) -> None:
        """Answers a request for rows as bytes whose head came before, and counts it as `answer` does."""
        began = time.perf_counter()
        self.figures.in_flight += 1
        try:
            body = await self._bodies.read_of(head.length, protocol)
            found = self._routes.rows_of(head, body)
            request_id = new_id()
            protocol.response_bytes(200, answers.row_headers(request_id, found), found.rows)
        except LEFT:
            return
        except Exception as error:
            call = Call.of_rsgi(scope)
            call.began = began
            refusal = self.refusal(call, error)
            said = self._ended_with(_EMBED, call, answers.refused(call, refusal), refusal.field)
            protocol.response_bytes(said.status, said.headers, said.body)
            return
        finally:
            self._ended()
        ended = time.perf_counter()
        self.figures.add(_EMBED, 200, began, ended, rows=head.length // 8)
        if self.log.wants(ended - began):
            call = Call.of_rsgi(scope)
            call.request_id, call.size, call.versions = request_id, head.length // 8, found.versions
            self.log.request(_EMBED, call, 200, ended - began)

    async def asgi(
        self, answer: Callable[[Call, Source], Awaitable[Answer]], scope: dict[str, Any], receive: Receive, send: Send
    ) -> None:
        """Answers one request of ASGI, and counts it as in flight until that is sent."""
        self.figures.in_flight += 1
        try:
            said = await answer(Call.of_asgi(scope), AsgiSource(receive))
            headers = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in said.headers]
            headers.append((b"content-length", b"%d" % len(said.body)))
            await send({"type": "http.response.start", "status": said.status, "headers": headers})
            await send({"type": "http.response.body", "body": said.body})
        except LEFT:
            return
        finally:
            self._ended()

    async def rsgi(self, answer: Callable[[Call, Source], Awaitable[Answer]], scope: Any, protocol: Any) -> None:
        """Answers one request of RSGI, and counts it as in flight until that is sent."""
        self.figures.in_flight += 1
        try:
            said = await answer(Call.of_rsgi(scope), protocol)
            protocol.response_bytes(said.status, said.headers, said.body)
        except LEFT:
            return
        finally:
            self._ended()

    async def answer(self, call: Call, source: Source) -> Answer:
        """The answer to a public request. Raises one of LEFT."""
        handler = self._routes.handlers.get(call.path)
        field = None
        try:
            call.check()
            if handler is None:
                answer = await self._pages.answer(call)
            else:
                if call.method != "POST":
                    raise Refusal(405, "ask with POST", allow="POST")
                call.body = await self._bodies.read(call.headers, source)
                answer = await self._routes.answer(handler, call)
        except LEFT:
            raise
        except Exception as error:
            refusal = self.refusal(call, error)
            answer, field = answers.refused(call, refusal), refusal.field
        return self._ended_with("other" if handler is None else call.path, call, answer, field)

    def _ended_with(self, route: str, call: Call, answer: Answer, field: str | None) -> Answer:
        """Counts and logs an answer."""
        if self.is_draining:
            answer.headers.append(("connection", "close"))
        ended = time.perf_counter()
        self.figures.add(route, answer.status, call.began, ended, rows=call.size, stages_us=call.stages_us)
        self.log.request(route, call, answer.status, ended - call.began, field)
        return answer

    def refusal(self, call: Call, error: Exception) -> Refusal:
        """What an error says to a client; faults go to the log."""
        if isinstance(error, Refusal):
            return error
        if isinstance(error, EmbtablesError):
            place = error.path.get("feature") or error.path.get("column") or error.path.get("table")
            status = 422 if isinstance(error, DataError | ConfigError) else 503
            return Refusal(status, error.message, None if place is None else str(place))
        self.log.fault(call, error)
        return Refusal(500, _FAULT)

    def _ended(self) -> None:
        """One request less."""
        self.figures.in_flight -= 1
        if self.is_draining and not self.figures.in_flight:
            self._idle.set()

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        await receive()
        try:
            await self.start()
        except EmbtablesError as error:
            await send({"type": "lifespan.startup.failed", "message": str(error)})
            return
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await self.stop()
        await send({"type": "lifespan.shutdown.complete"})
