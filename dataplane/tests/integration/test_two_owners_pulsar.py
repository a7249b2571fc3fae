"""Two owners of one PChannel on a real Pulsar, in two processes, 64 frames in flight."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from walplane.message.ids import MessageID
from walplane.testkit.owners import Arena, longest_gap

pytestmark = [pytest.mark.pulsar, pytest.mark.slow]

BACK_WITHIN_S = 2.0


@pytest.fixture
async def arena(pulsar_url: str, tmp_path: Path) -> AsyncIterator[Arena]:
    made = Arena(pulsar_url, tmp_path)
    yield made
    await made.close()


@pytest.mark.parametrize("stopped_for_s", [0.5, 4.0], ids=["short stop", "longer than trusted"])
async def test_a_stopped_owner_that_wakes_is_told_to_go(arena: Arena, stopped_for_s: float) -> None:
    """It acknowledges nothing that was not durable before the new owner's barrier.

    An acknowledgement that had reached the process before it was stopped may still come out of it;
    whatever it sends after it woke is refused, and `check` reads back every acknowledged id.
    """
    old = await arena.start(1)
    await old.acknowledged(500)
    old.send(signal.SIGSTOP)
    stopped = time.monotonic()
    new = await arena.start(2)
    await new.acknowledged(500)
    await asyncio.sleep(max(0.0, stopped + stopped_for_s - time.monotonic()))
    woken = time.monotonic()
    opened = next(e["at"] for e in new.events if e["event"] == "open")
    old.send(signal.SIGCONT)
    await old.until(lambda _events: old.said("stopped"))
    await new.acknowledged(2000)
    late = old.acks(since=woken)
    gap = longest_gap(new, since=opened)
    print(f"old owner acknowledged {len(late)} after it woke; new owner's longest gap {gap:.3f} s")
    barrier = MessageID.parse(new.acks()[0]["id"])
    assert all(MessageID.parse(ack["id"]) < barrier for ack in late)
    assert len(late) <= 64, "no more than what was in flight when it was stopped"
    assert gap < BACK_WITHIN_S
    await arena.check(3)


async def test_an_opener_with_a_stale_term_that_opens_last_gives_up(arena: Arena) -> None:
    owner = await arena.start(5)
    await owner.acknowledged(300)
    late = await arena.start(4, granted=5)
    await late.until(lambda _events: late.said("error"))
    assert late.events[-1]["code"] == "UNMATCHED_CHANNEL_TERM"
    before = time.monotonic()
    await owner.acknowledged(300, within=BACK_WITHIN_S + 5)
    gap = longest_gap(owner)
    print(f"rightful owner's longest gap {gap:.3f} s, checked at {before:.1f}")
    assert gap < BACK_WITHIN_S
    await arena.check(6)


async def test_an_opener_whose_authority_lies_finds_the_barrier(arena: Arena) -> None:
    """The term file says 4 again: the log is the arbiter, the authority only advice."""
    owner = await arena.start(5)
    await owner.acknowledged(300)
    late = await arena.start(4)
    await late.until(lambda _events: late.said("error"))
    assert late.events[-1]["code"] == "UNMATCHED_CHANNEL_TERM"
    arena.terms.write_text("5")
    await owner.acknowledged(300)
    await arena.check(6)
