"""A process that owns one PChannel and appends to it without end, for tests that hurt it.

    python -m walplane.testkit.wal_owner --backend URL --pchannel NAME --term N --terms FILE

`--terms FILE` holds the granted term: the quorum read of this test world. Every event is one JSON
line on standard output, with `at` in seconds of the machine's monotonic clock: `open`, `ack`
(number, id, tick), `error`, `reopened`, `stopped`. Payloads are `<term>/<number>`.
Layer: testkit.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from pathlib import Path

from walplane.backends.registry import open_backend
from walplane.message import codec
from walplane.message.registry import MessageType
from walplane.rpc.errors import ErrorCode, WalError
from walplane.rpc.v1 import log_pb2
from walplane.runtime import Runtime
from walplane.testkit.outside import TestOracle
from walplane.testkit.wal_world import create
from walplane.wal.config import WALConfig
from walplane.wal.ownership import WALDeps
from walplane.wal.timetick.reserve import TickReserve
from walplane.wal.wal import WAL

_TICKS_A_TERM = 1 << 44  # keeps the terms' ticks apart as one oracle would


class FileAuthority:
    """Reads the granted term from a file."""

    def __init__(self, path: Path) -> None:
        """`path` holds one number."""
        self._path = path

    async def current_term(self, pchannel: str) -> int:
        """See `TermAuthority`."""
        try:
            return int(await asyncio.to_thread(self._path.read_text))
        except (OSError, ValueError) as error:
            raise WalError(ErrorCode.INNER, f"no term of {pchannel} in {self._path}") from error


def say(event: str, **fields: object) -> None:
    """One event."""
    print(json.dumps({"event": event, "at": time.monotonic(), **fields}), flush=True)


def numbered_entry(pchannel: str, term: int, number: int) -> log_pb2.Entry:
    """The entry with payload `<term>/<number>`."""
    envelope = log_pb2.Envelope(
        version=1, type=MessageType.INSERT, vchannel=f"{pchannel}_1v0", count=1
    )
    envelope.producer.producer_id = b"term-%d" % term
    envelope.producer.number = number
    body = codec.encode_body(b"", [b"%d/%d" % (term, number)])
    return codec.seal_entry(envelope, body)


async def own(backend_url: str, pchannel: str, term: int, terms: Path, in_flight: int) -> None:
    """Opens the log under `term` and keeps `in_flight` frames in flight until it is over."""
    backend = await open_backend(backend_url)
    runtime = Runtime.system()
    oracle = TestOracle(term * _TICKS_A_TERM)
    reserve = TickReserve(oracle, runtime, lambda: {pchannel: term}, lambda lost: None)
    deps = WALDeps(backend, reserve, oracle, FileAuthority(terms), runtime)
    config = WALConfig(frames_in_flight=in_flight, frame_bytes=1, stall_limit_s=2.0)
    try:
        wal = await WAL.open(pchannel, term, deps, config)
        await create(wal, f"{pchannel}_1v0")
    except WalError as error:
        say("error", code=error.code.name, message=error.message)
        return
    say("open", term=term)
    slots = asyncio.Semaphore(in_flight)

    async def append(number: int) -> None:
        try:
            result = await wal.append(numbered_entry(pchannel, term, number))
            fields = {"number": number, "id": str(result.message_id), "tick": result.first_tick}
            say("ack", **fields, open=wal.open_number)
        except WalError as error:
            say("error", number=number, code=error.code.name, message=error.message)
        finally:
            slots.release()

    number = 0
    async with asyncio.TaskGroup() as tasks:
        while not wal.stopped.done():
            await slots.acquire()
            tasks.create_task(append(number))
            number += 1
    reason = wal.stopped.result()
    say("stopped", reason=str(reason))
    await wal.close()
    await reserve.close()
    await backend.close()


def main() -> None:
    """Parses the command line and runs."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--backend", required=True)
    parser.add_argument("--pchannel", required=True)
    parser.add_argument("--term", type=int, required=True)
    parser.add_argument("--terms", type=Path, required=True)
    parser.add_argument("--in-flight", type=int, default=64)
    args = parser.parse_args()
    asyncio.run(own(args.backend, args.pchannel, args.term, args.terms, args.in_flight))


if __name__ == "__main__":
    main()
