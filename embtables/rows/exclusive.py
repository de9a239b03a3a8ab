"""One thread at a time at a row store, and none in a forked child.

A store's rows move while they are updated, so that a thread that reads beside one that trains would read freed memory:
they wait for each other. A child that was forked has the memory of the threads that do the store's work, but not the
threads: whatever it asks of them would never end.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from functools import wraps
from typing import Concatenate, ParamSpec, Protocol, TypeVar

from embtables.errors import StateError


class _Forks:
    """Whether this process was forked from one that had row stores."""

    had_stores = False
    is_child = False


def _after_fork() -> None:
    _Forks.is_child = _Forks.is_child or _Forks.had_stores


os.register_at_fork(after_in_child=_after_fork)


def refuse_forked() -> None:
    """Raises StateError in a child that was forked after its parent had used tables."""
    if _Forks.is_child:
        raise StateError(
            "this process was forked from one that had used its tables, but a fork has none of the threads for rows: "
            "use the start method 'spawn' (multiprocessing.get_context('spawn'))"
        )


class StoreLock:
    """Held for a whole operation; the thread that holds it may take it again.

    Raises:
        StateError: when it is made or taken in a forked child.
    """

    def __init__(self) -> None:
        refuse_forked()
        _Forks.had_stores = True
        self._lock = threading.RLock()

    def __enter__(self) -> None:
        if _Forks.is_child:  # before the lock, which another thread may have held at the fork
            refuse_forked()
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()


class HasLock(Protocol):
    """What has the lock of a store."""

    @property
    def lock(self) -> StoreLock:
        """The lock."""


S = TypeVar("S", bound=HasLock)
P = ParamSpec("P")
R = TypeVar("R")


def exclusive(method: Callable[Concatenate[S, P], R]) -> Callable[Concatenate[S, P], R]:
    """A method that holds the object's lock. Where memory runs out in it, it raises a StateError."""

    @wraps(method)
    def held(self: S, /, *args: P.args, **kwargs: P.kwargs) -> R:
        with self.lock:
            try:
                return method(self, *args, **kwargs)
            except MemoryError as error:
                raise StateError(f"memory ran out in {method.__name__}: {error}") from error

    return held
