"""A process that runs case after case, so that torch is imported once; killed and made anew where a case hangs it."""

from __future__ import annotations

import multiprocessing
from multiprocessing.connection import Connection
from pathlib import Path

from tests.fuzz.check import check
from tests.fuzz.trials.case import Verdict


def _serve(pipe: Connection, folder: Path) -> None:
    import torch

    torch.set_num_threads(1)
    while (case := pipe.recv()) is not None:
        seed, number = case
        pipe.send(check(seed, number, folder / f"{number}"))


class Worker:
    """The process; begun with the first case.

    Args:
        folder: an empty folder, for the cases' files.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._context = multiprocessing.get_context("spawn")
        self._start()

    def _start(self) -> None:
        self._pipe, theirs = self._context.Pipe()
        self._process = self._context.Process(target=_serve, args=(theirs, self._folder), daemon=True)
        self._process.start()
        theirs.close()

    def check(self, seed: int, number: int, seconds: float) -> Verdict:
        """A case's verdict; `hang` after so many seconds, `died` if the process did."""
        try:
            self._pipe.send((seed, number))
            if self._pipe.poll(seconds):
                verdict: Verdict = self._pipe.recv()
                return verdict
        except (EOFError, OSError):
            self._process.join()
            status = self._process.exitcode
            self._start()
            return Verdict("died", f"the process ended with {status}")
        self._process.kill()
        self._process.join()
        self._start()
        return Verdict("hang", f"no answer within {seconds:.0f} s")

    def restart(self) -> None:
        """A new process."""
        self.stop()
        self._start()

    def stop(self) -> None:
        """Ends the process."""
        self._pipe.send(None)
        self._process.join()
