"""A server's side killed at chosen points of taking versions over: reading, each table's rows, the swap.

Nothing of it is on the disk, so what counts is how it starts again: at a whole version, not before one it has shown.
"""

from __future__ import annotations

import os
import shutil
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.faults import forked

VERSIONS = 9
_WAIT = 120.0  # seconds


def write_versions(folder: Path) -> None:
    """A chain of versions that are their numbers, in `folder/state`; the manifests but the first in `folder/later`."""
    from tests.serving.versions.numbered import publish_number
    from tests.serving.versions.trainer_for_tests import trainer

    with trainer(folder / "state") as made:
        for number in range(1, VERSIONS + 1):
            publish_number(made, number, snapshot=number == 5)
    (folder / "later").mkdir()
    for number in range(2, VERSIONS + 1):
        name = f"serving-{number:010d}.json"
        (folder / "state" / "manifests" / name).rename(folder / "later" / name)


class _Points:
    """Counts the points at which a kill may come, and kills at one.

    Args:
        nth: at which, from 1 on; 0: at none.
    """

    def __init__(self, nth: int) -> None:
        self.count = 0
        self._nth = nth

    def pass_by(self) -> None:
        """One of them."""
        self.count += 1
        if self.count == self._nth:
            os.kill(os.getpid(), signal.SIGKILL)

    def around(self, owner: Any, name: str) -> None:
        """A point before and after each call."""
        function: Callable[..., Any] = getattr(owner, name)

        def called(*arguments: Any, **options: Any) -> Any:
            self.pass_by()
            found = function(*arguments, **options)
            self.pass_by()
            return found

        setattr(owner, name, called)


def _serve(folder: Path, nth: int) -> None:
    """Follows while manifests appear; writes what a client sees to `folder/seen`, and at the end how many points."""
    from embtables.serving.versions import catch_up
    from embtables.serving.versions.follow import Following, FollowSettings
    from embtables.serving.versions.live import Live
    from embtables.tables.served_tables import ServedTables

    points, live = _Points(nth), Live()
    points.around(ServedTables, "take_over")
    points.around(Live, "put")
    points.around(catch_up, "read_delta")
    seen = os.open(folder / "seen", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)

    def look() -> None:
        last = None
        while True:
            version = live.wait(0.001)
            if version is not None and version.name != last:
                last = version.name
                os.pwrite(seen, last.ljust(32).encode(), 0)

    threading.Thread(target=look, daemon=True).start()
    following = Following(folder / "state", live, FollowSettings(poll_seconds=0.02, look_seconds=0.02))
    following.start()
    assert live.wait(_WAIT, "serving-1") is not None
    for manifest in sorted((folder / "later").iterdir()):
        manifest.rename(folder / "state" / "manifests" / manifest.name)
        version = live.wait(_WAIT, f"serving-{int(manifest.stem.rpartition('-')[2])}")
        assert version is not None
    (folder / "points").write_text(str(points.count))
    os._exit(0)


def _run(folder: Path, nth: int) -> int:
    """The exit code of a process of its own."""
    process = forked.started(_serve, folder, nth)
    process.join(_WAIT)
    assert process.exitcode is not None, "the process hangs"
    return process.exitcode


def points(folder: Path) -> int:
    """How many points a run that is not disturbed passes; `folder` has the versions."""
    own = folder.with_name(folder.name + "-undisturbed")
    shutil.copytree(folder, own)
    assert _run(own, 0) == 0
    found = int((own / "points").read_text())
    shutil.rmtree(own)
    return found


def survive(folder: Path, nth: int) -> str:
    """Kills a run there, and starts again. Returns the version at which that begins."""
    from embtables.serving.refusals import Refusal
    from embtables.serving.versions.follow import Following
    from embtables.serving.versions.live import Live
    from tests.serving.versions.numbered import assert_numbered

    own = folder.with_name(f"{folder.name}-{nth}")
    shutil.copytree(folder, own)
    assert _run(own, nth) == -signal.SIGKILL, f"the kill at point {nth} did not fire"
    there = sorted((own / "state" / "manifests").iterdir())
    seen = (own / "seen").read_text().strip()
    live = Live()
    following = Following(own / "state", live)
    if seen:
        try:
            live.at_least(seen, seen)
            raise AssertionError("a server without a version has answered")
        except Refusal as refusal:
            assert refusal.status == 503
    following.start()
    try:
        version = live.wait(_WAIT)
        assert version is not None, following.why_not_ready()
        assert version.name == f"serving-{len(there)}", "not the newest whole version"
        assert_numbered(version)
        if seen:
            assert live.at_least(seen, seen) is version
        for manifest in sorted((own / "later").iterdir()):
            manifest.rename(own / "state" / "manifests" / manifest.name)
        last = live.wait(_WAIT, f"serving-{VERSIONS}")
        assert last is not None
        assert_numbered(last)
        assert not sum(following.info().rejected.values())
    finally:
        following.stop()
    shutil.rmtree(own)
    return version.name
