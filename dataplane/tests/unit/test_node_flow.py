"""Byte budgets: bounded, in order of arrival, without traces of who went away."""

from __future__ import annotations

import asyncio

import pytest

from walplane.rpc.flow import ByteBudget


async def started(budget: ByteBudget, size: int) -> asyncio.Task[None]:
    task = asyncio.create_task(budget.acquire(size))
    await asyncio.sleep(0)
    return task


async def test_waits_for_room_in_order_of_arrival() -> None:
    budget = ByteBudget(10)
    await budget.acquire(8)
    large = await started(budget, 6)
    small = await started(budget, 1)
    assert not large.done()
    assert not small.done()  # it would fit, but came later
    assert not budget.try_acquire(1)
    budget.release(8)
    await asyncio.gather(large, small)
    assert budget.used == 7


async def test_more_than_the_whole_budget_passes_alone() -> None:
    budget = ByteBudget(10)
    await budget.acquire(50)
    other = await started(budget, 1)
    assert not other.done()
    budget.release(50)
    await other
    assert budget.used == 1


async def test_nothing_passes_all() -> None:
    budget = ByteBudget(10)
    await budget.acquire(10)
    other = await started(budget, 1)
    assert budget.try_acquire(0)
    assert not other.done()
    budget.release(10)
    await other


async def test_a_cancelled_waiter_leaves_no_trace() -> None:
    budget = ByteBudget(10)
    await budget.acquire(10)
    gone, next_one = await started(budget, 10), await started(budget, 5)
    gone.cancel()
    with pytest.raises(asyncio.CancelledError):
        await gone
    budget.release(10)
    await next_one
    assert budget.used == 5


async def test_a_waiter_cancelled_in_the_moment_it_is_served_gives_back() -> None:
    budget = ByteBudget(10)
    await budget.acquire(10)
    waiter = await started(budget, 10)
    budget.release(10)
    waiter.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiter
    assert budget.used == 0
