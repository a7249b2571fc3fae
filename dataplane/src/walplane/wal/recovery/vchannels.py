"""The VChannels a PChannel carries, as its log says: made and dropped by their collections.

A component of the checkpoint like the producers' windows. Layer: wal.
"""

from __future__ import annotations

from collections.abc import Iterable

from walplane.message.registry import MessageType
from walplane.wal.ports import LogEntry


class VChannelTable:
    """Names of the VChannels that exist."""

    component = "vchannels"

    def __init__(self) -> None:
        """None yet."""
        self._names: set[str] = set()

    def __contains__(self, vchannel: str) -> bool:
        """Whether `vchannel` exists."""
        return vchannel in self._names

    def __len__(self) -> int:
        """How many there are."""
        return len(self._names)

    def observe(self, log_entry: LogEntry) -> None:
        """Learns of a written entry, in log order."""
        envelope = log_entry.entry.envelope
        if envelope.type == MessageType.CREATE_COLLECTION:
            self._names.add(envelope.vchannel)
        elif envelope.type == MessageType.DROP_COLLECTION:
            self._names.discard(envelope.vchannel)

    def save(self) -> list[bytes]:
        """The component's snapshot."""
        return [name.encode() for name in sorted(self._names)]

    def load(self, parts: Iterable[bytes]) -> None:
        """Takes over what `save` made."""
        self._names.update(part.decode() for part in parts)
