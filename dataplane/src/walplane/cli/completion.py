"""Names that the shell can complete, asked of the cluster. Layer: cli.

Contract: completes nothing, without a word, when no cluster answers within a second.
"""

from __future__ import annotations

import os

import structlog

from walplane.cli.logs import LogFormat, LogLevel, configure_logging
from walplane.cli.options import DEFAULT_ADDRESS
from walplane.client import ClientConfig, SyncStreamingClient
from walplane.rpc.errors import WalError

_TIMEOUT_S = 1.0
_log = structlog.get_logger(__name__)


def collection_names(incomplete: str) -> list[str]:
    """Collections whose names begin with `incomplete`."""
    configure_logging(LogLevel.ERROR, LogFormat.TEXT)
    address = os.environ.get("WALPLANE_ADDRESS", DEFAULT_ADDRESS)
    config = ClientConfig(call_timeout_s=_TIMEOUT_S)
    try:
        with SyncStreamingClient.connect(address, timeout=_TIMEOUT_S, config=config) as wal:
            names = [info.name for info in wal.list_collections()]
    except WalError as error:
        _log.debug("nothing to complete", error=str(error))
        return []
    return [name for name in names if name.startswith(incomplete)]
