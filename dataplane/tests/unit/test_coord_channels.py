from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from walplane.assignment.states import Channel, ChannelState
from walplane.coord.background import Background
from walplane.coord.channels import ChannelManager, ChannelsState, initialise
from walplane.coord.settings import CoordSettings
from walplane.rpc.errors import ErrorCode, WalError
from walplane.runtime import Runtime
from walplane.wal.ports import StaleTerm

SETTINGS = CoordSettings(retry_s=(0.001, 0.01), assign_timeout_s=0.2, release_timeout_s=0.2)
PATIENCE = 10.0


class Store:
    """Durable at once."""

    def __init__(self, state: ChannelsState) -> None:
        self._state = state
        self.confirmed = 0

    async def append(self, component: str, data: bytes) -> None:
        assert component == "channels"
        await asyncio.sleep(0)
        self._state.apply(data)

    async def confirm(self) -> None:
        self.confirmed += 1


class Node:
    """Serves what it is told to, unless `answer` says otherwise."""

    node_id = "node"
    address = "127.0.0.1:1"

    def __init__(self, state: ChannelsState) -> None:
        self._state = state
        self.calls: list[tuple[str, str, int]] = []
        self.opening = 0
        self.most_opening = 0

    async def answer(self, pchannel: str, term: int) -> None:
        await asyncio.sleep(0)

    async def assign(self, pchannel: str, term: int) -> None:
        assert self._state.terms[pchannel] == term, "granted before it was persisted"
        self.calls.append(("assign", pchannel, term))
        self.opening += 1
        self.most_opening = max(self.most_opening, self.opening)
        try:
            await self.answer(pchannel, term)
        finally:
            self.opening -= 1

    async def release(self, pchannel: str, term: int) -> None:
        self.calls.append(("release", pchannel, term))


class Cluster:
    """A manager over `count` PChannels, and what its channels look like."""

    def __init__(self, count: int, settings: CoordSettings = SETTINGS) -> None:
        self.state = ChannelsState()
        self.store = Store(self.state)
        self.node = Node(self.state)
        self.changed = asyncio.Event()
        self.names = [f"p_{number}" for number in range(count)]
        self.crashes: list[WalError] = []
        runtime = Runtime(lambda: 0, asyncio.get_running_loop().time, random.Random(1))  # noqa: S311
        self.manager = ChannelManager(
            self.store, self.state, self.names, runtime, settings, self.changed.set
        )

    @asynccontextmanager
    async def served(self) -> AsyncIterator[None]:
        background = Background(self.crashes.append)
        for name in self.names:
            background.start(name, self.manager.keep_served(name, self.node))
        try:
            yield
        finally:
            await background.stop()
            assert not self.crashes

    async def until(self, condition: Callable[[list[Channel]], bool]) -> list[Channel]:
        async with asyncio.timeout(PATIENCE):
            while not condition(self.manager.channels):
                self.changed.clear()
                await self.changed.wait()
        return self.manager.channels


def assigned(channels: list[Channel]) -> bool:
    return all(channel.state is ChannelState.ASSIGNED for channel in channels)


def under(term: int) -> Callable[[list[Channel]], bool]:
    return lambda channels: assigned(channels) and channels[0].term == term


async def test_every_pchannel_is_granted_under_a_persisted_term_with_bounded_opens() -> None:
    cluster = Cluster(16)
    async with cluster.served():
        channels = await cluster.until(assigned)
    assert {channel.term for channel in channels} == {1}
    assert {channel.node_id for channel in channels} == {"node"}
    assert 1 < cluster.node.most_opening <= SETTINGS.concurrent_opens


async def test_a_failed_open_is_tried_again_under_a_higher_term_with_its_reason_visible() -> None:
    cluster = Cluster(2)
    seen: list[Channel] = []

    async def answer(pchannel: str, term: int) -> None:
        if pchannel == "p_0" and term < 4:
            raise WalError(ErrorCode.INNER, "the broker is away")

    cluster.node.answer = answer  # type: ignore[method-assign]
    async with cluster.served():
        await cluster.until(lambda channels: channels[0].attempts == 2)
        seen = cluster.manager.channels
        channels = await cluster.until(assigned)
    assert seen[0].reason == "INNER: the broker is away"
    assert [channel.term for channel in channels] == [4, 1]
    assert (channels[0].attempts, channels[0].reason) == (0, "")


async def test_the_log_is_the_arbiter_of_the_next_term() -> None:
    cluster = Cluster(1)

    async def answer(pchannel: str, term: int) -> None:
        if term <= 41:
            raise StaleTerm(pchannel, term, 41)

    cluster.node.answer = answer  # type: ignore[method-assign]
    async with cluster.served():
        await cluster.until(under(42))
    assert [term for kind, _, term in cluster.node.calls if kind == "assign"] == [1, 42]


