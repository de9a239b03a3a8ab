"""`Client`: the server's calls, for threads."""

from __future__ import annotations

import os
import threading
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
from embtables.serving.client.transport import DeadlineTransport, deadline

T = TypeVar("T")
_READY_POLL_SECONDS = 0.05


class Client:
    """Calls of a server, typed. Any number of threads may use one; each call takes an open connection or makes one.

    What is safe is tried again until the call's deadline: a connection that was refused or broke, and the answers 429
    and 503. Shape letters: K candidates or rows, n ids, D dimension.

    Args:
        url: of the server.
        deadline_seconds: for a call as a whole, retries included; every call may have its own.
        attempts: how often a call is tried at most; 1: never again.
        connections: open at the same time, at most.
        never_older: whether no answer may be of an older version than answers before, whichever of several servers
            gives it: one that is behind is asked again until the deadline. (Not across a roll back.)

    Raises:
        ConfigError: an argument is of another kind.

    Example:
        >>> import embtables
        >>> client = embtables.Client("http://127.0.0.1:9", deadline_seconds=0.2)  # where nothing listens
        >>> client.ready()
        False
        >>> try:
        ...     client.score({"user": 7}, [{"item": 0}, {"item": 99}])
        ... except embtables.UnreachableError as error:
        ...     print(error.path["server"])
        http://127.0.0.1:9
        >>> client.close()
    """

    def __init__(
        self,
        url: str = DEFAULT_URL,
        *,
        deadline_seconds: float = 5.0,
        attempts: int = 10,
        connections: int = 32,
        never_older: bool = False,
    ) -> None:
        self._session = Session(url, deadline_seconds, attempts, never_older)
        self._connections = as_integer(connections, "connections", least=1)
        self._lock = threading.Lock()
        self._http: httpx.Client | None = None
        self._process = os.getpid()

    def score(
        self,
        context: Mapping[str, Any],
        candidates: Sequence[Any],
        *,
        form: ScoreForm = "json",
        deadline_seconds: float | None = None,
        request_id: str | None = None,
    ) -> Scores:
        """Scores of K candidates in one context.

        Args:
            context: columns that all candidates share, by name.
            candidates: the columns of each, or its id alone where an item side table is published.
            form: how it goes over the wire; `arrow` takes columns only.
            request_id: what answer and logs call the request; by default the server makes one.

        Raises:
            RefusedError: the server refuses it: `status`, `field` and `request_id` say more.
            UnreachableError: there is no server, or it breaks the connection.
            DeadlineError: no answer came in time.
            DataError: a value cannot be sent.
        """
        return self.call(exchanges.score(context, candidates, form, request_id), deadline_seconds)

    def score_rows(
        self,
        rows: Frame | Sequence[Mapping[str, Any]],
        *,
        form: ScoreForm | None = None,
        deadline_seconds: float | None = None,
        request_id: str | None = None,
    ) -> Scores:
        """Scores of K full rows.

        Args:
            rows: a table (Arrow, a data frame, a dict of columns), which goes as Arrow, or a list of dicts, which goes
                as JSON, unless `form` says otherwise.

        Raises:
            ServingError: see `score`.
            DataError: a value cannot be sent.
        """
        return self.call(exchanges.score_rows(rows, form, request_id), deadline_seconds)

    def embed(
        self,
        ids: Any,
        *,
        feature: str | None = None,
        table: str | None = None,
        form: EmbedForm | None = None,
        deadline_seconds: float | None = None,
        request_id: str | None = None,
    ) -> Float32s:
        """Embeddings (n, D) of n raw ids of a feature, or of keys of a table, as lookups of scoring read them.

        Args:
            ids: a list or array of integers, or of strings where the feature's column holds strings.
            feature: whose ids they are.
            table: in place of a feature: the ids are keys of this table.
            form: `json` or `bytes`; by default bytes for integers.

        Raises:
            ServingError: see `score`.
            DataError: these are no ids.
        """
        return self.call(exchanges.embed(ids, feature, table, form, request_id), deadline_seconds)

    def explain(
        self,
        context: Mapping[str, Any],
        candidate: Any,
        *,
        deadline_seconds: float | None = None,
        request_id: str | None = None,
    ) -> wire.ExplainAnswer:
        """What each feature adds to the score of a candidate: the logit less that with the feature's rows read cold.

        Args:
            context, candidate: as of `score`.

        Raises:
            ServingError: see `score`.
        """
        return self.call(exchanges.explain(context, candidate, request_id), deadline_seconds)

    def post_events(
        self,
        events: Sequence[Mapping[str, Any]],
        *,
        token: str | None = None,
        deadline_seconds: float | None = None,
    ) -> Posted:
        """Appends events to the server's event log; returns when they are durable, and seen by its running features.

        It is tried again as other calls are: an event has an id, and counts once however often it is sent.

        Args:
            events: n >= 1 dicts of columns: `kind`, and what the log is to hold. `event_time` (a datetime, or RFC 3339)
                is now by default; an `event_id` is made where there is none.
            token: that the server asks of who sends events.

        Raises:
            ServingError: see `score`; the events may be there or not, unless it is a RefusedError of status 422.
            DataError: a value cannot be sent.
        """
        return self.call(exchanges.post_events(events, token), deadline_seconds)

    def model(self, *, deadline_seconds: float | None = None) -> wire.ModelInfo:
        """What the server says of its model: schema, versions, how old, rows, memory, engine. Raises as `score`."""
        return self.call(exchanges.model(), deadline_seconds)

    def ready(self, *, deadline_seconds: float | None = None) -> bool:
        """Whether the server answers requests now; not so where nothing listens or no answer comes in time."""
        seconds = self._session.seconds(deadline_seconds)
        try:
            self._once(exchanges.ready(), time.monotonic() + seconds, seconds)
        except (RefusedError, UnreachableError, DeadlineError):
            return False
        return True

    def wait_until_ready(self, deadline_seconds: float) -> None:
        """Returns when the server answers requests. Raises DeadlineError if it does not in time."""
        end = time.monotonic() + retries.as_deadline(deadline_seconds)
        while not self.ready(deadline_seconds=max(end - time.monotonic(), _READY_POLL_SECONDS)):
            if time.monotonic() > end:
                raise DeadlineError(f"is not ready after {deadline_seconds:g} seconds", server=str(self._session.url))
            time.sleep(_READY_POLL_SECONDS)

    @property
    def last_versions(self) -> wire.Versions | None:
        """The newest versions that an answer was of; None before the first answer."""
        return self._session.last_versions

    def close(self) -> None:
        """Closes all connections."""
        with self._lock:
            if self._http is not None and self._process == os.getpid():
                self._http.close()
            self._http = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def call(self, exchange: Exchange[T], deadline_seconds: float | None = None) -> T:
        """Sends what `embtables.serving.client.exchanges` has made, as the other methods do."""
        seconds = self._session.seconds(deadline_seconds)
        end = time.monotonic() + seconds
        backoff = retries.Backoff(end)
        try:
            for attempt in stamina.retry_context(on=backoff, attempts=self._session.attempts, timeout=None):
                with attempt:
                    return self._once(exchange, end, seconds)
        except DeadlineError as error:
            raise backoff.said_before(error) from error
        raise AssertionError  # stamina raises the last failure

    def _once(self, exchange: Exchange[T], end: float, seconds: float) -> T:
        with self._session.errors(seconds), deadline(end):
            http = self._open()
            response = http.send(self._session.request(exchange, http))
        return self._session.result(exchange, response)

    def _open(self) -> httpx.Client:
        """The connections of this process: those of the one that it was forked from are not shared."""
        with self._lock:
            if self._http is None or self._process != os.getpid():
                self._process = os.getpid()
                self._http = httpx.Client(
                    transport=DeadlineTransport(self._connections), headers={"accept-encoding": "identity"}
                )
            return self._http
