"""Requests that wait are scored together, in their order; a bounded number waits; every request ends."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence

import pytest

from embtables.serving.refusals import Refusal
from embtables.serving.scoring import batches as batches_module
from embtables.serving.scoring.batches import Batches


class Gate:
    """Answers with twice each request, once it is open; remembers what was asked together."""

    def __init__(self) -> None:
        self.open, self.entered = threading.Event(), threading.Event()
        self.seen: list[list[int]] = []

    def __call__(self, requests: Sequence[int], waited_us: Sequence[float]) -> list[int | BaseException]:
        assert len(waited_us) == len(requests)
        assert all(each >= 0 for each in waited_us)
        self.seen.append(list(requests))
        self.entered.set()
        self.open.wait()
        if 13 in requests:
            raise RuntimeError("broken")
        return [ValueError("odd") if request == 7 else 2 * request for request in requests]


def asked(gate: Gate, batches: Batches[int, int], requests: Sequence[int], rows: int = 10) -> list[int | BaseException]:
    """The first request is taken while nothing else waits; the others come while it is answered."""

    async def ask() -> list[int | BaseException]:
        tasks = []
        for number, request in enumerate(requests):
            tasks.append(asyncio.create_task(batches.ask(request, rows)))
            await asyncio.sleep(0)  # it is in the queue now
            if number == 0:
                await asyncio.to_thread(gate.entered.wait)
        gate.open.set()
        return await asyncio.gather(*tasks, return_exceptions=True)

    return asyncio.run(ask())


def test_what_waits_is_scored_together_up_to_a_number_of_rows() -> None:
    gate = Gate()
    batches = Batches[int, int](gate, threads=1, max_rows=30, max_queue=100)
    assert asked(gate, batches, range(1, 6)) == [2, 4, 6, 8, 10]
    assert gate.seen == [[1], [2, 3, 4], [5]]
    batches.stop()


def test_a_large_request_is_scored_alone() -> None:
    gate = Gate()
    batches = Batches[int, int](gate, threads=1, max_rows=5, max_queue=100)
    assert asked(gate, batches, [1, 2, 3]) == [2, 4, 6]
    assert gate.seen == [[1], [2], [3]]
    batches.stop()


def test_a_request_that_fails_does_not_touch_the_others_and_the_thread_goes_on() -> None:
    gate = Gate()
    batches = Batches[int, int](gate, threads=1, max_rows=20, max_queue=100)
    one, two, odd, thirteen, four, five = asked(gate, batches, [1, 2, 7, 13, 4, 5])
    assert [one, two, five] == [2, 4, 10]
    assert isinstance(odd, ValueError)
    assert [type(each) for each in (thirteen, four)] == [RuntimeError, RuntimeError]
    batches.stop()


def test_more_requests_than_may_wait_are_told_to_come_again() -> None:
    gate = Gate()
    batches = Batches[int, int](gate, threads=1, max_rows=100, max_queue=2)
    first, *waiting, refused = asked(gate, batches, [1, 2, 3, 4])
    assert [first, *waiting] == [2, 4, 6]
    assert isinstance(refused, Refusal)
    assert (refused.status, refused.retry_after) == (429, 1)
    batches.stop()


def test_who_has_gone_is_not_answered_and_what_waits_at_the_end_is() -> None:
    gate = Gate()
    batches = Batches[int, int](gate, threads=1, max_rows=100, max_queue=10)

    async def talk() -> list[int]:
        first = asyncio.create_task(batches.ask(1, 1))
        await asyncio.sleep(0)
        await asyncio.to_thread(gate.entered.wait)
        gone, last = (asyncio.create_task(batches.ask(request, 1)) for request in (2, 3))
        await asyncio.sleep(0)
        gone.cancel()
        await asyncio.sleep(0)
        stop = asyncio.create_task(asyncio.to_thread(batches.stop))
        gate.open.set()
        await stop
        with pytest.raises(Refusal, match="ending") as refused:
            await batches.ask(4, 1)
        assert refused.value.status == 503
        return [await first, await last]

    assert asyncio.run(talk()) == [2, 6]
    assert gate.seen == [[1], [3]]


def test_a_free_thread_waits_for_more_only_where_it_is_told_to() -> None:
    gate = Gate()
    gate.open.set()
    batches = Batches[int, int](gate, threads=1, max_rows=20, max_queue=10, max_wait_ms=60_000)

    async def ask() -> list[int]:
        return await asyncio.gather(*(batches.ask(request, 10) for request in (1, 2)))

    # Two requests of ten rows are a whole batch: they are answered long before the minute has passed.
    assert asyncio.run(ask()) == [2, 4]
    assert gate.seen == [[1, 2]]
    batches.stop()


def test_clients_that_were_answered_together_are_waited_for_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches_module, "_AGAIN_NS", 60 * 10**9)
    gate = Gate()
    batches = Batches[int, int](gate, threads=1, max_rows=100, max_queue=10)
    assert asked(gate, batches, [1, 2, 3]) == [2, 4, 6]
    assert gate.seen == [[1], [2, 3]]

    async def ask_again() -> list[int]:
        first = asyncio.create_task(batches.ask(4, 1))
        await asyncio.sleep(0)
        return await asyncio.gather(first, batches.ask(5, 1))

    assert asyncio.run(ask_again()) == [8, 10]
    assert gate.seen[2:] == [[4, 5]]
    batches.stop()


def test_a_request_does_not_wait_for_others_while_a_thread_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches_module, "_AGAIN_NS", 3600 * 10**9)
    gate = Gate()
    batches = Batches[int, int](gate, threads=2, max_rows=100, max_queue=10)
    asked(gate, batches, [1, 2, 3, 4])
    assert len(gate.seen[-1]) > 1
    assert asyncio.run(asyncio.wait_for(batches.ask(5, 1), 60)) == 10
    batches.stop()
