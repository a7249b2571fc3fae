"""Conformance of scanners: start positions, tailing, cancellation, truncation. Layer: testkit."""

from __future__ import annotations

import asyncio

from walplane.backends.interface import (
    EARLIEST,
    LATEST,
    BackendSession,
    Record,
    RecordScanner,
    Start,
    StartAt,
    TopicWriter,
)
from walplane.message.ids import RecordID
from walplane.rpc.errors import ErrorCode, WalError
from walplane.testkit.conformance.harness import (
    PATIENCE,
    ConformanceHarness,
    append_all,
    expect,
    expect_error,
    expect_same,
    open_session,
    payloads,
    read_count,
    read_to_end,
)


def start_from(record_id: RecordID) -> Start:
    """Exactly `record_id` first."""
    return Start(StartAt.FROM, record_id)


def start_after(record_id: RecordID) -> Start:
    """The first record above `record_id`."""
    return Start(StartAt.AFTER, record_id)


async def filled(
    session: BackendSession, topic: str, count: int = 30
) -> tuple[TopicWriter, list[Record]]:
    """A topic with `count` records, and its writer."""
    await session.ensure_topic(topic)
    writer = await session.open_writer(topic, 1, 0)
    await append_all(writer, payloads("filled", count))
    return writer, await read_to_end(session, topic)


async def read_from(session: BackendSession, topic: str, start: Start, count: int) -> list[Record]:
    """The first `count` records from `start`."""
    scanner = await session.open_scanner(topic, start)
    try:
        return await read_count(scanner, count)
    finally:
        await scanner.close()


async def read_impatiently(scanner: RecordScanner, count: int) -> list[Record]:
    """`count` records by reads that are cancelled again and again at different moments."""
    records: list[Record] = []
    patience = 0
    async with asyncio.timeout(PATIENCE):
        while len(records) < count:
            read = asyncio.ensure_future(scanner.read())
            patience = (patience + 1) % 7
            await asyncio.wait({read}, timeout=0.0005 * patience)
            read.cancel()
            try:
                records += await read
            except asyncio.CancelledError:
                continue
    return records


