"""What an example of a purchase may say: counted over all lines of strictly earlier invoices, one after the other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tests.fuzz.oracle.log import Oracle
from tests.fuzz.oracle.values import DAY, BadValue, Unreadable, check_role, plain_ids

_NEVER = 999.0


@dataclass(frozen=True)
class Line:
    """A line of the log: its ids, and the time of its invoice."""

    item: int
    user: int
    invoice: int
    time: int
    price: float | None


def lines_of(oracle: Oracle, prepare: dict[str, Any]) -> list[Line]:
    """The positives. Raises Unreadable where a column is null or no id."""
    admitted = oracle.satisfying(prepare.get("where", []))
    kept = [row for row, is_one in enumerate(admitted) if is_one]
    ids = [_ids(oracle, prepare[role], kept) for role in ("item", "user", "group")]
    times = oracle.column("at", ids=True)
    if times.family != "time" or any(times.values[row] is None for row in kept):
        raise Unreadable("at is no time")
    first: dict[int, int] = {}
    for place, row in enumerate(kept):
        invoice = ids[2][place]
        first[invoice] = min(first.get(invoice, 2**63), times.values[row])
    prices = oracle.column("price", ids=False).values if "price" in prepare else None
    found = []
    for place, row in enumerate(kept):
        item, user, invoice = (column[place] for column in ids)
        price = None if prices is None or prices[row] is None else float(prices[row])
        found.append(Line(item, user, invoice, first[invoice], price))
    return found


def _ids(oracle: Oracle, name: str, kept: list[int]) -> list[int]:
    column = oracle.column(name, ids=True)
    check_role({"name": name}, name, column.family)
    found = []
    for row in kept:
        try:
            ids, _ = plain_ids({"name": name}, name, column, column.values[row])
        except BadValue as bad:
            raise Unreadable(str(bad)) from None
        if len(ids) != 1:
            raise Unreadable(f"{name} is null")
        found.append(ids[0])
    return found


def derived(lines: list[Line], item: int, user: int, time: int, history_length: int) -> dict[str, Any]:
    """The columns of an example that the earlier lines decide. The history is in order
    but for lines of one moment."""
    earlier = [line for line in lines if line.time < time]
    of_item = [line for line in earlier if line.item == item]
    of_pair = [line for line in of_item if line.user == user]
    found: dict[str, Any] = {
        f"item_sales_{days}d": sum(line.time >= time - days * DAY for line in of_item) for days in (1, 3, 7, 28)
    }
    found["item_sales"] = len(of_item)
    found["item_age_days"] = _days(of_item, time, min)
    found["item_idle_days"] = _days(of_item, time, max)
    found["user_item_count"] = len(of_pair)
    found["user_item_idle_days"] = _days(of_pair, time, max)
    of_user = [line for line in earlier if line.user == user]
    found["user_count"] = len(of_user)
    found["history"] = [line.item for line in sorted(of_user, key=lambda line: line.time)][-history_length:]
    return found


def _days(lines: list[Line], time: int, which: Any) -> float:
    return min((time - which(line.time for line in lines)) / DAY, _NEVER) if lines else _NEVER
