"""A user that lives in the process of a node, as a program does that opens the log in itself.

Contract: it dies, stands still and starts again with its node. What that node owns it appends to
and reads without gRPC, all else over the network. Several may live in one node. Layer: testkit.
"""

from __future__ import annotations

from walplane.client import StreamingClient
from walplane.testkit.sim.node import NodeProcess
from walplane.testkit.sim.process import Process
from walplane.testkit.sim.workload import User


class Lodger(User):
    """One user; `User.process` is that of the node it lives in."""

    def kill(self) -> None:
        """SIGKILL of its node."""
        self._work.cluster.kill(self.process)

    @property
    def _producer(self) -> str:
        return f"{self._host}@{self.process.name}"

    def _first_process(self) -> Process:
        """It starts with each node on one of the hosts, the present one first."""
        cluster = self._work.cluster
        host = f"n{int(self._host[1:]) % cluster.shape.nodes}"
        cluster.on_node[host].append(self._move_in)
        node = cluster.nodes[host]
        self._start_in(node)
        return node.process

    def _move_in(self, node: NodeProcess) -> None:
        self.process = node.process
        self._client = None
        self._start_in(node)

    def _start_in(self, node: NodeProcess) -> None:
        self._node = node
        node.process.start(self._run(node.process))

    def _new_client(self, process: Process) -> StreamingClient:
        node = self._node.node
        return self._work.cluster.client(process, {node.node_id: node})
