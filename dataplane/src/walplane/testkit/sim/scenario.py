"""From a seed to a plan: which cluster, which work, which faults when. Layer: testkit.

Contract: pure; the same seed gives the same plan, and a plan prints as text that says what happens.
At least `OPERATIONS` operations a plan: appends, reads and faults.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from typing import NamedTuple

from walplane.client.config import ClientConfig
from walplane.node.config import TURN_BYTES
from walplane.testkit.sim.backend import Manners
from walplane.testkit.sim.cluster import EdgeShape, Shape, StoreShape
from walplane.testkit.sim.faults import FAULTS
from walplane.testkit.sim.objects import Habits
from walplane.testkit.sim.store_faults import STORE_FAULTS
from walplane.wal.config import WALConfig
from walplane.wal.shard.config import ShardConfig

OPERATIONS = 200

_SPAN_S = 8.0
_STORE_SHARE = 1 / 3  # of all seeds
_EDGE_SHARE = 1 / 3  # too
_LODGING_SHARE = 1 / 4  # too


class Step(NamedTuple):
    """One thing that happens to the cluster."""

    at: float
    what: str
    which: int
    force: float

    def __str__(self) -> str:
        """One line."""
        return f"{self.at:6.3f} s  {self.what} (target {self.which}, force {self.force:.2f})"


@dataclass(frozen=True)
class Plan:
    """One run.

    Attributes:
        seed: of this plan, and of everything drawn while it runs.
        shape: the cluster.
        shards: of the collection.
        users: append operations of each user.
        tails: readers: (user, what it reads, where it starts); a number is a shard, -1 all.
        steps: faults and reads, in order of time.
        lodging: whether users live in the processes of nodes.
    """

    seed: int
    shape: Shape
    shards: int
    users: tuple[int, ...]
    tails: tuple[tuple[int, int, str], ...]
    steps: tuple[Step, ...]
    lodging: bool = False

    def __str__(self) -> str:
        """The whole plan."""
        shape = self.shape
        head = [
            f"seed {self.seed}: {shape.nodes} nodes, {shape.pchannels} PChannels, "
            f"{self.shards} shards, lease {shape.lease_s:g} s",
            f"backend: {shape.manners}",
            f"WAL: {shape.wal}",
            f"segment store: {shape.store or 'none'}",
            f"streams: {shape.edge or 'wide'}",
            f"users{' in nodes' if self.lodging else ''}: {self.users} appends; tails {self.tails}",
        ]
        return "\n".join([*head, *map(str, self.steps)])


def plan_of(seed: int) -> Plan:
    """The plan of `seed`."""
    draw = random.Random(seed)  # noqa: S311 - reproducible, not secret
    users = tuple(draw.randint(50, 60) for _ in range(3))
    shards = draw.randint(1, 3)
    tails = tuple(
        (
            draw.randrange(len(users)),
            draw.randint(-1, shards - 1),
            draw.choice(["earliest", "latest"]),
        )
        for _ in range(draw.randint(2, 4))
    )
    steps = _steps(draw, OPERATIONS - sum(users) - len(tails))
    plan = Plan(seed, _shape(draw), shards, users, tails, steps)
    apart = random.Random(f"store {seed}")  # noqa: S311 - as above
    if apart.random() < _STORE_SHARE:
        plan = _with_store(plan, apart)
    apart = random.Random(f"edge {seed}")  # noqa: S311 - as above
    if apart.random() < _EDGE_SHARE:
        plan = _with_edge(plan, apart)
    apart = random.Random(f"lodging {seed}")  # noqa: S311 - as above
    return replace(plan, lodging=apart.random() < _LODGING_SHARE)


def _with_edge(plan: Plan, draw: random.Random) -> Plan:
    """The same with narrow streams and small budgets at both ends; drawn apart as well."""
    edge = EdgeShape(
        response_bytes=draw.choice([1, 2000, 1 << 20]),
        stream_append_bytes=draw.choice([1000, 32 << 20]),
        read_bytes=draw.choice([TURN_BYTES, 256 << 20]),
        reader_patience_s=draw.choice([0.05, 0.5, 5.0]),
        window=draw.choice([1, 2, 8]),
        slow_s=draw.choice([0.0, 0.005, 0.05]),
    )
    client = plan.shape.client.model_copy(
        update={
            "read_ahead_bytes": draw.choice([1, 500, 5000]),
            "pending_bytes": draw.choice([2000, 50_000]),
            "in_flight_bytes": draw.choice([1, 2000, 16 << 20]),
        }
    )
    return replace(plan, shape=replace(plan.shape, edge=edge, client=client))


def _with_store(plan: Plan, draw: random.Random) -> Plan:
    """The same with a segment store, and logs that are cut off soon.

    Drawn apart, so that all else is as without.
    """
    wal = plan.shape.wal.model_copy(
        update={
            "retention_s": draw.choice([0.0, 0.0, 0.5, 3.0]),
            "checkpoint_s": draw.choice([0.2, 0.5, 1.0]),
        }
    )
    habits = Habits(
        latency_s=draw.choice([0.002, 0.01, 0.05]),
        fails=draw.choice([0.0, 0.0, 0.1]),
        unheard=draw.choice([0.0, 0.05]),
        late=draw.choice([0.0, 0.1]),
    )
    store = StoreShape(habits, budget_bytes=draw.choice([1, 20_000, 64 << 20]))
    names, weights = list(STORE_FAULTS), [weight for weight, _ in STORE_FAULTS.values()]
    drawn = draw.choices(names, weights, k=draw.randint(0, 6))
    steps = [
        Step(draw.random() * _SPAN_S, what, draw.randrange(1 << 16), draw.random())
        for what in drawn
    ]
    shape = replace(plan.shape, wal=wal, store=store)
    return replace(plan, shape=shape, steps=tuple(sorted([*plan.steps, *steps])))


def _steps(draw: random.Random, least: int) -> tuple[Step, ...]:
    names = ["catch_up", "read_tick", "change", *FAULTS]
    calm = draw.random() < 0.1  # now and then nothing is wrong
    weights = [4, 2, 2, *(0 if calm else weight for weight, _ in FAULTS.values())]
    drawn = draw.choices(names, weights, k=max(least, 0) + draw.randint(10, 25))
    times = sorted(draw.random() * _SPAN_S for _ in drawn)
    return tuple(
        Step(at, what, draw.randrange(1 << 16), draw.random())
        for at, what in zip(times, drawn, strict=True)
    )


def _shape(draw: random.Random) -> Shape:
    lease_s = draw.choice([1.0, 2.0, 4.0])
    shape = Shape(
        nodes=draw.randint(2, 3),
        pchannels=draw.choice([1, 1, 2]),
        wal=_wal_config(draw, lease_s),
        client=ClientConfig(
            entry_messages=draw.choice([1, 4, 4096]),
            batches_in_flight=draw.choice([2, 8, 32]),
            connect_timeout_s=2.0,
            call_timeout_s=5.0,
            backoff_max_s=1.0,
        ),
        manners=_manners(draw),
        max_record_bytes=draw.choice([12_000, 100_000]),
        sync_s=draw.choice([0.0005, 0.002, 0.01]),
        lease_s=lease_s,
        link_waits=draw.choice([0.0, 0.0, 0.1, 0.4]),
        append_bytes=draw.choice([1000, 4000, 128 << 20]),
    )
    wal = shape.wal.model_copy(update={"shard": _shard_config(draw), **_memory(draw)})
    return replace(shape, wal=wal)


def _shard_config(draw: random.Random) -> ShardConfig:
    return ShardConfig(
        segment_rows=draw.choice([1, 5, 1000]),
        segment_bytes=draw.choice([500, 1 << 20]),
        segment_lifetime_s=draw.choice([0.3, 3.0, 600.0]),
        segment_idle_s=draw.choice([0.2, 60.0]),
        segment_idle_bytes=draw.choice([0, 1000]),
        kept_segments=draw.choice([3, 1000]),
    )


def _wal_config(draw: random.Random, lease_s: float) -> WALConfig:
    return WALConfig(
        frames_in_flight=draw.choice([1, 2, 4, 16]),
        frame_bytes=draw.choice([1, 300, 4000]),
        write_ahead_bytes=draw.choice([200, 10_000, 1 << 20]),
        open_timeout_s=8.0,
        barrier_timeout_s=2.0,
        stall_limit_s=lease_s / 2,
        checkpoint_s=draw.choice([0.1, 0.5, 5.0]),
        close_timeout_s=2.0,
        producer_results=draw.choice([64, 256]),
    )


def _memory(draw: random.Random) -> dict[str, float]:
    """How little a log may keep of its producers."""
    return {
        "producers": draw.choice([2, 10_000, 10_000]),
        "producer_bytes": draw.choice([20_000, 16 << 20]),
        "producer_age_s": draw.choice([0.5, 5.0, 86_400.0]),
    }


def _manners(draw: random.Random) -> Manners:
    return Manners(
        knows_terms=draw.random() < 0.3,
        deduplicates=draw.random() < 0.4,
        evicts=draw.choice([0.0, 0.5]),
        silent_fence=draw.choice([0.0, 0.0, 0.3]),
        leaks=draw.choice([0.0, 0.0, 0.5]),
        mute=draw.choice([0.0, 0.0, 0.005]),
        resets=draw.choice([0.0, 0.0, 0.01]),
        no_id=draw.choice([0.0, 0.0, 0.01]),
        read_records=draw.choice([3, 64, 1024]),
    )
