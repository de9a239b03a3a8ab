"""`Refusal`: a request that is not answered, and why, with the place in the request."""

from __future__ import annotations


class Refusal(Exception):  # noqa: N818 - it is an answer, not a fault of the server
    """Raised for a request that cannot be answered.

    Attributes:
        status: of HTTP: 400 not readable, 404 unknown name, 413 too long, 422 wrong values, 429 too many, 503 not
            ready.
        reason: what was wrong, what was received, what to do.
        field: the place in the request, such as `candidates.3.price`.
    """

    def __init__(self, status: int, reason: str, field: str | None = None) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason
        self.field = field
