"""Conformance of exclusivity: fences, stale openers, abandoned opens. Layer: testkit.

The rule, for an old writer and a newer one whose `open_writer` has returned: everything the old
one had or gets acknowledged is in the log under its id; everything it tries from then on is
refused and not in the log; and none of its records follows the newer writer's first one.
"""

from __future__ import annotations

import asyncio

from walplane.backends.interface import BackendSession, Record
from walplane.message.ids import RecordID
from walplane.rpc.errors import ErrorCode, WalError
from walplane.testkit.conformance.harness import (
    PATIENCE,
    REFUSED,
    Acknowledged,
    ConformanceHarness,
    acknowledged,
    append_all,
    expect,
    expect_error,
    expect_holds,
    open_session,
    payloads,
    read_to_end,
    settle,
)

IN_FLIGHT = 64


def expect_refused(results: list[RecordID | WalError | None]) -> None:
    """Fails the test unless every append ended as a fenced writer's may."""
    for result in results:
        expect(isinstance(result, WalError), f"a fenced writer got {result} acknowledged")
        if isinstance(result, WalError):
            expect(result.code in REFUSED, f"a fenced writer's append ended with {result}")


def expect_overtaken(log: list[Record], old: list[bytes], tried_late: list[bytes]) -> None:
    """Fails the test if an old record follows a new one, or a refused one is in the log."""
    kinds = [record.data in set(old) for record in log]
    expect(kinds == sorted(kinds, reverse=True), "an old writer's record follows a newer one's")
    late = set(tried_late).intersection(record.data for record in log)
    expect(not late, f"refused appends are in the log: {sorted(late)[:1]}")


async def append_as_owner(
    harness: ConformanceHarness, session: BackendSession, topic: str, term: int, data: list[bytes]
) -> list[Acknowledged]:
    """Appends `data` one by one as the owner under `term`, opening again where that is allowed.

    A record whose outcome is unknown is looked up before it is tried again. Closes `session`.
    """
    acks: list[Acknowledged] = []
    writer = await session.open_writer(topic, term, 1)
    for open_number in range(2, 3 + harness.owner_reopens):
        try:
            for one in data[len(acks) :]:
                acks += await append_all(writer, [one])
        except WalError as error:
            expect(error.code in REFUSED, f"the owner's append ended with {error}")
            expect(open_number < 2 + harness.owner_reopens, f"the owner was thrown out: {error}")
            await session.close()
            session = await harness.backend.session()
            writer = await session.open_writer(topic, term, open_number)
            log = {record.data for record in await read_to_end(session, topic)}
            acks += [Acknowledged(one, None) for one in data[len(acks) :] if one in log]
    await session.close()
    return acks


