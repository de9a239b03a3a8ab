"""Versions for servers that several ranks publish together: one chain, with the rows of all of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from embtables.pipelines.config import RunConfig
from embtables.pipelines.run_dir import RunDir
from embtables.state.folder.version_folder import StateFolder
from embtables.state.format.manifest import Purpose
from tests.pipelines.distributed.test_train_ranks import CHANGES, WITH_FIRST_ORDER, WORKER
from tests.shard.groups_for_tests import Group
from tests.state.versions_for_tests import rows_of

Make = Callable[..., RunConfig]


def newest(state: StateFolder, purpose: Purpose) -> str:
    return f"{purpose}-{state.sequences(purpose)[-1]}"


@pytest.mark.parametrize("changes", [{}, WITH_FIRST_ORDER])
def test_ranks_publish_one_chain_and_go_on_with_it(
    changes: dict[str, Any], make_config: Make, group: Callable[[int], Group]
) -> None:
    changes = {k: v for k, v in CHANGES.items() if not (changes and k == "model.dropout")} | changes
    config = make_config(**changes, publish={"every_steps": 3}, **{"train.max_steps": 7})
    run = RunDir.create(config)
    group(2).run(f"{WORKER}:train", config, str(run.path))
    state = StateFolder(run.checkpoints)
    assert [state.manifest("serving", n).parent for n in state.sequences("serving")] == [None, 1, 2]
    assert rows_of(state, newest(state, "serving")) == rows_of(state, newest(state, "resume"))
    group(2).run(f"{WORKER}:resume", str(run.path), ("train.max_steps=10",))
    assert [state.manifest("serving", n).parent for n in state.sequences("serving")] == [None, 1, 2, 3, 4]
    assert rows_of(state, newest(state, "serving")) == rows_of(state, newest(state, "resume"))
    for number in state.sequences("serving"):
        state.verify(state.manifest("serving", number))


def test_what_only_rank_0_can_see_fails_at_all_ranks(
    make_config: Make, group: Callable[[int], Group], tmp_path: Path
) -> None:
    config = make_config(**CHANGES, publish={})
    run = RunDir.create(config)
    run.checkpoints.mkdir()
    (run.checkpoints / "versions").write_text("in the way of versions")
    said = "rank 0: publish: a version for servers was tried before the first step, and failed: cannot write version"
    with pytest.raises(AssertionError, match=said):  # it has the traceback of the rank
        group(2).run(f"{WORKER}:train", config, str(run.path))
