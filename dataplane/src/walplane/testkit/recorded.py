"""Logs that an earlier version wrote, kept as text: a later one shows that it takes them over.

Contract: a recording is what all topics of a cluster held, record by record, and what its users had
been told by then. It says nothing of files, only of what a version writes into a backend. It is
made once, when anything that a topic holds changes, and never again:

    python -m walplane.testkit.recorded > dataplane/tests/recorded/log-<number>.jsonl

Lines are JSON objects: `told` first, then one `topic` and its `record` in base64 each.
Layer: testkit.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import tempfile
from base64 import b64decode, b64encode
from collections.abc import AsyncIterator, Iterable
from functools import partial
from pathlib import Path
from typing import Any

from walplane.backends.interface import EARLIEST
from walplane.backends.rocksdb.backend import RocksBackend
from walplane.client import CollectionInfo, StreamingClient
from walplane.embedded import open_embedded
from walplane.embedded.directory import backend_url
from walplane.message.builder import delete, insert, manual_flush

PRODUCER, PRODUCER_NUMBER = "recorder", 3
KEY, KEYED = "key-1", b"keyed"
ABANDONED = b"abandoned"
_COLLECTIONS = ("flights", "airports")


async def record() -> list[str]:
    """The lines of a new recording."""
    with tempfile.TemporaryDirectory() as name:
        live, copy = Path(name, "live"), Path(name, "copy")
        async with open_embedded(live, pchannels=2) as wal:
            await _first_run(wal)  # ends with snapshots and checkpoints
        async with open_embedded(live) as wal:
            told = await _second_run(wal)
            await asyncio.to_thread(shutil.copytree, live, copy)  # as a kill leaves it
        return [json.dumps({"told": told}), *[line async for line in _records(copy)]]


async def told(wal: StreamingClient) -> dict[str, Any]:
    """What readers of `wal` are given, from the earliest message of every VChannel to now."""
    collections = sorted(await wal.list_collections(), key=lambda one: one.name)
    return {
        "collections": [[one.name, *one.vchannels] for one in collections],
        "messages": {
            vchannel: [
                [
                    message.type.name,
                    message.time_tick,
                    str(message.message_id),
                    message.payload.hex(),
                    dict(message.properties),
                    str(message.resume_token),
                ]
                async for message in wal.read(vchannel, start="earliest", follow=False)
            ]
            for one in collections
            for vchannel in one.vchannels
        },
    }


async def restore(lines: Iterable[str], data: Path) -> dict[str, Any]:
    """Makes the directory `data` of an embedded cluster that holds a recording; what was told."""
    first, *rest = map(json.loads, lines)
    backend = await RocksBackend.open(str(_database(data)))
    try:
        session = await backend.session()
        writers = {}
        for line in rest:
            topic = line["topic"]
            if topic not in writers:
                await session.ensure_topic(topic)
                writers[topic] = await session.open_writer(topic, 0, 0)
            await writers[topic].append(b64decode(line["record"]))
    finally:
        await backend.close()
    found: dict[str, Any] = first["told"]
    return found


def _database(data: Path) -> Path:
    return Path(backend_url(data, "rocksdb").removeprefix("rocksdb:"))


async def _records(data: Path) -> AsyncIterator[str]:
    """Every record of every topic."""
    backend = await RocksBackend.open(str(_database(data)))
    try:
        session = await backend.session()
        for topic, entry, end in backend.database.topics:
            scanner = await session.open_scanner(topic, EARLIEST)
            at = entry.earliest
            while at < end:
                for one in await scanner.read():
                    at = one.record_id[0] + 1
                    yield json.dumps({"topic": topic, "record": b64encode(one.data).decode()})
    finally:
        await backend.close()


async def _first_run(wal: StreamingClient) -> None:
    """Something of everything, which snapshots hold in the end."""
    flights, airports = [await wal.create_collection(name, shards=2) for name in _COLLECTIONS]
    await wal.create_collection("gone")
    await wal.drop_collection("gone")
    await _rows(wal, flights, "first")
    first = airports.vchannels[0]
    await wal.append(insert(first, KEYED), idempotency_key=KEY)
    async with wal.producer(PRODUCER, first) as producer:
        await producer.append_many(insert(first, b"by name %d" % n) for n in range(PRODUCER_NUMBER))
    await wal.flush_collection("airports")


async def _second_run(wal: StreamingClient) -> dict[str, Any]:
    """The same in what lies behind the last checkpoint, and a transaction that is never ended."""
    flights = await wal.describe_collection("flights")
    await _rows(wal, flights, "second")
    txn = wal.txn(flights.vchannels[1])
    await txn.__aenter__()
    await txn.append(insert(flights.vchannels[1], ABANDONED))
    await txn.flush()
    return await told(wal)


async def _rows(wal: StreamingClient, collection: CollectionInfo, word: str) -> None:
    where = collection.vchannels[0]
    row = partial(
        insert,
        where,
        collection_id=collection.collection_id,
        partition_id=collection.default_partition_id,
    )
    await wal.append(row(word.encode(), b"", properties={"note": word}))
    await wal.append_many(row(b"%s %d" % (word.encode(), n)) for n in range(20))
    await wal.append(delete(where, b"0", rows=1))
    async with wal.txn(where) as whole:  # one entry
        await whole.append_many([insert(where, b"whole 1"), insert(where, b"whole 2")])
    async with wal.txn(where) as parts:
        await parts.append(insert(where, b"part 1"))
        await parts.flush()
        await parts.append(delete(where, b"part 2"))
    back = wal.txn(where)
    async with back:
        await back.append(insert(where, b"never"))
        await back.flush()
        await back.rollback()
    await wal.append(manual_flush(where))
    await wal.append(insert(where, b"behind the flush"))


if __name__ == "__main__":
    print("\n".join(asyncio.run(record())))
