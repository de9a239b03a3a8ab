"""`Scores`: what scoring finds for one request."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from embtables.serving.scoring.lookup.lookups import ColdRows
from embtables.serving.wire import ColdIds


@dataclass(frozen=True, slots=True)
class Scores:
    """Scores (K, n_labels) of a request.

    Attributes:
        cold: by feature, the ids that read a cold row.
        shared: features that the request has once for all candidates.
    """

    scores: npt.NDArray[np.float32]
    cold: Mapping[str, ColdRows] = field(default_factory=dict)
    shared: Collection[str] = ()

    def cold_ids(self) -> ColdIds:
        """The same as answers say it."""
        found = {name: of.rows for name, of in self.cold.items() if of.cold_ids}
        return ColdIds(
            [name for name in found if name in self.shared],
            {name: rows.tolist() for name, rows in found.items() if name not in self.shared},
        )

    def counts(self) -> tuple[dict[str, int], dict[str, int]]:
        """How many ids were read, and how many of them are cold, by table."""
        ids, cold = dict[str, int](), dict[str, int]()
        for of in self.cold.values():
            ids[of.table] = ids.get(of.table, 0) + of.ids
            if of.cold_ids:
                cold[of.table] = cold.get(of.table, 0) + of.cold_ids
        return ids, cold
