"""`Refusal`: a request that is not answered, and why, with the place in the request."""

from __future__ import annotations

import difflib
from collections.abc import Collection


class Refusal(Exception):  # noqa: N818 - it is an answer, not a fault of the server
    """Raised for a request that cannot be answered.

    Attributes:
        status: of HTTP: 400 not readable, 401 no token, 404 unknown name, 405 another method, 408 too slow, 409 against
            what an operator has set, 413 too long, 415 of another type, 422 wrong values, 429 too many, 501 not there
            yet, 503 not ready.
        reason: what was wrong, what was received, what to do.
        field: the place in the request, such as `candidates.3.price`.
        retry_after: seconds until another try may be answered, of 429 and 503.
        allow: the method to ask with, of 405.
    """

    def __init__(
        self,
        status: int,
        reason: str,
        field: str | None = None,
        *,
        retry_after: int | None = None,
        allow: str | None = None,
    ) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason
        self.field = field
        self.retry_after = retry_after
        self.allow = allow


def hint(name: str, known: Collection[str]) -> str:
    """What was probably meant by an unknown name, or which names there are."""
    near = difflib.get_close_matches(name[:128], known, n=1, cutoff=0.6)
    return f"did you mean {near[0]}?" if near else f"there are: {', '.join(sorted(known)[:40]) or 'none'}"


def unknown(what: str, name: str, known: Collection[str], field: str | None = None, *, status: int = 422) -> Refusal:
    """The refusal of a name that is none.

    Args:
        what: `feature`, `table`, `column`.
        field: where the request has it.

        >>> unknown("feature", "itme", ["item", "user"]).reason
        "there is no feature 'itme'; did you mean item?"
    """
    shown = name if len(name) <= 60 else name[:57] + "..."
    return Refusal(status, f"there is no {what} {shown!r}; {hint(name, known)}", field)
