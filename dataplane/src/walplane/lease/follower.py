"""A node follows the Leases of its PChannels: carries out what `decide` says.

Contract: one task per PChannel, so that one which hangs delays no other. What must end at once is
ended from the watch itself, whatever its task is doing. Every write goes out only after the Lease,
as last read, still names this process and term; a conflict means to read and decide anew. What a
call to the API server failed with changes nothing: it is tried again, with pauses. Layer: lease.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import replace
from typing import Protocol

import structlog

from walplane.lease.contract import Body, PChannelLease
from walplane.lease.decide import Action, Local, Mode, Phase, decide
from walplane.lease.report import OPEN_FAILED, STOPPED, reason_of
from walplane.lease.store import ApiError, LeaseStore
from walplane.rpc.errors import ErrorCode, WalError
from walplane.runtime import Runtime
from walplane.wal.ports import StaleTerm

_log = structlog.get_logger(__name__)

_PAUSE_S = (0.2, 5.0)


class ChannelHost(Protocol):
    """What opens and holds the logs; a StreamingNode."""

    async def assign(self, pchannel: str, term: int) -> None:
        """Serves `pchannel` under `term` when this returns.

        Raises:
            WalError: it could not be opened; nothing is left behind.
        """
        ...

    async def release(self, pchannel: str, term: int) -> None:
        """Answers what is in flight and closes the log held under `term`."""
        ...

    def stop(self, pchannel: str, reason: WalError) -> None:
        """Ends the log at once, open or being opened; nothing more is acknowledged."""
        ...


class Follower:
    """Follows every PChannel's Lease of one cluster for one process.

    Args:
        store: the API server.
        host: opens and holds the logs.
        me: identity of this process.
        runtime: randomness of the pauses.
        may_open: asked before a log is opened; returns once the coordinator answers.
        reported: returns once what `on_change` told of is reported, or cannot be.
        on_change: told when something is to be reported at once.
    """

    def __init__(
        self,
        store: LeaseStore,
        host: ChannelHost,
        me: str,
        runtime: Runtime,
        may_open: Callable[[PChannelLease], Awaitable[None]],
        reported: Callable[[], Awaitable[None]],
        on_change: Callable[[], None],
    ) -> None:
        """Follows nothing before `run`."""
        self.store = store
        self.host = host
        self.me = me
        self.runtime = runtime
        self.may_open = may_open
        self.reported = reported
        self.on_change = on_change
        self.mode = Mode.STAYING
        self._channels: dict[str, ChannelFollower] = {}
        self._new: asyncio.Queue[ChannelFollower] = asyncio.Queue()
        self._changed = asyncio.Event()

    def observe(self, name: str, body: Body | None) -> None:
        """The Lease `name` is new or different; None: a complete list lacks it."""
        follower = self._channels.get(name)
        if body is None:
            if follower is not None:
                follower.observe(None)
            return
        try:
            lease = PChannelLease.parse(body)
        except ValueError as error:
            _log.warning("a Lease that is no order", lease=name, error=str(error))
            return
        if follower is None:
            if any(each.pchannel == lease.channel for each in self._channels.values()):
                _log.warning("a second Lease for a PChannel", lease=name, pchannel=lease.channel)
                return
            follower = self._channels[name] = ChannelFollower(self, name, lease.channel)
            self._new.put_nowait(follower)
        if follower.pchannel != lease.channel:
            _log.warning("a Lease changed its PChannel", lease=name, pchannel=lease.channel)
            return
        follower.observe(lease)

    def lost(self, pchannel: str, term: int, error: WalError) -> None:
        """The host's log of `pchannel` stopped by itself."""
        for follower in self._channels.values():
            if follower.pchannel == pchannel:
                follower.lost(term, error)

    @property
    def followers(self) -> Iterable[ChannelFollower]:
        """One per PChannel that has, or had, a Lease."""
        return self._channels.values()

    @property
    def held(self) -> list[str]:
        """PChannels that are held, being opened, or granted to this process."""
        return [each.pchannel for each in self._channels.values() if each.engaged]

    def set_mode(self, mode: Mode) -> None:
        """From here on the process stays, drains or leaves."""
        self.mode = mode
        for follower in self._channels.values():
            follower.poke()
        self.on_change()

    async def none_held(self) -> None:
        """Returns once nothing is held and nothing is granted to this process."""
        while self.held:
            self._changed.clear()
            await self._changed.wait()

    def moved(self) -> None:
        """Something about one PChannel is different."""
        self._changed.set()

    async def run(self) -> None:
        """Carries out what the Leases say, until it is cancelled."""
        async with asyncio.TaskGroup() as tasks:
            while True:
                follower = await self._new.get()
                tasks.create_task(follower.run(), name=f"follow {follower.pchannel}")


