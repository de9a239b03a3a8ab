"""Both clients against real sockets: what they send, what they make of answers, what they try again and when not."""

from __future__ import annotations

import asyncio
import math
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pytest
import stamina

import embtables
from embtables.errors import ConfigError, DataError, DeadlineError, RefusedError, ServingError, UnreachableError
from embtables.serving import wire
from embtables.serving.client import AsyncClient, Client
from tests.serving.arrow_for_tests import arrow
from tests.serving.client.scripted import Scripted, answer, closes, drips, hangs, scripted

VERSIONS = wire.Versions(dense="serving-3", rows="serving-4")
HEADERS = {
    wire.REQUEST_ID: "r-1",
    wire.DENSE_VERSION: "serving-3",
    wire.ROW_VERSION: "serving-4",
    wire.COLD: "2",
    wire.DIM: "2",
}
SCORED = answer(
    200,
    msgspec.json.encode(
        wire.ScoreAnswer(
            request_id="r-1",
            scores={"click": [0.25, 0.5], "buy": [0.125, 0.75]},
            versions=VERSIONS,
            cold=wire.ColdIds(context=["user"], candidates={"item": [1]}),
        )
    ),
)


class Waiting:
    """AsyncClient as if it were Client: one set of tests for both."""

    def __init__(self, *given: Any, **named: Any) -> None:
        self._runner = asyncio.Runner()
        self._client = AsyncClient(*given, **named)

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._client, name)
        return (lambda *a, **k: self._runner.run(found(*a, **k))) if callable(found) else found

    def close(self) -> None:
        self._runner.run(self._client.close())
        self._runner.close()


@pytest.fixture(params=[Client, Waiting], ids=["threads", "coroutines"])
def client(request: pytest.FixtureRequest) -> Iterator[Callable[..., Any]]:
    made = []

    def make(*given: Any, **named: Any) -> Any:
        made.append(request.param(*given, **named))
        return made[-1]

    yield make
    for each in made:
        each.close()


def test_scores_as_json(client: Callable[..., Any]) -> None:
    with scripted(SCORED) as server:
        context = {"user": np.int64(7), "words": np.array([1, 2])}
        scores = client(server.url).score(context, ["a", "b"], request_id="mine")
    assert scores.labels == ("click", "buy")
    assert scores.values.dtype == np.float32
    assert scores.values.tolist() == [[0.25, 0.125], [0.5, 0.75]]
    assert (scores.versions, scores.request_id) == (VERSIONS, "r-1")
    assert scores.cold == wire.ColdIds(context=["user"], candidates={"item": [1]})
    (sent,) = server.received
    assert sent.line == "POST /v1/score HTTP/1.1"
    assert sent.headers["content-type"] == wire.JSON
    assert msgspec.json.decode(sent.body, type=wire.ScoreRequest) == wire.ScoreRequest(
        context={"user": 7, "words": [1, 2]}, candidates=["a", "b"], request_id="mine"
    )


def test_scores_as_arrow(client: Callable[..., Any]) -> None:
    scored = arrow(pa.table({"click": np.array([0.25, 0.5], np.float32)}))
    with scripted(answer(200, scored, **HEADERS)) as server:
        asked = client(server.url)
        candidates = [{"item": 1, "price": 2.5}, {"item": 2, "user": 8}]
        scores = asked.score({"user": 7, "words": [1, 2]}, candidates, form="arrow")
        asked.score_rows({"user": [7], "item": [1]})
    assert (scores.labels, scores.values.tolist()) == (("click",), [[0.25], [0.5]])
    assert (scores.versions, scores.request_id, scores.num_cold) == (VERSIONS, "r-1", 2)
    first, second = server.received
    assert (first.headers["content-type"], first.headers["accept"]) == (wire.ARROW, wire.ARROW)
    assert pa.ipc.open_stream(first.body).read_all().to_pylist() == [
        {"user": 7, "words": [1, 2], "item": 1, "price": 2.5},
        {"user": 8, "words": [1, 2], "item": 2, "price": None},
    ]
    assert pa.ipc.open_stream(second.body).read_all().to_pylist() == [{"user": 7, "item": 1}]


