"""StreamingNode: opens, holds and releases the WALs of one process.

Contract: per PChannel one WAL at a time, under the highest term the node was ever given; a lower
term is refused. A WAL that stops by itself is dropped, and whoever listens is told once. Calls for
different PChannels never wait for each other. Layer: node.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

import structlog

from walplane.backends.interface import Backend
from walplane.node.config import NodeConfig
from walplane.node.edge import Edge
from walplane.node.turns import ReadTurns
from walplane.rpc.errors import ErrorCode, WalError
from walplane.rpc.flow import ByteBudget
from walplane.rpc.v1 import streaming_pb2
from walplane.runtime import Runtime
from walplane.tracing import Tracing
from walplane.wal.meter import Meters
from walplane.wal.ownership import WALDeps, always
from walplane.wal.ports import StaleTerm, TermAuthority, TimestampOracle
from walplane.wal.recovery.segments.storing import SegmentDeps
from walplane.wal.scan.buffer import WriteAheadMemory
from walplane.wal.shard.growth import NodeGrowth, no_memory_limit
from walplane.wal.status import WALStatus
from walplane.wal.timetick.reserve import TickReserve
from walplane.wal.wal import WAL

_log = structlog.get_logger(__name__)

OpenWAL = Callable[[str, int], Coroutine[Any, Any, WAL]]
ChannelLost = Callable[[str, int, WalError], None]
"""Told (PChannel, term, why) when a WAL stopped without having been released."""


class _Channel:
    """What the node knows about one PChannel."""

    def __init__(self, pchannel: str, append_bytes: int) -> None:
        self.pchannel = pchannel
        self.append_budget = ByteBudget(append_bytes)
        self.lock = asyncio.Lock()  # one open or close at a time
        self.seen = 0  # highest term ever given
        self.held: Edge | None = None
        self.opening: asyncio.Task[WAL] | None = None
        self.attempts = 0  # failed opens in a row
        self.last_error = ""
        self.term_floor = 0

    def interrupt(self) -> None:
        """Ends an open under way; the opener sees a higher `seen` or a release."""
        if self.opening is not None:
            self.opening.cancel()


class StreamingNode:
    """The WALs of one process.

    Attributes:
        node_id: identity in assignments and status.
        config: limits.
        append_budget: bytes in flight over all Produce streams.
        read_turns: bounds what all Consume streams hold.
        write_ahead: bounds what all logs keep for tailing readers.
        reserve: ticks for every WAL of the node.
        growth: bounds what grows in segments.
        segments: where segment data goes; None = nowhere.
        meters: what is counted about its logs, those it lost among them.

    Args:
        node_id: identity in assignments and status.
        backend: where the topics are; stays open, the caller closes it.
        oracle: source of ticks.
        authority: says which term a PChannel is granted under.
        runtime: clocks and randomness.
        config: limits.
        on_channel_lost: told when a WAL stops by itself.
        open_wal: opens one WAL; by default on `backend`.
        may_tick_idle: whether nobody can have taken this process for dead yet.
        tracing: makes spans; by default where the process' own go.
        memory: the share of its memory that this process uses.
        segments: where segment data goes; None = nowhere.
    """

    def __init__(
        self,
        node_id: str,
        backend: Backend,
        oracle: TimestampOracle,
        authority: TermAuthority,
        runtime: Runtime,
        config: NodeConfig | None = None,
        *,
        on_channel_lost: ChannelLost | None = None,
        open_wal: OpenWAL | None = None,
        may_tick_idle: Callable[[], bool] = always,
        tracing: Tracing | None = None,
        memory: Callable[[], float] = no_memory_limit,
        segments: SegmentDeps | None = None,
    ) -> None:
        """Holds nothing yet."""
        self.node_id = node_id
        self.config = config or NodeConfig()
        self.append_budget = ByteBudget(self.config.node_append_bytes)
        self.read_turns = ReadTurns(self.config.read_turns, self.config.reader_patience_s)
        self.reserve = TickReserve(oracle, runtime, self._holdings, self._on_terms_lost)
        self.meters = Meters()
        self.write_ahead = WriteAheadMemory(self.config.write_ahead_bytes)
        self.growth = NodeGrowth(self.config.growth, memory)
        self.segments = segments
        self._deps = WALDeps(
            *(backend, self.reserve, oracle, authority, runtime, may_tick_idle),
            write_ahead=self.write_ahead,
            meters=self.meters,
            tracing=tracing or Tracing(),
            growth=self.growth,
            segments=segments,
        )
        self._open_wal = open_wal or self._open_on_backend
        self._on_channel_lost = on_channel_lost
        self._channels: dict[str, _Channel] = {}
        self._closers: dict[asyncio.Task[None], Edge] = {}
        self._closing = False

    async def assign(self, pchannel: str, term: int) -> None:
        """Serves `pchannel` under `term`; returns once it serves. Idempotent.

        A WAL held under a lower term is closed first, an open under a lower term is given up.

        Raises:
            WalError: IGNORED_OPERATION when a higher term is known; ON_SHUTDOWN when the node
                closes; whatever the open failed with (`StaleTerm` tells the term floor).
        """
        channel = self._channels.get(pchannel)
        if channel is None:
            channel = _Channel(pchannel, self.config.channel_append_bytes)
            self._channels[pchannel] = channel
        if self._closing:
            raise WalError(ErrorCode.ON_SHUTDOWN, f"node {self.node_id} is shutting down")
        self._refuse_lower(channel, term)
        if term > channel.seen:
            channel.seen = term
            channel.interrupt()
        async with channel.lock:
            self._refuse_lower(channel, term)
            held = channel.held
            if held is not None and held.wal.term == term:
                return
            if held is not None:
                await self._drop(channel, held, f"taken over under term {term}")
            await self._open(channel, term)

    async def release(self, pchannel: str, term: int) -> None:
        """Stops serving `pchannel` under `term` or a lower one; returns once it is closed.

        Appends in flight are answered first. A release of a term lower than the one held does
        nothing. Idempotent.
        """
        channel = self._channels.get(pchannel)
        if channel is None or term < channel.seen:
            return
        channel.seen = term
        channel.interrupt()
        async with channel.lock:
            held = channel.held
            if held is not None and held.wal.term <= term:
                await self._drop(channel, held, "released")

    def stop(self, pchannel: str, reason: WalError) -> None:
        """Ends the WAL of `pchannel` at once: another process owns it.

        One that is being opened or closed just as one that is open.

        Nothing more is acknowledged; what is in flight has an unknown outcome.
        """
        channel = self._channels.get(pchannel)
        if channel is None:
            return
        channel.interrupt()
        self._fence(channel, reason)

    def wal(self, pchannel: str, term: int = 0) -> WAL:
        """The WAL of `pchannel`; `term` 0 means whatever term it is held under.

        Raises:
            WalError: CHANNEL_NOT_EXIST or UNMATCHED_CHANNEL_TERM when it is not held so.
        """
        return self.edge(pchannel, term).wal

    def edge(self, pchannel: str, term: int = 0) -> Edge:
        """As `wal`, the way clients use it."""
        channel = self._channels.get(pchannel)
        held = channel.held if channel else None
        if held is not None and term in (0, held.wal.term):
            return held
        has = f"holds it under term {held.wal.term}" if held else "does not hold it"
        code = ErrorCode.UNMATCHED_CHANNEL_TERM if term else ErrorCode.CHANNEL_NOT_EXIST
        asked = f" under term {term}" if term else ""
        raise WalError(
            code, f"{pchannel}{asked} is not served here: node {self.node_id} {has}; ask discovery"
        )

    def append_budgets(self, pchannel: str) -> tuple[ByteBudget, ByteBudget]:
        """Bytes in flight over all Produce streams of `pchannel`, which was given here, and of all.

        Those of a log stay with its PChannel: it may hang, be given away and come back.
        """
        return self._channels[pchannel].append_budget, self.append_budget

    def held(self) -> dict[str, WAL]:
        """The logs that are open here, by PChannel."""
        held = ((name, channel.held) for name, channel in self._channels.items())
        return {name: edge.wal for name, edge in held if edge is not None}

    def status(self) -> list[streaming_pb2.ChannelStatus]:
        """One line per PChannel the node was ever given, in the order of their names."""
        return [self._channel_status(self._channels[name]) for name in sorted(self._channels)]

    async def close(self) -> None:
        """Releases everything; returns once every WAL is closed. Idempotent."""
        self._closing = True
        for channel in self._channels.values():
            channel.interrupt()
        await asyncio.gather(*(self._close_channel(c) for c in self._channels.values()))
        if self._closers:
            await asyncio.wait(self._closers)
        await self.reserve.close()

    async def _close_channel(self, channel: _Channel) -> None:
        async with channel.lock:
            if channel.held is not None:
                await self._drop(channel, channel.held, "shutting down")

    def _refuse_lower(self, channel: _Channel, term: int) -> None:
        if term < channel.seen:
            raise WalError(
                ErrorCode.IGNORED_OPERATION,
                f"{channel.pchannel} was given to node {self.node_id} under term {channel.seen}: "
                f"term {term} is ignored",
            )

    async def _open(self, channel: _Channel, term: int) -> None:
        channel.attempts += 1
        opens, began = self.meters.of(channel.pchannel).opens, self._deps.runtime.monotonic()
        opening = asyncio.create_task(
            self._open_wal(channel.pchannel, term), name=f"open-{channel.pchannel}"
        )
        channel.opening = opening
        try:
            wal = await opening
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                await _close_unwanted(opening)
                raise
            opens["given_up"] += 1
            raise self._interrupted(channel, term) from None
        except WalError as error:
            channel.last_error = error.message
            opens["fenced" if isinstance(error, StaleTerm) else "failed"] += 1
            if isinstance(error, StaleTerm):
                channel.term_floor = max(channel.term_floor, error.term_floor)
            _log.warning("open failed", pchannel=channel.pchannel, term=term, error=str(error))
            raise
        finally:
            channel.opening = None
        channel.attempts, channel.last_error = 0, ""
        opens["served"] += 1
        self.meters.opens.add(self._deps.runtime.monotonic() - began)
        held = Edge(wal)
        channel.held = held
        wal.stopped.add_done_callback(partial(self._stopped, channel, held))
        _log.info("serving", pchannel=channel.pchannel, term=term, node=self.node_id)

    async def _open_on_backend(self, pchannel: str, term: int) -> WAL:
        return await WAL.open(pchannel, term, self._deps, self.config.wal)

    def _interrupted(self, channel: _Channel, term: int) -> WalError:
        return WalError(
            ErrorCode.IGNORED_OPERATION,
            f"opening {channel.pchannel} under term {term} on node {self.node_id} was given up: "
            "it was released, or given out under a higher term",
        )

    async def _drop(self, channel: _Channel, held: Edge, why: str) -> None:
        """Closes a WAL in good order: no new appends, answers first, then the streams end."""
        channel.held = None
        pchannel, term = channel.pchannel, held.wal.term
        try:
            await asyncio.wait({self._close_wal(held)})  # goes on when this is cancelled
        finally:
            held.end(_not_served(self.node_id, pchannel, term, why))
        _log.info("released", pchannel=pchannel, term=term, node=self.node_id, why=why)

    def _stopped(
        self, channel: _Channel, held: Edge, stopped: asyncio.Future[WalError | None]
    ) -> None:
        """A WAL stopped by itself: forget it, end its streams, tell the listener."""
        if channel.held is not held or stopped.cancelled():
            return
        pchannel, term = channel.pchannel, held.wal.term
        error = stopped.result() or _not_served(self.node_id, pchannel, term, "its log stopped")
        channel.held = None
        self.meters.of(pchannel).lost += 1
        channel.last_error = error.message
        if isinstance(error, StaleTerm):
            channel.term_floor = max(channel.term_floor, error.term_floor)
        held.end(error)
        self._close_wal(held)
        _log.warning("channel lost", pchannel=pchannel, term=term, error=str(error))
        if self._on_channel_lost is not None:
            self._on_channel_lost(pchannel, term, error)

    def _close_wal(self, edge: Edge) -> asyncio.Task[None]:
        closer = asyncio.create_task(edge.wal.close(), name=f"close-{edge.wal.pchannel}")
        self._closers[closer] = edge
        closer.add_done_callback(self._closed)
        return closer

    def _closed(self, closer: asyncio.Task[None]) -> None:
        del self._closers[closer]
        if not closer.cancelled() and closer.exception() is not None:
            _log.warning("close failed", task=closer.get_name(), error=str(closer.exception()))

    def _fence(self, channel: _Channel, reason: WalError) -> None:
        """Ends what is open of a PChannel, and what is being closed and answers still."""
        if channel.held is not None:
            channel.held.wal.fence(reason)
        for edge in self._closers.values():
            if edge.wal.pchannel == channel.pchannel and not edge.wal.stopped.done():
                edge.wal.fence(reason)
                edge.end(reason)

    def _holdings(self) -> dict[str, int]:
        return {name: wal.term for name, wal in self.held().items()}

    def _on_terms_lost(self, pchannels: frozenset[str]) -> None:
        for name in pchannels:
            channel = self._channels.get(name)
            if channel is not None and channel.held is not None:
                term = channel.held.wal.term
                self._fence(channel, _not_served(self.node_id, name, term, "a higher term exists"))

    def _channel_status(self, channel: _Channel) -> streaming_pb2.ChannelStatus:
        status = streaming_pb2.ChannelStatus(pchannel=channel.pchannel, term=channel.seen)
        if channel.held is not None:
            status.MergeFrom(status_to_proto(channel.held.wal.status()))
        else:
            status.state = "opening" if channel.opening is not None else "closed"
            status.last_error, status.last_error_attempts = channel.last_error, channel.attempts
        status.term_floor = max(channel.term_floor, status.term_floor)
        return status


def status_to_proto(status: WALStatus) -> streaming_pb2.ChannelStatus:
    """The status on the wire."""
    return streaming_pb2.ChannelStatus(
        pchannel=status.pchannel,
        term=status.term,
        open_number=status.open_number,
        state=status.state,
        watermark=status.watermark,
        checkpoint_tick=status.checkpoint_tick,
        last_error_attempts=status.attempts,
        last_error=status.last_error,
        term_floor=status.term_floor,
        vchannels=status.vchannels,
        in_flight_bytes=status.bytes_pending,
    )


async def _close_unwanted(opening: asyncio.Task[WAL]) -> None:
    """Closes what an open has brought in the moment in which nobody wanted it any more."""
    if opening.done() and not opening.cancelled() and opening.exception() is None:
        await opening.result().close()


def _not_served(node_id: str, pchannel: str, term: int, why: str) -> WalError:
    return WalError(
        ErrorCode.ON_SHUTDOWN,
        f"node {node_id} no longer serves {pchannel} under term {term} ({why}): ask discovery",
    )
