"""Events over HTTP: durable when they are answered, bad ones named and kept, and what was served as it was used."""

from __future__ import annotations

import asyncio
import datetime
import signal
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pyarrow as pa
import pytest

from embtables.errors import ConfigError, EventLogError
from embtables.events import open_log
from embtables.events.dead_letters import DeadLetters
from embtables.models.scorer import Scorer
from embtables.serving import wire
from embtables.serving.events.appender import EventAppender
from embtables.serving.refusals import Refusal
from embtables.serving.settings import Settings
from tests.serving.arrow_for_tests import arrow
from tests.serving.conftest import Serve, ServerProcess

CLICK = {"event_id": "c-1", "kind": "click", "request_id": "r-1", "item": "item-1", "dwell": 2.5}
TOKEN = "a-token-of-who-sends-events"


def rows_of(uri: str) -> list[dict[str, Any]]:
    log = open_log(uri)
    found = [row for p in range(log.num_partitions) for e in log.read(p, None) for row in e.events.to_pylist()]
    log.close()
    return found


def test_events_are_in_the_log_when_they_are_answered(serve: Serve, tmp_path: Path) -> None:
    uri = f"folder://{tmp_path}/events?partitions=3"
    server = serve(live=True, events=uri)
    with httpx.Client(base_url=server.url) as client:
        for number in range(20):
            events = [CLICK | {"event_id": f"{number}-{n}", "request_id": f"r-{number}"} for n in range(5)]
            answer = client.post("/v1/events", json={"events": events})
            assert answer.json() | {"request_id": ""} == {"request_id": "", "accepted": 5, "refused": []}
        assert 'embtables_events_total{outcome="accepted"} 100.0' in client.get("/metrics").text
    server.end(signal.SIGKILL)
    found = rows_of(uri)
    assert sorted(row["event_id"] for row in found) == sorted(f"{a}-{b}" for a in range(20) for b in range(5))
    assert {(row["kind"], row["item"], row["dwell"]) for row in found} == {("click", "item-1", 2.5)}
    log = open_log(uri)
    places = {r["request_id"]: p for p in range(3) for e in log.read(p, None) for r in e.events.to_pylist()}
    assert len(places) == 20  # each request's events lie in one partition: it was seen in one place
    log.close()


def test_arrow_and_times(serve: Serve, tmp_path: Path) -> None:
    uri = f"folder://{tmp_path}/events"
    server = serve(live=True, events=uri)
    then = datetime.datetime.now(datetime.UTC).replace(tzinfo=None, microsecond=5) - datetime.timedelta(days=3)
    table = pa.table({"event_id": ["a", "b"], "kind": ["view", "buy"], "event_time": pa.array([then] * 2), "n": [1, 2]})
    url = f"{server.url}/v1/events"
    answer = httpx.post(url, content=arrow(table), headers={"content-type": wire.ARROW})
    assert answer.json()["accepted"] == 2
    json = {"events": [{"event_id": "c", "kind": "buy", "event_time": then.isoformat() + "Z"}]}
    assert httpx.post(url, json=json).json()["accepted"] == 1
    before = datetime.datetime.now(datetime.UTC).replace(tzinfo=None)
    assert httpx.post(url, json={"events": [{"event_id": "d", "kind": "buy"}]}).json()["accepted"] == 1
    found = {row["event_id"]: row for row in rows_of(uri)}
    assert [found[name]["event_time"] for name in "abc"] == [then] * 3
    assert before <= found["d"]["event_time"] <= datetime.datetime.now(datetime.UTC).replace(tzinfo=None)
    assert found["b"]["n"] == 2


def test_bad_events_are_named_and_kept_and_good_ones_beside_them_appended(serve: Serve, tmp_path: Path) -> None:
    uri, dead = f"folder://{tmp_path}/events", tmp_path / "dead"
    server = serve(live=True, events=uri, dead_letters=dead)
    events = [
        CLICK | {"event_time": "2999-01-01T00:00:00Z"},
        CLICK | {"event_id": "good"},
        CLICK | {"event_id": ""},
        CLICK | {"event_time": "1999-01-01T00:00:00Z"},
        {"kind": "click"},
    ]
    answer = httpx.post(f"{server.url}/v1/events", json={"events": events}).json()
    assert answer["accepted"] == 1
    reasons = [(0, "time_ahead"), (2, "empty_event_id"), (3, "time_behind"), (4, "null_event_id")]
    assert [(each["index"], each["reason"]) for each in answer["refused"]] == reasons
    assert 'embtables_events_total{outcome="time_ahead"} 1.0' in httpx.get(f"{server.url}/metrics").text
    server.end()
    assert [row["event_id"] for row in rows_of(uri)] == ["good"]
    letters = DeadLetters(dead)
    kept = [row for batch in letters.pending() for row in batch.to_pylist()]
    letters.close()
    assert [row["dead_reason"] for row in kept] == [reason for _, reason in reasons]
    assert "embtables_row" not in kept[0]


@pytest.mark.parametrize(
    ("body", "status", "field"),
    [
        ({"events": []}, 422, "events"),
        ({"events": [{"event_id": {"a": 1}}]}, 422, "events.0.event_id"),
        ({"events": [CLICK, CLICK | {"item": 3}]}, 422, "events.1.item"),
        ({"events": [CLICK | {"event_time": "yesterday"}]}, 422, "events.0.event_time"),
        ({"happenings": [CLICK]}, 422, "happenings"),
        ({"events": [CLICK] * 5000}, 422, "events"),
        ("no", 422, None),
    ],
)
def test_what_is_no_list_of_events_is_refused(events_server: str, body: Any, status: int, field: str | None) -> None:
    answer = httpx.post(f"{events_server}/v1/events", json=body)
    assert (answer.status_code, answer.json().get("field")) == (status, field), answer.text


