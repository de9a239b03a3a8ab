"""`embtables audit`: a key is found wherever it is, and nowhere once it was deleted and old versions are gone."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pytest
import torch
from typer.testing import CliRunner

from embtables import LeaseHolder, Scorer, StateFolder, Tables, VersionWriter, hash_strings
from embtables.errors import ConfigError, StateError
from embtables.models.dense import dense_tensors
from embtables.pipelines.cli.main import app
from embtables.serving import wire
from embtables.serving.trust.audit import Audit, Finding, audit
from embtables.state.format.side_file import SideFile
from embtables.state.read.find import find
from tests.serving.client.scripted import answer, scripted
from tests.serving.scoring.served_for_tests import item_name, items_table

ITEM = item_name(3)


class Chain:
    """Versions for servers of a trained run, in a folder of their own."""

    def __init__(self, run: Path, holder: LeaseHolder) -> None:
        chain = find(run / "checkpoints", "last")
        scorer = Scorer.from_version(run, "last")
        assert isinstance(scorer.tables, Tables)
        self.tables = scorer.tables
        self.content = {name: value for name, value in chain[-1].content.items() if name != "state"}
        self.tensors = {name: value.detach().numpy() for name, value in dense_tensors(scorer.model).items()}
        self.writer = VersionWriter(holder, "serving", self.tables, projection="weights", keep=9)
        self.holder, self.state = holder, holder.state

    def cut(self, side: pa.Table | None = None) -> None:
        """Writes the next version, with a side table or without."""
        content, files = dict(self.content), {}
        if side is not None:
            columns = [name for name in side.column_names if name != "item"]
            of = {"name": "items", "keys": ["item"], "columns": columns, "file": "side.0.arrow", "rows": len(side)}
            content["side_tables"], files = [of], {"side.0.arrow": SideFile(side)}
        self.writer.cut(self.tensors, content, side_tables=files)
        self.writer.wait()
        assert not self.writer.failures

    def audit(self, key: str = ITEM, **named: Any) -> Audit:
        return audit(self.state, key, **({"feature": "item"} | named))


@pytest.fixture
def chain(run_of: Callable[[str], Path], tmp_path: Path) -> Iterator[Chain]:
    with LeaseHolder(StateFolder(tmp_path / "versions")) as holder:
        made = Chain(run_of("dcnv2"), holder)
        yield made
        made.writer.close()


def delete(chain: Chain, item: str) -> None:
    chain.tables.delete("item", hash_strings([item]))


def test_an_id_is_found_in_every_version_that_has_its_row(chain: Chain) -> None:
    chain.cut()
    chain.tables.set("item", hash_strings([ITEM]), torch.ones(1, 4))
    chain.cut()
    chain.tables.set("item", hash_strings([item_name(4)]), torch.ones(1, 4))
    chain.cut()
    found = chain.audit()
    assert found.found == [Finding(name, "row", "item", "item.rows.0.arrow") for name in ("serving-1", "serving-2")]
    assert (found.versions, found.tombstones) == (3, [])
    assert found.keys == {"item": sorted({int(hash_key(chain, ITEM))})}


def hash_key(chain: Chain, item: str) -> int:
    return int(chain.tables.keys_of("item", torch.from_numpy(hash_strings([item])), "item")[1][0])


def test_a_deleted_key_is_gone_once_old_versions_are(chain: Chain) -> None:
    chain.cut()
    key = str(hash_key(chain, ITEM))
    delete(chain, ITEM)
    chain.cut()
    found = chain.audit(key, feature=None, table="item")
    assert [each.version for each in found.found] == ["serving-1"]
    assert found.tombstones == [Finding("serving-2", "tombstone", "item", "item.tombstones.0.arrow")]
    chain.writer.close()
    folder = str(chain.state.folder.root)
    runner = CliRunner()
    arguments = ["audit", key, folder, "--table", "item"]
    told = runner.invoke(app, arguments)
    assert told.exit_code == 1
    assert "found: row of item: version serving-1, file item.rows.0.arrow" in told.stderr
    assert "a tombstone says that it is gone: serving-2" in told.stderr
    (command,) = [line for line in told.stderr.splitlines() if "embtables state compact" in line]
    assert f"embtables state compact {folder} --purpose serving" in command
    chain.holder.close()
    assert runner.invoke(app, ["state", "compact", folder, "--purpose", "serving"]).exit_code == 0
    told = runner.invoke(app, arguments)
    assert (told.exit_code, told.stderr.splitlines()[-1]) == (0, "it is nowhere")
    report = json.loads(runner.invoke(app, [*arguments, "--json"]).stdout)
    assert (report["clean"], report["found"], report["versions"]) == (True, [], 1)


def test_a_side_table_that_has_the_id_is_found(chain: Chain) -> None:
    delete(chain, ITEM)
    chain.cut(items_table())
    assert chain.audit().found == [Finding("serving-1", "value of a side table", "items", "side.0.arrow")]
    assert chain.audit("box", feature="title").found  # a word within a text, and a row
    without = items_table().filter(pa.compute.not_equal(items_table()["item"], ITEM))
    chain.cut(without)
    assert {each.version for each in chain.audit().found} == {"serving-1"}


def test_a_number_is_looked_for_as_a_number_and_as_text(chain: Chain) -> None:
    chain.cut()
    assert chain.audit("3", feature="shop").found
    assert not chain.audit("987654321", feature="shop").found
    assert len(chain.audit("3", feature="shop").keys["other"]) == 2


def test_another_feature_of_the_same_column_is_looked_for_too(run_of: Callable[[str], Path]) -> None:
    """First-order weights have rows of their own."""
    run = run_of("deepfm")
    found = audit(StateFolder(run / "checkpoints"), ITEM, feature="item")
    assert {each.table for each in found.found} == {"item", "linear.item"}


def test_a_live_table_is_asked(chain: Chain) -> None:
    delete(chain, ITEM)
    chain.cut()

    def body(cold: list[int]) -> bytes:
        versions = wire.Versions("serving-1", "serving-1")
        return answer(200, msgspec.json.encode(wire.EmbedAnswer("r", [[0.0] * 4], versions, cold)))

    with scripted(body([0])) as server:
        found = chain.audit(server=server.url)
        assert (found.found, found.live) == ([], wire.Versions("serving-1", "serving-1"))
        assert msgspec.json.decode(server.received[0].body) == {"table": "item", "keys": [hash_key(chain, ITEM)]}
    with scripted(body([])) as server:
        assert chain.audit(server=server.url).found == [Finding(None, "live row", "item", server.url)]
    refused = answer(404, msgspec.json.encode(wire.ErrorBody("there is no table")))
    with scripted(refused) as server, pytest.raises(ConfigError, match="it serves another model"):
        chain.audit(server=server.url)


def test_a_damaged_file_proves_nothing(chain: Chain) -> None:
    chain.cut()
    (file,) = Path(str(chain.state.folder.root)).glob("versions/*/item.rows.0.arrow")
    raw = bytearray(file.read_bytes())
    raw[len(raw) // 2] ^= 1
    file.write_bytes(raw)
    with pytest.raises(StateError, match="is damaged"):
        chain.audit(item_name(5))


def test_a_folder_of_no_version_is_told(chain: Chain) -> None:
    chain.cut()
    (Path(str(chain.state.folder.root)) / "versions" / "serving-0000000009-deadbeef").mkdir()
    assert chain.audit().garbage == ["serving-0000000009-deadbeef"]


@pytest.mark.parametrize(
    ("key", "named", "says"),
    [
        ("1", {"feature": None}, "give --table and one of its keys, or --feature"),
        ("1", {"feature": "item", "table": "item"}, "give --table"),
        ("1", {"feature": "itm"}, "there is no such feature; there are: item, past"),
        ("1", {"feature": None, "table": "items"}, "there is no such table; there are: item, user, other"),
        ("x", {"feature": None, "table": "item"}, "a key is an integer of 64 bits, received 'x'; an id needs"),
        (str(2**63), {"feature": None, "table": "item"}, "a key is an integer of 64 bits"),
        ("7", {"feature": "user"}, "is a fixed table, whose rows belong to no id alone"),
        ("7", {"feature": None, "table": "user"}, "is a fixed table"),
        ("7", {"feature": "user_item"}, "an id of a cross is made of several"),
    ],
)
def test_what_cannot_be_looked_for(chain: Chain, key: str, named: dict[str, Any], says: str) -> None:
    chain.cut()
    with pytest.raises(ConfigError, match=says):
        chain.audit(key, **named)


def test_a_folder_without_versions(tmp_path: Path) -> None:
    with pytest.raises(StateError, match="there is no version"):
        audit(StateFolder(tmp_path), "1", table="item")
