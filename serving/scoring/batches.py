"""`Batches`: requests that wait are scored together, on threads beside the event loop.

A request never waits while a thread is free: with one request there is nothing to wait for. While all threads are
busy, requests gather, and the next free thread takes as many as fit, in the order in which they came. A thread that has
just answered several gives their clients a millisecond to ask again, if no other thread is free: scored together,
requests take half the time.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from embtables.serving.refusals import Refusal

_RETRY_SECONDS = 1
_AGAIN_NS = 1_000_000

R = TypeVar("R")
A = TypeVar("A")


@dataclass(eq=False, slots=True)
class _Waiting(Generic[R, A]):
    request: R
    rows: int
    answer: asyncio.Future[A]
    loop: asyncio.AbstractEventLoop
    since_ns: int = field(default_factory=time.perf_counter_ns)


class Batches(Generic[R, A]):
    """A bounded queue of requests, and threads that answer them.

    Args:
        answer: scores requests together, given how long each has waited, in microseconds: an answer for each, or the
            exception that it ends with.
        threads: how many batches are scored at a time.
        max_rows: rows of requests that are scored together; a larger request is scored alone.
        max_queue: requests that wait; a further one is refused.
        max_wait_ms: how long a free thread waits for more requests before it begins.
        begin: called by each thread first.
    """

    def __init__(
        self,
        answer: Callable[[Sequence[R], Sequence[float]], Sequence[A | BaseException]],
        *,
        threads: int,
        max_rows: int,
        max_queue: int,
        max_wait_ms: float = 0.0,
        begin: Callable[[], None] = lambda: None,
    ) -> None:
        self._answer, self._begin = answer, begin
        self._max_rows, self._max_queue, self._max_wait_ns = max_rows, max_queue, int(max_wait_ms * 1e6)
        self._waiting: deque[_Waiting[R, A]] = deque()
        self._rows = 0
        self._changed = threading.Condition()
        self._stopped = False
        self._idle = 0  # threads that wait for any request
        # They begin with the first request, in the process that answers: a fork before it would leave them behind.
        self._num_threads = threads
        self._threads: list[threading.Thread] = []

    async def ask(self, request: R, rows: int) -> A:
        """The answer to a request.

        Raises:
            Refusal: 429, too many requests wait; 503, the server is ending. Others: of the request.
        """
        loop = asyncio.get_running_loop()
        waiting = _Waiting[R, A](request, rows, loop.create_future(), loop)
        with self._changed:
            if self._stopped:
                raise Refusal(503, "the server is ending; ask another one", retry_after=_RETRY_SECONDS)
            if len(self._waiting) >= self._max_queue:
                reason = f"{len(self._waiting)} requests are waiting to be scored; ask again"
                raise Refusal(429, reason, retry_after=_RETRY_SECONDS)
            if not self._threads:
                self._start()
            self._waiting.append(waiting)
            self._rows += rows
            self._changed.notify()
        return await waiting.answer

    def _start(self) -> None:
        self._threads = [
            threading.Thread(target=self._work, name=f"embtables-score-{number}", daemon=True)
            for number in range(self._num_threads)
        ]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Answers what waits, and ends the threads."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    def _work(self) -> None:
        self._begin()
        answered = 0
        while (batch := self._next(answered)) is not None:
            answered = len(batch)
            now = time.perf_counter_ns()
            requests = [waiting.request for waiting in batch]
            waited = [(now - waiting.since_ns) / 1e3 for waiting in batch]
            try:
                answers = self._answer(requests, waited)
            except BaseException as error:  # the thread goes on, and the requests end
                answers = [error] * len(batch)
            self._tell(batch, answers)

    def _next(self, answered: int) -> list[_Waiting[R, A]] | None:
        """The requests to score next, at least one; None: the thread ends. `answered`: by this thread just before."""
        with self._changed:
            if answered > 1:
                until_ns = time.perf_counter_ns() + _AGAIN_NS
                while not self._idle and self._is_awaited(answered, until_ns):
                    self._changed.wait(max(0, until_ns - time.perf_counter_ns()) / 1e9)
            while True:
                while not self._waiting:
                    if self._stopped:
                        return None
                    self._idle += 1
                    self._changed.wait()
                    self._idle -= 1
                until_ns = self._waiting[0].since_ns + self._max_wait_ns
                while self._waiting and self._is_awaited(self._max_queue, until_ns):
                    self._changed.wait(max(0, until_ns - time.perf_counter_ns()) / 1e9)
                if batch := self._taken():
                    return batch

    def _is_awaited(self, requests: int, until_ns: int) -> bool:
        """Whether fewer than so many requests wait, and fewer rows than are scored together, and there is time left."""
        is_full = len(self._waiting) >= requests or self._rows >= self._max_rows or self._stopped
        return not is_full and time.perf_counter_ns() < until_ns

    def _taken(self) -> list[_Waiting[R, A]]:
        """As many requests as are scored together, the first ones that came; none if their clients have gone."""
        batch: list[_Waiting[R, A]] = []
        rows = 0
        while self._waiting and (not batch or rows + self._waiting[0].rows <= self._max_rows):
            waiting = self._waiting.popleft()
            self._rows -= waiting.rows
            if not waiting.answer.cancelled():
                rows += waiting.rows
                batch.append(waiting)
        return batch

    @staticmethod
    def _tell(batch: Sequence[_Waiting[R, A]], answers: Sequence[A | BaseException]) -> None:
        by_loop: dict[asyncio.AbstractEventLoop, list[tuple[asyncio.Future[A], A | BaseException]]] = {}
        for waiting, answer in zip(batch, answers, strict=True):
            by_loop.setdefault(waiting.loop, []).append((waiting.answer, answer))
        for loop, told in by_loop.items():
            try:
                loop.call_soon_threadsafe(_set, told)
            except RuntimeError:  # the loop has ended, and whoever asked with it
                continue


def _set(told: Sequence[tuple[asyncio.Future[A], A | BaseException]]) -> None:
    for future, answer in told:
        if future.done():
            continue
        if isinstance(answer, BaseException):
            future.set_exception(answer)
        else:
            future.set_result(answer)
