"""A Ray cluster of a head and two machines with one processor each, on loopback, until standard input ends.

It prints the head's address. `kill PID` on standard input kills the machine whose raylet has that process id.
"""

from __future__ import annotations

import sys
from typing import Any

from ray.cluster_utils import Cluster

from tests.processes import Process, Processes

ENVIRONMENT = {
    # Ray takes the machine's outer address otherwise.
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    "RAY_AUTH_MODE": "disabled",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DISABLE_IMPORT_WARNING": "1",
}


def start(processes: Processes) -> tuple[Process, str]:
    """Start such a cluster; return its process and its address, once it can be used."""
    process = processes.start([sys.executable, "-m", "tests.ray_cluster"], environment=ENVIRONMENT)
    address = process.line()
    assert address, process.errors()
    return process, address


def raylet(node: Any) -> int:
    """The process id of a machine's raylet."""
    return node.all_processes["raylet"][0].process.pid


def main() -> None:
    """Serve standard input."""
    head = {"num_cpus": 0, "include_dashboard": False, "node_ip_address": "127.0.0.1"}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    nodes = [cluster.add_node(num_cpus=1, num_gpus=0) for _ in range(2)]
    print(cluster.address, flush=True)
    for line in sys.stdin:
        (node,) = [each for each in nodes if raylet(each) == int(line.split()[1])]
        cluster.remove_node(node, allow_graceful=False)
        print("killed", flush=True)
    cluster.shutdown()


if __name__ == "__main__":
    main()
