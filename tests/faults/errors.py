"""`make faults`: EIO and ENOSPC at system calls of the cuts of `embtables train`, by strace.

Each time training must end as if nothing had been, having said what failed; or, where the last checkpoint failed,
end with that error and be resumed to the same tables, bit for bit.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from errno import EIO, ENOSPC, errorcode
from pathlib import Path

from benchmarks import _harness
from tests.faults.__main__ import TRAINER_CALLS, make_log, train
from tests.faults.kills import Kill
from tests.faults.run_tables import tables_of


def endured(folder: Path, at: Kill, code: int, whole: dict[str, bytes]) -> str | None:
    """Runs `embtables train` with one call failing. Returns how it went; None where the call was never made."""
    folder.mkdir()
    make_log(folder)
    trace = folder / "trace"
    inject = f"inject={at.call}:error={errorcode[code]}:when={at.nth}"
    strace = ["strace", "-f", "-qq", "-o", str(trace), "-e", f"trace={at.call}", "-e", inject]
    done = run([*strace, *train("crash.yaml")], folder)
    if "(INJECTED)" not in trace.read_text(errors="replace"):
        shutil.rmtree(folder)
        return None
    said = f"{at}, {errorcode[code]}: {done.stderr}"
    assert os.strerror(code) in done.stderr, said
    assert "Traceback" not in done.stderr, said
    if done.returncode != 0:
        started = [run for run in (folder / "runs").glob("*") if list(run.glob("checkpoints/manifests/resume-*"))]
        again = run(train("--resume", str(started[0])) if started else train("crash.yaml"), folder)
        assert again.returncode == 0, again.stderr
    finished = [run for run in (folder / "runs").iterdir() if (run / "checkpoints").is_dir()]
    assert tables_of(max(finished, key=lambda run: run.stat().st_mtime)) == whole, said
    shutil.rmtree(folder)
    return "ended well" if done.returncode == 0 else "was resumed"


def run(command: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    """The command in the folder."""
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=300)


def main() -> None:
    start = time.monotonic()
    fired: Counter[tuple[str, str, str]] = Counter()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        reference = folder / "whole"
        reference.mkdir()
        make_log(reference)
        assert run(train("crash.yaml"), reference).returncode == 0
        whole = tables_of(next((reference / "runs").iterdir()))
        chosen = [(Kill(c, n), (EIO, ENOSPC)[n % 2]) for c, most in TRAINER_CALLS.items() for n in range(1, most + 1)]

        def one(number: int, at: Kill, code: int) -> None:
            went = endured(folder / str(number), at, code, whole)
            if went is not None:
                fired[at.call, errorcode[code], went] += 1

        with ThreadPoolExecutor(2) as pool:
            for result in [pool.submit(one, n, at, code) for n, (at, code) in enumerate(chosen)]:
                result.result()
    where, total = _harness.machine(), sum(fired.values())
    assert total >= 30, f"only {fired} fired"
    rows = [[*key, str(count)] for key, count in sorted(fired.items())]
    about = (
        f"`make faults` on {where['cpu']}, commit {where['commit']}, {where['date']}: {total} failing calls of "
        f"`embtables train` in {(time.monotonic() - start) / 60:.0f} minutes; every run reached the same bits."
    )
    table = _harness.table(["call", "error", "the run", "times"], rows)
    _harness.write_section("faults", f"## Failing calls\n\n{about}\n\n{table}\n")
    print(f"{total} failing calls endured")


if __name__ == "__main__":
    main()
