"""What a container may use decides what a node keeps in memory."""

from __future__ import annotations

from pathlib import Path

import pytest

from walplane.node.config import NodeConfig
from walplane.node.memory import memory_limit

MIB = 1 << 20
BUDGETS = ("node_append_bytes", "read_bytes", "write_ahead_bytes", "segment_bytes")


@pytest.mark.parametrize(
    ("content", "limit"),
    [("536870912\n", 512 * MIB), ("max\n", None), ("damaged", None), ("", None)],
)
def test_the_limit_is_what_the_control_group_says(
    tmp_path: Path, content: str, limit: int | None
) -> None:
    (tmp_path / "memory.max").write_text(content)
    assert memory_limit(tmp_path) == limit


def test_without_a_control_group_nothing_is_limited(tmp_path: Path) -> None:
    assert memory_limit(tmp_path) is None


@pytest.mark.parametrize("memory", [None, 16 << 30])
def test_enough_memory_changes_no_budget(memory: int | None) -> None:
    assert NodeConfig().within(memory) == NodeConfig()


def test_budgets_take_half_of_a_small_container_in_their_proportions() -> None:
    whole, small = NodeConfig(), NodeConfig().within(512 * MIB)
    sizes = [getattr(small, name) for name in BUDGETS]
    assert 250 * MIB < sum(sizes) <= 256 * MIB
    assert small.write_ahead_bytes // small.node_append_bytes == 4
    assert small.stream_append_bytes == small.node_append_bytes < whole.stream_append_bytes
    assert small.read_turns >= 8


def test_no_budget_becomes_too_small_for_the_largest_entries() -> None:
    least = NodeConfig().within(32 * MIB)
    assert {getattr(least, name) for name in BUDGETS} == {16 * MIB}


def test_a_budget_that_was_set_small_stays() -> None:
    assert NodeConfig(segment_bytes=MIB).within(32 * MIB).segment_bytes == MIB
