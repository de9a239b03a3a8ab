"""Running features over HTTP: what is acknowledged is seen by the next request, and survives a kill."""

from __future__ import annotations

import datetime
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from embtables.events import open_log
from embtables.ids.strings import hash_strings
from tests.serving.conftest import ServerProcess
from tests.serving.running.conftest import NUMBERS, ServeRunning


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
