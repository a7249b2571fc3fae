from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from walplane.assignment.balance import (
    BalanceChannel,
    BalanceNode,
    BalanceSettings,
    Move,
    vchannelfair,
)

NODES = [BalanceNode("n1"), BalanceNode("n2"), BalanceNode("n3")]


def channels(owners: Sequence[str | None]) -> list[BalanceChannel]:
    return [BalanceChannel(f"p_{index}", owner) for index, owner in enumerate(owners)]


def after(observed: list[BalanceChannel], moves: list[Move]) -> list[BalanceChannel]:
    target = {move.pchannel: move.target for move in moves}
    return [replace(each, node_id=target.get(each.pchannel, each.node_id)) for each in observed]


def settled(
    nodes: list[BalanceNode], observed: list[BalanceChannel], settings: BalanceSettings
) -> list[BalanceChannel]:
    """What repeated steps end at."""
    for _ in range(10 * len(observed) + 10):
        moves = vchannelfair(nodes, observed, settings)
        if not moves:
            return observed
        observed = after(observed, moves)
    raise AssertionError("the policy goes on for ever")


def test_pchannels_without_an_owner_are_all_placed_at_once_and_evenly() -> None:
    moves = vchannelfair(NODES, channels([None] * 16), BalanceSettings(max_moves=1))
    assert len(moves) == 16
    assert sorted(Counter(move.target for move in moves).values()) == [5, 5, 6]
    assert {move.source for move in moves} == {None}


def test_the_pchannels_of_a_node_that_is_gone_are_placed_at_once() -> None:
    moves = vchannelfair(NODES, channels(["gone"] * 6), BalanceSettings(max_moves=1))
    assert Counter(move.target for move in moves) == {"n1": 2, "n2": 2, "n3": 2}


def test_a_step_moves_no_more_than_it_may() -> None:
    observed = channels(["n1"] * 12)
    assert len(vchannelfair(NODES, observed, BalanceSettings(max_moves=2))) == 2
    result = settled(NODES, observed, BalanceSettings(max_moves=2))
    assert Counter(each.node_id for each in result) == {"n1": 4, "n2": 4, "n3": 4}


def test_a_small_imbalance_is_left_alone() -> None:
    assert vchannelfair(NODES, channels(["n1", "n1", "n2", "n3"])) == []
    many = channels(["n1"] * 11 + ["n2"] * 9 + ["n3"] * 10)
    assert vchannelfair(NODES, many) == []
    assert len(vchannelfair(NODES, many, BalanceSettings(tolerance=0.001))) == 1


def test_a_node_that_joins_gets_its_share() -> None:
    result = settled(NODES, channels(["n1"] * 8 + ["n2"] * 8), BalanceSettings())
    assert Counter(each.node_id for each in result)["n3"] in (4, 5, 6)


def test_vchannels_are_balanced_where_pchannels_are() -> None:
    observed = [
        BalanceChannel("p_0", "n1", (1, 2, 3, 4)),
        BalanceChannel("p_1", "n1", (5, 6, 7, 8)),
        BalanceChannel("p_2", "n2"),
        BalanceChannel("p_3", "n2"),
    ]
    result = settled(NODES[:2], observed, BalanceSettings())
    vchannels: Counter[str | None] = Counter()
    for each in result:
        vchannels[each.node_id] += len(each.collections)
    assert vchannels == {"n1": 4, "n2": 4}
    assert Counter(each.node_id for each in result) == {"n1": 2, "n2": 2}


def test_vchannels_of_one_collection_are_kept_apart() -> None:
    observed = [
        BalanceChannel("p_0", "n1", (1,)),
        BalanceChannel("p_1", "n1", (1,)),
        BalanceChannel("p_2", "n2", (2,)),
        BalanceChannel("p_3", "n2", (2,)),
    ]
    result = settled(NODES[:2], observed, BalanceSettings())
    homes = defaultdict(set)
    for each in result:
        homes[each.collections].add(each.node_id)
    assert homes == {(1,): {"n1", "n2"}, (2,): {"n1", "n2"}}


def test_a_frozen_node_is_drained_and_takes_nothing() -> None:
    nodes = [BalanceNode("n1", frozen=True), BalanceNode("n2"), BalanceNode("n3")]
    observed = channels(["n1", "n1", "n1", "n1", "n2", None])
    first = vchannelfair(nodes, observed, BalanceSettings(max_moves=2))
    assert Counter(move.source for move in first) == {"n1": 2, None: 1}
    result = settled(nodes, observed, BalanceSettings(max_moves=2))
    assert Counter(each.node_id for each in result) == {"n2": 3, "n3": 3}


def test_a_pinned_pchannel_stays_unless_its_node_is_frozen_or_gone() -> None:
    pinned = [replace(each, pinned=True) for each in channels(["n1"] * 6)]
    assert vchannelfair(NODES, pinned) == []
    frozen = [BalanceNode("n1", frozen=True), BalanceNode("n2")]
    assert len(vchannelfair(frozen, pinned, BalanceSettings(max_moves=6))) == 6
    assert len(vchannelfair([BalanceNode("n2")], pinned)) == 6


@pytest.mark.parametrize("nodes", [[], [BalanceNode("n1", frozen=True)]])
def test_without_a_node_to_go_to_nothing_moves(nodes: list[BalanceNode]) -> None:
    assert vchannelfair(nodes, channels(["n1", None, "gone"])) == []


@given(
    owners=st.lists(st.sampled_from(["n1", "n2", "n3", "gone", None]), max_size=24),
    collections=st.lists(st.lists(st.integers(1, 5), max_size=4), min_size=24, max_size=24),
    frozen=st.sets(st.sampled_from(["n1", "n2"])),
    max_moves=st.integers(1, 5),
)
def test_steps_end_with_every_pchannel_on_a_node_that_takes_some(
    owners: list[str | None],
    collections: list[list[int]],
    frozen: set[str],
    max_moves: int,
) -> None:
    nodes = [replace(node, frozen=node.node_id in frozen) for node in NODES]
    observed = [
        replace(each, collections=tuple(carried))
        for each, carried in zip(channels(owners), collections, strict=False)
    ]
    settings = BalanceSettings(max_moves=max_moves)
    moves = vchannelfair(nodes, observed, settings)
    assert moves == vchannelfair(list(reversed(nodes)), list(reversed(observed)), settings)
    living = {node.node_id for node in nodes}
    assert sum(move.source in living for move in moves) <= max_moves
    assert len({move.pchannel for move in moves}) == len(moves)

    result = settled(nodes, observed, settings)
    takers = living - frozen
    assert {each.node_id for each in result} <= takers
    if all(not carried for carried in collections[: len(owners)]):
        counts = [sum(each.node_id == node for each in result) for node in takers]
        assert max(counts) - min(counts) <= 1 or len(owners) > 10 * len(takers)