@pytest.mark.parametrize("form", [None, "json", "arrow"])
def test_full_rows_go_in_either_form(client: Callable[..., Any], form: Any) -> None:
    rows = [{"user": 7, "item": 1}, {"user": 8}]
    as_arrow = answer(200, arrow(pa.table({"click": [0.25, 0.5]})), **HEADERS)
    with scripted(as_arrow if form == "arrow" else SCORED) as server:
        client(server.url).score_rows(rows, form=form)
    (sent,) = server.received
    if form == "arrow":
        assert pa.ipc.open_stream(sent.body).read_all().to_pylist() == [rows[0], {"user": 8, "item": None}]
    else:
        assert msgspec.json.decode(sent.body) == {"rows": rows}


def test_events_are_sent_again_under_the_same_ids_and_bad_ones_are_named(client: Callable[..., Any]) -> None:
    said = wire.EventsAnswer(request_id="r-1", accepted=1, refused=[wire.RefusedEvent(1, "null_kind")])
    with scripted(closes, answer(200, msgspec.json.encode(said))) as server:
        posted = client(server.url).post_events([{"kind": "click", "user": 3}, {"event_id": "mine", "kind": None}])
    first, second = (msgspec.json.decode(received.body)["events"] for received in server.received)
    assert first == second
    assert posted.refused == {"mine": "null_kind"}
    assert list(posted.ids) == [event["event_id"] for event in first]
    assert first[0]["event_id"]


def test_embeddings_as_bytes_and_as_json(client: Callable[..., Any]) -> None:
    rows = np.array([[1, 2], [3, 4]], np.float32)
    as_json = msgspec.json.encode(wire.EmbedAnswer("r-1", rows.tolist(), VERSIONS, [1]))
    with scripted(answer(200, rows.tobytes(), **HEADERS), answer(200, as_json)) as server:
        asked = client(server.url)
        from_bytes = asked.embed([5, -6], feature="the item")
        from_json = asked.embed(["a", "b"], feature="item")
        asked.embed([1, 2], table="item", form="json")
    for found in (from_bytes, from_json):
        assert found.dtype == np.float32
        assert np.array_equal(found, rows)
    from_bytes[0, 0] = 9.0  # it is the caller's
    first, second, third = server.received
    assert first.line == "POST /v1/embed?feature=the+item HTTP/1.1"
    assert np.frombuffer(first.body, "<i8").tolist() == [5, -6]
    assert msgspec.json.decode(second.body) == {"feature": "item", "ids": ["a", "b"]}
    assert msgspec.json.decode(third.body) == {"table": "item", "keys": [1, 2]}


def test_ids_of_two_kinds_are_refused_before_they_are_sent() -> None:
    with pytest.raises(DataError, match="all integers or all strings"):
        Client("http://127.0.0.1:9").embed([7, "x"], feature="item")


def test_versions_for_serving_come_after_checkpoints() -> None:
    from embtables.serving.client.session import _newer

    seen = wire.Versions("resume-900", "resume-900")
    for name in ("serving-1", "serving-2", "serving-1"):
        seen = _newer(seen, wire.Versions(name, name))
    assert seen == wire.Versions("serving-2", "serving-2")


def test_no_ids_are_no_rows(client: Callable[..., Any]) -> None:
    with scripted(answer(200, b"", **HEADERS)) as server:
        assert client(server.url).embed([], feature="item").shape == (0, 2)


def test_a_connection_is_used_again(client: Callable[..., Any]) -> None:
    with scripted(SCORED) as server:
        asked = client(server.url)
        for _ in range(5):
            asked.score({}, ["a"])
    assert (server.connections, len(server.received)) == (1, 5)


