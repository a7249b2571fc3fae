"""A client that clings to one node, whatever discovery says.

Contract: `python -m walplane.testkit.held_streams HOST:PORT NAME POD DIR` makes collection NAME,
opens a Produce stream to POD for each of its VChannels that POD serves, and appends there, one at a
time, on connections that nothing but their ends closes. `state.json` in DIR tells how it goes; it
is done when every stream has ended, and has read then whether what was acknowledged is in the log.
Layer: testkit; for tests only.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import grpc

from walplane.channel import pchannel_of
from walplane.client import StreamingClient
from walplane.client.discovery import Assignment
from walplane.message.builder import insert
from walplane.message.registry import MessageType
from walplane.rpc.errors import Action, ErrorCode, WalError
from walplane.rpc.v1 import streaming_pb2, streaming_pb2_grpc
from walplane.testkit.state_file import write_state

_SHARDS = 16
_CONNECT_S = 20.0
_STEP_S = 0.2
_PAUSE_S = 0.01

_ENDED = WalError(ErrorCode.ON_SHUTDOWN, "the node ended the stream")

_Call = grpc.aio.StreamStreamCall[streaming_pb2.ProduceRequest, streaming_pb2.ProduceResponse]


class HeldStreams:
    """The streams, and what came back on them.

    Attributes:
        acknowledged: payloads, by VChannel; without those that were moved before they began.
        last_sent: monotonic seconds of when the latest append that was acknowledged had been sent.
        ends: why each stream ended, by VChannel.
    """

    def __init__(self, address: str, collection: str, pod: str) -> None:
        """Use `run`."""
        self._address = address
        self._collection = collection
        self._pod = pod
        self.acknowledged: dict[str, list[bytes]] = {}
        self.last_sent = 0.0
        self.ends: dict[str, str] = {}

    async def run(self) -> None:
        """Appends until the last stream has ended."""
        held: dict[str, Assignment] = {}
        async with StreamingClient.connect(self._address, timeout=_CONNECT_S) as wal:
            info = await wal.create_collection(self._collection, _SHARDS)
            for vchannel in info.vchannels:
                owner = await wal.wait_for_assignment(pchannel_of(vchannel), _CONNECT_S)
                if owner.node_id == self._pod:
                    held[vchannel], self.acknowledged[vchannel] = owner, []
        if not held:
            raise LookupError(f"{self._pod} serves nothing of {self._collection}")
        async with asyncio.TaskGroup() as tasks:
            for vchannel, owner in held.items():
                tasks.create_task(self._hold(vchannel, owner))
        if not self.acknowledged:
            raise LookupError(f"{self._pod} acknowledged nothing: {'; '.join(self.ends.values())}")

    async def missing(self) -> list[str]:
        """What was acknowledged and is not read exactly once."""
        wrong = []
        async with StreamingClient.connect(self._address, timeout=_CONNECT_S) as wal:
            for vchannel, payloads in self.acknowledged.items():
                read: Counter[bytes] = Counter()
                async for batch in wal.reader(vchannel, follow=False).batches():
                    if batch.type is MessageType.INSERT:
                        read.update(each.payload for each in batch)
                wrong += [
                    f"{each.decode()} was acknowledged and is read {read[each]} times"
                    for each in payloads
                    if read[each] != 1
                ]
        return wrong

    def state(self) -> dict[str, Any]:
        """What `state.json` says."""
        return {
            "acknowledged": sum(map(len, self.acknowledged.values())),
            "least": min(map(len, self.acknowledged.values()), default=0),
            "last_sent": self.last_sent,
            "ends": sorted(set(self.ends.values())),
            "done": False,
        }

    async def _hold(self, vchannel: str, owner: Assignment) -> None:
        # No keepalive: the connection of a stopped process must still be there when it wakes.
        async with grpc.aio.insecure_channel(owner.address) as channel:
            call = streaming_pb2_grpc.StreamingNodeStub(channel).Produce()
            try:
                end = await self._append(call, vchannel, owner)
            except grpc.aio.AioRpcError as error:
                end = WalError.from_rpc(error, owner.address)
            except asyncio.InvalidStateError:
                end = _ENDED
            finally:
                call.cancel()
        self.ends[vchannel] = str(end)
        if not self.acknowledged[vchannel] and end.action is Action.REDISCOVER:
            # Moved away by plan before the first append came: there was nothing to cling to.
            del self.acknowledged[vchannel]

    async def _append(self, call: _Call, vchannel: str, owner: Assignment) -> WalError:
        """Appends one after the other; returns why no more."""
        opening = streaming_pb2.OpenProduce(pchannel=owner.pchannel, term=owner.term)
        await call.write(streaming_pb2.ProduceRequest(open=opening))
        await call.read()
        for number in itertools.count():
            payload = f"{vchannel}/held/{number}".encode()
            append = streaming_pb2.AppendRequest(
                request_id=number, entry=insert(vchannel, payload).to_entry()
            )
            sent = time.monotonic()
            await call.write(streaming_pb2.ProduceRequest(append=append))
            response = await call.read()
            if not isinstance(response, streaming_pb2.ProduceResponse):
                return _ENDED
            for answer in response.appends:
                if answer.WhichOneof("outcome") != "result":
                    return WalError.from_proto(answer.error)
                self.acknowledged[vchannel].append(payload)
                self.last_sent = max(self.last_sent, sent)
            await asyncio.sleep(_PAUSE_S)
        raise AssertionError("counting never ends")


async def run(streams: HeldStreams, directory: Path) -> int:
    """Holds the streams to their end; returns 0 when all that was acknowledged is in the log."""
    holding = asyncio.create_task(streams.run())
    while not holding.done():
        await asyncio.to_thread(write_state, directory, streams.state())
        await asyncio.wait({holding}, timeout=_STEP_S)
    await holding
    missing = await streams.missing()
    last = {**streams.state(), "done": True, "missing": missing}
    await asyncio.to_thread(write_state, directory, last)
    return 1 if missing else 0


def main(arguments: list[str] | None = None) -> int:
    """Runs the command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m walplane.testkit.held_streams")
    parser.add_argument("address", help="host:port of the cluster")
    parser.add_argument("collection", help="made by it")
    parser.add_argument("pod", help="whose node it clings to")
    parser.add_argument("directory", type=Path, help="of state.json")
    given = parser.parse_args(arguments)
    given.directory.mkdir(parents=True, exist_ok=True)
    streams = HeldStreams(given.address, given.collection, given.pod)
    return asyncio.run(run(streams, given.directory))


if __name__ == "__main__":
    sys.exit(main())
