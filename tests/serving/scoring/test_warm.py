"""Versions are warmed with recorded requests and a made-up one; a log that is of no use stops nothing."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from embtables.serving import wire
from embtables.serving.scoring.request_scorer import Answer, RequestScorer
from embtables.serving.scoring.warm import MAX_RECORDED, made_up_request, recorded_requests
from embtables.serving.versions.served_version import ServedVersion


def test_the_last_requests_of_a_log_are_read(tmp_path: Path) -> None:
    log = tmp_path / "requests.jsonl"
    assert recorded_requests(None) == recorded_requests(log) == []
    versions = wire.Versions("serving-1", "serving-1")
    requests = [wire.ScoreRequest(context={"user": n}, candidates=["a"]) for n in range(MAX_RECORDED + 5)]
    lines = [
        msgspec.json.encode(
            wire.LoggedRequest(request_id=str(n), at=1.0, versions=versions, size=1, scores={}, request=request)
        )
        for n, request in enumerate(requests)
    ]
    without = wire.LoggedRequest(request_id="x", at=1.0, versions=versions, size=1, scores={})
    log.write_bytes(b"\n".join([*lines, b"no json", msgspec.json.encode(without), b'{"request_id": 3}', b""]))
    assert recorded_requests(log) == requests[-MAX_RECORDED:]


def test_a_made_up_request_can_be_answered(zoo: ServedVersion, monkeypatch: pytest.MonkeyPatch) -> None:
    scorer = RequestScorer(zoo)
    asked: list[wire.ScoreRequest] = []
    score_all = scorer.score_all
    monkeypatch.setattr(scorer, "score_all", lambda requests: asked.extend(requests) or score_all(requests))
    recorded = wire.ScoreRequest(context={"nobody": 1}, candidates=["a"])
    scorer.warm([recorded])
    assert asked[0] is recorded
    assert isinstance(score_all(asked[1:])[0], Answer)
    rows = made_up_request(scorer.rules, scorer.description.columns, [])
    assert isinstance(score_all([rows])[0], Answer)
