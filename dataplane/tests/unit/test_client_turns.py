"""Calls that overlap offer their messages in the order in which they began."""

from __future__ import annotations

import asyncio

from walplane.client.turns import Turns


async def test_calls_for_one_vchannel_go_in_order_however_long_the_first_takes() -> None:
    turns, went = Turns(), list[str]()
    gate = asyncio.Event()

    async def call(name: str, vchannels: list[str], wait: bool = False) -> None:
        with turns.take(vchannels) as turn:
            if wait:
                await gate.wait()
            await turn.come()
            went.append(name)

    async with asyncio.timeout(5), asyncio.TaskGroup() as tasks:
        tasks.create_task(call("first", ["a", "b"], wait=True))
        tasks.create_task(call("second", ["b"]))
        tasks.create_task(call("elsewhere", ["c"]))
        tasks.create_task(call("third", ["a", "b"]))
        await asyncio.sleep(0.01)
        assert went == ["elsewhere"]
        gate.set()
    assert went == ["elsewhere", "first", "second", "third"]
    assert not turns.last


async def test_a_call_that_gives_up_in_line_lets_nobody_overtake_those_ahead() -> None:
    turns, went = Turns(), list[str]()
    first, given_up, last = (turns.take(["a"]) for _ in range(3))
    given_up.end()

    async def go_last() -> None:
        await last.come()
        went.append("last")

    waiting = asyncio.create_task(go_last())
    await asyncio.sleep(0.01)
    assert went == []
    first.end()
    async with asyncio.timeout(5):
        await waiting
    last.end()
    assert not turns.last
