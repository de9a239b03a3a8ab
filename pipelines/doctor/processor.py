"""The instruction set that the native core uses, and the kernel's huge pages."""

from __future__ import annotations

import os
import re
from pathlib import Path

from embtables.errors import ConfigError
from embtables.pipelines.doctor.finding import Finding

HUGE_PAGES = Path("/sys/kernel/mm/transparent_hugepage/enabled")


def instruction_set() -> Finding:
    """Whether the native core can be loaded, and uses the widest instruction set that this processor has."""
    check = "instruction set"
    try:
        from embtables.native import ISA_VARIABLE, _core, isa

        widest, used = _core.available_isas()[-1], isa()
    except ImportError as error:
        why = "without the native core nothing trains"
        return Finding(check, "broken", f"the native core cannot be loaded: {error}", why, "install embtables anew")
    except ConfigError as error:
        return Finding(check, "broken", str(error), "training stops with the same error", "unset the variable")
    if used != widest:
        found = f"{used}, although this processor has {widest}"
        return Finding(check, "warning", found, "lookups and updates are slower", f"unset {ISA_VARIABLE}")
    if used == "scalar":
        why = "lookups and updates are several times slower than with AVX2"
        return Finding(check, "warning", "scalar: this processor has no AVX2", why, "take a machine with AVX2")
    return Finding(check, "ok", used)


def huge_pages(file: Path = HUGE_PAGES) -> Finding:
    """Whether large tables get pages of 2 MiB where they ask for them."""
    check = "huge pages"
    try:
        chosen = re.search(r"\[(\w+)\]", file.read_text())
    except OSError as error:
        return Finding(check, "ok", f"not known: {file} cannot be read ({error.strerror})")
    mode = chosen[1] if chosen else "unknown"
    if mode != "never":
        return Finding(check, "ok", mode)
    why = "rows of large tables lie all over memory: with pages of 4 KiB each lookup also misses the page table"
    sudo = "" if os.geteuid() == 0 else "sudo "
    return Finding(check, "warning", mode, why, f"echo madvise | {sudo}tee {file}")
