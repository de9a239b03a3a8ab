"""`LiveService`: requests in, scores of one version out, from as many threads as ask."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
import weakref
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from embtables.serving import wire
from embtables.serving.live_service import Follows, LiveService
from embtables.serving.refusals import Refusal
from embtables.serving.scoring.request_scorer import Answer, RequestScorer
from embtables.serving.versions.follow import Following, FollowSettings
from embtables.serving.versions.live import Live
from embtables.serving.versions.served_version import AppliedRows, ServedVersion
from tests.serving.scoring.served_for_tests import item_name, rows_table, served_version, side_tables
from tests.serving.versions.trainer_for_tests import Trainer, trainer


class Puts(Follows):
    """Puts versions one by one, when it is told to."""

    newest: str | None = None

    def __init__(self, live: Live) -> None:
        self.live = live

    def start(self) -> None:
        pass

    def stop(self) -> None:
        pass

    def info(self) -> wire.FollowInfo:
        return wire.FollowInfo("following", newest=self.newest)

    def why_not_ready(self) -> str | None:
        return None if self.live.current is not None else "no version is loaded yet"


@pytest.fixture(scope="module")
def version(run_of: Callable[[str], Path]) -> ServedVersion:
    return served_version(run_of("dcnv2"), side_tables(), "item")


REQUEST = wire.ScoreRequest(
    context={"user": 7, "shop": 3, "near": [1, 2], "near_weight": [0.5, 1], "distance": 2.5},
    candidates=[item_name(3), item_name(8), "no such item"],
)


def test_requests_are_answered_by_the_version_that_is_live(version: ServedVersion) -> None:
    async def talk() -> None:
        service = LiveService(Puts, name="zoo", threads=2)
        assert service.is_ready() == (False, "no version is loaded yet")
        with pytest.raises(Refusal, match="no version is loaded yet") as refused:
            await service.score(REQUEST)
        assert (refused.value.status, refused.value.retry_after) == (503, 1)
        service.live.put(version)
        assert service.is_ready() == (True, "")
        answers = await asyncio.gather(*(service.score(REQUEST) for _ in range(20)))
        for answer in answers:
            assert answer.labels == ("click",)
            assert answer.scores.shape == (3, 1)
            assert answer.scores.tobytes() == answers[0].scores.tobytes()
            assert (answer.versions.dense, answer.versions.rows) == (version.name, version.name)
            assert answer.stages_us.keys() >= {"wait", "features", "dense"}
            assert answer.cold.candidates["item"] == [2]
        table = await service.score_table(rows_table(130))
        assert np.abs(table.scores - version.scorer.score(rows_table(130)).numpy()).max() <= 1e-6
        bad = wire.ScoreRequest(context={"usr": 7}, candidates=["a"])
        with pytest.raises(Refusal, match="did you mean user") as refused:
            await service.score(bad)
        assert (refused.value.status, refused.value.field) == (422, "context.usr")
        info = service.model()
        assert (info.name, info.model, info.labels, info.item_column) == ("zoo", "dcnv2", ["click"], "item")
        item = next(table for table in info.tables if table.name == "item")
        assert 0 < item.cold_ids < item.ids
        await service.stop()

    asyncio.run(talk())


def test_an_answer_is_stale_where_the_folder_has_a_newer_version(
    version: ServedVersion, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = LiveService(Puts, threads=1)
    service.live.put(version)
    for newest, is_stale in ((None, False), (version.name, False), ("serving-77", True)):
        monkeypatch.setattr(Puts, "newest", newest)
        info = service.model()
        assert (info.staleness_seconds > 0) == is_stale
        assert info.staleness_seconds in (0, pytest.approx(time.time() - info.written_at, abs=60))
    asyncio.run(service.stop())


def test_a_snapshot_that_was_replaced_is_freed_at_once(tmp_path: Path) -> None:
    """Without the collector of cycles: what the first version has is left out of that (gc.freeze)."""

    async def replaced(made: Trainer) -> None:
        settings = FollowSettings(poll_seconds=0.05, look_seconds=0.05)
        service = LiveService(lambda live: Following(tmp_path, live, settings), threads=1)
        await service.start()
        first = await asyncio.to_thread(service.live.wait, 60.0, "serving-1")
        assert first is not None
        rows = made.rows(3, seed=1)
        asked = [await service.score_table(rows)]
        tables, freed = first.scorer.tables, threading.Event()
        weakref.finalize(tables, freed.set)
        request = service._current()  # of a request that is being answered
        made.writer._parent = None
        made.publish()
        second = await asyncio.to_thread(service.live.wait, 60.0, "serving-2")
        assert second is not None
        assert second.scorer.tables is not tables
        del first, tables
        asked.append(await service.score_table(rows))
        assert [answer.versions.rows for answer in asked] == ["serving-1", "serving-2"]
        assert not freed.is_set()
        assert isinstance(request.score_all([rows])[0], Answer)
        del request
        assert await asyncio.to_thread(freed.wait, 10.0)
        await service.stop()

    gc.collect()
    gc.disable()
    try:
        with trainer(tmp_path) as made:
            made.publish(5)
            asyncio.run(replaced(made))
    finally:
        gc.enable()


def test_memory_is_what_is_resident_now(version: ServedVersion) -> None:
    service = LiveService(Puts, threads=1)
    service.live.put(version)
    size = 256 << 20
    before = service.model().memory_bytes
    held = np.ones(size, np.uint8)
    meanwhile = service.model().memory_bytes
    del held
    after = service.model().memory_bytes
    assert meanwhile - before > 0.9 * size
    assert meanwhile - after > 0.9 * size
    asyncio.run(service.stop())


def test_embed(version: ServedVersion) -> None:
    service = LiveService(Puts, threads=1)
    service.live.put(version)
    ids = [item_name(3), "no such item", item_name(3)]
    found = service.embed(feature="item", table=None, ids=ids)
    assert np.array_equal(found.rows, version.scorer.embed("item", ids).numpy())
    assert found.is_cold.tolist() == [False, True, False]
    keys = np.arange(5)
    of_table = service.embed(feature=None, table="user", ids=keys)
    assert np.array_equal(of_table.rows, version.scorer.tables.read("user", keys).numpy())
    two = service.embed(feature="user", table=None, ids=np.array([1, 2**62, -5]))
    assert np.array_equal(two.rows, version.scorer.embed("user", [1, 2**62, -5]).numpy())
    for asked, status, said in (
        ({"feature": "itme", "table": None, "ids": [1]}, 404, "did you mean item"),
        ({"feature": None, "table": "usr", "ids": [1]}, 404, "did you mean user"),
        ({"feature": None, "table": "user", "ids": [100]}, 422, "100"),
        ({"feature": "item", "table": None, "ids": [1.5]}, 422, "float"),
        ({"feature": "item", "table": None, "ids": ["a", 1]}, 422, "no column of strings"),
        ({"feature": "item", "table": "item", "ids": [1]}, 422, "give feature and ids"),
    ):
        with pytest.raises(Refusal, match=said) as refused:
            service.embed(**asked)
        assert refused.value.status == status
    asyncio.run(service.stop())


def test_arrow_rows_may_have_other_columns(version: ServedVersion) -> None:
    service = LiveService(Puts, threads=1)
    service.live.put(version)
    rows = rows_table(3).append_column("beside", pa.array([1, 2, 3]))
    answer = asyncio.run(service.score_table(rows))
    assert answer.scores.shape == (3, 1)
    asyncio.run(service.stop())


def test_an_answer_is_of_one_version_while_versions_change(
    version: ServedVersion, run_of: Callable[[str], Path]
) -> None:
    other = served_version(run_of("stacked"), side_tables(), "item")
    other = replace(
        other, manifest=other.manifest.model_copy(update={"sequence": 99}), applied=AppliedRows("resume-99")
    )
    service = LiveService(Puts, threads=2)
    wanted = {}
    for each in (version, other):
        scored = RequestScorer(each).score_all([REQUEST])[0]
        assert isinstance(scored, Answer)
        wanted[each.name] = scored.scores.tobytes()
    assert len(set(wanted.values())) == 2

    async def ask() -> set[str]:
        seen = set()
        for turn in range(30):
            service.live.put((version, other)[turn % 2])
            tasks = [asyncio.create_task(service.score(REQUEST)) for _ in range(8)]
            await asyncio.sleep(0)
            service.live.put((other, version)[turn % 2])
            for answer in await asyncio.gather(*tasks):
                assert answer.scores.tobytes() == wanted[answer.versions.dense]
                assert answer.versions.rows == answer.versions.dense
                seen.add(answer.versions.dense)
        return seen

    assert asyncio.run(ask()) == wanted.keys()
    asyncio.run(service.stop())
