"""Appends three messages and reads them back; `python docs/examples/orders.py [HOST:PORT]`."""

import asyncio
import sys

from walplane.client import StreamingClient
from walplane.message.builder import insert


async def main(address: str) -> None:
    """Creates a collection, appends to its first shard, and reads that shard to its end."""
    async with StreamingClient.connect(address) as wal:
        orders = await wal.create_collection("example_orders", shards=2)
        shard = orders.vchannels[0]

        result = await wal.append(insert(shard, b"pen"))
        print("durable:", result.message_id, result.time_tick, result.last_confirmed_message_id)
        await wal.append_many([insert(shard, b"ink"), insert(shard, b"nib")])

        async for message in wal.read(shard, start="earliest", follow=False):
            print(message.time_tick, message.type.name, message.payload)
            token = message.resume_token  # keep it; a later read resumes after this message

        await wal.append(insert(shard, b"pad"))
        async for message in wal.read(shard, start=token, follow=False):
            print("after the token:", message.payload)


asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else "127.0.0.1:7650"))
