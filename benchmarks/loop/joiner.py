"""The joiner with millions of open impressions: events per second, bytes of an open impression, the longest call.

Each contender first takes in as many impressions as shall be open, and then, while as many windows close as open, goes
on with entries of 10,000 impressions and clicks on 5 % of them. Three contenders:

- native: keys and times in, outcomes out: the native map and its lists of windows.
- samples: Arrow entries in, samples out: with hashing, reading entries again, and taking rows. The time in which its
  log makes an entry again is not counted: it depends on the log.
- dict + heap: a dictionary of the open impressions and a heap of their deadlines, in Python, without payloads.
"""

from __future__ import annotations

import argparse
import heapq
import json
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from benchmarks import _harness
from embtables.events.protocol import Entry
from embtables.native import _core
from embtables.pipelines.online.join.clocks import PartitionClocks
from embtables.pipelines.online.join.joiner import SECOND_US, SampleJoiner
from embtables.pipelines.online.join.payloads import EntryCache
from embtables.pipelines.online.join.samples import SampleColumns
from embtables.schema import EventSamples

ENTRY, CLICKS = 10_000, 500
WINDOW_S = 3600
GOAL_EVENTS, GOAL_BYTES = 200_000, 40
NATIVE, SAMPLES, PYTHON = "native", "samples", "dict + heap"
Work = Callable[[int], None]


class Native:
    """Entry n holds request n * ENTRY + row; clicks are on the entry before it."""

    def __init__(self, entries: int) -> None:
        self._step = WINDOW_S * 1_000_000 // entries
        self._joiner = _core.Joiner(WINDOW_S * 1_000_000, 0, 0)
        self._rows = np.arange(ENTRY, dtype=np.uint32)
        self._out = [(np.empty(n, np.uint8), *np.empty((2, n), np.uint32)) for n in (ENTRY, CLICKS)]

    def prepare(self, number: int) -> Work:
        rng = np.random.default_rng(number)
        keys, clicked = self._keys(number), self._keys(number - 1)[rng.integers(0, ENTRY, CLICKS)]
        times = np.sort(rng.integers(0, self._step, ENTRY)) + number * self._step
        click_times = np.full(CLICKS, number * self._step)
        joiner = self._joiner

        def work(_: int) -> None:
            entry = joiner.hold()
            joiner.impressions(entry, keys, times, self._rows, *self._out[0])
            joiner.actions(entry, clicked, click_times, self._rows[:CLICKS], *self._out[1])
            joiner.advance(number * self._step, 1 << 16)
            joiner.release(entry)
            joiner.take_freed()

        return work

    def figures(self) -> dict[str, float]:
        return {"open": self._joiner.size, "bytes": self._joiner.bytes / self._joiner.size}

    @staticmethod
    def _keys(number: int) -> Any:
        words = np.arange(number * ENTRY, (number + 1) * ENTRY, dtype=np.int64).view(np.uint64)
        keys = np.empty_like(words)
        _core.mix(words, 0, keys)
        return keys


class MadeAgain:
    """A log that makes an entry whenever it is read, and counts the time that this takes."""

    num_partitions = 1

    def __init__(self, step_us: int) -> None:
        self._step = step_us
        self.seconds = np.zeros(2)  # of the wall clock, and of the processor

    def fetch(self, partition: int, position: str) -> pa.RecordBatch:
        started = _clocks()
        number = int(position)
        rng = np.random.default_rng(number)
        rows = np.concatenate([np.arange(ENTRY), rng.integers(0, ENTRY, CLICKS) - ENTRY]) + number * ENTRY
        times = np.concatenate([np.sort(rng.integers(0, self._step, ENTRY)), np.zeros(CLICKS, np.int64)])
        texts = pc.binary_join_element_wise("request", pa.array(rows).cast(pa.string()), "-")
        n = ENTRY + CLICKS
        made = pa.record_batch(
            {
                "event_id": texts,
                "kind": pa.array(["impression"] * ENTRY + ["click"] * CLICKS),
                "event_time": pa.array(times + number * self._step, pa.timestamp("us")),
                "request_id": texts,
                "item": pa.array(rows % 100_000),
                **{f"feature_{each}": pa.array(rng.random(n)) for each in range(8)},
            }
        )
        self.seconds += _clocks() - started
        return made


