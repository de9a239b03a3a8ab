"""What goes over the wire: requests and answers, as the server and its client both have them. JSON by msgspec.

Shape letters: K candidates or rows, n ids, D dimension.

Besides JSON, two binary forms. Scores: an Arrow IPC stream with one row for each candidate (all columns in it) in; with
`Accept: application/octet-stream` float32 (K, n_labels) little-endian out, else an Arrow stream with a column for each
label. Embeddings: int64 ids little-endian in the body and `?feature=` or `?table=` in the address; float32 (n, D) out.
What JSON says beside the numbers is in headers then (`HEADERS`).
"""

from __future__ import annotations

from typing import Any

import msgspec

JSON = "application/json"
BYTES = "application/octet-stream"
ARROW = "application/vnd.apache.arrow.stream"

REQUEST_ID = "embtables-request-id"
DENSE_VERSION = "embtables-dense-version"
ROW_VERSION = "embtables-row-version"
COLD = "embtables-cold"  # how many ids of the request read a cold row
DIM = "embtables-dim"
HEADERS = (REQUEST_ID, DENSE_VERSION, ROW_VERSION, COLD, DIM)

# Of requests: the answer must not be of an older version, as a client asks that has seen one. A server that has not
# come so far answers 503 with Retry-After. REQUEST_ID may be given in a header, too.
MIN_DENSE_VERSION = "embtables-min-dense-version"
MIN_ROW_VERSION = "embtables-min-row-version"


class ScoreRequest(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """One context and K candidates, or K full rows.

    Attributes:
        context: columns that all candidates share, by name.
        candidates: a row for each, by column; or its id alone, where a side table of items is published.
        rows: full rows, in place of context and candidates.
        request_id: what the answer and the logs call this request; by default the server makes one.
    """

    context: dict[str, Any] = {}
    candidates: list[Any] | None = None
    rows: list[dict[str, Any]] | None = None
    request_id: str | None = None


class Versions(msgspec.Struct):
    """Which versions an answer is of: `serving-12`.

    Attributes:
        dense: of dense weights and transforms, one for the whole answer.
        rows: the newest whose rows were all applied before this request was answered; `dense`, or one after it.
    """

    dense: str
    rows: str


class ColdIds(msgspec.Struct, omit_defaults=True):
    """Which ids read a cold row.

    Attributes:
        context: features of the context with at least one such id.
        candidates: by feature the positions of the candidates (or rows) with at least one.
    """

    context: list[str] = []
    candidates: dict[str, list[int]] = {}


class ScoreAnswer(msgspec.Struct):
    """Scores (K,) by label, in the order of the request."""

    request_id: str
    scores: dict[str, list[float]]
    versions: Versions
    cold: ColdIds


class EmbedRequest(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """Raw ids of a feature (integers or strings), or keys of a table."""

    feature: str | None = None
    ids: list[int] | list[str] | None = None
    table: str | None = None
    keys: list[int] | None = None
    request_id: str | None = None


class EmbedAnswer(msgspec.Struct):
    """Rows (n, D), and the positions of ids that read a cold row."""

    request_id: str
    rows: list[list[float]]
    versions: Versions
    cold: list[int]


class ErrorBody(msgspec.Struct, omit_defaults=True):
    """Why a request was refused.

    Attributes:
        error: what was wrong, what was received, what to do.
        field: the place in the request: `candidates.3.price`.
    """

    error: str
    request_id: str | None = None
    field: str | None = None
