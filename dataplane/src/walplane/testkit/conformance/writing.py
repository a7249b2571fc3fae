"""Conformance of appends: order, ids, limits, close and crash. Layer: testkit."""

from __future__ import annotations

import asyncio

from walplane.backends.interface import EARLIEST
from walplane.rpc.errors import ErrorCode, WalError
from walplane.testkit.conformance.harness import (
    PATIENCE,
    Acknowledged,
    ConformanceHarness,
    acknowledged,
    append_all,
    expect,
    expect_error,
    expect_growing,
    expect_holds,
    expect_same,
    open_session,
    payloads,
    read_count,
    read_to_end,
    settle,
)


class WritingConformance:
    """What every backend does with appends."""

    async def test_append_order_is_log_order(self, harness: ConformanceHarness) -> None:
        """200 records in flight come back in the order of the calls, byte for byte."""
        topic = harness.new_topic()
        data = [one * (1 + 40 * (number % 50)) for number, one in enumerate(payloads("a", 200))]
        async with open_session(harness) as session:
            await session.ensure_topic(topic)
            await session.ensure_topic(topic)
            acks = await append_all(await session.open_writer(topic, 1, 0), data)
            log = await read_to_end(session, topic)
        expect_same([record.data for record in log], data, "records")
        expect_holds(log, acks)

    async def test_ids_grow_across_terms_and_sessions(self, harness: ConformanceHarness) -> None:
        """Terms 1..3, two opens each, the backend reopened in between: one growing sequence."""
        topic = harness.new_topic()
        acks: list[Acknowledged] = []
        for term in (1, 2, 3):
            for open_number in (0, 1):
                async with open_session(harness) as session:
                    await session.ensure_topic(topic)
                    writer = await session.open_writer(topic, term, open_number)
                    acks += await append_all(writer, payloads(f"t{term}o{open_number}", 20))
            await harness.reopen()
        async with open_session(harness) as session:
            log = await read_to_end(session, topic)
        expect_same([one.data for one in log], [ack.data for ack in acks], "records")
        expect_holds(log, acks)
        expect_growing((ack.record_id for ack in acks if ack.record_id), "acknowledged ids")

    async def test_topics_do_not_mix(self, harness: ConformanceHarness) -> None:
        """Two topics written at once by one session hold their own records only."""
        topics = [harness.new_topic(), harness.new_topic()]
        async with open_session(harness) as session:
            for topic in topics:
                await session.ensure_topic(topic)
            writers = [await session.open_writer(topic, 1, 0) for topic in topics]
            both = [payloads(f"topic{number}", 50) for number in range(2)]
            await asyncio.gather(
                *(append_all(writer, data) for writer, data in zip(writers, both, strict=True))
            )
            for topic, data in zip(topics, both, strict=True):
                log = await read_to_end(session, topic)
                expect_same([record.data for record in log], data, f"records of {topic}")

    async def test_oversized_record_is_refused(self, harness: ConformanceHarness) -> None:
        """One byte too many: INVALID_ARGUMENT, nothing written; the limit itself fits."""
        topic, limit = harness.new_topic(), harness.backend.max_record_bytes
        async with open_session(harness) as session:
            await session.ensure_topic(topic)
            writer = await session.open_writer(topic, 1, 0)
            before, after = writer.append(b"before"), writer.append(bytes(limit + 1))
            async with expect_error(ErrorCode.INVALID_ARGUMENT):
                await after
            await asyncio.wait_for(before, PATIENCE)
            await append_all(writer, [b"x" * limit, b"after"])
            log = await read_to_end(session, topic)
        expect_same([len(one.data) for one in log], [6, limit, 5], "sizes")

    async def test_last_record_id(self, harness: ConformanceHarness) -> None:
        """None for an empty topic, then the id of the newest record, also after a reopen."""
        topic = harness.new_topic()
        async with open_session(harness) as session:
            await session.ensure_topic(topic)
            expect(await session.last_record_id(topic) is None, "an empty topic has a last id")
            writer = await session.open_writer(topic, 1, 0)
            for one in payloads("last", 5):
                (ack,) = await append_all(writer, [one])
                last = await session.last_record_id(topic)
                expect(last is not None, "a topic with a record has no last id")
                expect(ack.record_id in (None, last), f"last is {last}, not {ack.record_id}")
        await harness.reopen()
        async with open_session(harness) as session:
            expect(await session.last_record_id(topic) == last, "the last id changed by a reopen")

    async def test_close_ends_every_append(self, harness: ConformanceHarness) -> None:
        """Closing with appends in flight ends all; the acknowledged are there, none comes late."""
        topic = harness.new_topic()
        data = payloads("closing", 300, 2048)
        session = await harness.backend.session()
        await session.ensure_topic(topic)
        writer = await session.open_writer(topic, 1, 0)
        futures = [writer.append(one) for one in data]
        await asyncio.wait({futures[0]}, timeout=PATIENCE)
        await asyncio.wait_for(session.close(), PATIENCE)
        expect(all(one.done() for one in futures), "an append outlived its session")
        results = await settle(futures)
        failures = [one for one in results if isinstance(one, WalError)]
        expect(all(e.code is ErrorCode.OUTCOME_UNKNOWN for e in failures), f"{failures[:1]}")
        async with expect_error():
            await writer.append(b"after close")
        await session.close()
        async with open_session(harness) as newer:
            writer = await newer.open_writer(topic, 1, 1)
            await append_all(writer, [b"newer"])
            log = await read_to_end(newer, topic)
        expect_holds(log, acknowledged(data, results))
        expect(log[-1].data == b"newer", "an append of a closed session came late")

    async def test_acknowledged_survives_a_crash(self, harness: ConformanceHarness) -> None:
        """A user of the backend dies in each of the terms 1..3: all it was told is there."""
        topic = harness.new_topic()
        acks: list[Acknowledged] = []
        for term in (1, 2, 3):
            acks += await harness.crash(topic, term, 0, 200)
            async with open_session(harness) as session:
                expect_holds(await read_to_end(session, topic), acks)
        async with open_session(harness) as session:
            writer = await session.open_writer(topic, 4, 0)
            acks += await append_all(writer, payloads("after the crash", 10))
            log = await read_to_end(session, topic)
            scanner = await session.open_scanner(topic, EARLIEST)
            expect_same(await read_count(scanner, len(log)), log, "the second reading")
        expect_holds(log, acks)
        expect(log[-1].data == acks[-1].data, "something follows the last append")
