"""Figures in words for people: the same on a terminal and on a page."""

from __future__ import annotations

from typing import Any

from embtables.state.tools.collisions import Collisions
from embtables.state.tools.figures import Admission, TableFigures
from embtables.state.tools.histograms import Bin, Distribution

STRING_IDS = "An id of a string column is the string's 64-bit hash."
_SIZES = ((1e9, "GB"), (1e6, "MB"), (1e3, "kB"))
_SPANS = ((86_400, "d"), (3_600, "h"), (60, "min"))


def size(count: int) -> str:
    """Bytes: `1.2 MB`."""
    for unit, name in _SIZES:
        if count >= unit:
            return f"{count / unit:.1f} {name}"
    return f"{count} B"


def share(value: float | None) -> str:
    """0.0123 as `1.2 %`; a small share that is not 0 never reads as 0 %, and likewise near 100 %."""
    if value is None:
        return "-"
    if 0.0 < value < 0.001:
        return "< 0.1 %"
    return "> 99.9 %" if 0.999 < value < 1.0 else f"{100 * value:.1f} %"


def amount(value: float, unit: str) -> str:
    """One value of a distribution: `3.5 d` of seconds, `1,200` or `1.2 M` of whole numbers, `0.34` of others."""
    if unit == "seconds":
        for seconds, name in _SPANS:
            if value >= 2 * seconds:
                return f"{value / seconds:,.1f} {name}"
        return f"{value:,.0f} s"
    if isinstance(value, float):
        return f"{value:.3g}"
    return f"{value:,}" if value < 1_000_000 else f"{value / 1e6:,.1f} M"


def heading(table: TableFigures) -> str:
    """`collisionless, dim 16, rowwise adagrad; read by user, history`."""
    readers = f"; read by {', '.join(table.features)}" if table.features else ""
    learns = f"optimizer state {', '.join(table.state) or 'none'}"
    if table.optimizer is not None:
        learns = table.optimizer.replace("_", " ")
    return f"{table.kind}, dim {table.dim}, {learns}{readers}"


def distributions(table: TableFigures) -> list[tuple[str, Distribution]]:
    """Those a table has, named by what their values are."""
    found: list[tuple[str, Distribution | None]] = []
    if table.age is not None:
        found.append(("age" if table.age.unit == "seconds" else f"age ({table.age.unit})", table.age))
    found += [("gradients", table.count), ("L2 norm", table.norm)]
    if table.admission is not None and table.admission.waiting:
        found.append(("waiting: seen", table.admission.waiting_counts))
    return [(name, values) for name, values in found if values is not None and values.quantiles]


def bin_range(bin_: Bin, unit: str) -> str:
    """What a bin holds: `7`, `8-15`, `0.1-0.2`."""
    if isinstance(bin_.start, float):
        return f"{bin_.start:.3g}-{bin_.end:.3g}"
    last = bin_.end - 1
    return amount(bin_.start, unit) if last <= bin_.start else f"{amount(bin_.start, unit)}-{amount(last, unit)}"


def top_name(table: TableFigures) -> str:
    """What the rows of `top` are named by: ids where they are kept, rows of a fixed table, else keys."""
    if table.top and table.top[0].id is not None:
        return "id"
    return "row" if table.kind == "fixed" else "key"


def facts(table: TableFigures) -> list[tuple[str, str]]:
    """Name and value of everything about a table that is no distribution."""
    sizes = ", ".join(f"{use} {size(count)}" for use, count in table.bytes_by_part.items())
    found = [
        ("never updated", "not known" if table.never_updated is None else share(table.never_updated)),
        ("bytes", f"{size(sum(table.bytes_by_part.values()))}: {sizes}"),
        ("files", f"{size(table.bytes_in_files)} in this version and those it depends on"),
    ]
    if table.error is not None:
        worst, usual = (f"{table.error[name]:.3g}" for name in ("max_abs", "rms"))
        found.append(("weights", f"{table.dtype}: within {worst} of the true ones, {usual} root mean square"))
    if table.not_finite:
        found.append(("not finite", f"{table.not_finite:,} rows have a weight that is NaN or infinite"))
    if table.admission is not None:
        found += _admission_facts(table.admission, table.rows)
    if table.kind == "fixed":
        found.append(("collisions", _collisions(table.collisions)))
    return found


def _admission_facts(admission: Admission, rows: int) -> list[tuple[str, str]]:
    lost = "not known: a snapshot has no tombstones"
    if admission.lost is not None:
        lost = f"{admission.lost:,} since the version before; {admission.lost_in_chain:,} since the snapshot"
    found = [("admission", _policy(admission.policy))]
    if admission.waiting:
        found.append(("waiting", f"{admission.waiting:,} keys, counted one by one, have no row yet"))
    found.append(("lost rows", lost))
    policy = admission.policy or {}
    if admission.past_ttl is not None:
        ttl = amount(int(str(policy["ttl_seconds"])), "seconds")
        found.append(("expiry", f"after {ttl}; {admission.past_ttl:,} rows are past it and not yet swept"))
    if admission.full is not None:
        found.append(("limit", f"{rows:,} of {policy['max_rows']:,} rows: {share(admission.full)}"))
    return found


def _policy(policy: dict[str, Any] | None) -> str:
    if policy is None:
        return "not recorded in this version"
    admission = policy["admission"]
    if admission is None:
        return "every key, at first sight"
    if admission["kind"] == "probability":
        return f"with probability {admission['probability']:g} at each step that sees the key"
    counted = "in a sketch" if admission["counting"] == "sketch" else "one by one"
    return f"at occurrence {admission['count']}; at most {admission['max_waiting']:,} keys wait, counted {counted}"


def _collisions(found: Collisions | None) -> str:
    if found is None:
        return "not estimated: ids are wrapped or encoded in several ways, or counts are not kept"
    rows = f"{found.occupied:,} rows in use"
    if not found.estimated:
        return f"none: ids are row indices; {rows}"
    if found.ids is None or found.sharing_a_row is None or found.sharing_every_row is None:
        return f"{rows}, which is all: too many ids to estimate how many share a row"
    text = (
        f"about {share(found.sharing_a_row)} of ids share a row with another (estimate: {rows}, {found.ids:,.0f} ids)"
    )
    if found.sharing_every_row != found.sharing_a_row:
        text += f"; about {share(found.sharing_every_row)} share all their rows"
    return text
