"""`create_app`: the server as an ASGI application.

Requests for scores and embeddings are answered here: their head is checked, their body read within limits, what is
asked is parsed and answered, counted and logged. Pages go to starlette (pages.py).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias

from embtables.errors import ConfigError, DataError, EmbtablesError
from embtables.serving import wire
from embtables.serving.http import answers, parse
from embtables.serving.http.arrow import read_rows
from embtables.serving.http.body import Bodies, Gone, Receive
from embtables.serving.http.call import Answer, Call
from embtables.serving.http.figures import Figures
from embtables.serving.http.log import Log
from embtables.serving.http.pages import make_pages
from embtables.serving.http.request_log import RequestLog
from embtables.serving.refusals import Refusal
from embtables.serving.service import Service
from embtables.serving.settings import Settings

Send: TypeAlias = Callable[[dict[str, Any]], Awaitable[None]]
Handler: TypeAlias = "Callable[[Call], Awaitable[Answer]]"

_JSON, _BYTES, _ARROW = wire.JSON.encode(), wire.BYTES.encode(), wire.ARROW.encode()
_MIN_DENSE, _MIN_ROWS = wire.MIN_DENSE_VERSION.encode(), wire.MIN_ROW_VERSION.encode()


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
    """An ASGI application over a service.

    Attributes:
        figures: counts of requests.
    """

    def __init__(self, settings: Settings, service: Service) -> None:
        self.settings, self.service = settings, service
        self.figures = Figures()
        self._caps = parse.Caps.of(settings)
        self._bodies = Bodies(settings.max_body_bytes, settings.max_buffered_bytes, settings.body_seconds)
        self._handlers: dict[str, Handler] = {
            "/v1/score": self._score,
            "/v1/embed": self._embed,
            "/v1/explain": self._explain,
            "/v1/retrieve": self._retrieve,
        }
        self._pages = make_pages(service, self.figures, lambda: self.is_draining)
        self.is_draining = False
        self._idle = asyncio.Event()
        self._log: Log | None = None
        self._request_log: RequestLog | None = None

    async def start(self) -> None:
        """Begins to load versions and to write logs. Raises EmbtablesError: there is nothing to serve."""
        self._log = Log(self.settings)
        if self.settings.request_log is not None:
            self._request_log = RequestLog(self.settings)
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
        for log in (self._log, self._request_log):
            if log is not None:
                log.close()

    @property
    def log(self) -> Log:
        """Where it says what happens; once started."""
        assert self._log is not None
        return self._log

    async def __call__(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        """ASGI: one request, or the lifespan."""
        if scope["type"] == "http":
            self.figures.in_flight += 1
            try:
                await self._http(Call(scope), scope, receive, send)
            finally:
                self.ended()
        elif scope["type"] == "lifespan":
            await self._lifespan(receive, send)
        else:
            raise RuntimeError(f"no {scope['type']} here")

    async def _http(self, call: Call, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        route, field = call.path, None
        try:
            call.check(scope)
            handler = self._handlers.get(call.path)
            if handler is None:
                await self._page(call, scope, receive, send)
                return
            if call.method != "POST":
                raise Refusal(405, "ask with POST", allow="POST")
            call.body = await self._bodies.read(call.headers, receive)
            call.stages_us["read"] = (time.perf_counter() - call.began) * 1e6
            if _MIN_DENSE in call.headers or _MIN_ROWS in call.headers:
                await self.service.reach(_text(call.headers.get(_MIN_DENSE)), _text(call.headers.get(_MIN_ROWS)))
            answer = await handler(call)
        except Refusal as refusal:
            answer, field = answers.refused(call, refusal), refusal.field
        except Gone:
            return
        except EmbtablesError as error:
            known = as_refusal(error)
            answer, field = answers.refused(call, known), known.field
        except Exception as error:
            self.log.fault(call, error)
            answer = answers.refused(call, Refusal(500, "a fault of the server, which its log describes"))
        if route not in self._handlers:
            route = "other"
        if self.is_draining:
            answer.headers.append((b"connection", b"close"))
        await send({"type": "http.response.start", "status": answer.status, "headers": answer.headers})
        await send({"type": "http.response.body", "body": answer.body})
        seconds = time.perf_counter() - call.began
        self.figures.add(route, call, answer.status, seconds)
        self.log.request(route, call, answer.status, seconds, field)

    async def _page(self, call: Call, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        status = 500

        async def watched(message: Any) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._pages(scope, receive, watched)
        except Exception as error:  # answered with 500 already
            self.log.fault(call, error)
        self.figures.by_status["other", status] += 1

    def ended(self) -> None:
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

    async def _score(self, call: Call) -> Answer:
        kind = call.content_type
        if kind == wire.ARROW:
            form = answers.form_of(call, _ARROW)
            request: Any = read_rows(call.body, self._caps)
            call.size = request.num_rows
        elif kind == wire.JSON:
            form = answers.form_of(call, _JSON)
            parse.need_no_parameters(call)
            request = parse.score_request(call, self._caps)
        else:
            raise _other_type(kind, wire.JSON, wire.ARROW)
        _stage(call, "parse")
        if self.figures.waiting >= self.settings.max_queue:
            raise Refusal(429, f"{self.figures.waiting:,} requests wait already; try again", retry_after=1)
        self.figures.waiting += 1
        try:
            async with asyncio.timeout(self.settings.request_seconds):
                score = self.service.score_table if kind == wire.ARROW else self.service.score
                found = await score(request)
        except TimeoutError:
            raise Refusal(503, "the answer took too long; try again", retry_after=1) from None
        finally:
            self.figures.waiting -= 1
        call.versions = found.versions
        call.stages_us.update(found.stages_us)
        began = time.perf_counter()
        answer = answers.scored(call, found, form)
        call.stages_us["encode"] = (time.perf_counter() - began) * 1e6
        if self._request_log is not None and self._request_log.draws():
            keeps = self._request_log.keeps_values
            features = await self.service.fingerprints(request, found.versions) if keeps else {}
            self._request_log.put(call, request, found, features)
        return answer

    async def _embed(self, call: Call) -> Answer:
        kind = call.content_type
        if kind == wire.BYTES:
            form = answers.form_of(call, _BYTES, (_JSON, _BYTES))
            wanted = parse.embed_bytes(call, self._caps)
        elif kind == wire.JSON:
            form = answers.form_of(call, _JSON, (_JSON, _BYTES))
            parse.need_no_parameters(call)
            wanted = parse.embed_request(call, self._caps)
        else:
            raise _other_type(kind, wire.JSON, wire.BYTES)
        found = self.service.embed(feature=wanted.feature, table=wanted.table, ids=wanted.ids)
        call.versions = found.versions
        return answers.embedded(call, found, form)

    async def _explain(self, call: Call) -> Answer:
        if call.content_type != wire.JSON:
            raise _other_type(call.content_type, wire.JSON)
        answers.form_of(call, _JSON, (_JSON,))
        found = await self.service.explain(parse.score_request(call, self._caps))
        call.versions = found.versions
        found.request_id = call.request_id
        return answers.as_json(200, found)

    async def _retrieve(self, call: Call) -> Answer:
        raise Refusal(501, "retrieval is not served yet: score candidates with /v1/score")


def _stage(call: Call, stage: str) -> None:
    """Notes the time since the stages before."""
    took = (time.perf_counter() - call.began) * 1e6 - sum(call.stages_us.values())
    call.stages_us[stage] = took


def _other_type(received: str, *taken: str) -> Refusal:
    return Refusal(415, f"a body is {' or '.join(taken)}, received Content-Type {received[:60]}")


def _text(value: bytes | None) -> str | None:
    return None if value is None else value.decode("latin-1")


def as_refusal(error: EmbtablesError) -> Refusal:
    """An error of the engine as an answer."""
    place = error.path.get("feature") or error.path.get("column") or error.path.get("table")
    status = 422 if isinstance(error, DataError | ConfigError) else 503
    return Refusal(status, error.message, None if place is None else str(place))
