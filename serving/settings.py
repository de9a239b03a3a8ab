"""`Settings`: how a server runs, from the flags of `embtables serve` and from `EMBTABLES_SERVE_*`, read here alone.

A flag goes before the environment. `EMBTABLES_SERVE_MAX_CANDIDATES=500` sets `max_candidates`; a name that begins so
and is no setting is an error, since it was meant to limit something and would not.
"""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, PositiveInt, SecretStr, ValidationError, model_validator

from embtables.errors import ConfigError
from embtables.schema.base import Model, error_lines

PREFIX = "EMBTABLES_SERVE_"
MAX_TOKENS = 2
_LEAST_TOKEN = 16

Port = Annotated[int, Field(ge=0, le=65535, description="0: any free port")]
Seconds = Annotated[float, Field(gt=0, le=86_400)]


def _split(value: Any) -> Any:
    """A text with commas, as the environment has lists, as its parts."""
    return tuple(part.strip() for part in value.split(",")) if isinstance(value, str) else value


class Settings(Model):
    """How a server runs. All have defaults but `source`.

    Example:
        >>> from embtables.serving.settings import Settings
        >>> Settings.read({"source": "runs/mine", "port": 0}, {"EMBTABLES_SERVE_MAX_IDS": "100"}).max_ids
        100
        >>> Settings.read({"source": "runs/mine"}, {"EMBTABLES_SERVE_MAX_ID": "100"})
        Traceback (most recent call last):
        embtables.errors.ConfigError: unknown EMBTABLES_SERVE_MAX_ID; did you mean EMBTABLES_SERVE_MAX_IDS?
    """

    source: Path = Field(description="the folder of a run, or of its versions")
    host: str = Field("127.0.0.1", min_length=1, description="the address it listens on; other machines need 0.0.0.0")
    port: Port = 8080
    admin_port: Port | None = Field(None, description="of the admin routes; goes with a token")
    admin_host: str = Field("127.0.0.1", min_length=1, description="the address of the admin routes")
    admin_tokens: Annotated[tuple[SecretStr, ...], BeforeValidator(_split)] = Field(
        (), max_length=MAX_TOKENS, description="either is taken, so that they can be changed one after the other"
    )
    admin_token_file: Path | None = Field(None, description="a file with one token on a line, in place of admin_tokens")

    threads: PositiveInt | None = Field(None, description="native threads of scoring; by default the cores there are")
    mode: Literal["exact", "fast"] = Field(
        "exact", description="exact: fp32, as predict; fast: the fastest engine within a bound of error"
    )
    max_batch_rows: PositiveInt = Field(4096, description="rows of concurrent requests that are scored together")
    max_wait_ms: Annotated[float, Field(ge=0, le=1000)] = Field(
        0.0, description="how long a request waits for others to be scored with"
    )
    poll_seconds: Seconds = Field(0.25, description="how often a folder is listed where no watching is possible")
    version: str | None = Field(
        None, description="begin at this version, such as serving-12, and stay there; by default follow the newest"
    )
    greatest_norm: Annotated[float, Field(gt=0)] = Field(
        1e6, description="L2 norm of a row: a version with a longer one is set aside"
    )
    norm_ratio: Annotated[float, Field(gt=1)] = Field(
        100.0,
        description="the same of one that is so many times as long as 99.9 % of its table's, and longer than 10",
    )

    max_body_bytes: PositiveInt = Field(8 << 20, description="of a request's body; longer ones are told 413")
    max_buffered_bytes: PositiveInt = Field(256 << 20, description="of all bodies that are being read, together")
    max_candidates: PositiveInt = Field(4096, description="candidates or rows of a request")
    max_ids: PositiveInt = Field(65_536, description="ids or keys of a request for embeddings")
    max_list_length: PositiveInt = Field(4096, description="entries of one list in a row")
    max_queue: PositiveInt = Field(256, description="requests that are answered or wait; more are told 429")
    header_seconds: Seconds = Field(
        25.0, description="a client that takes longer to send a request's head is cut, and so is an idle connection"
    )
    body_seconds: Seconds = Field(10.0, description="the same of its body")
    request_seconds: Seconds = Field(30.0, description="a request that was not answered by then gets 503")
    drain_seconds: Seconds = Field(20.0, description="at SIGTERM, for requests that are being answered")

    slow_ms: Annotated[float, Field(gt=0)] = Field(100.0, description="slower requests are logged with their stages")
    log_file: Path | None = Field(None, description="of JSON lines; by default they go to stderr")
    log_requests: bool = Field(False, description="log every request, not only slow and failed ones")
    request_log: Path | None = Field(None, description="file of sampled requests for `embtables replay`")
    request_log_rate: Annotated[float, Field(gt=0, le=1)] = Field(0.01, description="share of requests in it")
    request_log_values: bool = Field(False, description="with the values of features, which replay needs")
    request_log_max_bytes: Annotated[int, Field(ge=4096)] = Field(64 << 20, description="of a file, then a new one")
    request_log_files: Annotated[int, Field(ge=1, le=1000)] = Field(8, description="kept besides the newest")

    events: str | None = Field(
        None, description="the event log that /v1/events appends to: folder:///path, redis://..., kafka://..."
    )
    event_tokens: Annotated[tuple[SecretStr, ...], BeforeValidator(_split)] = Field(
        (), max_length=MAX_TOKENS, description="either is taken from who sends events; needed beyond loopback"
    )
    log_served: bool = Field(False, description="log what /v1/score answers as impressions, before it answers")
    dead_letters: Path | None = Field(
        None, description="folder in which refused events are kept; else they are counted"
    )
    event_max_ahead_seconds: Annotated[float, Field(ge=0, le=1e9)] = Field(
        600.0, description="an event that is later than now by more is refused"
    )
    event_max_behind_days: Annotated[float, Field(ge=0, le=1e6)] = Field(
        400.0, description="the same of one that is earlier"
    )
    running_dir: Path | None = Field(
        None,
        description="folder of this server's checkpoints of running features; by default each start folds the log from "
        "its beginning",
    )
    running_checkpoint_seconds: Seconds = Field(30.0, description="between two checkpoints of running features")

    @classmethod
    def read(cls, flags: Mapping[str, Any], environment: Mapping[str, str] | None = None) -> Settings:
        """Settings of flags (None: not given) and of the environment.

        Raises:
            ConfigError: one is unknown, or has a value without meaning. Names it as the user wrote it.
        """
        environ = os.environ if environment is None else environment
        from_environment = _of_environment(environ)
        given = {name: value for name, value in flags.items() if value is not None}
        values = {name: value for name, (_, value) in from_environment.items()} | given
        if "source" not in values:
            raise ConfigError(f"give the folder of a run or of its versions, or set {PREFIX}SOURCE", argument="source")
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            raise ConfigError(_as_written(error, from_environment, given)) from None

    @model_validator(mode="after")
    def _check(self) -> Settings:
        if self.admin_tokens and self.admin_token_file is not None:
            raise ValueError("give admin_tokens or admin_token_file, not both")
        if self.admin_port is not None and not self.admin_tokens and self.admin_token_file is None:
            raise ValueError(
                f"admin_port needs a token: set {PREFIX}ADMIN_TOKENS or {PREFIX}ADMIN_TOKEN_FILE "
                f"(`openssl rand -hex 32` makes one)"
            )
        if self.admin_port is not None and self.admin_port == self.port and self.port != 0:
            raise ValueError(f"admin_port must be another one than port, received {self.port} for both")
        for name in ("log_served", "event_tokens", "dead_letters", "running_dir"):
            if getattr(self, name) and self.events is None:
                raise ValueError(f"{name} goes with events, the log")
        if self.events is not None and not self.event_tokens and not _is_loopback(self.host):
            raise ValueError(f"who sends events to {self.host} needs a token: set {PREFIX}EVENT_TOKENS")
        for tokens in (self.admin_tokens, self.event_tokens):
            _check_tokens([token.get_secret_value() for token in tokens])
        return self

    def tokens(self) -> tuple[str, ...]:
        """The admin tokens; those of a file are read now.

        Raises:
            ConfigError: the file cannot be read, or holds no tokens.
        """
        if self.admin_token_file is None:
            return tuple(token.get_secret_value() for token in self.admin_tokens)
        try:
            text = self.admin_token_file.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "is no text"
            raise ConfigError(f"cannot be read: {reason}", file=self.admin_token_file) from None
        found = [line.strip() for line in text.splitlines() if line.strip()]
        if not 1 <= len(found) <= MAX_TOKENS:
            raise ConfigError(f"must hold one or two tokens, a line each, has {len(found)}", file=self.admin_token_file)
        try:
            _check_tokens(found)
        except ValueError as error:
            raise ConfigError(str(error), file=self.admin_token_file) from None
        return tuple(found)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


