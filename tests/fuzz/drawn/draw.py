"""Draws a case: the files of a log, perhaps a side table, and a configuration. The same seed draws the same case."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from tests.fuzz.drawn.columns import FAMILIES, ID_GROUPS, LISTS, NUMBER_GROUPS, Mood, make, make_list, mood
from tests.fuzz.drawn.data import draw_data
from tests.fuzz.drawn.evaluation import draw_evaluate
from tests.fuzz.drawn.layout import write_files

Rng = np.random.Generator
_ZERO = Mood()


class Draw:
    """A case in the making: columns by file, and the sections of the configuration.

    Args:
        root: an empty folder, which then holds `log/` and `config.yaml`.
        clean: whether columns hold no bad values, and no types that cannot be.
    """

    def __init__(self, rng: Rng, root: Path, *, clean: bool = False) -> None:
        self.rng, self.root, self.clean = rng, root, clean
        self.sizes = [int(rng.choice([0, 1, 5, 20, 60])) for _ in range(int(rng.integers(1, 5)))]
        if not sum(self.sizes):
            self.sizes[0] = 12
        self.files: list[dict[str, pa.Array]] = [{} for _ in self.sizes]
        self.features: list[dict[str, Any]] = []
        self.config: dict[str, Any] = {
            "name": "fuzz",
            "tables": [{"name": "t", "dim": 4, "optimizer": {"kind": "adagrad", "learning_rate": 0.05}}],
            "features": self.features,
            "data": {"path": "log"},
            "model": {"kind": "deepfm", "hidden_sizes": [4]},
            "train": {"batch_size": int(rng.choice([3, 16, 64])), "threads": 1},
        }
        self.null_ids = [5, -1] if clean else [5, "none", -1, 2**64 - 1]
        self.writers: list[str] = []
        self.part_of: list[str] | None = None  # of each file, where the parts lie apart
        self.folders: str | None = None  # what the column that folders give is read as

    def chance(self, share: float) -> bool:
        return bool(self.rng.random() < share)

    def types(self, groups: list[list[str]], weights: list[float]) -> list[tuple[str, str]]:
        """A family and a type for each file: mostly one, sometimes others that may meet it, rarely what may not."""
        rng = self.rng
        group = groups[rng.choice(len(groups), p=np.array(weights) / sum(weights))]
        first = self._type(group)
        mixed = self.chance(0.4)
        found = [self._type(group) if mixed and self.chance(0.6) else first for _ in self.sizes]
        if self.chance(0.1):
            found[rng.integers(len(found))] = ("null", "null")
        if self.chance(0.03) and not self.clean:
            found[rng.integers(len(found))] = self._type(groups[rng.integers(len(groups))])
        return found

    def _type(self, group: list[str]) -> tuple[str, str]:
        name = str(self.rng.choice(group))
        return name, str(self.rng.choice(list(FAMILIES[name])))

    def column(
        self, name: str, types: list[tuple[str, str]], spirit: Mood, wrap: bool = False, longest: int = 4
    ) -> None:
        """Adds a column to every file; `longest`: items that the first row's list has, if others have at most four."""
        spirit = replace(spirit, faults=0.0) if self.clean else spirit
        for number, (group, kind) in enumerate(types):
            n = self.sizes[number]
            # Decimals have more digits than ids.
            here = replace(spirit, extremes=0.0) if self.clean and group in ("decimal", "fraction") else spirit
            if wrap and group != "odd" and not (group == "null" and self.chance(0.5)):
                array = make_list(self.rng, group, kind, n, here, str(self.rng.choice(LISTS)), longest=longest)
            else:
                array = make(self.rng, group, kind, n, here)
            self.files[number][name] = array

    def ids(self, name: str, *, wrap: bool = False, spirit: Mood | None = None) -> None:
        """Adds a column that is meant for ids."""
        odd = [0.0] * 3 if self.clean else [0.5, 0.5, 0.7]
        types = self.types(ID_GROUPS, [5, 6, 3, 0.5, *odd])
        self.column(name, types, mood(self.rng) if spirit is None else spirit, wrap)

    def numbers(self, name: str, spirit: Mood | None = None) -> None:
        """Adds a column that is meant for numbers."""
        odd = [0.0] * 3 if self.clean else [0.2] * 3
        types = self.types(NUMBER_GROUPS, [10, 0.7, *odd])
        self.column(name, types, mood(self.rng) if spirit is None else spirit)

    def option(self, share: float, name: str, values: list[Any]) -> dict[str, Any]:
        """An option with one of the values, or none."""
        return {name: values[self.rng.integers(len(values))]} if self.chance(share) else {}

    def draw_features(self) -> None:
        self.ids("k")
        self.features.append({"name": "k", "table": "t", **self.option(0.3, "null_id", self.null_ids)})
        if self.chance(0.2):
            self._struct()
        if self.chance(0.5):
            self._lists()
        if self.chance(0.2):
            self.column("s", self.types([["text", "bytes"], ["null"]], [9, 1]), mood(self.rng))
            self.features.append({"name": "s", "table": "t", "split": "|", **self.option(0.4, "null_id", ["none"])})
        if self.chance(0.25):
            self.column(
                "ts", self.types([["time", "date"], ["null"], ["int"]], [12, 1, 0 if self.clean else 1]), mood(self.rng)
            )
            part = str(self.rng.choice(["hour", "weekday", "day", "month", "day_number"]))
            zone = self.option(0.4, "timestamp_zone", ["Asia/Tokyo", "America/New_York", "Asia/Kolkata", "UTC"])
            self.features.append({"name": "ts", "table": "t", "timestamp_part": part, **zone})
        if self.chance(0.25):
            self.numbers("b")
            null_id = self.option(0.4, "null_id", [99])
            self.features.append({"name": "b", "table": "t", "num_buckets": int(self.rng.choice([2, 5])), **null_id})
        if self.chance(0.2):
            self.ids("c0", wrap=self.chance(0.5))
            self.features.append({"name": "c", "table": "t", "cross": ["k", "c0"]})
        if self.chance(0.03):
            self._long_cross()

    def _struct(self) -> None:
        self.ids("user.id")
        for file in self.files:
            inner = file.pop("user.id")
            missing = pa.array([self.chance(0.1) for _ in range(len(inner))], pa.bool_())
            file["user"] = pa.StructArray.from_arrays([inner], names=["id"], mask=missing if len(inner) else None)
        self.features.append({"name": "uid", "column": "user.id", "table": "t"})

    def _long_cross(self) -> None:
        """Two lists of which one row has so many items that their combinations must be refused before they are made."""
        for name in ("x0", "x1"):
            self.column(name, self.types([["int"], ["text"]], [1, 1]), _ZERO, wrap=True, longest=self._long([200, 400]))
        self.features.append({"name": "x", "table": "t", "cross": ["x0", "x1"]})

    def _long(self, lengths: list[int]) -> int:
        return int(self.rng.choice(lengths))

    def _lists(self) -> None:
        if self.chance(0.04):
            lengths = [65_536, 65_537, 100_000]
            self.column("l", self.types([["int"], ["text"]], [1, 1]), _ZERO, wrap=True, longest=self._long(lengths))
        else:
            self.ids("l", wrap=True)
        feature: dict[str, Any] = {"name": "l", "table": "t", "pooling": str(self.rng.choice(["sum", "mean"]))}
        feature |= self.option(0.3, "max_length", [1, 3]) | self.option(0.3, "null_id", self.null_ids)
        if self.chance(0.3):
            feature["weights_column"] = "lw"
            spirit = Mood(0.0, 0.0, float(self.rng.choice([0, 0, 0.05])))
            for number, (group, kind) in enumerate(self.types([["float", "int"]], [1])):
                lists = self.files[number]["l"]
                sizes = [0 if not v.is_valid else len(v.values) if isinstance(v, pa.ListScalar) else 1 for v in lists]
                if self.chance(0.05) and sizes:
                    sizes[0] += 1
                self.files[number]["lw"] = make_list(self.rng, group, kind, len(sizes), spirit, "list", sizes)
        self.features.append(feature)

    def draw_numbers(self) -> None:
        config = self.config
        if self.chance(0.15):
            self.numbers("y", Mood(0.0, 0.0, 0.0))
            config["labels"] = [{"column": "y", "positive_above": 1.5}]
        else:
            spirit = Mood(0.0, 0.0, float(self.rng.choice([0, 0, 0, 0.05])))
            self.column("y", self.types([["label"]], [1]), spirit)
            config["labels"] = [{"column": "y"}]
        dense = []
        for name in ("d0", "d1")[: int(self.rng.integers(0, 3))]:
            self.numbers(name)
            filled = self.option(1.0 if self.clean else 0.5, "fill_null", [0, -0.5])
            spec = {"column": name, **filled, **self.option(0.2, "fill_nan", [1.0])}
            dense.append(spec | self.option(0.0 if self.clean else 0.2, "transforms", [["log1p"]]))
        if dense:
            config["dense"] = dense
        if self.chance(0.25):
            self.column("w", self.types([["label", "bool"]], [1]), _ZERO)
            config["sample_weight"] = "w"
        if self.chance(0.4):
            ints = self.chance(0.3)
            self.column(
                "at",
                self.types([["int"]] if ints else [["time", "date"], ["null"]], [1] if ints else [19, 1]),
                Mood(
                    0.0 if self.clean else float(self.rng.choice([0, 0, 0.1])), 0.0, float(self.rng.choice([0, 0.05]))
                ),
            )
            unit = {"unit": str(self.rng.choice(["s", "ms", "us", "ns"]))} if ints else {}
            config["event_time"] = {"column": "at", **unit}


def draw(seed: int, number: int, root: Path, *, evaluates: bool = False, clean: float = 0.0) -> dict[str, Any]:
    """Writes the case into an empty folder and returns its configuration, with the writers under `writers`.

    Args:
        evaluates: whether it has an `evaluate` section.
        clean: the share of cases without bad values.
    """
    rng = np.random.default_rng([seed, number])
    case = Draw(rng, root, clean=bool(rng.random() < clean))
    case.draw_features()
    case.draw_numbers()
    draw_data(case)
    if evaluates:
        draw_evaluate(case)
    write_files(case)
    return {**case.config, "writers": case.writers}
