"""Scaling to 1,024 ranks (benchmarks/scale), and the page that holds its figures."""

from __future__ import annotations

import re

import numpy as np
import pytest

from benchmarks.scale import curve, page
from tests.pipelines.plan.plan_for_tests import keys, scenario, table


@pytest.mark.parametrize("name", page.SECTIONS)
def test_the_page_holds_what_is_worked_out(name: str) -> None:
    found = re.search(rf"<!-- begin {name} -->\n(.*?)\n<!-- end {name} -->", page.PAGE.read_text(), re.DOTALL)
    assert found is not None
    assert found[1].strip() == page.SECTIONS[name]().strip(), "run python -m benchmarks.scale"


def test_a_curve_shares_the_batch_or_grows_with_the_ranks() -> None:
    run = scenario([table("t")], {"t": keys(np.random.default_rng(0), 2_000, 2, 500, 100)}, 100)
    strong, weak = (curve.to_json(curve.curve(run, part)) for part in (None, 25))
    assert [p["ranks"] for p in strong] == [p["ranks"] for p in weak] == [2**n for n in range(11)]
    assert {p["batch_rows"] for p in strong} == {100}
    assert [p["batch_rows"] for p in weak[:4]] == [25, 50, 100, 200]
    assert strong[0]["bytes_per_rank"] == 0 < strong[2]["bytes_per_rank"]
    assert [p["basis"] for p in strong[1:3]] == ["like what was measured", "computed"]
    assert strong[0]["efficiency"] == 1.0 > strong[2]["efficiency"]
