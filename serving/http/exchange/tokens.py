"""Tokens of requests that change something: `Authorization: Bearer <token>`."""

from __future__ import annotations

import hmac
from collections.abc import Sequence

from embtables.serving.http.exchange.call import Call
from embtables.serving.refusals import Refusal


class Tokens:
    """One or two tokens, either of which a request has."""

    def __init__(self, tokens: Sequence[str]) -> None:
        self._tokens = [token.encode() for token in tokens]

    def check(self, call: Call) -> None:
        """Refuses (401) a request without one of them; takes as long for any."""
        scheme, _, given = call.headers.get("authorization", "").encode("latin-1").partition(b" ")
        same = [hmac.compare_digest(given.strip(), token) for token in self._tokens]
        if scheme.lower() != b"bearer" or not any(same):
            raise Refusal(401, "the token is missing or wrong: send Authorization: Bearer <token>")
