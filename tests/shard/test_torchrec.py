"""Our sharded tables learn what TorchRec's row-wise sharded ones do."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.shard.groups_for_tests import Group
from tests.shard.torchrec_for_tests import LEARNERS


@pytest.mark.parametrize("optimizer", LEARNERS)
@pytest.mark.parametrize("size", [1, 2])
def test_rows_and_outputs_are_those_of_torchrec(size: int, optimizer: str, group: Callable[[int], Group]) -> None:
    for outputs, rows, moved in group(size).run("tests.shard.torchrec_for_tests:compare", optimizer, 12):
        assert moved > 0.1
        assert outputs < 2e-5
        assert rows < 2e-5
