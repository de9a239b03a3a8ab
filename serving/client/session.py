"""What both clients share: an address, the versions seen, and how an exchange becomes a request and a result."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import httpcore
import httpx

from embtables.errors import ConfigError, DeadlineError, UnreachableError
from embtables.given import as_flag, as_name
from embtables.serving import wire
from embtables.serving.client import exchanges, retries

T = TypeVar("T")
DEFAULT_URL = "http://127.0.0.1:8080"


class Session:
    """The settings of a client and what it has seen; safe to use by many threads.

    Args:
        url: of the server.
        deadline_seconds: of a call that gives none.
        attempts: how often a call is tried at most.
        never_older: whether answers must not be of older versions than answers before.

    Raises:
        ConfigError: an argument is of another kind.
    """

    def __init__(self, url: str, deadline_seconds: float, attempts: int, never_older: bool) -> None:
        self.url = _base(as_name(url, "url"))
        self.deadline_seconds = retries.as_deadline(deadline_seconds)
        self.attempts = retries.as_attempts(attempts)
        self.never_older = as_flag(never_older, "never_older")
        self.last_versions: wire.Versions | None = None
        self._lock = threading.Lock()

    def seconds(self, deadline_seconds: float | None) -> float:
        """What a call has. Raises ConfigError for anything but a number above 0."""
        return self.deadline_seconds if deadline_seconds is None else retries.as_deadline(deadline_seconds)

    def request(self, exchange: exchanges.Exchange[Any], http: httpx.Client | httpx.AsyncClient) -> httpx.Request:
        """The request to send now."""
        headers = dict(exchange.headers)
        seen = self.last_versions
        if self.never_older and seen is not None:
            headers |= {wire.MIN_DENSE_VERSION: seen.dense, wire.MIN_ROW_VERSION: seen.rows}
        return http.build_request(
            exchange.method,
            self.url.copy_with(path=self.url.path.rstrip("/") + exchange.path),
            content=exchange.content,
            headers=headers,
            params=exchange.params or None,
        )

    def result(self, exchange: exchanges.Exchange[T], response: httpx.Response) -> T:
        """What an answer says.

        Raises:
            RefusedError: the server has refused the request.
            ServingError: the answer cannot be read.
        """
        if response.status_code != 200:
            raise exchanges.refusal(response)
        found, versions = exchange.read(response)
        if versions is not None:
            with self._lock:
                self.last_versions = _newer(self.last_versions, versions)
        return found

    @contextmanager
    def errors(self, seconds: float) -> Iterator[None]:
        """Failures of a connection as this package's errors."""
        try:
            yield
        except (httpcore.TimeoutException, httpx.TimeoutException, TimeoutError) as error:
            raise DeadlineError(f"no answer within {seconds:g} seconds", server=str(self.url)) from error
        except (httpcore.NetworkError, httpcore.ProtocolError, httpx.TransportError) as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            raise UnreachableError(f"cannot be reached: {reason}", server=str(self.url)) from error


def _base(url: str) -> httpx.URL:
    try:
        found = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise ConfigError(f"is no address: {error}", argument="url") from error
    if found.scheme not in ("http", "https") or not found.host or found.query or found.fragment:
        raise ConfigError(f"must be like {DEFAULT_URL}, received '{url}'", argument="url")
    return found


def _newer(seen: wire.Versions | None, versions: wire.Versions) -> wire.Versions:
    if seen is None:
        return versions
    return wire.Versions(max(seen.dense, versions.dense, key=_place), max(seen.rows, versions.rows, key=_place))


def _place(version: str) -> tuple[bool, int]:
    """Where a version is in the order in which servers show them: those for serving come after checkpoints."""
    purpose, _, number = version.rpartition("-")
    return purpose == "serving", int(number) if number.isdecimal() else -1
