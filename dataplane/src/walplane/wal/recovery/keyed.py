"""Results of appends under callers' idempotency keys (`_ik`, rules §2).

Contract: a key belongs to one VChannel, whose name holds the id of its collection. A repeat of the
same append, by whomever, gets the first result; another append under the key is refused. What is
kept is bounded in number, bytes and age; the oldest go first, and what went may be appended anew.
A component of the checkpoint: saved in its snapshots, rebuilt by observing the log; observing an
entry twice changes nothing. Layer: wal.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from walplane.message.registry import IDEMPOTENCY_KEY, MessageType
from walplane.rpc.errors import ErrorCode, WalError
from walplane.rpc.v1 import log_pb2
from walplane.ticks import TICKS_PER_MS
from walplane.wal.ports import AppendResult, LogEntry
from walplane.wal.recovery.results import result_from_proto

Key = tuple[str, str]
"""VChannel, and the caller's key."""

_PART_RESULTS = 100
_OVERHEAD_BYTES = 300  # of one result in memory, besides its bytes


class _Kept(NamedTuple):
    tick: int
    data: bytes  # of a `KeyedResults` with this one: smaller than objects, and ready to be saved


def key_of(envelope: log_pb2.Envelope) -> Key | None:
    """The key that an entry was appended under; None without one."""
    key = envelope.properties.get(IDEMPOTENCY_KEY)
    return None if key is None else (envelope.vchannel, key)


class KeyedResults:
    """The results of one PChannel, in the order in which they were written."""

    component = "idempotency_keys"

    def __init__(self, results: int, max_bytes: int, age_ms: int) -> None:
        """Keeps `results`, `max_bytes` of them, none older than `age_ms` of tick time."""
        self._results = results
        self._max_bytes = max_bytes
        self._age = age_ms * TICKS_PER_MS
        self._kept: OrderedDict[Key, _Kept] = OrderedDict()
        self._bytes = 0
        self._tick = 0  # the newest that was seen: age is told by the log, not by a clock

    def __contains__(self, key: Key | None) -> bool:
        """Whether the result of `key` is kept."""
        return key in self._kept

    def __len__(self) -> int:
        """How many are kept."""
        return len(self._kept)

    @property
    def held_bytes(self) -> int:
        """What they take in memory, about."""
        return self._bytes

    def observe(self, log_entry: LogEntry) -> None:
        """Learns of a written entry, in log order."""
        envelope = log_entry.entry.envelope
        if envelope.type == MessageType.RECOVERY_BARRIER:
            return  # whoever wrote it does not observe it, and must forget what the next one does
        if log_entry.last_tick > self._tick:
            self._tick = log_entry.last_tick
        key = key_of(envelope)
        if key is not None and key not in self._kept:
            self._add(key, _to_proto(key, log_entry))
        if self._kept:
            self._forget()

    def find(self, key: Key, entry: log_pb2.Entry) -> AppendResult | None:
        """The first result when `entry` was appended under `key` already; None when it is new.

        Raises:
            WalError: INVALID_ARGUMENT when something else was.
        """
        kept = self._kept.get(key)
        if kept is None:
            return None
        stored = log_pb2.KeyedResults.FromString(kept.data).results[0]
        envelope = entry.envelope
        first = (stored.result.body_crc32c, stored.type, stored.partition_id)
        if first != (entry.body_crc32c, envelope.type, envelope.partition_id):
            raise WalError(
                ErrorCode.INVALID_ARGUMENT,
                f"another message was appended to {key[0]} under the idempotency key {key[1]!r}: "
                "use a new key for a new message",
            )
        return result_from_proto(stored.result)

    def save(self) -> list[bytes]:
        """The component's snapshot."""
        return list(self._parts())

    def load(self, parts: Iterable[bytes]) -> None:
        """Takes over what `save` made."""
        for part in parts:
            for stored in log_pb2.KeyedResults.FromString(part).results:
                self._add((stored.vchannel, stored.key), stored)
                self._tick = max(self._tick, stored.result.first_tick)

    def _parts(self) -> Iterator[bytes]:
        data = [kept.data for kept in self._kept.values()]
        for begin in range(0, len(data), _PART_RESULTS):
            yield b"".join(data[begin : begin + _PART_RESULTS])

    def _add(self, key: Key, stored: log_pb2.KeyedResult) -> None:
        data = log_pb2.KeyedResults(results=[stored]).SerializeToString()
        self._kept[key] = _Kept(stored.result.first_tick, data)
        self._bytes += _size(key, data)

    def _forget(self) -> None:
        while self._kept:
            key, kept = next(iter(self._kept.items()))
            fits = len(self._kept) <= self._results and self._bytes <= self._max_bytes
            if fits and kept.tick + self._age >= self._tick:
                return
            del self._kept[key]
            self._bytes -= _size(key, kept.data)


def _size(key: Key, data: bytes) -> int:
    return len(key[0]) + len(key[1]) + len(data) + _OVERHEAD_BYTES


def _to_proto(key: Key, log_entry: LogEntry) -> log_pb2.KeyedResult:
    envelope = log_entry.entry.envelope
    stored = log_pb2.KeyedResult(
        vchannel=key[0],
        key=key[1],
        type=envelope.type,
        partition_id=envelope.partition_id,
    )
    log_entry.result().write_to(stored.result)
    stored.result.body_crc32c = log_entry.entry.body_crc32c
    return stored
