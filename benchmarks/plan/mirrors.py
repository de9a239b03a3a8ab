"""One rank's own work in a step among many, foretold and measured: `python -m benchmarks.plan.mirrors`.

26 features of an id each, 512 rows a rank, dimension 32, on one thread. The costs are fitted to worlds of 2 and of 64
ranks that mirror what is sent (pipelines/plan/probes.py); the work in worlds of 256 and of 1,024 is foretold by them.
"""

from __future__ import annotations

import json

import torch

from pipelines.plan import probes

CASE = probes.Case(26, 32, 1, 1, 512)


def main() -> None:
    torch.set_num_threads(1)
    work = probes.tables(1 << 20, lambda: None)
    found = {}
    for ranks in (256, 1024):
        timed = probes.time_case(CASE, probes.Mirrors(ranks), lambda: None)
        amounts = CASE.amounts()
        owning = {"call": 1.0, "slot": 26.0 * ranks, "key": amounts["key"], "key_floats": amounts["key_floats"]}
        foretold = work.asking.seconds(amounts) + work.owning.seconds(owning)
        found[str(ranks)] = {"measured": timed.asking + timed.owning, "foretold": foretold}
    print(json.dumps(found))


if __name__ == "__main__":
    main()