class ChannelFollower:
    """Follows one PChannel's Lease.

    Attributes:
        name: of the Lease.
        pchannel: the PChannel.
        lease: as last seen; None when it is missing.
        local: what this process does with the PChannel.
        last_error: why it is not served here, or what is wrong with its Lease.
        reason: the same in one word.
        attempts: failed attempts to open it since it was last served here.
        term_floor: highest term that its log, or its Lease, ever showed above the present one.
    """

    def __init__(self, node: Follower, name: str, pchannel: str) -> None:
        """Idle."""
        self.name = name
        self.pchannel = pchannel
        self.lease: PChannelLease | None = None
        self.local = Local()
        self.last_error = ""
        self.reason = ""
        self.attempts = 0
        self.term_floor = 0
        self._node = node
        self._poked = asyncio.Event()
        self._opening: asyncio.Task[None] | None = None

    @property
    def engaged(self) -> bool:
        """Whether it is held or being opened here, or granted to this process."""
        lease = self.lease
        if lease is None or lease.holder != self._node.me:
            return self.local.active
        return self.local.active or lease.term >= self.local.seen

    def observe(self, lease: PChannelLease | None) -> None:
        """Takes a newer state of the Lease; ends at once what must end."""
        if lease is None and self.lease is not None and self.local.active:
            _log.warning("its Lease is missing: serving on", pchannel=self.pchannel)
        self.lease = lease
        action = self._decide()
        if lease is not None:
            self.local = replace(self.local, seen=max(self.local.seen, lease.term))
            if lease.term < self.local.seen:
                _log.warning("a lower term is ignored", lease=self.name, term=lease.term)
                self.term_floor = max(self.term_floor, self.local.seen)
        interrupted = action is Action.CLOSE and self.local.phase is Phase.OPENING
        if action is Action.STOP or interrupted:
            self._stop()
        self.poke()

    def lost(self, term: int, error: WalError) -> None:
        """The log stopped by itself."""
        if self.local.active and self.local.term == term:
            self._note(error, STOPPED)
            self._enter(Phase.IDLE)

    def poke(self) -> None:
        """Something is different: decide anew."""
        self._poked.set()
        self._node.moved()

    async def run(self) -> None:
        """Step after step, until it is cancelled."""
        first, most = _PAUSE_S
        pause = first
        while True:
            self._poked.clear()
            action = self._decide()
            if action in (Action.NOTHING, Action.STOP):
                await self._poked.wait()
                continue
            try:
                await self._carry_out(action)
                pause = first
            except ApiError as error:
                _log.warning("a Lease was not written", lease=self.name, error=str(error))
                await self._wait(pause * (0.5 + self._node.runtime.random.random()))
                pause = min(pause * 2, most)

    async def _carry_out(self, action: Action) -> None:
        lease = self.lease
        if action is Action.CLOSE:
            await self._close()
        elif lease is None:
            return
        elif action is Action.OPEN:
            await self._open(lease)
        elif action is Action.CONFIRM:
            await self._write(lease, PChannelLease.confirmed)
        else:
            self.local = replace(self.local, over=max(self.local.over, lease.term))
            await self._node.reported()  # the holder goes only after the reason is known
            await self._write(lease, PChannelLease.given_back)

    async def _open(self, lease: PChannelLease) -> None:
        term = lease.term
        self.last_error = self.reason = ""
        self._enter(Phase.OPENING, term)
        self._opening = asyncio.create_task(self._attempt(lease), name=f"open {self.pchannel}")
        try:
            await asyncio.wait({self._opening})
        finally:
            opening, self._opening = self._opening, None
            opening.cancel()
        error = None if opening.cancelled() else opening.exception()
        opened = error is None and not opening.cancelled()
        if self.local.phase is not Phase.OPENING:
            if opened:  # it was stopped in the very moment in which it opened
                self._node.host.stop(self.pchannel, self._over())
            return
        if opened:
            self.attempts = 0
            self._enter(Phase.SERVING, term)
            return
        self.attempts += 1
        if error is not None and not isinstance(error, WalError):
            _log.error("opening a PChannel crashed", pchannel=self.pchannel, exc_info=error)
        given_up = WalError(ErrorCode.INNER, f"opening it under term {term} was given up")
        self._note(error or given_up, OPEN_FAILED)
        self._enter(Phase.IDLE)

    async def _attempt(self, lease: PChannelLease) -> None:
        await self._node.may_open(lease)
        await self._node.host.assign(self.pchannel, lease.term)

    async def _close(self) -> None:
        term = self.local.term
        self._enter(Phase.CLOSING, term)
        try:
            await self._node.host.release(self.pchannel, term)
        except WalError as error:  # the next term fences what could not be closed
            _log.warning("not closed", pchannel=self.pchannel, term=term, error=str(error))
        if self.local.phase is Phase.CLOSING:
            self._enter(Phase.IDLE)

    async def _write(self, lease: PChannelLease, edit: Callable[[PChannelLease], Body]) -> None:
        """Writes an edit of the Lease as it was last read; after a conflict it is read anew."""
        try:
            stored = await self._node.store.replace(edit(lease))
        except ApiError as error:
            if error.conflict:
                self._node.observe(self.name, await self._node.store.get(self.name))
                return
            raise
        self._node.observe(self.name, stored)

    def _stop(self) -> None:
        """Another process has it, or a higher term was granted, or it is asked back."""
        over = self._over()
        _log.warning("stopping", pchannel=self.pchannel, why=over.message)
        if self._opening is not None:
            self._opening.cancel()
        self._enter(Phase.IDLE)
        self._node.host.stop(self.pchannel, over)

    def _over(self) -> WalError:
        granted = "nobody"
        if self.lease is not None:
            granted = f"{self.lease.holder or 'nobody'} under term {self.lease.term}"
        return WalError(
            ErrorCode.CHANNEL_FENCED,
            f"{self.pchannel} is over here, it is granted to {granted}: ask discovery",
        )

    def _note(self, error: BaseException, otherwise: str) -> None:
        self.last_error = error.message if isinstance(error, WalError) else repr(error)
        self.reason = reason_of(error, otherwise)
        if isinstance(error, StaleTerm):
            self.term_floor = max(self.term_floor, error.term_floor)
        _log.warning("not served", pchannel=self.pchannel, why=self.reason, error=self.last_error)
        self._node.on_change()

    def _decide(self) -> Action:
        return decide(self.lease, self._node.me, self.local, self._node.mode)

    def _enter(self, phase: Phase, term: int = 0) -> None:
        over = max(self.local.over, self.local.term) if phase is Phase.IDLE else self.local.over
        self.local = replace(self.local, phase=phase, term=term, over=over)
        self.poke()

    async def _wait(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._poked.wait()
        except TimeoutError:
            pass
