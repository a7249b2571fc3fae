"""Each checker fires on the fault it is for, and on nothing else."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from walplane.message.ids import MessageID
from walplane.testkit.history import Delivered, History, Outcome, check

CHANNEL = "c_0_1v0"


def sound(count: int = 10) -> History:
    """Two clients in turn, everything acknowledged, one whole and one partial reading."""
    history = History()
    whole = history.reading("whole", CHANNEL, complete=True)
    part = history.reading("part", CHANNEL, complete=False)
    for number in range(count):
        attempt = history.begin(f"client-{number % 2}", CHANNEL, b"%d" % number)
        attempt.outcome = Outcome.ACKNOWLEDGED
        attempt.message_id = MessageID("memory", (number,))
        attempt.time_tick = 100 + number
        message = Delivered(CHANNEL, attempt.payload, attempt.message_id, attempt.time_tick)
        whole.messages.append(message)
        if 3 <= number < 7:
            part.messages.append(message)
    return history


def lose(history: History) -> None:
    del history.readings[0].messages[9]


def move(history: History) -> None:
    history.attempts[9].time_tick += 1


def invent(history: History) -> None:
    del history.attempts[9]


def show_refused(history: History) -> None:
    history.attempts[9].outcome = Outcome.REFUSED


def double(history: History) -> None:
    extra = Delivered(CHANNEL, b"9", MessageID("memory", (50,)), 500)
    history.readings[0].messages.append(extra)


def swap_ticks(history: History) -> None:
    messages = history.readings[0].messages
    history.attempts[8].time_tick = 110
    messages[8] = Delivered(CHANNEL, b"8", messages[8].message_id, 110)


def swap_ids(history: History) -> None:
    messages = history.readings[0].messages
    history.attempts[8].message_id = MessageID("memory", (50,))
    messages[8] = Delivered(CHANNEL, b"8", MessageID("memory", (50,)), messages[8].time_tick)


def skip_in_the_middle(history: History) -> None:
    del history.readings[1].messages[1]


def reorder_producer(history: History) -> None:
    attempts = history.attempts
    attempts[0], attempts[2] = attempts[2], attempts[0]


def mix_channels(history: History) -> None:
    history.attempts[9].vchannel = "c_0_2v0"


def test_a_sound_history_has_no_violation() -> None:
    history = sound()
    history.attempts[9].outcome = Outcome.UNKNOWN  # unknown: either
    assert check(history) == []
    del history.readings[0].messages[9]
    assert check(history) == []
    assert history.acknowledged == 9


@pytest.mark.parametrize(
    ("fault", "invariant"),
    [
        (lose, "I1 "),
        (move, "I1 "),
        (invent, "I2 "),
        (show_refused, "I2 "),
        (mix_channels, "I2 "),
        (swap_ticks, "I3 "),
        (skip_in_the_middle, "I4 "),
        (swap_ids, "I5 "),
        (double, "I13 "),
        (reorder_producer, "I13 "),
    ],
)
def test_each_fault_is_found(fault: Callable[[History], None], invariant: str) -> None:
    history = sound()
    fault(history)
    found = check(history)
    assert found
    assert {line.partition(" ")[0] + " " for line in found} == {invariant}


def test_payloads_must_be_unique() -> None:
    history = sound()
    history.begin("client-0", CHANNEL, b"1")
    assert "not unique" in check(history)[0]
