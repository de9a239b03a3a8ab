"""Late clicks: what a trainer learns where labels come with delay, against true labels.

MovieLens-1M in order of time; a rating of 5 is a click. A model is trained on the first 80 % with all labels. Then 12 %
come as events in a folder log: every rating an impression, and a click after a delay, which is SYNTHETIC: exponential,
or log-normal with a long tail. After each 10,000 impressions the log is drained (`embtables online --drain`, resumed),
and the next 10,000 are scored by what was learned so far and judged by their true labels. The first 20,000 are left out
of the figures: there a model leaves the labels that it was trained on before.

`no wait`: each impression is a negative at once, and a click gives another sample, a positive. `window`: a negative
when the window of an hour has passed; a later click gives another sample, or, with `late dropped`, none.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks import _harness
from benchmarks._harness import ctr
from benchmarks.loop.movielens_events import config, entries, rows
from embtables.events import EventLog, open_log

WINDOW_SECONDS, LATE_SECONDS = 3600, 7 * 86_400
TRAINED, REPLAYED = 0.8, 0.12  # shares of the log
CHUNK, LEFT_OUT = 10_000, 2  # impressions; chunks
ENTRY = 250
DAYS_BEFORE = "days_before.parquet"
MEAN_SECONDS = 1800.0
MEDIAN_SECONDS, SIGMA = 1800.0, 2.0
FIGURES = ("log_loss", "calibration", "normalised_entropy", "auc")
Delays = npt.NDArray[np.float64]


def _exponential(rng: np.random.Generator, count: int) -> Delays:
    return rng.exponential(MEAN_SECONDS, count)


def _log_normal(rng: np.random.Generator, count: int) -> Delays:
    return rng.lognormal(np.log(MEDIAN_SECONDS), SIGMA, count)


DELAYS = {"exponential": _exponential, "log-normal": _log_normal}
ABOUT = {
    "exponential": f"exponential, mean {MEAN_SECONDS / 60:.0f} minutes",
    "log-normal": f"log-normal, median {MEDIAN_SECONDS / 60:.0f} minutes, sigma {SIGMA:g}",
}


@dataclass(frozen=True)
class Contender:
    """How labels are made.

    Attributes:
        window_seconds: in which a click makes its impression a positive.
        late_seconds: after it, in which a click gives another sample.
        correction: see `online.events.late`.
        delayed: False: clicks come with their impressions.
    """

    window_seconds: int
    late_seconds: int
    correction: str = "none"
    delayed: bool = True

    def late_share(self, delays: Delays) -> float:
        """Late ones of the positives, as the joiner counts it: delays of one setting, in seconds."""
        in_time = (delays <= self.window_seconds).mean()
        late = ((delays > self.window_seconds) & (delays <= self.window_seconds + self.late_seconds)).mean()
        return float(late / (in_time + late))


NO_WAIT = 1  # second: the shortest window
CONTENDERS = {
    "labels at once (oracle)": Contender(NO_WAIT, 0, delayed=False),
    "no wait": Contender(NO_WAIT, LATE_SECONDS),
    "no wait, weighting": Contender(NO_WAIT, LATE_SECONDS, "weighting"),
    "no wait, calibration": Contender(NO_WAIT, LATE_SECONDS, "calibration"),
    "window, late dropped": Contender(WINDOW_SECONDS, 0),
    "window": Contender(WINDOW_SECONDS, LATE_SECONDS),
    "window, weighting": Contender(WINDOW_SECONDS, LATE_SECONDS, "weighting"),
    "window, calibration": Contender(WINDOW_SECONDS, LATE_SECONDS, "calibration"),
}


def online(contender: Contender, share: float, uri: str) -> dict[str, Any]:
    """The section `online`."""
    is_corrected = contender.correction != "none"
    late = {"correction": contender.correction, "share": share} if is_corrected else {}
    events = {
        "log": uri,
        "item": "movie_id",
        "window_seconds": contender.window_seconds,
        "late_window_seconds": contender.late_seconds,
        "late": late,
        "max_clock_step_seconds": 7 * 86_400,  # nights without ratings
    }
    return {"sync_rows": CHUNK, "events": events}


def drained(trained: Path, config_path: Path, chunks: Iterator[None]) -> Iterator[Path]:
    """The folder of the run that has learned what the log has, each time after another chunk was appended."""
    from embtables.pipelines.config import load_config
    from embtables.pipelines.online import run_online
    from embtables.pipelines.run_dir import RunDir

    run: RunDir | None = None
    for _ in chunks:
        if run is None:
            former, resolved = RunDir.open(trained), load_config(config_path, ("train.threads=1",))
            report = run_online.online(resolved, "events", former=former, drains=True, shown=False)
            run = RunDir.open(Path(report["run_dir"]))
        else:
            report = run_online.resume(run, drains=True, shown=False)
        yield run.path


def train_before(folder: Path, seed: int) -> None:
    """Trains on the days before, with all their labels."""
    table = rows()
    pq.write_table(table.slice(0, int(TRAINED * table.num_rows)), folder / DAYS_BEFORE, row_group_size=20_000)
    command = ctr.train_command(str(config(folder / DAYS_BEFORE, folder, "batch", seed)), None, "train.threads=1")
    _harness.interleave({"batch": command}, 1)


def _appended(log: EventLog, waiting: list[tuple[int, pa.RecordBatch]], ends: Sequence[pa.Scalar]) -> Iterator[None]:
    """Goes on after the entries up to each of these moments were appended."""
    done = 0
    for end in ends:
        until = end.cast(pa.int64()).as_py()
        while done < len(waiting) and waiting[done][0] <= until:
            log.append(0, waiting[done][1])
            done += 1
        yield


def contend(folder: Path, delay: str, name: str, seed: int, chunks: int) -> dict[str, Any]:
    """One contender's figures, in this process; `folder` has the run that was trained before."""
    import embtables
    from embtables.models.metrics.auc import auc
    from embtables.models.metrics.probability import ProbabilityMetric

    contender, table = CONTENDERS[name], rows()
    first = int(TRAINED * table.num_rows)
    shown = table.slice(first, min((chunks + 1) * CHUNK, int(REPLAYED * table.num_rows))).combine_chunks()
    drawn = DELAYS[delay](np.random.default_rng(seed), shown.num_rows)
    delays = drawn if contender.delayed else np.zeros_like(drawn)
    scores, labels = list[npt.NDArray[np.float32]](), list[npt.NDArray[np.float32]]()
    with tempfile.TemporaryDirectory(dir=folder) as place:
        uri = f"folder://{place}/log?partitions=1&fsync=interval"
        (trained,) = (folder / "runs").glob("batch-*")
        section = online(contender, contender.late_share(drawn), uri)
        online_config = config(folder / DAYS_BEFORE, Path(place), "online", seed, online=section)
        with closing(open_log(uri)) as log:
            chunk_ends = range(CHUNK, shown.num_rows - CHUNK + 1, CHUNK)
            appended = _appended(log, entries(shown, delays, ENTRY), [shown["event_time"][end] for end in chunk_ends])
            for start, run in zip(chunk_ends, drained(trained, online_config, appended), strict=True):
                next_rows = shown.slice(start, CHUNK)
                scored = embtables.load(run, checkpoint="last").predict(next_rows.drop_columns(["click"]), shown=False)
                scores.append(scored["score"].to_numpy())
                labels.append(next_rows["click"].to_numpy())
    p, y = (np.concatenate(of[min(LEFT_OUT, len(of) - 1) :]) for of in (scores, labels))
    metric = ProbabilityMetric()
    metric.update(p, y)
    return {**metric.compute(), "auc": auc(p, y), "share": contender.late_share(drawn)}


