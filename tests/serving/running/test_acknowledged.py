"""An event counts before whoever sent it is answered, without a server around it."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any
from unittest.mock import Mock

from embtables.events import open_log
from embtables.serving.events.appender import EventAppender
from embtables.serving.running.live_running import LiveRunning
from tests.serving.running.test_log_fold import RUNNING, answers, batch


def test_what_is_acknowledged_counts(tmp_path: Path) -> None:
    uri = f"folder://{tmp_path}/log?partitions=2&fsync=never"
    running, content = LiveRunning(uri, tmp_path / "running", 3600.0), Mock(running=RUNNING, id_kinds={})
    early: Any = open_log(uri)
    early.append(0, batch([{"event_id": "early", "user": 1}]))
    early.close()
    fold = running.need(content)
    assert fold is not None
    assert running.need(Mock(running=None)) is None
    assert answers(fold, [1])["clicks"] == [1.0]
    fold.wait = running._ended.wait  # type: ignore[method-assign]  # nobody else folds
    appender = EventAppender(open_log(uri), running)

    async def post(user: int, number: int) -> None:
        await appender.append(batch([{"event_id": f"{user}/{number}", "user": user, "request_id": f"r{number}"}]))
        assert answers(fold, [user])["clicks"][0] >= number + 1 + (user == 1)

    async def run() -> None:
        for number in range(10):
            await asyncio.gather(*(post(user, number) for user in range(5)))

    asyncio.run(run())
    appender.close()
    info = running.info()
    assert info is not None
    assert (info.events, info.keys > 0, running.why_not_ready()) == (51, True, None)
    running.close()
    again = LiveRunning(uri, tmp_path / "running", 3600.0)
    found = again.need(content)
    assert found is not None
    assert answers(found, [1, 2])["clicks"] == [11.0, 10.0]
    again.close()
