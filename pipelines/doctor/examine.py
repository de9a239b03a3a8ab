"""All checks, one after the other."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from embtables.pipelines.config import RunConfig
from embtables.pipelines.doctor import limits, processor, runtimes, versions
from embtables.pipelines.doctor.finding import Finding


def examine(config: RunConfig | None = None) -> list[Finding]:
    """What every check finds here.

    Args:
        config: of a run whose needs are compared with free memory.
    """
    return [
        processor.instruction_set(),
        processor.huge_pages(),
        versions.requirements(versions.asked_for()),
        versions.lock(versions.lock_file()),
        runtimes.preloaded(),
        *runtimes.import_orders(),
        limits.open_files(),
        limits.file_size(),
        limits.address_space(),
        limits.memory(limits.free_memory(), config),
    ]


def report(findings: list[Finding]) -> dict[str, Any]:
    """The findings as JSON."""
    counts = {state: sum(f.state == state for f in findings) for state in ("ok", "warning", "broken")}
    return {"healthy": not counts["broken"], **counts, "findings": [asdict(finding) for finding in findings]}
