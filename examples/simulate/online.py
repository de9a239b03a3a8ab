"""`make online`: the whole loop on one machine, for two minutes, with a small world that clicks (world.py).

    yesterday's log -> embtables train -> a frozen server, and:
    embtables serve --events --log-served -> event log -> embtables online -> versions -> the server again

Half of the visits are ranked by the live server, half by the frozen one. What is shown is how often users click under
each, how old the served version is, and how well the trainer's scores were before it trained on a sample. All servers
listen on loopback, and everything is in one folder, which is removed unless `--keep` names it. What was seen is in a
report page (report.py), also where Ctrl-C ends it.
"""

from __future__ import annotations

import argparse
import heapq
import json
import signal
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pyarrow.parquet as pq
from rich.console import Console
from rich.live import Live
from rich.table import Table

sys.path.insert(0, str(Path(__file__).parent))
import report as page
from world import SHOWN, World

CONFIG = Path(__file__).parent / "world.yaml"
NEWEST = 400  # visits that a click rate is of


def embtables(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "embtables", *arguments]


class Process:
    """A command that runs meanwhile; its messages go to a file."""

    def __init__(self, command: Sequence[str], log: Path, *, says: bool = False) -> None:
        self._log = log
        with log.open("w") as file:
            out = subprocess.PIPE if says else file
            self.process = subprocess.Popen(command, stdout=out, stderr=file, text=True)

    def said(self) -> dict[str, Any]:
        """Its first line, as JSON."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            sys.exit(f"a server did not start:\n{self._log.read_text()}")
        found: dict[str, Any] = json.loads(line)
        return found

    def need_alive(self) -> None:
        if self.process.poll() is not None:
            sys.exit(f"a process ended:\n{self._log.read_text()}")

    def end(self) -> None:
        """Asks it to save and stop; both are quick."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                self.process.kill()


class Ranker:
    """Ranks visits by a server, and knows how often users clicked."""

    def __init__(self, url: str, name: str) -> None:
        self.name, self.visits, self.clicks = name, 0, 0
        self.newest: deque[int] = deque(maxlen=NEWEST)
        self.client = httpx.Client(base_url=url, timeout=10)

    def order(self, user: int, items: Sequence[int]) -> tuple[np.ndarray[Any, Any], str]:
        """The best items first, and the name of the request."""
        body = {"context": {"user": user}, "candidates": [{"item": int(item)} for item in items]}
        answer = self.client.post("/v1/score", json=body).raise_for_status().json()
        return np.argsort(-np.array(answer["scores"]["click"]), kind="stable"), answer["request_id"]

    def count(self, clicks: int) -> None:
        self.visits += 1
        self.clicks += clicks
        self.newest.append(clicks)

    @property
    def rate(self) -> float:
        """Clicks of a visit, of the newest ones."""
        return float(np.mean(self.newest)) if self.newest else 0.0


class Loop:
    """The world, ranked by two servers, for some seconds."""

    def __init__(self, world: World, live: Ranker, frozen: Ranker, run: Path) -> None:
        self.world, self.live, self.frozen, self._run = world, live, frozen, run
        self.events = 0
        self.seen = page.Seen()
        self.shown_last: list[tuple[str, str]] = []
        self._due: list[tuple[float, int, dict[str, Any]]] = []  # clicks that are still to come
        self._number = 0

    def visit(self, now: float) -> None:
        """One visit, at a second of the world."""
        user, places = self.world.visit()
        ranker = self.live if self._number % 2 else self.frozen
        order, request = ranker.order(user, self.world.item_ids[places].tolist())
        shown = places[order]
        clicks = self.world.clicks(user, shown)
        ranker.count(len(clicks))
        for place, delay in clicks if ranker is self.live else []:
            item = int(self.world.item_ids[shown[place]])
            event = {"event_id": f"{request}-{item}", "kind": "click", "request_id": request, "item": item}
            heapq.heappush(self._due, (now + delay, self._number * SHOWN + place, event))
        self._number += 1
        self.send(now)

    def send(self, now: float) -> None:
        """Posts the clicks whose time has come; one that is not answered is sent again with the next."""
        events = []
        while self._due and self._due[0][0] <= now:
            events.append(heapq.heappop(self._due)[2])
        if events:
            self.live.client.post("/v1/events", json={"events": events}).raise_for_status()
            self.events += len(events)

    def figures(self, now: float) -> list[tuple[str, str]]:
        """What is shown at a second of the world; kept for the report."""
        model = self.live.client.get("/v1/model").json()
        age = max(0.0, time.time() - model["written_at"])
        self.seen.age.points.append((now, age))
        for ranker, line in ((self.live, self.seen.live), (self.frozen, self.seen.frozen)):
            if ranker.newest:
                line.points.append((now, ranker.rate))
        found = [
            ("clicks per visit, live", f"{self.live.rate:.2f}"),
            ("clicks per visit, frozen", f"{self.frozen.rate:.2f}"),
            (
                "served version",
                f"{model['versions']['dense']}, {age:.1f} s old",
            ),
            ("impressions, clicks", f"{self.live.visits * SHOWN:,}, {self.events:,}"),
        ]
        metrics = self._run / "metrics.jsonl"
        lines = metrics.read_text().splitlines() if metrics.exists() else []
        periods = [line for line in map(json.loads, lines) if line.get("part") == "online" and line.get("auc")]
        if periods:
            last = periods[-1]
            if len(periods) > len(self.seen.auc.points):
                self.seen.auc.points.append((now, last["auc"]))
            found.append(("trainer, last 10 s", f"AUC {last['auc']:.3f}, log loss {last['log_loss']:.3f}"))
        self.shown_last = found
        return found

    def shown(self, now: float) -> Table:
        table = Table(show_header=False, box=None)
        for name, value in self.figures(now):
            table.add_row(name, value)
        return table


