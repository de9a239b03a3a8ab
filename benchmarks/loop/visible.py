"""Seconds from a click to an answer that has learned of it, with the whole loop at work on one machine.

    1,000 impressions/s: /v1/score --log-served--> folder log --> embtables online --> versions --> the same server
    50 clicks/s:         /v1/events --------------^

All of it is SYNTHETIC: a request has 20 candidates, one of which was never seen before and is clicked after a delay of
a second in the mean. Its row cannot be in a version that has not learned of that click: what is measured is the time
from before the click is posted until the server's embedding of that item is no more the one of unknown items, which is
asked for every 50 ms. Server, trainer and load share all cores; the window for negatives is 10 seconds long.
"""

from __future__ import annotations

import argparse
import heapq
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

import embtables
from benchmarks import _harness
from benchmarks._harness import ctr
from benchmarks._serving import servers

REQUESTS_A_SECOND, CANDIDATES = 50, 20
USERS, ITEMS, LOG_ROWS = 100_000, 100_000, 400_000
FIRST_NEW, NEVER = 10_000_000, 9_999_999  # ids of items
DELAY_SECONDS = 1.0
LOOK_SECONDS, POST_SECONDS = 0.05, 0.05
CONNECTIONS = 8
GOAL, GOAL_OF_GOALS = 5.0, 2.0


def write(folder: Path) -> Path:
    """A log of the day before, and the configuration of the run."""
    rng = np.random.default_rng(0)
    until = time.time_ns() // 1000 - 60_000_000
    columns = {
        "user": rng.integers(0, USERS, LOG_ROWS),
        "item": rng.integers(0, ITEMS, LOG_ROWS),
        "click": (rng.random(LOG_ROWS) < 0.05).astype(np.float32),
        "event_time": pa.array(until - LOG_ROWS + np.arange(LOG_ROWS)).cast(pa.timestamp("us")),
    }
    (folder / "log").mkdir()
    pq.write_table(pa.table(columns), folder / "log" / "day.parquet", row_group_size=65_536)
    table = {"kind": "collisionless", "dim": 16, "optimizer": {"kind": "rowwise_adagrad", "learning_rate": 0.05}}
    content = {
        "name": "visible",
        "tables": [{"name": "user", **table}, {"name": "item", **table}],
        "features": [{"name": "user", "table": "user"}, {"name": "item", "table": "item"}],
        "labels": [{"column": "click"}],
        "event_time": {"column": "event_time"},
        "data": {"path": str(folder / "log")},
        "model": {"kind": "dcnv2", "num_cross_layers": 2, "hidden_sizes": [128, 64]},
        "train": {"batch_size": 256, "threads": 1},
        "online": {
            "sync_seconds": 1,
            "checkpoint_every_syncs": 10,
            "events": {
                "log": f"folder://{folder}/events",
                "item": "item",
                "window_seconds": 10,
                "late_window_seconds": 60,
            },
        },
    }
    path = folder / "visible.yaml"
    path.write_text(json.dumps(content))  # JSON is YAML
    return path


class Load:
    """Visits at a fixed rate, their clicks, and how long each takes until answers know of it.

    Args:
        first: the number of the first visit: no two loads of a server may have visits of the same number.

    Attributes:
        seconds_until_seen: of each click.
        answers_ms: of each request for scores, from when it was due.
    """

    def __init__(self, url: str, first: int) -> None:
        self.seconds_until_seen: list[float] = []
        self.answers_ms: list[float] = []
        self._first = first
        self._client = embtables.Client(url, deadline_seconds=30.0, connections=CONNECTIONS)
        self._posts = httpx.Client(base_url=url, timeout=30.0)
        self._rng = np.random.default_rng(1)
        self._lock = threading.Lock()
        self._due: list[tuple[float, int, str]] = []  # when, item, request
        self._waiting: dict[int, float] = {}  # items whose click was posted, and when
        self._ends = threading.Event()
        self._failure: BaseException | None = None

    @property
    def unseen(self) -> int:
        """Clicks that were posted and are in no answer yet."""
        return len(self._waiting)

    def run(self, seconds: float, patience_seconds: float) -> None:
        """Visits for some seconds, and then waits for what is not seen yet, but no longer than its patience."""
        works = ((self._post, POST_SECONDS), (self._look, LOOK_SECONDS))
        threads = [threading.Thread(target=self._loop, args=work) for work in works]
        for thread in threads:
            thread.start()
        try:
            begun = time.monotonic()
            with ThreadPoolExecutor(CONNECTIONS) as pool:
                for number in range(int(seconds * REQUESTS_A_SECOND)):
                    due = begun + number / REQUESTS_A_SECOND
                    time.sleep(max(0.0, due - time.monotonic()))
                    pool.submit(self._visit, self._first + number, due, self._drawn())
                    self.raise_failure()
            end = time.monotonic() + patience_seconds
            while (self._due or self._waiting) and time.monotonic() < end and self._failure is None:
                time.sleep(LOOK_SECONDS)
        finally:
            self._ends.set()
            for thread in threads:
                thread.join()
        self.raise_failure()

    def raise_failure(self) -> None:
        """What a thread ended with."""
        if self._failure is not None:
            raise self._failure

    def _drawn(self) -> tuple[int, list[int], float]:
        items = self._rng.integers(0, ITEMS, CANDIDATES - 1).tolist()
        return int(self._rng.integers(0, USERS)), items, float(self._rng.exponential(DELAY_SECONDS))

    def _visit(self, number: int, due: float, drawn: tuple[int, list[int], float]) -> None:
        user, items, delay = drawn
        new, request = FIRST_NEW + number, f"visit-{number}"
        try:
            candidates = [{"item": item} for item in (new, *items)]
            self._client.score({"user": user}, candidates, request_id=request)
        except BaseException as error:
            self._failure = error
            return
        now = time.monotonic()
        with self._lock:
            self.answers_ms.append((now - due) * 1e3)
            heapq.heappush(self._due, (now + delay, new, request))

    def _loop(self, work: Callable[[], None], every_seconds: float) -> None:
        try:
            while not self._ends.wait(every_seconds):
                work()
        except BaseException as error:
            self._failure = error

    def _post(self) -> None:
        clicks = []
        with self._lock:
            now = time.monotonic()
            while self._due and self._due[0][0] <= now:
                _, item, request = heapq.heappop(self._due)
                clicks.append({"event_id": f"click-{item}", "kind": "click", "request_id": request, "item": item})
                self._waiting[item] = now
        if clicks:
            self._posts.post("/v1/events", json={"events": clicks}).raise_for_status()

    def _look(self) -> None:
        with self._lock:
            items = list(self._waiting)
        if not items:
            return
        vectors = self._client.embed([*items, NEVER], feature="item")
        now = time.monotonic()
        for item, is_known in zip(items, (vectors[:-1] != vectors[-1]).any(axis=1), strict=True):
            if is_known:
                with self._lock:
                    self.seconds_until_seen.append(now - self._waiting.pop(item))


