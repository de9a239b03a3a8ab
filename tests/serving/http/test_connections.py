"""Slow, idle, many and leaving clients of a real server, and its end: each has a defined answer, others are served."""

from __future__ import annotations

import contextlib
import select
import socket
import struct
from concurrent.futures import Future, ThreadPoolExecutor

import httpx
import pytest

from embtables.serving.settings import Settings
from tests.serving.conftest import Serve, ServerProcess
from tests.serving.http.sockets_for_tests import GOOD, ROW, answer_of, connection, is_fine, post
from tests.serving.scorer_service import HELD


def test_it_listens_on_this_machine_alone(server: ServerProcess) -> None:
    assert server.address[0] == "127.0.0.1"
    others = {str(found[4][0]) for found in socket.getaddrinfo(socket.gethostname(), None, socket.AF_INET)}
    for address in (others | {"127.0.0.2"}) - {"127.0.0.1"}:
        with pytest.raises(OSError), socket.create_connection((address, server.address[1]), timeout=5):
            pass


def test_a_body_that_is_too_long_is_refused_by_its_length_and_while_it_is_read(serve: Serve) -> None:
    own = serve(max_body_bytes=100_000)
    with connection(own) as opened:  # refused before a byte of it came
        opened.sendall(b"POST /v1/score HTTP/1.1\r\nHost: here\r\nContent-Length: 99999999999\r\n\r\n")
        assert answer_of(opened)[0] == 413
    with connection(own) as opened:  # says nothing of its length, and never ends
        opened.sendall(b"POST /v1/score HTTP/1.1\r\nHost: here\r\nTransfer-Encoding: chunked\r\n\r\n")
        sent = 0
        with contextlib.suppress(ConnectionError):
            while sent < 100_000_000:
                opened.sendall(b"4000\r\n" + b" " * 0x4000 + b"\r\n")
                sent += 0x4000
        assert sent < 100_000_000
    is_fine(own)
    assert [line["status"] for line in own.events("request")] == [413, 413]


def slowly(server: ServerProcess, at_once: bytes, rest: bytes) -> int:
    """The status that a client is told in the end which sends the rest byte by byte, one a second; 0: it is cut."""
    with connection(server) as opened:
        opened.sendall(at_once)
        opened.settimeout(1.0)
        for byte in rest:
            try:
                opened.sendall(bytes([byte]))
                part = opened.recv(1000)
                return int(part.split()[1]) if part else 0
            except TimeoutError:  # nothing is said: a second is over
                continue
            except ConnectionError:
                return 0
    raise AssertionError("it was never cut")


def test_slow_clients_are_cut_while_others_are_answered(serve: Serve) -> None:
    own = serve(header_seconds=2, body_seconds=2)
    head, _, body = post(GOOD).partition(b"\r\n\r\n")
    head += b"\r\n\r\n"
    with ThreadPoolExecutor(40) as pool:
        heads = [pool.submit(slowly, own, b"", head) for _ in range(20)]
        bodies = [pool.submit(slowly, own, head, body) for _ in range(20)]
        while not all(each.done() for each in [*heads, *bodies]):
            is_fine(own)
        assert {each.result() for each in heads} <= {0, 408}
        assert {each.result() for each in bodies} == {408}
    assert {line["status"] for line in own.events("request")} == {408}


def test_by_default_a_slow_client_is_cut_within_half_a_minute() -> None:
    settings = Settings.read({"source": "."}, {})
    assert 0 < settings.header_seconds <= 30
    assert 0 < settings.body_seconds <= 30


def test_a_thousand_idle_connections(serve: Serve) -> None:
    server = serve(header_seconds=600)
    with contextlib.ExitStack() as stack:
        opened = [stack.enter_context(connection(server)) for _ in range(1000)]
        for each in opened:
            each.sendall(post(GOOD))
        assert {answer_of(each)[0] for each in opened} == {200}
        is_fine(server)
        for each in opened:  # and each of them may ask again: none was closed meanwhile
            each.sendall(post(GOOD))
        assert {answer_of(each)[0] for each in opened} == {200}