class ReadingConformance:
    """What every backend does with scanners."""

    async def test_read_from_every_start(self, harness: ConformanceHarness) -> None:
        """Earliest, from and after each id give exactly the rest of the log; latest what comes."""
        topic = harness.new_topic()
        async with open_session(harness) as session:
            writer, log = await filled(session, topic)
            expect_same(await read_from(session, topic, EARLIEST, 30), log, "earliest")
            for at in (0, 1, 15, 28, 29):
                start = start_from(log[at].record_id)
                expect_same(await read_from(session, topic, start, 30 - at), log[at:], "from")
            for at in (0, 1, 15, 28):
                start = start_after(log[at].record_id)
                rest = await read_from(session, topic, start, 29 - at)
                expect_same(rest, log[at + 1 :], "after")
            latest = await session.open_scanner(topic, LATEST)
            after_last = await session.open_scanner(topic, start_after(log[-1].record_id))
            await append_all(writer, [b"new"])
            for scanner in (latest, after_last):
                (record,) = await read_count(scanner, 1)
                expect(record.data == b"new", f"{record.data!r} instead of the new record")
                await scanner.close()
                await scanner.close()

    async def test_ids_that_the_topic_does_not_hold(self, harness: ConformanceHarness) -> None:
        """Beyond its end, or of another topic: DATA_TRUNCATED, and not when somebody writes on."""
        older, topic, newer = (harness.new_topic() for _ in range(3))
        async with open_session(harness) as session:
            # so many that no backend gives the last of their ids in `topic` as well
            others = [(await filled(session, older, 60))[1][-1]]
            writer, log = await filled(session, topic, 3)
            others.append((await filled(session, newer, 60))[1][-1])
            last = log[-1].record_id
            unknown = [record.record_id for record in others]
            unknown += [(*last[:-1], last[-1] + ahead) for ahead in (1, 5)]
            for record_id in unknown:
                for start in (start_from(record_id), start_after(record_id)):
                    async with expect_error(ErrorCode.DATA_TRUNCATED), asyncio.timeout(PATIENCE):
                        await read_from(session, topic, start, 1)
            await append_all(writer, [b"one more"])
            expect(len(await read_to_end(session, topic)) == 4, "the topic is not usable")

    async def test_an_id_is_known_once_it_is_acknowledged(
        self, harness: ConformanceHarness
    ) -> None:
        """A read may begin at or behind a record in the moment of its acknowledgement."""
        topic = harness.new_topic()
        async with open_session(harness) as session:
            await session.ensure_topic(topic)
            writer = await session.open_writer(topic, 1, 0)
            for data in payloads("named", 10):
                (ack,) = await append_all(writer, [data])
                if ack.record_id is None:
                    continue
                behind = await session.open_scanner(topic, start_after(ack.record_id))
                (record,) = await read_from(session, topic, start_from(ack.record_id), 1)
                expect(record.data == data, f"{record.data!r} instead of what was acknowledged")
                await behind.close()

    async def test_missing_topic(self, harness: ConformanceHarness) -> None:
        """Nobody ensured the topic: CHANNEL_NOT_EXIST, and opening does not make it."""
        topic = harness.new_topic()
        async with open_session(harness) as session:
            for _ in range(2):
                async with expect_error(ErrorCode.CHANNEL_NOT_EXIST):
                    await session.open_scanner(topic, EARLIEST)
                async with expect_error(ErrorCode.CHANNEL_NOT_EXIST):
                    await session.open_writer(topic, 1, 0)
            await session.ensure_topic(topic)
            await append_all(await session.open_writer(topic, 1, 0), [b"now"])
            expect(len(await read_to_end(session, topic)) == 1, "the topic is not usable")

    async def test_tail_while_writing(self, harness: ConformanceHarness) -> None:
        """Scanners of two sessions follow a writer record by record."""
        topic = harness.new_topic()
        data = payloads("tailed", 200)
        async with open_session(harness) as session, open_session(harness) as other:
            await session.ensure_topic(topic)
            writer = await session.open_writer(topic, 1, 0)
            starts = [(session, EARLIEST), (other, EARLIEST), (other, LATEST)]
            scanners = [await who.open_scanner(topic, start) for who, start in starts]
            tails = [asyncio.ensure_future(read_count(one, 200)) for one in scanners]
            for at in range(0, 200, 10):
                await append_all(writer, data[at : at + 10])
            for tail in tails:
                got = await asyncio.wait_for(tail, PATIENCE)
                expect_same([record.data for record in got], data, "the tail")

    async def test_cancelled_read_loses_nothing(self, harness: ConformanceHarness) -> None:
        """Reads cancelled at many moments, with records and without: no gap, no repeat."""
        topic = harness.new_topic()
        data = payloads("cancelled", 300)
        async with open_session(harness) as session:
            await session.ensure_topic(topic)
            writer = await session.open_writer(topic, 1, 0)
            scanner = await session.open_scanner(topic, EARLIEST)
            reading = asyncio.ensure_future(read_impatiently(scanner, 300))
            for at in range(0, 300, 3):
                await append_all(writer, data[at : at + 3])
            got = await asyncio.wait_for(reading, PATIENCE)
            expect_same([record.data for record in got], data, "what was read")
            await scanner.close()

    async def test_read_only_open_never_fences(self, harness: ConformanceHarness) -> None:
        """Scanners and last_record_id of other sessions leave the writer alone."""
        topic = harness.new_topic()
        async with open_session(harness) as session:
            writer, log = await filled(session, topic)
            for start in (EARLIEST, LATEST, start_from(log[3].record_id)):
                async with open_session(harness) as reader:
                    await reader.ensure_topic(topic)
                    scanner = await reader.open_scanner(topic, start)
                    await reader.last_record_id(topic)
                    await append_all(writer, payloads(f"still {start.at.value}", 3))
                    await asyncio.wait_for(scanner.read(), PATIENCE)
                await append_all(writer, payloads(f"again {start.at.value}", 3))
            expect(len(await read_to_end(session, topic)) == len(log) + 18, "records are missing")

    async def test_truncate(self, harness: ConformanceHarness) -> None:
        """Below the point: gone for every start. At and above it: all there, also reopened."""
        topic = harness.new_topic()
        async with open_session(harness) as session:
            writer, log = await filled(session, topic)
            await session.truncate(topic, log[20].record_id)
            await session.truncate(topic, log[10].record_id)
            await self._expect_truncated(session, topic, log)
            await append_all(writer, [b"goes on"])
        await harness.reopen()
        async with open_session(harness) as session:
            log = [*log, *(await read_to_end(session, topic))[-1:]]
            expect(log[-1].data == b"goes on", "the record after the truncation is lost")
            await self._expect_truncated(session, topic, log)
            await session.truncate(topic, log[-1].record_id)
            expect_same(await read_to_end(session, topic), log[-1:], "all but the last truncated")
            expect(await session.last_record_id(topic) == log[-1].record_id, "the last id is gone")

    async def _expect_truncated(
        self, session: BackendSession, topic: str, log: list[Record]
    ) -> None:
        """Truncated at 20: what lies below cannot be read, the rest can."""
        rest = len(log) - 20
        expect_same(await read_from(session, topic, EARLIEST, rest), log[20:], "earliest")
        for at in (20, 25):
            start = start_from(log[at].record_id)
            expect_same(await read_from(session, topic, start, len(log) - at), log[at:], "from")
        for at in (0, 10, 19):
            async with expect_error(ErrorCode.DATA_TRUNCATED, says="read from earliest"):
                await read_from(session, topic, start_from(log[at].record_id), 1)
        for at in (0, 10, 18):
            async with expect_error(ErrorCode.DATA_TRUNCATED, says="read from earliest"):
                await read_from(session, topic, start_after(log[at].record_id), 1)
        start = start_after(log[20].record_id)
        expect_same(await read_from(session, topic, start, rest - 1), log[21:], "after")

    async def test_truncate_below_a_scanner(self, harness: ConformanceHarness) -> None:
        """A scanner that the truncation overtakes goes on without a gap or says so."""
        topic = harness.new_topic()
        async with open_session(harness) as session:
            writer, log = await filled(session, topic, 30)
            behind = await session.open_scanner(topic, EARLIEST)
            ahead = await session.open_scanner(topic, LATEST)
            await session.truncate(topic, log[20].record_id)
            got: list[Record] = []
            try:
                while len(got) < 30:
                    got += await asyncio.wait_for(behind.read(), PATIENCE)
            except WalError as error:
                expect(error.code is ErrorCode.DATA_TRUNCATED, f"{error}")
            expect_same(got, log[: len(got)], "the overtaken scanner")
            await append_all(writer, [b"tail"])
            expect((await read_count(ahead, 1))[0].data == b"tail", "the tail stopped")
