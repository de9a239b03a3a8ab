"""What a server counts of its requests, and `/metrics` (Prometheus): these and what its service says.

Requests are counted on the event loop alone, without locks; a scrape, on the same loop, reads them.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import MappingProxyType

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from embtables.serving import wire
from embtables.serving.refusals import Refusal
from embtables.serving.service import Service

_BOUNDS = (0.0001, 0.00025, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
_KEPT_SECONDS = 60


class Durations:
    """A histogram of durations: how many lie in each range of `_BOUNDS` (s), and their sum (s)."""

    __slots__ = ("counts", "total")

    def __init__(self) -> None:
        self.counts = [0] * (len(_BOUNDS) + 1)
        self.total = 0.0

    def add(self, seconds: float) -> None:
        """Counts one."""
        self.counts[bisect_left(_BOUNDS, seconds)] += 1
        self.total += seconds

    def buckets(self) -> list[tuple[str, float]]:
        """Cumulative counts, as Prometheus has them."""
        found, below = [], 0
        for bound, count in zip((*map(str, _BOUNDS), "+Inf"), self.counts, strict=True):
            below += count
            found.append((bound, float(below)))
        return found


class Figures:
    """Counts of requests since the server began.

    Attributes:
        in_flight: requests whose answer is not sent.
        waiting: those of them for scores that are scored or wait for it.
        events: by outcome: accepted (sent by clients), served (impressions of answers), or why they were refused.
    """

    def __init__(self) -> None:
        self.began = time.time()
        self.by_status: Counter[tuple[str, int]] = Counter()
        self.by_route: dict[str, Durations] = {}
        self.by_stage: dict[tuple[str, str], Durations] = {}
        self.rows: Counter[str] = Counter()
        self.events: Counter[str] = Counter()
        self.in_flight = 0
        self.waiting = 0
        self._recent: deque[_Second] = deque(maxlen=_KEPT_SECONDS)

    def add(
        self,
        route: str,
        status: int,
        began: float,
        ended: float,
        *,
        rows: int = 0,
        stages_us: Mapping[str, float] = MappingProxyType({}),
    ) -> None:
        """Counts a request that was answered.

        Args:
            began, ended: `perf_counter` at its head and at its answer.
            rows: candidates, rows or ids that it asked for; 0: it asked for something else.
            stages_us: microseconds by stage.
        """
        self.by_status[route, status] += 1
        if status != 200:
            return
        seconds = ended - began
        durations = self.by_route.get(route)
        if durations is None:
            durations = self.by_route[route] = Durations()
        durations.add(seconds)
        for stage, microseconds in stages_us.items():
            key = (route, stage)
            if key not in self.by_stage:
                self.by_stage[key] = Durations()
            self.by_stage[key].add(microseconds * 1e-6)
        if rows:
            self.rows[route] += rows
            self._count_second(rows, ended, seconds)

    def _count_second(self, rows: int, ended: float, seconds: float) -> None:
        now = int(ended)
        if not self._recent or self._recent[-1].at != now:
            self._recent.append(_Second(now))
        second = self._recent[-1]
        second.rows += rows
        second.requests += 1
        second.durations.add(seconds)

    def live(self) -> wire.Throughput:
        """Of the last full seconds, for the page."""
        now = int(time.perf_counter())
        seconds = [each for each in self._recent if now - _KEPT_SECONDS <= each.at < now]
        span = 10
        last = [each for each in seconds if each.at >= now - span]
        counts = [sum(column) for column in zip(*(each.durations.counts for each in last), strict=True)]
        by_second = {each.at: each.requests for each in seconds}
        return wire.Throughput(
            requests_per_second=sum(each.requests for each in last) / span,
            rows_per_second=sum(each.rows for each in last) / span,
            p50_ms=_quantile(counts, 0.5),
            p99_ms=_quantile(counts, 0.99),
            requests_by_second=[by_second.get(at, 0) for at in range(now - _KEPT_SECONDS, now)],
            refused=sum(count for (_, status), count in self.by_status.items() if status >= 400),
        )


class _Second:
    __slots__ = ("at", "durations", "requests", "rows")

    def __init__(self, at: int) -> None:
        self.at, self.rows, self.requests, self.durations = at, 0, 0, Durations()


def _quantile(counts: list[int], share: float) -> float | None:
    """Milliseconds below which a share of the durations lies: the bound above it, None without any."""
    total, below = sum(counts), 0
    for bound, count in zip((*_BOUNDS, _BOUNDS[-1]), counts, strict=False):
        below += count
        if total and below >= share * total:
            return bound * 1e3
    return None


class _Collector(Collector):
    def __init__(self, figures: Figures, service: Service, dropped_lines: Callable[[], Mapping[str, int]]) -> None:
        self._figures, self._service, self._dropped_lines = figures, service, dropped_lines

    def collect(self) -> Iterator[Metric]:
        yield from _of_requests(self._figures)
        dropped = CounterMetricFamily(
            "embtables_dropped_log_lines", "Lines of a log that the disk did not take in time.", labels=["log"]
        )
        for log, count in self._dropped_lines().items():
            dropped.add_metric([log], count)
        yield dropped
        ready, _ = self._service.is_ready()
        yield GaugeMetricFamily("embtables_ready", "Whether a version is loaded and warmed.", value=float(ready))
        yield from _of_following(self._service.follow_info())
        try:
            info = self._service.model()
        except Refusal:
            return
        yield from _of_model(info)


class Metrics:
    """`/metrics`: text of what a server and its service count.

    Args:
        dropped_lines: by log how many of its lines were not written.
    """

    def __init__(self, figures: Figures, service: Service, dropped_lines: Callable[[], Mapping[str, int]]) -> None:
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(_Collector(figures, service, dropped_lines))

    def text(self) -> bytes:
        """In Prometheus' text format 0.0.4."""
        return generate_latest(self._registry)