def _check_tokens(tokens: list[str]) -> None:
    for token in tokens:
        if len(token) < _LEAST_TOKEN or not token.isascii() or not token.isprintable():
            raise ValueError(f"a token has at least {_LEAST_TOKEN} printable ASCII characters: `openssl rand -hex 32`")


def _of_environment(environ: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    """By setting its name in the environment and its value."""
    found = {}
    for name, value in sorted(environ.items()):
        if not name.startswith(PREFIX):
            continue
        setting = name.removeprefix(PREFIX).lower()
        if setting not in Settings.model_fields or not name.isupper():
            from embtables.serving.refusals import hint

            known = [PREFIX + field.upper() for field in Settings.model_fields]
            raise ConfigError(f"unknown {name}; {hint(name.upper(), known)}")
        found[setting] = (name, value)
    return found


def _as_written(error: ValidationError, environment: Mapping[str, tuple[str, str]], flags: Mapping[str, Any]) -> str:
    """What is wrong, with each setting named as its user wrote it; tokens are never shown."""
    lines = []
    for item, line in zip(error.errors(include_url=False), error_lines(error), strict=True):
        setting = str(item["loc"][0]) if item["loc"] else ""
        if "token" in setting:
            lines.append(f"{setting}: {item['msg'].removeprefix('Value error, ')}")
        elif not setting:
            lines.append(item["msg"].removeprefix("Value error, "))
        elif setting in environment and setting not in flags:
            lines.append(environment[setting][0] + line.removeprefix(setting))
        else:
            lines.append(line)
    return "\n  ".join(lines)
