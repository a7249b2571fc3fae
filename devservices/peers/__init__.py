"""Other systems' servers, for benchmarks and tests beside them: found or fetched, run for a while.

Contract: each is a context manager that yields a `Peer`; when it ends the server and what it stored
are gone. What cannot be had is named in one line with the way to get it.
"""

from devservices.peers.milvus import milvus_server
from devservices.peers.nats import nats_server
from devservices.peers.redis import redis_server
from devservices.peers.s3 import s3_server
from devservices.peers.server import Peer, PeerError

__all__ = ["Peer", "PeerError", "milvus_server", "nats_server", "redis_server", "s3_server"]