def _of_requests(figures: Figures) -> Iterator[Metric]:
    requests = CounterMetricFamily("embtables_requests", "Requests answered.", labels=["route", "status"])
    for (route, status), count in figures.by_status.items():
        requests.add_metric([route, str(status)], count)
    yield requests
    rows = CounterMetricFamily("embtables_rows", "Candidates, rows and ids answered.", labels=["route"])
    for route, count in figures.rows.items():
        rows.add_metric([route], count)
    yield rows
    events = CounterMetricFamily("embtables_events", "Events that were appended, or refused.", labels=["outcome"])
    for outcome, count in figures.events.items():
        events.add_metric([outcome], count)
    yield events
    whole = HistogramMetricFamily("embtables_request_seconds", "From a head to its answer.", labels=["route"])
    for route, durations in figures.by_route.items():
        whole.add_metric([route], durations.buckets(), durations.total)
    yield whole
    parts = HistogramMetricFamily("embtables_stage_seconds", "Parts of a request.", labels=["route", "stage"])
    for (route, stage), durations in figures.by_stage.items():
        parts.add_metric([route, stage], durations.buckets(), durations.total)
    yield parts
    yield _gauge("embtables_requests_in_flight", "Requests whose answer is not sent.", figures.in_flight)
    yield _gauge("embtables_scores_waiting", "Requests that are scored or wait for it.", figures.waiting)
    yield _gauge("embtables_began_seconds", "Unix time at which the server began.", figures.began)


def _of_following(info: wire.FollowInfo) -> Iterator[Metric]:
    state = GaugeMetricFamily("embtables_follow_state", "1 for the present state.", labels=["state"])
    for each in ("following", "pinned", "paused"):
        state.add_metric([each], float(each == info.state))
    yield state
    for name, text, count in (
        ("versions", "Versions applied.", info.applied_versions),
        ("rows", "Rows that versions have changed.", info.applied_rows),
        ("tombstones", "Rows that versions have removed.", info.applied_tombstones),
    ):
        yield CounterMetricFamily(f"embtables_applied_{name}", text, value=count)
    yield _by_reason("embtables_rejected_versions", "Versions set aside.", info.rejected)


def _of_model(info: wire.ModelInfo) -> Iterator[Metric]:
    version = GaugeMetricFamily(
        "embtables_version", "The number of the version that answers.", labels=["part", "version"]
    )
    for part, name in (("dense", info.versions.dense), ("rows", info.versions.rows)):
        version.add_metric([part, name], float(name.rpartition("-")[2] or 0))
    yield version
    yield _gauge(
        "embtables_staleness_seconds", "Age of the newest applied version; 0: none is newer.", info.staleness_seconds
    )
    yield _gauge("embtables_version_written_seconds", "Unix time at which the version was written.", info.written_at)
    yield _gauge("embtables_resident_memory_bytes", "Resident memory of the process now.", info.memory_bytes)
    yield _by_table("rows", "Rows of a table.", ((t.name, t.rows) for t in info.tables), GaugeMetricFamily)
    yield _by_table("bytes", "Memory of a table.", ((t.name, t.bytes) for t in info.tables), GaugeMetricFamily)
    yield _by_table("ids", "Ids looked up.", ((t.name, t.ids) for t in info.tables), CounterMetricFamily)
    yield _by_table(
        "cold_ids", "Ids that read a cold row.", ((t.name, t.cold_ids) for t in info.tables), CounterMetricFamily
    )
    missing = CounterMetricFamily("embtables_side_table_missing_keys", "Keys that it lacks.", labels=["side_table"])
    for side in info.side_tables:
        missing.add_metric([side.name], side.missing_keys)
    yield missing
    if info.running is not None:
        yield from _of_running(info.running)


def _by_reason(name: str, text: str, counts: Mapping[str, int]) -> Metric:
    found = CounterMetricFamily(name, text, labels=["reason"])
    for reason, count in counts.items():
        found.add_metric([reason], count)
    return found


def _of_running(info: wire.RunningInfo) -> Iterator[Metric]:
    for name, text, count in (
        ("events", "Events folded into running features.", info.events),
        ("late_events", "Those older than the clock by more than the lateness.", info.late_events),
        ("late_questions", "Requests' rows as old.", info.late_questions),
        ("held_back", "Batches of events further ahead than the clock may step.", info.held_back),
    ):
        yield CounterMetricFamily(f"embtables_running_{name}", text, value=count)
    yield _by_reason("embtables_running_ignored", "Events that did not count.", info.ignored)
    yield _gauge("embtables_running_keys", "Keys of running features.", info.keys)
    yield _gauge("embtables_running_bytes", "Memory of running features.", info.bytes)
    if info.clock is not None:
        yield _gauge("embtables_running_clock_seconds", "Event time of running features.", info.clock)
    if info.checkpoint_at is not None:
        yield _gauge("embtables_running_checkpoint_seconds", "Unix time of the last checkpoint.", info.checkpoint_at)


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(name, text, value=value)


def _by_table(
    name: str,
    text: str,
    values: Iterable[tuple[str, int]],
    family: type[GaugeMetricFamily] | type[CounterMetricFamily],
) -> Metric:
    found = family(f"embtables_table_{name}", text, labels=["table"])
    for table, value in values:
        found.add_metric([table], value)
    return found
