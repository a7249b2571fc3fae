"""One WAL's own client of a Pulsar. Layer: backends."""

from __future__ import annotations

import asyncio
import secrets

from walplane.backends.interface import RecordScanner, Start, StartAt, TopicWriter
from walplane.backends.pulsar.client import PulsarClient
from walplane.backends.pulsar.scanner import PulsarScanner
from walplane.backends.pulsar.topics import Position, Topics, TopicState
from walplane.backends.pulsar.writer import PulsarWriter
from walplane.message.ids import RecordID
from walplane.rpc.errors import ErrorCode, WalError

_LAG_S = 1.0
"""How long a broker may not tell of a record that it has acknowledged, as between two ledgers."""
_PAUSE_S = 0.1
_NAMING = frozenset({StartAt.FROM, StartAt.AFTER})


class PulsarSession:
    """Writers and scanners of one pulsar-client."""

    def __init__(self, client: PulsarClient, topics: Topics) -> None:
        """Takes over `client`; `topics` is shared with other sessions."""
        self._client = client
        self._topics = topics
        self._writers: list[PulsarWriter] = []
        self._scanners: set[PulsarScanner] = set()
        self._closing: asyncio.Task[None] | None = None

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._closing is not None

    async def ensure_topic(self, topic: str) -> None:
        """See `BackendSession.ensure_topic`."""
        self._check_open()
        await self._topics.ensure(topic)

    async def open_writer(self, topic: str, term: int, open_number: int) -> TopicWriter:
        """See `BackendSession.open_writer`.

        The producer's name is one that nobody had before: deduplication then concerns the copies
        that this very client sends, and nothing another open wrote.
        """
        self._check_open()
        name = f"{topic}/{term}.{open_number}/{secrets.token_hex(8)}"
        writer = PulsarWriter(topic, await self._client.producer(topic, name))
        self._writers.append(writer)
        if self.closed:
            writer.close()
        return writer

    async def open_scanner(self, topic: str, start: Start) -> RecordScanner:
        """See `BackendSession.open_scanner`."""
        self._check_open()
        state, floor = await self._state(topic, start)
        after, expected = _place(topic, start, state, floor)
        reader = await self._client.reader(topic, after)
        scanner = PulsarScanner(self._client, self._topics, topic, reader, after, expected)
        self._scanners = {one for one in self._scanners if not one.closed} | {scanner}
        return scanner

    async def _state(self, topic: str, start: Start) -> tuple[TopicState, Position]:
        """The topic's state and floor, asked for again while what `start` names may be to come."""
        named = _position(start.record_id) if start.at in _NAMING else None
        clock = asyncio.get_running_loop().time
        deadline = clock() + _LAG_S
        while True:
            state, floor = await self._topics.floor(topic)
            if named is None or named <= max(floor, state.last or floor) or clock() > deadline:
                return state, floor
            await asyncio.sleep(_PAUSE_S)

    async def last_record_id(self, topic: str) -> RecordID | None:
        """See `BackendSession.last_record_id`."""
        self._check_open()
        return (await self._topics.state(topic)).last

    async def truncate(self, topic: str, record_id: RecordID) -> None:
        """See `BackendSession.truncate`."""
        self._check_open()
        await self._topics.truncate(topic, _position(record_id))

    async def close(self) -> None:
        """See `BackendSession.close`; returns within 2 seconds.

        Cancelling the call does not take it back, and whoever calls again waits for its end.
        """
        if self._closing is None:
            for writer in self._writers:
                writer.close()
            self._closing = asyncio.create_task(self._close(), name="close-pulsar-session")
        await asyncio.shield(self._closing)

    async def _close(self) -> None:
        await asyncio.gather(self._client.close(), *(one.close() for one in self._scanners))

    def _check_open(self) -> None:
        if self.closed:
            raise WalError(ErrorCode.ON_SHUTDOWN, "this session of the Pulsar backend is closed")


def _place(
    topic: str, start: Start, state: TopicState, floor: Position
) -> tuple[Position, Position | None]:
    """The position before the first record wanted, and that record where it is named.

    Raises:
        WalError: DATA_TRUNCATED when the topic does not hold what `start` names.
    """
    if start.at is StartAt.EARLIEST:
        return floor, None
    if start.at is StartAt.LATEST:
        return max(floor, state.last or floor), None
    wanted = _position(start.record_id)
    if wanted < floor or (start.at is StartAt.FROM and wanted == floor):
        raise WalError(
            ErrorCode.DATA_TRUNCATED,
            f"topic {topic} was truncated up to {floor[0]}:{floor[1]}, so record "
            f"{wanted[0]}:{wanted[1]} is gone: read from earliest",
        )
    if wanted != floor and not state.holds(wanted):
        raise WalError(
            ErrorCode.DATA_TRUNCATED,
            f"topic {topic} has no record {wanted[0]}:{wanted[1]}: read from earliest",
        )
    if start.at is StartAt.AFTER:
        return wanted, None
    return (wanted[0], wanted[1] - 1), wanted


def _position(record_id: RecordID) -> Position:
    if len(record_id) != 2:
        raise WalError(
            ErrorCode.INVALID_ARGUMENT,
            f"{':'.join(map(str, record_id)) or 'an empty id'} is no record of a Pulsar topic: "
            "expected ledger:entry",
        )
    return record_id[0], record_id[1]
