"""Tables that several ranks hold are trained to the same rows as those of one process."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.shard.groups_for_tests import Group
from tests.shard.threads_for_tests import in_threads
from tests.shard.training_for_tests import LEARNERS, POLICIES, Run, assert_same, train

TOLERANCES = {"adam": 1e-4}
WORKER = "tests.shard.training_for_tests:train"


# Every optimizer and every policy at every size; all of their pairs with two ranks.
CASES = [(2, learner, policy) for learner in LEARNERS for policy in POLICIES]
CASES += [(size, learner, "ttl") for size in (3, 4) for learner in LEARNERS]
CASES += [(size, "adagrad", policy) for size in (3, 4) for policy in POLICIES if policy != "ttl"]


@pytest.mark.parametrize(("size", "optimizer", "policy"), CASES)
def test_tables_do_not_depend_on_the_number_of_ranks(
    size: int, optimizer: str, policy: str, group: Callable[[int], Group]
) -> None:
    run = Run(policy, optimizer, 50)
    assert_same(group(size).run(WORKER, run), train(None, run), TOLERANCES.get(optimizer, 1e-5))


@settings(deadline=None, max_examples=25)
@given(
    size=st.integers(2, 5),
    optimizer=st.sampled_from(list(LEARNERS)),
    policy=st.sampled_from(list(POLICIES)),
    seed=st.integers(0, 2**20),
    rows=st.integers(2, 40),
    ids=st.integers(20, 2000),
    row_store=st.sampled_from(["host", "reference"]),
)
def test_any_run_is_that_of_one_process(
    size: int, optimizer: str, policy: str, seed: int, rows: int, ids: int, row_store: str
) -> None:
    run = Run(policy, optimizer, 12, seed, rows, ids, row_store)
    whole = train(None, run)
    assert_same(in_threads(size, lambda world: train(world, run)), whole, TOLERANCES.get(optimizer, 1e-5))


def test_one_rank_is_one_process(group: Callable[[int], Group]) -> None:
    run = Run("ttl", "adagrad", 20)
    assert_same(group(1).run(WORKER, run), train(None, run), 0.0)