HELD_ROW = ROW | {HELD: True}


def ask_held(server: ServerProcess) -> httpx.Response:
    """A request that is not answered before `server.release()`."""
    return httpx.post(f"{server.url}/v1/score", json={"rows": [HELD_ROW]}, timeout=60)


def until_waiting(server: ServerProcess, asked: list[Future[httpx.Response]]) -> None:
    """Until the server has taken all of these requests."""
    while server.waiting() < len(asked):
        assert not any(each.done() for each in asked)


def test_a_full_queue_says_when_to_come_again(serve: Serve) -> None:
    own = serve(max_queue=3)
    with ThreadPoolExecutor(3) as pool:
        held = [pool.submit(ask_held, own) for _ in range(3)]
        until_waiting(own, held)
        for _ in range(5):
            answer = httpx.post(f"{own.url}/v1/score", content=GOOD)
            assert (answer.status_code, answer.headers["retry-after"]) == (429, "1")
        assert "3 requests wait already" in answer.json()["error"]
        assert httpx.get(f"{own.url}/healthz").status_code == 200  # what is not queued is answered
        own.release()
        assert [each.result().status_code for each in held] == [200] * 3
    is_fine(own)


def test_an_answer_that_takes_too_long(serve: Serve) -> None:
    own = serve(request_seconds=0.2)
    answer = ask_held(own)
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    assert own.waiting() == 0
    is_fine(own)


def test_bodies_together_are_bounded(serve: Serve) -> None:
    """Each of three is below the limit of one body, two are below that of all: whichever comes last is refused."""
    own = serve(max_buffered_bytes=200_000, max_body_bytes=150_000, body_seconds=600)
    whole = post(GOOD.ljust(95_000))
    with connection(own) as first, connection(own) as second, connection(own) as third:
        opened = [first, second, third]
        for each in opened:
            each.sendall(whole[:-5_000])
        ((refused,), _, _) = select.select(opened, [], [], 60)
        status, text = answer_of(refused)
        assert (status, b"retry-after: 1" in text, b"too many bodies are being read" in text) == (503, True, True)
        opened.remove(refused)
        for each in opened:
            each.sendall(whole[-5_000:])
        assert [answer_of(each)[0] for each in opened] == [200, 200]
    is_fine(own)


def test_clients_that_leave_are_no_fault(serve: Serve) -> None:
    own = serve()
    for part in (10, 60, 90):
        with connection(own) as opened:
            opened.sendall(post(GOOD)[:part])
    for _ in range(20):
        with connection(own) as opened:
            opened.sendall(post(GOOD))
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    is_fine(own)
    assert own.end() == 0  # what was asked is answered by now, and all lines are written
    assert own.events("end")[0]["all_answered"] is True
    assert own.events("fault") == []


def test_sigterm_answers_what_was_asked(serve: Serve) -> None:
    own = serve()
    with ThreadPoolExecutor(5) as pool:
        held = [pool.submit(ask_held, own) for _ in range(5)]
        until_waiting(own, held)
        own.process.terminate()
        while '"drain"' not in own.log.read_text():
            assert not any(each.done() for each in held)
        own.release()
        answers = [each.result() for each in held]
    assert [answer.status_code for answer in answers] == [200] * 5
    assert {answer.headers["connection"] for answer in answers} == {"close"}
    assert own.process.wait(60) == 0
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{own.url}/healthz")
    assert [line["in_flight"] for line in own.events("drain")] == [5]
    assert [line["all_answered"] for line in own.events("end")] == [True]


def test_what_does_not_end_is_left_at_the_deadline(serve: Serve) -> None:
    own = serve(drain_seconds=0.5, request_seconds=600)
    with ThreadPoolExecutor(1) as pool:
        held = pool.submit(ask_held, own)
        until_waiting(own, [held])
        assert own.end() == 0
        assert isinstance(held.exception(), httpx.TransportError)
    assert [line["all_answered"] for line in own.events("end")] == [False]
