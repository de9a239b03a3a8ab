"""`embtables train --workers N`: Ray Train starts N ranks of the training loop, and starts them again when one fails.

    driver: run folder -> ray.init -> TorchTrainer -> N workers (pipelines/ray_worker.py), a process group among them
            meanwhile: rank 0's lines are shown as they come; Ctrl-C asks the ranks to stop and save

Everything of the run lies in its folder, which all nodes must see: versions, the report, what a rank complains of. The
driver's working folder is not on the workers' path, where Ray would put it: a user's own `models/` is not ours.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from embtables.errors import BadFileError, ConfigError, DataError, EmbtablesError, StateError
from pipelines.parts import with_prepared_data
from pipelines.progress import say
from pipelines.ray_worker import Settings, work
from pipelines.run_dir import REPORT_FILE, RunDir
from pipelines.signals import InterruptedRunError

TIMEOUT_SECONDS = 60
_LOOK_SECONDS = 0.5


@dataclass(frozen=True)
class Cluster:
    """Where the ranks run.

    Attributes:
        workers: how many.
        address: of a Ray cluster that is there, `auto` for this machine's; None: one is started here for the run.
    """

    workers: int
    address: str | None = None


def train_on_ray(
    run: RunDir,
    cluster: Cluster,
    *,
    overrides: tuple[str, ...] = (),
    goes_on: bool = False,
    former: RunDir | None = None,
    which: Any = None,
    fresh: tuple[str, ...] = (),
) -> dict[str, Any]:
    """Trains a run whose folder was made (or goes on with one) and returns its report.

    Raises:
        ConfigError: Ray is not installed, or cannot be reached.
        StateError: the ranks failed more often than `train.max_restarts`.
        EmbtablesError: what a rank complained of.
    """
    config = run.config(overrides)
    threads = config.train.threads or 1
    path = run.path.absolute()
    # Once, here, and with its progress: the ranks would wait for the one that does it.
    with_prepared_data(config)
    run.stop_file.unlink(missing_ok=True)
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
    )
    with _connected(cluster, threads), _lines_shown(settings.log_file), _stop_by_signal(run):
        failure = _fit(settings, cluster, config.train.max_restarts, path)
    _raise_what_a_rank_said(settings.error_file, cluster)
    if failure is not None:
        raise StateError(
            f"the ranks failed more than {config.train.max_restarts} times, the last time: {failure}; "
            f"go on with: embtables train --resume {run.path} --workers {cluster.workers}",
            run=run.path,
        )
    found: dict[str, Any] = json.loads((path / REPORT_FILE).read_text(encoding="utf-8"))
    return found


def _fit(settings: Settings, cluster: Cluster, max_restarts: int, path: Path) -> str | None:
    """Runs the ranks to their end; what they failed of, where they did."""
    from ray.train import FailureConfig, RunConfig, ScalingConfig, TrainingFailedError
    from ray.train.torch import TorchConfig, TorchTrainer

    trainer = TorchTrainer(
        work,
        train_loop_config=settings.to_json(),
        torch_config=TorchConfig(backend="gloo", timeout_s=TIMEOUT_SECONDS),
        scaling_config=ScalingConfig(num_workers=cluster.workers, resources_per_worker={"CPU": settings.threads}),
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
            found.append(_last_line(error))

    # Not on the main thread, where Ray would take Ctrl-C for a wish to lose what was not saved.
    thread = threading.Thread(target=fit, name="ray-train", daemon=True)
    thread.start()
    while thread.is_alive():
        thread.join(_LOOK_SECONDS)
    return found[0] if found else "Ray ended without a word; see its logs"


def _last_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__


@contextlib.contextmanager
def _connected(cluster: Cluster, threads: int) -> Iterator[None]:
    """A Ray cluster: the one at the address, or one of this machine's own, on loopback and with a token."""
    try:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        import ray
    except ImportError:
        raise ConfigError("--workers needs Ray: pip install 'embtables[ray]'") from None
    options: dict[str, Any] = {"logging_level": "ERROR", "log_to_driver": False, "configure_logging": True}
    if cluster.address is None:
        # Ray asks for a token by itself where it starts a cluster, unless RAY_AUTH_MODE says otherwise.
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
        options |= {
            "address": "local",
            "num_cpus": cluster.workers * threads,
            "include_dashboard": False,
            "_node_ip_address": "127.0.0.1",
        }
    else:
        options["address"] = cluster.address
    with tempfile.TemporaryDirectory() as empty:
        try:
            with contextlib.chdir(empty):
                ray.init(**options)
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise ConfigError(f"cannot reach Ray at {cluster.address or 'this machine'}: {error}") from error
        try:
            yield
        finally:
            ray.shutdown()


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


def _raise_what_a_rank_said(path: Path, cluster: Cluster) -> None:
    """Raises the error that a rank wrote down."""
    if not path.exists():
        return
    said = json.loads(path.read_text(encoding="utf-8"))
    path.unlink()
    if said["kind"] == "InterruptedRunError":
        raise InterruptedRunError(f"{said['message']} --workers {cluster.workers}", **said["path"])
    kinds: dict[str, type[EmbtablesError]] = {kind.__name__: kind for kind in (ConfigError, DataError, BadFileError)}
    raise kinds.get(said["kind"], StateError)(said["message"], **said["path"])
