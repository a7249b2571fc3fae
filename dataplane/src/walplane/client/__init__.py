"""StreamingClient: the way programs use a cluster.

```python
async with StreamingClient.connect("127.0.0.1:7650") as wal:
    collection = await wal.create_collection("events", shards=2)
    result = await wal.append(insert(collection.vchannels[0], b"hello"))
    async for message in wal.read(collection.vchannels[0], follow=False):
        print(message.time_tick, message.payload)
```

Knows messages and the coordinator's and node's services; a node in the same process is used through
a protocol defined here.
"""

from walplane.client.catalog import CollectionInfo
from walplane.client.client import StreamingClient
from walplane.client.config import DEFAULT_ADDRESS, ClientConfig
from walplane.client.discovery import Assignment, Topology
from walplane.client.named import NamedProducer
from walplane.client.reader import Reader
from walplane.client.results import AppendResult, AppendResults, PartialAppendError
from walplane.client.sync import SyncStreamingClient
from walplane.client.sync_reader import SyncReader
from walplane.client.sync_txn import SyncTxn
from walplane.client.txn import Txn
from walplane.wal.scan.request import Only

__all__ = [
    "DEFAULT_ADDRESS",
    "AppendResult",
    "AppendResults",
    "Assignment",
    "ClientConfig",
    "CollectionInfo",
    "NamedProducer",
    "Only",
    "PartialAppendError",
    "Reader",
    "StreamingClient",
    "SyncReader",
    "SyncStreamingClient",
    "SyncTxn",
    "Topology",
    "Txn",
]
