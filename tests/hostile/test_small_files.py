"""Lease, pins and what lies in place of files: each is refused by name, without a traceback and without waiting."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from embtables.errors import StateError
from embtables.state import find_version, list_versions, read_rows
from embtables.state.folder.version_folder import LeaseHolder, StateFolder, VersionKind
from tests.state.versions_for_tests import write

DEEP = b"[" * 30_000
NESTED = b'{"purpose":' + b'{"a":' * 200 + b"1" + b"}" * 201
VALUES: dict[str, bytes] = {
    "empty": b"",
    "zeros": bytes(100),
    "no text": b"\xff\xfe",
    "null": b"null",
    "a list": b"[]",
    "a number": b"7",
    "a string": b'"resume-1"',
    "without end": DEEP,
    "nested": NESTED,
    "huge": b" " * (1 << 17),
    "a huge number": b"1" * 5000,
    "nothing": b"{}",
}
PINS: dict[str, bytes] = VALUES | {
    name: json.dumps(fields).encode()
    for name, fields in {
        "another purpose": {"purpose": "x", "sequence": 1},
        "a list for purpose": {"purpose": ["resume"], "sequence": 1},
        "zero": {"purpose": "resume", "sequence": 0},
        "true": {"purpose": "resume", "sequence": True},
        "a word": {"purpose": "resume", "sequence": "1"},
        "a fraction": {"purpose": "resume", "sequence": 1.5},
        "beyond": {"purpose": "resume", "sequence": 10**30},
        "infinite": {"purpose": "resume", "sequence": float("inf")},
        "more": {"purpose": "resume", "sequence": 1, "more": 1},
    }.items()
}
LEASES: dict[str, bytes] = VALUES | {
    name: json.dumps(fields).encode()
    for name, fields in {
        "a word": {"epoch": "1", "holder": "x"},
        "true": {"epoch": True, "holder": "x"},
        "negative": {"epoch": -1, "holder": "x"},
        "beyond": {"epoch": 2**63 - 1, "holder": "x"},
        "infinite": {"epoch": float("inf"), "holder": "x"},
        "a list": {"epoch": 1, "holder": ["x"]},
        "long": {"epoch": 1, "holder": "x" * 5000},
    }.items()
}


def fifo(path: Path) -> None:
    os.mkfifo(path)


def folder_in_its_place(path: Path) -> None:
    path.mkdir()


def device(path: Path) -> None:
    path.symlink_to("/dev/zero")


OTHERS = {"a named pipe": fifo, "a folder": folder_in_its_place, "a device": device}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write(tmp_path, 2)
    return tmp_path


@pytest.mark.parametrize("what", PINS)
def test_a_damaged_pin_is_refused(folder: Path, what: str) -> None:
    path = folder / "pins" / "best.json"
    path.write_bytes(PINS[what])
    state = StateFolder(folder)
    for use in (lambda: state.pinned("best"), lambda: find_version(state, "best")):
        with pytest.raises(StateError, match=r"best.json: (is damaged|has 131,072 bytes)"):
            use()
    with LeaseHolder(state) as writer, pytest.raises(StateError, match=r"best.json"):
        writer.collect({"resume": 1})
    assert list_versions(state) == ["resume-1", "resume-2"]


@pytest.mark.parametrize("what", LEASES)
def test_a_damaged_lease_is_refused(folder: Path, what: str) -> None:
    """It is not begun anew: a lease number that falls would make the next versions unreadable."""
    (folder / "lease.json").write_bytes(LEASES[what])
    with pytest.raises(StateError, match=r"(?s)lease.json: (is damaged|has 131,072 bytes).*; remove it"):
        LeaseHolder(StateFolder(folder)).__enter__()
    (folder / "lease.json").unlink()
    with LeaseHolder(StateFolder(folder)) as writer:
        assert writer.lease_number == StateFolder(folder).manifest("resume", 2).writer + 1


@pytest.mark.parametrize("what", LEASES)
def test_a_lease_that_is_damaged_while_it_is_held(folder: Path, what: str) -> None:
    with LeaseHolder(StateFolder(folder)) as writer:
        (folder / "lease.json").write_bytes(LEASES[what])
        with pytest.raises(StateError, match=r"lease.json"):
            writer.begin(VersionKind("resume", 2))
        with pytest.raises(StateError, match="is being written by another process"):
            LeaseHolder(StateFolder(folder)).__enter__()


@pytest.mark.parametrize("what", OTHERS)
@pytest.mark.parametrize(
    "name",
    ["lease.json", "lease.lock", "pins/best.json", "manifests/resume-0000000002.json", "grows.rows.0.arrow"],
)
def test_what_is_no_regular_file_is_refused_without_waiting(folder: Path, name: str, what: str) -> None:
    state = StateFolder(folder)
    path = folder / name
    if name.endswith(".arrow"):
        path = folder / "versions" / state.manifest("resume", 2).folder / name
    path.unlink(missing_ok=True)
    OTHERS[what](path)
    uses: dict[str, Callable[[], object]] = {
        "lease.json": lambda: LeaseHolder(state).__enter__(),
        "lease.lock": lambda: LeaseHolder(state).__enter__(),
        "pins/best.json": lambda: state.pinned("best"),
        "manifests/resume-0000000002.json": lambda: state.manifest("resume", 2),
        "grows.rows.0.arrow": lambda: list(read_rows(state, "grows")),
    }
    with pytest.raises(StateError, match=f"is {what}, not a regular file|is a directory|Is a directory"):
        uses[name]()


@pytest.mark.parametrize("name", ["manifests", "pins", "versions"])
def test_a_file_in_place_of_a_folder(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"x")
    state = StateFolder(tmp_path)
    if name != "versions":
        with pytest.raises(StateError, match="cannot be read: Not a directory"):
            state.sequences("resume") if name == "manifests" else state.pins()
    else:
        with LeaseHolder(state) as writer, pytest.raises(StateError, match="Not a directory"):
            writer.begin(VersionKind("resume"))
