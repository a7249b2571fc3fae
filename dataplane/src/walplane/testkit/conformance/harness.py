"""What a backend gives to the suite, and the small tools its tests share. Layer: testkit."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import NamedTuple, Protocol

from walplane.backends.interface import (
    EARLIEST,
    Backend,
    BackendSession,
    Record,
    RecordScanner,
    TopicWriter,
)
from walplane.message.ids import RecordID
from walplane.rpc.errors import ErrorCode, WalError

PATIENCE = 30.0
"""Seconds after which the suite calls a step hung."""

REFUSED = {ErrorCode.CHANNEL_FENCED, ErrorCode.OUTCOME_UNKNOWN}
"""What an older writer's append may end with once a newer writer is open."""


class Acknowledged(NamedTuple):
    """An append that was acknowledged; `record_id` is None for *written, id unknown*."""

    data: bytes
    record_id: RecordID | None


class ConformanceHarness(Protocol):
    """One backend under test, as its fixture provides it."""

    @property
    def backend(self) -> Backend:
        """The open backend; another one after `reopen` or `crash`."""
        ...

    @property
    def refuses_stale_opener(self) -> bool:
        """Whether `open_writer` under a lower (term, open number) fails by itself."""
        ...

    @property
    def owner_reopens(self) -> int:
        """How often the rightful owner may have to open again because a fenced one thrashes."""
        ...

    def new_topic(self) -> str:
        """A topic name that nobody used."""
        ...

    async def reopen(self) -> None:
        """Closes the backend in good order and opens it again."""
        ...

    async def crash(
        self, topic: str, term: int, open_number: int, count: int
    ) -> list[Acknowledged]:
        """What a user of the backend got acknowledged that dies without a word.

        It ensures `topic`, opens its writer under (term, open_number) and appends, many in
        flight, until at least `count` are acknowledged; then it is gone (kill -9 where it is a
        process). Afterwards `backend` is open.
        """
        ...


def payloads(label: str, count: int, size: int = 64) -> list[bytes]:
    """`count` different records of at least `size` bytes, recognisable by `label`."""
    return [f"{label}/{number}/".encode().ljust(size, b".") for number in range(count)]


def expect(condition: bool, claim: str) -> None:
    """Fails the test with `claim` unless `condition` holds."""
    if not condition:
        raise AssertionError(claim)


def expect_same(actual: Sequence[object], expected: Sequence[object], what: str) -> None:
    """Fails the test at the first difference between two sequences."""
    for number, (left, right) in enumerate(zip(actual, expected, strict=False)):
        expect(left == right, f"{what}: at {number} {left!r:.160} instead of {right!r:.160}")
    expect(len(actual) == len(expected), f"{what}: {len(actual)} instead of {len(expected)}")


def expect_growing(ids: Iterable[RecordID], what: str) -> None:
    """Fails the test unless every id is above the one before it."""
    last: RecordID = ()
    for record_id in ids:
        expect(record_id > last, f"{what}: id {record_id} after {last}")
        last = record_id


@asynccontextmanager
async def expect_error(*codes: ErrorCode, says: str = "") -> AsyncIterator[None]:
    """Fails the test unless its body raises a `WalError` with one of `codes` (none: any).

    Its sentence must have `says` in it.
    """
    try:
        async with asyncio.timeout(PATIENCE):
            yield
    except WalError as error:
        expect(not codes or error.code in codes, f"{error} instead of {[c.name for c in codes]}")
        expect(len(error.message) > 10, f"{error!r} says too little")
        expect(says in error.message, f"{error!r} does not say {says!r}")
        return
    raise AssertionError(f"no error instead of {[code.name for code in codes]}")


@asynccontextmanager
async def open_session(harness: ConformanceHarness) -> AsyncIterator[BackendSession]:
    """A session of its own, closed at the end."""
    session = await asyncio.wait_for(harness.backend.session(), PATIENCE)
    try:
        yield session
    finally:
        await asyncio.wait_for(session.close(), PATIENCE)


async def append_all(writer: TopicWriter, records: Iterable[bytes]) -> list[Acknowledged]:
    """Appends `records`, all in flight at once; fails the test if one is not acknowledged."""
    data = list(records)
    futures = [writer.append(one) for one in data]
    ids = await asyncio.wait_for(asyncio.gather(*futures), PATIENCE)
    return [Acknowledged(one, record_id) for one, record_id in zip(data, ids, strict=True)]


async def settle(
    futures: Iterable[asyncio.Future[RecordID | None]],
) -> list[RecordID | WalError | None]:
    """How each append ended; anything but an id, None or a `WalError` fails the test."""
    ended = await asyncio.wait_for(asyncio.gather(*futures, return_exceptions=True), PATIENCE)
    results = [
        one for one in ended if isinstance(one, WalError) or not isinstance(one, BaseException)
    ]
    expect(len(results) == len(ended), f"an append ended with more than a WalError: {ended!r:.500}")
    return results


def acknowledged(
    data: Sequence[bytes], results: Sequence[RecordID | WalError | None]
) -> list[Acknowledged]:
    """The appends of `data` that were acknowledged."""
    pairs = zip(data, results, strict=True)
    return [Acknowledged(one, got) for one, got in pairs if not isinstance(got, WalError)]


async def read_count(scanner: RecordScanner, count: int) -> list[Record]:
    """The next `count` records; more than that at once fails the test."""
    records: list[Record] = []
    async with asyncio.timeout(PATIENCE):
        while len(records) < count:
            batch = await scanner.read()
            expect(len(batch) > 0, "read() returned no record")
            records += batch
    expect(len(records) == count, f"{len(records)} records instead of {count}")
    return records


async def read_to_end(session: BackendSession, topic: str) -> list[Record]:
    """Everything from earliest to the record that was the last at the time of the call."""
    last = await asyncio.wait_for(session.last_record_id(topic), PATIENCE)
    if last is None:
        return []
    records: list[Record] = []
    scanner = await asyncio.wait_for(session.open_scanner(topic, EARLIEST), PATIENCE)
    try:
        async with asyncio.timeout(PATIENCE):
            while not records or records[-1].record_id < last:
                records += await scanner.read()
    finally:
        await scanner.close()
    expect_growing((record.record_id for record in records), f"ids of {topic}")
    return records


def expect_holds(log: Sequence[Record], acks: Sequence[Acknowledged]) -> None:
    """Fails the test unless `log` holds every one of `acks` once, in order, under its true id."""
    position = {record.data: number for number, record in enumerate(log)}
    expect(len(position) == len(log), "the log holds a record twice")
    before = -1
    for ack in acks:
        at = position.get(ack.data)
        if at is None:
            raise AssertionError(f"acknowledged {ack.data[:40]!r} is not in the log")
        expect(at > before, f"acknowledged {ack.data[:40]!r} is out of order")
        if ack.record_id is not None:
            expect(log[at].record_id == ack.record_id, f"{ack.record_id} is not its id")
        before = at
