"""The balance policy `vchannelfair`: who should own which PChannel. Pure. Layer: assignment.

Contract: the same (nodes, channels, settings) give the same moves. PChannels without an owner are
all placed at once, since nobody serves them; of the others at most `max_moves` move a step, first
those on frozen nodes. Every further move or exchange of two lowers one cost by more than
`tolerance` a move, so repeated steps end and nothing goes back and forth. Local search over moves
and exchanges on a sum of squares: squares make the most loaded node the first to give.
"""

from __future__ import annotations

import heapq
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

_EXCHANGES_TRIED = 32
"""First halves of an exchange that are looked at, the cheapest ones."""


@dataclass(frozen=True, slots=True)
class BalanceNode:
    """A node that lives; a frozen one is drained and takes nothing."""

    node_id: str
    frozen: bool = False


@dataclass(frozen=True, slots=True)
class BalanceChannel:
    """A PChannel as observed.

    Attributes:
        pchannel: its name.
        node_id: owner; None when there is none or it is gone.
        collections: collection of each VChannel it carries; dropped ones are not among them.
        pinned: moved recently or lagging: stays where it is unless its node is frozen or gone.
    """

    pchannel: str
    node_id: str | None = None
    collections: tuple[int, ...] = ()
    pinned: bool = False


@dataclass(frozen=True, slots=True)
class BalanceSettings:
    """Weights and limits of `vchannelfair`.

    Attributes:
        max_moves: PChannels moved away from a living owner in one step.
        tolerance: a move must lower the cost by more than this. Costs are relative to the mean
            load of a node: 0.02 leaves one PChannel more or less alone where a node has ten.
        pchannel_weight: of the spread in PChannels per node.
        vchannel_weight: of the spread in VChannels per node.
        affinity_weight: of pairs of VChannels of one collection on one node.
    """

    max_moves: int = 3
    tolerance: float = 0.02
    pchannel_weight: float = 1.0
    vchannel_weight: float = 1.0
    affinity_weight: float = 1.0


@dataclass(frozen=True, slots=True)
class Move:
    """`pchannel` goes from `source` (None: nobody) to `target`."""

    pchannel: str
    source: str | None
    target: str


def vchannelfair(
    nodes: Iterable[BalanceNode],
    channels: Iterable[BalanceChannel],
    settings: BalanceSettings | None = None,
) -> list[Move]:
    """The moves of one step, in the order to make them; none when all is well or no node lives."""
    settings = settings or BalanceSettings()
    nodes = sorted(nodes, key=lambda node: node.node_id)
    channels = sorted(channels, key=lambda channel: (-len(channel.collections), channel.pchannel))
    targets = [node.node_id for node in nodes if not node.frozen]
    if not targets:
        return []
    plan = _Plan(targets, {node.node_id for node in nodes if node.frozen}, channels, settings)
    moves = [plan.place(channel) for channel in plan.orphans()]
    left = settings.max_moves
    for channel in plan.draining()[:left]:
        moves.append(plan.place(channel))
        left -= 1
    while left > 0 and (better := plan.improve(left)):
        moves += better
        left -= len(better)
    return moves


class _Option(NamedTuple):
    """A possible move and by how much it lowers the cost."""

    gain: float
    channel: BalanceChannel
    target: str


@dataclass(slots=True)
class _Load:
    """What one node carries in the plan."""

    pchannels: int = 0
    vchannels: int = 0
    collections: Counter[int] = field(default_factory=Counter)

    def add(self, channel: BalanceChannel, sign: int) -> None:
        self.pchannels += sign
        self.vchannels += sign * len(channel.collections)
        for collection in channel.collections:
            self.collections[collection] += sign