async def test_an_open_that_hangs_is_given_up() -> None:
    cluster = Cluster(1)

    async def answer(pchannel: str, term: int) -> None:
        if term == 1:
            await asyncio.Event().wait()

    cluster.node.answer = answer  # type: ignore[method-assign]
    async with cluster.served():
        await cluster.until(lambda channels: "not open after" in channels[0].reason)
        await cluster.until(under(2))
    assert cluster.node.opening == 0


async def test_a_crashing_open_hurts_its_pchannel_only() -> None:
    cluster = Cluster(2)

    async def answer(pchannel: str, term: int) -> None:
        if pchannel == "p_0" and term == 1:
            raise KeyError("bug")

    cluster.node.answer = answer  # type: ignore[method-assign]
    async with cluster.served():
        await cluster.until(lambda channels: "KeyError" in channels[0].reason)
        await cluster.until(under(2))


async def test_a_wal_that_stopped_is_assigned_again_after_it_is_released() -> None:
    cluster = Cluster(1)
    async with cluster.served():
        await cluster.until(assigned)
        cluster.manager.report_stopped("p_0", 1, StaleTerm("p_0", 1, 6))
        assert cluster.manager.channels[0].state is ChannelState.UNAVAILABLE
        await cluster.until(under(7))
    assert cluster.node.calls == [("assign", "p_0", 1), ("release", "p_0", 1), ("assign", "p_0", 7)]


async def test_a_wal_that_stops_before_its_confirmation_arrives_is_assigned_again() -> None:
    cluster = Cluster(1)

    async def answer(pchannel: str, term: int) -> None:
        if term == 1:
            cluster.manager.report_stopped(pchannel, term, WalError(ErrorCode.INNER, "stopped"))

    cluster.node.answer = answer  # type: ignore[method-assign]
    async with cluster.served():
        await cluster.until(under(2))


async def test_only_what_a_client_heard_from_the_node_about_the_present_term_counts() -> None:
    cluster = Cluster(1)
    fenced = WalError(ErrorCode.CHANNEL_FENCED, "fenced")
    async with cluster.served():
        await cluster.until(assigned)
        report = cluster.manager.report_error
        assert not report("p_0", 0, fenced)
        assert not report("p_0", 2, fenced)
        assert not report("p_9", 1, fenced)
        assert not report("p_0", 1, WalError(ErrorCode.ON_SHUTDOWN, "no connection"))
        assert cluster.manager.channels[0].state is ChannelState.ASSIGNED
        assert report("p_0", 1, fenced)
        assert not report("p_0", 1, fenced)
        await cluster.until(under(2))


async def test_a_new_coordinator_grants_above_the_terms_of_the_old_one() -> None:
    cluster = Cluster(2)
    async with cluster.served():
        await cluster.until(assigned)
    again = Cluster(2)
    for part in cluster.state.dump():
        again.state.apply(part)
    runtime = Runtime(lambda: 0, asyncio.get_running_loop().time, random.Random(1))  # noqa: S311
    again.manager = ChannelManager(
        again.store, again.state, again.names, runtime, SETTINGS, again.changed.set
    )
    async with again.served():
        await again.until(under(2))


async def test_drain_releases_everything_and_says_why() -> None:
    cluster = Cluster(3)
    async with cluster.served():
        await cluster.until(assigned)
    await cluster.manager.drain()
    released = {call for call in cluster.node.calls if call[0] == "release"}
    assert released == {("release", name, 1) for name in cluster.names}
    for channel in cluster.manager.channels:
        assert channel.state is ChannelState.UNAVAILABLE
        assert "shutting down" in channel.reason


async def test_the_term_is_confirmed_before_it_is_told() -> None:
    cluster = Cluster(1)
    async with cluster.served():
        await cluster.until(assigned)
        assert await cluster.manager.current_term("p_0") == 1
    assert cluster.store.confirmed == 1
    with pytest.raises(WalError) as caught:
        await cluster.manager.current_term("p_9")
    assert caught.value.code is ErrorCode.CHANNEL_NOT_EXIST


async def test_the_number_of_pchannels_may_only_grow_and_the_cchannel_stays() -> None:
    state = ChannelsState()
    store = Store(state)
    await initialise(store, state, "by-dev", None)
    assert (state.pchannel_count, state.cchannel) == (16, "by-dev_0_vcchan")
    await initialise(store, state, "by-dev", 20)
    assert (state.pchannel_count, state.cchannel) == (20, "by-dev_0_vcchan")
    await initialise(store, state, "by-dev", None)
    assert state.pchannel_count == 20
    with pytest.raises(WalError, match="start it with 20 or more, not 16") as caught:
        await initialise(store, state, "by-dev", 16)
    assert caught.value.code is ErrorCode.INVALID_ARGUMENT
    for wrong in (0, -1, 5000):
        with pytest.raises(WalError, match="choose 1 to"):
            await initialise(store, state, "by-dev", wrong)
