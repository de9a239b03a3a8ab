"""What `embtables plan` was asked for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from embtables.errors import ConfigError
from embtables.keyspace import NUM_BUCKETS
from embtables.pipelines.config import RunConfig


@dataclass(frozen=True)
class Asked:
    """What the user gave.

    Attributes:
        workers: ranks, 1 to 1,024.
        gbps: Gbit/s of each rank's link; None: as this machine's loopback.
        memory_gb: GB of each rank; None: not looked at.
        sample_rows: rows of the log to read.
        rows: TABLE=NUMBER, over what the sample says.
        machine: file of constants; measured and written where it is not there. None: measured.
    """

    workers: int = 1
    gbps: float | None = None
    memory_gb: float | None = None
    sample_rows: int = 500_000
    rows: tuple[str, ...] = ()
    machine: Path | None = None

    def check(self) -> None:
        """Raises ConfigError for what cannot be."""
        if not 1 <= self.workers <= NUM_BUCKETS:
            raise ConfigError(
                f"--workers takes 1 to {NUM_BUCKETS:,}, the number of buckets of keys; received {self.workers:,}"
            )
        for option, value in (("--bandwidth-gbps", self.gbps), ("--memory-gb", self.memory_gb)):
            if value is not None and not 0.0 < value < float("inf"):
                raise ConfigError(f"{option} takes a number above 0, received {value:g}")
        if self.sample_rows < 1:
            raise ConfigError(f"--sample-rows takes a number of at least 1, received {self.sample_rows}")

    def given_rows(self, config: RunConfig) -> dict[str, float]:
        """What `--rows TABLE=NUMBER` says. Raises ConfigError where it names no table or says no number."""
        known = {table.name for table in config.tables}
        found = {}
        for text in self.rows:
            name, sign, number = text.partition("=")
            if not sign:
                raise ConfigError(f"--rows takes TABLE=NUMBER, received {text!r}; for example --rows item=1e9")
            if name not in known:
                raise ConfigError(f"--rows: there is no table '{name}'; there are: {', '.join(sorted(known))}")
            try:
                found[name] = float(number)
            except ValueError:
                found[name] = -1.0
            if not 0.0 <= found[name] < 2.0**63:
                raise ConfigError(f"--rows {name}: takes a number of rows of at least 0, received {number!r}")
        return found
