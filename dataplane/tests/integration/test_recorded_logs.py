"""This version takes over what earlier ones wrote: read, resumed, and written on."""

from __future__ import annotations

from pathlib import Path

import pytest

from walplane.client import StreamingClient
from walplane.embedded import open_embedded
from walplane.message.builder import insert, manual_flush
from walplane.message.ids import ResumeToken
from walplane.rpc.errors import ErrorCode, WalError
from walplane.testkit import recorded

LOGS = sorted(Path(__file__).parents[1].glob("recorded/*.jsonl"))


@pytest.fixture(params=LOGS, ids=lambda path: path.stem)
def lines(request: pytest.FixtureRequest) -> list[str]:
    path: Path = request.param
    return path.read_text().splitlines()


async def vchannels(wal: StreamingClient, name: str) -> list[str]:
    return list((await wal.describe_collection(name)).vchannels)


async def test_readers_are_given_what_they_were_given(lines: list[str], tmp_path: Path) -> None:
    before = await recorded.restore(lines, tmp_path)
    assert sum(map(len, before["messages"].values())) > 60
    async with open_embedded(tmp_path) as wal:
        assert await recorded.told(wal) == before
        for vchannel in await vchannels(wal, "flights"):
            await wal.append(insert(vchannel, b"new"))
    async with open_embedded(tmp_path) as wal:  # from this version's own snapshots
        after = await recorded.told(wal)
    for vchannel, messages in before["messages"].items():
        assert after["messages"][vchannel][: len(messages)] == messages
    (flights,) = [one for one in after["collections"] if one[0] == "flights"]
    new = [after["messages"][vchannel][-1][3] for vchannel in flights[1:]]
    assert new == [b"new".hex()] * 2


async def test_a_reader_goes_on_from_any_token(lines: list[str], tmp_path: Path) -> None:
    before = await recorded.restore(lines, tmp_path)
    async with open_embedded(tmp_path) as wal:
        for vchannel, messages in before["messages"].items():
            for *_, text in messages:
                token = ResumeToken.parse(text)
                read = wal.read(vchannel, start=token, follow=False)
                rest = [str(message.message_id) async for message in read]
                # amid a transaction: it comes whole, from such a token too
                behind = [row[2] for row in messages if row[1] > token.time_tick]
                assert rest == behind, (vchannel, text)


async def test_what_was_appended_once_is_not_appended_again(
    lines: list[str], tmp_path: Path
) -> None:
    before = await recorded.restore(lines, tmp_path)
    async with open_embedded(tmp_path) as wal:
        where = (await vchannels(wal, "airports"))[0]
        (first,) = [row for row in before["messages"][where] if row[3] == recorded.KEYED.hex()]
        again = await wal.append(insert(where, recorded.KEYED), idempotency_key=recorded.KEY)
        assert [again.time_tick, str(again.message_id)] == first[1:3]
        with pytest.raises(WalError) as caught:
            await wal.append(insert(where, b"another"), idempotency_key=recorded.KEY)
        assert caught.value.code is ErrorCode.INVALID_ARGUMENT
        async with wal.producer(recorded.PRODUCER, where) as producer:
            assert producer.next_number == recorded.PRODUCER_NUMBER
            await producer.append(insert(where, b"by name, by another version"))


async def test_an_open_transaction_is_still_one(lines: list[str], tmp_path: Path) -> None:
    await recorded.restore(lines, tmp_path)
    async with open_embedded(tmp_path) as wal:
        where = (await vchannels(wal, "flights"))[1]
        await wal.append(insert(where, b"first"))
        second = await wal.append(insert(where, b"second"))
        await wal.append(manual_flush(where))  # ends it
        third = await wal.append(insert(where, b"third"))
        held, passed = second.last_confirmed_message_id, third.last_confirmed_message_id
        assert held is not None, "nothing of the recording is confirmed"
        assert passed is not None
        assert held < second.message_id < passed, "the transaction held nothing back"
        read = wal.read(where, start="earliest", follow=False)
        assert recorded.ABANDONED not in [message.payload async for message in read]
