"""The network between processes: delay, loss, duplicates, reordering, one-way partitions.

Contract: what travels between two hosts takes a drawn time and may be lost when the way is cut. A
`Pipe` keeps the order of what it carries, as TCP does: while the way is cut it holds everything
back, and goes on if the cut heals before its ends give up. Separate pipes and single calls overtake
each other. Layer: testkit.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from contextvars import Context
from dataclasses import dataclass
from math import log
from typing import Any, Protocol, TypeVar

from walplane.rpc.errors import ErrorCode, WalError
from walplane.testkit.sim.loop import SimLoop
from walplane.testkit.sim.process import Process

_T = TypeVar("_T")

_RETRANSMIT_S = 0.2
_WORLD = Context()
_GIVE_UP_S = (0.5, 15.0)  # when an end of a cut connection notices: keepalive
_RESET_S = (0.0005, 0.3)  # when the other end of a killed process notices


@dataclass
class Weather:
    """How the network is now.

    Attributes:
        delay_s: one way, at least.
        jitter_s: mean of what comes on top.
        spike: share of messages that take up to `spike_s` more.
        lost: share of single calls whose request or answer is lost.
        doubled: share of single calls that arrive twice.
    """

    delay_s: float = 0.0003
    jitter_s: float = 0.0005
    spike: float = 0.0
    spike_s: float = 0.3
    lost: float = 0.0
    doubled: float = 0.0


class Connection(Protocol):
    """What crosses from one process to another and can break."""

    client: Process
    server: Process

    def broken(self, at: Process) -> None:
        """The end at `at` learns that the other is gone."""
        ...


class Network:
    """Every way between two hosts.

    Attributes:
        weather: may be exchanged at any time.
        listeners: who serves an address; the value's meaning is the listener's own.
        window: responses of a stream that its client has not read, at most; 0 = any number.
    """

    def __init__(self, loop: SimLoop, seed: int) -> None:
        """All is well."""
        self.loop = loop
        self.weather = Weather()
        self.listeners: dict[str, tuple[Process, Any]] = {}
        self.window = 0
        self._random = random.Random(seed)  # noqa: S311 - reproducible, not secret
        self._draw = self._random.random
        self._cut: set[tuple[str, str]] = set()
        self._connections: dict[Connection, None] = {}

    # --- faults ----------------------------------------------------------------------------------

    def cut(self, source: str, target: str) -> None:
        """Nothing of host `source` reaches host `target` any more."""
        if (source, target) in self._cut:
            return
        self._cut.add((source, target))
        for connection in list(self._connections):
            hosts = {connection.client.host, connection.server.host}
            if hosts == {source, target}:
                self._notice_later(connection, (source, target))

    def heal(self, source: str = "", target: str = "") -> None:
        """Undoes one cut; without names, all of them."""
        if source:
            self._cut.discard((source, target))
        else:
            self._cut.clear()

    def reaches(self, source: str, target: str) -> bool:
        """Whether the way is open."""
        return not self._cut or (source, target) not in self._cut

    def killed(self, process: Process) -> None:
        """Whoever was connected to `process` will notice, soon as a rule."""
        for address, (listener, _) in list(self.listeners.items()):
            if listener is process:
                del self.listeners[address]
        for connection in list(self._connections):
            if process in (connection.client, connection.server):
                other = connection.server if connection.client is process else connection.client
                self.forget(connection)
                self.world(self._random.uniform(*_RESET_S), connection.broken, other)

    def _notice_later(self, connection: Connection, way: tuple[str, str]) -> None:
        """Keepalives go unanswered: both ends give the connection up, unless the cut heals."""
        for end in (connection.client, connection.server):
            later = self._random.uniform(*_GIVE_UP_S)
            self.world(later, self._give_up, connection, end, way)

    def _give_up(self, connection: Connection, end: Process, way: tuple[str, str]) -> None:
        if way in self._cut and connection in self._connections:
            connection.broken(end)
            # The other end is told when it asks, also where the cut has healed meanwhile.
            other = connection.server if end is connection.client else connection.client
            self.world(self._random.uniform(*_GIVE_UP_S), connection.broken, other)

    # --- travelling ------------------------------------------------------------------------------

    def delay(self) -> float:
        """How long one message is on its way."""
        weather = self.weather
        # As expovariate(1.0) draws it, inline: it is asked for at every message.
        delay = weather.delay_s - weather.jitter_s * log(1.0 - self._draw())
        if weather.spike and self._draw() < weather.spike:
            delay += self._draw() * weather.spike_s
        return delay

    def chance(self, share: float) -> bool:
        """Whether something that happens in a `share` of cases happens now."""
        return share > 0 and self._draw() < share

    def world(self, delay_s: float, call: Callable[..., object], *args: object) -> None:
        """Lets the world itself do `call` later, whatever becomes of the caller."""
        self.loop.call_later(delay_s, call, *args, context=_WORLD)

    def remember(self, connection: Connection) -> None:
        """`connection` breaks with either of its ends from now on."""
        self._connections[connection] = None
        client, server = connection.client.host, connection.server.host
        for way in ((client, server), (server, client)):
            if way in self._cut:  # it was being made when the way was cut
                self._notice_later(connection, way)

    def forget(self, connection: Connection) -> None:
        """`connection` is over."""
        self._connections.pop(connection, None)

    async def visit(
        self, caller: Process, host: str, action: Callable[[], _T], timeout_s: float
    ) -> _T:
        """Does `action` at `host`, which is part of the world, and comes back with its result.

        Once sent, the action happens even if the caller is cancelled or killed.

        Raises:
            WalError: what `action` raised; INNER when no answer came in time, done or not.
        """
        answer: asyncio.Future[_T] = self.loop.create_future()

        def tell(result: _T | None, error: WalError | None) -> None:
            if not answer.done() and self.reaches(host, caller.host):
                if error is None:
                    answer.set_result(result)  # type: ignore[arg-type]
                else:
                    answer.set_exception(error)
                    answer.exception()

        def arrive() -> None:
            if not self.reaches(caller.host, host):
                return
            try:
                outcome: tuple[_T | None, WalError | None] = (action(), None)
            except WalError as error:
                outcome = (None, error)
            if not self.chance(self.weather.lost):
                self.world(self.delay(), tell, *outcome)

        def give_up() -> None:
            if not answer.done():
                unanswered = f"{host} did not answer {caller.name}"
                answer.set_exception(WalError(ErrorCode.INNER, unanswered))
                answer.exception()

        if not self.chance(self.weather.lost):
            self.world(self.delay(), arrive)
        patience = self.loop.call_later(timeout_s, give_up)
        try:
            return await answer
        finally:
            patience.cancel()


class Pipe:
    """Messages from one process to another, in order."""

    def __init__(
        self, network: Network, source: Process, target: Process, deliver: Callable[[Any], None]
    ) -> None:
        """`deliver` runs at `target`."""
        self._network = network
        self._source = source
        self._target = target
        self._deliver = deliver
        self._last = 0.0
        self._stuck: list[object] = []
        self._closed = False

    def send(self, item: object) -> None:
        """Sends one message behind all before it."""
        loop = self._network.loop
        self._last = max(self._last, loop.time() + self._network.delay())
        # Arrivals fire up to a jitter late: a gap above it keeps their order.
        self._last += 60e-6
        loop.call_at(self._last, self._arrive, item, context=self._target.context)

    def close(self) -> None:
        """What is on its way is lost."""
        self._closed = True

    def _arrive(self, item: object) -> None:
        if self._stuck or not self._network.reaches(self._source.host, self._target.host):
            self._stuck.append(item)
            if len(self._stuck) == 1:
                self._try_again_later()
        elif not self._closed:
            self._deliver(item)

    def _try_again_later(self) -> None:
        self._network.loop.call_later(_RETRANSMIT_S, self._retransmit, context=self._target.context)

    def _retransmit(self) -> None:
        if self._closed:
            return
        if not self._network.reaches(self._source.host, self._target.host):
            self._try_again_later()
            return
        stuck, self._stuck = self._stuck, []
        for item in stuck:
            if not self._closed:
                self._deliver(item)
