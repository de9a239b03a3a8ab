"""`embtables plan` as a user meets it; constants from a file, but for one test that measures."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from torch import Tensor

from embtables.pipelines.config import RunConfig, load_config
from embtables.pipelines.plan.calibrate import measured_for
from embtables.pipelines.plan.keys import estimate
from embtables.pipelines.plan.machine import Work
from embtables.pipelines.plan.plan import PlanRequest, plan
from embtables.pipelines.plan.sample import read_sample
from embtables.rows.optimizers import OptimizerSpec, register_optimizer, unregister_optimizer
from embtables.schema import CollisionlessTable, OptimizerConfig, to_yaml
from tests.pipelines.conftest import make_table
from tests.pipelines.plan.plan_for_tests import machine

Make = Callable[..., RunConfig]
Command = Callable[..., tuple[int, str, str]]
DATA = os.environ.get("EMBTABLES_DATA")
TABLE = {"dim": 8, "optimizer": {"kind": "adam", "learning_rate": 0.1}}


@pytest.fixture
def files(make_config: Make, tmp_path: Path) -> tuple[Path, Path]:
    """A configuration whose tables grow, and constants measured for it."""
    config = make_config(tables=[{"name": "user", **TABLE}, {"name": "item", **TABLE}])
    made, node = tmp_path / "config.yaml", tmp_path / "node.json"
    made.write_text(to_yaml(config))
    machine(measured_for(config)).save(node)
    return made, node


def _planned(command: Command, files: tuple[Path, Path], *options: object) -> dict[str, Any]:
    status, out, err = command("plan", files[0], "--machine", files[1], "--json", *options)
    assert status == 0, err
    found: dict[str, Any] = json.loads(out)
    return found


def test_a_plan_holds_what_was_requested(files: tuple[Path, Path], command: Command) -> None:
    found = _planned(command, files, "--workers", 4)
    assert found["log"]["train_rows"] == found["log"]["sampled_rows"] > 900
    assert found["tables"]["user"]["rows"] == 40
    assert found["tables"]["item"]["how"] == "whole log"
    assert found["step"]["ms"] == pytest.approx(sum(v for k, v in found["step"].items() if k.endswith("_ms")), rel=1e-3)
    assert found["step"]["rows_per_second"] == pytest.approx(100 / (found["step"]["ms"] / 1e3), rel=1e-3)
    assert found["bytes"]["all_ranks"] == pytest.approx(4 * found["bytes"]["sent_per_rank"], abs=4)
    assert found["bytes"]["sent_per_rank"] > 0
    assert found["memory"]["tables"] == sum(table["bytes_per_rank"] for table in found["tables"].values())
    assert found["fits"]
    alone = _planned(command, files)
    assert alone["bytes"]["sent_per_rank"] == 0
    assert alone["tables"]["item"]["rows_per_rank"] > found["tables"]["item"]["rows_per_rank"]


class Sign(OptimizerConfig):
    kind: Literal["sign"] = "sign"


def _sign(config: Sign, weight: Tensor, state: Mapping[str, Tensor], gradient: Tensor, rate: float, t: int) -> None:
    weight.add_(gradient.sign(), alpha=-rate)


@pytest.fixture
def _sign_is_registered() -> Iterator[None]:
    register_optimizer(OptimizerSpec(Sign, _sign))
    yield
    unregister_optimizer("sign")


@pytest.mark.usefixtures("_sign_is_registered")
def test_an_optimizer_that_the_native_core_does_not_have_is_refused(files: tuple[Path, Path], command: Command) -> None:
    optimizer = "tables.item.optimizer={kind: sign, learning_rate: 0.1}"
    for store in ("host", "reference"):
        options = ("--set", optimizer, "--set", f"train.row_store={store}")
        status, _, err = command("plan", files[0], "--machine", files[1], "--json", *options)
        assert status == 2, err
        assert (
            "table item: embtables plan predicts only row_store: host, which does not support optimizer 'sign'" in err
        )
        assert "Traceback" not in err


@pytest.mark.parametrize("gb", [2, 3, 5])
def test_what_does_not_fit_is_said_with_what_to_change(gb: int, files: tuple[Path, Path], command: Command) -> None:
    many = ("--memory-gb", gb, "--rows", "item=2e8")
    found = _planned(command, files, "--workers", 2, *many)
    assert not found["fits"]
    assert found["tables"]["item"]["how"] == "given"
    advice = "\n".join(found["advice"])
    assert f"it has {gb}.00 GB" in advice
    assert "rowwise_adagrad" in advice
    workers = int(advice.split("--workers ")[1].split(":")[0].replace(",", ""))
    assert _planned(command, files, "--workers", workers, *many)["fits"]
    assert not _planned(command, files, "--workers", workers - 1, *many)["fits"]
    limit = int(advice.split("max_rows: ")[1].split(" ")[0].replace(",", ""))
    option = f"tables.item.max_rows={limit}"
    assert _planned(command, files, "--workers", 2, *many, "--set", option)["fits"]


def test_a_slow_link_makes_the_step_longer(files: tuple[Path, Path], command: Command) -> None:
    fast, slow = (_planned(command, files, "--workers", 8, "--bandwidth-gbps", gbps) for gbps in (100, 0.001))
    assert slow["step"]["wire_ms"] > 100 * fast["step"]["wire_ms"]
    assert slow["step"]["bound_by"] == "wire"


def test_a_plan_for_people(files: tuple[Path, Path], command: Command) -> None:
    status, out, err = command("plan", files[0], "--machine", files[1], "--workers", 4, "--memory-gb", 8)
    assert (status, out) == (0, "")
    assert "small: 4 ranks, batch 100, loopback" in err
    assert "beyond 2 ranks step times are computed" in err
    assert "…" not in err  # nothing is cut off in 80 columns
    assert "fits: a rank needs" in " ".join(err.split())


@pytest.mark.parametrize(
    ("options", "status", "message"),
    [
        (("--workers", 1025), 2, "--workers takes 1 to 1,024, the number of buckets of keys; received 1,025"),
        (("--workers", 0), 2, "--workers takes 1 to 1,024"),
        (("--workers", -3), 2, "received -3"),
        (("--bandwidth-gbps", -1), 2, "--bandwidth-gbps takes a number above 0, received -1"),
        (("--bandwidth-gbps", "nan"), 2, "--bandwidth-gbps takes a number above 0"),
        (("--memory-gb", 0), 2, "--memory-gb takes a number above 0"),
        (("--sample-rows", 0), 2, "--sample-rows takes a number of at least 1"),
        (("--rows", "itme=5"), 2, "--rows: there is no table 'itme'; there are: item, user"),
        (("--rows", "item"), 2, "--rows takes TABLE=NUMBER"),
        (("--rows", "item=many"), 2, "--rows item: takes a number of rows of at least 0, received 'many'"),
        (("--rows", "item=-1"), 2, "received '-1'"),
        (("--set", "data.path=nowhere"), 1, "nowhere: does not exist"),
        (("--set", "features.user.column=usr"), 1, "column usr: is missing"),
    ],
)
def test_a_users_mistake_is_one_message(
    files: tuple[Path, Path], options: tuple[object, ...], status: int, message: str, command: Command
) -> None:
    # A feature's column is part of what was measured: without a file, it is reported before anything is measured.
    known = () if "features.user.column=usr" in options else ("--machine", files[1])
    got, out, err = command("plan", files[0], *known, *options)
    assert got == status, err
    assert message in " ".join(err.split())
    assert "Traceback" not in err
    assert out == ""


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is not a machine file written by --machine"),
        ("[1]", "is not a machine file of this version"),
        ('{"format": 99}', "is not a machine file of this version"),
        ('{"format": 3, "cores": -2}', "cores: "),
    ],
)
def test_a_broken_file_of_constants_is_refused(
    files: tuple[Path, Path], content: str, message: str, command: Command
) -> None:
    files[1].write_text(content)
    status, _, err = command("plan", files[0], "--machine", files[1])
    assert status == 2
    assert f"{files[1].name}: " in err.replace("\n", "")
    assert message in err


def test_constants_of_another_model_are_refused(files: tuple[Path, Path], command: Command) -> None:
    status, _, err = command("plan", files[0], "--machine", files[1], "--set", "model.hidden_sizes=[32]")
    assert status == 2
    assert "was measured for another model" in err
    assert command("plan", files[0], "--machine", files[1], "--set", "train.epochs=1")[0] == 0


def test_rows_are_predicted_where_each_file_has_its_own_ids(make_config: Make, log_dir: Path) -> None:
    """The blocks that training reads first have a few files' users; the table will have those of all."""
    for number in range(20):
        table = make_table(600, seed=number)
        users = pa.array(np.random.default_rng(number).integers(100 * number, 100 * number + 100, 600))
        name = f"part-{number}.parquet"
        pq.write_table(table.set_column(1, "user", users), log_dir / name, row_group_size=150)
    config = make_config(tables=[{"name": "user", **TABLE}, {"name": "item", **TABLE}])
    sample = read_sample(config, 1500, shown=False)
    user = config.tables[0]
    assert isinstance(user, CollisionlessTable)
    found = estimate(user, sample.scattered["user"], sample.train_rows, 1, None)
    assert len(sample.keys["user"].distinct_keys) < 1000
    assert found.rows == pytest.approx(2000, rel=0.15)


