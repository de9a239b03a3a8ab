"""Chains of versions: what is read back is what was written, whatever failed on the way."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embtables import Feature, FixedTable, Tables
from embtables.errors import StateError
from embtables.rows.protocol import Capture
from embtables.schema import RowwiseAdagrad
from embtables.state.folder.local_folder import LocalFolder
from embtables.state.folder.version_folder import LeaseHolder, StateFolder
from embtables.state.read.load import load as load_version
from embtables.state.write.version_writer import VersionWriter
from tests.contents import Arrays, flat, same
from tests.state.versions_for_tests import open_chain, tables, train, write


def loaded(folder: Path, sequence: int) -> Arrays:
    made, state = tables(), StateFolder(folder)
    load_version(state, state.chain("resume", sequence), made)
    return flat(made)


def test_every_version_of_a_chain_is_what_the_tables_were(tmp_path: Path) -> None:
    state, were = StateFolder(tmp_path), []
    made = tables()
    with open_chain(state, made, keep=100, longest=3) as chain:
        for cut in range(9):
            train(made, range(4 * cut, 4 * cut + 4))
            were.append(flat(made))
            chain.cut({"x": np.array([cut])}, {"cut": cut})
    numbers = state.sequences("resume")
    assert numbers == list(range(1, 10))
    parents = [state.manifest("resume", n).parent for n in numbers]
    assert parents == [None, 1, 2, 3, None, 5, 6, 7, None]
    for number, was in zip(numbers, were, strict=True):
        assert same(loaded(tmp_path, number), was)
        version = load_version(state, state.chain("resume", number), tables())
        assert version.content == {"cut": number - 1}
        assert version.tensors["x"].tolist() == [number - 1]
    rows = [state.manifest("resume", n).files["fixed.rows.0.arrow"].rows for n in numbers]
    assert rows[0] == rows[4] == 60
    assert all(n is not None and n < 60 for n in rows[1:4])


def test_a_chain_goes_on_from_what_was_loaded(tmp_path: Path) -> None:
    write(tmp_path, 3)
    state, made = StateFolder(tmp_path), tables()
    chain_before = state.chain("resume", 3)
    load_version(state, chain_before, made)
    with open_chain(state, made) as chain:
        chain.go_on_from(chain_before)
        train(made, range(15, 20))
        chain.cut({}, {})
    assert state.manifest("resume", 4).parent == 3
    assert same(loaded(tmp_path, 4), flat(made))
    whole, _ = write(tmp_path / "whole", 4)
    assert same(flat(whole), flat(made))


@pytest.mark.parametrize("call", ["write", "fsync", "link", "mkdir", "unlink", "open"])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
def test_a_write_that_fails_loses_nothing(
    tmp_path: Path, call: str, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every call of a cut fails in turn; the next cut succeeds and holds what the failed one would have."""
    nth = 0
    while True:
        nth += 1
        folder = tmp_path / str(nth)
        state, made = StateFolder(folder), tables()
        with LeaseHolder(state) as writer:
            chain = VersionWriter(writer, "resume", made, keep=100)
            train(made, range(5))
            chain.cut({}, {"step": 5})
            chain.wait()
            before = flat(made)
            train(made, range(5, 10))
            with monkeypatch.context() as patch:
                fired = failing(patch, call, code, nth)
                chain.cut({}, {"step": 10})
                failed = failure_of(chain)
            # What fails after the manifest is there leaves garbage alone.
            committed = failed is None
            assert committed or fired
            assert not fired or not committed or chain.failures
            if failed is not None:
                assert os.strerror(code) in str(failed)
                assert same(loaded(folder, 1), before)
            train(made, range(10, 15))
            chain.cut({}, {"step": 15})
            chain.wait()
            chain.close()
            numbers = state.sequences("resume")
            assert numbers == ([1, 2, 3] if committed else [1, 2])
            assert state.manifest("resume", numbers[-1]).parent == numbers[-2]
            assert same(loaded(folder, numbers[-1]), flat(made))
            writer.collect({"resume": 100})
        assert len(list((folder / "versions").iterdir())) == len(numbers)
        assert not list(folder.glob("*/tmp-*"))
        if not fired:
            break
    assert nth > 1


def failure_of(chain: VersionWriter) -> StateError | None:
    try:
        chain.wait()
    except StateError as error:
        return error
    return None


