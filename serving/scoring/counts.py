"""`Counts`: what requests have read since the server began, for figures that only grow."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Mapping


class Counts:
    """Ids looked up and cold ones by table, keys that side tables lacked. Any thread adds and reads.

    Attributes:
        ids, cold_ids: by table.
        missing_keys: by side table.
    """

    def __init__(self) -> None:
        self.ids: Counter[str] = Counter()
        self.cold_ids: Counter[str] = Counter()
        self.missing_keys: Counter[str] = Counter()
        self._adding = threading.Lock()

    def add_of(self, table: str, ids: int, cold_ids: int) -> None:
        """Adds what a request read of one table."""
        with self._adding:
            self.ids[table] += ids
            self.cold_ids[table] += cold_ids

    def add(
        self, ids: Mapping[str, int], cold_ids: Mapping[str, int], missing_keys: Mapping[str, int] | None = None
    ) -> None:
        """Adds what one request, or some requests, read."""
        with self._adding:
            self.ids.update(ids)
            self.cold_ids.update(cold_ids)
            if missing_keys:
                self.missing_keys.update(missing_keys)
