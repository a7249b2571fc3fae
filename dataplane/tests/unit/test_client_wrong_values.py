"""Values that cannot be: one sentence that names them and the way out, and nothing is lost."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from walplane.client import Only, StreamingClient, Txn
from walplane.client.config import ClientConfig
from walplane.coord.settings import CoordSettings
from walplane.embedded import open_embedded
from walplane.limits import MOST_SECONDS
from walplane.message.builder import insert
from walplane.message.registry import MessageType
from walplane.node.config import NodeConfig
from walplane.rpc.errors import ErrorCode, WalError
from walplane.testkit.reading import payloads
from walplane.wal.config import WALConfig
from walplane.wal.shard.config import ShardConfig

Call = Callable[[StreamingClient, str], Awaitable[object]]


@pytest.fixture
async def wal(tmp_path: Path) -> AsyncIterator[StreamingClient]:
    async with open_embedded(tmp_path, pchannels=1, backend="memory:") as wal:
        yield wal


def reading(**asked: Any) -> Call:  # noqa: ANN401 - any wrong value
    async def read(wal: StreamingClient, vchannel: str) -> None:
        async for _ in wal.read(vchannel, follow=False, **asked):
            pass

    return read


def creating(shards: Any) -> Call:  # noqa: ANN401 - any wrong value
    return lambda wal, _: wal.create_collection("d", shards=shards)


def keeping(keepalive: Any) -> Call:  # noqa: ANN401 - any wrong value
    async def begin(wal: StreamingClient, vchannel: str) -> None:
        wal.txn(vchannel, keepalive=keepalive)

    return begin


async def in_a_txn(wal: StreamingClient, vchannel: str) -> None:
    async with wal.txn(vchannel) as txn:
        await txn.append(b"x")  # type: ignore[arg-type]


async def under_a_name(wal: StreamingClient, vchannel: str) -> None:
    async with wal.producer("loader", vchannel) as producer:
        await producer.append_many([insert(vchannel, b"y"), b"x"])  # type: ignore[list-item]


def appending(key: str | None = None) -> Call:
    return lambda wal, _: wal.append(b"x", idempotency_key=key)  # type: ignore[arg-type]


async def among_others(wal: StreamingClient, vchannel: str) -> None:
    await wal.append_many([insert(vchannel, b"y"), b"x"])  # type: ignore[list-item]


def named(seconds: Any) -> Call:  # noqa: ANN401 - any wrong value
    async def append(wal: StreamingClient, vchannel: str) -> None:
        async with wal.producer("loader", vchannel) as producer:
            await producer.append(insert(vchannel, b"x"), timeout=seconds)

    return append


TIMED: dict[str, Callable[[StreamingClient, str, Any], Awaitable[object]]] = {
    "append": lambda wal, vchannel, s: wal.append(insert(vchannel, b"x"), timeout=s),
    "append_many": lambda wal, vchannel, s: wal.append_many([insert(vchannel, b"x")], timeout=s),
    "txn": lambda wal, vchannel, s: wal.txn(vchannel, timeout=s).__aenter__(),
    "run_txn": lambda wal, vchannel, s: wal.run_txn(vchannel, _fill, timeout=s),
    "producer": lambda wal, vchannel, s: wal.producer("p", vchannel, timeout=s).__aenter__(),
    "of a producer": lambda wal, vchannel, s: named(s)(wal, vchannel),
    "patience": lambda wal, vchannel, s: reading(patience=s)(wal, vchannel),
    "assignment": lambda wal, _, s: wal.wait_for_assignment("wal_0", s),
    "connect": lambda wal, _, s: StreamingClient.connect(wal.address, timeout=s).__aenter__(),
}


async def _fill(txn: Txn) -> None:
    await txn.flush()


NOT_A_TICK = "give a tick, a whole number; 0 for none"
WRONG: list[tuple[Call, str]] = [
    (reading(start=5), "5 is no start: earliest, latest, a resume token or a message id"),
    (reading(start=None), "None is no start: earliest"),
    (creating(-1), "-1 shards for collection 'd': give a whole number from 1"),
    (creating(1.5), "1.5 shards for collection 'd': give a whole number from 1"),
    (creating(1 << 32), "4294967296 shards for collection 'd': give a whole number"),
    (keeping(float("nan")), "a keepalive of nan s: ask for 0.001 to"),
    (keeping(float("inf")), "a keepalive of inf s: ask for 0.001 to"),
    (keeping("10"), "a keepalive of '10' s: ask for 0.001 to"),
    (appending(), "b'x' is no message: make one with `insert(vchannel, payload)`"),
    (appending("key"), "b'x' is no message: make one with"),
    (among_others, "b'x' is no message: make one with"),
    (in_a_txn, "b'x' is no message: make one with"),
    (under_a_name, "b'x' is no message: make one with"),
    (reading(only=Only(types=frozenset({"INSERT"}))), "types=frozenset({'INSERT'})"),  # type: ignore[arg-type]
    (reading(only=Only(types="INSERT")), "types='INSERT' reads nothing: give a set"),  # type: ignore[arg-type]
    (reading(only=Only(types=[MessageType.INSERT])), "give a set of `MessageType`"),  # type: ignore[arg-type]
    (reading(only={"types": ()}), "only={'types': ()} reads nothing: give an `Only`"),
    (reading(only=Only(from_tick=10, until_tick=5)), "from_tick=10 with until_tick=5 reads"),
    (reading(only=Only(from_tick=-1)), f"from_tick=-1 reads nothing: {NOT_A_TICK}"),
    (reading(only=Only(until_tick="5")), f"until_tick='5' reads nothing: {NOT_A_TICK}"),  # type: ignore[arg-type]
]


@pytest.mark.parametrize(("call", "sentence"), WRONG, ids=[each for _, each in WRONG])
async def test_a_wrong_value_is_named_and_nothing_is_lost(
    wal: StreamingClient, call: Call, sentence: str
) -> None:
    vchannel = (await wal.create_collection("c")).vchannels[0]
    await wal.append(insert(vchannel, b"a"))
    with pytest.raises(WalError, match=re.escape(sentence)) as caught:
        await call(wal, vchannel)
    assert caught.value.code is ErrorCode.INVALID_ARGUMENT
    await wal.append(insert(vchannel, b"b"))
    assert await payloads(wal, vchannel) == [b"a", b"b"]
    assert [each.name for each in await wal.list_collections()] == ["c"]


@pytest.mark.parametrize("seconds", [float("nan"), 0, -1, "5"])
@pytest.mark.parametrize("call", TIMED)
async def test_a_time_that_cannot_be_is_refused_before_anything_is_sent(
    wal: StreamingClient, call: str, seconds: float | str
) -> None:
    vchannel = (await wal.create_collection("c")).vchannels[0]
    with pytest.raises(WalError, match=re.escape(f"of {seconds!r} s: give a number")) as caught:
        await TIMED[call](wal, vchannel, seconds)
    assert caught.value.code is ErrorCode.INVALID_ARGUMENT
    assert await payloads(wal, vchannel) == []


@pytest.mark.parametrize("call", [each for each in TIMED if each != "of a producer"])
async def test_a_time_without_end_is_one(wal: StreamingClient, call: str) -> None:
    vchannel = (await wal.create_collection("c")).vchannels[0]
    async with asyncio.timeout(30):
        await TIMED[call](wal, vchannel, float("inf"))


async def test_a_deadline_without_end_is_one_that_grpc_can_hold(wal: StreamingClient) -> None:
    config = ClientConfig(call_timeout_s=float("inf"), connect_timeout_s=1e300)
    async with StreamingClient.connect(wal.address, config=config) as other:
        vchannel = (await other.create_collection("d")).vchannels[0]
        await other.append(insert(vchannel, b"x"))


@pytest.mark.parametrize("kind", [ClientConfig, NodeConfig, WALConfig, ShardConfig, CoordSettings])
def test_what_no_configuration_can_hold_is_refused(kind: type[BaseModel]) -> None:
    for name in kind.model_fields:
        if name.endswith("_bytes"):
            with pytest.raises(ValidationError, match="less than or equal"):
                kind(**{name: 10**30})
        if name.endswith("_s") and name not in ("retention_s", "retry_s"):
            assert getattr(kind(**{name: float("inf")}), name) == MOST_SECONDS
            with pytest.raises(ValidationError):
                kind(**{name: float("nan")})


async def test_ticks_that_meet_are_no_mistake(wal: StreamingClient) -> None:
    vchannel = (await wal.create_collection("c")).vchannels[0]
    tick = (await wal.append(insert(vchannel, b"a"))).time_tick
    only = Only(frozenset({MessageType.INSERT}), from_tick=tick, until_tick=tick)
    read = wal.read(vchannel, follow=False, only=only)
    assert [each.payload async for each in read] == [b"a"]


async def test_a_message_with_an_odd_attribute_keeps_its_own_error(wal: StreamingClient) -> None:
    vchannel = (await wal.create_collection("c")).vchannels[0]
    message = insert(vchannel, b"a")
    message.type = "INSERT"  # type: ignore[assignment]
    with pytest.raises(AttributeError):
        async with wal.txn(vchannel) as txn:
            await txn.append(message)