@pytest.mark.slow
@pytest.mark.skipif(DATA is None, reason="MovieLens may not be shipped; set EMBTABLES_DATA to a folder with ml1m/")
def test_rows_of_a_real_log_are_predicted(tmp_path: Path) -> None:
    """From a sixth of MovieLens-1M; rows found are those that training then makes."""
    path = f"data.path={Path(DATA or '').resolve() / 'ml1m'}"
    config = load_config(Path(__file__).parents[3] / "examples" / "movielens" / "dcnv2.yaml", [path])
    node = tmp_path / "node.json"
    machine(measured_for(config)).save(node)
    part, whole = (plan(config, PlanRequest(sample_rows=n, machine=node), shown=False) for n in (100_000, 1_000_000))
    assert part.sample.rows < whole.sample.rows == whole.sample.train_rows
    for name, predicted in part.scenario.estimates.items():
        found = whole.scenario.estimates[name]
        assert found.how == "whole log"
        assert predicted.rows == pytest.approx(found.rows, rel=0.05), name


@pytest.mark.slow
def test_this_machine_is_measured_and_its_file_used_again(make_config: Make, tmp_path: Path) -> None:
    node = tmp_path / "node.json"
    first = plan(make_config(), PlanRequest(workers=2, machine=node), shown=False)
    assert node.exists()
    written = node.read_bytes()
    again = plan(make_config(), PlanRequest(workers=2, machine=node), shown=False)
    assert again.scenario.machine == first.scenario.machine
    assert node.read_bytes() == written
    constants = first.scenario.machine
    assert constants.wire.exchange > 0
    assert constants.rank.owning != Work()
    assert first.point.time.seconds > 0
