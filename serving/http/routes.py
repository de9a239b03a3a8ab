"""The routes that compute: a request whose body is here -> its answer. A new one is a method and a line in `Routes`."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeAlias, TypeVar

import numpy as np

from embtables.serving import wire
from embtables.serving.events.events import Events
from embtables.serving.http.exchange import answers, parse
from embtables.serving.http.exchange.arrow import read_rows
from embtables.serving.http.exchange.call import Answer, Call
from embtables.serving.http.exchange.events import events_of
from embtables.serving.http.exchange.known_heads import Head, KnownHeads
from embtables.serving.http.exchange.tokens import Tokens
from embtables.serving.http.figures import Figures
from embtables.serving.http.logs.request_log import RequestLog
from embtables.serving.refusals import Refusal
from embtables.serving.service import RowBytes, Service
from embtables.serving.settings import Settings

T = TypeVar("T")
Handler: TypeAlias = "Callable[[Call], Awaitable[Answer]]"


class Routes:
    """Handlers by path; all are asked with POST.

    Attributes:
        events: the log of events, once it is there.
        request_log: where a sample of requests is written, once it is there.
        known_heads: of requests for rows as bytes.
    """

    def __init__(self, settings: Settings, service: Service, figures: Figures) -> None:
        self._settings, self._service, self._figures = settings, service, figures
        self._caps = parse.Caps.of(settings)
        self.request_log: RequestLog | None = None
        self.events: Events | None = None
        self._event_tokens = Tokens([token.get_secret_value() for token in settings.event_tokens])
        self.known_heads = KnownHeads()
        self.handlers: dict[str, Handler] = {
            "/v1/score": self._score,
            "/v1/embed": self._embed,
            "/v1/explain": self._explain,
            "/v1/events": self._events,
            "/v1/retrieve": self._retrieve,
        }

    async def answer(self, handler: Handler, call: Call) -> Answer:
        """Answers a request whose body was read. Raises Refusal, or an EmbtablesError."""
        call.stages_us["read"] = (time.perf_counter() - call.began) * 1e6
        headers = call.headers
        if wire.MIN_DENSE_VERSION in headers or wire.MIN_ROW_VERSION in headers:
            await self._service.reach(headers.get(wire.MIN_DENSE_VERSION), headers.get(wire.MIN_ROW_VERSION))
        return await handler(call)

    async def _score(self, call: Call) -> Answer:
        kind = call.content_type
        if kind == wire.ARROW:
            form = answers.form_of(call, wire.ARROW)
            request: Any = read_rows(call.body, self._caps)
            call.size = request.num_rows
        elif kind == wire.JSON:
            form = answers.form_of(call, wire.JSON)
            parse.need_no_parameters(call)
            request = parse.rows_request(call, self._caps)
        else:
            raise _other_type(kind, wire.JSON, wire.ARROW)
        call.stages_us["parse"] = (time.perf_counter() - call.began) * 1e6 - call.stages_us["read"]
        score = self._service.score if kind == wire.JSON else self._service.score_table
        found = await self._in_turn(score(request))
        call.versions = found.versions
        call.stages_us.update(found.stages_us)
        began = time.perf_counter()
        answer = answers.scored(call, found, form)
        call.stages_us["encode"] = (time.perf_counter() - began) * 1e6
        if self.events is not None and self.events.logs_served:
            began = time.perf_counter()
            self._figures.events["served"] += await self.events.served(call.request_id, found)
            call.stages_us["log"] = (time.perf_counter() - began) * 1e6
        if self.request_log is not None and self.request_log.draws():
            keeps = self.request_log.keeps_values
            asked = request if found.asked is None or not keeps else found.asked()
            features = await self._service.fingerprints(asked, found.versions) if keeps else {}
            self.request_log.put(call, asked, found, features)
        return answer

    async def _in_turn(self, asked: Coroutine[Any, Any, T]) -> T:
        """What the service answers. Raises Refusal: 429 too many wait already, 503 it takes too long."""
        figures = self._figures
        if figures.waiting >= self._settings.max_queue:
            asked.close()
            raise Refusal(429, f"{figures.waiting:,} requests wait already; try again", retry_after=1)
        figures.waiting += 1
        try:
            async with asyncio.timeout(self._settings.request_seconds):
                return await asked
        except TimeoutError:
            raise Refusal(503, "the answer took too long; try again", retry_after=1) from None
        finally:
            figures.waiting -= 1

    async def _embed(self, call: Call) -> Answer:
        kind = call.content_type
        if kind == wire.BYTES:
            form = answers.form_of(call, wire.BYTES, (wire.JSON, wire.BYTES))
            wanted = parse.embed_bytes(call, self._caps)
        elif kind == wire.JSON:
            form = answers.form_of(call, wire.JSON, (wire.JSON, wire.BYTES))
            parse.need_no_parameters(call)
            wanted = parse.embed_request(call, self._caps)
        else:
            raise _other_type(kind, wire.JSON, wire.BYTES)
        if kind == form == wire.BYTES:
            rows = self._service.embed_bytes(feature=wanted.feature, table=wanted.table, ids=np.asarray(wanted.ids))
            call.versions = rows.versions
            self.known_heads.keep(call, wanted.feature, wanted.table)
            answer = Answer(200, form, rows.rows)
            answer.headers = answers.row_headers(call.request_id, rows)
            return answer
        found = self._service.embed(feature=wanted.feature, table=wanted.table, ids=wanted.ids)
        call.versions = found.versions
        return answers.embedded(call, found, form)

    def rows_of(self, head: Head, body: bytes) -> RowBytes:
        """What a request for rows as bytes reads, whose head is known. Raises as `answer`."""
        return self._service.embed_bytes(feature=head.feature, table=head.table, ids=np.frombuffer(body, "<i8"))

    async def _explain(self, call: Call) -> Answer:
        if call.content_type != wire.JSON:
            raise _other_type(call.content_type, wire.JSON)
        answers.form_of(call, wire.JSON, (wire.JSON,))
        parse.need_no_parameters(call)
        found = await self._in_turn(self._service.explain(parse.score_request(call, self._caps)))
        call.versions = found.versions
        found.request_id = call.request_id
        return answers.as_json(200, found)

    async def _events(self, call: Call) -> Answer:
        if self.events is None:
            raise Refusal(501, "this server keeps no events: start it with --events folder:///path")
        if self._settings.event_tokens:
            self._event_tokens.check(call)
        answers.form_of(call, wire.JSON, (wire.JSON,))
        parse.need_no_parameters(call)
        batch = events_of(call, self._caps)
        refused = [wire.RefusedEvent(row, reason) for row, reason in await self.events.take(batch)]
        self._figures.events["accepted"] += batch.num_rows - len(refused)
        self._figures.events.update(each.reason for each in refused)
        return answers.as_json(200, wire.EventsAnswer(call.request_id, batch.num_rows - len(refused), refused))

    async def _retrieve(self, call: Call) -> Answer:
        raise Refusal(501, "retrieval is not served yet: score candidates with /v1/score")


def _other_type(received: str, *taken: str) -> Refusal:
    return Refusal(415, f"a body is {' or '.join(taken)}, received Content-Type {received[:60]}")
