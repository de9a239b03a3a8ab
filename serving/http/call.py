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

_HOST = re.compile(rb"(?:[A-Za-z0-9](?:[A-Za-z0-9._-]{0,253})|\[[0-9A-Fa-f:.]{2,45}\])(?::[0-9]{1,5})?")
_ID = re.compile(r"[!-~]{1,128}")
_REQUEST_ID = wire.REQUEST_ID.encode()
_ONCE = (b"host", b"content-length", b"content-type", b"content-encoding", b"authorization")
_known_hosts: set[bytes] = set()
_MAX_KNOWN_HOSTS = 64

# Names of this process and its requests: unique, and cheap to make.
_prefix = secrets.token_hex(4)
_numbers = itertools.count()


class Call:
    """A request.

    Attributes:
        headers: by lower-case name; the last of those that are given twice.
        body: empty until it was read.
        request_id: what the client called it, or a new name.
        began: `perf_counter`, when its head was here.
        stages_us: microseconds by stage, in order.
        size: candidates, rows or ids, once known.
        versions: that answered it.
    """

    __slots__ = ("began", "body", "headers", "method", "path", "query", "request_id", "size", "stages_us", "versions")

    def __init__(self, scope: Mapping[str, Any]) -> None:
        self.began = time.perf_counter()
        self.method: str = scope["method"]
        self.path: str = scope["path"]
        self.query: bytes = scope["query_string"]
        self.headers: dict[bytes, bytes] = dict(scope["headers"])
        self.body = b""
        self.request_id = f"{_prefix}-{next(_numbers):x}"
        self.stages_us: dict[str, float] = {}
        self.size = 0
        self.versions: wire.Versions | None = None

    def check(self, scope: Mapping[str, Any]) -> None:
        """Refuses (400) a head that is malformed; takes over the request id that the client gives in one."""
        headers = self.headers
        host = headers.get(b"host")
        if host not in _known_hosts:
            if host is None or _HOST.fullmatch(host) is None:
                raise Refusal(400, "the Host header is missing or malformed")
            if len(_known_hosts) < _MAX_KNOWN_HOSTS:
                _known_hosts.add(host)
        if len(headers) != len(scope["headers"]):
            names = [name for name, _ in scope["headers"]]
            for name in _ONCE:
                if names.count(name) > 1:
                    raise Refusal(400, f"the header {name.decode()} is given {names.count(name)} times")
        if (given := headers.get(_REQUEST_ID)) is not None:
            self.name(given.decode("latin-1"), wire.REQUEST_ID)

    def name(self, request_id: str, field: str) -> None:
        """Calls it as the client does."""
        if _ID.fullmatch(request_id) is None:
            raise Refusal(422, "a request id has 1 to 128 visible ASCII characters and no space", field)
        self.request_id = request_id

    @property
    def content_type(self) -> str:
        """Of the body, without parameters; JSON where none is given, or what `curl -d` gives."""
        given = self.headers.get(b"content-type", b"application/json").split(b";")[0].strip().lower()
        return "application/json" if given == b"application/x-www-form-urlencoded" else given.decode("latin-1")


class Answer:
    """Status, headers and body of an answer."""

    __slots__ = ("body", "headers", "status")

    def __init__(self, status: int, content_type: bytes, body: bytes, *headers: tuple[bytes, bytes]) -> None:
        self.status = status
        self.body = body
        self.headers = [(b"content-type", content_type), (b"content-length", b"%d" % len(body)), *headers]
