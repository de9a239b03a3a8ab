"""The Ray cluster of a run: one of its own on this machine, or the one at an address; and whether the ranks fit in it.

own:     started for the run and ended with it; every socket on loopback, Ray's token authentication on
address: an existing cluster; the token is the one that RAY_AUTH_MODE=token makes Ray read
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from embtables.errors import ConfigError
from embtables.pipelines.progress import say

_LOOK_SECONDS = 5.0
_GROUP_LABEL = "ray.io/node-group"  # of nodes that Ray's cluster launcher or KubeRay has started
_TOKEN = (
    "set RAY_AUTH_MODE=token, and put the cluster's token in ~/.ray/auth_token, in a file that RAY_AUTH_TOKEN_PATH "
    "names, or in RAY_AUTH_TOKEN"
)


@dataclass(frozen=True)
class Cluster:
    """Where the ranks run.

    Attributes:
        workers: number of ranks.
        address: of an existing Ray cluster, `auto` for this machine's; None: one is started here for the run.
    """

    workers: int
    address: str | None = None

    @property
    def options(self) -> str:
        """What the command line says of it."""
        return f"--workers {self.workers}" + (f" --ray-address {self.address}" if self.address else "")


@contextlib.contextmanager
def connected(cluster: Cluster, threads: int) -> Iterator[None]:
    """While entered, this process is a driver of the cluster; one of its own has room for ranks of so many threads.

    Raises:
        ConfigError: Ray is not installed or cannot be reached, or does not take the token.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    if cluster.address is None:
        # Ray treats 127.0.0.1 as a request to be reachable from elsewhere, and listens on every address, unless this
        # variable says that there are no clusters on this system. Ray reads it once, as it is imported.
        os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
    else:
        _need_answer(cluster.address)
        # Of 41 s each where nobody answers; of 1 s each where the token is refused.
        os.environ.setdefault("RAY_NUM_REDIS_GET_RETRIES", "2")
    try:
        import ray
    except ImportError:
        raise ConfigError("--workers needs Ray: pip install 'embtables[ray]'") from None
    options: dict[str, Any] = {"logging_level": "ERROR", "log_to_driver": False, "configure_logging": True}
    if cluster.address is None:
        # Ray asks for a token by itself where it starts a cluster, unless RAY_AUTH_MODE says otherwise.
        own = {"address": "local", "num_cpus": cluster.workers * threads, "include_dashboard": False}
        options |= {**own, "_node_ip_address": "127.0.0.1"}
    else:
        options["address"] = cluster.address
    # Ray puts the working folder ahead on the ranks' path, where the command itself does not look for modules: a user's
    # own random.py or embtables/ there would be taken for what the ranks import.
    with tempfile.TemporaryDirectory() as empty:
        try:
            with contextlib.chdir(empty), _native_lines_dropped():
                ray.init(**options)
        except Exception as error:  # Ray raises also plain ones
            raise ConfigError(_unreached(cluster, error)) from error
        try:
            yield
        finally:
            ray.shutdown()


def _need_answer(address: str) -> None:
    """Raises ConfigError if nobody listens at host:port: Ray would try again for a quarter of an hour."""
    if address == "auto":
        return
    found = re.fullmatch(r"\[?([^/]+?)\]?:(\d{1,5})", address)
    if found is None:
        raise ConfigError(
            f"--ray-address takes host:port or auto, received '{address}'; if no node of the cluster runs on this "
            "machine, run the command on a machine with a node"
        )
    try:
        socket.create_connection((found[1], int(found[2])), timeout=_LOOK_SECONDS).close()
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ConfigError(
            f"cannot reach Ray at {address}: {reason}; is the cluster up, and is this the address of its head "
            "(`ray status` there shows it, its port is 6379 by default)?"
        ) from error


