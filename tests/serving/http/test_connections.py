"""Slow, idle, many and leaving clients of a real server, and its end: each has a defined answer, others are served."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from tests.serving.conftest import Serve, ServerProcess
from tests.serving.http.sockets_for_tests import GOOD, ROW, answer_of, connection, is_fine, post


def test_it_listens_on_this_machine_alone(server: ServerProcess) -> None:
    assert server.address[0] == "127.0.0.1"
    own = {a[4][0] for a in socket.getaddrinfo(socket.gethostname(), None, socket.AF_INET)} - {"127.0.0.1"}
    for address in own:
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


def test_slow_clients_are_cut_while_others_are_answered(serve: Serve) -> None:
    own = serve(header_seconds=2, body_seconds=2)

    def slowly(data: bytes) -> int:
        """The status in the end of a client that sends a byte a second, and 0 where none came."""
        with connection(own) as opened:
            opened.settimeout(1.0)
            for byte in data:
                try:
                    opened.sendall(bytes([byte]))
                    part = opened.recv(1000)
                    return int(part.split()[1]) if part else 0
                except TimeoutError:
                    continue
                except ConnectionError:
                    return 0
        raise AssertionError("it was never cut")

    whole = post(GOOD)
    head, _, body = whole.partition(b"\r\n\r\n")

    def slow_body() -> int:
        with connection(own) as opened:
            opened.sendall(head + b"\r\n\r\n")
            opened.settimeout(1.0)
            for byte in body:
                try:
                    opened.sendall(bytes([byte]))
                    part = opened.recv(1000)
                    return int(part.split()[1]) if part else 0
                except TimeoutError:
                    continue
        raise AssertionError("it was never cut")

    with ThreadPoolExecutor(40) as pool:
        heads = [pool.submit(slowly, whole) for _ in range(20)]
        bodies = [pool.submit(slow_body) for _ in range(20)]
        while not all(each.done() for each in [*heads, *bodies]):
            is_fine(own)
        assert {each.result() for each in heads} <= {0, 408}
        assert {each.result() for each in bodies} == {408}
    assert {line["status"] for line in own.events("request")} == {408}


def test_a_thousand_idle_connections(serve: Serve) -> None:
    server = serve(header_seconds=600)
    with contextlib.ExitStack() as stack:
        opened = [stack.enter_context(connection(server)) for _ in range(1000)]
        for each in opened:
            each.sendall(post(GOOD))
        assert {answer_of(each)[0] for each in opened} == {200}
        is_fine(server)
        for each in opened[::100]:  # and each of them may ask again
            each.sendall(post(GOOD))
            assert answer_of(each)[0] == 200


def test_a_full_queue_says_when_to_come_again(serve: Serve) -> None:
    own = serve(max_queue=3)
    slow = {"rows": [ROW | {"slow": 3.0}]}
    with ThreadPoolExecutor(3) as pool:
        waiting = [pool.submit(httpx.post, f"{own.url}/v1/score", json=slow, timeout=30) for _ in range(3)]
        while True:
            answer = httpx.post(f"{own.url}/v1/score", content=GOOD)
            if answer.status_code == 429:
                break
            assert not any(each.done() for each in waiting)
        assert answer.headers["retry-after"] == "1"
        assert httpx.get(f"{own.url}/healthz").status_code == 200  # what is not queued is answered
        assert [each.result().status_code for each in waiting] == [200] * 3
    is_fine(own)


def test_an_answer_that_takes_too_long(serve: Serve) -> None:
    own = serve(request_seconds=0.2)
    answer = httpx.post(f"{own.url}/v1/score", json={"rows": [ROW | {"slow": 30.0}]})
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    is_fine(own)


def test_bodies_together_are_bounded(serve: Serve) -> None:
    own = serve(max_buffered_bytes=200_000, max_body_bytes=150_000, body_seconds=60)
    head = b"POST /v1/score HTTP/1.1\r\nHost: here\r\nContent-Length: 140000\r\n\r\n"
    with connection(own) as first, connection(own) as second, connection(own) as third:
        seen = []
        for each in (first, second, third):
            each.sendall(head + b" " * 100_000)
        for each in (first, second, third):
            each.settimeout(2.0)
            with contextlib.suppress(TimeoutError):
                seen.append(answer_of(each)[0])
        assert 503 in seen
    is_fine(own)


def test_clients_that_leave_are_no_fault(server: ServerProcess) -> None:
    before = len(server.events("fault"))
    for cut in (10, 60, 90):
        with connection(server) as opened:
            opened.sendall(post(GOOD)[:cut])
    for _ in range(20):
        with connection(server) as opened:
            opened.sendall(post(GOOD))
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    is_fine(server)
    assert len(server.events("fault")) == before


def waiting(server: ServerProcess) -> int:
    """Requests that are being scored."""
    lines = httpx.get(f"{server.url}/metrics").text.splitlines()
    return int(float(next(line.split()[1] for line in lines if line.startswith("embtables_scores_waiting "))))


def test_sigterm_answers_what_was_asked(serve: Serve) -> None:
    own = serve()
    slow = {"rows": [ROW | {"slow": 2.0}]}
    with ThreadPoolExecutor(5) as pool:
        asked = [pool.submit(httpx.post, f"{own.url}/v1/score", json=slow, timeout=30) for _ in range(5)]
        while waiting(own) < 5:
            assert not any(each.done() for each in asked)
        own.process.terminate()
        assert [each.result().status_code for each in asked] == [200] * 5
    assert own.process.wait(60) == 0
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{own.url}/healthz")
    assert own.events("end") == [{"at": own.events("end")[0]["at"], "event": "end", "all_answered": True}]


def test_what_does_not_end_is_left_at_the_deadline(serve: Serve) -> None:
    own = serve(drain_seconds=0.5, request_seconds=600)

    def ask() -> None:
        with contextlib.suppress(httpx.HTTPError):
            httpx.post(f"{own.url}/v1/score", json={"rows": [ROW | {"slow": 600.0}]}, timeout=60)

    asking = threading.Thread(target=ask)
    asking.start()
    while waiting(own) < 1:
        assert asking.is_alive()
    assert own.end() == 0
    asking.join()
    assert own.events("end")[0]["all_answered"] is False
