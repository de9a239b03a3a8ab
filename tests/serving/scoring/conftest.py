"""A trained version of each model, made once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from embtables.serving.versions.served_version import ServedVersion
from tests.serving.scoring.served_for_tests import served_version, side_tables, trained_run


@pytest.fixture(scope="session")
def run_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The run of a model's name in `MODELS`."""
    made: dict[str, Path] = {}

    def of(model: str) -> Path:
        if model not in made:
            made[model] = trained_run(tmp_path_factory.mktemp(model), model)
        return made[model]

    return of


@pytest.fixture(scope="session")
def zoo(run_of: Callable[[str], Path]) -> ServedVersion:
    """DCN-V2 with all side tables; candidates are items."""
    return served_version(run_of("dcnv2"), side_tables(), "item")