@pytest.fixture(scope="module")
def events_server(trained_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("events")
    found = ServerProcess(trained_run, folder / "log.jsonl", {"events": f"folder://{folder}/log"}, live=True)
    yield found.url
    found.end()


def test_what_was_served_is_logged_as_it_was_used(serve: Serve, tmp_path: Path, trained_run: Path) -> None:
    uri = f"folder://{tmp_path}/events?partitions=2"
    server = serve(live=True, events=uri, log_served=True)
    context, candidates = {"user": 3, "tags": [1, 2]}, [{"item": f"item-{n}", "price": 1.0 + n} for n in range(7)]
    answers = {}
    for number in range(4):
        body = {"context": context, "candidates": candidates, "request_id": f"r-{number}"}
        answers[f"r-{number}"] = httpx.post(f"{server.url}/v1/score", json=body).json()
    server.end(signal.SIGKILL)
    found = rows_of(uri)
    assert len(found) == 28
    for name, answer in answers.items():
        rows = [row for row in found if row["request_id"] == name]
        assert [row["event_id"] for row in rows] == [f"{name}/{n}" for n in range(7)]
        assert [np.float32(row["served_score"]) for row in rows] == [np.float32(s) for s in answer["scores"]["label"]]
        assert {row["served_version"] for row in rows} == {answer["versions"]["dense"]}
        assert {row["kind"] for row in rows} == {"impression"}
        # What is logged, scored again, has the score that was answered: it is what was used.
        columns = pa.Table.from_pylist([{c: row[c] for c in ("user", "tags", "item", "price")} for row in rows])
        again = Scorer.from_version(trained_run, "last").score(columns)[:, 0].numpy()
        np.testing.assert_allclose(again, [row["served_score"] for row in rows], atol=1e-6)


def test_who_sends_events_from_elsewhere_needs_a_token(serve: Serve, tmp_path: Path) -> None:
    uri = f"folder://{tmp_path}/events"
    with pytest.raises(ConfigError, match=r"who sends events to 0\.0\.0\.0 needs a token"):
        Settings.read({"source": tmp_path, "events": uri, "host": "0.0.0.0"}, {})
    with pytest.raises(ConfigError, match="log_served goes with events"):
        Settings.read({"source": tmp_path, "log_served": True}, {})
    server = serve(live=True, events=uri, event_tokens=TOKEN)
    url, body = f"{server.url}/v1/events", {"events": [CLICK]}
    assert httpx.post(url, json=body).status_code == 401
    assert httpx.post(url, json=body, headers={"authorization": "Bearer not-this-one-at-all"}).status_code == 401
    assert httpx.post(url, json=body, headers={"authorization": f"Bearer {TOKEN}"}).json()["accepted"] == 1


def test_a_server_without_a_log_says_so(serve: Serve) -> None:
    answer = httpx.post(f"{serve().url}/v1/events", json={"events": [CLICK]})
    assert answer.status_code == 501
    assert "start it with --events" in answer.json()["error"]


class FullLog:
    """An event log of two partitions whose disk is full until `has_room`."""

    num_partitions = 2

    def __init__(self) -> None:
        self.has_room, self.entries = asyncio.Event(), list[tuple[int, pa.RecordBatch]]()

    def append(self, partition: int, events: pa.RecordBatch) -> str:
        if not self.has_room.is_set():
            raise EventLogError("No space left on device")
        self.entries.append((partition, events))
        return str(len(self.entries))

    def close(self) -> None:
        pass


def batch(*ids: str, **columns: Any) -> pa.RecordBatch:
    return pa.record_batch({"event_id": list(ids), "request_id": list(ids), **columns})


def test_an_append_that_fails_is_told_and_the_next_one_is_taken() -> None:
    log: Any = FullLog()
    appender = EventAppender(log, max_events=4)

    async def run() -> None:
        with pytest.raises(Refusal, match="the event log cannot be written: No space left") as found:
            await appender.append(batch("a"))
        assert found.value.status == 503
        log.has_room.set()
        await asyncio.gather(*(appender.append(batch(f"b{n}")) for n in range(4)), appender.append(batch()))
        with pytest.raises(Refusal) as found:
            await appender.append(batch(*"abcde"))
        assert found.value.status == 429

    asyncio.run(run())
    appender.close()
    assert sorted(i for _, e in log.entries for i in e.column("event_id").to_pylist()) == ["b0", "b1", "b2", "b3"]


def test_events_with_other_columns_lie_in_entries_of_their_own() -> None:
    log: Any = FullLog()
    log.has_room.set()
    appender = EventAppender(log)

    async def run() -> None:
        await asyncio.gather(*(appender.append(batch(f"{n}", **({"x": [n]} if n % 2 else {}))) for n in range(10)))

    asyncio.run(run())
    appender.close()
    assert all(events.num_rows for _, events in log.entries)
    by_schema = {tuple(events.schema.names) for _, events in log.entries}
    assert by_schema == {("event_id", "request_id"), ("event_id", "request_id", "x")}
    assert sum(events.num_rows for _, events in log.entries) == 10
