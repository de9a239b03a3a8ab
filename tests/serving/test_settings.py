"""Settings from flags and the environment: which goes before, what is refused and how it is named, secrets unseen."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from embtables.errors import ConfigError
from embtables.serving.settings import Settings

TOKEN = "a-token-of-at-least-16"


def test_a_flag_goes_before_the_environment() -> None:
    environment = {"EMBTABLES_SERVE_PORT": "9000", "EMBTABLES_SERVE_MAX_IDS": "5", "HOME": "/root"}
    found = Settings.read({"source": "run", "port": 1234, "threads": None}, environment)
    assert (found.port, found.max_ids, found.threads, found.host) == (1234, 5, None, "127.0.0.1")
    assert Settings.read({}, {"EMBTABLES_SERVE_SOURCE": "there"}).source == Path("there")


def test_the_environment_of_the_process_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMBTABLES_SERVE_MAX_QUEUE", "7")
    assert Settings.read({"source": "run"}).max_queue == 7


@pytest.mark.parametrize(
    ("flags", "environment", "text"),
    [
        ({}, {}, "or set EMBTABLES_SERVE_SOURCE"),
        ({"source": "run"}, {"EMBTABLES_SERVE_MAX_QEUE": "1"}, "did you mean EMBTABLES_SERVE_MAX_QUEUE?"),
        ({"source": "run"}, {"EMBTABLES_SERVE_": "1"}, "unknown EMBTABLES_SERVE_"),
        ({"source": "run"}, {"EMBTABLES_SERVE_port": "1"}, "did you mean EMBTABLES_SERVE_PORT?"),
        ({"source": "run"}, {"EMBTABLES_SERVE_PORT": "many"}, "EMBTABLES_SERVE_PORT: Input should be a valid integer"),
        ({"source": "run", "port": 70000}, {"EMBTABLES_SERVE_PORT": "1"}, "port: Input should be less than"),
        ({"source": "run", "max_candidate": 1}, {}, "did you mean 'max_candidates'?"),
        ({"source": "run", "max_candidates": 0}, {}, "max_candidates: Input should be greater than 0"),
        ({"source": "run", "body_seconds": "inf"}, {}, "body_seconds"),
        ({"source": "run", "mode": "quick"}, {}, "mode: Input should be 'exact' or 'fast'"),
        ({"source": "run", "admin_port": 8081}, {}, "admin_port needs a token"),
        ({"source": "run", "admin_port": 8080, "admin_tokens": TOKEN}, {}, "admin_port must be another one than port"),
        ({"source": "run", "admin_tokens": "short"}, {}, "a token has at least 16"),
        ({"source": "run", "admin_tokens": f"{TOKEN},{TOKEN},{TOKEN}"}, {}, "admin_tokens"),
        ({"source": "run", "admin_tokens": TOKEN, "admin_token_file": "f"}, {}, "not both"),
    ],
)
def test_what_is_wrong_is_named_as_it_was_written(
    flags: dict[str, Any], environment: dict[str, str], text: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        Settings.read(flags, environment)
    assert text in str(caught.value)
    assert TOKEN not in str(caught.value)
    assert "short" not in str(caught.value)


def test_tokens_are_not_shown() -> None:
    found = Settings.read({"source": "run", "admin_tokens": f"{TOKEN}, {TOKEN}2"}, {})
    assert found.tokens() == (TOKEN, f"{TOKEN}2")
    assert TOKEN not in repr(found)
    assert TOKEN not in found.model_dump_json()


def test_tokens_of_a_file(tmp_path: Path) -> None:
    file = tmp_path / "tokens"
    found = Settings.read({"source": "run", "admin_token_file": file}, {})
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        found.tokens()
    file.write_text(f"{TOKEN}\n\n  {TOKEN}2\n")
    assert found.tokens() == (TOKEN, f"{TOKEN}2")
    for wrong in ("", f"{TOKEN}\n" * 3, "short\n", f"{TOKEN}é\n"):
        file.write_text(wrong)
        with pytest.raises(ConfigError, match="tokens: "):
            found.tokens()
