"""Work that every rank does by itself, and the result of each: all ranks get all results, or the error.

One rank's disk may be slower than another's by any time. So those that are done wait in rounds, and those that still
work take part in them: silence alone ends the wait.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import TYPE_CHECKING, Any

from embtables.errors import EmbtablesError, StateError

if TYPE_CHECKING:  # a process alone writes without torch
    from embtables.shard.world import World

ROUND_SECONDS = 15.0  # well below the time after which a silent rank counts as gone (shard/world.py)


def gather_results(world: World | None, work: Callable[[], Any]) -> list[Any]:
    """What `work` returns at each rank, which is JSON; of one rank, or of a process alone, whatever it is.

    Raises:
        StateError: it failed at some rank, which is named; with the same text at all of them. A failure that is no
            error of the state's is raised as it is at the rank that had it.
        WorldError: a rank is gone or silent.
    """
    if world is None or world.size == 1:
        return [work()]
    with ThreadPoolExecutor(1, thread_name_prefix=f"state.{world.rank}") as thread:
        going = thread.submit(work)
        while not _all_are_done(world, going):
            continue
        error = going.exception()
        raw = {"done": going.result()} if error is None else {"error": _described(error, world.rank)}
        ranks = [json.loads(each) for each in world.gather_bytes(json.dumps(raw).encode())]
    failed = next((each["error"] for each in ranks if "error" in each), None)
    if failed is None:
        return [each["done"] for each in ranks]
    if error is not None and not isinstance(error, EmbtablesError):
        raise error
    raise StateError(failed["message"], **failed["path"]) from error


def _all_are_done(world: World, going: Future[Any]) -> bool:
    """One round: each rank says whether its work is done; if it is not, it waits a while first."""
    wait([going], ROUND_SECONDS)
    return all(each == b"done" for each in world.gather_bytes(b"done" if going.done() else b"works"))


def _described(error: BaseException, rank: int) -> dict[str, Any]:
    if isinstance(error, EmbtablesError):
        path = {key: value if isinstance(value, int) else str(value) for key, value in error.path.items()}
        return {"message": error.message, "path": {**path, "rank": rank}}
    return {"message": f"{type(error).__name__}: {error}", "path": {"rank": rank}}
