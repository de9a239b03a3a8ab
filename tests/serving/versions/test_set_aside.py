"""What cannot be served is set aside with its reason; the server stays where it is, and goes on with a good chain."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from embtables.schema import Feature
from embtables.serving import wire
from embtables.serving.versions.set_aside import KINDS
from embtables.state.format import manifest as manifests
from embtables.state.format.checksums import Digests
from embtables.state.format.manifest import Manifest
from embtables.state.read.table_file import TableFile
from tests.serving.versions.conftest import WAIT, Follows
from tests.serving.versions.test_follow import Follow, assert_parity
from tests.serving.versions.trainer_for_tests import DIM, Trainer, data_file, manifest_file, schema, trainer


def rejected(follows: Follows, count: int = 1) -> wire.RejectedDelta:
    """The last version that was set aside, once there are so many."""
    woken = follows.following.set_aside.wait(count, WAIT)
    assert woken, follows.following.info()
    return follows.following.set_aside.last[-1]


def newest(trained: Trainer) -> Manifest:
    found = trained.state.latest("serving")
    assert found is not None
    return found


def rewrite(trained: Trainer, version: Manifest, **changes: Any) -> None:
    """A manifest with other fields, whole by its checksum."""
    path = manifest_file(trained.state, version)
    fields = json.loads(path.read_bytes()) | changes
    del fields["checksum"]
    swap(path, manifests.encode(fields))


def swap(path: Path, raw: bytes) -> None:
    """As a writer would, at once."""
    beside = path.with_name("tmp-" + path.name)
    beside.write_bytes(raw)
    beside.replace(path)


def flipped(trained: Trainer, version: Manifest) -> None:
    path = data_file(trained.state, version, "item.rows.0.arrow")
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 1
    path.write_bytes(raw)


def truncated(trained: Trainer, version: Manifest) -> None:
    path = data_file(trained.state, version, "user.rows.0.arrow")
    path.write_bytes(path.read_bytes()[:-8])


def missing(trained: Trainer, version: Manifest) -> None:
    data_file(trained.state, version, "dense.safetensors").unlink()


def not_json(trained: Trainer, version: Manifest) -> None:
    swap(manifest_file(trained.state, version), b"{")


def under_another_number(trained: Trainer, version: Manifest) -> None:
    """Two manifests in the wrong order: the newest number has the one before it."""
    former = manifest_file(trained.state, trained.state.manifest("serving", version.sequence - 1))
    swap(manifest_file(trained.state, version), former.read_bytes())


def without_parent(trained: Trainer, version: Manifest) -> None:
    trained.state.folder.remove(f"manifests/serving-{version.sequence - 1:010d}.json")


def of_another_schema(trained: Trainer, version: Manifest) -> None:
    content = json.loads(json.dumps(version.content))
    content["schema"]["features"][1]["column"] = "product"
    rewrite(trained, version, content=content, schema_hash=manifests.hash_of(content["schema"]))


def clock_back(trained: Trainer, version: Manifest) -> None:
    tables = json.loads(manifest_file(trained.state, version).read_bytes())["tables"]
    for name in ("user", "linear.user"):
        tables[name]["now"] -= 3600
    rewrite(trained, version, tables=tables)


FILES = {
    "flipped": (flipped, "damaged", "item.rows.0.arrow: is damaged: its checksum is not the one recorded"),
    "truncated": (truncated, "damaged", "user.rows.0.arrow: is damaged: it has"),
    "missing": (missing, "damaged", "dense.safetensors: of version serving-3 cannot be read: No such file"),
    "not_json": (not_json, "damaged", "serving-0000000003.json: is damaged: it is not a manifest"),
    "another_number": (under_another_number, "damaged", "is the manifest of serving-2, under another name"),
    "gap": (without_parent, "gap", "there is no version serving-2"),
    "schema": (
        of_another_schema,
        "schema",
        "version serving-3: its features (item) are not those of the version before",
    ),
    "clock": (clock_back, "values", "user: its clock is"),
}


@pytest.mark.parametrize("name", FILES)
def test_a_version_that_is_not_as_it_should_be(
    trained: Trainer, follow: Follow, tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    spoil, kind, text = FILES[name]
    trained.publish()
    follows = follow(tmp_path)
    before = follows.until("serving-2")
    follows.following.pause()
    trained.publish()
    spoil(trained, newest(trained))
    with caplog.at_level(logging.WARNING, "embtables.serving.versions"):
        follows.following.follow()
        found = rejected(follows)
    assert (found.version, found.reason) == ("serving-3", kind)
    assert text in found.detail
    assert follows.live.current is before
    rows = trained.rows(30, seed=7)
    served = before.scorer.score(rows)
    follows.following.follow()  # looks once more: it is counted and logged once
    info = follows.following.info()
    assert info.rejected == {k: int(k == kind) for k in KINDS}
    assert info.last_rejected is not None
    assert info.last_rejected.version == "serving-3"
    assert len([r for r in caplog.records if "set aside" in r.message]) == 1
    assert "serving-3" not in info.available
    # A snapshot needs nothing of it.
    trained.writer._parent = None
    version = follows.until(trained.publish())
    assert_parity(version, trained)
    assert torch.equal(before.scorer.score(rows), served)
    assert follows.following.info().rejected[kind] == 1


def test_the_same_version_written_again_is_taken(trained: Trainer, follow: Follow, tmp_path: Path) -> None:
    follows = follow(tmp_path)
    follows.until("serving-1")
    follows.following.pause()
    trained.publish()
    path = manifest_file(trained.state, newest(trained))
    raw = path.read_bytes()
    swap(path, raw[:-1])
    follows.following.follow()
    rejected(follows)
    swap(path, raw)
    assert_parity(follows.until("serving-2"), trained)


def overwritten(trained: Trainer, table: str, row: int, value: float) -> int:
    """The newest version with another weight in a row of a table, whole by all checksums; returns the row's key."""
    version = newest(trained)
    name = f"{table}.rows.0.arrow"
    path = data_file(trained.state, version, name)
    file = TableFile(trained.state, version, name, None)
    at = file._places["weight"].offset + row * file.row_bytes("weight")
    key = int(file.read("key", row, row + 1)[0])
    raw = bytearray(path.read_bytes())
    raw[at : at + 4] = np.float32(value).tobytes()
    path.write_bytes(raw)
    digests = Digests()
    digests.update(raw)
    written = digests.written()
    files = json.loads(manifest_file(trained.state, version).read_bytes())["files"]
    files[name] |= {"xxh3": written.xxh3} | ({"blocks": list(written.blocks)} if written.blocks else {})
    rewrite(trained, version, files=files)
    return key


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e9, -1e30])
@pytest.mark.parametrize("table", ["item", "country"])
def test_a_poisoned_row_is_not_served(
    trained: Trainer, follow: Follow, tmp_path: Path, table: str, value: float
) -> None:
    follows = follow(tmp_path)
    before = follows.until("serving-1")
    follows.following.pause()
    rows = trained.rows(30, seed=7)
    scores = before.scorer.score(rows)
    trained.publish()
    key = overwritten(trained, table, 5, value)
    follows.following.follow()
    found = rejected(follows)
    assert (found.version, found.reason) == ("serving-2", "values")
    assert f"table {table}: the row of key {key} has" in found.detail
    assert follows.live.current is before
    assert torch.equal(before.scorer.score(rows), scores)  # nothing of it was applied, of no table
    # What stands on it is set aside as well, once; a snapshot brings the server on.
    trained.publish()
    follows.following.follow()
    assert follows.live.current is before
    assert follows.following.info().rejected["values"] == 1
    trained.writer._parent = None
    assert_parity(follows.until(trained.publish()), trained)


