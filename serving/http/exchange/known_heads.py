"""`KnownHeads`: heads of requests for rows as bytes that came before, and what was found when they were checked.

A client sends the same head with every such request, but for the ids in the body. To check it again would take longer
than to look the rows up. A head with anything beside the usual headers, such as a request id, is never kept.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

from embtables.serving.http.exchange.call import Call

Key: TypeAlias = "tuple[str, str, tuple[tuple[str, str], ...]]"
_USUAL = frozenset({"host", "content-type", "content-length", "accept", "accept-encoding", "user-agent", "connection"})
_MOST = 1024


@dataclass(frozen=True, slots=True)
class Head:
    """A head that was checked.

    Attributes:
        feature, table: one of them.
        length: bytes of the body.
    """

    feature: str | None
    table: str | None
    length: int


class KnownHeads:
    """Heads by what they say, each as it came."""

    def __init__(self) -> None:
        self._heads: dict[Key, Head] = {}

    def find(self, scope: Any) -> Head | None:
        """What is known of the head of an RSGI request."""
        return self._heads.get((scope.method, scope.query_string, tuple(scope.headers.items())))

    def keep(self, call: Call, feature: str | None, table: str | None) -> None:
        """Keeps the head of a request that was answered with rows as bytes."""
        if len(self._heads) < _MOST and _USUAL.issuperset(call.headers) and "content-length" in call.headers:
            key = call.method, call.query, tuple(call.pairs)
            self._heads[key] = Head(feature, table, int(call.headers["content-length"]))
