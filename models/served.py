"""Tables of a version for a server, and the scorer over them."""

from __future__ import annotations

from collections.abc import Sequence

from embtables.errors import StateError
from embtables.models.build import features_of, tables_of
from embtables.models.version_content import scoring_content
from embtables.state.folder.version_folder import StateFolder
from embtables.state.format.manifest import Manifest
from embtables.state.read.version_reader import read_artifacts, shares_keys
from embtables.tables.served_tables import ServedTables


def served_tables(state: StateFolder, chain: Sequence[Manifest]) -> ServedTables:
    """Fresh tables for the version that a chain leads to, without rows: `load_served` fills them, and
    `Scorer.of_content` makes a scorer over them.

    Raises:
        StateError: the version lacks what it should record, or a file of its encoders is missing or damaged.
        ConfigError: a table is too large to be served.
    """
    content = scoring_content(chain[-1])
    if content.seed is None:
        raise StateError("records no seed: train on, so that a newer version has it", version=chain[-1].name)
    schema, config = content.trained, content.trained.model
    return ServedTables(
        tables_of(schema, config),
        features_of(schema, config),
        seed=content.seed,
        artifacts=read_artifacts(state, chain[0]),
        shares_keys=shares_keys(chain[0]),
    )
