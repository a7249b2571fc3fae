"""Assign, release, terms, and WALs that stop by themselves."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import cast

import pytest

from walplane.backends.registry import open_backend
from walplane.node import StreamingNode
from walplane.rpc.errors import ErrorCode, WalError
from walplane.runtime import Runtime
from walplane.testkit.outside import TestAuthority, TestOracle
from walplane.wal.ports import StaleTerm
from walplane.wal.status import WALStatus
from walplane.wal.wal import WAL

P0 = "test_0"


class FakeWAL:
    def __init__(self, pchannel: str, term: int) -> None:
        self.pchannel = pchannel
        self.term = term
        self.stopped: asyncio.Future[WalError | None] = asyncio.get_running_loop().create_future()
        self.closed = 0
        self.busy: asyncio.Event | None = None

    async def close(self) -> None:
        await asyncio.sleep(0)
        if self.busy is not None:
            await self.busy.wait()
        self.closed += 1
        self.fence(None)

    def fence(self, reason: WalError | None) -> None:
        if not self.stopped.done():
            self.stopped.set_result(reason)

    def status(self) -> WALStatus:
        return WALStatus(self.pchannel, self.term, 3, "serving", 100, 50, 2, 10, 0, "", 0)


class Opener:
    """Opens fakes; `hold` keeps opens under way, `error` makes them fail."""

    def __init__(self) -> None:
        self.opened: list[FakeWAL] = []
        self.cancelled: list[int] = []
        self.hold: asyncio.Event | None = None
        self.error: WalError | None = None

    async def __call__(self, pchannel: str, term: int) -> WAL:
        try:
            if self.hold is not None:
                await self.hold.wait()
        except asyncio.CancelledError:
            self.cancelled.append(term)
            raise
        if self.error is not None:
            raise self.error
        self.opened.append(FakeWAL(pchannel, term))
        return cast(WAL, self.opened[-1])


Lost = list[tuple[str, int, WalError]]
MakeNode = Callable[[TestOracle], StreamingNode]


@pytest.fixture
def opener() -> Opener:
    return Opener()


@pytest.fixture
def lost() -> Lost:
    return []


@pytest.fixture
async def node(opener: Opener, lost: Lost) -> AsyncIterator[StreamingNode]:
    backend = await open_backend("memory:")
    node = StreamingNode(
        "n1",
        backend,
        TestOracle(),
        TestAuthority(),
        Runtime.system(),
        on_channel_lost=lambda *what: lost.append(what),
        open_wal=opener,
    )
    yield node
    await node.close()
    await backend.close()


async def code_of(call: asyncio.Task[None]) -> ErrorCode:
    with pytest.raises(WalError) as caught:
        await call
    return caught.value.code


async def test_assign_serves_and_is_idempotent(node: StreamingNode, opener: Opener) -> None:
    await node.assign(P0, 3)
    await node.assign(P0, 3)
    assert [wal.term for wal in opener.opened] == [3]
    assert node.wal(P0).term == node.wal(P0, 3).term == 3


async def test_a_higher_term_closes_the_old_wal_first(node: StreamingNode, opener: Opener) -> None:
    await node.assign(P0, 3)
    gone = node.edge(P0).gone
    await node.assign(P0, 4)
    assert [(wal.term, wal.closed) for wal in opener.opened] == [(3, 1), (4, 0)]
    assert gone.result().code is ErrorCode.ON_SHUTDOWN
    assert node.wal(P0).term == 4


async def test_a_lower_term_is_ignored_for_ever(node: StreamingNode, opener: Opener) -> None:
    await node.assign(P0, 4)
    for _ in range(2):
        with pytest.raises(WalError, match="term 3 is ignored") as caught:
            await node.assign(P0, 3)
        assert caught.value.code is ErrorCode.IGNORED_OPERATION
        await node.release(P0, 4)
    assert len(opener.opened) == 1


async def test_a_higher_term_gives_up_an_open_under_way(
    node: StreamingNode, opener: Opener
) -> None:
    opener.hold = asyncio.Event()
    first = asyncio.create_task(node.assign(P0, 3))
    await asyncio.sleep(0.01)
    second = asyncio.create_task(node.assign(P0, 4))
    assert await code_of(first) is ErrorCode.IGNORED_OPERATION
    opener.hold.set()
    await second
    assert opener.cancelled == [3]
    assert [wal.term for wal in opener.opened] == [4]


async def test_a_release_gives_up_an_open_under_way(node: StreamingNode, opener: Opener) -> None:
    opener.hold = asyncio.Event()
    assigning = asyncio.create_task(node.assign(P0, 3))
    await asyncio.sleep(0.01)
    await node.release(P0, 3)
    assert await code_of(assigning) is ErrorCode.IGNORED_OPERATION
    assert opener.cancelled == [3]


async def test_a_cancelled_assign_leaves_nothing_open(node: StreamingNode, opener: Opener) -> None:
    opener.hold = asyncio.Event()
    assigning = asyncio.create_task(node.assign(P0, 3))
    await asyncio.sleep(0.01)
    assigning.cancel()
    with pytest.raises(asyncio.CancelledError):
        await assigning
    assert opener.cancelled == [3]
    opener.hold.set()
    await node.assign(P0, 3)  # the same term may be tried again: the log decides


async def test_release_closes_and_ignores_older_terms(node: StreamingNode, opener: Opener) -> None:
    await node.assign(P0, 4)
    await node.release(P0, 3)
    assert node.wal(P0).term == 4
    await node.release(P0, 4)
    await node.release(P0, 4)
    await node.release("test_9", 1)
    assert opener.opened[0].closed == 1
    with pytest.raises(WalError, match="does not hold it") as caught:
        node.wal(P0)
    assert caught.value.code is ErrorCode.CHANNEL_NOT_EXIST


async def test_another_term_than_asked_for_is_told(node: StreamingNode) -> None:
    await node.assign(P0, 4)
    with pytest.raises(WalError, match="holds it under term 4") as caught:
        node.wal(P0, 5)
    assert caught.value.code is ErrorCode.UNMATCHED_CHANNEL_TERM


async def test_a_wal_that_stops_by_itself_is_dropped_and_reported(
    node: StreamingNode, opener: Opener, lost: Lost
) -> None:
    await node.assign(P0, 4)
    edge = node.edge(P0)
    stale = StaleTerm(P0, 4, 7)
    opener.opened[0].fence(stale)
    assert await edge.gone is stale
    assert lost == [(P0, 4, stale)]
    with pytest.raises(WalError):
        node.wal(P0)
    [status] = node.status()
    assert status.state == "closed"
    assert status.term_floor == 7
    assert "term 7" in status.last_error
    await node.close()
    assert opener.opened[0].closed == 1


async def test_a_released_wal_is_not_reported_as_lost(node: StreamingNode, lost: Lost) -> None:
    await node.assign(P0, 4)
    await node.release(P0, 4)
    assert lost == []


async def test_close_waits_for_a_release_that_was_given_up(
    node: StreamingNode, opener: Opener
) -> None:
    await node.assign(P0, 4)
    wal = opener.opened[0]
    wal.busy = asyncio.Event()
    gone = node.edge(P0).gone
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await node.release(P0, 4)
    assert gone.done(), "its streams have ended"
    closing = asyncio.create_task(node.close())
    done, _ = await asyncio.wait({closing}, timeout=0.01)
    assert not done
    wal.busy.set()
    await closing
    assert wal.closed == 1


async def test_a_failed_open_shows_in_status_and_raises(
    node: StreamingNode, opener: Opener
) -> None:
    opener.error = StaleTerm(P0, 2, 9)
    for _ in range(2):
        with pytest.raises(StaleTerm):
            await node.assign(P0, 2)
    [status] = node.status()
    assert (status.term, status.last_error_attempts, status.term_floor) == (2, 2, 9)
    opener.error = None
    await node.assign(P0, 10)
    [status] = node.status()
    assert (status.state, status.open_number, status.last_error_attempts) == ("serving", 3, 0)


async def test_terms_that_the_oracle_reports_lost_stop_before_ticks_are_used(
    opener: Opener, lost: Lost
) -> None:
    backend, oracle = await open_backend("memory:"), TestOracle()
    node = StreamingNode(
        "n1",
        backend,
        oracle,
        TestAuthority(),
        Runtime.system(),
        on_channel_lost=lambda *what: lost.append(what),
        open_wal=opener,
    )
    await node.assign(P0, 4)
    await node.assign("test_1", 1)
    await oracle.fresh(P0, 5)
    await node.reserve.ready(1, 0)
    assert opener.opened[0].stopped.done()
    await asyncio.sleep(0)
    assert [(name, term) for name, term, _ in lost] == [(P0, 4)]
    assert node.wal("test_1").term == 1
    await node.close()
    await backend.close()


async def test_close_releases_everything_and_takes_nothing_more(
    node: StreamingNode, opener: Opener
) -> None:
    await asyncio.gather(node.assign(P0, 1), node.assign("test_1", 1))
    await node.close()
    await node.close()
    assert [wal.closed for wal in opener.opened] == [1, 1]
    with pytest.raises(WalError, match="shutting down"):
        await node.assign(P0, 2)
