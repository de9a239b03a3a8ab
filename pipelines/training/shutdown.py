"""The end of training: the last version is waited for; if an error ended training, it is reported first.

error -> reported at once -> the version that is being written is finished, then the error is raised; Ctrl-C gives it up
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from embtables.errors import EmbtablesError, StateError, WorldError
from embtables.pipelines.progress import say
from embtables.pipelines.run_place import RunPlace
from embtables.pipelines.training.signals import StopRequest
from embtables.shard.world import World
from embtables.state.folder.version_folder import StateFolder
from embtables.state.write.version_writer import VersionWriter

_SOON_SECONDS = 1.0  # what is on the disk by then needs no message

# Called with an error that ends training, and whether a version is still being written.
OnError = Callable[[EmbtablesError, bool], None]


def say_what_is_waited_for(error: EmbtablesError, waits: bool) -> None:
    """Reports an error at once that is raised when the version is on the disk."""
    if waits:
        say(f"{error}; waiting for the version that is being written, Ctrl-C gives it up")


def wait_for_last(chain: VersionWriter, run: RunPlace) -> None:
    """Until the last version is on the disk.

    Raises:
        StateError: it could not be written; names the command that continues from the one before, if there is one.
        WorldError: as VersionWriter.wait.
    """
    try:
        chain.wait()
    except StateError as error:
        if run.path is None or not StateFolder(run.checkpoints).sequences("resume"):
            raise
        reason = f"{error.message}; go on from the last one with: {run.resume_command()}"
        raise StateError(reason, **error.path) from error


def say_failures(chain: VersionWriter, world: World, then: str) -> None:
    """Rank 0 says what could not be written so far; the thread that writes may add to it meanwhile.

    Args:
        then: what comes of it, at the end of each sentence.
    """
    while chain.failures:
        error = chain.failures.pop(0)
        if world.rank == 0:
            say(f"warning: {error}{then}")


@contextmanager
def closing_chain(chain: VersionWriter, stop: StopRequest, on_error: OnError) -> Iterator[None]:
    """Closes the chain in the end.

    Args:
        stop: while the version is waited for after an error, the first Ctrl-C does not ask to save.
        on_error: is called with an error of this rank's own, before the version is waited for.
    """
    try:
        yield
    except BaseException as error:
        stop.at_once()
        try:
            if isinstance(error, KeyboardInterrupt):
                chain.abandon()
            elif isinstance(error, EmbtablesError) and not isinstance(error, WorldError):
                with suppress(OSError):  # where it cannot be reported yet; it is raised all the same
                    on_error(error, not chain.is_written(_SOON_SECONDS))
            chain.close()
        except KeyboardInterrupt:  # ends the wait; the error is the one to report
            chain.abandon()
            chain.close()
        raise
    chain.close()
