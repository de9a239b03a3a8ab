"""`Following`: the one thread that loads versions, follows the trainer, and does what an operator asks for.

a manifest appears -> woken by the system's events, or by looking -> CatchUp.run -> Live
pin, roll back, follow, pause -> done on the same thread, so that nothing else changes rows meanwhile
"""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable
from concurrent.futures import CancelledError, Future
from concurrent.futures import TimeoutError as NotDoneError
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from embtables.errors import ConfigError, EmbtablesError, StateError
from embtables.serving import wire
from embtables.serving.refusals import Refusal
from embtables.serving.versions.catch_up import CatchUp
from embtables.serving.versions.checks import ValueLimits
from embtables.serving.versions.listing import Listing, version_before
from embtables.serving.versions.live import Live, place_of
from embtables.serving.versions.set_aside import SetAside
from embtables.serving.versions.watch import FolderWatch
from embtables.state.folder.version_folder import MANIFESTS, StateFolder
from embtables.state.read.find import find

Mode = Literal["following", "pinned", "paused"]

_AFTER_FAULT_SECONDS = 10.0

_log = logging.getLogger("embtables.serving.versions")


@dataclass(frozen=True, slots=True)
class FollowSettings:
    """How versions are followed.

    Attributes:
        poll_seconds: how often a folder is listed whose file system tells nothing of changes.
        look_seconds: the same where it does, in case that an event is lost.
        command_seconds: how long an operator's request may take.
        limits: what values a version may hold.
    """

    poll_seconds: float = 0.25
    look_seconds: float = 1.0
    command_seconds: float = 120.0
    limits: ValueLimits = field(default_factory=ValueLimits)


class _Interrupted(Exception):  # noqa: N818 - nothing failed
    """What is being read is given up: there is something else to do."""


def open_served(folder: Path | str) -> StateFolder:
    """The versions in a run's folder or in a state folder, which may have none yet.

    Raises:
        ConfigError: it is neither.
    """
    place = Path(folder)
    if (place / "checkpoints").is_dir():
        return StateFolder(place / "checkpoints")
    if (place / MANIFESTS).is_dir():
        return StateFolder(place)
    if (place / "config.yaml").is_file():  # of a run before its first checkpoint
        return StateFolder(place / "checkpoints")
    what = "has no versions" if place.is_dir() else "is no folder"
    raise ConfigError(f"{what}: give the folder of a run, or one with {MANIFESTS}/ in it", folder=place)