def text(delay: str, found: dict[str, list[dict[str, Any]]], seeds: int) -> str:
    """The table of a delay: what is lost against the oracle first."""
    oracle = found[next(iter(CONTENDERS))]
    lines = []
    for name, runs in found.items():
        losses = [run["log_loss"] - base["log_loss"] for run, base in zip(runs, oracle, strict=True)]
        lines.append(
            [
                _harness.Spread.of(losses).text("+.4f"),
                name,
                *(_harness.Spread.of([run[f] for run in runs]).text(".4f") for f in FIGURES),
            ]
        )
    clicks = found["window"][0]
    head = ["log loss above the oracle's", "labels", "log loss", "calibration", "normalised entropy", "AUC"]
    return (
        f"### Delays {ABOUT[delay]} (synthetic)\n\n{_harness.table(head, lines)}\n\n"
        f"{clicks['rows']:,} rows, {clicks['positives'] / clicks['rows']:.1%} clicks, {clicks['share']:.1%} of them "
        f"after the window of {WINDOW_SECONDS // 60} minutes; {seeds} seeds."
    )


def main() -> None:
    options = _harness.parser(__doc__)
    options.add_argument("--seeds", type=int, default=3)
    options.add_argument("--contender", nargs=4, metavar=("FOLDER", "DELAY", "NAME", "SEED"), help=argparse.SUPPRESS)
    args = options.parse_args()
    chunks = 3 if args.quick else 1_000
    if args.contender is not None:
        folder, delay, name, seed = args.contender
        print(json.dumps(contend(Path(folder), delay, name, int(seed), chunks)))
        return
    command = [
        sys.executable,
        "-W",
        "ignore",
        "-m",
        "benchmarks.loop.late_clicks",
        *(["--quick"] if args.quick else []),
    ]
    seeds = 1 if args.quick else args.seeds
    result: dict[str, dict[str, list[dict[str, Any]]]] = {delay: {name: [] for name in CONTENDERS} for delay in DELAYS}
    (_harness.ROOT / "build").mkdir(exist_ok=True)
    for seed in range(seeds):
        with tempfile.TemporaryDirectory(dir=_harness.ROOT / "build", prefix="late_clicks-") as folder:
            train_before(Path(folder), seed)
            for delay in DELAYS:
                commands = {name: [*command, "--contender", folder, delay, name, str(seed)] for name in CONTENDERS}
                for name, runs in _harness.interleave(commands, 1).items():
                    result[delay][name] += runs
    parts = [text(delay, found, seeds) for delay, found in result.items()]
    _harness.finish("late_clicks", "Late clicks", result, "\n\n".join(parts), args, "loop.late_clicks")


if __name__ == "__main__":
    main()
