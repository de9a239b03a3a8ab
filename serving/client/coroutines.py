"""`AsyncClient`: the server's calls, for coroutines."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Self, TypeVar

import httpx
import stamina

from embtables.errors import DeadlineError, RefusedError, UnreachableError
from embtables.frames.table import Frame
from embtables.given import as_integer
from embtables.serving import wire
from embtables.serving.client import exchanges, retries
from embtables.serving.client.exchanges import EmbedForm, Exchange, Float32s, Posted, ScoreForm, Scores
from embtables.serving.client.session import DEFAULT_URL, Session

T = TypeVar("T")
_READY_POLL_SECONDS = 0.05


class AsyncClient:
    """The calls of `Client` as coroutines of asyncio. One belongs to one event loop.

    Args:
        url, deadline_seconds, attempts, connections, never_older: see Client.

    Raises:
        ConfigError: an argument is of another kind.

    Example:
        >>> import asyncio, embtables
        >>> async def answers() -> bool:
        ...     async with embtables.AsyncClient("http://127.0.0.1:9") as client:  # where nothing listens
        ...         return await client.ready()
        >>> asyncio.run(answers())
        False
    """

    def __init__(
        self,
        url: str = DEFAULT_URL,
        *,
        deadline_seconds: float = 5.0,
        attempts: int = 10,
        connections: int = 100,
        never_older: bool = False,
    ) -> None:
        self._session = Session(url, deadline_seconds, attempts, never_older)
        open_at_most = as_integer(connections, "connections", least=1)
        self._http = httpx.AsyncClient(
            limits=httpx.Limits(max_connections=open_at_most, max_keepalive_connections=open_at_most),
            headers={"accept-encoding": "identity"},
            timeout=None,  # the deadline is around all of a call
            trust_env=False,  # no proxy, as with `Client`
        )

    async def score(
        self,
        context: Mapping[str, Any],
        candidates: Sequence[Any],
        *,
        form: ScoreForm = "json",
        deadline_seconds: float | None = None,
        request_id: str | None = None,
    ) -> Scores:
        """See Client."""
        return await self._call(exchanges.score(context, candidates, form, request_id), deadline_seconds)

    async def score_rows(
        self,
        rows: Frame | Sequence[Mapping[str, Any]],
        *,
        form: ScoreForm | None = None,
        deadline_seconds: float | None = None,
        request_id: str | None = None,
    ) -> Scores:
        """See Client."""
        return await self._call(exchanges.score_rows(rows, form, request_id), deadline_seconds)

    async def embed(
        self,
        ids: Any,
        *,
        feature: str | None = None,
        table: str | None = None,
        form: EmbedForm | None = None,
        deadline_seconds: float | None = None,
        request_id: str | None = None,
    ) -> Float32s:
        """See Client."""
        return await self._call(exchanges.embed(ids, feature, table, form, request_id), deadline_seconds)

    async def explain(
        self,
        context: Mapping[str, Any],
        candidate: Any,
        *,
        deadline_seconds: float | None = None,
        request_id: str | None = None,
    ) -> wire.ExplainAnswer:
        """See Client."""
        return await self._call(exchanges.explain(context, candidate, request_id), deadline_seconds)

    async def post_events(
        self,
        events: Sequence[Mapping[str, Any]],
        *,
        token: str | None = None,
        deadline_seconds: float | None = None,
    ) -> Posted:
        """See Client."""
        return await self._call(exchanges.post_events(events, token), deadline_seconds)

    async def model(self, *, deadline_seconds: float | None = None) -> wire.ModelInfo:
        """See Client."""
        return await self._call(exchanges.model(), deadline_seconds)

    async def ready(self, *, deadline_seconds: float | None = None) -> bool:
        """See Client."""
        seconds = self._session.seconds(deadline_seconds)
        try:
            await self._once(exchanges.ready(), time.monotonic() + seconds, seconds)
        except (RefusedError, UnreachableError, DeadlineError):
            return False
        return True

    async def wait_until_ready(self, deadline_seconds: float) -> None:
        """See Client."""
        end = time.monotonic() + retries.as_deadline(deadline_seconds)
        while not await self.ready(deadline_seconds=max(end - time.monotonic(), _READY_POLL_SECONDS)):
            if time.monotonic() > end:
                raise DeadlineError(f"is not ready after {deadline_seconds:g} seconds", server=str(self._session.url))
            await asyncio.sleep(_READY_POLL_SECONDS)

    @property
    def last_versions(self) -> wire.Versions | None:
        """See Client."""
        return self._session.last_versions

    async def close(self) -> None:
        """Closes all connections."""
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def _call(self, exchange: Exchange[T], deadline_seconds: float | None) -> T:
        seconds = self._session.seconds(deadline_seconds)
        end = time.monotonic() + seconds
        backoff = retries.Backoff(end)
        try:
            async for attempt in stamina.retry_context(on=backoff, attempts=self._session.attempts, timeout=None):
                with attempt:
                    return await self._once(exchange, end, seconds)
        except DeadlineError as error:
            raise backoff.said_before(error) from error
        raise AssertionError  # stamina raises the last failure

    async def _once(self, exchange: Exchange[T], end: float, seconds: float) -> T:
        with self._session.errors(seconds):
            async with asyncio.timeout(end - time.monotonic()):
                response = await self._http.send(self._session.request(exchange, self._http))
        return self._session.result(exchange, response)
