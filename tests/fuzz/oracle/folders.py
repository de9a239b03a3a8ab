"""What folders named key=value say: text, unless a type is declared or follows from what the column is used for."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from tests.fuzz.oracle.literals import literal_value
from tests.fuzz.oracle.values import DAY, Unreadable

_FAMILIES = {"string": "text", "int64": "int", "float64": "float", "bool": "bool", "date": "time", "timestamp": "time"}


def folder_texts(path: Path) -> dict[str, str | None]:
    """The values by name, percent-decoded, of a file's path below the log's root."""
    found: dict[str, str | None] = {}
    for part in path.parts[:-1]:
        name, sign, value = part.partition("=")
        if sign:
            found[unquote(name)] = None if value == "__HIVE_DEFAULT_PARTITION__" else unquote(value)
    return found


def folder_types(config: dict[str, Any]) -> dict[str, str]:
    """Types that are declared, or that follow from one use of a column as a number or a time."""
    numbers = {spec["column"] for spec in [*config.get("dense", []), *config["labels"]]}
    numbers |= {config["sample_weight"]} if "sample_weight" in config else set()
    ids: set[str] = set()
    for feature in config["features"]:
        names = feature.get("cross") or [feature.get("column") or feature["name"]]
        if "num_buckets" in feature:
            numbers |= set(names)
        else:
            ids |= set(names)
    found = dict.fromkeys(numbers, "float64")
    if "event_time" in config:
        found[config["event_time"]["column"]] = "int64" if "unit" in config["event_time"] else "timestamp"
    return {name: kind for name, kind in found.items() if name not in ids} | config["data"].get("partitions", {})


def folder_value(kind: str, text: str | None) -> tuple[str, Any]:
    """The family, and the value that every row of the file has."""
    family = _FAMILIES[kind]
    if text is None:
        return family, None
    if kind == "int64":
        if not re.fullmatch(r"[+-]?\d+", text) or not -(2**63) <= int(text) < 2**63:
            raise Unreadable(f"{text} is no int64")
        return family, int(text)
    value = literal_value(family, text)
    if kind == "date" and value % DAY:
        raise Unreadable(f"{text} is no day")
    return family, value
