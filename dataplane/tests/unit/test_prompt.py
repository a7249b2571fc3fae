"""Prompt futures and tasks: who hears what when, and that tasks are tasks."""

from __future__ import annotations

import asyncio
from contextvars import ContextVar
from typing import Any

import anyio
import anyio.lowlevel
import anyio.to_thread
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


async def test_what_a_program_keeps_in_its_context_stays_with_the_task() -> None:
    """As a tracer of a backend's HTTP calls has it: set before they wait, reset behind it."""
    name: ContextVar[str] = ContextVar("name", default="nobody")
    future: PromptFuture[None] = PromptFuture()

    async def work() -> str:
        before = name.set("the task")
        await future
        seen = name.get()
        name.reset(before)
        return seen + " after " + name.get()

    async def complete() -> None:
        name.set("whoever completes it")
        future.set_result(None)
        assert name.get() == "whoever completes it"

    name.set("its maker")
    task = PromptTask(work())
    assert name.get() == "its maker"
    await asyncio.create_task(complete())
    assert task.result() == "the task after its maker"
    assert task.get_context()[name] == "its maker"


async def test_a_reason_to_cancel_reaches_what_the_task_waits_for() -> None:
    async def inner() -> None:
        await asyncio.sleep(60)

    async def work(*, begun: bool) -> str:
        task = asyncio.current_task()
        assert task is not None
        if not begun:
            task.cancel("the reason")
        try:
            await PromptTask(inner())
        except asyncio.CancelledError as cancelled:
            return str(cancelled)
        return "never"

    waiting, itself = PromptTask(work(begun=True)), PromptTask(work(begun=False))
    waiting.cancel("the reason")
    assert await waiting == await itself == "the reason"


async def test_scopes_of_anyio_end_what_they_are_around() -> None:
    """As httpx has them around each connection: it looks into the task it finds."""
    ended: list[str] = []

    async def child(name: str) -> None:
        try:
            await anyio.sleep_forever()
        finally:
            ended.append(name)

    async def work() -> str:
        async with anyio.create_task_group() as children:
            children.start_soon(child, "of a group")
            await anyio.lowlevel.checkpoint()
            children.cancel_scope.cancel()
        with anyio.move_on_after(0.001) as scope:
            await PromptTask(child("a prompt one"))
        with pytest.raises(TimeoutError), anyio.fail_after(0.001):
            await child("in time")
        with anyio.CancelScope(shield=True):
            await anyio.lowlevel.checkpoint()
        await anyio.to_thread.run_sync(ended.append, "in a thread")
        ended.append(anyio.get_current_task().name or "without a name")
        return "cancelled" if scope.cancelled_caught else "not cancelled"

    task = PromptTask(work())
    task.set_name("named")
    async with asyncio.timeout(5):
        assert await task == "cancelled"
    assert ended == ["of a group", "a prompt one", "in time", "in a thread", "named"]
    assert task.cancelling() == 0


async def test_whoever_cancels_the_task_is_not_taken_for_a_scope_in_it() -> None:
    async def work() -> None:
        with anyio.move_on_after(60):
            await anyio.sleep_forever()

    task = PromptTask(work())
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_it_has_what_tasks_have() -> None:
    """But for what a debugger asks; libraries call it on the task they find."""
    here = {name for name in dir(PromptTask) if not name.startswith("_")}
    tasks = {name for name in dir(asyncio.Task) if not name.startswith("_")}
    assert tasks - here == {"get_stack", "print_stack"}
    task = PromptTask(asyncio.sleep(0))
    assert task.get_name() == "Prompt-sleep"
    await task
