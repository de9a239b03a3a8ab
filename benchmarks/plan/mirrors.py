"""One rank's own work in a step among many, predicted and measured: `python -m benchmarks.plan.mirrors`.

26 features with one id each, 512 rows per rank, dimension 32, on one thread. The costs are fitted to worlds of 2, 64
and 512 ranks that mirror what is sent (pipelines/plan/probes.py); they predict the work in worlds of 256 and 1,024.
"""

from __future__ import annotations

import json

import torch

from embtables.pipelines.plan import probes

CASE = probes.Case(26, 32, 1, 1, 512)


def main() -> None:
    torch.set_num_threads(1)
    work = probes.tables(1 << 20, lambda: None)
    found = {}
    for ranks in (256, 1024):
        (timed,) = probes.time_cases([(ranks, CASE)], lambda: None)
        predicted = work.asking.seconds(CASE.amounts(ranks)) + work.owning.seconds(probes.of_owner(CASE, ranks))
        found[str(ranks)] = {"measured": timed.asking + timed.owning, "predicted": predicted}
    print(json.dumps(found))


if __name__ == "__main__":
    main()