def failing(patch: pytest.MonkeyPatch, call: str, code: int, nth: int) -> list[str]:
    """The nth call of that kind fails, once. Returns where it happened."""
    fired: list[str] = []
    count = 0

    def wrapped(function: Callable[..., Any]) -> Callable[..., Any]:
        def called(*arguments: Any, **options: Any) -> Any:
            nonlocal count
            count += 1
            if count == nth:
                fired.append(str(arguments[0]))
                raise OSError(code, os.strerror(code))
            return function(*arguments, **options)

        return called

    if call in ("mkdir", "unlink", "open"):
        patch.setattr(Path, call, wrapped(getattr(Path, call)))
    else:
        patch.setattr(f"embtables.state.folder.local_folder.os.{call}", wrapped(getattr(os, call)))
    return fired


def test_when_too_much_was_forgotten_the_next_version_is_a_snapshot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state, made = StateFolder(tmp_path), tables()
    capture = made.rows.capture

    def forgetful(table: int, after: int | None, *, weights_only: bool = False) -> Capture:
        if after is not None:
            raise StateError("changes since cut 1 are not known any more")
        return capture(table, after, weights_only=weights_only)

    monkeypatch.setattr(made.rows, "capture", forgetful)
    with open_chain(state, made) as chain:
        for step in range(2):
            train(made, range(step, step + 1))
            chain.cut({}, {})
    assert [state.manifest("resume", n).parent for n in state.sequences("resume")] == [None, None]
    assert same(loaded(tmp_path, 2), flat(made))


@pytest.mark.parametrize("store", ["fbgemm", "reference"])
def test_other_row_stores_have_versions_too(tmp_path: Path, store: Any) -> None:
    def made_tables() -> Tables:
        table = FixedTable(name="t", dim=4, num_rows=9, optimizer=RowwiseAdagrad(learning_rate=0.1))
        return Tables([table], [Feature(name="f", table="t")], seed=1, row_store=store)

    state, made = StateFolder(tmp_path), made_tables()
    with open_chain(state, made) as chain:
        for _ in range(3):
            made.set_weight("t", made.weight("t") + 1.0)
            chain.cut({}, {})
    again = made_tables()
    load_version(state, state.chain("resume", 3), again)
    assert same(flat(again), flat(made))
    parents = {n: state.manifest("resume", n).parent for n in state.sequences("resume")}
    assert parents == ({2: None, 3: None} if store == "fbgemm" else {1: None, 2: 1, 3: 2})


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[LocalFolder]:
    yield LocalFolder(tmp_path)


def test_names_cannot_lead_out_of_the_folder(folder: LocalFolder) -> None:
    for name in ("../x", "/etc/passwd", "a/../../x", "a//b", "", ".", "..", "a/.hidden", "a\0b", "a b", "é"):
        with pytest.raises(StateError, match="is not the name of a file below this folder"):
            folder.path(name)


def test_a_file_is_made_once_or_replaced_whole(folder: LocalFolder) -> None:
    folder.make("d")
    folder.create("d/one", b"first")
    with pytest.raises(FileExistsError):
        folder.create("d/one", b"second")
    assert folder.read("d/one", 10) == b"first"
    folder.replace("d/one", b"third")
    assert folder.read("d/one", 10) == b"third"
    with pytest.raises(StateError, match="has 5 bytes, more than the 4 it may have"):
        folder.read("d/one", 4)
    assert folder.names("d") == ["one"]


def test_a_version_that_could_not_be_written_holds_nothing_of_the_tables(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, captured = tables(), []
    capture = made.rows.capture

    def noted(table: int, after: int | None, *, weights_only: bool = False) -> Capture:
        captured.append(capture(table, after, weights_only=weights_only))
        return captured[-1]

    monkeypatch.setattr(made.rows, "capture", noted)
    with LeaseHolder(StateFolder(tmp_path)) as writer:
        chain = VersionWriter(writer, "resume", made)
        train(made, range(5))
        with monkeypatch.context() as patch:
            failing(patch, "fsync", errno.ENOSPC, 1)
            chain.cut({}, {})
            assert failure_of(chain) is not None
        chain.close()
    assert len(captured) == 3
    for one in captured:
        with pytest.raises(ValueError, match="closed"):
            one.streamed()


def test_content_that_is_not_json_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    made = tables()
    with LeaseHolder(StateFolder(tmp_path)) as writer:
        chain = VersionWriter(writer, "resume", made)
        with pytest.raises(StateError, match="the content of a version must be JSON: Out of range"):
            chain.cut({}, {"loss": float("nan")})
        with pytest.raises(StateError, match=r"tmp-x.*temporary files have such names"):
            chain.cut({}, {}, pins=["tmp-x"])
            chain.wait()
            raise chain.failures[0]
        chain.close()
