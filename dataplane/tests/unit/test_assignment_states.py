from __future__ import annotations

import pytest

from walplane.assignment.states import Channel, ChannelState


def test_a_channel_lives_through_grant_confirmation_loss_and_the_next_grant() -> None:
    channel = Channel("p_0")
    assert channel.state is ChannelState.UNINITIALIZED

    channel = channel.granted("node", 1)
    assert (channel.state, channel.node_id, channel.term) == (ChannelState.ASSIGNING, "node", 1)

    channel = channel.confirmed(1)
    assert channel.state is ChannelState.ASSIGNED

    channel = channel.failed(1, "fenced")
    assert (channel.state, channel.node_id) == (ChannelState.UNAVAILABLE, "")
    assert (channel.reason, channel.attempts) == ("fenced", 1)

    channel = channel.granted("node", channel.next_term).failed(2, "not open")
    assert (channel.term, channel.attempts) == (2, 2)

    channel = channel.granted("node", channel.next_term).confirmed(3)
    assert (channel.attempts, channel.reason) == (0, "")


def test_the_next_term_lies_above_every_grant_and_above_what_the_log_has_seen() -> None:
    channel = Channel("p_0", term=4).granted("node", 5)
    assert channel.failed(5, "stale", term_floor=9).next_term == 10
    assert channel.failed(5, "stale", term_floor=2).next_term == 6


def test_what_is_said_about_another_term_changes_nothing_but_the_floor() -> None:
    channel = Channel("p_0").granted("node", 1)
    assert channel.confirmed(2) is channel
    assert channel.failed(2, "late") == channel
    assert channel.released(1, "not served yet") is channel
    late = channel.failed(0, "late", term_floor=7)
    assert (late.state, late.term_floor) == (ChannelState.ASSIGNING, 7)


def test_a_confirmation_that_comes_after_the_loss_is_ignored() -> None:
    lost = Channel("p_0").granted("node", 1).failed(1, "stopped")
    assert lost.confirmed(1).state is ChannelState.UNAVAILABLE


def test_a_channel_that_is_held_cannot_be_granted() -> None:
    held = Channel("p_0").granted("node", 1)
    for channel in (held, held.confirmed(1)):
        with pytest.raises(ValueError, match="taken away first"):
            channel.granted("other", 2)


def test_a_grant_takes_exactly_the_next_term() -> None:
    for term in (3, 5):
        with pytest.raises(ValueError, match="4 is next"):
            Channel("p_0", term=3).granted("node", term)


def test_a_release_in_good_order_is_no_failed_attempt() -> None:
    channel = Channel("p_0").granted("node", 1).confirmed(1).released(1, "moved")
    assert (channel.state, channel.node_id) == (ChannelState.UNAVAILABLE, "")
    assert (channel.attempts, channel.reason) == (0, "moved")
