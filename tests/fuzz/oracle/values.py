"""The oracle's rules for one value: what is an id, a number, a time, and what is none. Slow; nothing of the package."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from itertools import product
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import xxhash

EXACT = ("int", "bool", "decimal")
NUMBERS = (*EXACT, "float", "fraction")
PER_SECOND = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}
DAY = 86_400_000_000


class Unreadable(Exception):  # noqa: N818 - it is a verdict
    """The log must be refused; says why."""


class BadValue(Exception):  # noqa: N818
    """The row's value has no meaning."""

    def __init__(self, column: str, why: str) -> None:
        super().__init__(f"{column}: {why}")
        self.column = column


@dataclass
class Column:
    """A column over all files: its family (`list:int` for lists) and one value per row; None is a null."""

    family: str
    values: list[Any]


def one_family(name: str, families: list[str], *, ids: bool) -> str:
    """The family of a column whose files have these."""
    kinds = sorted(set(families) - {"null"})
    if not kinds:
        return "null"
    if any(k.startswith("list:") for k in kinds):
        if not all(k.startswith("list:") for k in kinds):
            raise Unreadable(f"{name} is a list in some files only")
        return "list:" + one_family(name, [k.removeprefix("list:") for k in kinds], ids=ids)
    if len(kinds) == 1:
        return kinds[0]
    if set(kinds) <= {"text", "bytes"}:
        return "bytes"
    if set(kinds) <= set(EXACT):
        return "int"
    if set(kinds) <= set(NUMBERS) and not ids:
        return "float"
    if set(kinds) <= {"decimal", "fraction", "int", "bool"}:
        return "fraction"
    raise Unreadable(f"{name} is {' and '.join(kinds)}")


def same_keys(one: str, other: str) -> bool:
    groups = [set(EXACT), {"text", "bytes"}, {"time"}]
    return any(one in group and other in group for group in groups)


def check_role(feature: dict[str, Any], name: str, kind: str) -> None:
    inner = kind.removeprefix("list:")
    if "num_buckets" in feature:
        allowed: tuple[str, ...] = (*NUMBERS, "null") if inner == kind else ()
    elif "timestamp_part" in feature:
        allowed = ("time", "null")
    elif "split" in feature:
        allowed = ("text", "bytes", "null") if inner == kind else ()
    else:
        allowed = (*EXACT, "text", "bytes", "time", "null")
    if inner not in allowed:
        raise Unreadable(f"{name} is {kind}, which this feature does not take")


def id_of_bytes(value: bytes) -> int:
    """docs/hash.md: XXH3-64 with seed 0, as a signed integer."""
    return signed(xxhash.xxh3_64_intdigest(value))


def signed(number: int) -> int:
    """The signed integer of the same 64 bits."""
    return (number + 2**63) % 2**64 - 2**63


def feature_ids(feature: dict[str, Any], columns: list[Column], row: int) -> tuple[list[Any], list[float] | None]:
    """The ids of a row, and their weights."""
    if "cross" in feature:
        each = [
            plain_ids(feature, name, c, c.values[row])[0] for name, c in zip(feature["cross"], columns, strict=True)
        ]
        if math.prod(len(ids) for ids in each) > 65_536:
            raise BadValue(feature["cross"][0], "has too many combinations")
        return list(product(*each)), None
    name = feature.get("column") or feature["name"]
    value = columns[0].values[row]
    ids, kept = plain_ids(feature, name, columns[0], value)
    weights = None
    if "weights_column" in feature:
        weights = weights_of(feature, columns[1], row, value, kept, len(ids), columns[0].family.startswith("list:"))
    if len(ids) > feature.get("max_length", 65_536):
        if "max_length" not in feature:
            raise BadValue(name, "is too long")
        ids = ids[-feature["max_length"] :]
        weights = None if weights is None else weights[-feature["max_length"] :]
    return ids, weights


def weights_of(
    feature: dict[str, Any], column: Column, row: int, value: Any, kept: list[int] | None, ids: int, of_lists: bool
) -> list[float]:
    """Weights beside ids. `kept`: places of the ids that are no nulls; None where a null id stands for all."""
    name = feature["weights_column"]
    given = column.values[row]
    listed = column.family.startswith("list:")
    numbers = ([] if given is None else given) if listed else [given]
    wanted = len(kept) if "split" in feature and kept is not None else 1
    if of_lists:
        wanted = 0 if value is None else len(value)
    if len(numbers) != wanted:
        raise BadValue(name, f"has {len(numbers)} weights for {wanted} ids")
    if kept is None:
        return [1.0] * ids if not numbers else [finite(name, n) for n in numbers]
    dropped = set(range(len(numbers))) - set(kept)
    for place in dropped:
        if numbers[place] is not None:
            finite(name, numbers[place])
    return [finite(name, numbers[place]) for place in kept]


