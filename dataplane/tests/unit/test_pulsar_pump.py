"""Whatever ends the thread that reads a topic, its reader hears of it."""

from __future__ import annotations

import asyncio

import pulsar
import pytest

from walplane.backends.pulsar.pump import Pump


class BrokenReader:
    """A reader of pulsar-client that ends as it is told."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    def read_next(self, _: int) -> None:
        raise self._error


@pytest.mark.parametrize(
    "error", [pulsar.PulsarException(), RuntimeError("from C++"), SystemError()], ids=repr
)
async def test_an_error_of_any_kind_reaches_who_waits(error: Exception) -> None:
    pump = Pump("t", BrokenReader(error))
    async with asyncio.timeout(10):
        await pump.wait()
        assert pump.error is not None
        assert type(error).__name__ in pump.error.message
        await pump.close()
