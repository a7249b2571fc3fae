"""What a load says of its pauses."""

from __future__ import annotations

from walplane.testkit.pod_load import Gap, PodLoad


def test_the_longest_pause_of_each_vchannel_is_told_the_longest_first() -> None:
    load = PodLoad("nobody:0")
    load.acknowledged_at = {"a": [1.0, 2.0, 5.0, 6.0], "b": [1.0, 1.5, 2.0], "c": [1.0]}
    assert load.gaps() == [Gap(3.0, "a", 5.0), Gap(0.5, "b", 2.0)]
    assert load.gaps(since=3.0) == [Gap(2.0, "a", 5.0)], "what was before does not count"
    assert load.longest_gap() == 3.0
    assert load.longest_gap(since=9.0) == 0.0
