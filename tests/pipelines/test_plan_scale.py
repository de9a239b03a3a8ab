"""docs/scale.md says what the code works out."""

from __future__ import annotations

import re

import pytest

from benchmarks import scale


@pytest.mark.parametrize("name", scale.SECTIONS)
def test_the_page_holds_what_is_worked_out(name: str) -> None:
    found = re.search(rf"<!-- begin {name} -->\n(.*?)\n<!-- end {name} -->", scale.PAGE.read_text(), re.DOTALL)
    assert found is not None
    assert found[1].strip() == scale.SECTIONS[name]().strip(), "run python -m benchmarks.scale"
