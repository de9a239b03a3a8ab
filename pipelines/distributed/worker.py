"""One rank of a run on Ray: what Ray Train calls in each of its worker processes.

    process group (gloo) -> world -> train or online, or resume if the run has a version -> rank 0 writes the report

A user's mistake ends the run at once: the rank that finds it writes it to a file for the driver and returns, because
Ray would start everything again after an exception. Everything else raises: Ray then starts all ranks again, and they
continue from the last version.
"""

from __future__ import annotations

import contextlib
import errno
import importlib
import io
import json
import logging
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from embtables.errors import EmbtablesError, StateError, WorldError
from embtables.pipelines.distributed.model_code import know
from embtables.pipelines.run_dir import RunDir
from embtables.pipelines.training.signals import InterruptedRunError

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT)  # of no use to be tried again
_ROOM = 16_384  # bytes of what a rank writes down


@dataclass(frozen=True)
class OnlineWork:
    """What the ranks of an online run do.

    Attributes:
        kind: of a new run; None: that of the run which goes on.
        speed, drains: see embtables.pipelines.online.run_online.online.
    """

    kind: Literal["replay", "events"] | None
    speed: float | None
    drains: bool


@dataclass(frozen=True)
class Settings:
    """What the driver passes to the ranks; plain values.

    Attributes:
        run: the run's folder, which all ranks see.
        folder: the driver's working folder, to which paths of the configuration may be relative.
        overrides: KEY=VALUE over the run's configuration, if an earlier run goes on.
        goes_on: an earlier run goes on.
        former, which, fresh: see embtables.pipelines.training.train.train.
        threads: torch threads of each rank.
        token: a text of this command's own, in the names of the files that the ranks write for it.
        online: None: it is a training run.
    """

    run: str
    folder: str
    overrides: tuple[str, ...]
    goes_on: bool
    former: str | None
    which: Any
    fresh: tuple[str, ...]
    threads: int
    token: str
    online: OnlineWork | None = None

    @property
    def error_file(self) -> Path:
        """Where a rank writes a user's mistake."""
        return Path(self.run) / f"error-{self.token}.json"

    def spare_file(self, rank: int) -> Path:
        """Room for what a rank writes there: a disk that fills up meanwhile does not take it away."""
        return self.error_file.with_suffix(f".{rank}.spare")

    @property
    def log_file(self) -> Path:
        """What rank 0 says to the user."""
        return Path(self.run) / f"rank0-{self.token}.log"

    def to_json(self) -> dict[str, Any]:
        """Plain values for Ray, which hands them to the workers."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Settings:
        """Of what `to_json` gave."""
        online = values["online"]
        return cls(**{**values, "online": None if online is None else OnlineWork(**online)})


@contextlib.contextmanager
def keeping_room(settings: Settings, ranks: int) -> Iterator[None]:
    """While entered, a rank can write down a mistake also on a full disk, unless that copies what is written over.

    Raises:
        StateError: the disk has no room for that.
    """
    with contextlib.ExitStack() as stack:
        try:
            for file in map(settings.spare_file, range(ranks)):
                stack.callback(file.unlink, missing_ok=True)
                file.write_bytes(b" " * _ROOM)
        except OSError as error:
            raise StateError(f"cannot be written: {error.strerror}", run=settings.run) from error
        yield


class Lines(io.TextIOBase):
    """Text that is appended to a file at once, or, while its disk is full or fails, together with the next text."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._held = b""

    def write(self, text: str) -> int:
        """See io.TextIOBase."""
        self._held += text.encode()
        self.flush()
        return len(text)

    def flush(self) -> None:
        """See io.TextIOBase."""
        try:
            file = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
            try:
                while self._held:
                    self._held = self._held[os.write(file, self._held) :]
            finally:
                os.close(file)
        except OSError:
            return


