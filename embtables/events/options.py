"""What the URI of an event log says: `scheme://where?option=value&...`, with the options of each kind of log."""

from __future__ import annotations

from typing import Any, Literal, TypeVar
from urllib.parse import SplitResult, parse_qsl, urlsplit

from pydantic import Field, ValidationError, model_validator

from embtables.errors import ConfigError
from embtables.schema.base import Model, config_error

MAX_PARTITIONS = 1024


class LogOptions(Model):
    """What every kind of log has."""

    partitions: int | None = Field(
        None,
        ge=1,
        le=MAX_PARTITIONS,
        description="Partitions of a log that is made; one that exists has to have as many. none: 1, or those it has.",
    )


class FolderOptions(LogOptions):
    """Options of `folder:///path`."""

    fsync: Literal["always", "interval", "never"] = Field(
        "always",
        description="When an entry is on the disk: before append returns; within fsync_seconds; when the system likes.",
    )
    fsync_seconds: float = Field(1.0, gt=0, le=3600, description="Of fsync=interval: what a loss of power may take.")
    segment_bytes: int = Field(
        64 << 20,
        ge=4096,
        le=1 << 40,
        description="A segment that would be larger is ended; retention takes whole ones.",
    )
    keep_seconds: float | None = Field(None, gt=0, description="Segments whose entries are all older are removed.")
    keep_bytes: int | None = Field(
        None, ge=4096, description="While a partition has more bytes, its oldest segment is removed."
    )

    @model_validator(mode="after")
    def _interval_only(self) -> FolderOptions:
        if "fsync_seconds" in self.model_fields_set and self.fsync != "interval":
            raise ValueError(f"fsync_seconds is of fsync=interval, but fsync is {self.fsync}")
        return self


class RedisOptions(LogOptions):
    """Options of `redis://host:port/database/stream`."""

    keep_seconds: float | None = Field(None, gt=0, description="Entries that are older may be removed.")
    keep_entries: int | None = Field(
        None, ge=1, description="Of more entries in a partition the oldest may be removed."
    )
    timeout_seconds: float = Field(
        10.0, gt=0, le=600, description="After so long a call that cannot be made has failed."
    )

    @model_validator(mode="after")
    def _one_retention(self) -> RedisOptions:
        if self.keep_seconds is not None and self.keep_entries is not None:
            raise ValueError("keep_seconds and keep_entries are set; Redis trims a stream by one of them")
        return self


class KafkaOptions(LogOptions):
    """Options of `kafka://host:port,host:port/topic`."""

    replication: int = Field(1, ge=1, le=32, description="Replicas of a topic that is made.")
    timeout_seconds: float = Field(
        30.0, gt=0, le=600, description="After so long a call that cannot be made has failed."
    )


Options = TypeVar("Options", bound=LogOptions)


def parse_uri(uri: str) -> SplitResult:
    """The parts of a URI. Raises ConfigError where it has a fragment or no scheme."""
    try:
        parts = urlsplit(uri)
    except ValueError as error:
        raise ConfigError(f"is no URI of an event log: {error}", uri=uri) from error
    if not parts.scheme or parts.fragment:
        raise ConfigError(
            "is no URI of an event log; write folder:///path, redis://host:port or kafka://host:port/topic"
        )
    return parts


def parse_options(kind: type[Options], parts: SplitResult) -> Options:
    """The options in the query of a URI.

    Raises:
        ConfigError: an option is unknown, occurs twice or has a wrong value; it is named.
    """
    values: dict[str, Any] = {}
    try:
        pairs = parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query))
    except ValueError as error:
        raise ConfigError(f"the query of the URI is not option=value&...: {error}", uri=shown(parts)) from error
    for name, value in pairs:
        if name in values:
            raise ConfigError(f"option '{name}' occurs twice", uri=shown(parts))
        values[name] = value
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        raise config_error(error, uri=shown(parts)) from error


def shown(parts: SplitResult) -> str:
    """The URI without its password, for messages."""
    where = parts.netloc.rpartition("@")[2]
    return f"{parts.scheme}://{where}{parts.path}"
