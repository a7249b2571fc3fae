"""Names that the shell can complete, asked of the cluster. Layer: cli.

Contract: the cluster is the one that the unfinished line names, or would mean. Completes nothing,
without a word, when no cluster answers within a second.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import structlog
import typer

from walplane.cli.logs import LogFormat, LogLevel, configure_logging
from walplane.client import ClientConfig, SyncStreamingClient
from walplane.client.config import DEFAULT_ADDRESS
from walplane.message.registry import MessageType
from walplane.rpc.errors import WalError

_TIMEOUT_S = 1.0
_log = structlog.get_logger(__name__)


def collection_names(context: typer.Context, incomplete: str) -> list[str]:
    """Collections whose names begin with `incomplete`."""
    return _asked(context, incomplete, lambda wal: (info.name for info in wal.list_collections()))


def pchannel_names(context: typer.Context, incomplete: str) -> list[str]:
    """PChannels whose names begin with `incomplete`."""
    return _asked(context, incomplete, lambda wal: wal.topology().assignments)


def message_types(incomplete: str) -> list[str]:
    """Types of messages whose names begin with `incomplete`, in capitals unless that has none."""
    written = str.lower if incomplete.islower() else str.upper
    names = (written(each.name) for each in MessageType)
    return [name for name in names if name.startswith(incomplete)]


def _asked(
    context: typer.Context,
    incomplete: str,
    names: Callable[[SyncStreamingClient], Iterable[str]],
) -> list[str]:
    configure_logging(LogLevel.ERROR, LogFormat.TEXT)
    config = ClientConfig(call_timeout_s=_TIMEOUT_S)
    try:
        with SyncStreamingClient.connect(
            _address(context), timeout=_TIMEOUT_S, config=config
        ) as wal:
            return [name for name in names(wal) if name.startswith(incomplete)]
    except WalError as error:
        _log.debug("nothing to complete", error=str(error))
        return []


def _address(context: typer.Context) -> str:
    """That of the command if it has one, else the one before it or of the environment."""
    own, outer = (each.params.get("address") for each in (context, context.find_root()))
    return str(own or outer or DEFAULT_ADDRESS)
