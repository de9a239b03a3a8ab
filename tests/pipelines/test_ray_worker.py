"""What is said reaches the user as it is, whatever the disk does meanwhile."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipelines.progress import say
from pipelines.ray_worker import Lines


def test_what_could_not_be_written_comes_with_what_is_said_next(tmp_path: Path) -> None:
    log = tmp_path / "there" / "rank0.log"
    lines = Lines(log)
    print("one", file=lines)
    log.parent.mkdir()
    print("two", file=lines)
    print("three", file=lines)
    assert log.read_text() == "one\ntwo\nthree\n"


def test_what_is_said_is_not_taken_for_markup(capsys: pytest.CaptureFixture[str]) -> None:
    text = "warning: [/gloo/transport/tcp/pair.cc:3] [bold] connection closed by peer :boom:"
    say(text)
    assert capsys.readouterr().err == text + "\n"
