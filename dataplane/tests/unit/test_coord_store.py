from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from walplane.backends.forwarding import ForwardingBackend, ForwardingSession
from walplane.backends.interface import Backend, BackendSession, TopicWriter
from walplane.backends.memory import MemoryBackend
from walplane.coord.settings import CoordSettings
from walplane.coord.store import MetaStore
from walplane.message.ids import RecordID
from walplane.rpc.errors import ErrorCode, WalError
from walplane.runtime import Runtime
from walplane.testkit.faulty import FaultyBackend
from walplane.wal.ports import StaleTerm

TOPIC = "p-coord-meta"
SETTINGS = CoordSettings(ack_timeout_s=0.2, retry_s=(0.001, 0.02))
PATIENCE = 10.0


class Words:
    """A component: which words were said, in which order; saying one again changes nothing."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def apply(self, data: bytes) -> None:
        for word in data.decode().split():
            if word not in self.said:
                self.said.append(word)

    def dump(self) -> list[bytes]:
        return [word.encode() for word in self.said]


class Flaky(ForwardingBackend):
    """A backend that goes away: acknowledgements are lost, clients cannot connect.

    As on a broker, the last opener of a topic wins, whatever its term.
    """

    def __init__(self, backend: MemoryBackend) -> None:
        super().__init__(backend)
        self.lose_acks = 0
        self.lose: set[int] = set()
        self.refuse_clients = 0
        self.clients = 0
        self.opens = 0
        self.appends = 0

    ack_timeout_s = 60.0

    async def session(self) -> BackendSession:
        if self.refuse_clients:
            self.refuse_clients -= 1
            raise WalError(ErrorCode.INNER, "the broker is away")
        self.clients += 1
        return _FlakySession(self, await self.inner.session())


class _FlakySession(ForwardingSession):
    def __init__(self, flaky: Flaky, inner: BackendSession) -> None:
        super().__init__(inner)
        self._flaky = flaky

    async def open_writer(self, topic: str, term: int, open_number: int) -> TopicWriter:
        self._flaky.opens += 1
        return _FlakyWriter(self._flaky, await self.inner.open_writer(topic, self._flaky.opens, 0))


class _FlakyWriter:
    def __init__(self, flaky: Flaky, inner: TopicWriter) -> None:
        self._flaky = flaky
        self._inner = inner

    def append(self, data: bytes) -> asyncio.Future[RecordID | None]:
        self._flaky.appends += 1
        written = self._inner.append(data)
        if self._flaky.lose_acks or self._flaky.appends in self._flaky.lose:
            self._flaky.lose_acks = max(self._flaky.lose_acks - 1, 0)
            return asyncio.get_running_loop().create_future()
        return written


@asynccontextmanager
async def opened(
    backend: Backend, settings: CoordSettings = SETTINGS
) -> AsyncIterator[tuple[MetaStore, Words]]:
    words = Words()
    async with (
        asyncio.timeout(PATIENCE),
        MetaStore.open(backend, TOPIC, Runtime.system(), {"words": words}, settings) as store,
    ):
        yield store, words


async def test_what_was_appended_is_applied_and_there_for_the_next_coordinator() -> None:
    backend = MemoryBackend()
    async with opened(backend) as (store, words):
        assert store.term == 1
        await store.append("words", b"one")
        assert words.said == ["one"]
        await asyncio.gather(store.append("words", b"two"), store.append("words", b"three"))
    async with opened(backend) as (store, words):
        assert store.term == 2
        assert words.said == ["one", "two", "three"]


async def test_what_waits_while_an_append_is_in_flight_leaves_together() -> None:
    flaky = Flaky(MemoryBackend())
    async with opened(flaky) as (store, words):
        before = flaky.appends
        await asyncio.gather(*(store.append("words", f"w{n}".encode()) for n in range(100)))
        assert flaky.appends - before <= 2
        assert words.said == [f"w{n}" for n in range(100)]


async def test_a_lost_acknowledgement_is_survived_by_opening_again_and_writing_again() -> None:
    flaky = Flaky(MemoryBackend())
    async with opened(flaky) as (store, words):
        await store.append("words", b"one")
        flaky.lose_acks = 1
        await asyncio.gather(store.append("words", b"two"), store.append("words", b"three"))
        assert (store.term, store.reopens, flaky.clients) == (1, 1, 2)
        assert words.said == ["one", "two", "three"]
    async with opened(flaky) as (_, words):
        assert words.said == ["one", "two", "three"]


async def test_a_backend_that_is_away_for_a_while_is_waited_for() -> None:
    flaky = Flaky(MemoryBackend())
    async with opened(flaky) as (store, words):
        flaky.lose_acks, flaky.refuse_clients = 1, 5
        waiting = [asyncio.create_task(store.append("words", b"one"))]
        while flaky.refuse_clients:
            await asyncio.sleep(0.001)
            waiting.append(asyncio.create_task(store.confirm()))
        await asyncio.gather(*waiting)
        assert words.said == ["one"]


async def test_another_coordinator_ends_this_one_with_everything_that_waits() -> None:
    backend = Flaky(MemoryBackend())
    async with opened(backend) as (old, words):
        await old.append("words", b"one")
        async with opened(backend) as (new, theirs):
            assert new.term == old.term + 1
            results = await asyncio.gather(
                old.append("words", b"two"), old.confirm(), return_exceptions=True
            )
            assert all(isinstance(result, StaleTerm) for result in results)
            assert isinstance(await old.stopped, StaleTerm)
            with pytest.raises(StaleTerm):
                await old.append("words", b"three")
            await new.append("words", b"four")
            assert not new.stopped.done()
            assert new.reopens == 0, "the old one threw the rightful owner out"
            assert theirs.said == ["one", "four"]
        assert words.said == ["one"]
    async with opened(backend) as (_, words):
        assert words.said == ["one", "four"]


async def test_a_topic_that_the_backend_keeps_refusing_ends_the_store() -> None:
    backend = MemoryBackend()
    async with opened(backend) as (store, _):
        thief = await backend.session()
        await thief.open_writer(TOPIC, 9, 1)  # and never writes a barrier
        with pytest.raises(WalError) as caught:
            await store.append("words", b"one")
        assert caught.value.code is ErrorCode.CHANNEL_FENCED
        assert await store.stopped is caught.value


async def test_an_idle_coordinator_that_was_replaced_learns_it_at_its_next_confirmation() -> None:
    backend = MemoryBackend()
    async with opened(backend) as (old, _):
        async with opened(backend):
            pass
        with pytest.raises(StaleTerm):
            await old.confirm()


async def test_a_snapshot_replaces_the_deltas_and_frees_the_topic() -> None:
    backend = MemoryBackend()
    flaky = Flaky(backend)
    settings = SETTINGS.model_copy(update={"snapshot_deltas": 50})
    async with opened(flaky, settings) as (store, words):
        for number in range(500):
            await store.append("words", f"w{number}".encode())
        said = list(words.said)
    assert 505 <= flaky.appends <= 515, "one frame a snapshot and one for the barrier"
    assert len(backend.topics[TOPIC].records) < 60
    async with opened(flaky, settings) as (store, words):
        assert words.said == said == [f"w{number}" for number in range(500)]
        assert store.term == 2


async def test_a_backend_lost_within_a_snapshot_loses_nothing() -> None:
    flaky = Flaky(MemoryBackend())
    settings = SETTINGS.model_copy(update={"snapshot_deltas": 5})
    async with opened(flaky, settings) as (store, words):
        for number in range(4):
            await store.append("words", f"w{number}".encode())
        flaky.lose = {flaky.appends + 2}  # the frame of the snapshot that follows
        await store.append("words", b"w4")
        await store.append("words", b"w5")
        assert store.reopens == 1
        said = list(words.said)
    async with opened(flaky, settings) as (_, words):
        assert words.said == said == [f"w{number}" for number in range(6)]


async def test_a_record_limit_that_the_backend_did_not_tell_holds_up_nothing() -> None:
    backend = FaultyBackend(MemoryBackend())
    backend.record_bytes = 3000
    said = [f"{number:0200}" for number in range(100)]
    settings = SETTINGS.model_copy(update={"snapshot_deltas": 50})
    async with opened(backend, settings) as (store, _):
        await asyncio.gather(*(store.append("words", word.encode()) for word in said))
        await store.append("words", b"after a snapshot")
    async with opened(backend) as (_, words):
        assert words.said == [*said, "after", "a", "snapshot"]


async def test_a_caller_that_goes_away_before_its_turn_leaves_no_trace() -> None:
    flaky = Flaky(MemoryBackend())
    async with opened(flaky) as (store, words):
        flaky.lose_acks = 1
        under_way = asyncio.create_task(store.append("words", b"one"))
        await asyncio.sleep(0.01)
        gone = asyncio.create_task(store.append("words", b"two"))
        await asyncio.sleep(0)
        gone.cancel()
        await asyncio.wait([gone])
        await under_way
        await store.append("words", b"three")
        assert words.said == ["one", "three"]


async def test_what_a_newer_version_wrote_is_refused_rather_than_lost() -> None:
    backend = MemoryBackend()
    components = {"words": Words(), "future": Words()}
    async with MetaStore.open(backend, TOPIC, Runtime.system(), components, SETTINGS) as store:
        await store.append("future", b"one")
    with pytest.raises(WalError, match="holds 'future', which this version does not know: upgrade"):
        async with opened(backend):
            pass


async def test_the_end_of_the_store_is_told_to_who_waits() -> None:
    flaky = Flaky(MemoryBackend())
    async with opened(flaky) as (store, _):
        flaky.lose_acks = 1
        waiting = asyncio.create_task(store.append("words", b"one"))
        await asyncio.sleep(0)
    with pytest.raises(WalError) as caught:
        await waiting
    assert caught.value.code is ErrorCode.ON_SHUTDOWN