class FencingConformance:
    """What every backend does about two writers of one topic."""

    async def test_older_term_is_fenced_in_flight(self, harness: ConformanceHarness) -> None:
        """Terms 1..3, the older writer with 64 appends in flight, then thrashing on."""
        topic = harness.new_topic()
        acks: list[Acknowledged] = []
        async with open_session(harness) as session:
            await session.ensure_topic(topic)
        for term in (1, 2):
            async with open_session(harness) as old, open_session(harness) as new:
                acks += await self._overtake(harness, old, new, topic, term)
            async with open_session(harness) as reader:
                expect_holds(await read_to_end(reader, topic), acks)

    async def _overtake(
        self,
        harness: ConformanceHarness,
        old: BackendSession,
        new: BackendSession,
        topic: str,
        term: int,
    ) -> list[Acknowledged]:
        """The writer of `term + 1` opens while that of `term` writes; all acknowledgements."""
        writer = await old.open_writer(topic, term, 9)
        first = await append_all(writer, payloads(f"old{term}", 5))
        in_flight = payloads(f"in-flight{term}", IN_FLIGHT, 4096)
        pending = [writer.append(one) for one in in_flight]
        await asyncio.wait_for(new.open_writer(topic, term + 1, 0), PATIENCE)
        late = payloads(f"late{term}", IN_FLIGHT)
        tries = [writer.append(one) for one in late]
        data = payloads(f"new{term + 1}", 20)
        owner = asyncio.ensure_future(append_as_owner(harness, new, topic, term + 1, data))
        results = await settle(pending)
        expect_refused(await settle(tries))
        expect_refused(await settle([writer.append(one) for one in late]))
        acks = await asyncio.wait_for(owner, PATIENCE)
        expect_refused(await settle([writer.append(one) for one in late]))
        old_acks = acknowledged(in_flight, results)
        async with open_session(harness) as reader:
            log = await read_to_end(reader, topic)
        since = [one.data for one in log].index(first[0].data)
        olds = [*(ack.data for ack in first), *in_flight]
        expect_overtaken(log[since:], olds, late)
        return [*first, *old_acks, *acks]

    async def test_same_term_reopened_fences_the_earlier(self, harness: ConformanceHarness) -> None:
        """A higher open number fences as a higher term does, one session or two."""
        topic = harness.new_topic()
        async with open_session(harness) as session, open_session(harness) as other:
            await session.ensure_topic(topic)
            first = await session.open_writer(topic, 1, 0)
            acks = await append_all(first, payloads("first", 3))
            second = await other.open_writer(topic, 1, 1)
            acks += await append_all(second, payloads("second", 3))
            expect_refused(await settle([first.append(b"refused")]))
            log = await read_to_end(other, topic)
        expect_holds(log, acks)
        expect(len(log) == 6, "a refused append is in the log")

    async def test_stale_opener(self, harness: ConformanceHarness) -> None:
        """Where the backend knows terms, a lower (term, open number) is refused for ever."""
        if not harness.refuses_stale_opener:
            return
        topic = harness.new_topic()
        for reopened in (False, True):
            if reopened:
                await harness.reopen()
            async with open_session(harness) as owner, open_session(harness) as stale:
                await owner.ensure_topic(topic)
                writer = await owner.open_writer(topic, 3, 1)
                for term, open_number in ((1, 7), (2, 9), (3, 0)):
                    async with expect_error(ErrorCode.CHANNEL_FENCED):
                        await stale.open_writer(topic, term, open_number)
                    await append_all(writer, [f"{reopened} {term}".encode()])
                expect(len(await read_to_end(owner, topic)) == 3 + 3 * reopened, "wrong records")

    async def test_cancelled_open_leaves_nothing(self, harness: ConformanceHarness) -> None:
        """Opens cancelled at many moments: afterwards a normal open works and sees all."""
        topic = harness.new_topic()
        acks: list[Acknowledged] = []
        for term in range(1, 9):
            async with open_session(harness) as session:
                await session.ensure_topic(topic)
                opening = asyncio.ensure_future(session.open_writer(topic, term, 0))
                await asyncio.wait({opening}, timeout=0.001 * (term - 1))
                opening.cancel()
                await asyncio.wait({opening}, timeout=PATIENCE)
            async with open_session(harness) as session:
                writer = await asyncio.wait_for(session.open_writer(topic, term, 1), PATIENCE)
                acks += await append_all(writer, payloads(f"term{term}", 3))
                log = await read_to_end(session, topic)
            expect_holds(log, acks)
            expect(len(log) == len(acks), "an abandoned open wrote something")

    async def test_failed_open_leaves_nothing(self, harness: ConformanceHarness) -> None:
        """A session closed in the middle of an open: the open fails, the next one works."""
        topic = harness.new_topic()
        async with open_session(harness) as session:
            await session.ensure_topic(topic)
        broken = await harness.backend.session()
        opening = asyncio.ensure_future(broken.open_writer(topic, 1, 0))
        await asyncio.wait({opening}, timeout=0.001)
        await asyncio.wait_for(broken.close(), PATIENCE)
        await asyncio.wait({opening}, timeout=PATIENCE)
        expect(opening.done(), "an open outlived its session")
        if opening.exception() is None:
            async with expect_error():
                await opening.result().append(b"of a closed session")
        async with open_session(harness) as session:
            writer = await session.open_writer(topic, 1, 1)
            acks = await append_all(writer, payloads("normal", 3))
            log = await read_to_end(session, topic)
        expect_holds(log, acks)
        expect(len(log) == 3, "the failed open wrote something")
