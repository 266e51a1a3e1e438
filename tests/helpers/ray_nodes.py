"""Ray clusters on this machine for tests: with several nodes, and with one node that does not see a folder."""

from __future__ import annotations

import os
import shlex
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

os.environ.update(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=uuid4().hex)  # a token for these clusters alone
os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", "worker died|node with node id")

import ray
from ray.cluster_utils import Cluster

STORE = 80 * 2**20
PORTS = ("metrics_agent_port", "metrics_export_port", "runtime_env_agent_port", "dashboard_agent_listen_port")
APART = ("setpriv", "--pdeathsig", "TERM", "unshare", "--mount")  # own mount namespace; ends with this process
UP = 120.0  # seconds that a node may take to end


def ports(names: tuple[str, ...] = PORTS) -> dict[str, int]:
    """Free ports for a node's agents: if the node searches for them itself, it can time out on a busy machine."""
    servers = [socket.create_server(("", 0)) for _ in names]
    numbers = {name: server.getsockname()[1] for name, server in zip(names, servers, strict=True)}
    for server in servers:
        server.close()
    return numbers


@contextmanager
def cluster(nodes: int) -> Iterator[tuple[Cluster, list[Any]]]:
    """A head without cores and `nodes` nodes with one core each; all end with the context."""
    light = {"object_store_memory": STORE, "include_dashboard": False}
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, **light, **ports()})
    try:
        yield made, [made.add_node(num_cpus=1, **light, **ports()) for _ in range(nodes)]
    finally:
        ray.shutdown()
        made.shutdown()


def may_mount() -> bool:
    """True if processes may have their own mount namespace here."""
    try:
        return subprocess.run([*APART, "true"], capture_output=True, check=False).returncode == 0
    except OSError:
        return False


@contextmanager
def head_apart(hidden: Path, cores: int) -> Iterator[str]:
    """The address of a cluster of one node, whose processes see an empty folder in place of `hidden`."""
    names = ("port", "metrics-export-port", "runtime-env-agent-port", "dashboard-agent-grpc-port",
             "dashboard-agent-listen-port")  # fmt: skip
    free = ports(names)
    command = [str(Path(sys.executable).parent / "ray"), "start", "--head", "--block", "--include-dashboard=false"]
    command += [f"--num-cpus={cores}", f"--object-store-memory={STORE}", "--disable-usage-stats"]
    command += [f"--{name}={port}" for name, port in free.items()]
    words = f"mount -t tmpfs none {shlex.quote(str(hidden))} && exec {shlex.join(command)}"
    head = subprocess.Popen([*APART, "sh", "-c", words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        assert head.stdout is not None
        output = []
        for line in head.stdout:
            output.append(line)
            if "Ray runtime started" in line:
                break
        else:
            raise RuntimeError("no head of a Ray cluster: " + "".join(output))
        yield f"{ray.util.get_node_ip_address()}:{free['port']}"
    finally:
        ray.shutdown()
        head.terminate()
        head.wait(UP)
