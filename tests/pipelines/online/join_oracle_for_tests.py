"""The joiner, slow and obvious: it looks at every event that it has read, each time anything happens."""

from __future__ import annotations

import statistics
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC
from typing import Any

from embtables.schema import EventSamples
from tests.pipelines.online.events_for_tests import SECOND, LogInMemory

Sample = tuple[str, str, float, bool]


@dataclass
class Impression:
    request: str
    item: str
    time: int
    label: int = 0  # 1: an action joined, in the window or late
    is_overdue: bool = False
    is_closed: bool = False


@dataclass
class Oracle:
    """Replays a log, an entry of each partition in turns."""

    log: LogInMemory
    online: EventSamples
    samples: list[Sample] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        o = self.online
        self.window, self.late, self.skew, self.step, self.ahead = (
            seconds * SECOND
            for seconds in (
                *(o.window_seconds, o.late_window_seconds, o.max_skew_seconds),
                *(o.max_clock_step_seconds, o.max_ahead_seconds),
            )
        )
        self.seen: dict[tuple[str, str], Impression] = {}
        self.waiting: dict[tuple[str, str], int] = {}
        self.clocks: dict[int, int] = {}
        self.ended: set[int] = set()
        self.watermark: int | None = None
        self.closed_until: int | None = None

    def run(self) -> Oracle:
        longest = max(len(of) for of in self.log.entries)
        for number in range(longest + 1):
            for partition, of in enumerate(self.log.entries):
                if number < len(of):
                    self.read(partition, of[number].to_pylist())
                else:
                    self.ended.add(partition)
                self.move_watermark()
        return self

    def read(self, partition: int, events: list[dict[str, Any]]) -> None:
        for event in events:
            event["us"] = round(event["event_time"].replace(tzinfo=UTC).timestamp() * SECOND)
        clock = self.clocks.get(partition)
        times = [event["us"] for event in events if clock is None or event["us"] <= clock + self.ahead]
        if times:
            median = statistics.median_low(times)
            clock = median if clock is None else max(clock, min(median, clock + self.step))
        assert clock is not None
        self.clocks[partition] = clock
        for event in events:
            if event["kind"] == "impression" and self.is_in_time(event, clock, is_impression=True):
                self.impression((event["request_id"], event["item"]), event["us"])
        for event in events:
            if event["kind"] in self.online.actions and self.is_in_time(event, clock, is_impression=False):
                self.action((event["request_id"], event["item"]), event["us"])

    def is_in_time(self, event: dict[str, Any], clock: int, *, is_impression: bool) -> bool:
        reason = None
        if not event["request_id"]:
            reason = "request_missing"
        elif event["us"] > clock + self.ahead:
            reason = "too_far_ahead"
        elif (
            is_impression
            and self.closed_until is not None
            and event["us"] <= self.closed_until - self.window - self.late
        ):
            reason = "too_old"
        self.counts[reason or "used"] += 1
        return reason is None

    def impression(self, key: tuple[str, str], time: int) -> None:
        if key in self.seen:
            self.counts["duplicate_impressions"] += 1
            return
        self.seen[key] = Impression(*key, time)
        if key in self.waiting:
            self.action(key, self.waiting.pop(key))

    def action(self, key: tuple[str, str], time: int) -> None:
        found = self.seen.get(key)
        if found is None:
            if key in self.waiting:
                self.counts["duplicate_actions"] += 1
            self.waiting[key] = min(time, self.waiting.get(key, time))
        elif found.label:
            self.counts["duplicate_actions"] += 1
        elif time < found.time - self.skew:
            self.counts["too_early"] += 1
        elif time > found.time + self.window + self.late:
            self.counts["too_late"] += 1
        elif found.is_closed:
            self.counts["late_positives"] += 1
            found.label = 1
            self.samples.append((*key, 1.0, True))
        elif time > found.time + self.window:
            self.counts["duplicate_actions"] += found.is_overdue
            found.is_overdue = True
        else:
            self.counts["positives"] += 1
            found.label = 1
            self.samples.append((*key, 1.0, False))

    def move_watermark(self) -> None:
        held = [self.clocks.get(p) for p in range(self.log.num_partitions) if p not in self.ended]
        reached = None
        if not held and self.clocks:
            reached = max(self.clocks.values())
        elif held and None not in held:
            reached = min(clock for clock in held if clock is not None)
        if reached is not None:
            self.watermark = reached if self.watermark is None else max(self.watermark, reached)
        if self.watermark is None:
            return
        self.closed_until = self.watermark
        width = self.window // 1024
        hand = (self.watermark - self.window) // width * width
        due = [each for each in self.seen.values() if each.time <= hand and not each.is_closed]
        for each in sorted(due, key=lambda each: each.time):
            each.is_closed = True
            if not each.label:
                self.counts["negatives"] += 1
                self.samples.append((each.request, each.item, 0.0, False))
                if each.is_overdue:
                    each.label = 1
                    self.counts["late_positives"] += 1
                    self.samples.append((each.request, each.item, 1.0, True))
        for key, time in list(self.waiting.items()):
            if time <= hand:
                self.counts["orphans"] += 1
                del self.waiting[key]
        width = (self.window + self.late) // 1024
        hand = (self.watermark - self.window - self.late) // width * width
        for key, each in list(self.seen.items()):
            if each.is_closed and each.time <= hand:
                del self.seen[key]
