"""StreamingNode: the WALs one process owns, and their gRPC edge.

Knows the WAL; knows no coordinator and no client. What it needs of the coordinator (oracle,
authority on terms) is passed in.
"""

from walplane.node.config import NodeConfig
from walplane.node.server import RpcServer, start_server
from walplane.node.service import StreamingNodeService
from walplane.node.streaming_node import StreamingNode

__all__ = ["NodeConfig", "RpcServer", "StreamingNode", "StreamingNodeService", "start_server"]
