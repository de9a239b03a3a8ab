"""`embtables train --ray-address` on a Ray cluster of two nodes, and the errors of a user who cannot use it."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from embtables.pipelines.config import load_config
from embtables.pipelines.run_dir import RunDir
from tests.pipelines.distributed import ray_runs_for_tests
from tests.pipelines.distributed.ray_nodes_for_tests import Nodes, free_port, last_json
from tests.pipelines.distributed.ray_runs_for_tests import assert_same, held, make_config, the_run, until_step
from tests.shard.groups_for_tests import Group

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
Start = Callable[..., subprocess.Popen[str]]
HOLD = """
import ray, sys
ray.init(address=sys.argv[1], log_to_driver=False)
@ray.remote(num_cpus=1)
class Holder:
    def there(self): return True
holder = Holder.remote()
ray.get(holder.there.remote())
print("held", flush=True)
sys.stdin.read()
"""
CLIENT = "import ray, sys; ray.init(address=sys.argv[1], log_to_driver=False); print(ray.cluster_resources()['CPU'])"


@pytest.fixture(scope="module")
def nodes() -> Iterator[Nodes]:
    """Two nodes of one CPU each, so that two ranks are on two nodes."""
    with Nodes() as made:
        made.add(1)
        made.add(1)
        yield made


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts `embtables train` with the token, in a folder that no node works in."""
    make_config(tmp_path)
    started: list[subprocess.Popen[str]] = []

    def of(at: Nodes, *arguments: object, **environment: str) -> subprocess.Popen[str]:
        of_it = at.environment(**environment)
        started.append(ray_runs_for_tests.start(tmp_path, {k: v for k, v in of_it.items() if v}, *arguments))
        return started[-1]

    yield of
    for process in started:
        process.kill()
        process.communicate()


def refused(process: subprocess.Popen[str], folder: Path) -> str:
    """What a refused command prints: one message, and nothing left behind."""
    out, err = process.communicate(timeout=120)
    assert (process.returncode, out) == (2, ""), err
    assert err.startswith("error: ") and err.count("\n") == 1, err
    assert not any((folder / "runs").glob("*-*"))
    return err


def line_with(process: subprocess.Popen[str], text: str) -> str:
    """The line of stderr with this text, as soon as it comes."""
    assert process.stderr is not None
    said = []
    for line in process.stderr:
        said.append(line)
        if text in line:
            return line
    raise AssertionError("".join(said))


def test_ranks_on_two_nodes_learn_what_ranks_without_ray_learn(nodes: Nodes, start: Start, tmp_path: Path) -> None:
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    holder = subprocess.Popen([sys.executable, "-c", HOLD, nodes.address], env=nodes.environment(), **pipes)  # type: ignore[call-overload]
    assert "held" in holder.stdout.readline()
    process = start(nodes, "ranks.yaml", "--workers", 2, "--ray-address", nodes.address, "--json")
    line = line_with(process, "waiting")
    assert "2 ranks of 1 CPU each" in line and "1 of the cluster's 2 CPUs are free" in line
    holder.communicate("", timeout=60)
    until_step(tmp_path, 5, process)
    by_node = nodes.workers()
    assert [len(ranks) for ranks in by_node] == [1, 1]
    address = nodes.address.rpartition(":")[0]
    for (rank,) in by_node:
        # Ranks meet at the address by which the nodes know each other, whatever the host's name resolves to.
        sockets = [each for each in rank.net_connections("tcp") if each.status == psutil.CONN_ESTABLISHED]
        ports = {each.laddr.port for (other,) in by_node if other != rank for each in other.net_connections("tcp")}
        between = [each for each in sockets if each.raddr.port in ports]
        assert between and {each.raddr.ip.removeprefix("::ffff:") for each in between} == {address}
    out, err = process.communicate(timeout=280)
    assert process.returncode == 0, err
    run = the_run(tmp_path)
    assert last_json(out)["rows"] == 2 * ray_runs_for_tests.ROWS
    assert not list(run.path.glob("rank0-*"))
    config = load_config(tmp_path / "ranks.yaml", ["name=without"])
    without, group = RunDir.create(config), Group(2)
    try:
        group.run("tests.pipelines.distributed.ranks_for_tests:train", config, str(without.path))
    finally:
        group.close()
    assert_same(held(run), held(without))


