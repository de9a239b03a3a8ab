"""The process group of the ranks of one run on Ray: gloo, on the network that Ray's own nodes use.

    rank 0: a store that listens at its node's address alone -> its host and port to all -> every rank joins

Left to itself gloo takes the address to which the host's own name resolves: on many systems that is loopback, which no
other host can reach. Ray knows each node's address, so gloo is given the interface that has it.
"""

from __future__ import annotations

import datetime
import os
import socket
from dataclasses import dataclass
from typing import Any

import psutil
import ray
import torch.distributed as dist
from ray.train.backend import Backend, BackendConfig
from ray.train.torch import TorchConfig
from torch._C._distributed_c10d import TCPStore

from embtables.shard.world import TIMEOUT_SECONDS

_TIMEOUT = datetime.timedelta(seconds=TIMEOUT_SECONDS)
_LEAVE_SECONDS = 5.0
_stores: list[TCPStore] = []  # rank 0's, between the two calls by which Ray has it made and joined


@dataclass
class GlooConfig(TorchConfig):
    """For TorchTrainer."""

    @property
    def backend_cls(self) -> type[Backend]:
        """What makes the group."""
        return _Gloo


class _Gloo(Backend):
    """Runs in Ray's controller, and has the ranks do their part."""

    def on_start(self, worker_group: Any, backend_config: BackendConfig) -> None:
        """Makes the group of all ranks."""
        size = len(worker_group)
        host, port = worker_group.execute_single(0, _open_store, size)
        ray.get([worker_group.execute_single_async(rank, _join, rank, size, host, port) for rank in range(size)])

    def on_shutdown(self, worker_group: Any, backend_config: BackendConfig) -> None:
        """Ends the group, as far as its ranks still answer."""
        try:
            ray.get(worker_group.execute_async(_leave), timeout=_LEAVE_SECONDS)
        except ray.exceptions.GetTimeoutError:
            return  # Ray ends their processes in any case


def _open_store(size: int) -> tuple[str, int]:
    """Rank 0: a store for the ranks to meet; it listens at its node's address, not at all addresses (the default)."""
    host = _node_address()
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as listening:
        listening.bind((host, 0))
        listening.listen(size)
        port = int(listening.getsockname()[1])
        fd = listening.detach()  # the store's from here on
    _stores.append(TCPStore(host, port, size, True, _TIMEOUT, wait_for_workers=False, master_listen_fd=fd))
    return host, port


def _join(rank: int, size: int, host: str, port: int) -> None:
    """Every rank: meets the others."""
    interface = interface_of(_node_address())
    if interface is not None:
        os.environ.setdefault("GLOO_SOCKET_IFNAME", interface)
    store = _stores.pop() if rank == 0 else TCPStore(host, port, size, False, _TIMEOUT)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=size, timeout=_TIMEOUT)


def _leave() -> None:
    if dist.is_initialized():
        dist.destroy_process_group()


def _node_address() -> str:
    found: str = ray.util.get_node_ip_address()  # type: ignore[no-untyped-call]
    return found


def interface_of(address: str) -> str | None:
    """The network interface of this machine that has the IP address; None if none has."""
    for name, addresses in psutil.net_if_addrs().items():
        if any(each.address.split("%")[0] == address for each in addresses):
            return str(name)
    return None
