"""What the features stage makes of a request, with the columns that the server joins: the ground of this package."""

from __future__ import annotations

import pyarrow as pa

from embtables.errors import DataError
from embtables.inputs.features import Block, FeatureTransform
from embtables.inputs.values import BadRowsError
from embtables.serving import wire
from embtables.serving.refusals import Refusal
from embtables.serving.scoring.request_scorer import RequestScorer
from embtables.serving.scoring.whole_columns import whole_columns


def block_of(scorer: RequestScorer, request: wire.ScoreRequest | pa.Table) -> Block:
    """The K rows of a request as the model reads them. Raises Refusal as scoring does."""
    whole = whole_columns(scorer.given(request), scorer.rules, scorer.side_tables)
    content = scorer.version.content
    try:
        return FeatureTransform.for_scoring(content.trained, content.fitted).convert(whole.table())
    except BadRowsError as error:
        row = int(error.rows[0]) if len(error.rows) else None
        raise Refusal(422, error.message, whole.given.place(error.column, row)) from None
    except DataError as error:
        raise Refusal(422, error.message, whole.given.place(str(error.path.get("column", "")), None)) from None
