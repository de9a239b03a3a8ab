"""Installed packages beside those that embtables asks for, and beside the lock where there is one."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from importlib.metadata import Distribution, PackageNotFoundError, distribution, version
from pathlib import Path

from packaging.requirements import Requirement

from embtables.pipelines.doctor.finding import Finding

LOCK = Path("requirements") / "lock.txt"
_WHY_PINNED = "it is not what this version of embtables was made for: calls may fail, or mean something else"
_WHY_LOCK = "all tests ran with the lock, and with nothing else"


def requirements(asked: Iterable[str]) -> Finding:
    """Whether the packages that embtables asks for are installed, in such a version.

    Args:
        asked: as in the package's metadata; those of extras count where they are installed.
    """
    check, wrong = "packages", []
    for requirement in map(Requirement, asked):
        is_extra = requirement.marker is not None and not requirement.marker.evaluate({"extra": ""})
        has = _installed(requirement.name)
        if has is None and not is_extra:
            wrong.append(f"{requirement.name} is missing")
        elif has is not None and not requirement.specifier.contains(has, prereleases=True):
            wrong.append(f"{requirement.name} is {has}, not {requirement.specifier}")
    if not wrong:
        return Finding(check, "ok", "as embtables asks for them")
    return Finding(check, "broken", "; ".join(wrong), _WHY_PINNED, "install embtables with its lock (README, Install)")


def lock(file: Path | None) -> Finding:
    """Which installed packages are of other versions than the lock's.

    Args:
        file: None: an installed wheel has no lock beside it.
    """
    check = "lock"
    if file is None or not file.is_file():
        return Finding(check, "ok", "not compared: it is in the repository, not in an installed package")
    pins = re.findall(r"^([A-Za-z0-9._-]+)==([^\s;]+)", file.read_text(encoding="utf-8"), re.MULTILINE)
    there = [(name, has, pin) for name, pin in pins if (has := _installed(name)) is not None]
    # A version may differ by its build alone: 2.13.0+cpu is 2.13.0.
    other = [f"{name} is {has}, not {pin}" for name, has, pin in there if pin not in (has, has.partition("+")[0])]
    if not other:
        return Finding(check, "ok", f"{len(pins)} packages, as installed")
    found = "; ".join(other[:5]) + (f" and {len(other) - 5} more" if len(other) > 5 else "")
    return Finding(check, "warning", found, _WHY_LOCK, f"pip install --no-deps -r {file}")


def asked_for() -> list[str]:
    """What embtables asks for, development tools left out."""
    return [line for line in distribution("embtables").requires or () if not re.search(r"extra == .dev.", line)]


def lock_file(of: Distribution | None = None) -> Path | None:
    """The lock of the repository that an editable install is of."""
    text = (of or distribution("embtables")).read_text("direct_url.json")
    place = json.loads(text) if text else {}
    if not place.get("dir_info", {}).get("editable") or not str(place.get("url", "")).startswith("file://"):
        return None
    return Path(str(place["url"]).removeprefix("file://")) / LOCK


def _installed(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
