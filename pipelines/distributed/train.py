"""`embtables train --workers N`, and `online`: Ray Train starts N ranks of the loop, and starts them again when one
fails.

    driver: run folder -> ray.init -> TorchTrainer -> N workers (worker.py), a process group among them
            meanwhile: rank 0's lines are shown as they come; Ctrl-C asks the ranks to stop and save

Everything of the run is in its folder, which all nodes must see: versions, the report, the errors of ranks.
"""

from __future__ import annotations

import contextlib
import json
import secrets
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from embtables.errors import BadFileError, ConfigError, DataError, EmbtablesError, StateError, TrainingError
from embtables.events import folder_of
from embtables.pipelines.config import RunConfig as Config
from embtables.pipelines.distributed.cluster import Cluster, connected, need_nodes
from embtables.pipelines.distributed.model_code import model_to_send
from embtables.pipelines.distributed.worker import OnlineWork, Settings, keeping_room, work
from embtables.pipelines.prepare.log_splits import with_prepared_data
from embtables.pipelines.progress import say
from embtables.pipelines.run_dir import REPORT_FILE, RunDir
from embtables.pipelines.training.signals import InterruptedRunError
from embtables.state.folder.version_folder import StateFolder

_LOOK_SECONDS = 0.5


def train_on_ray(
    run: RunDir,
    cluster: Cluster,
    *,
    overrides: tuple[str, ...] = (),
    goes_on: bool = False,
    former: RunDir | None = None,
    which: Any = None,
    fresh: tuple[str, ...] = (),
    online: OnlineWork | None = None,
) -> dict[str, Any]:
    """Trains a run whose folder was made (or goes on with one) and returns its report.

    Args:
        online: it is an online run.

    Raises:
        ConfigError: Ray is not installed, or cannot be reached.
        StateError: the run's folder cannot be written; or the ranks failed more often than `train.max_restarts`.
        EmbtablesError: the error of a rank.
    """
    config = run.config(overrides)
    threads = config.train.threads or 1
    path = run.path.absolute()
    # Once, here, and with its progress: the ranks would wait for the one that does it.
    prepared = with_prepared_data(config).data
    data = [Path(each).absolute() for each in prepared.paths()]
    data += _event_log_folders(config, online)
    run.stop_file.unlink(missing_ok=True)
    run.goes_on_by = "train" if online is None else "online"
    settings = Settings(
        run=str(path),
        folder=str(Path.cwd()),
        overrides=overrides,
        goes_on=goes_on,
        former=None if former is None else str(former.path.absolute()),
        which=which,
        fresh=fresh,
        threads=threads,
        token=secrets.token_hex(4),
        online=online,
    )
    values = {"settings": settings.to_json(), "model": model_to_send(config.model.kind)}
    room = keeping_room(settings, cluster.workers)
    with room, connected(cluster, threads), _lines_shown(settings.log_file), _stop_by_signal(run):
        if cluster.address is not None:
            need_nodes(cluster, threads, [path, *data])
        failure = _fit(values, cluster, threads, config.train.max_restarts, path)
    _raise_what_a_rank_said(settings.error_file, path, cluster)
    if failure is not None:
        raise StateError(f"{failure}; {_how_to_go_on(run, cluster)}", run=run.path)
    found: dict[str, Any] = json.loads((path / REPORT_FILE).read_text(encoding="utf-8"))
    return found


def _event_log_folders(config: Config, online: OnlineWork | None) -> list[Path]:
    """The folder of the event log, if there is one, which all nodes must see."""
    events = None if online is None or online.kind == "replay" or config.online is None else config.online.events
    folder = None if events is None else folder_of(events.log)
    return [] if folder is None else [folder.absolute()]


def _fit(values: dict[str, Any], cluster: Cluster, threads: int, max_restarts: int, path: Path) -> str | None:
    """Runs the ranks to their end; returns their error, if they failed."""
    from ray.exceptions import RayError
    from ray.train import FailureConfig, RunConfig, ScalingConfig, TrainingFailedError
    from ray.train.torch import TorchTrainer

    from embtables.pipelines.distributed.process_group import GlooConfig

    trainer = TorchTrainer(
        work,
        train_loop_config=values,
        torch_config=GlooConfig(),
        scaling_config=ScalingConfig(num_workers=cluster.workers, resources_per_worker={"CPU": threads}),
        run_config=RunConfig(
            name="ray", storage_path=str(path), failure_config=FailureConfig(max_failures=max_restarts)
        ),
    )
    found: list[str | None] = []

    def fit() -> None:
        try:
            trainer.fit()
            found.append(None)
        except TrainingFailedError as error:
            found.append(f"the ranks failed more than {max_restarts} times, the last time: {_lines(error)[-1]}")
        except RayError as error:
            # Its ranks end with it, or without the lease; a new one would have to wait for them.
            found.append(f"Ray's own process that looks after the ranks has ended: {_lines(error)[0]}")

    # Not on the main thread, where Ray would treat Ctrl-C as a request to discard what was not saved.
    thread = threading.Thread(target=fit, name="ray-train", daemon=True)
    thread.start()
    while thread.is_alive():
        thread.join(_LOOK_SECONDS)
    return found[0] if found else "Ray ended without a message; see its logs"


def _lines(error: Exception) -> list[str]:
    return [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]


def _how_to_go_on(run: RunDir, cluster: Cluster) -> str:
    """The command that goes on with what was saved."""
    if StateFolder(run.checkpoints).sequences("resume"):
        return f"go on with: {run.resume_command()} {cluster.options}"
    return "nothing was saved yet: begin again"


@contextlib.contextmanager
def _lines_shown(log: Path) -> Iterator[None]:
    """Shows what rank 0 says, as it says it."""
    ended = threading.Event()

    def follow() -> None:
        at = 0
        while True:
            last = ended.is_set()
            if log.exists():
                with log.open("rb") as file:
                    file.seek(at)
                    found = file.read()
                whole = found[: found.rfind(b"\n") + 1] if not last else found
                at += len(whole)
                sys.stderr.write(whole.decode(errors="replace"))
                sys.stderr.flush()
            if last:
                return
            ended.wait(_LOOK_SECONDS)

    thread = threading.Thread(target=follow, name="rank-0-lines", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        log.unlink(missing_ok=True)


@contextlib.contextmanager
def _stop_by_signal(run: RunDir) -> Iterator[None]:
    """Ctrl-C and SIGTERM ask the ranks to stop, once; a second Ctrl-C leaves them."""
    asked: list[str] = []

    def handle(number: int, frame: object) -> None:
        if asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        asked.append(signal.Signals(number).name)
        run.stop_file.write_text(asked[0], encoding="utf-8")
        say(f"{asked[0]}: the ranks stop and save at their next batch")

    former = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)


def _raise_what_a_rank_said(file: Path, run: Path, cluster: Cluster) -> None:
    """Raises the error that a rank wrote down."""
    if not file.exists():
        return
    said = json.loads(file.read_text(encoding="utf-8"))
    file.unlink()
    # The command that a rank names is that of one process.
    message = said["message"] + (f" {cluster.options}" if said["message"].endswith(f"--resume {run}") else "")
    known = (ConfigError, DataError, BadFileError, TrainingError, InterruptedRunError)
    kinds: dict[str, type[EmbtablesError]] = {kind.__name__: kind for kind in known}
    raise kinds.get(said["kind"], StateError)(message, **said["path"])
