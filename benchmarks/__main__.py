"""`python -m benchmarks`: every benchmark, one after the other; each rewrites its own section of RESULTS.md."""

from __future__ import annotations

import subprocess
import sys

NAMES = (
    *("string_hash", "reader", "tables", "served_rows", "state", "publish", "sharded", "ray_data"),
    *("online_retail", "movielens", "small_logs", "python_call", "workers", "ctr_peers", "serving", "online"),
    *("loop.event_log", "loop.running_features", "loop.joiner"),
    *("loop.late_clicks", "loop.admission", "loop.budget", "loop.speed", "loop.visible"),
)


def main() -> None:
    failed = []
    for name in NAMES:
        print(f"== {name}", flush=True)
        if subprocess.run([sys.executable, "-m", f"benchmarks.{name}", *sys.argv[1:]], check=False).returncode:
            failed.append(name)
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
