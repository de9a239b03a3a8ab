"""`RunDir`, `runs/<id>/`: the resolved config, metrics.jsonl, TensorBoard events, checkpoints and the final report.

It is a `RunPlace` (run_place.py) on the disk.
"""

from __future__ import annotations

import math
import os
import secrets
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from embtables.errors import ConfigError, EmbtablesError, StateError
from embtables.pipelines.config import RunConfig, load_config
from embtables.pipelines.json_text import json_text
from embtables.schema import to_yaml
from embtables.state.folder.local_folder import open_regular, sync
from embtables.state.format.json_values import parse_json

if TYPE_CHECKING:
    from embtables.models.scorer import Scorer

CONFIG_FILE = "config.yaml"
METRICS_FILE = "metrics.jsonl"
REPORT_FILE = "report.json"
DEFAULT_RUNS_DIR = "runs"


class RunDir:
    """The folder of one run."""

    keeps_every_version = True

    def __init__(self, path: Path) -> None:
        self.path = path
        self.goes_on_by = "train"  # the command that resumes it

    @classmethod
    def create(cls, config: RunConfig) -> RunDir:
        """A new folder `<runs_dir>/<name>-<time>-<random>` with the resolved config in it."""
        stamp = time.strftime("%Y%m%d-%H%M%S", time.gmtime())
        path = Path(config.train.runs_dir or DEFAULT_RUNS_DIR) / f"{config.name}-{stamp}-{secrets.token_hex(2)}"
        try:
            path.mkdir(parents=True)
            (path / CONFIG_FILE).write_text(to_yaml(config), encoding="utf-8")
        except OSError as error:
            raise StateError(f"cannot make the run's folder: {error.strerror}", folder=path) from error
        return cls(path)

    @classmethod
    @contextmanager
    def new(cls, config: RunConfig) -> Iterator[RunDir]:
        """As `create`; the folder is removed if an error ends the run before there is anything to keep."""
        made = cls.create(config)
        try:
            yield made
        except EmbtablesError:
            if not made.has_something:
                shutil.rmtree(made.path, ignore_errors=True)
            raise

    @property
    def has_something(self) -> bool:
        """Whether there is anything of it to keep: a version, figures, rows that were set aside."""
        metrics = self.path / METRICS_FILE
        kept = [*self.checkpoints.glob("manifests/*.json"), *self.quarantine.glob("*")]
        return bool(kept) or (metrics.exists() and metrics.stat().st_size > 0)

    @classmethod
    def open(cls, path: Path) -> RunDir:
        """The folder of an earlier run. Raises ConfigError if it is not one."""
        if not (path / CONFIG_FILE).is_file():
            raise ConfigError(f"is not the folder of a run: it has no {CONFIG_FILE}", folder=path)
        return cls(path)

    def config(self, overrides: tuple[str, ...] = ()) -> RunConfig:
        """The resolved configuration that the run was started with, with overrides laid over it."""
        return load_config(self.path / CONFIG_FILE, overrides)

    @property
    def checkpoints(self) -> Path:
        """Where the run's checkpoints lie."""
        return self.path / "checkpoints"

    @property
    def quarantine(self) -> Path:
        """Where rows that were set aside are listed."""
        return self.path / "quarantine"

    @property
    def stop_file(self) -> Path:
        """The file that asks the run's ranks to stop; its text says who asked."""
        return self.path / "stop"

    @property
    def tensorboard(self) -> Path:
        """Where TensorBoard's event files lie."""
        return self.path / "tensorboard"

    @property
    def files_record(self) -> Path:
        """See RunPlace."""
        return self.path / "files"

    def go_on_hint(self) -> str:
        """See RunPlace."""
        return f"saved; go on with: {self.resume_command()}"

    def resume_command(self) -> str:
        """See RunPlace."""
        return f"embtables {self.goes_on_by} --resume {self.path}"

    def append_metrics(self, records: Sequence[dict[str, Any]]) -> None:
        """Appends a JSON line each to metrics.jsonl: all of them, or none and OSError."""
        lines = "".join(json_text(record) + "\n" for record in records).encode()
        with (self.path / METRICS_FILE).open("ab", buffering=0) as file:
            before = file.tell()
            try:
                while lines:
                    lines = lines[file.write(lines) :]
            except OSError:
                file.truncate(before)
                raise

    def truncate_metrics(self, step: int) -> None:
        """Drops the lines of steps after `step`, which a resumed run repeats, and a line cut short by a crash."""
        path = self.path / METRICS_FILE
        if path.exists():
            kept = [line for line in self._read(METRICS_FILE).splitlines() if _step_of(line) <= step]
            write_atomically(path, b"".join(line + b"\n" for line in kept))

    def finish(self, report: dict[str, Any], scorer: Scorer, id_kinds: Mapping[str, str]) -> None:
        """See RunPlace: writes report.json; the rest is in the versions."""
        write_atomically(self.path / REPORT_FILE, json_text(report, indent=2).encode() + b"\n")

    def report(self) -> dict[str, Any]:
        """What report.json holds; empty if the run has not ended. Raises StateError if it cannot be read."""
        content = self._read(REPORT_FILE)
        if not content:
            return {}
        try:
            found = parse_json(content)
        except ValueError as error:
            raise StateError(f"is not JSON: {error}", file=self.path / REPORT_FILE) from error
        if not isinstance(found, dict):
            raise StateError("is not a report", file=self.path / REPORT_FILE)
        return found

    def history(self) -> list[dict[str, Any]]:
        """The lines of metrics.jsonl, without one that a crash cut short. Raises StateError if it cannot be read."""
        return [parse_json(line) for line in self._read(METRICS_FILE).splitlines() if _step_of(line) < math.inf]

    def _read(self, name: str) -> bytes:
        path = self.path / name
        try:
            with open_regular(path) as handle, os.fdopen(handle, "rb", closefd=False) as file:
                return file.read()
        except FileNotFoundError:
            return b""
        except OSError as error:
            raise StateError(f"cannot be read: {error.strerror}", file=path) from error


def _step_of(line: bytes) -> float:
    """The step of a line of metrics.jsonl; infinite of a line that is none."""
    try:
        step = parse_json(line)["step"]
    except (ValueError, KeyError, TypeError):
        return math.inf
    return step if type(step) is int else math.inf


def write_atomically(path: Path, content: bytes) -> None:
    """Writes a file whole or not at all: temporary name, fsync, rename, fsync of the folder."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with temporary.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    sync(path.parent)
