"""What tells of changes in a folder, and where nothing does."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from embtables.serving.versions.watch import FolderWatch, has_events

MOUNTS = r"""
/dev/vda / ext4 rw,relatime 0 0
overlay /var/lib/containers overlay rw 0 0
tmpfs /dev/shm tmpfs rw 0 0
server:/exports /mnt/shared nfs4 rw,vers=4.2 0 0
//nas/models /mnt/with\040blank cifs rw 0 0
s3fs /mnt/bucket fuse.s3fs rw 0 0
host /mnt/host 9p rw 0 0
/dev/vdb /mnt/shared/local xfs rw 0 0
tmpfs /mnt/twice nfs rw 0 0
/dev/vdc /mnt/twice ext4 rw 0 0
malformed
"""


@pytest.mark.parametrize(
    ("folder", "tells"),
    [
        ("/srv/models", True),
        ("/var/lib/containers/x", True),
        ("/dev/shm/models", True),
        ("/mnt/shared/models/manifests", False),
        ("/mnt/sharedother", True),
        ("/mnt/with blank/m", False),
        ("/mnt/bucket", False),
        ("/mnt/host/x", False),
        ("/mnt/shared/local/x", True),
        ("/mnt/twice/x", True),
    ],
)
def test_network_file_systems_tell_nothing(folder: str, tells: bool) -> None:
    assert has_events(Path(folder), MOUNTS) is tells


def test_where_mounts_are_unknown_nothing_is_promised() -> None:
    assert not has_events(Path("/srv"), "")


def test_a_change_is_told(tmp_path: Path) -> None:
    """Also in a folder that comes later, and in one that takes its place."""
    folder, changed = tmp_path / "manifests", threading.Event()
    watch = FolderWatch(folder, changed.set, retry_seconds=0.02)
    watch.start()
    try:
        for turn in range(2):
            folder.mkdir()
            while not watch.is_watching:  # the former folder's going may be told before
                assert changed.wait(60)
                changed.clear()
            for number in range(3):
                changed.clear()
                (folder / f"serving-{turn}{number}.json").write_text("{}")
                assert changed.wait(60)
            changed.clear()
            folder.rename(tmp_path / f"former{turn}")
    finally:
        watch.stop()
    assert not watch.is_watching
