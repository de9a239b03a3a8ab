"""Running features over HTTP: what is acknowledged is seen by the next request, and survives a kill."""

from __future__ import annotations

import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pyarrow as pa

from embtables.events import open_log
from embtables.events.check import check_events
from embtables.serving import wire
from tests.serving.arrow_for_tests import arrow
from tests.serving.running.conftest import NUMBERS, ServeRunning

EACH = 60  # events of a user


def click(event_id: str, user: int, item: str, **columns: Any) -> dict[str, Any]:
    return {"event_id": event_id, "kind": "click", "user": user, "item": item, **columns}


def columns_of(client: httpx.Client, user: int, item: str, **columns: Any) -> dict[str, float]:
    """The running numbers that the model reads for a user and an item now."""
    context = {"user": user, "tags": [1], "shop": 1} | columns
    body = {"context": context, "candidates": [{"item": item, "price": 1.0}]}
    answer = client.post("/v1/explain", json=body)
    assert answer.status_code == 200, answer.text
    return {part["feature"]: part["value"] for part in answer.json()["features"] if part["feature"] in NUMBERS}


def post(client: httpx.Client, *events: dict[str, Any]) -> dict[str, Any]:
    answer = client.post("/v1/events", json={"events": list(events)})
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def test_an_acknowledged_event_is_seen_by_the_next_request(serve_running: ServeRunning) -> None:
    server = serve_running()

    def of_user(user: int) -> None:
        with httpx.Client(base_url=server.url, timeout=60) as client:
            for number in range(12):
                assert columns_of(client, user, f"item-{user}")["user_clicks"] == number
                post(client, click(f"{user}/{number}", user, f"item-{user}", price_paid=0.5 + number))
                found = columns_of(client, user, f"item-{user}")
                assert (found["user_clicks"], found["pair_clicks"], found["item_clicks_1h"]) == (number + 1,) * 3
                assert found["last_price"] == 0.5 + number

    with ThreadPoolExecutor(12) as pool:
        list(pool.map(of_user, range(12)))


def test_a_killed_server_answers_as_if_it_had_not_been_killed(serve_running: ServeRunning, tmp_path: Path) -> None:
    """Clients post each event until they are told that it is there, and meanwhile the server is killed."""
    settings = {"running_dir": tmp_path / "running", "running_checkpoint_seconds": 0.05}
    rng = np.random.default_rng(3)
    server, users = serve_running(**settings), 4
    urls, changed, acknowledged = [server.url], threading.Condition(), [0] * users
    kill_after = int(rng.integers(20, 100))  # in the middle of what is posted

    def until_acknowledged(client: httpx.Client, event: dict[str, Any]) -> None:
        while True:
            with changed:
                url = urls[-1]
            try:
                if client.post(f"{url}/v1/events", json={"events": [event]}).status_code == 200:
                    return
            except httpx.TransportError:
                pass
            with changed:
                assert changed.wait_for(lambda url=url: urls[-1] != url, timeout=120)

    def of_user(user: int) -> None:
        with httpx.Client(timeout=60) as client:
            for number in range(EACH):
                until_acknowledged(client, click(f"{user}/{number}", user, f"item-{number % 7}"))
                with changed:
                    acknowledged[user] += 1
                    changed.notify_all()

    with ThreadPoolExecutor(users) as pool:
        posting = [pool.submit(of_user, user) for user in range(users)]
        with changed:
            assert changed.wait_for(lambda: sum(acknowledged) >= kill_after, timeout=60)
        server.end(signal.SIGKILL)
        assert sum(acknowledged) < users * EACH
        server = serve_running(**settings)
        with changed:
            urls.append(server.url)
            changed.notify_all()
        for each in posting:
            each.result()
    with httpx.Client(base_url=server.url, timeout=60) as client:
        for user in range(users):
            assert columns_of(client, user, "item-0")["user_clicks"] == EACH
            items = [columns_of(client, user, f"item-{n}")["pair_clicks"] for n in range(7)]
            assert items == [len(range(n, EACH, 7)) for n in range(7)]


def test_servers_that_share_a_log_count_each_others_events_once(serve_running: ServeRunning, tmp_path: Path) -> None:
    servers = [serve_running(running_dir=tmp_path / name) for name in ("one", "two")]
    with httpx.Client(base_url=servers[0].url, timeout=60) as one, httpx.Client(base_url=servers[1].url) as two:
        for number in range(16):
            client = (one, two)[number % 2]
            before = columns_of(client, 3, "item-1")["user_clicks"]
            post(client, click(f"e{number}", 3, "item-1"))
            # Own events are there at once; those of the other server are followed.
            assert before + 1 <= columns_of(client, 3, "item-1")["user_clicks"] <= number + 1
        post(two, click("e0", 3, "item-1"), click("e1", 3, "item-1"))  # sent again
        # Whose own event is acknowledged has folded what lies before it in its partition; these lie in all of them.
        for client in (one, two):
            post(client, *(click(f"mark-{number}-{client.base_url}", 9, "item-2") for number in range(30)))
        assert columns_of(one, 3, "item-1")["user_clicks"] == columns_of(two, 3, "item-1")["user_clicks"] == 16


def test_bad_events_are_named_or_ignored_and_counted(serve_running: ServeRunning, tmp_path: Path) -> None:
    nan = pa.record_batch({"event_id": ["n"], "kind": ["click"], "user": [3], "item": ["item-1"]})
    nan = nan.append_column("price_paid", pa.array([float("nan")]))
    nan = nan.append_column("event_time", pa.array([time.time_ns() // 1_000], pa.timestamp("us")))
    log = open_log(f"folder://{tmp_path}/events?partitions=3")  # another writer's, who does not look at numbers
    log.append(0, check_events(nan, time.time_ns() // 1_000).good)
    log.close()
    server = serve_running()
    with httpx.Client(base_url=server.url, timeout=60) as client:
        found = post(client, click("a", 3, "item-1", price_paid=2.0), {"event_id": "b", "kind": "click", "user": None})
        assert (found["accepted"], found["refused"]) == (2, [])
        other = post(client, {"event_id": "c", "kind": "click", "user": "3", "item": "item-1"})
        assert other["accepted"] == 0
        assert other["refused"][0]["reason"] == "ids_of_another_kind: user"
        answer = client.post(
            "/v1/events", content=arrow(pa.Table.from_batches([nan])), headers={"content-type": wire.ARROW}
        )
        assert (answer.status_code, answer.json()["field"]) == (422, "rows.0.price_paid")
        assert "NaN" in answer.json()["error"]
        mixed = {"events": [click("e", 3, "item-1", price_paid="cheap"), click("f", 3, "item-1", price_paid=1.0)]}
        answer = client.post("/v1/events", json=mixed)
        assert answer.status_code == 422
        assert "price_paid" in answer.json()["field"]
        assert columns_of(client, 3, "item-1")["user_clicks"] == 1
        metrics = client.get("/metrics").text
        assert 'embtables_running_ignored_total{reason="price_paid"} 1.0' in metrics
        assert 'embtables_running_ignored_total{reason="user"} 1.0' in metrics
        for name in ("events_total", "late_events_total", "keys", "bytes", "clock_seconds"):
            assert f"\nembtables_running_{name} " in metrics
