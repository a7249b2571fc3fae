"""Waiting for something or for the end of whoever waits, whichever comes first. Layer: client."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

_Step = TypeVar("_Step")


async def unless_closed(
    closed: asyncio.Future[None], step: Coroutine[Any, Any, _Step], name: str
) -> _Step | None:
    """What `step` gives; None when `closed` is done first, and `step` has ended then.

    Cancelling it cancels `step`, which may have given something in the same moment: what has to be
    closed, `step` itself keeps where its owner finds it.
    """
    stepping = asyncio.create_task(step, name=name)
    try:
        either: set[asyncio.Future[Any]] = {stepping, closed}
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        return stepping.result() if stepping.done() else None
    finally:
        if not stepping.done():
            stepping.cancel()
            await asyncio.gather(stepping, return_exceptions=True)
        elif not stepping.cancelled():
            stepping.exception()  # whoever cancels the wait does not ask for it
