"""The admin routes, on a port of their own and behind a token: which version answers.

POST /admin/pin {"version": "serving-12"}   answers with it and stays there
POST /admin/rollback {}                     the same with the version before the present one, or with one given
POST /admin/follow                          follows the newest again
POST /admin/pause                           stays with the present version
GET  /admin/status
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

from embtables.serving import wire
from embtables.serving.http.app import App, Send
from embtables.serving.http.exchange import answers, parse
from embtables.serving.http.exchange.body import LEFT, Bodies, Receive, Source
from embtables.serving.http.exchange.call import Answer, Call
from embtables.serving.http.exchange.tokens import Tokens
from embtables.serving.refusals import Refusal, hint

_MAX_BODY = 4096
_STATUS = "/admin/status"


class AdminApp:
    """An ASGI application over an `App`'s service.

    Args:
        tokens: one or two; a request has one of them: `Authorization: Bearer <token>`.
    """

    def __init__(self, app: App, tokens: tuple[str, ...]) -> None:
        self._app = app
        self._tokens = Tokens(tokens)
        self._bodies = Bodies(_MAX_BODY, 16 * _MAX_BODY, app.settings.body_seconds)
        self._one = asyncio.Lock()
        self._actions: dict[str, Callable[[bytes], None]] = {
            "/admin/pin": self._pin,
            "/admin/rollback": self._roll_back,
            "/admin/follow": lambda body: self._app.service.follow(),
            "/admin/pause": lambda body: self._app.service.pause(),
        }

    async def __call__(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        """ASGI: one request."""
        if scope["type"] != "http":
            raise RuntimeError(f"no {scope['type']} here")
        await self._app.asgi(self._answer, scope, receive, send)

    async def __rsgi__(self, scope: Any, protocol: Any) -> None:
        """RSGI: one request."""
        await self._app.rsgi(self._answer, scope, protocol)

    async def _answer(self, call: Call, source: Source) -> Answer:
        try:
            answer = await self._done(call, source)
        except LEFT:
            raise
        except Exception as error:
            answer = answers.refused(call, self._app.refusal(call, error))
        self._app.log.event(
            "admin",
            request_id=call.request_id,
            route=call.path if call.path in (*self._actions, _STATUS) else "other",
            status=answer.status,
            us=round((time.perf_counter() - call.began) * 1e6),
        )
        return answer

    async def _done(self, call: Call, source: Source) -> Answer:
        call.check()
        self._tokens.check(call)
        if call.path == _STATUS:
            if call.method != "GET":
                raise Refusal(405, "ask with GET", allow="GET")
            return self._status()
        action = self._actions.get(call.path)
        if action is None:
            raise Refusal(404, f"there is no such route; {hint(call.path, [*self._actions, _STATUS])}")
        if call.method != "POST":
            raise Refusal(405, "ask with POST", allow="POST")
        body = await self._bodies.read(call.headers, source)
        async with self._one:
            await asyncio.to_thread(action, body)
        return self._status()

    def _status(self) -> Answer:
        service = self._app.service
        try:
            versions: wire.Versions | None = service.model().versions
        except Refusal:
            versions = None
        return answers.as_json(200, wire.AdminStatus(versions, service.follow_info()))

    def _pin(self, body: bytes) -> None:
        self._app.service.pin(parse.decode(wire.PinRequest, body).version)

    def _roll_back(self, body: bytes) -> None:
        version = parse.decode(wire.RollBackRequest, body or b"{}").version
        service = self._app.service
        service.pin(service.version_before() if version is None else version)
