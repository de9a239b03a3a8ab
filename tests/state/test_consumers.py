"""Several consumers of the changes of one set of tables: none takes from another what it needs."""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from embtables import CollisionlessTable, Feature, Tables
from embtables.errors import StateError
from embtables.schema import Identity, Sgd
from embtables.shard.world import World
from embtables.state.folder.version_folder import LeaseHolder, NewFile, StateFolder, VersionKind
from embtables.state.read.load import load as load_version
from embtables.state.write.commit_across_ranks import commit
from embtables.state.write.rank_files import RankFiles
from embtables.state.write.version_writer import VersionWriter
from embtables.tables.cuts import CutConsumer
from tests.contents import flat, same
from tests.shard.threads_for_tests import in_threads
from tests.shard.versions import chains_for_tests as chains
from tests.state.versions_for_tests import tables


@pytest.fixture(autouse=True)
def no_fsync(monkeypatch: pytest.MonkeyPatch) -> None:
    """No power is lost here."""
    monkeypatch.setattr("embtables.state.folder.local_folder.os.fsync", lambda handle: None)


def parents(state: StateFolder, purpose: str) -> list[int | None]:
    return [state.manifest(purpose, n).parent for n in state.sequences(purpose)]  # type: ignore[arg-type]


def one_table() -> Tables:
    table = CollisionlessTable(name="t", dim=1, optimizer=Sgd(learning_rate=0.1))
    return Tables([table], [Feature(name="f", table="t", encoder=Identity())], seed=1)


def lose(made: Tables, keys: list[int]) -> None:
    """Keys get a row and lose it."""
    ids = torch.tensor(keys)
    made.set("t", ids, torch.ones(len(ids), 1))
    made.delete("t", ids)


def test_of_a_hundred_cuts_of_two_writers_all_but_the_first_are_deltas(tmp_path: Path) -> None:
    state, made = StateFolder(tmp_path), one_table()
    made.set("t", torch.arange(1000), torch.ones(1000, 1))
    with LeaseHolder(state) as holder:
        resume = VersionWriter(holder, "resume", made, keep=1, longest=1000)
        serving = VersionWriter(holder, "serving", made, keep=1, longest=1000)
        for cut in range(100):
            made.set("t", torch.arange(cut, cut + 3), torch.full((3, 1), float(cut)))
            lose(made, [2000 + cut])
            resume.cut({}, {})
            if cut % 3 == 0:
                serving.cut({}, {})
        for writer in (resume, serving):
            writer.wait()
            writer.close()
    assert parents(state, "resume") == [None, *range(1, 100)]
    assert parents(state, "serving") == [None, *range(1, 34)]
    assert state.manifest("resume", 100).rows_of("t", "rows") == 3
    assert state.manifest("serving", 34).rows_of("t", "rows") == 5
    for purpose, number in (("resume", 100), ("serving", 34)):
        again = one_table()
        load_version(state, state.chain(purpose, number), again)  # type: ignore[arg-type]
        assert same(flat(again), flat(made))
    assert made.cuts.held() == {}


def test_at_several_ranks_two_writers_leave_each_other_their_deltas(tmp_path: Path) -> None:
    def work(world: World) -> None:
        ranks = chains.of(world)
        with chains.holding(world, tmp_path) as held:
            writers = [VersionWriter(held, p, ranks.tables[0], world=world, keep=99) for p in ("resume", "serving")]
            for cut in range(6):
                chains.train(ranks, range(cut, cut + 1))
                for writer in writers:
                    writer.cut({}, {})
            for writer in writers:
                writer.close()
                assert writer.failures == []

    in_threads(2, work)
    for purpose in ("resume", "serving"):
        assert parents(StateFolder(tmp_path), purpose) == [None, 1, 2, 3, 4, 5]


def test_what_nobody_holds_any_more_is_freed_and_nothing_else() -> None:
    made = one_table()
    slow, fast, idle = (made.cuts.consumer(name) for name in ("slow", "fast", "idle"))
    slow.hold(made.draw_cut())
    for key in range(3):
        lose(made, [key])
        fast.hold(made.draw_cut())
    assert made.cuts.held() == {"slow": 1, "fast": 4, "idle": None}
    assert made.changes("t", 1).tombstones.tolist() == [0, 1, 2]
    idle.close()
    assert made.changes("t", 1).tombstones.tolist() == [0, 1, 2]
    slow.close()
    lose(made, [7])
    assert made.changes("t", 4).tombstones.tolist() == [7]
    with pytest.raises(StateError, match=r"a snapshot of the table is needed"):
        made.changes("t", 1)
    again = made.cuts.consumer("slow")
    with pytest.raises(StateError, match="cannot hold cut 1: cuts 4 to 4 can be held; draw a new one"):
        again.hold(1)
    again.hold(4)


def test_a_name_is_held_once_and_a_cut_only_forwards() -> None:
    made = one_table()
    with made.cuts.consumer("index") as index:
        with pytest.raises(StateError, match="there is a consumer 'index' of these tables already"):
            made.cuts.consumer("index")
        with pytest.raises(StateError, match="cannot hold cut 1"):
            index.hold(1)
        cuts = [made.draw_cut() for _ in range(3)]
        index.hold(cuts[1])
        with pytest.raises(StateError, match="cannot hold cut 1: cuts 2 to 3 can be held"):
            index.hold(cuts[0])
        assert index.cut == cuts[1]
    with pytest.raises(StateError, match="was closed"):
        index.hold(cuts[2])
    made.cuts.consumer("index").close()