def test_what_the_server_says_of_its_model(client: Callable[..., Any]) -> None:
    model = wire.ModelInfo(
        name="shop",
        model="dcnv2",
        labels=["click"],
        versions=VERSIONS,
        written_at=1.0,
        loaded_at=2.0,
        staleness_seconds=3.0,
        columns=[],
        features=[wire.FeatureInfo("item", "item", 8)],
        tables=[],
        engine=wire.EngineInfo("exact", "torch"),
        follow=wire.FollowInfo("following"),
    )
    with scripted(answer(200, msgspec.json.encode(model))) as server:
        assert client(server.url + "/behind/a/proxy/").model() == model
    assert server.received[0].line == "GET /behind/a/proxy/v1/model HTTP/1.1"


def refused(status: int, **headers: str) -> bytes:
    body = msgspec.json.encode(wire.ErrorBody("no such feature", request_id="r-9", field="candidates.3.price"))
    return answer(status, body, **headers)


def test_a_refusal_has_all_that_the_server_says(client: Callable[..., Any]) -> None:
    with scripted(refused(422)) as server, pytest.raises(RefusedError, match="no such feature") as caught:
        client(server.url).score({}, ["a"])
    error = caught.value
    assert (error.status, error.field, error.request_id) == (422, "candidates.3.price", "r-9")
    assert len(server.received) == 1  # asking again would not help


@pytest.mark.parametrize("busy", [refused(429, retry_after="0"), refused(429), refused(503), closes])
def test_what_is_safe_is_tried_again(client: Callable[..., Any], busy: Any) -> None:
    with scripted(busy, busy, SCORED) as server:
        assert client(server.url).score({}, ["a", "b"]).request_id == "r-1"
    assert len(server.received) == 3
    assert len({sent.body for sent in server.received}) == 1


@contextmanager
def on_retry(do: Callable[[], None]) -> Iterator[None]:
    """Does something each time before a call is tried again."""
    hooks = stamina.instrumentation.get_on_retry_hooks()
    stamina.instrumentation.set_on_retry_hooks([lambda _: do()])
    try:
        yield
    finally:
        stamina.instrumentation.set_on_retry_hooks(hooks)


