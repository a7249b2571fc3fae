"""Who serves which PChannel, in a cluster without Kubernetes: the coordinator grants terms.

Contract (rules §11): a term is persisted before it is granted and grows with every grant.
A PChannel is served, or being opened, or waits for its next attempt with the reason and the number
of attempts visible; each has its own backoff, so one that fails slows no other. What a node or a
client reports about the present term takes the PChannel away and grants it anew. Layer: coord.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Protocol

import structlog

from walplane.assignment.states import Channel, ChannelState
from walplane.channel import MAX_PCHANNELS, cchannel_name, pchannel_name
from walplane.coord.backoff import Backoff
from walplane.coord.ports import TAKEN_REPORTS, ConfirmingLog, DeltaLog
from walplane.coord.settings import CoordSettings
from walplane.rpc.errors import ErrorCode, WalError
from walplane.rpc.v1 import coordmeta_pb2
from walplane.runtime import Runtime
from walplane.wal.ports import StaleTerm

_log = structlog.get_logger(__name__)

COMPONENT = "channels"
DEFAULT_PCHANNELS = 16


class NodeHandle(Protocol):
    """The node that PChannels are granted to; the wiring fills it."""

    @property
    def node_id(self) -> str:
        """Name of the node, in snapshots."""
        ...

    @property
    def address(self) -> str:
        """Where clients reach it, host:port."""
        ...

    async def assign(self, pchannel: str, term: int) -> None:
        """Opens `pchannel` under `term`; it is served when this returns.

        A failed or cancelled call leaves nothing open.

        Raises:
            StaleTerm: the log knows a higher term.
            WalError: why it could not be opened.
        """
        ...

    async def release(self, pchannel: str, term: int) -> None:
        """Drains and closes `pchannel` if it is held under `term`, else does nothing."""
        ...


class ChannelsState:
    """What is durable: how many PChannels there are, the CChannel, the terms granted."""

    def __init__(self) -> None:
        """Before initialisation: no PChannels."""
        self.pchannel_count = 0
        self.cchannel = ""
        self.terms: dict[str, int] = {}

    def apply(self, data: bytes) -> None:
        """Takes a durable `ChannelsDelta`."""
        delta = coordmeta_pb2.ChannelsDelta.FromString(data)
        self.pchannel_count = max(self.pchannel_count, delta.pchannel_count)
        self.cchannel = self.cchannel or delta.cchannel
        for pchannel, term in delta.terms.items():
            self.terms[pchannel] = max(self.terms.get(pchannel, 0), term)

    def dump(self) -> list[bytes]:
        """The state as one delta."""
        delta = coordmeta_pb2.ChannelsDelta(
            pchannel_count=self.pchannel_count, cchannel=self.cchannel, terms=self.terms
        )
        return [delta.SerializeToString()]


async def initialise(
    store: DeltaLog, state: ChannelsState, prefix: str, wanted: int | None
) -> None:
    """Settles how many PChannels there are, and binds the CChannel at the first start.

    Args:
        store: where it is persisted.
        state: what is persisted already.
        prefix: of the PChannels' names.
        wanted: configured count; None = as it is, or the default for a new cluster.

    Raises:
        WalError: INVALID_ARGUMENT for a count below the present one, or out of range.
    """
    count = wanted if wanted is not None else state.pchannel_count or DEFAULT_PCHANNELS
    if not 0 < count <= MAX_PCHANNELS:
        raise WalError(
            ErrorCode.INVALID_ARGUMENT, f"{count} PChannels: choose 1 to {MAX_PCHANNELS}"
        )
    if count < state.pchannel_count:
        raise WalError(
            ErrorCode.INVALID_ARGUMENT,
            f"cluster {prefix!r} has {state.pchannel_count} PChannels and their number may only "
            f"grow: start it with {state.pchannel_count} or more, not {count}",
        )
    if count > state.pchannel_count or not state.cchannel:
        delta = coordmeta_pb2.ChannelsDelta(
            pchannel_count=count, cchannel=cchannel_name(pchannel_name(prefix, 0))
        )
        await store.append(COMPONENT, delta.SerializeToString())


class ChannelManager:
    """Grants every PChannel to the one node there is, and grants it anew when it is lost.

    Implements `TermAuthority` of `wal.ports`.
    """

    def __init__(
        self,
        store: ConfirmingLog,
        state: ChannelsState,
        pchannels: Sequence[str],
        runtime: Runtime,
        settings: CoordSettings,
        on_change: Callable[[], None],
    ) -> None:
        """Grants nothing before `serve`; `on_change` is told of every change of `channels`."""
        self._store = store
        self._state = state
        self._runtime = runtime
        self._settings = settings
        self._on_change = on_change
        self._channels = {name: Channel(name, state.terms.get(name, 0)) for name in pchannels}
        self._lost = {name: asyncio.Event() for name in pchannels}
        self._opens = asyncio.Semaphore(settings.concurrent_opens)
        self._node: NodeHandle | None = None

    @property
    def channels(self) -> list[Channel]:
        """Every PChannel as it stands, in order."""
        return list(self._channels.values())

    def address_of(self, node_id: str) -> str:
        """Where the node is reached; empty when nobody by that name is there."""
        return self._node.address if self._node and self._node.node_id == node_id else ""

    def place(self, pchannel: str) -> tuple[Channel, str]:
        """Where `pchannel` stands, and its owner's address."""
        channel = self._channels[pchannel]
        return channel, self.address_of(channel.node_id)

    async def current_term(self, pchannel: str) -> int:
        """The highest term granted, read so that no newer coordinator can have granted a higher.

        Raises:
            WalError: CHANNEL_NOT_EXIST; INNER when the meta topic cannot be written in time.
        """
        if pchannel not in self._channels:
            raise WalError(ErrorCode.CHANNEL_NOT_EXIST, f"{pchannel!r} is no PChannel here")
        try:
            async with asyncio.timeout(self._settings.call_timeout_s):
                await self._store.confirm()
        except TimeoutError as error:
            raise WalError(
                ErrorCode.INNER, f"the term of {pchannel} could not be confirmed in time: retry"
            ) from error
        return self._state.terms.get(pchannel, 0)

    def report_stopped(self, pchannel: str, term: int, error: WalError) -> None:
        """The node says that its WAL of `pchannel` stopped serving."""
        self._fail(pchannel, term, error)

    def report_error(self, pchannel: str, term: int, error: WalError) -> bool:
        """A client says what the node answered it; whether it led to a new assignment."""
        channel = self._channels.get(pchannel)
        if channel is None or channel.state is not ChannelState.ASSIGNED:
            return False
        if channel.term != term or error.code not in TAKEN_REPORTS:
            return False
        self._fail(pchannel, term, error)
        return True

    async def keep_served(self, pchannel: str, node: NodeHandle) -> None:
        """Grants `pchannel` to `node`, and again whenever it is lost; ends when cancelled.

        Raises:
            WalError: grants can no longer be persisted.
        """
        self._node = node
        backoff = Backoff(self._runtime, *self._settings.retry_s)
        while True:
            term = await self._grant(pchannel, node)
            began = self._runtime.monotonic()
            if await self._open(pchannel, term, node):
                await self._lost[pchannel].wait()
            if self._runtime.monotonic() - began > self._settings.settled_s:
                backoff.reset()
            await self._release(pchannel, term, node)
            await asyncio.sleep(backoff.next())

    async def drain(self) -> None:
        """Takes every PChannel back from its node; to be called when `keep_served` has ended."""
        node = self._node
        if node is None:
            return
        held = [channel for channel in self.channels if channel.node_id]
        for channel in held:
            self._set(channel.released(channel.term, "the cluster is shutting down"))
        await asyncio.gather(*(self._release(each.pchannel, each.term, node) for each in held))

    async def _grant(self, pchannel: str, node: NodeHandle) -> int:
        while True:
            term = self._channels[pchannel].next_term
            delta = coordmeta_pb2.ChannelsDelta(terms={pchannel: term})
            await self._store.append(COMPONENT, delta.SerializeToString())
            channel = self._channels[pchannel]
            if channel.next_term == term:  # else its floor rose meanwhile
                self._lost[pchannel].clear()
                self._set(channel.granted(node.node_id, term))
                return term

    async def _open(self, pchannel: str, term: int, node: NodeHandle) -> bool:
        """Whether `node` confirmed that it serves."""
        try:
            async with self._opens, asyncio.timeout(self._settings.assign_timeout_s):
                await node.assign(pchannel, term)
        except TimeoutError:
            limit = self._settings.assign_timeout_s
            self._fail(pchannel, term, WalError(ErrorCode.INNER, f"not open after {limit:g} s"))
        except WalError as error:
            self._fail(pchannel, term, error)
        except Exception as error:
            _log.exception("opening a PChannel crashed", pchannel=pchannel, term=term)
            self._fail(pchannel, term, WalError(ErrorCode.INNER, f"opening it crashed: {error!r}"))
        else:
            self._set(self._channels[pchannel].confirmed(term))
        return self._channels[pchannel].state is ChannelState.ASSIGNED

    async def _release(self, pchannel: str, term: int, node: NodeHandle) -> None:
        try:
            async with asyncio.timeout(self._settings.release_timeout_s):
                await node.release(pchannel, term)
        except Exception as error:  # the next term fences what could not be released
            _log.warning("release failed", pchannel=pchannel, term=term, error=repr(error))

    def _fail(self, pchannel: str, term: int, error: WalError) -> None:
        before = self._channels.get(pchannel)
        if before is None:
            return
        floor = error.term_floor if isinstance(error, StaleTerm) else 0
        after = before.failed(term, str(error), floor)
        self._set(after)
        if after.state is not before.state:
            self._lost[pchannel].set()
            _log.warning(
                "a PChannel is not served",
                pchannel=pchannel,
                term=term,
                attempts=after.attempts,
                reason=after.reason,
            )

    def _set(self, channel: Channel) -> None:
        if self._channels[channel.pchannel] != channel:
            self._channels[channel.pchannel] = channel
            self._on_change()
