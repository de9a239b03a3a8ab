"""`make crash`: a kill at every call of every cut of the trainer without torch, then kills of `embtables train`, then a
hundred of a server's side while it takes versions over, then a kill at every call of appends to an event log, then
fifty of the parts of the online loop, at random moments.

Of the calls of openat, most of which read, every fifth is taken.

Each killed run is taken up again and must end with the same tables, bit for bit, as one that was never killed.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks import _harness
from tests.events.folder import killed_calls
from tests.faults import following, kills
from tests.faults.kills import Kill
from tests.faults.online import whole_loop
from tests.faults.run_tables import tables_of
from tests.faults.test_crash import STEPS, survive_all

# Of the trainer's calls those that its state thread alone makes, once for each file or name of a cut.
TRAINER_CALLS = {"fsync": 32, "link": 9, "linkat": 9, "rename": 4, "unlink": 9, "mkdir": 6}
CONFIG = """
name: crash
tables:
  - {name: user, dim: 4, optimizer: {kind: adagrad, learning_rate: 0.1}, admission: {kind: min_count, count: 2}}
  - {name: item, dim: 4, optimizer: {kind: rowwise_adagrad, learning_rate: 0.1}, max_rows: 60}
features: [{name: user, table: user}, {name: item, table: item}]
labels: [{column: click}]
data:
  path: log.parquet
  split: {kind: hash, columns: [row], validation: 0.1, test: 0.1}
  shuffle: {buffer_rows: 500}
model: {kind: dcnv2, num_cross_layers: 1, hidden_sizes: [8], dropout: 0.1}
train: {epochs: 2, batch_size: 200, checkpoint_every_steps: 2, threads: 1, runs_dir: runs}
"""


def make_log(folder: Path) -> None:
    """Two thousand impressions."""
    rng = np.random.default_rng(0)
    n = 2000
    columns = {"user": rng.integers(0, 300, n), "item": rng.integers(0, 90, n), "click": rng.integers(0, 2, n)}
    pq.write_table(pa.table({**columns, "row": np.arange(n)}), folder / "log.parquet")
    (folder / "crash.yaml").write_text(CONFIG)


def train(*arguments: str) -> list[str]:
    """The command line."""
    return [sys.executable, "-m", "embtables", "train", *arguments]


def trainer_survives(folder: Path, kill: Kill, whole: dict[str, bytes]) -> bool:
    """Kills a run of `embtables train` and resumes it. False where the kill did not fire."""
    make_log(folder)
    if not kills.killed(train("crash.yaml"), kill, cwd=folder) or not list(folder.glob("runs/*")):
        shutil.rmtree(folder)
        return False  # it lived on, or was killed before there was a run
    (run,) = (folder / "runs").iterdir()
    if not list(run.glob("checkpoints/manifests/resume-*")):
        again = train("crash.yaml")  # killed before the first version: the user starts anew
        shutil.rmtree(run)
    else:
        again = train("--resume", str(run))
    done = subprocess.run(again, cwd=folder, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, f"{kill}: {done.stderr}"
    (run,) = (folder / "runs").iterdir()
    assert tables_of(run) == whole, f"{kill}: the tables differ"
    shutil.rmtree(folder)
    return True


def trainer_kills(folder: Path, wanted: int) -> Counter[str]:
    """Kills spread over the calls of a run's cuts, by kind of call."""
    reference = folder / "whole"
    reference.mkdir()
    make_log(reference)
    subprocess.run(train("crash.yaml"), cwd=reference, check=True, capture_output=True)
    whole = tables_of(next((reference / "runs").iterdir()))
    chosen = [Kill(call, n) for call, most in TRAINER_CALLS.items() for n in range(1, most + 1)]

    def one(number: int, kill: Kill) -> bool:
        own = folder / str(number)
        own.mkdir()
        return trainer_survives(own, kill, whole)

    with ThreadPoolExecutor(2) as pool:
        survived = list(pool.map(one, range(len(chosen)), chosen))
    fired = Counter(kill.call for kill, has_fired in zip(chosen, survived, strict=True) if has_fired)
    assert sum(fired.values()) >= wanted, f"only {fired} kills of the trainer fired"
    return fired


def following_kills(folder: Path, wanted: int) -> int:
    """Kills spread over the points at which a server's side takes versions over."""
    versions = folder / "versions"
    following.write_versions(versions)
    chosen = np.linspace(1, following.points(versions), wanted).astype(int).tolist()
    assert len(set(chosen)) == wanted, "there are fewer points than kills"
    for nth in chosen:
        following.survive(versions, nth)
    return wanted


def main() -> None:
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        points = kills.points(folder, kills.command(folder / "state", STEPS))
        # The last call is the word "done", after the cuts.
        points = [kill for n, kill in enumerate(points[:-1]) if kill.call != "openat" or n % 5 == 0]
        driver = survive_all(folder, points)
        print(f"{driver} kills of the trainer without torch survived", flush=True)
        trainer = trainer_kills(folder, 50)
        served = following_kills(folder, 100)
        (folder / "events").mkdir()
        appending = killed_calls.survive_all(folder / "events", killed_calls.points(folder / "events"))
        print(f"{sum(appending.values())} kills of a writer of events survived", flush=True)
        online = whole_loop.kills(folder / "online")
    calls = Counter(kill.call for kill in points)
    where = _harness.machine()
    columns = (calls, trainer, appending)
    rows = [[call, *(str(of[call]) for of in columns)] for call in sorted({*calls, *trainer, *appending})]
    heads = ["killed at", "trainer without torch", "`embtables train`", "writer of an event log"]
    table = _harness.table(heads, rows)
    total = driver + sum(trainer.values()) + served + sum(appending.values()) + sum(online.values())
    minutes = (time.monotonic() - start) / 60
    about = (
        f"`make crash` on {where['cpu']}, commit {where['commit']}, {where['date']}: {total} SIGKILLs in "
        f"{minutes:.0f} minutes; every run went on to the same bits. {served} of them killed a server's side while it "
        "read, applied and swapped versions: each began again at the newest whole one, not before one it had shown."
    )
    _harness.write_section("crash", f"## Kills\n\n{about}\n\n{table}\n\n{whole_loop.about(online)}\n")
    print(f"{total} kills survived")


if __name__ == "__main__":
    main()