def run(folder: Path, seconds: float, visits_per_second: float, report_file: Path, stack: ExitStack) -> dict[str, Any]:
    """Starts everything, lets the world live, stops everything; returns the figures."""
    console = Console(stderr=True)
    world = World()
    (folder / "log").mkdir(parents=True)
    pq.write_table(world.log(3000, time.time_ns() // 1000 - 60_000_000), folder / "log" / "yesterday.parquet")
    config, runs = folder / "world.yaml", folder / "runs"
    config.write_text(CONFIG.read_text().replace("folder:///set/online.events.log", f"folder://{folder}/events"))
    sets = ["--set", f"train.runs_dir={runs}", "--set", f"data.path={folder}/log"]
    console.print("training on yesterday's log")
    done = subprocess.run(embtables("train", str(config), *sets, "--json"), capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stderr)
    batch = json.loads(done.stdout.splitlines()[-1])["run_dir"]

    def started(name: str, command: Sequence[str], *, says: bool = False) -> Process:
        process = Process(command, folder / f"{name}.log", says=says)
        stack.callback(process.end)
        return process

    online = [*sets, "--from", batch, "--set", f"train.runs_dir={folder}/online"]
    trainer = started("trainer", embtables("online", str(config), *online))
    console.print("starting the trainer, and two servers")
    followed = wait_for(lambda: _published(folder / "online"), trainer)
    arguments = ["--json", "--port", "0", "--threads", "1"]
    events = ["--events", f"folder://{folder}/events", "--log-served"]
    live = started("live", embtables("serve", str(followed), *arguments, *events), says=True)
    frozen = started("frozen", embtables("serve", str(batch), *arguments), says=True)
    loop = Loop(world, Ranker(live.said()["url"], "live"), Ranker(frozen.said()["url"], "frozen"), followed)
    begun = time.monotonic()
    try:
        live_for(seconds, loop, visits_per_second, (trainer, live, frozen), console)
    finally:
        # What was shown last: after a Ctrl-C the servers answer no more.
        page.write(report_file, loop.seen, loop.shown_last, time.monotonic() - begun)
        console.print(f"report: {report_file}")
    return {
        **dict(loop.shown_last),
        "live": loop.live.rate,
        "frozen": loop.frozen.rate,
        "clicks": loop.events,
    }


def live_for(
    seconds: float, loop: Loop, visits_per_second: float, processes: Sequence[Process], console: Console
) -> None:
    """Lets the world live, and shows it."""
    begun = last = time.monotonic()
    with Live(loop.shown(0.0), console=console, refresh_per_second=4) as shown:
        while (now := time.monotonic()) < begun + seconds:
            loop.world.advance(now - last)
            last = now
            loop.visit(now - begun)
            if loop.live.visits % 20 == 0:
                shown.update(loop.shown(now - begun))
                for process in processes:
                    process.need_alive()
            time.sleep(max(0.0, 1.0 / visits_per_second - (time.monotonic() - now)))
        loop.send(float("inf"))
        shown.update(loop.shown(seconds))


def _published(runs: Path) -> Path | None:
    found = sorted(runs.glob("*/checkpoints/manifests/serving-*.json"))
    return found[0].parents[2] if found else None


def wait_for(look: Callable[[], Path | None], trainer: Process) -> Path:
    """What `look` finds, once it does."""
    while (found := look()) is None:
        trainer.need_alive()
        time.sleep(0.1)
    return found


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--seconds", type=float, default=120.0)
    options.add_argument("--visits-per-second", type=float, default=20.0)
    options.add_argument("--report", type=Path, default=Path("build/online.html"), help="the page to write")
    options.add_argument("--keep", type=Path, help="a new folder for all files, which stays")
    args = options.parse_args()
    with ExitStack() as stack:
        folder = args.keep or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        with ExitStack() as processes:
            report = run(folder.absolute(), args.seconds, args.visits_per_second, args.report, processes)
    print(json.dumps(report))


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("stopped; events that were answered are in the log, and the trainer has saved what it learned")
