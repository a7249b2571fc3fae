"""What is no bytes is refused when it is appended, and harms nobody else."""

from __future__ import annotations

import array
import asyncio
from typing import Any

import pytest

from walplane.client import StreamingClient
from walplane.message.builder import MutableMessage, insert
from walplane.rpc.errors import ErrorCode, WalError
from walplane.testkit.reading import payloads

WRONG = [("text",), (b"good", "text"), (5,), (b"good", None), ([b"a"],), (array.array("I", [1]),)]


@pytest.mark.parametrize("wrong", WRONG)
async def test_a_payload_that_is_no_bytes_is_refused_at_once(
    wal: StreamingClient, vchannel: str, wrong: tuple[bytes, ...]
) -> None:
    good = [insert(vchannel, b"%d" % number) for number in range(3)]
    bad = insert(vchannel, *wrong)
    async with asyncio.timeout(20):
        under_way = [asyncio.create_task(wal.append(each)) for each in good]
        for messages in ([bad], [*good, bad]):
            _check(await _error(wal, messages))
        _check(await _error(wal, [bad], lone=True))
        with pytest.raises(WalError, match="not bytes: encode it"):
            bad.to_entry()
        await asyncio.gather(*under_way)
    assert sorted(await payloads(wal, vchannel)) == [b"0", b"1", b"2"]


class Row(bytearray):
    """Neither true nor false, like the rows of numpy."""

    def __bool__(self) -> bool:
        raise ValueError("the truth value of an array is ambiguous")


async def test_other_buffers_of_bytes_are_payloads(wal: StreamingClient, vchannel: str) -> None:
    kinds: list[Any] = [bytearray(b"a"), memoryview(b"b"), Row(b"c")]
    async with asyncio.timeout(20):
        await wal.append(insert(vchannel, *kinds))
        await wal.append_many([insert(vchannel, each) for each in kinds])
        for each in kinds:
            await wal.append(insert(vchannel, each))
    assert await payloads(wal, vchannel) == [b"a", b"b", b"c"] * 3


async def _error(
    wal: StreamingClient, messages: list[MutableMessage], *, lone: bool = False
) -> WalError:
    with pytest.raises(WalError) as caught:
        await (wal.append(messages[0]) if lone else wal.append_many(messages))
    return caught.value


def _check(error: WalError) -> None:
    assert error.code is ErrorCode.INVALID_ARGUMENT
    assert "not bytes: encode it" in error.message
