"""Topics in Apache Pulsar: `pulsar://host:6650?admin=http://host:8080&namespace=tenant/name`.

Contract: one PChannel topic or meta topic = one non-partitioned persistent topic; one record = one
Pulsar message; RecordID = (ledger, entry). A session is a pulsar-client of its own. Exclusivity is
`ProducerAccessMode.ExclusiveWithFencing`: the last opener wins whatever its term, and everything
the older writer has in flight is either before the newer one's first record or not in the log.
A durable subscription holds the log and marks the logical truncation point; topic deduplication
drops what the client resends by itself. Layer: backends.
"""

from __future__ import annotations

from walplane.backends.interface import Backend
from walplane.backends.pulsar.backend import PulsarBackend
from walplane.backends.pulsar.config import PulsarConfig


async def open_backend(url: str) -> Backend:
    """Opens the backend that `url` names; makes its namespace when it is missing.

    Raises:
        WalError: INVALID_ARGUMENT for a malformed URL; UNRECOVERABLE for a namespace whose settings
            would lose data; INNER when broker or admin service cannot be reached in 10 seconds.
    """
    return await PulsarBackend.open(PulsarConfig.parse(url))