@pytest.mark.parametrize(
    ("environment", "reason"),
    [
        ({"RAY_AUTH_MODE": ""}, "this command sent no token"),
        ({"RAY_AUTH_TOKEN": ""}, "there is no token"),
        ({"RAY_AUTH_TOKEN": "f" * 64}, "this command's token is not the cluster's"),
    ],
)
def test_no_token_or_another_is_refused(
    environment: dict[str, str], reason: str, nodes: Nodes, start: Start, tmp_path: Path
) -> None:
    there = {k: v for k, v in nodes.environment(RAY_NUM_REDIS_GET_RETRIES="1", **environment).items() if v}
    client = [sys.executable, "-c", CLIENT, nodes.address]
    done = subprocess.run(client, env=there, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode != 0 and "uthentication token" in done.stderr
    err = refused(start(nodes, "ranks.yaml", "--workers", 2, "--ray-address", nodes.address, **environment), tmp_path)
    assert reason in err and "RAY_AUTH_MODE=token" in err and "~/.ray/auth_token" in err


def test_with_the_token_a_client_is_let_in(nodes: Nodes) -> None:
    client = [sys.executable, "-c", CLIENT, nodes.address]
    environment = nodes.environment()
    done = subprocess.run(client, env=environment, capture_output=True, text=True, check=False, timeout=120)
    assert done.stdout.strip() == "2.0", done.stderr


def test_too_few_cpus_for_ever_are_reported_at_once(nodes: Nodes, start: Start, tmp_path: Path) -> None:
    err = refused(start(nodes, "ranks.yaml", "--workers", 3, "--ray-address", nodes.address), tmp_path)
    assert "3 ranks of 1 CPU each" in err and "2 CPUs on 2 nodes" in err and "--workers 2" in err
    # Threads of one rank are on one node: two nodes of one CPU have no room for a rank of two.
    two = ["--set", "train.threads=2", "--workers", 2]
    assert "room for 0 ranks" in refused(start(nodes, "ranks.yaml", *two, "--ray-address", nodes.address), tmp_path)


def test_a_wrong_address_is_reported_at_once(nodes: Nodes, start: Start, tmp_path: Path) -> None:
    nobody = f"127.0.0.1:{free_port()}"
    err = refused(start(nodes, "ranks.yaml", "--workers", 2, "--ray-address", nobody), tmp_path)
    assert f"cannot reach Ray at {nobody}: Connection refused" in err
    assert "host:port" in refused(start(nodes, "ranks.yaml", "--workers", 2, "--ray-address", "ray://h:1"), tmp_path)


def test_where_nodes_are_added_the_ranks_wait_for_them(start: Start, tmp_path: Path) -> None:
    with Nodes() as nodes:
        # As Ray's cluster launcher and KubeRay start a node.
        nodes.add(1, RAY_NODE_TYPE_NAME="head")
        short = ["--set", "train.max_steps=20", "--workers", 2]
        process = start(nodes, "ranks.yaml", *short, "--ray-address", nodes.address, "--json")
        line = line_with(process, "waiting")
        assert "1 CPUs on 1 nodes, room for 1 ranks, until nodes are added" in line
        nodes.add(1, RAY_NODE_TYPE_NAME="worker")
        out, err = process.communicate(timeout=280)
    assert process.returncode == 0, err
    assert last_json(out)["steps"] == 20


def test_a_node_that_does_not_see_the_run_is_named(start: Start, tmp_path: Path) -> None:
    probe = ["unshare", "--mount", "mount", "-t", "tmpfs", "none", str(tmp_path)]
    if shutil.which("unshare") is None or subprocess.run(probe, capture_output=True, check=False).returncode != 0:
        pytest.skip("no mount namespaces here")
    with Nodes() as nodes:
        nodes.add(1)
        nodes.add(1, without=tmp_path)
        err = refused(start(nodes, "ranks.yaml", "--workers", 2, "--ray-address", nodes.address), tmp_path)
    assert f"the node {nodes.address.rpartition(':')[0]} does not see {tmp_path}" in err
    assert "shared folder" in err
