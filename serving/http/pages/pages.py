"""Pages and figures of a server, by starlette: what GET asks for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from embtables.serving import wire
from embtables.serving.http.exchange.call import Answer, Call
from embtables.serving.http.figures import Figures, Metrics
from embtables.serving.http.pages.openapi import openapi
from embtables.serving.refusals import Refusal
from embtables.serving.service import Service

_HERE = Path(__file__).parent
# The pages load nothing from elsewhere, and nothing from elsewhere loads them.
_POLICY = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; connect-src 'self'; img-src data:"
_HEADERS = {
    "content-security-policy": f"{_POLICY}; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",
}


class Pages:
    """The routes for GET.

    Args:
        is_draining: whether the server ends.
        dropped_lines: by log how many of its lines were not written.
    """

    def __init__(
        self,
        service: Service,
        figures: Figures,
        is_draining: Callable[[], bool],
        dropped_lines: Callable[[], Mapping[str, int]],
    ) -> None:
        self._application = _application(service, figures, is_draining, Metrics(figures, service, dropped_lines))

    async def answer(self, call: Call) -> Answer:
        """What starlette answers. Raises what a page raises, such as a Refusal."""
        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "scheme": "http",
            "method": call.method,
            "path": call.path,
            "root_path": "",
            "query_string": call.query.encode("latin-1", "replace"),
            "headers": [(b"host", call.headers["host"].encode("latin-1"))],
            "client": None,
            "server": None,
        }
        status, headers, parts = 500, [], []

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message: Any) -> None:
            nonlocal status, headers
            if message["type"] == "http.response.start":
                status, headers = message["status"], message["headers"]
            else:
                parts.append(message.get("body", b""))

        await self._application(scope, receive, send)
        answer = Answer(status, "", b"".join(parts))
        pairs = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in headers]
        answer.headers = [pair for pair in pairs if pair[0] != "content-length"]
        return answer


def _application(service: Service, figures: Figures, is_draining: Callable[[], bool], metrics: Metrics) -> Starlette:
    """The routes for GET."""

    async def model(_: Request) -> Response:
        return _json(service.model())

    async def live(_: Request) -> Response:
        ready, reason = service.is_ready()
        info = service.model() if ready else None
        follow = service.follow_info()
        return _json(wire.Live(ready, reason, figures.live(), follow, info))

    async def healthz(_: Request) -> Response:
        return _json(wire.Readiness(True))

    async def readyz(_: Request) -> Response:
        ready, reason = service.is_ready()
        if is_draining():
            ready, reason = False, "it ends"
        return _json(wire.Readiness(ready, reason), 200 if ready else 503)

    async def scrape(_: Request) -> Response:
        return Response(metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    async def document(_: Request) -> Response:
        return _json(openapi())

    async def docs(_: Request) -> Response:
        return _page("docs.html")

    async def index(_: Request) -> Response:
        return _page("index.html")

    routes = {
        "/": index,
        "/docs": docs,
        "/openapi.json": document,
        "/v1/model": model,
        "/v1/live": live,
        "/healthz": healthz,
        "/readyz": readyz,
        "/metrics": scrape,
    }
    return Starlette(
        routes=[Route(path, endpoint, methods=["GET"]) for path, endpoint in routes.items()],
        exception_handlers={HTTPException: _no_such},
    )


def _json(body: object, status: int = 200) -> Response:
    headers = {"cache-control": "no-store"}
    return Response(msgspec.json.encode(body), status, headers, media_type=wire.JSON)


def _page(name: str) -> Response:
    return HTMLResponse((_HERE / name).read_text(encoding="utf-8"), headers=_HEADERS)


def _no_such(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    text = {404: "there is no such page; /docs says which there are", 405: "ask with GET"}
    allow = (error.headers or {}).get("Allow")
    raise Refusal(error.status_code, text.get(error.status_code, str(error.detail)), allow=allow) from None