def plain_ids(feature: dict[str, Any], name: str, column: Column, value: Any) -> tuple[list[Any], list[int] | None]:
    """Ids of a value, and which of its items they are; None if the null id stands there."""
    kind = column.family.removeprefix("list:")
    if value is None:
        if "null_id" in feature:
            return [null_id(feature, kind)], None
        return [], []
    if "split" in feature:
        try:
            text = value.decode()
        except UnicodeDecodeError:
            raise BadValue(name, "is no text") from None
        value = [piece.encode() for piece in text.split(feature["split"]) if piece]
    items = value if isinstance(value, list) else [value]
    kept = [i for i, item in enumerate(items) if item is not None]
    return [one_id(feature, name, kind, items[i]) for i in kept], kept


def null_id(feature: dict[str, Any], kind: str) -> int:
    value = str(feature["null_id"])
    if kind in ("text", "bytes") and "num_buckets" not in feature:
        return id_of_bytes(value.encode())
    try:
        return signed(int(value))
    except ValueError:
        raise Unreadable(f"null_id {value} is no integer") from None


def one_id(feature: dict[str, Any], name: str, kind: str, value: Any) -> Any:
    if "num_buckets" in feature:
        return ("bucket", finite_or_large(name, value))
    if kind == "text":
        try:
            value.decode()
        except UnicodeDecodeError:
            raise BadValue(name, "is no text") from None
    if kind in ("text", "bytes"):
        return id_of_bytes(value)
    if kind == "time":
        if not -(2**63) <= value < 2**63:
            raise BadValue(name, "is out of range")
        if "timestamp_part" not in feature:
            return value
        return part_of_time(feature["timestamp_part"], local_time(value, feature.get("timestamp_zone")))
    number = int(value)
    if not -(2**63) <= number < 2**64:
        raise BadValue(name, "has more than 64 bits")
    return signed(number)


def local_time(micros: int, zone: str | None) -> int:
    """What a clock of the zone shows, in microseconds since 1970; without a zone that of UTC."""
    if zone is None:
        return micros
    # Python's calendar ends with the year 9999, and every calendar repeats after 400 years.
    cycles = max(0, (micros // DAY - 2_753_903) // 146_097)
    moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=micros - cycles * 146_097 * DAY)
    offset = moment.astimezone(ZoneInfo(zone)).utcoffset()
    assert offset is not None
    return micros + offset // timedelta(microseconds=1)


def part_of_time(part: str, micros: int) -> int:
    """Monday is 0; days and months count from 1."""
    day, of_day = divmod(micros, DAY)
    if part == "day_number":
        return day
    if part == "hour":
        return of_day // 3_600_000_000
    if part == "weekday":
        return (day + 3) % 7  # 1970-01-01 was a Thursday
    # The calendar repeats every 400 years, which are 146,097 days.
    moment = date.fromordinal(date(2000, 1, 1).toordinal() + (day - 10_957) % 146_097)
    return moment.day if part == "day" else moment.month


def finite(name: str, value: Any) -> float:
    """A number that float32 holds."""
    if value is None:
        raise BadValue(name, "is null")
    with np.errstate(over="ignore"):
        if not np.isfinite(np.float32(float(value))):
            raise BadValue(name, "is not finite")
    return float(value)


def dense_value(spec: dict[str, Any], value: Any) -> float:
    name = spec["column"]
    if value is None and "fill_null" in spec:
        value = spec["fill_null"]
    number = float("nan") if value is None else float(value)
    if value is not None and math.isnan(number) and "fill_nan" in spec:
        value = spec["fill_nan"]
    if "log1p" in spec.get("transforms", []):
        number = finite_or_large(name, value)
        if number <= -1:
            raise BadValue(name, "has no log1p")
        value = math.log1p(number)
    return finite(name, value)


def finite_or_large(name: str, value: Any) -> float:
    if value is None or not math.isfinite(float(value)):
        raise BadValue(name, "is not finite")
    return float(value)


def label_value(spec: dict[str, Any], value: Any) -> float:
    number = finite_or_large(spec["column"], value)
    if "positive_above" in spec:
        return float(number > spec["positive_above"])
    if number not in (0, 1):
        raise BadValue(spec["column"], "is neither 0 nor 1")
    return number


def time_value(spec: dict[str, Any], kind: str, value: Any) -> int:
    if value is None:
        raise BadValue(spec["column"], "is null")
    micros = value if kind == "time" else int(value) * 1_000_000 // PER_SECOND[spec["unit"]]
    if not -(2**63) <= micros < 2**63:
        raise BadValue(spec["column"], "is out of range")
    return int(micros)


def instant(text: str) -> int:
    """Microseconds of an ISO time; without a zone it is UTC."""
    moment = datetime.fromisoformat(text)
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    epoch = datetime(1970, 1, 1, tzinfo=UTC)
    gone = moment - epoch
    return (gone.days * 86_400 + gone.seconds) * 1_000_000 + gone.microseconds
