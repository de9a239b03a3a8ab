"""A client that says which version it has seen is not answered with an older one."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import pytest

from embtables.serving import wire
from embtables.serving.refusals import Refusal
from embtables.serving.versions.live import Live, place_of
from tests.serving.versions.test_follow import Follow
from tests.serving.versions.trainer_for_tests import Trainer


def test_versions_for_servers_come_after_checkpoints() -> None:
    names = ["serving-10", "resume-10", "serving-9", "serving-1", "resume-2"]
    assert sorted(names, key=place_of) == ["resume-2", "resume-10", "serving-1", "serving-9", "serving-10"]


@pytest.mark.parametrize("name", ["", "serving", "serving-", "serving-x", "12", "serving-1\n", "best", "serving--1"])
def test_what_is_no_version_is_refused(trained: Trainer, follow: Follow, tmp_path: Path, name: str) -> None:
    follows = follow(tmp_path)
    follows.until("serving-1")
    with pytest.raises(Refusal, match="named like serving-12") as refused:
        follows.live.at_least(name)
    assert (refused.value.status, refused.value.field) == (422, wire.MIN_DENSE_VERSION)


def test_an_older_version_is_refused_until_the_server_has_come_so_far(
    trained: Trainer, follow: Follow, tmp_path: Path
) -> None:
    follows = follow(tmp_path)
    first = follows.until("serving-1")
    live = follows.live
    assert live.at_least() is first
    assert live.at_least("serving-1", "serving-1") is first
    assert live.at_least("resume-99") is first
    for dense, rows, field in (("serving-2", None, wire.MIN_DENSE_VERSION), (None, "serving-2", wire.MIN_ROW_VERSION)):
        with pytest.raises(Refusal, match="is at serving-1 and has not come to serving-2 yet; ask again") as refused:
            live.at_least(dense, rows)
        assert (refused.value.status, refused.value.field) == (503, field)
        assert refused.value.retry_after == 1
    follows.until(trained.publish())
    assert live.at_least("serving-2", "serving-2").name == "serving-2"
    # An operator who goes back means it: waiting would bring nothing, and the client is told so.
    follows.roll_back()
    with pytest.raises(Refusal, match=f"keeps this server at serving-1, before serving-2; ask without {field}") as held:
        live.at_least(rows="serving-2")
    assert held.value.status == 409
    assert live.at_least().name == "serving-1"


def test_before_the_first_version() -> None:
    with pytest.raises(Refusal, match="no version is loaded yet") as refused:
        Live().at_least("serving-1")
    assert (refused.value.status, refused.value.retry_after) == (503, 1)


def test_a_request_may_wait_for_its_version(trained: Trainer, follow: Follow, tmp_path: Path) -> None:
    follows = follow(tmp_path)
    follows.until("serving-1")

    async def wait() -> str:
        asked = asyncio.create_task(follows.live.reach("serving-2", seconds=60))
        await asyncio.sleep(0)
        assert not asked.done()
        published = threading.Thread(target=trained.publish)
        published.start()
        found = await asked
        published.join()
        return found.name

    assert asyncio.run(wait()) == "serving-2"
    assert not follows.live._wakers
    with pytest.raises(Refusal, match="has not come to serving-3 yet"):
        asyncio.run(follows.live.reach("serving-3", seconds=0.01))
    assert not follows.live._wakers