class _Plan:
    """The assignment as it would be after the moves chosen so far."""

    def __init__(
        self,
        targets: list[str],
        frozen: set[str],
        channels: Sequence[BalanceChannel],
        settings: BalanceSettings,
    ) -> None:
        self._targets = targets
        self._frozen = frozen
        self._channels = channels
        self._settings = settings
        self._moved: set[str] = set()
        self._owner: dict[str, str | None] = {}
        self._load: defaultdict[str, _Load] = defaultdict(_Load)
        for channel in channels:
            living = channel.node_id in frozen or channel.node_id in targets
            self._owner[channel.pchannel] = channel.node_id if living else None
            if living and channel.node_id is not None:
                self._load[channel.node_id].add(channel, 1)
        # Relative to the mean, so that the weights compare whatever the size of the cluster.
        vchannels = sum(len(channel.collections) for channel in channels)
        self._per_pchannel = settings.pchannel_weight / _square(len(channels) / len(targets))
        self._per_vchannel = settings.vchannel_weight / _square(vchannels / len(targets))
        self._per_pair = settings.affinity_weight / max(vchannels, 1)

    def orphans(self) -> list[BalanceChannel]:
        """Channels that nobody living owns, the heaviest first."""
        return [channel for channel in self._channels if self._owner[channel.pchannel] is None]

    def draining(self) -> list[BalanceChannel]:
        """Channels on frozen nodes, the heaviest first."""
        return [channel for channel in self._channels if channel.node_id in self._frozen]

    def place(self, channel: BalanceChannel) -> Move:
        """Moves `channel` to the node where it costs least."""
        target = min(self._targets, key=lambda node: (self._cost_of(channel, node, 0), node))
        return self._move(channel, target)

    def improve(self, left: int) -> list[Move]:
        """Makes the move, or else the exchange of two, that lowers the cost most; none if none."""
        best = max(self._options(), key=lambda option: option.gain, default=None)
        if best is not None and best.gain > self._settings.tolerance:
            return [self._move(best.channel, best.target)]
        exchange = self._best_exchange() if left > 1 else None
        if exchange is None:
            return []
        return [self._move(option.channel, option.target) for option in exchange]

    def _best_exchange(self) -> tuple[_Option, _Option] | None:
        best: tuple[_Option, _Option] | None = None
        limit = 2 * self._settings.tolerance
        firsts = heapq.nlargest(_EXCHANGES_TRIED, self._options(), key=lambda option: option.gain)
        for first in firsts:
            source = self._owner[first.channel.pchannel]
            if source is None:
                continue
            self._shift(first.channel, first.target)
            for second in self._options(first.target, source):
                gain = first.gain + second.gain
                if second.channel is not first.channel and gain > limit:
                    best, limit = (first, second), gain
            self._shift(first.channel, source)
        return best

    def _options(
        self, only_from: str | None = None, only_to: str | None = None
    ) -> Iterator[_Option]:
        """Every move that may be made now."""
        targets = self._targets if only_to is None else [only_to]
        for channel in self._channels:
            source = self._owner[channel.pchannel]
            if source is None or source in self._frozen or only_from not in (None, source):
                continue
            if channel.pinned or channel.pchannel in self._moved:
                continue
            saved = self._cost_of(channel, source, -1)
            for target in targets:
                if target != source:
                    yield _Option(saved - self._cost_of(channel, target, 0), channel, target)

    def _move(self, channel: BalanceChannel, target: str) -> Move:
        source = self._shift(channel, target)
        self._moved.add(channel.pchannel)
        return Move(channel.pchannel, source, target)

    def _shift(self, channel: BalanceChannel, target: str) -> str | None:
        source = self._owner[channel.pchannel]
        if source is not None:
            self._load[source].add(channel, -1)
        self._load[target].add(channel, 1)
        self._owner[channel.pchannel] = target
        return source

    def _cost_of(self, channel: BalanceChannel, node: str, there: int) -> float:
        """What `channel` adds to the cost of `node`; `there` is -1 when it is on it already."""
        load = self._load[node]
        size = len(channel.collections)
        pchannels = load.pchannels + there
        vchannels = load.vchannels + there * size
        pairs = 0
        own = Counter(channel.collections)
        for collection, count in own.items():
            pairs += count * (load.collections[collection] + there * count)
        return (
            self._per_pchannel * (2 * pchannels + 1)
            + self._per_vchannel * (2 * vchannels * size + size * size)
            + self._per_pair * pairs
        )


def _square(mean: float) -> float:
    """The square of a mean load; 1 where there is no load to be relative to."""
    return mean * mean if mean > 0 else 1.0
