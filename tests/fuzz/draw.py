"""Draws a case: the files of a log, perhaps a side table, and a configuration. The same seed draws the same case."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pyarrow as pa
import yaml

from tests.fuzz.columns import FAMILIES, ID_GROUPS, LISTS, NUMBER_GROUPS, WORDS, Mood, make, make_list, mood
from tests.fuzz.writers import write

Rng = np.random.Generator
_ZERO = Mood()


class Draw:
    """A case in the making: columns by file, and the sections of the configuration.

    Args:
        root: an empty folder, which then holds `log/` and `config.yaml`.
    """

    def __init__(self, rng: Rng, root: Path) -> None:
        self.rng, self.root = rng, root
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
        self.writers: list[str] = []

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
        if self.chance(0.03):
            found[rng.integers(len(found))] = self._type(groups[rng.integers(len(groups))])
        return found

    def _type(self, group: list[str]) -> tuple[str, str]:
        name = str(self.rng.choice(group))
        return name, str(self.rng.choice(list(FAMILIES[name])))

    def column(self, name: str, types: list[tuple[str, str]], spirit: Mood, wrap: bool = False) -> None:
        """Adds a column to every file."""
        for number, (group, kind) in enumerate(types):
            n = self.sizes[number]
            if wrap and group != "odd" and not (group == "null" and self.chance(0.5)):
                array = make_list(self.rng, group, kind, n, spirit, str(self.rng.choice(LISTS)))
            else:
                array = make(self.rng, group, kind, n, spirit)
            self.files[number][name] = array

    def ids(self, name: str, *, wrap: bool = False, spirit: Mood | None = None) -> None:
        """Adds a column that is meant for ids."""
        types = self.types(ID_GROUPS, [5, 6, 3, 0.5, 0.5, 0.5, 0.7])
        self.column(name, types, mood(self.rng) if spirit is None else spirit, wrap)

    def numbers(self, name: str, spirit: Mood | None = None) -> None:
        """Adds a column that is meant for numbers."""
        types = self.types(NUMBER_GROUPS, [10, 0.7, 0.2, 0.2, 0.2])
        self.column(name, types, mood(self.rng) if spirit is None else spirit)

    def option(self, share: float, name: str, values: list[Any]) -> dict[str, Any]:
        """An option with one of the values, or none."""
        return {name: values[self.rng.integers(len(values))]} if self.chance(share) else {}

    def draw_features(self) -> None:
        self.ids("k")
        self.features.append({"name": "k", "table": "t", **self.option(0.3, "null_id", [5, "none", -1, 2**64 - 1])})
        if self.chance(0.2):
            self._struct()
        if self.chance(0.5):
            self._lists()
        if self.chance(0.2):
            self.column("s", self.types([["text", "bytes"], ["null"]], [9, 1]), mood(self.rng))
            self.features.append({"name": "s", "table": "t", "split": "|", **self.option(0.4, "null_id", ["none"])})
        if self.chance(0.25):
            self.column("ts", self.types([["time", "date"], ["null"], ["int"]], [12, 1, 1]), mood(self.rng))
            part = str(self.rng.choice(["hour", "weekday", "day", "month", "day_number"]))
            self.features.append({"name": "ts", "table": "t", "timestamp_part": part})
        if self.chance(0.25):
            self.numbers("b")
            null_id = self.option(0.4, "null_id", [99])
            self.features.append({"name": "b", "table": "t", "num_buckets": int(self.rng.choice([2, 5])), **null_id})
        if self.chance(0.2):
            self.ids("c0", wrap=self.chance(0.5))
            self.features.append({"name": "c", "table": "t", "cross": ["k", "c0"]})

    def _struct(self) -> None:
        self.ids("user.id")
        for file in self.files:
            inner = file.pop("user.id")
            missing = pa.array([self.chance(0.1) for _ in range(len(inner))], pa.bool_())
            file["user"] = pa.StructArray.from_arrays([inner], names=["id"], mask=missing if len(inner) else None)
        self.features.append({"name": "uid", "column": "user.id", "table": "t"})

    def _lists(self) -> None:
        self.ids("l", wrap=True)
        feature: dict[str, Any] = {"name": "l", "table": "t", "pooling": str(self.rng.choice(["sum", "mean"]))}
        feature |= self.option(0.3, "max_length", [1, 3]) | self.option(0.3, "null_id", [77, "none"])
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
            spec = {"column": name, **self.option(0.5, "fill_null", [0, -0.5]), **self.option(0.2, "fill_nan", [1.0])}
            dense.append(spec | self.option(0.2, "transforms", [["log1p"]]))
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
                Mood(float(self.rng.choice([0, 0, 0.1])), 0.0, float(self.rng.choice([0, 0, 0.05]))),
            )
            unit = {"unit": str(self.rng.choice(["s", "ms", "us", "ns"]))} if ints else {}
            config["event_time"] = {"column": "at", **unit}

    def draw_data(self) -> None:
        data, rng = self.config["data"], self.rng
        data["block_rows"] = int(rng.choice([1, 7, 50, 131_072]))
        if self.chance(0.5):
            data["on_bad_row"] = "quarantine"
        if self.chance(0.3):
            data["shuffle"] = {"seed": int(rng.integers(9)), "buffer_rows": int(rng.choice([5, 1000]))}
        if self.chance(0.3):
            self._where()
        if self.chance(0.3):
            self._split()
        if self.chance(0.15):
            self._join()
        if "split" in data and self.chance(0.4):  # only read where the case is trained
            self.config["evaluate"] = {"group_column": "k"}

    def _where(self) -> None:
        rng = self.rng
        literals = {
            "int": ["0", "5", "1.5", "300", "-99999999999999999999"],
            "bool": ["true", "false", "1"],
            "float": ["0.5", "3", "1e3"],
            "decimal": ["2", "0.5"],
            "text": ["NO", "on", "007", "1e3", "'null'", "2024-01-02", "a", "é"],
            "time": ["2024-01-03", "2024-01-05T12:00:00", "2024-01-05T12:00:00+08:00"],
            "date": ["2024-01-03", "2024-01-05T12:00:00"],
        }
        kind = str(rng.choice(list(literals)))
        self.column("v", self.types([[kind]], [1]), Mood(float(rng.choice([0, 0.2])), 0.0, 0.0))
        op = str(rng.choice(["==", "!=", "is not"] if kind in ("bool", "text") else ["==", "!=", "<", ">=", "is"]))
        literal = "null" if op.startswith("is") else str(rng.choice(literals[kind]))
        self.config["data"]["where"] = [f"v {op} {literal}"]

    def _split(self) -> None:
        rng, data = self.rng, self.config["data"]
        kind = str(rng.choice(["column", "hash", "time"]))
        if kind == "time" and "event_time" in self.config:
            data["split"] = {"kind": "time", "test_from": "2024-01-08T00:00:00"}
        elif kind == "hash":
            data["split"] = {"kind": "hash", "columns": ["h"], "validation": 0.2, "test": 0.2}
            self.ids("h", spirit=Mood(0.1, 0.1, 0.0))
        else:
            family = str(rng.choice(["text", "int", "bool"]))
            values = {"text": ["a", "NO", "007"], "int": [0, 1, 2], "bool": [False, True, True]}[family]
            self.column("part", self.types([[family]], [1]), Mood(float(rng.choice([0, 0.1])), 0.0, 0.0))
            parts = dict(zip(("train", "test", "validation"), ([v] for v in values), strict=True))
            data["split"] = {
                "kind": "column",
                "column": "part",
                **(parts | {"validation": []} if family == "bool" else parts),
            }

    def _join(self) -> None:
        rng = self.rng
        text = self.chance(0.5)
        self.column("jk", self.types([["text"] if text else ["int"]], [1]), Mood(float(rng.choice([0, 0.2])), 0.0, 0.0))
        keys = pa.array(WORDS[:12]) if text else pa.array(range(-3, 10))
        side = pa.table({"jk": keys, "city": pa.array([f"c{i % 3}" for i in range(len(keys))])})
        assert write(side, self.root / "side.parquet", rng) is not None
        self.config["data"]["join"] = [{"path": "../side.parquet", "key": "jk", "on_missing": "null"}]
        self.features.append({"name": "city", "table": "t"})

    def write(self) -> None:
        """Writes the files and the configuration."""
        rng = self.rng
        hive = self.chance(0.25)
        for number, columns in enumerate(self.files):
            folder = ""
            if hive:
                value = str(
                    rng.choice(["1", "01", "NO", "x y", "é", "__HIVE_DEFAULT_PARTITION__", "a/b", "2024-01-02"])
                )
                folder = f"c1={quote(value, safe=' é')}/"
            names = list(rng.permutation(list(columns))) if self.chance(0.5) else list(columns)
            table = pa.table({name: columns[name] for name in names})
            if self.chance(0.2):
                table = table.append_column("more", pa.array(range(table.num_rows)))
            path = self.root / "log" / f"{folder}{number}.parquet"
            self.writers.append(write(table, path, rng) or "none")
        if hive:
            self.features.append({"name": "c1", "table": "t"})
        (self.root / "config.yaml").write_text(yaml.safe_dump(self.config, sort_keys=False, allow_unicode=True))


def draw(seed: int, number: int, root: Path) -> dict[str, Any]:
    """Writes the case into an empty folder and returns its configuration, with the writers under `writers`."""
    case = Draw(np.random.default_rng([seed, number]), root)
    case.draw_features()
    case.draw_numbers()
    case.draw_data()
    case.write()
    return {**case.config, "writers": case.writers}