def test_two_writers_of_one_purpose_need_two_names(tmp_path: Path) -> None:
    made = tables()
    with LeaseHolder(StateFolder(tmp_path / "a")) as a, LeaseHolder(StateFolder(tmp_path / "b")) as b:
        first = VersionWriter(a, "serving", made)
        with pytest.raises(StateError, match="there is a consumer 'serving' of these tables already"):
            VersionWriter(b, "serving", made)
        second = VersionWriter(b, "serving", made, consumer="other region")
        first.close()
        second.close()


def test_a_version_that_is_being_written_is_not_the_garbage_of_another(tmp_path: Path) -> None:
    state = StateFolder(tmp_path)
    with LeaseHolder(state) as holder:

        def while_others_clean() -> Iterator[bytes]:
            yield b"one"
            commit(holder, VersionKind("serving"), lambda: RankFiles({}, {}), {})
            holder.collect({"serving": 1, "resume": 1})
            yield b"two"

        files = RankFiles({"of.a.user": NewFile(while_others_clean())}, {})
        version = commit(holder, VersionKind("resume"), lambda: files, {})
        state.verify(version)
        assert state.sequences("serving") == [1]
        assert holder.collect({"serving": 1, "resume": 1}) == 0


def test_a_writer_that_lags_writes_a_snapshot_and_the_other_one_deltas(tmp_path: Path) -> None:
    """18 million tombstones, of which 16 million are kept."""
    state, made = StateFolder(tmp_path), one_table()
    million = torch.arange(1_000_000)
    with LeaseHolder(state) as holder:
        lags = VersionWriter(holder, "serving", made, keep=100)
        follows = VersionWriter(holder, "resume", made, keep=100, longest=100)
        for writer in (lags, follows):
            writer.cut({}, {})
        for cut in range(18):
            made.rows.make(0, million)
            made.rows.delete(0, million)
            if cut % 2:
                follows.cut({}, {})
        lags.cut({}, {})
        for writer in (lags, follows):
            writer.wait()
        made.set("t", torch.tensor([5]), torch.ones(1, 1))
        for writer in (lags, follows):
            writer.cut({}, {})
            writer.wait()
            writer.close()
    assert parents(state, "resume") == [None, *range(1, 11)]
    assert parents(state, "serving") == [None, None, 2]
    for purpose, number in (("resume", 11), ("serving", 3)):
        again = one_table()
        load_version(state, state.chain(purpose, number), again)  # type: ignore[arg-type]
        assert same(flat(again), flat(made))


acts = st.lists(st.tuples(st.sampled_from(["lose", "hold", "hold", "leave"]), st.integers(0, 3)), max_size=40)


@given(acts)
@settings(max_examples=60, deadline=None)
def test_whoever_holds_a_cut_can_have_what_changed_since(history: list[tuple[str, int]]) -> None:
    made, key = one_table(), 0
    made.draw_cut()
    consumers: dict[int, CutConsumer] = {}
    lost: dict[int, list[int]] = {}
    for act, who in history:
        if act == "lose":
            lose(made, [key])
            for keys in lost.values():
                keys.append(key)
            key += 1
        elif act == "leave" and who in consumers:
            consumers.pop(who).close()
            del lost[who]
        elif act == "hold":
            consumers.setdefault(who, made.cuts.consumer(str(who)) if who not in consumers else consumers[who])
            consumers[who].hold(made.draw_cut())
            lost[who] = []
        for number, consumer in consumers.items():
            assert consumer.cut is not None
            assert made.changes("t", consumer.cut).tombstones.tolist() == lost[number]


@pytest.mark.parametrize("leave", [False, True])
def test_what_is_kept_is_freed_while_no_other_thread_is_at_the_tables(leave: bool) -> None:
    """Another thread's `delete` adds tombstones to what is freed."""
    made = one_table()
    first, second = made.cuts.consumer("first"), made.cuts.consumer("second")
    first.hold(made.draw_cut())
    second.hold(made.draw_cut())
    free, freed, entered = made.cuts._free, [], threading.Event()

    def watched(cut: int) -> None:
        thread = threading.Thread(target=lambda: (made.get("t", torch.tensor([1])), entered.set()))
        thread.start()
        assert not entered.wait(0.1)
        free(cut)
        freed.append(thread)

    made.cuts._free = watched
    if leave:
        first.close()
    else:
        first.hold(made.draw_cut())
    (thread,) = freed
    thread.join()
    assert entered.is_set()


def test_a_consumer_that_nobody_refers_to_has_left() -> None:
    made = one_table()
    stays, dropped = made.cuts.consumer("stays"), made.cuts.consumer("dropped")
    dropped.hold(made.draw_cut())
    del dropped
    gc.collect()
    assert made.cuts.held() == {"stays": None}
    made.cuts.consumer("dropped").close()
    lose(made, [7])
    stays.hold(made.draw_cut())
    with pytest.raises(StateError, match="not known"):
        made.changes("t", after=1)
