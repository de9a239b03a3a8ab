"""What the features stage makes of a request, with the columns that the server joins: the ground of this package."""

from __future__ import annotations

from embtables.errors import DataError
from embtables.inputs.features import Block, FeatureTransform
from embtables.serving.scoring.refused import refused
from embtables.serving.scoring.request_scorer import RequestScorer
from embtables.serving.scoring.whole_columns import whole_columns
from embtables.serving.service import Request


def block_of(scorer: RequestScorer, request: Request) -> Block:
    """The K rows of a request as the model reads them. Raises Refusal as scoring does."""
    whole = whole_columns(scorer.given(request), scorer.rules, scorer.side_tables)
    content = scorer.version.content
    try:
        return FeatureTransform.for_scoring(content.trained, content.fitted).convert(whole.table())
    except DataError as error:
        raise refused(error, whole.given) from None
