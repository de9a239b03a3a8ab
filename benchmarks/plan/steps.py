"""Seconds of a step of a real run: `python -m benchmarks.plan.steps WORKERS STEPS CONFIG [KEY=VALUE]...`.

The command line trains; the rates that it writes to metrics.jsonl are taken, without the first window of steps, in
which processes start to work and the reader fills its first block: the median of the windows.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from statistics import median

from benchmarks._harness.ctr import train_command

WINDOW = 10


def main() -> None:
    workers, steps, config, *overrides = sys.argv[1:]
    settings = [f"train.max_steps={steps}", f"train.log_every_steps={WINDOW}", *overrides]
    command = [*train_command(config, None, *settings), "--workers", workers]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stderr)
    report = json.loads(done.stdout.splitlines()[-1])
    lines = (Path(report["run_dir"]) / "metrics.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    rates = [r["rows_per_second"] for r in records if r.get("part") == "train" and "rows_per_second" in r]
    batch = report["rows"] / report["steps"]
    print(json.dumps({"seconds": median(batch / rate for rate in rates[1:]), "steps": report["steps"]}))


if __name__ == "__main__":
    main()
