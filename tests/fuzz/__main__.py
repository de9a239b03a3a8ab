"""`python -m tests.fuzz --minutes 20`: random logs for so long; a line per fault, with what draws it again."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from tests.fuzz.check import FAULTS
from tests.fuzz.trials.case import Verdict
from tests.fuzz.worker import Worker

# A case takes 0.1 s; one that takes so long hangs.
_HANGS_AFTER_S = 60
_CASES_PER_WORKER = 1000


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--minutes", type=float, default=20.0, help="how long to go on")
    parser.add_argument("--seed", type=int, default=None, help="by default another one each time")
    parser.add_argument("--only", type=int, default=None, help="this case alone")
    parser.add_argument("--cases", type=int, default=None, help="at most so many cases")
    options = parser.parse_args()
    seed = int(time.time()) if options.seed is None else options.seed
    counts = fuzz(seed, options.minutes * 60, options.only, options.cases)
    return 1 if any(counts[kind] for kind in FAULTS) else 0


def fuzz(seed: int, seconds: float, only: int | None = None, cases: int | None = None) -> Counter[str]:
    """Runs cases, prints what is found, and returns how many cases ended how."""
    counts: Counter[str] = Counter()
    number = 0 if only is None else only
    end = time.monotonic() + seconds
    with tempfile.TemporaryDirectory(prefix="embtables-fuzz-") as folder:
        worker = Worker(Path(folder))
        while time.monotonic() < end and (cases is None or sum(counts.values()) < cases):
            verdict = worker.check(seed, number, _HANGS_AFTER_S)
            counts[verdict.kind] += 1
            _say(seed, number, verdict, always=only is not None)
            if only is not None:
                break
            number += 1
            if number % _CASES_PER_WORKER == 0:
                worker.restart()
        worker.stop()
    words = ", ".join(f"{counts[kind]} {kind}" for kind in ("trained", "refused", *FAULTS))
    sys.stdout.write(f"seed {seed}: {sum(counts.values())} cases: {words}\n")
    return counts


def _say(seed: int, number: int, verdict: Verdict, *, always: bool) -> None:
    if always or verdict.kind in FAULTS:
        sys.stdout.write(f"{verdict.kind.upper()} --seed {seed} --only {number}: {verdict.detail}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    raise SystemExit(main())