def _unreached(cluster: Cluster, error: Exception) -> str:
    """Why a cluster cannot be used."""
    where = cluster.address or "this machine"
    causes, at = [str(error)], error.__cause__
    while at is not None:
        causes.append(str(at))
        at = at.__cause__
    if "no authentication token was found" in causes[0]:
        return f"cannot reach Ray at {where}: there is no token; {_TOKEN}"
    if any("InvalidAuthToken" in cause for cause in causes):
        mode = os.environ.get("RAY_AUTH_MODE", "").lower()
        had = "this command's token is not the cluster's" if mode == "token" else "this command sent no token"
        return f"Ray at {where} has refused: {had}; {_TOKEN}"
    reason = causes[0].strip().splitlines()[0] if causes[0].strip() else type(error).__name__
    return f"cannot {'reach' if cluster.address else 'start'} Ray at {where}: {reason}"


@contextlib.contextmanager
def _native_lines_dropped() -> Iterator[None]:
    """What Ray's native part writes to stderr past Python is dropped: the error that follows says the same once."""
    sys.stderr.flush()
    kept = os.dup(2)
    try:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 2)
        os.close(nowhere)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def need_nodes(cluster: Cluster, threads: int, paths: Sequence[Path]) -> None:
    """Checks that a cluster's nodes can run the ranks, and says at once if these must wait for CPUs.

    Args:
        paths: what all nodes must see, as far as this machine does.

    Raises:
        ConfigError: the nodes have too few CPUs and none will be added; one of them has no or another embtables, or
            does not see a path.
    """
    import ray

    there: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    nodes = [node for node in there if node["Alive"]]
    cpus = [int(node["Resources"].get("CPU", 0)) for node in nodes]
    fit = sum(each // threads for each in cpus)
    wanted = f"{cluster.workers} ranks of {threads} CPU each (train.threads)"
    if fit < cluster.workers:
        has = f"the cluster has {sum(cpus)} CPUs on {len(nodes)} nodes, room for {fit} ranks"
        if not any(_GROUP_LABEL in node["Labels"] for node in nodes):
            raise ConfigError(f"{wanted} are asked for, but {has}; add nodes, or give --workers {max(fit, 1)}")
        say(f"waiting for {wanted}: {has}, until nodes are added (see `ray status` on its head); Ctrl-C gives up")
    else:
        left: dict[str, float] = ray.available_resources()  # type: ignore[no-untyped-call]
        free = int(left.get("CPU", 0))
        if free < cluster.workers * threads:
            say(f"waiting for {wanted}: {free} of the cluster's {sum(cpus)} CPUs are free, others use them")
    _ask(
        {node["NodeID"]: node["NodeManagerAddress"] for node, has in zip(nodes, cpus, strict=True) if has >= threads},
        [str(path) for path in paths if path.exists()],
    )


def _ask(nodes: Mapping[str, str], paths: Sequence[str]) -> None:
    """Asks every node, by its id and address, to check itself."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    look = ray.remote(num_cpus=0, max_retries=0)(look_around)
    asked = {
        node: look.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False)).remote(list(paths))
        for node in nodes
    }
    here = metadata.version("embtables")
    for node, answer in asked.items():
        try:
            version, unseen = ray.get(answer)
        except ray.exceptions.RayError as error:
            lines = [line for line in str(error).splitlines() if line.strip()]
            reason = (
                f"the node {nodes[node]} cannot run embtables {here}; install it on every node: {lines[-1].strip()}"
            )
            raise ConfigError(reason) from error
        if version != here:
            raise ConfigError(f"the node {nodes[node]} has embtables {version}, this command runs version {here}")
        if unseen:
            reason = f"the node {nodes[node]} does not see {unseen[0]}; all nodes need the same shared folder"
            raise ConfigError(reason, path=unseen[0])


def look_around(paths: Sequence[str]) -> tuple[str, list[str]]:
    """On a node: the version of embtables, and which of the paths it does not see."""
    return metadata.version("embtables"), [path for path in paths if not Path(path).exists()]
