"""Scores that are not finite: of files, frames and evaluations; an error that names rows and columns, and no output."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import embtables
from embtables.errors import TrainingError
from embtables.pipelines.trained.run import Run
from tests.pipelines.conftest import content, make_table


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Reads a dense column as it is, and scores 100 rows at a time."""
    folder = tmp_path_factory.mktemp("trained")
    (folder / "log").mkdir()
    pq.write_table(make_table(600), folder / "log" / "a.parquet")
    made = content(folder / "log", folder / "runs")
    made["dense"] = [{"column": "price", "transforms": []}]
    made["model"]["num_cross_layers"] = 3
    made["train"] |= {"epochs": 1}
    made["evaluate"] = {"batch_size": 100}
    return embtables.train(made, shown=False)


def with_prices(changes: dict[int, float], rows: int = 450) -> pa.Table:
    table = make_table(rows, seed=5)
    prices = table.column("price").to_numpy().copy()
    for row, value in changes.items():
        prices[row] = value
    return table.set_column(4, "price", pa.array(prices))


WRONG = {250: 3e38, 270: 2e38}
CAUSE = "Likely cause: dense column price with values up to 3e+38; give it transforms"


def test_of_files_nothing_is_written(run: Run, tmp_path: Path) -> None:
    table = with_prices(WRONG)
    for number, piece in enumerate([table.slice(0, 130), table.slice(0, 0), table.slice(130)]):
        pq.write_table(piece, tmp_path / f"{number}.parquet")
    with pytest.raises(TrainingError, match="the score of this row is not finite, and those of 1 rows") as raised:
        run.predict(tmp_path, tmp_path / "scores.parquet", shown=False)
    assert raised.value.path == {"file": str(tmp_path / "2.parquet"), "row": 120}
    assert CAUSE in str(raised.value)
    assert not list(tmp_path.glob("*scores*"))


def test_rows_without_a_score_are_counted_in_the_rows_number(run: Run, tmp_path: Path) -> None:
    pq.write_table(with_prices({0: np.nan, 201: np.nan, 249: np.nan, **WRONG}), tmp_path / "a.parquet")
    with pytest.raises(TrainingError) as raised:
        run.predict(tmp_path / "a.parquet", tmp_path / "scores.parquet", on_bad_row="null", shown=False)
    assert raised.value.path["row"] == 250


@pytest.mark.parametrize("bad_row", [0, 249, 251, 449])
def test_of_a_frame(run: Run, bad_row: int) -> None:
    with pytest.raises(TrainingError, match=CAUSE.replace("+", r"\+")) as raised:
        run.predict(with_prices({**WRONG, bad_row: np.nan}), on_bad_row="null", shown=False)
    assert raised.value.path == {"file": "<DataFrame>", "row": 250}


def test_of_an_evaluation(run: Run) -> None:
    with pytest.raises(TrainingError, match=r"rows 201 to 300 of the whole part: 2 of 100 scores are not finite") as e:
        run.evaluate(data=with_prices(WRONG), shown=False)
    assert CAUSE in str(e.value)


def test_weights_of_the_model_are_a_cause(run: Run) -> None:
    with pytest.MonkeyPatch.context() as patch:
        weight = next(run.scorer.model.parameters())
        patch.setattr(weight, "data", weight.data.clone().fill_(np.nan))
        with pytest.raises(TrainingError, match=r"of 99 rows of the 99 .*the dense weights .* are not finite"):
            run.predict(with_prices({}, 100), shown=False)