def test_dense_weights_that_are_not_finite_are_not_served(trained: Trainer, follow: Follow, tmp_path: Path) -> None:
    follows = follow(tmp_path)
    before = follows.until("serving-1")
    scores, rows = before.scorer.score(trained.rows(30, seed=7)), trained.rows(30, seed=7)
    trained.train()
    name, weights = next(iter(trained.dense().items()))
    weights.reshape(-1)[0] = np.nan
    trained.cut(dense={name: weights})
    found = rejected(follows)
    assert (found.version, found.reason) == ("serving-2", "values")
    assert found.detail == f"version serving-2, tensor {name}: holds numbers that are not finite"
    assert torch.equal(before.scorer.score(rows), scores)


def test_a_row_far_longer_than_all_others_is_not_served(tmp_path: Path, follow: Follow) -> None:
    """Of a table with a thousand rows and more."""
    with trainer(tmp_path) as made:
        ids = torch.arange(2000)
        made.tables.set("item", ids, torch.randn(2000, DIM, generator=torch.Generator().manual_seed(0)))
        made.publish()
        follows = follow(tmp_path)
        before = follows.until("serving-1")
        made.tables.set("item", ids[:1], torch.full((1, DIM), 1000.0))
        made.cut()
        found = rejected(follows)
        assert (found.version, found.reason) == ("serving-2", "values")
        assert "has the norm 2.83e+03, 100 times that of 99.9 % of the rows is" in found.detail
        # It comes again in each snapshot, which is held against the rows that answer.
        made.writer._parent = None
        made.cut()
        assert rejected(follows, 2).version == "serving-3"
        assert follows.live.current is before
        made.tables.set("item", ids[:1], torch.ones(1, DIM))
        made.writer._parent = None
        assert_parity(follows.until(made.cut()), made)


