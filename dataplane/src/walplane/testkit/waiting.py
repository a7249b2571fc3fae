"""Waiting for what a test cannot be told of. Layer: testkit."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine

_STEP_S = 0.01


async def until(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    """Returns as soon as `condition` holds.

    Raises:
        TimeoutError: it did not within `seconds`.
    """
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - the tested code signals nothing
            await asyncio.sleep(_STEP_S)


def unanswered() -> tuple[asyncio.Event, Callable[..., Coroutine[None, None, None]]]:
    """A handler of calls that never answers, and what is set once it was asked."""
    asked = asyncio.Event()

    async def never(*_: object) -> None:
        asked.set()
        await asyncio.Event().wait()

    return asked, never
