"""Constants of a machine: what the probes measured, and the file that keeps them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field, PositiveInt, ValidationError

from embtables.errors import ConfigError
from embtables.pipelines.run_dir import write_atomically
from embtables.schema import Model, config_error

FORMAT = 3


class Work(Model):
    """Seconds of some work, a sum of costs; `_floats` are for each of a key's D floats.

    Attributes:
        call: of one lookup and its backward and update.
        feature: a feature that reads a table.
        block: a table's part of the message to or from one rank.
        bag: a feature of a row.
        occurrence: a key, duplicates counted.
        weighted: a key whose row has a factor in its sum.
        key: a distinct key.
    """

    call: float = Field(0.0, ge=0.0)
    feature: float = Field(0.0, ge=0.0)
    block: float = Field(0.0, ge=0.0)
    bag: float = Field(0.0, ge=0.0)
    bag_floats: float = Field(0.0, ge=0.0)
    occurrence: float = Field(0.0, ge=0.0)
    occurrence_floats: float = Field(0.0, ge=0.0)
    weighted: float = Field(0.0, ge=0.0)
    key: float = Field(0.0, ge=0.0)
    key_floats: float = Field(0.0, ge=0.0)

    def seconds(self, amounts: Mapping[str, float]) -> float:
        """Of so much of each."""
        costs = self.model_dump()
        return float(sum(costs[name] * amount for name, amount in amounts.items()))

    @classmethod
    def fitted(cls, amounts: Sequence[Mapping[str, float]], seconds: Sequence[float]) -> Work:
        """The costs, none below 0, whose relative errors have the least squares."""
        names = [name for name in cls.model_fields if any(each.get(name) for each in amounts)]
        matrix = np.array([[each.get(name, 0.0) for name in names] for each in amounts]) / np.array(seconds)[:, None]
        scale = np.maximum(matrix.max(axis=0), 1e-30)
        found = _non_negative(matrix / scale, np.ones(len(seconds))) / scale
        return cls(**dict(zip(names, found.tolist(), strict=True)))


def _non_negative(matrix: Any, wanted: Any) -> Any:
    """min |matrix x - wanted| over x >= 0, by descent along one coordinate at a time."""
    found = np.zeros(matrix.shape[1])
    rest = wanted.copy()
    squares = np.maximum((matrix**2).sum(axis=0), 1e-30)
    for _ in range(5000):
        for j in range(len(found)):
            moved = max(0.0, found[j] + float(matrix[:, j] @ rest) / squares[j])
            rest -= matrix[:, j] * (moved - found[j])
            found[j] = moved
    return found


class Point(Model):
    """Seconds that something took with so many rows."""

    rows: float = Field(gt=0.0)
    seconds: float = Field(ge=0.0)


class Rates(Model):
    """One rank: what its work takes with its threads, beside the ranks it shares the machine with.

    Attributes:
        threads: torch threads.
        dense: the dense net's forward, backward and update, by rows of the batch, ascending.
        tables: lookup, backward and update of tables that one process holds.
        asking: of a lookup, the work of the rank whose batch it is; only if there are several ranks.
        owning: of a lookup, the work of the rank that owns the rows.
        miss: what is added if rows are not in the processor's caches.
        made: seconds to make a row.
        base_bytes: memory of the process before its tables.
    """

    threads: PositiveInt
    dense: tuple[Point, ...] = Field(min_length=1)
    tables: Work
    asking: Work
    owning: Work
    miss: Work
    made: float = Field(ge=0.0)
    base_bytes: int = Field(ge=0)

    def dense_seconds(self, rows: float) -> float:
        """Seconds of a batch of so many rows; between and beyond the measured points, on straight lines."""
        if len(self.dense) == 1:
            return self.dense[0].seconds
        for low, high in pairwise(self.dense):
            if rows <= high.rows or high is self.dense[-1]:
                slope = max(0.0, (high.seconds - low.seconds) / (high.rows - low.rows))
                return max(0.0, low.seconds + slope * (rows - low.rows))
        raise AssertionError


class Wire(Model):
    """gloo between two processes of this machine.

    Attributes:
        exchange: seconds of an all_to_all of few bytes.
        wait: what is added if a call follows work: waiting for the later of two ranks.
        message: seconds of one more message among many that are under way.
        byte: seconds of a byte that all_to_all sends.
        reduction: seconds of an all_reduce of few bytes: two steps of a ring.
        reduced_byte: seconds of a byte that all_reduce sends.
    """

    exchange: float = Field(ge=0.0)
    wait: float = Field(ge=0.0)
    message: float = Field(ge=0.0)
    byte: float = Field(ge=0.0)
    reduction: float = Field(ge=0.0)
    reduced_byte: float = Field(ge=0.0)


class Reading(Model):
    """Processor seconds of reading the log, for each row of the train part.

    Attributes:
        decode: reading, joining, filtering; every rank does it for the whole batch.
        convert: features of a rank's own rows.
        alone: all of that in one process.
        batch: putting a rank's own rows together, on the thread that trains.
        bytes_per_row: of a block in memory, as it is read; `converted_bytes`: of a converted row.
    """

    decode: float = Field(ge=0.0)
    convert: float = Field(ge=0.0)
    alone: float = Field(ge=0.0)
    batch: float = Field(ge=0.0)
    bytes_per_row: float = Field(ge=0.0)
    converted_bytes: float = Field(ge=0.0)


class Machine(Model):
    """A machine, and what was measured on it.

    Attributes:
        format: the file's format.
        measured_for: digest of the model and the features whose dense net and reading were measured.
        cores: that processes may use.
        cache_bytes: size of the largest cache.
        alone: rates of one process.
        rank: rates of one of two processes that work at once.
        dense_parameters: parameters of the dense net.
    """

    format: int = FORMAT
    measured_for: str
    cores: PositiveInt
    cache_bytes: PositiveInt
    alone: Rates
    rank: Rates
    wire: Wire
    reading: Reading
    dense_parameters: int = Field(ge=0)

    def save(self, path: Path) -> None:
        """Writes the file."""
        write_atomically(path, (self.model_dump_json(indent=1) + "\n").encode())

    @classmethod
    def load(cls, path: Path, measured_for: str) -> Machine:
        """Reads the file. Raises ConfigError if it is not such a file, or was measured for another model."""
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise ConfigError(f"cannot be read: {error.strerror}", file=path) from error
        except ValueError as error:
            raise ConfigError(f"is not a machine file written by --machine: {error}", file=path) from error
        if not isinstance(content, dict) or content.get("format") != FORMAT:
            raise ConfigError("is not a machine file of this version; remove it to measure again", file=path)
        try:
            found = cls.model_validate(content)
        except ValidationError as error:
            raise config_error(error, file=path) from error
        if found.measured_for != measured_for:
            raise ConfigError(
                "was measured for another model, features, threads or batch; name a new file to measure anew",
                file=path,
            )
        return found


@dataclass(frozen=True)
class Link:
    """The link between ranks.

    Attributes:
        gbps: Gbit/s of each rank's link; None: as fast as this machine's loopback.
    """

    gbps: float | None = None

    def byte_seconds(self, measured: float) -> float:
        """Of a byte, where it took `measured` on loopback."""
        return measured if self.gbps is None else max(measured, 8.0 / (self.gbps * 1e9))

    def to_json(self) -> dict[str, Any]:
        """For a report."""
        return asdict(self)
