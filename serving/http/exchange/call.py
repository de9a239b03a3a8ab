"""`Call` and `Answer`: a request as its head, body and times; what goes back. Checks of a head."""

from __future__ import annotations

import itertools
import re
import secrets
import time
from collections.abc import Mapping
from typing import Any

from embtables.serving import wire
from embtables.serving.refusals import Refusal

_HOST = re.compile(r"(?:[A-Za-z0-9](?:[A-Za-z0-9._-]{0,253})|\[[0-9A-Fa-f:.]{2,45}\])(?::[0-9]{1,5})?")
_ID = re.compile(r"[!-~]{1,128}")
_ONCE = ("host", "content-length", "content-type", "content-encoding", "authorization")
_known_hosts: set[str | None] = set()
_MAX_KNOWN_HOSTS = 64

# Names of this process and its requests: unique, and cheap to make.
_prefix = secrets.token_hex(4)
_numbers = itertools.count()


def new_id() -> str:
    """A name for a request."""
    return f"{_prefix}-{next(_numbers):x}"


class Call:
    """A request.

    Args:
        pairs: its headers, names in lower case.

    Attributes:
        headers: by name; the last of those that are given twice.
        body: empty until it was read.
        request_id: what the client called it, or a new name.
        began: `perf_counter`, when its head was here.
        stages_us: microseconds by stage, in order.
        size: candidates, rows or ids, once known.
        versions: that answered it.
    """

    __slots__ = (
        "_pairs",
        "began",
        "body",
        "headers",
        "method",
        "path",
        "query",
        "request_id",
        "size",
        "stages_us",
        "versions",
    )

    def __init__(self, method: str, path: str, query: str, pairs: list[tuple[str, str]]) -> None:
        self.began = time.perf_counter()
        self.method, self.path, self.query = method, path, query
        self.headers = dict(pairs)
        self._pairs = pairs
        self.body = b""
        self.request_id = new_id()
        self.stages_us: dict[str, float] = {}
        self.size = 0
        self.versions: wire.Versions | None = None

    @classmethod
    def of_asgi(cls, scope: Mapping[str, Any]) -> Call:
        """A request as ASGI has it."""
        pairs = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in scope["headers"]]
        return cls(scope["method"], scope["path"], scope["query_string"].decode("latin-1"), pairs)

    @classmethod
    def of_rsgi(cls, scope: Any) -> Call:
        """A request as granian has it."""
        return cls(scope.method, scope.path, scope.query_string, scope.headers.items())

    def check(self) -> None:
        """Refuses (400) a head that is malformed; takes over the request id that the client gives in one."""
        headers = self.headers
        host = headers.get("host")
        if host not in _known_hosts:
            if host is None or _HOST.fullmatch(host) is None:
                raise Refusal(400, "the Host header is missing or malformed")
            if len(_known_hosts) < _MAX_KNOWN_HOSTS:
                _known_hosts.add(host)
        if len(headers) != len(self._pairs):
            names = [name for name, _ in self._pairs]
            for name in _ONCE:
                if names.count(name) > 1:
                    raise Refusal(400, f"the header {name} is given {names.count(name)} times")
        if (given := headers.get(wire.REQUEST_ID)) is not None:
            self.name(given, wire.REQUEST_ID)

    def name(self, request_id: str, field: str) -> None:
        """Calls it as the client does."""
        if _ID.fullmatch(request_id) is None:
            raise Refusal(422, "a request id has 1 to 128 visible ASCII characters and no space", field)
        self.request_id = request_id

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """The headers as they came."""
        return self._pairs

    @property
    def content_type(self) -> str:
        """Of the body, without parameters; JSON where none is given, or what `curl -d` gives."""
        given = self.headers.get("content-type", wire.JSON).partition(";")[0].strip().lower()
        return wire.JSON if given == "application/x-www-form-urlencoded" else given


class Answer:
    """Status, headers and body of an answer."""

    __slots__ = ("body", "headers", "status")

    def __init__(self, status: int, content_type: str, body: bytes, *headers: tuple[str, str]) -> None:
        self.status = status
        self.body = body
        self.headers = [("content-type", content_type), *headers]