def measure(folder: Path, seconds: float, stack: ExitStack) -> dict[str, Any]:
    """Starts everything, and measures."""
    config = write(folder)
    train = ctr.train_command(str(config), folder / "runs", "publish=null")
    batch = _harness.interleave({"batch": train}, 1)["batch"][0]["run_dir"]
    command = [sys.executable, "-W", "ignore", "-m", "embtables", "online", str(config), "--from", batch]
    with (folder / "trainer.txt").open("w") as said:
        trainer = subprocess.Popen(
            [*command, "--set", f"train.runs_dir={folder}/online"], cwd=_harness.ROOT, stdout=said, stderr=said
        )
    stack.callback(_end, trainer)
    run = _published(folder, trainer)
    events = ["--events", f"folder://{folder}/events", "--log-served"]
    server = stack.enter_context(servers.ours(run, cores=sorted(os.sched_getaffinity(0)), options=events))
    Load(server.url, 0).run(5.0, 30.0)  # what is warm in a server that has run for long
    load = Load(server.url, 1_000_000)
    load.run(seconds, 60.0)
    with embtables.Client(server.url) as client:
        follow = client.model().follow
    if trainer.poll() is not None:
        raise RuntimeError(f"the trainer has ended:\n{(folder / 'trainer.txt').read_text()}")
    return {
        "seconds_until_seen": sorted(load.seconds_until_seen),
        "unseen": load.unseen,
        "answers_ms": sorted(load.answers_ms),
        "impressions_per_second": len(load.answers_ms) * CANDIDATES / seconds,
        "applied_versions": follow.applied_versions,
    }


def _published(folder: Path, trainer: subprocess.Popen[bytes]) -> Path:
    """The run's folder, once it has published what it begins with."""
    while not (found := list((folder / "online").glob("*/checkpoints/manifests/serving-*.json"))):
        if trainer.poll() is not None:
            raise RuntimeError(f"the trainer did not start:\n{(folder / 'trainer.txt').read_text()}")
        time.sleep(0.1)
    return found[0].parents[2]


def _end(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(60)
    except subprocess.TimeoutExpired:
        process.kill()


def text(found: dict[str, Any], seconds: float) -> str:
    """The table."""
    seen, answers = found["seconds_until_seen"], found["answers_ms"]
    p50, p95, p99 = (float(np.quantile(seen, q)) for q in (0.5, 0.95, 0.99))
    row = [f"{p50:.2f}", f"{p95:.2f}", f"{p99:.2f}", f"{seen[-1]:.2f}", f"{len(seen):,}", found["unseen"]]
    requests = [f"{float(np.quantile(answers, q)):.0f}" for q in (0.5, 0.99)]
    verdict = "reached" if p95 <= GOAL_OF_GOALS else f"reached, {GOAL_OF_GOALS:g} s missed" if p95 <= GOAL else "missed"
    head = ["p50 s", "p95 s", "p99 s", "longest s", "clicks", "never seen", "requests p50 ms", "p99 ms"]
    return (
        f"{_harness.table(head, [[*row, *requests]])}\n\n{found['impressions_per_second']:,.0f} impressions/s for "
        f"{seconds:.0f} s, {found['applied_versions']} versions. Goal: p95 of at most {GOAL:g} s, better "
        f"{GOAL_OF_GOALS:g} s: {verdict}."
    )


def main() -> None:
    options = _harness.parser(__doc__)
    options.add_argument("--seconds", type=float, help="of load; by default 90, with --quick 15")
    args: argparse.Namespace = options.parse_args()
    seconds = args.seconds or (15.0 if args.quick else 90.0)
    (_harness.ROOT / "build").mkdir(exist_ok=True)
    with ExitStack() as stack:
        # Beside the repository, on its disk: /tmp may be memory.
        place = tempfile.TemporaryDirectory(dir=_harness.ROOT / "build", prefix="visible-")
        found = measure(Path(stack.enter_context(place)), seconds, stack)
    _harness.finish("visible", "From a click to an answer", found, text(found, seconds), args, "loop.visible")


if __name__ == "__main__":
    main()