def test_a_server_that_starts_later_is_found(client: Callable[..., Any]) -> None:
    """The connection is refused until then."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    server = Scripted([SCORED])
    listener: list[socket.socket] = []

    def start() -> None:
        if not listener:
            listener.append(socket.create_server(("127.0.0.1", port)))
            threading.Thread(target=server.serve, args=(listener[0],), daemon=True).start()

    try:
        with on_retry(start):
            assert client(f"http://127.0.0.1:{port}").score({}, ["a", "b"]).request_id == "r-1"
    finally:
        for each in listener:
            each.close()
        server.close()


def test_a_call_is_tried_so_often_and_then_says_why(client: Callable[..., Any]) -> None:
    with scripted(refused(429, retry_after="0")) as server, pytest.raises(RefusedError) as caught:
        client(server.url, attempts=3).score({}, ["a"])
    assert (caught.value.status, caught.value.retry_after_seconds) == (429, 0.0)
    assert len(server.received) == 3


def test_nothing_is_tried_after_the_deadline(client: Callable[..., Any]) -> None:
    """The server asks for more patience than the call has: no second request, and no waiting for nothing."""
    with scripted(refused(503, retry_after="3600")) as server, pytest.raises(RefusedError) as caught:
        client(server.url).score({}, ["a"], deadline_seconds=30.0)
    assert caught.value.retry_after_seconds == 3600.0
    assert len(server.received) == 1


@pytest.mark.parametrize("stalls", [hangs, drips], ids=["silent", "a byte at a time"])
def test_the_deadline_holds_for_all_of_a_call(client: Callable[..., Any], stalls: Any) -> None:
    with scripted(stalls) as server:
        with pytest.raises(DeadlineError, match=r"no answer within 0\.2 seconds"):
            client(server.url, deadline_seconds=60.0).score({}, ["a"], deadline_seconds=0.2)
        assert not client(server.url, deadline_seconds=0.2).ready()


def test_a_deadline_says_what_went_wrong_before_it(client: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    clock, is_over = time.monotonic, threading.Event()
    monkeypatch.setattr(time, "monotonic", lambda: clock() + (3600.0 if is_over.is_set() else 0.0))
    says = "no answer within 60 seconds; before that: .*no such feature"
    refuses = scripted(refused(503, retry_after="0"))
    with refuses as server, on_retry(is_over.set), pytest.raises(DeadlineError, match=says):
        client(server.url).score({}, ["a"], deadline_seconds=60.0)
    assert len(server.received) == 1


def test_no_connection_is_free_before_the_deadline() -> None:
    with ThreadPoolExecutor(1) as pool, scripted(hangs) as server:
        client = Client(server.url, connections=1)
        other = pool.submit(client.ready, deadline_seconds=600.0)
        server.wait(1)
        with pytest.raises(DeadlineError, match=r"no answer within 0\.1 seconds"):
            client.score({}, ["a"], deadline_seconds=0.1)
        assert not other.done()
        server.close()
        assert other.result() is False
        client.close()
    assert (server.connections, len(server.received)) == (1, 1)


def test_whether_it_is_ready(client: Callable[..., Any]) -> None:
    with scripted(refused(503), refused(503), answer(200)) as server:
        asked = client(server.url)
        assert not asked.ready()
        asked.wait_until_ready(60.0)
        assert asked.ready()
    with pytest.raises(DeadlineError, match="not ready after"):
        asked.wait_until_ready(0.1)


@pytest.mark.parametrize(
    "broken",
    [
        answer(200, b"<html>"),
        answer(200, b'{"request_id": 7}'),
        answer(200, b"", **{wire.DIM: "2"}),
    ],
)
def test_an_answer_of_something_else(client: Callable[..., Any], broken: bytes) -> None:
    with scripted(broken) as server, pytest.raises(ServingError, match="cannot be read"):
        client(server.url).score({}, ["a"])


def test_rows_of_another_size(client: Callable[..., Any]) -> None:
    with scripted(answer(200, b"12345", **HEADERS)) as server, pytest.raises(ServingError, match="5 bytes"):
        client(server.url).embed([1], feature="item")


def test_a_refusal_by_something_between(client: Callable[..., Any]) -> None:
    with scripted(answer(502, b"<html>no upstream")) as server, pytest.raises(RefusedError, match="no upstream"):
        client(server.url).score({}, ["a"])


def test_it_remembers_the_newest_versions_and_can_insist(client: Callable[..., Any]) -> None:
    def of(dense: int, rows: int) -> bytes:
        versions = wire.Versions(f"serving-{dense}", f"serving-{rows}")
        return answer(200, msgspec.json.encode(wire.ScoreAnswer("r", {"click": [0.5]}, versions, wire.ColdIds())))

    with scripted(of(9, 10), of(8, 11), of(9, 9)) as server:
        asked = client(server.url, never_older=True)
        assert asked.last_versions is None
        for _ in range(3):
            asked.score({}, ["a"])
        assert asked.last_versions == wire.Versions("serving-9", "serving-11")
        client(server.url).score({}, ["a"])
    names = (wire.MIN_DENSE_VERSION, wire.MIN_ROW_VERSION)
    assert [tuple(sent.headers.get(name) for name in names) for sent in server.received] == [
        (None, None),
        ("serving-9", "serving-10"),
        ("serving-9", "serving-11"),
        (None, None),
    ]


@pytest.mark.parametrize("value", [math.nan, np.float32("inf"), [1.0, -math.inf], np.array([math.nan])])
def test_what_is_not_finite_is_not_sent_as_null(client: Callable[..., Any], value: Any) -> None:
    with pytest.raises(DataError, match=r"field candidates\.1\.price.*: holds -?(nan|inf)"):
        client().score({"user": None}, [{"price": 1.0}, {"price": value}])


@pytest.mark.parametrize(
    ("call", "error", "says"),
    [
        (lambda c: c.score([7], ["a"]), ConfigError, "argument context: must be a dict of columns"),
        (lambda c: c.score({}, "abc"), ConfigError, "argument candidates: must be a list"),
        (lambda c: c.score({}, ["a"], form="xml"), ConfigError, "argument form: must be one of json, arrow"),
        (lambda c: c.score({}, ["a"], form="arrow"), ConfigError, r"argument candidates\.0: .*form='json'"),
        (lambda c: c.score({}, [{"x": object()}]), DataError, "has no JSON: a object"),
        (lambda c: c.score({}, [{"x": [1, "a"]}], form="arrow"), DataError, "cannot be taken as a table"),
        (lambda c: c.score({}, [{"x": 1}], form="arrow", request_id="a\nb"), ConfigError, "printable ASCII"),
        (lambda c: c.score({}, ["a"], deadline_seconds=0), ConfigError, "seconds above 0, received 0"),
        (lambda c: c.score({}, ["a"], deadline_seconds=math.nan), ConfigError, "seconds above 0"),
        (lambda c: c.score_rows(["a"]), ConfigError, r"argument rows\.0: must be a dict"),
        (lambda c: c.score_rows(7), DataError, "is int, which is no table"),
        (lambda c: c.embed([1]), ConfigError, "give a feature with its ids, or a table"),
        (lambda c: c.embed([1], feature="f", table="t"), ConfigError, "give a feature"),
        (lambda c: c.embed([1.5], feature="f"), DataError, "integers or of strings"),
        (lambda c: c.embed([True], feature="f"), DataError, "integers or of strings"),
        (lambda c: c.embed([[1]], feature="f"), DataError, "2 dimensions"),
        (lambda c: c.embed([2**63], feature="f"), DataError, "are int64, received 9223372036854775808"),
        (lambda c: c.embed([2**64], feature="f"), DataError, "argument ids"),
        (lambda c: c.embed("abc", feature="f"), ConfigError, "must be a list or an array"),
        (lambda c: c.embed(["a"], feature="f", form="bytes"), ConfigError, "leave form out"),
    ],
)
def test_wrong_arguments(client: Callable[..., Any], call: Any, error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        call(client("http://127.0.0.1:9"))


@pytest.mark.parametrize("url", ["", "127.0.0.1:8080", "ftp://host", "http://", "http://host/?x=1", "http://[::1", 7])
def test_what_is_no_address(client: Callable[..., Any], url: Any) -> None:
    with pytest.raises(ConfigError, match="argument url"):
        client(url)


def test_many_threads_use_one_client() -> None:
    with scripted(SCORED) as server, Client(server.url, connections=4) as client:
        found: list[str] = []
        threads = [
            threading.Thread(target=lambda: found.extend(client.score({}, ["a"]).request_id for _ in range(20)))
            for _ in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert found == ["r-1"] * 160
    # Rarely httpcore closes a connection that another thread has just taken: that call is tried again.
    assert server.connections < 16


def test_a_forked_process_has_connections_of_its_own() -> None:
    """Else two processes would read each other's answers."""
    with scripted(SCORED) as server, Client(server.url) as client:
        client.score({}, ["a"])
        child = os.fork()
        if child == 0:
            try:
                client.score({}, ["a"])
                os._exit(0)
            except BaseException:
                os._exit(1)
        assert os.waitpid(child, 0)[1] == 0
        client.score({}, ["a"])
    assert server.connections == 2


def test_a_name_that_leads_nowhere(client: Callable[..., Any]) -> None:
    with pytest.raises(UnreachableError, match=r"server http://no-such-host\.invalid: cannot be reached") as caught:
        client("http://no-such-host.invalid", attempts=1).score({}, ["a"])
    assert caught.value.path["server"] == "http://no-such-host.invalid"


def test_it_needs_neither_torch_nor_the_server() -> None:
    heavy = ("torch", "granian", "starlette", "embtables.models", "embtables.state", "embtables.native")
    code = f"import embtables, sys; embtables.Client; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
    assert embtables.Client is Client
