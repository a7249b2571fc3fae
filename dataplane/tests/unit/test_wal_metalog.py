"""The meta topic: which snapshots count, and what a failing truncation does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import cast

import pytest

from walplane.backends.forwarding import ForwardingSession
from walplane.backends.interface import EARLIEST, BackendSession, RecordScanner, Start
from walplane.backends.registry import open_backend
from walplane.message.codec import decode_frame
from walplane.message.ids import RecordID
from walplane.rpc.errors import ErrorCode, WalError
from walplane.rpc.v1 import log_pb2
from walplane.testkit.faulty import FaultyBackend, at_once
from walplane.wal.frames import FrameSender, OpenKey
from walplane.wal.limits import RecordLimits
from walplane.wal.metalog import MetaLog, MetaState, highest_term, meta_limits

TOPIC = "meta"
LIMITS = meta_limits(1 << 20)


@pytest.fixture
async def backend() -> AsyncIterator[FaultyBackend]:
    backend = FaultyBackend(await open_backend("memory:"))
    yield backend
    await backend.close()


async def reopened(
    backend: FaultyBackend, term: int, limits: RecordLimits = LIMITS
) -> tuple[MetaLog, MetaState]:
    session = await backend.session()
    return await MetaLog.open(
        session, TOPIC, term=term, open_number=0, barrier_id=b"%d" % term, limits=limits
    )


async def stored(session: BackendSession) -> list[log_pb2.MetaRecord]:
    scanner = await session.open_scanner(TOPIC, EARLIEST)
    records = [decode_frame(record.data, "record") for record in await scanner.read()]
    return [meta for content in records for meta in content.meta]


async def write(backend: FaultyBackend, term: int, records: list[log_pb2.MetaRecord]) -> None:
    """Writes `records` under `term`, each in a frame of its own."""
    session = await backend.session()
    sender = FrameSender(TOPIC, await session.open_writer(TOPIC, term, 0), OpenKey(term, 0))
    for record in records:
        await sender.written(sender.send(meta=[record]), 5)


async def test_a_whole_snapshot_replaces_what_was_before(backend: FaultyBackend) -> None:
    meta, _ = await reopened(backend, 1)
    await meta.append(("words", b"old"))
    await meta.snapshot({"words": [b"a", b"b"]})
    await meta.append(("words", b"new"))
    _, state = await reopened(backend, 2)
    assert state == MetaState({"words": [b"a", b"b"]}, [("words", b"new")])


async def test_a_snapshot_that_lacks_a_part_does_not_count(backend: FaultyBackend) -> None:
    meta, _ = await reopened(backend, 1)
    await meta.snapshot({"words": [b"a", b"b"]})
    records = await stored(await backend.session())
    await write(backend, 2, [r for r in records if r.snapshot_part.data != b"b"])
    _, state = await reopened(backend, 3)
    assert state.snapshot == {"words": [b"a", b"b"]}, "the one before it counts"


async def test_a_snapshot_with_the_end_of_another_does_not_count(backend: FaultyBackend) -> None:
    meta, _ = await reopened(backend, 1)
    await meta.snapshot({"words": [b"a"]})
    begin = log_pb2.MetaSnapshotBegin(snapshot_id=8)
    part = log_pb2.MetaSnapshotPart(snapshot_id=8, component="words", data=b"b")
    end = log_pb2.MetaSnapshotEnd(snapshot_id=9, parts=1)
    records = [
        log_pb2.MetaRecord(snapshot_begin=begin),
        log_pb2.MetaRecord(snapshot_part=part),
        log_pb2.MetaRecord(snapshot_end=end),
    ]
    await write(backend, 2, records)
    _, state = await reopened(backend, 3)
    assert state.snapshot == {"words": [b"a"]}


async def test_a_failed_truncation_loses_nothing_and_is_made_good_by_the_next(
    backend: FaultyBackend,
) -> None:
    meta, _ = await reopened(backend, 1)
    await meta.append(*[("words", b"%d" % number) for number in range(5)])

    async def refused() -> None:
        raise WalError(ErrorCode.INNER, "the admin API cannot be reached")

    backend.before_truncation = refused
    await meta.snapshot({"words": [b"a"]})
    await meta.append(("words", b"b"))
    session = await backend.session()
    assert any(record.delta.data == b"4" for record in await stored(session))
    backend.before_truncation = at_once
    await meta.snapshot({"words": [b"a", b"b"]})
    assert not any(record.HasField("delta") for record in await stored(session))
    _, state = await reopened(backend, 2)
    assert state == MetaState({"words": [b"a", b"b"]}, [])


async def test_what_is_known_to_fit_no_record_costs_no_open(backend: FaultyBackend) -> None:
    limits = meta_limits(backend.max_record_bytes)
    backend.record_bytes = 1000
    whole = {"words": [b"a", b"b" * 2000]}
    for term in (1, 2):  # with others in its frame; alone
        meta, _ = await reopened(backend, term, limits)
        with pytest.raises(WalError, match="above"):
            await meta.snapshot(whole)
        assert meta.failure is not None
    meta, _ = await reopened(backend, 3, limits)
    with pytest.raises(WalError, match="'words' are larger") as error:
        await meta.snapshot(whole)
    assert error.value.code is ErrorCode.INVALID_ARGUMENT
    assert meta.failure is None
    await meta.snapshot({"words": [b"a"]})


async def test_only_what_was_refused_is_made_smaller(backend: FaultyBackend) -> None:
    limits = meta_limits(backend.max_record_bytes)
    backend.record_bytes = 1000
    meta, _ = await reopened(backend, 1, limits)
    writes = (meta.snapshot({"words": [b"a" * 800] * 2}), meta.append(("words", b"b")))
    results = await asyncio.gather(*writes, return_exceptions=True)
    assert all(isinstance(result, WalError) for result in results)
    assert limits.frame_bytes > 700
    assert limits.entry_bytes > 1000


class TruncatedMeanwhile(ForwardingSession):
    """A session; somebody truncates the topic once, behind the back of its first scanner."""

    def __init__(self, inner: BackendSession, record_id: RecordID) -> None:
        super().__init__(inner)
        self._record_id: RecordID | None = record_id

    async def open_scanner(self, topic: str, start: Start) -> RecordScanner:
        scanner = await self.inner.open_scanner(topic, start)
        record_id, self._record_id = self._record_id, None
        if record_id is not None:
            await self.inner.truncate(topic, record_id)
        return scanner


async def last_snapshot(backend: FaultyBackend) -> RecordID:
    """Where the last snapshot begins; it is not truncated to yet."""
    meta, _ = await reopened(backend, 1)
    await meta.append(("words", b"old"))
    await meta.snapshot({"words": [b"a"]}, truncate=False)
    last = await (await backend.session()).last_record_id(TOPIC)
    assert last is not None
    return last


async def test_a_truncation_during_an_open_is_no_damage(backend: FaultyBackend) -> None:
    session = TruncatedMeanwhile(await backend.session(), await last_snapshot(backend))
    _, state = await MetaLog.open(
        cast(BackendSession, session),
        TOPIC,
        term=2,
        open_number=0,
        barrier_id=b"2",
        limits=LIMITS,
    )
    assert state == MetaState({"words": [b"a"]}, [])


async def test_a_truncation_during_a_look_is_no_damage(backend: FaultyBackend) -> None:
    session = TruncatedMeanwhile(await backend.session(), await last_snapshot(backend))
    assert await highest_term(cast(BackendSession, session), TOPIC) == 1
