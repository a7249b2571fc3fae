"""The open protocol of rules §12, for a first open and for a self-reopen alike.

1 exclusivity of the meta topic, a barrier, the topic read through it; 2 exclusivity of the data
topic; 3 the term re-read by a quorum read; 4 a fresh tick and the RecoveryBarrier; 5 replay through
exactly that barrier. The log is the arbiter: a barrier of a higher term, or of the same term by
somebody else, means give up. Whatever fails, everything taken is released. Layer: wal.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass

from walplane import channel
from walplane.backends.interface import EARLIEST, Backend, BackendSession, Start, StartAt
from walplane.message import codec
from walplane.message.ids import MessageID, RecordID
from walplane.message.registry import MessageType
from walplane.rpc.errors import ErrorCode, WalError
from walplane.rpc.v1 import headers_pb2, log_pb2
from walplane.wal.frames import FrameFilter, FrameSender, OpenKey
from walplane.wal.limits import RecordLimits
from walplane.wal.metalog import MetaLog, MetaState, find_foreign
from walplane.wal.ports import TURN_ENTRIES, LogEntry, StaleTerm, TermAuthority

Beginning = tuple[RecordID | None, MessageID | None]
Observe = Callable[[LogEntry, OpenKey, int], None]


@dataclass
class Opening:
    """What one open needs.

    Attributes:
        pchannel: whose log.
        key: (term, open number); the open number grows with every attempt of this owner.
        barrier_id: random id of this attempt.
        own_barriers: ids of all attempts of this owner under this term.
        reopen: whether this owner held the log before, under the same term.
        barrier_tick: gives the tick of the RecoveryBarrier, above all that went before.
        meta_limits: of the meta topic's frames.
        ack_timeout_s: a barrier that is not acknowledged within this time counts as lost.
        begin: told what the meta topic says; returns the record where the replay begins (None =
            the earliest) and the LastConfirmed known by then.
        observe: takes every valid entry of the replay, in log order, with its frame's number.
        now: monotonic seconds.
        progress: told of each read of a topic: a long one is no reason to give up.
    """

    pchannel: str
    key: OpenKey
    barrier_id: bytes
    own_barriers: set[bytes]
    reopen: bool
    meta_limits: RecordLimits
    ack_timeout_s: float
    barrier_tick: Callable[[], Awaitable[int]]
    begin: Callable[[MetaState], Beginning]
    observe: Observe
    now: Callable[[], float]
    progress: Callable[[], None]


@dataclass
class OpenedLog:
    """A log this owner holds: everything before the barrier is settled.

    Attributes:
        replayed: entries that were read again.
        replay_s: seconds that took.
        open_s: seconds of the whole open.
    """

    session: BackendSession
    meta: MetaLog
    sender: FrameSender
    barrier_id: MessageID
    barrier_tick: int
    last_confirmed: MessageID | None
    frames: FrameFilter
    replayed: int
    replay_s: float = 0.0
    open_s: float = 0.0


async def open_log(backend: Backend, authority: TermAuthority, opening: Opening) -> OpenedLog:
    """Runs the protocol once; the caller sets the deadline.

    Raises:
        StaleTerm: another owner was here; this one must not write under its term any more.
        WalError: anything else that failed; worth another attempt with the next open number.
    """
    began = opening.now()
    async with AsyncExitStack() as taken:
        session = await backend.session()
        taken.push_async_callback(session.close)
        meta_topic = channel.meta_topic(opening.pchannel)
        term, open_number = opening.key
        if opening.reopen:
            # Taking a topic fences the rightful owner; whoever holds it wrote a meta barrier first.
            own, progress = opening.own_barriers, opening.progress
            await find_foreign(session, meta_topic, term, own, progress)
        meta, state = await MetaLog.open(
            session,
            meta_topic,
            term=term,
            open_number=open_number,
            barrier_id=opening.barrier_id,
            own_barriers=opening.own_barriers,
            ack_timeout_s=opening.ack_timeout_s,
            limits=opening.meta_limits,
            progress=opening.progress,
        )
        await session.ensure_topic(opening.pchannel)
        writer = await session.open_writer(opening.pchannel, term, open_number)
        await _confirm_term(authority, opening)
        tick = await opening.barrier_tick()
        sender = FrameSender(opening.pchannel, writer, opening.key)
        barrier = sender.send(entries=[_barrier_entry(opening, tick)])
        await sender.written(barrier, opening.ack_timeout_s)
        replay = _Replay(session, backend.name, opening, tick)
        beginning, loaded = opening.begin(state), opening.now()
        opened = await replay.run(beginning, meta, sender)
        ended = opening.now()
        opened.replay_s, opened.open_s = ended - loaded, ended - began
        taken.pop_all()
        return opened


async def _confirm_term(authority: TermAuthority, opening: Opening) -> None:
    try:
        current = await authority.current_term(opening.pchannel)
    except StaleTerm:
        raise
    except WalError:
        if opening.reopen:
            return  # barriers and fence decide: that is what carries appends through an outage
        raise
    if current != opening.key.term:
        raise StaleTerm(opening.pchannel, opening.key.term, current)


def _barrier_entry(opening: Opening, tick: int) -> log_pb2.Entry:
    header = headers_pb2.RecoveryBarrierHeader(
        term=opening.key.term,
        open_number=opening.key.open_number,
        barrier_id=opening.barrier_id,
    )
    envelope = log_pb2.Envelope(
        version=1,
        type=MessageType.RECOVERY_BARRIER,
        term=opening.key.term,
        first_tick=tick,
        count=1,
        watermark=tick - 1,  # whatever lies before the barrier happened; the rest never will
        is_pchannel_level=True,
    )
    return codec.seal_entry(envelope, codec.encode_body(header.SerializeToString(), [b""]))


class _Replay:
    """Reads the data topic from the checkpoint through exactly our own barrier."""

    def __init__(self, session: BackendSession, backend: str, opening: Opening, tick: int) -> None:
        self._session = session
        self._backend = backend
        self._opening = opening
        self._tick = tick
        self._last_confirmed: MessageID | None = None
        self._entries = 0

    async def run(self, begin: Beginning, meta: MetaLog, sender: FrameSender) -> OpenedLog:
        record_id, self._last_confirmed = begin
        start = EARLIEST if record_id is None else Start(StartAt.FROM, record_id)
        try:
            scanner = await self._session.open_scanner(self._opening.pchannel, start)
        except WalError as error:
            if error.code is ErrorCode.DATA_TRUNCATED:
                raise self._lost(record_id) from error
            raise
        try:
            frames = FrameFilter(self._opening.pchannel)
            while True:
                records = await scanner.read()
                self._opening.progress()
                for record in records:
                    where = codec.RecordPlace(self._opening.pchannel, record.record_id)
                    content = codec.decode_frame(record.data, where)
                    if record_id is None and not frames.key.term and content.number:
                        raise self._lost(None)
                    if frames.admit(content) and await self._take(record.record_id, content):
                        return OpenedLog(
                            session=self._session,
                            meta=meta,
                            sender=sender,
                            barrier_id=MessageID(self._backend, record.record_id),
                            barrier_tick=self._tick,
                            last_confirmed=self._last_confirmed,
                            frames=frames,
                            replayed=self._entries,
                        )
        finally:
            await scanner.close()

    def _lost(self, record_id: RecordID | None) -> WalError:
        """The log does not reach back to where a replay must begin."""
        needed = "its beginning, since there is no checkpoint"
        if record_id is not None:
            needed = f"record {record_id}, where the checkpoint says that replay begins"
        return WalError(
            ErrorCode.DATA_TRUNCATED,
            f"data of {self._opening.pchannel} is lost: its log no longer holds {needed}. Restore "
            "the topic and its meta topic from a backup, and let the backend expire no records",
        )

    async def _take(self, record_id: RecordID, content: log_pb2.FrameContent) -> bool:
        key = OpenKey(content.term, content.open_number)
        for index, entry in enumerate(content.entries):
            envelope = entry.envelope  # kept: protobuf makes one anew for each who asks, else
            if envelope.type == MessageType.RECOVERY_BARRIER and self._is_ours(entry):
                return True
            message_id = MessageID(self._backend, record_id, index)
            log_entry = LogEntry(entry, message_id, key.open_number)
            if log_entry.last_tick >= self._tick:
                raise WalError(
                    ErrorCode.UNRECOVERABLE,
                    f"{self._opening.pchannel} holds tick {log_entry.last_tick} at {message_id}, "
                    f"not below the fresh tick {self._tick}: check the timestamp oracle",
                )
            confirmed, before = log_entry.result().last_confirmed, self._last_confirmed
            if confirmed is not None and (before is None or confirmed > before):
                self._last_confirmed = confirmed
            self._entries += 1
            if not self._entries % TURN_ENTRIES:
                await asyncio.sleep(0)
            self._opening.observe(log_entry, key, content.number)
        return False

    def _is_ours(self, entry: log_pb2.Entry) -> bool:
        header_bytes, _ = codec.decode_body(entry.body)
        header = headers_pb2.RecoveryBarrierHeader.FromString(header_bytes)
        if header.barrier_id == self._opening.barrier_id:
            return True
        own = self._opening.own_barriers
        same_term = header.term == self._opening.key.term and header.barrier_id not in own
        if header.term > self._opening.key.term or same_term:
            raise StaleTerm(self._opening.pchannel, self._opening.key.term, header.term)
        return False
