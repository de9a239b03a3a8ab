"""What data is wrong in a request, as a refusal with its place."""

from __future__ import annotations

from embtables.errors import DataError
from embtables.inputs.values import BadRowsError
from embtables.serving.refusals import Refusal
from embtables.serving.scoring.columns.given import Given


def refused(error: BaseException, given: Given) -> BaseException:
    """The refusal of a request for a fault of its data; other errors as they are."""
    if isinstance(error, BadRowsError):
        row = int(error.rows[0]) if len(error.rows) else None
        return Refusal(422, error.message, given.place(error.column, row))
    if isinstance(error, DataError):
        column = error.path.get("column", error.path.get("feature"))
        return Refusal(422, error.message, None if column is None else given.place(str(column), None))
    return error