def test_many_rows_ten_times_as_long_are_not_served(tmp_path: Path, follow: Follow) -> None:
    with trainer(tmp_path) as made:
        ids, rows = torch.arange(3000), torch.randn(3000, DIM, generator=torch.Generator().manual_seed(0))
        made.tables.set("item", ids, rows)
        made.publish()
        follows = follow(tmp_path)
        follows.until("serving-1")
        made.tables.set("item", ids, rows * 5)
        before = follows.until(made.cut())
        assert_parity(before, made)  # as a learning rate that rose may do
        made.tables.set("item", ids, rows * 200)
        made.cut()
        found = rejected(follows)
        assert (found.version, found.reason) == ("serving-3", "values")
        assert found.detail.startswith(
            "version serving-3, table item: 99% of 3,000 rows have a norm above 269, which is 10 "
        )
        assert follows.live.current is before
        assert torch.equal(before.scorer.tables.get("item", ids), rows * 5)


def test_a_trainer_of_another_schema_does_not_replace_the_one_served(
    trained: Trainer, follow: Follow, tmp_path: Path
) -> None:
    follows = follow(tmp_path)
    before = follows.until("serving-1")
    features = (*schema().features[:2], Feature(name="country", table="country", column="land"))
    other = Trainer(trained.writer._holder, made=schema(features=features), consumer="other")  # type: ignore[arg-type]
    name = other.publish()
    found = rejected(follows)
    assert (found.version, found.reason) == (name, "schema")
    assert "its features (country) are not those that are served" in found.detail
    assert follows.live.current is before
    # An operator may take it all the same.
    follows.following.pin(name)
    assert_parity(follows.live.current, other)
    other.writer.close()


def test_another_model_over_the_same_columns_is_taken(trained: Trainer, follow: Follow, tmp_path: Path) -> None:
    follows = follow(tmp_path)
    follows.until("serving-1")
    model = {"kind": "deepfm", "hidden_sizes": [4]}
    other = Trainer(trained.writer._holder, made=schema(model=model), consumer="other")  # type: ignore[arg-type]
    assert_parity(follows.until(other.publish()), other)
    other.writer.close()


@pytest.mark.parametrize("spoilt", [1, 2])
def test_at_start_the_newest_whole_version_answers(
    trained: Trainer, follow: Follow, tmp_path: Path, spoilt: int
) -> None:
    """Versions 1, 2, 3 are a chain, 4 and 5 another."""
    trained.publish()
    trained.publish()
    trained.writer._parent = None
    trained.publish()
    rows = trained.rows(30, seed=7)
    scores = {3: None, 4: trained.scorer().score(rows)}
    trained.publish()
    flipped(trained, trained.state.manifest("serving", 5))
    if spoilt == 2:
        flipped(trained, trained.state.manifest("serving", 4))
    follows = follow(tmp_path)
    version = follows.until("serving-4" if spoilt == 1 else "serving-3")
    if spoilt == 1:
        assert torch.equal(version.scorer.score(rows), scores[4])
    assert follows.following.info().rejected["damaged"] == spoilt - (spoilt == 2)
    trained.writer._parent = None
    assert_parity(follows.until(trained.publish()), trained)


def test_where_no_version_is_whole_it_says_why(trained: Trainer, follow: Follow, tmp_path: Path) -> None:
    flipped(trained, newest(trained))
    follows = follow(tmp_path)
    rejected(follows)
    reason = follows.following.why_not_ready()
    assert reason is not None
    assert "item.rows.0.arrow: is damaged" in reason
    trained.writer._parent = None
    assert_parity(follows.until(trained.publish()), trained)
