"""What makes a node seal: growing bytes and its memory; how the memory in use is read."""

from __future__ import annotations

from pathlib import Path

import pytest

from walplane.node.memory import memory_share
from walplane.ticks import TICKS_PER_S
from walplane.wal.shard.config import GrowthConfig, ShardConfig
from walplane.wal.shard.growth import NodeGrowth
from walplane.wal.shard.policies import GrowingSegment, due
from walplane.wal.shard.segments import Segment


class Grower:
    """One PChannel whose segments take Inserts until they are retired."""

    def __init__(self, growth: NodeGrowth, *sizes: int) -> None:
        self._growth = growth
        self.growing = [
            GrowingSegment(number, "v", number, 1, size, 0.0, 0.0)
            for number, size in enumerate(sizes)
        ]
        self.reasons: list[str] = []
        growth.bytes += sum(sizes)
        growth.join(self)

    def candidates(self) -> list[GrowingSegment]:
        return list(self.growing)

    def retire(self, growing: GrowingSegment, reason: str) -> None:
        self.growing.remove(growing)
        self._growth.bytes -= growing.bytes
        self.reasons.append(reason)

    @property
    def sizes(self) -> list[int]:
        return [growing.bytes for growing in self.growing]


def test_the_largest_go_first_and_the_oldest_of_equals_until_little_enough_grows() -> None:
    growth = NodeGrowth(GrowthConfig(high_bytes=100, low_share=0.5))
    one, two = Grower(growth, 10, 30, 5), Grower(growth, 30, 20)
    growth.relieve(0)
    assert (one.sizes, two.sizes) == ([10, 30, 5], [30, 20]), "95 are not too many"
    three = Grower(growth, 30)
    growth.relieve(1)
    assert (one.sizes, two.sizes, three.sizes) == ([10, 5], [20], [])
    assert growth.bytes == sum(one.sizes + two.sizes + three.sizes)
    assert set(one.reasons + two.reasons + three.reasons) == {"growing bytes"}


def test_a_node_short_of_memory_seals_one_segment_at_a_look() -> None:
    share = 0.5
    growth = NodeGrowth(GrowthConfig(memory_share=0.8, memory_look_s=1), lambda: share)
    one = Grower(growth, 10, 30, 20)
    growth.relieve(0)
    assert one.sizes == [10, 30, 20]
    share = 0.9
    growth.relieve(0.5)  # it is not looked at so often
    assert one.sizes == [10, 30, 20]
    growth.relieve(1)
    assert one.sizes == [10, 20]
    growth.relieve(2)
    assert one.sizes == [10]
    assert one.reasons == ["node memory"] * 2
    growth.leave(one)
    growth.relieve(3)
    assert one.sizes == [10]


@pytest.mark.parametrize(("last_s", "why"), [(80, "recovered and stale"), (95, "lifetime")])
def test_why_a_segment_that_recovery_found_is_due(last_s: int, why: str) -> None:
    segment = Segment(
        70 * TICKS_PER_S, "v", 1, 0, 0, rows=1, bytes=1, last_tick=last_s * TICKS_PER_S
    )
    growing = GrowingSegment.recover(segment, 100 * TICKS_PER_S, 1000.0)
    assert due(growing, ShardConfig(segment_lifetime_s=20), 1000.0)[0] == why


@pytest.mark.parametrize(
    ("files", "share"),
    [
        ({"max": "1000", "current": "700", "stat": "anon 1\ninactive_file 200\n"}, 0.5),
        ({"max": "max", "current": "700", "stat": ""}, 0.0),
        ({"max": "1000", "current": "damaged", "stat": ""}, 0.0),
        ({}, 0.0),
    ],
)
def test_the_memory_in_use_is_what_the_control_group_says(
    tmp_path: Path, files: dict[str, str], share: float
) -> None:
    for name, content in files.items():
        (tmp_path / f"memory.{name}").write_text(content + "\n")
    assert memory_share(tmp_path) == share