class Following:
    """Follows the versions for servers of a folder, and puts them into `live`.

    A folder without such versions is served at its run's best checkpoint, or else at its last, until there are some.

    Args:
        folder: of a run or of versions.
        live: what requests read.
        settings: how.
        version: the version to begin with and to stay at, as if `pin` had been called; by default the newest.

    Raises:
        ConfigError: the folder is neither, or the version is not a name.
    """

    def __init__(
        self,
        folder: Path | str,
        live: Live,
        settings: FollowSettings | None = None,
        version: str | None = None,
    ) -> None:
        self._settings = settings or FollowSettings()
        self._state = open_served(folder)
        self._live = live
        self.set_aside = SetAside()
        self._catch_up = CatchUp(self._state, live, self.set_aside, self._settings.limits, self._give_way_if_asked)
        self._listing = Listing(self._state)
        self._mode: Mode = "following"
        self._commands: queue.SimpleQueue[tuple[Callable[[], Any], Future[Any]]] = queue.SimpleQueue()
        self._in_command = False
        self._wake, self._stopping = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="follow-versions", daemon=True)
        place = Path(str(self._state.folder.path(MANIFESTS)))
        self._watch = FolderWatch(place, self._wake.set, retry_seconds=self._settings.poll_seconds)
        self.last_error: str | None = None
        self._wanted = version
        if version is not None:
            _need_name(version)
            self._live.is_held, self._mode = True, "pinned"

    def start(self) -> None:
        """Begins, on threads of its own; after any fork."""
        self._watch.start()
        self._thread.start()

    def stop(self) -> None:
        """Ends, and waits for its threads. What answers goes on answering."""
        self._stopping.set()
        self._wake.set()
        self._watch.stop()
        if self._thread.ident is not None:  # it was started
            self._thread.join()
        self._refuse_commands()

    @property
    def folder(self) -> Path:
        """The folder of the versions."""
        return Path(str(self._state.folder.root))

    def pin(self, version: str) -> None:
        """Answers with this version, and stays there until `follow`; returns when it does.

        Raises:
            Refusal: 404: there is no such version, any more; 409: it is damaged, or its values are refused; 503: not
                done in time.
        """
        self._ask(lambda: self._pin(version))

    def version_before(self) -> str:
        """The version to pin in order to roll back. Raises Refusal 404: there is none; 503: nothing answers yet."""
        current = self._live.current
        if current is None:
            raise Refusal(503, "no version is loaded yet; ask again", retry_after=1)
        return version_before(self._state, current.manifest)

    def follow(self) -> None:
        """Goes to the newest version, and follows. Raises Refusal 503 if the thread is busy."""
        self._ask(self._follow)

    def pause(self) -> None:
        """Stays at the present version. Raises Refusal 503 if the thread is busy."""
        self._ask(self._pause)

    def info(self) -> wire.FollowInfo:
        """How it follows, from what was seen last; reads no files."""
        last = self.set_aside.last
        aside = {rejected.version for rejected in last}
        return wire.FollowInfo(
            state=self._mode,
            available=[name for name in self._listing.names if name not in aside or name == self._current_name],
            newest=self._listing.newest,
            applied_versions=self._catch_up.applied_versions,
            applied_rows=self._catch_up.applied_rows,
            applied_tombstones=self._catch_up.applied_tombstones,
            rejected=self.set_aside.counts,
            last_rejected=last[-1] if last else None,
        )

    def why_not_ready(self) -> str | None:
        """Why nothing answers yet; None if something does."""
        if self._live.current is not None:
            return None
        if self.last_error is not None:
            return self.last_error
        last = self.set_aside.last
        return f"no version of {self.folder} is loaded yet" + (f": {last[-1].detail}" if last else "")

    @property
    def _current_name(self) -> str | None:
        return None if self._live.current is None else self._live.current.name

    # All that follows runs on the thread.

    def _run(self) -> None:
        while not self._stopping.is_set():
            self._wake.clear()
            seconds = self._settings.poll_seconds
            try:
                self._do_commands()
                self._turn()
                self.last_error = None
                if self._watch.is_watching:
                    seconds = self._settings.look_seconds
            except _Interrupted:
                continue
            except EmbtablesError as error:
                self._failed(str(error))
            except Exception as error:
                # A fault of this program. It may load all there is again and again: not at once.
                self._failed(f"versions cannot be followed: {type(error).__name__}: {error}", error)
                seconds = max(seconds, _AFTER_FAULT_SECONDS)
            self._wake.wait(seconds)

    def _turn(self) -> None:
        if self._wanted is not None:
            wanted, self._wanted = self._wanted, None
            try:
                self._catch_up.pin(find(self._state.folder, wanted))
            except BaseException:
                self._wanted = wanted
                raise
        if self._mode == "following":
            self._catch_up.run()
        self._listing.look()

    def _failed(self, text: str, fault: Exception | None = None) -> None:
        if text != self.last_error:
            _log.error("%s", text, exc_info=fault)
        self.last_error = text

    def _give_way_if_asked(self) -> None:
        """Ends what is being read if the server stops, or if an operator asks for something meanwhile."""
        if self._stopping.is_set() or (not self._in_command and not self._commands.empty()):
            raise _Interrupted

    def _do_commands(self) -> None:
        while not self._stopping.is_set():
            try:
                command, answer = self._commands.get_nowait()
            except queue.Empty:
                return
            if not answer.set_running_or_notify_cancel():
                continue
            self._in_command = True
            try:
                answer.set_result(command())
            except BaseException as error:
                answer.set_exception(error)
            finally:
                self._in_command = False

    def _refuse_commands(self) -> None:
        while not self._commands.empty():
            _, answer = self._commands.get()
            answer.cancel()

    def _ask(self, command: Callable[[], Any]) -> Any:
        """Has the thread do something; returns what it returns."""
        answer: Future[Any] = Future()
        self._commands.put((command, answer))
        self._wake.set()
        if self._stopping.is_set():
            answer.cancel()
        try:
            return answer.result(self._settings.command_seconds)
        except NotDoneError:
            answer.cancel()
            seconds = f"{self._settings.command_seconds:g}"
            raise Refusal(503, f"not done within {seconds} seconds: a version is being loaded", retry_after=5) from None
        except (_Interrupted, CancelledError):
            raise Refusal(503, "the server stops") from None

    def _pin(self, version: str) -> None:
        try:
            chain = find(self._state.folder, version)
        except StateError as error:
            raise Refusal(404, str(error), "version") from None
        was_held, self._live.is_held = self._live.is_held, True
        try:
            self._catch_up.pin(chain)
        except BaseException as error:
            self._live.is_held = was_held
            if isinstance(error, StateError):
                raise self._not_pinned(version, error) from None
            raise
        self._wanted = None
        self._mode = "pinned"
        _log.info("pinned to %s", version, extra={"version": version})

    def _not_pinned(self, version: str, error: StateError) -> Refusal:
        try:
            find(self._state.folder, version)
        except StateError as gone:
            return Refusal(404, f"{version} was removed meanwhile: {gone}", "version")
        return Refusal(409, f"{version} cannot be served: {error}", "version")

    def _follow(self) -> None:
        self._wanted = None
        self._mode = "following"
        self._live.is_held = False
        self._catch_up.unpin()

    def _pause(self) -> None:
        self._mode = "paused"
        self._live.is_held = True
        _log.info("paused at %s", self._current_name)


def _need_name(version: str) -> None:
    try:
        if version not in ("best", "last"):
            place_of(version)
    except Refusal as refusal:
        raise ConfigError(refusal.reason, argument="version") from None
