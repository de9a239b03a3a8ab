"""`replay`: logged requests scored again, offline, against a version: what differs, and in which feature first.

Rows are compared bit for bit by the digests in the log, scores within a tolerance. A request that another version has
answered says nothing of this one, and neither does one that was answered while rows were changing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from embtables.errors import DataError, EmbtablesError
from embtables.inputs.features import make_batch
from embtables.serving import wire
from embtables.serving.refusals import Refusal
from embtables.serving.scoring.request_scorer import RequestScorer
from embtables.serving.trust.columns import block_of
from embtables.serving.trust.fingerprints import expected_fingerprints
from embtables.serving.versions.load import load
from embtables.state.read.saved_version import SavedVersion

TOLERANCE = 1e-6
_NO_VALUES = "without what was asked (the server did not keep values)"
_OTHER_VERSION = "of other versions"
_CHANGING = "answered while rows were changing"
_SHOWN = 20


@dataclass(frozen=True, slots=True)
class Difference:
    """A request of which something differs.

    Attributes:
        line: of the log.
        feature: the first whose ids or rows differ; `dense/<column>` of a dense column; None: none does.
        score: the greatest difference; None where no score could be computed.
        reason: why not.
    """

    request_id: str
    line: int
    feature: str | None
    score: float | None
    reason: str = ""


@dataclass(slots=True)
class Replayed:
    """What a replay found."""

    version: str
    requests: int = 0
    compared: int = 0
    skipped: Counter[str] = field(default_factory=Counter)
    greatest_score_difference: float = 0.0
    differences: list[Difference] = field(default_factory=list)

    def report(self) -> dict[str, Any]:
        """As JSON."""
        by_feature = Counter(each.feature or "none: scores alone" for each in self.differences)
        return {
            "version": self.version,
            "requests": self.requests,
            "compared": self.compared,
            "skipped": dict(self.skipped),
            "greatest_score_difference": self.greatest_score_difference,
            "differing": len(self.differences),
            "first_feature": dict(by_feature.most_common()),
            "differences": [
                {"request_id": e.request_id, "line": e.line, "feature": e.feature, "score": e.score, "reason": e.reason}
                for e in self.differences[:_SHOWN]
            ],
        }


def replay(log: Path, version: SavedVersion, *, every_version: bool = False, tolerance: float = TOLERANCE) -> Replayed:
    """Scores the requests of a log again.

    Args:
        log: of a server that keeps values (`request_log_values`).
        version: what to score with.
        every_version: also requests that other versions have answered: what would this one say?
        tolerance: how much a score may differ.

    Raises:
        DataError: the log cannot be read, or has no request that can be compared.
        StateError: the version is damaged.
    """
    lines = _Lines(log)
    scorer = RequestScorer(load(version.folder, version.chain).served)
    found = Replayed(version.name)
    for number, logged in lines:
        found.requests += 1
        reason = _skipped(logged, version.name, every_version)
        if reason is not None:
            found.skipped[reason] += 1
            continue
        found.compared += 1
        difference = _compare(scorer, number, logged)
        found.greatest_score_difference = max(found.greatest_score_difference, difference.score or 0.0)
        if difference.feature is not None or difference.score is None or not difference.score <= tolerance:
            found.differences.append(difference)
    if not found.compared:
        why = ", ".join(f"{count} {reason}" for reason, count in found.skipped.items()) or "it is empty"
        raise DataError(f"has no request that can be compared with {version.name}: {why}", file=log)
    return found


def _skipped(logged: wire.LoggedRequest, version: str, every_version: bool) -> str | None:
    if logged.request is None:
        return _NO_VALUES
    if not every_version and logged.versions != wire.Versions(version, version):
        return _OTHER_VERSION
    return None if logged.features or every_version else _CHANGING


def _compare(scorer: RequestScorer, line: int, logged: wire.LoggedRequest) -> Difference:
    assert logged.request is not None
    features = scorer.version.content.trained.features
    request = _at_its_time(logged.request, logged.at, scorer.rules.clock)
    try:
        block = block_of(scorer, request)
        # As `predict` scores whole rows: not by the ways that a server takes to be fast.
        batch = make_batch([feature.name for feature in features], [(block, 0, block.num_rows)])
        scores = scorer.version.scorer.score(batch).numpy()
    except (Refusal, EmbtablesError) as error:
        return Difference(logged.request_id, line, None, None, f"cannot be scored: {error}")
    now = expected_fingerprints(scorer, block)
    feature = next((name for name, digest in logged.features.items() if now.get(name) != digest), None)
    if set(logged.scores) != set(scorer.labels):
        reason = f"has scores of {', '.join(logged.scores)}, the version of {', '.join(scorer.labels)}"
        return Difference(logged.request_id, line, feature, None, reason)
    then = np.array([logged.scores[label] for label in scorer.labels], np.float64).T
    if then.shape != scores.shape:
        return Difference(logged.request_id, line, feature, None, f"has {len(then)} scores for {logged.size} rows")
    greatest = float(np.abs(then - scores).max(initial=0.0))
    return Difference(logged.request_id, line, feature, greatest)


def _at_its_time(request: wire.ScoreRequest, at: float, clock: str | None) -> wire.ScoreRequest:
    """A request that left the time to the server's clock, with the time that this had then."""
    if clock is None:
        return request
    then = datetime.fromtimestamp(at, UTC).isoformat()
    if request.rows is not None:
        return msgspec.structs.replace(request, rows=[{clock: then, **row} for row in request.rows])
    return msgspec.structs.replace(request, context={clock: then, **request.context})


class _Lines:
    """The requests of a log, with the numbers of their lines."""

    def __init__(self, log: Path) -> None:
        if not log.is_file():
            raise DataError("is no file; give a log of requests, as a server with --request-log writes it", file=log)
        self._log = log
        self._decoder = msgspec.json.Decoder(wire.LoggedRequest)

    def __iter__(self) -> Iterator[tuple[int, wire.LoggedRequest]]:
        with self._log.open("rb") as file:
            for number, line in enumerate(file, 1):
                try:
                    yield number, self._decoder.decode(line)
                except msgspec.DecodeError as error:
                    if not line.endswith(b"\n"):
                        return  # it is being written
                    raise DataError(f"is no logged request: {error}", file=self._log, line=number) from None
