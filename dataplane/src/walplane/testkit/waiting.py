"""Waiting for what a test cannot be told of. Layer: testkit."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

_STEP_S = 0.01


async def until(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    """Returns as soon as `condition` holds.

    Raises:
        TimeoutError: it did not within `seconds`.
    """
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - the tested code signals nothing
            await asyncio.sleep(_STEP_S)