def work(values: Mapping[str, Any]) -> None:
    """Trains as one rank.

    Args:
        values: `settings`, and `model`: see model_code.py.
    """
    settings = Settings.from_json(values["settings"])
    if Path(settings.folder).is_dir():
        os.chdir(settings.folder)
    logging.getLogger("torch.fx._symbolic_trace").setLevel(logging.ERROR)
    import torch
    import torch.distributed as dist

    from embtables.shard.world import ProcessGroup

    importlib.import_module(
        "embtables.pipelines.training.train"
    )  # its libraries print as they are imported; the rest is for the user
    torch.set_num_threads(settings.threads)
    run = RunDir(Path(settings.run))
    world = ProcessGroup()
    if world.rank == 0:
        _take_back(settings, world.size)
    world.broadcast_bytes(b"")
    with contextlib.redirect_stderr(Lines(settings.log_file)) if world.rank == 0 else contextlib.nullcontext():
        try:
            know(values["model"])
            _train(settings, run, world)
        except WorldError as error:
            if not settings.error_file.exists():
                _report_restart(settings, world.rank, error)
                raise
        except EmbtablesError as error:
            _write_down(settings, world.rank, error)
            dist.destroy_process_group()  # the others notice at once
        except Exception as error:
            if not isinstance(error, OSError) or error.errno not in _NO_ROOM:
                _report_restart(settings, world.rank, error)
                raise
            _write_down(settings, world.rank, StateError(str(error.strerror), file=error.filename or settings.run))
            dist.destroy_process_group()


def _write_down(settings: Settings, rank: int, error: EmbtablesError) -> None:
    """Writes a user's mistake for the driver and the other ranks, which then know that nothing is to be tried again."""
    if settings.error_file.exists() or (isinstance(error, InterruptedRunError) and rank):
        return  # rank 0 knows why it was stopped
    path = {key: str(value) for key, value in error.path.items()}
    found = {"kind": type(error).__name__, "message": error.message, "path": path, "rank": rank}
    spare = settings.spare_file(rank)
    with contextlib.suppress(FileNotFoundError):  # the command has ended: nobody reads it
        with spare.open("r+b") as file:
            file.write(json.dumps(found).encode().ljust(_ROOM))
        spare.replace(settings.error_file)


def _take_back(settings: Settings, ranks: int) -> None:
    """Takes back what ranks wrote in an attempt that something else ended."""
    missing = [settings.spare_file(rank) for rank in range(ranks) if not settings.spare_file(rank).exists()]
    for spare in missing[:1] if settings.error_file.exists() else []:
        settings.error_file.replace(spare)
    for spare in missing:
        if not spare.exists():  # of several only the last one's is left
            spare.write_bytes(b" " * _ROOM)


def _report_restart(settings: Settings, rank: int, error: Exception) -> None:
    """Says what Ray does next; the traceback is in its logs. Rank 1 says it too: rank 0 may be the one that is gone."""
    from embtables.pipelines.progress import say

    # A rank whose node had stopped may find that the command has ended without it.
    if rank < 2 and settings.spare_file(rank).exists():
        said = str(error) if isinstance(error, EmbtablesError) else f"{type(error).__name__}: {error}"
        with contextlib.redirect_stderr(Lines(settings.log_file)):
            say(f"warning: {said}; all ranks are started again, train.max_restarts times at most")


def _train(settings: Settings, run: RunDir, world: Any) -> None:
    from embtables.pipelines.training.rank_agreement import rank_0_says
    from embtables.pipelines.training.shutdown import say_what_is_waited_for
    from embtables.state.folder.version_folder import StateFolder

    def on_error(error: EmbtablesError, waits: bool) -> None:
        # Before the version in writing is waited for, which the other ranks may take for silence.
        _write_down(settings, world.rank, error)
        with contextlib.redirect_stderr(Lines(settings.log_file)):
            say_what_is_waited_for(error, waits)

    common: dict[str, Any] = {"world": world, "shown": world.rank == 0, "on_error": on_error}
    # After a restart there may be versions of this run, where it did not go on from one.
    if settings.goes_on or rank_0_says(world, lambda: bool(StateFolder(run.checkpoints).sequences("resume"))):
        _go_on(settings, run, common)
    else:
        former = None if settings.former is None else RunDir.open(Path(settings.former))
        _begin(settings, run, {**common, "former": former, "which": settings.which, "fresh": settings.fresh})


def _begin(settings: Settings, run: RunDir, common: dict[str, Any]) -> None:
    if settings.online is None:
        from embtables.pipelines.training.train import train

        train(run.config(), run=run, **common)
        return
    from embtables.pipelines.online.run_online import online

    of = settings.online
    assert of.kind is not None, "a new run has a kind"
    online(run.config(), of.kind, run=run, speed=of.speed, drains=of.drains, **common)


def _go_on(settings: Settings, run: RunDir, common: dict[str, Any]) -> None:
    if settings.online is None:
        from embtables.pipelines.training.train import resume

        resume(run, settings.overrides, **common)
        return
    from embtables.pipelines.online.run_online import resume as resume_online

    resume_online(run, settings.overrides, speed=settings.online.speed, drains=settings.online.drains, **common)