class Samples:
    """The same events as Arrow entries with eight columns of features."""

    def __init__(self, entries: int) -> None:
        self._log = MadeAgain(WINDOW_S * 1_000_000 // entries)
        online = EventSamples(log="folder:///", item="item", window_seconds=WINDOW_S)
        self._joiner = SampleJoiner(
            0,
            online,
            clocks=PartitionClocks([0], online.max_clock_step_seconds * SECOND_US),
            cache=EntryCache(self._log, 256 << 20),  # type: ignore[arg-type]
            columns=SampleColumns("click", None),
            set_aside=lambda reason, events: None,
        )

    def prepare(self, number: int) -> Work:
        entry = Entry(0, str(number), self._log.fetch(0, str(number)))

        def work(_: int) -> None:
            self._joiner.add(entry)
            done = False
            while not done:
                _, done = self._joiner.close()

        return work

    def log_seconds(self) -> Any:
        return self._log.seconds.copy()

    def figures(self) -> dict[str, float]:
        return {"open": self._joiner.open_keys, "bytes": self._joiner.state_bytes / self._joiner.open_keys}


class InPython:
    """The obvious one: an impression is a list in a dictionary, its deadline a pair in a heap."""

    def __init__(self, entries: int) -> None:
        self._step = WINDOW_S * 1_000_000 // entries
        self._open: dict[int, list[int]] = {}
        self._deadlines: list[tuple[int, int]] = []

    def prepare(self, number: int) -> Work:
        rng = np.random.default_rng(number)
        keys = Native._keys(number).tolist()
        clicked = Native._keys(number - 1)[rng.integers(0, ENTRY, CLICKS)].tolist()
        times = (np.sort(rng.integers(0, self._step, ENTRY)) + number * self._step).tolist()

        def work(now: int) -> None:
            for row, (key, at) in enumerate(zip(keys, times, strict=True)):
                self._open[key] = [number, row, at, 0]
                heapq.heappush(self._deadlines, (at + WINDOW_S * 1_000_000, key))
            for key in clicked:
                found = self._open.get(key)
                if found is not None:
                    found[3] = 1
            while self._deadlines[0][0] <= number * self._step:
                del self._open[heapq.heappop(self._deadlines)[1]]

        return work

    def figures(self) -> dict[str, float]:
        return {"open": len(self._open)}


CONTENDERS: Mapping[str, Any] = {NATIVE: Native, SAMPLES: Samples, PYTHON: InPython}


def _clocks() -> Any:
    """Seconds of the wall clock, and of the processor."""
    return np.array([time.perf_counter(), time.process_time()])


def measure(name: str, num_open: int, steady: int) -> dict[str, float]:
    """Fills a contender, then measures `steady` entries; what an entry is made of is prepared before its time."""
    memory = _harness.peak_memory_mib()
    entries = num_open // ENTRY
    contender = CONTENDERS[name](entries)
    log_seconds = getattr(contender, "log_seconds", lambda: np.zeros(2))
    calls = []
    for number in range(entries + 2 + steady):
        work = contender.prepare(number)
        log, started = log_seconds(), _clocks()
        work(number)
        calls.append(_clocks() - started - (log_seconds() - log))
    wall, cpu_seconds = np.array(calls[-steady:]).sum(axis=0)
    events = steady * (ENTRY + CLICKS)
    worst = max(calls, key=lambda call: call[0])
    return {
        "events_per_second": events / wall,
        "events_per_cpu_second": events / cpu_seconds,
        "longest_ms": worst[0] * 1e3,
        "its_cpu_ms": worst[1] * 1e3,
        "memory_mib": _harness.peak_memory_mib() - memory,
        **contender.figures(),
    }


def main() -> None:
    options = _harness.parser(__doc__)
    options.add_argument("--contender", help=argparse.SUPPRESS)
    args = options.parse_args()
    num_open, steady, repeats = (1_000_000, 50, 1) if args.quick else (10_000_000, 300, 3)
    if args.contender is not None:
        print(json.dumps(measure(args.contender, num_open, steady)))
        return
    command = [sys.executable, "-m", "benchmarks.loop.joiner", *(["--quick"] if args.quick else [])]
    runs = _harness.interleave({name: [*command, "--contender", name] for name in CONTENDERS}, repeats)
    best = {name: max(of, key=lambda run: run["events_per_second"]) for name, of in runs.items()}
    slow = best[PYTHON]["events_per_second"]
    rows = [
        [
            name,
            f"{of['events_per_second'] / slow:.1f}x",
            f"{of['events_per_second']:,.0f}",
            f"{of['events_per_cpu_second']:,.0f}",
            f"{of['bytes']:.1f}" if "bytes" in of else "",
            f"{of['memory_mib']:,.0f}",
            f"{min(run['longest_ms'] for run in runs[name]):.0f}",
        ]
        for name, of in best.items()
    ]
    header = ["contender", "ratio", "events/s", "per CPU second", "own bytes per open", "memory MiB", "longest call ms"]
    text = (
        f"{_harness.table(header, rows)}\n\n{num_open:,} open impressions; calls of {ENTRY:,} impressions and {CLICKS} "
        f"clicks, while as many windows close; the best of {repeats} runs each. Goal: at least {GOAL_EVENTS:,} "
        f"events/s, at most {GOAL_BYTES} bytes per open impression (0.4 GB for 10 million)."
    )
    _harness.finish("joiner", "Joining impressions and actions", best, text, args, "loop.joiner")


if __name__ == "__main__":
    main()
