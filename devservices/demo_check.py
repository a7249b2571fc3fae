"""Reads a collection of flights back and compares it with the table it came from.

Command line: `python -m devservices.demo_check HOST:PORT COLLECTION CSV --key COLUMN`.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from devservices.flights import ROW_COLUMN
from walplane.channel import shard_of
from walplane.client import CollectionInfo, StreamingClient
from walplane.message.registry import MessageType

STORED_S = 30.0
"""How long segments may take to come to their store once they are sealed."""


@dataclass
class Found:
    """What was read.

    Attributes:
        tables: per shard, in the order of the log.
        messages: that held rows.
        faults: ticks that did not grow.
    """

    tables: dict[int, pa.Table] = field(default_factory=dict)
    messages: int = 0
    faults: list[str] = field(default_factory=list)

    @property
    def rows(self) -> int:
        """Of all shards."""
        return sum(table.num_rows for table in self.tables.values())


async def read_back(address: str, info: CollectionInfo, say: Callable[[str], None]) -> Found:
    """Every message of the collection, from the earliest to the present end."""
    found = Found()
    began = time.monotonic()
    async with (
        StreamingClient.connect(address) as wal,
        asyncio.TaskGroup() as tasks,
    ):
        for shard, vchannel in enumerate(info.vchannels):
            tasks.create_task(_read_shard(wal, vchannel, shard, found))
    seconds = time.monotonic() - began
    say(f"read back: {found.rows:,} rows in {seconds:.1f} s: {found.rows / seconds:,.0f} rows/s")
    return found


async def _read_shard(wal: StreamingClient, vchannel: str, shard: int, found: Found) -> None:
    batches: list[pa.RecordBatch] = []
    last = 0
    async for message in wal.read(vchannel, start="earliest", follow=False):
        if message.time_tick <= last:
            found.faults.append(f"{vchannel}: tick {message.time_tick} comes after {last}")
        last = message.time_tick
        if message.type is MessageType.INSERT:
            found.messages += 1
            batches.extend(pa.ipc.open_stream(message.payload))
    tables = [pa.Table.from_batches([batch]) for batch in batches]
    found.tables[shard] = pa.concat_tables(tables, promote_options="permissive")


async def read_segments(
    store: Path, info: CollectionInfo, rows: int, say: Callable[[str], None]
) -> Found:
    """What the segment store holds, read by pyarrow alone; waits for `rows`, within bounds."""
    found = Found()
    began = time.monotonic()
    with suppress(TimeoutError):
        async with asyncio.timeout(STORED_S):
            while found.rows < rows:
                await asyncio.sleep(0.1)
                found = await asyncio.to_thread(_read_parquet, store, info)
    seconds = time.monotonic() - began
    say(f"flushed: {found.rows:,} rows in {found.messages} Parquet files after {seconds:.1f} s")
    return found


def _read_parquet(store: Path, info: CollectionInfo) -> Found:
    found = Found()
    for shard, vchannel in enumerate(info.vchannels):
        files = sorted(store.glob(f"*/*/*/{vchannel}/*/*.parquet"))
        found.messages += len(files)
        tables = [pq.read_table(path, partitioning=None) for path in files]
        if tables:
            table = pa.concat_tables(tables, promote_options="permissive")
            found.tables[shard] = table.drop_columns(["_tick", "_entry"])
    return found


def compare(found: Found, source: Path, key: str, shards: int) -> list[str]:
    """What differs from the source; empty when every row is there exactly once, as it was."""
    expected = pa_csv.read_csv(source)
    faults = list(found.faults)
    for shard, table in found.tables.items():
        keys = table[key].unique().to_pylist()
        strays = [value for value in keys if shard_of((value or "").encode(), shards) != shard]
        if strays:
            faults.append(f"shard {shard} holds rows of {len(strays)} keys of other shards")
    if not found.tables:
        return [*faults, "there is nothing at all"]
    rows = pa.concat_tables(found.tables.values(), promote_options="permissive")
    rows = rows.sort_by(ROW_COLUMN)
    numbers = rows[ROW_COLUMN].to_pylist()
    if numbers != list(range(expected.num_rows)):
        distinct = len(set(numbers))
        faults.append(
            f"{expected.num_rows - distinct:,} rows are missing and {len(numbers) - distinct:,} "
            "are there more than once"
        )
    elif not rows.cast(expected.schema).equals(expected):
        faults.append("some rows are not as they were in the table")
    return faults


async def check(address: str, collection: str, source: Path, key: str) -> int:
    """Prints what differs, or VERIFIED; returns the exit code."""
    async with StreamingClient.connect(address) as wal:
        info = await wal.describe_collection(collection)
    found = await read_back(address, info, print)
    faults = await asyncio.to_thread(compare, found, source, key, len(info.vchannels))
    for fault in faults:
        print(f"FAULT: {fault}")
    if not faults:
        print(f"VERIFIED: {found.rows:,} rows, each exactly once, ticks strictly growing")
    return 1 if faults else 0


def main(arguments: list[str] | None = None) -> int:
    """Runs the command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m devservices.demo_check")
    parser.add_argument("address", help="host:port of the cluster")
    parser.add_argument("collection", help="that the table went into")
    parser.add_argument("source", type=Path, help="the table, as CSV")
    parser.add_argument("--key", required=True, help="column that chose the shard")
    given = parser.parse_args(arguments)
    return asyncio.run(check(given.address, given.collection, given.source, given.key))


if __name__ == "__main__":
    sys.exit(main())
