"""Prompt futures and tasks: who hears what when, and that tasks are tasks."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from walplane.prompt import PromptFuture, PromptTask, when_done


async def test_listeners_hear_in_the_step_that_completes_it() -> None:
    future: PromptFuture[int] = PromptFuture()
    heard: list[str] = []
    future.listen(lambda done: heard.append(f"first {done.result()}"))
    future.listen(lambda done: heard.append(f"second {done.result()}"))
    future.set_result(7)
    assert heard == ["first 7", "second 7"]


@pytest.mark.parametrize("prompt", [True, False])
async def test_nobody_hears_before_it_is_asked_for_to_return(prompt: bool) -> None:
    future: asyncio.Future[int] = PromptFuture() if prompt else asyncio.Future()
    future.set_result(7)
    heard: list[int] = []
    when_done(future, lambda done: heard.append(done.result()))
    assert not heard
    await asyncio.sleep(0)
    assert heard == [7]


async def test_failure_and_cancellation_are_heard_too() -> None:
    failed: PromptFuture[int] = PromptFuture()
    cancelled: PromptFuture[int] = PromptFuture()
    heard: list[object] = []
    failed.listen(lambda done: heard.append(done.exception()))
    cancelled.listen(lambda done: heard.append(done.cancelled()))
    error = ValueError("no")
    failed.set_exception(error)
    assert cancelled.cancel()
    assert not cancelled.cancel()
    assert heard == [error, True]


async def test_a_listener_that_fails_is_reported_and_keeps_nothing_from_the_others() -> None:
    reported: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context))
    future: PromptFuture[int] = PromptFuture()
    heard: list[int] = []

    def fail(_: object) -> None:
        raise ValueError("a listener's own")

    future.listen(fail)
    future.listen(lambda done: heard.append(done.result()))
    future.set_result(7)
    assert heard == [7]
    assert [str(context["exception"]) for context in reported] == ["a listener's own"]


async def test_others_await_it_as_any_future() -> None:
    future: PromptFuture[int] = PromptFuture()
    waiting = asyncio.create_task(asyncio.wait_for(asyncio.shield(future), 5))
    await asyncio.sleep(0)
    future.set_result(7)
    assert await waiting == 7


async def test_a_task_begins_and_goes_on_at_once() -> None:
    future: PromptFuture[int] = PromptFuture()
    steps: list[str] = []

    async def work() -> int:
        steps.append("began")
        got = await future
        steps.append("went on")
        return got + 1

    task = PromptTask(work())
    assert steps == ["began"]
    future.set_result(7)
    assert steps == ["began", "went on"]
    assert task.result() == 8


async def test_a_task_that_never_waits_is_done_when_it_is_made() -> None:
    async def work() -> int:
        return 7

    assert PromptTask(work()).result() == 7


async def test_a_task_fails_with_what_its_coroutine_raises() -> None:
    async def work() -> None:
        await asyncio.sleep(0)
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        await PromptTask(work())


async def test_a_task_awaits_whatever_a_task_awaits() -> None:
    async def other() -> int:
        await asyncio.sleep(0.001)
        return 1

    async def work() -> int:
        await asyncio.sleep(0)
        async with asyncio.TaskGroup() as tasks:
            one = tasks.create_task(other())
        return one.result() + sum(await asyncio.gather(other(), other()))

    assert await PromptTask(work()) == 3


async def test_a_task_is_the_current_one_while_it_runs() -> None:
    outer = asyncio.current_task()
    seen: list[object] = []
    future: PromptFuture[None] = PromptFuture()

    async def work() -> None:
        seen.append(asyncio.current_task())
        await future
        seen.append(asyncio.current_task())

    task = PromptTask(work())
    assert asyncio.current_task() is outer
    future.set_result(None)
    assert asyncio.current_task() is outer
    assert seen == [task, task]


async def test_timeouts_in_a_task_end_what_it_waits_for() -> None:
    never: PromptFuture[None] = PromptFuture()

    async def work() -> str:
        try:
            async with asyncio.timeout(0.001):
                await never
        except TimeoutError:
            return "in time"
        return "never"

    task = PromptTask(work())
    assert await task == "in time"
    assert never.cancelled()
    assert task.cancelling() == 0


async def test_cancelling_raises_where_it_waits() -> None:
    never: PromptFuture[None] = PromptFuture()
    cleaned: list[str] = []

    async def work() -> None:
        try:
            await never
        finally:
            cleaned.append("cleaned up")

    task = PromptTask(work())
    assert task.cancel()
    assert not cleaned
    with pytest.raises(asyncio.CancelledError):
        await task
    assert cleaned == ["cleaned up"]
    assert task.cancelled()
    assert not task.cancel()


async def test_a_cancellation_may_be_caught() -> None:
    async def work() -> str:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            return "went on"
        return "slept"

    task = PromptTask(work())
    task.cancel()
    assert await task == "went on"


async def test_a_task_that_cancels_itself_ends_where_it_waits_next() -> None:
    passed: list[str] = []

    async def work() -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        passed.append("not yet")
        await asyncio.sleep(60)
        passed.append("too far")

    with pytest.raises(asyncio.CancelledError):
        await PromptTask(work())
    assert passed == ["not yet"]


async def test_cancelling_between_two_steps_is_not_lost() -> None:
    async def work() -> None:
        await asyncio.sleep(0)

    task = PromptTask(work())
    assert task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_task_within_a_task_goes_on_within_its_step() -> None:
    future: PromptFuture[int] = PromptFuture()

    async def inner() -> int:
        return await future

    async def outer() -> int:
        return await PromptTask(inner()) + 1

    task = PromptTask(outer())
    future.set_result(7)
    assert task.result() == 8


async def test_whatever_a_coroutine_raises_ends_the_task() -> None:
    class Odd(BaseException):
        pass

    async def work() -> None:
        raise Odd

    with pytest.raises(Odd):
        await PromptTask(work())


async def test_a_task_cannot_wait_for_itself() -> None:
    found: list[PromptTask[None]] = []

    async def work() -> None:
        await asyncio.sleep(0)
        await found[0]

    found.append(PromptTask(work()))
    with pytest.raises(RuntimeError, match="cannot wait for"):
        await found[0]


async def test_no_request_to_cancel_is_lost() -> None:
    caught: list[str] = []

    async def work() -> None:
        task = asyncio.current_task()
        assert task is not None
        never: PromptFuture[None] = PromptFuture()
        task.cancel()
        try:
            await never
        except asyncio.CancelledError:
            caught.append("first")
            task.cancel()
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            caught.append("second")

    async with asyncio.timeout(5):
        await PromptTask(work())
    assert caught == ["first", "second"]
