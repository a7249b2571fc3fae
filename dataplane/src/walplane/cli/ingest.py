"""`walplane ingest`: a file of rows into a collection. Layer: cli.

Contract: rows of one shard are appended in file order, some tens of MiB in flight. When it ends
early, everything in flight is settled first, and the message says how many rows from the beginning
are acknowledged, so that `--skip-rows` goes on from there.
"""

from __future__ import annotations

import asyncio
import enum
import os
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, BinaryIO

import typer

from walplane.cli.completion import collection_names
from walplane.cli.errors import WRONG_USE, CommandError
from walplane.cli.options import (
    AddressOption,
    DebugOption,
    OutputFormat,
    examples,
    settings_of,
)
from walplane.cli.output import show_object
from walplane.cli.progress import RowProgress
from walplane.cli.records import MalformedInput
from walplane.cli.run import needs, run
from walplane.client import CollectionInfo, StreamingClient
from walplane.message.builder import insert
from walplane.rpc.errors import WalError
from walplane.rpc.flow import ByteBudget
from walplane.rpc.v1 import log_pb2

if TYPE_CHECKING:  # an extra: only `needs` may import it
    from walplane.cli.arrow import Piece
    from walplane.cli.rows import Rows

EXAMPLES = examples(
    "walplane ingest flights.csv --collection flights",
    "walplane ingest flights.parquet --collection flights --key tailnum",
    "walplane ingest events.jsonl --collection events --skip-rows 120000",
)
IN_FLIGHT_BYTES = 32 << 20


class FileFormat(enum.StrEnum):
    """Formats of files."""

    CSV = "csv"
    JSONL = "jsonl"
    PARQUET = "parquet"


def ingest(
    context: typer.Context,
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="CSV, JSON lines or Parquet.", dir_okay=False)
    ],
    collection: Annotated[
        str, typer.Option(help="Name of the collection.", autocompletion=collection_names)
    ],
    key: Annotated[
        str | None,
        typer.Option(
            metavar="COLUMN",
            help="Rows with equal COLUMN go to the same shard. Without it, batches go to the "
            "shards in turn.",
        ),
    ] = None,
    form: Annotated[
        FileFormat | None,
        typer.Option("--format", help="Format of the file, if its name does not tell."),
    ] = None,
    batch_rows: Annotated[int, typer.Option(min=1, help="Rows of one batch.")] = 8192,
    skip_rows: Annotated[
        int, typer.Option(min=0, help="Rows to leave out: those of an earlier run.")
    ] = 0,
    timeout: Annotated[
        float, typer.Option(min=0.1, help="Seconds to wait for an acknowledgement.")
    ] = 60.0,
    output: Annotated[
        OutputFormat | None, typer.Option("--output", "-o", help="How to print the summary.")
    ] = None,
    address: AddressOption = None,
    debug: DebugOption = False,
) -> None:
    """Ingests the rows of a file as Arrow record batches.

    Column types are taken from the beginning of a CSV or JSON file. A line that does not fit ends
    the ingest with its number, after every row before it is acknowledged.
    """
    settings = settings_of(context, address, debug)

    async def command() -> None:
        tables = needs("standalone", "walplane.cli.tables")
        kind = form.value if form else tables.format_of(file)
        if kind is None:
            raise CommandError(f"{file}: which format? Name it with --format", WRONG_USE)
        async with StreamingClient.connect(settings.address) as wal:
            info = await wal.describe_collection(collection)
            with file.open("rb") as stream:
                batches = tables.read_batches(stream, str(file), kind, batch_rows, key)
                ingestion = Ingestion(wal, info, timeout)
                await ingestion.run(stream, str(file), batches, skip_rows)
        _summary(ingestion, output)

    run(settings, command)


class _Source:
    """One batch of the file on its way: done when all its pieces are."""

    def __init__(self, rows: int, pieces: int) -> None:
        self.rows = rows
        self.pieces = pieces


class Ingestion:
    """One file's way into one collection.

    Attributes:
        rows: acknowledged.
        prefix: acknowledged without a gap from the beginning, skipped rows included.
        messages: acknowledged.
        payload_bytes: acknowledged.
        seconds: the whole took.
    """

    def __init__(self, wal: StreamingClient, info: CollectionInfo, timeout_s: float) -> None:
        """Reads nothing before `run`."""
        self.rows = self.prefix = self.messages = self.payload_bytes = 0
        self.seconds = 0.0
        self._skipped = 0
        self._wal = wal
        self._info = info
        self._timeout_s = timeout_s
        self._budget = ByteBudget(IN_FLIGHT_BYTES)
        self._sources: deque[_Source] = deque()
        self._failure: Exception | None = None
        self._pieces: Callable[[Rows, int, int], list[Piece]]
        self._pieces = needs("standalone", "walplane.cli.arrow").pieces

    async def run(
        self, stream: BinaryIO, file: str, batches: Iterator[Rows], skip_rows: int
    ) -> None:
        """Appends every row of `batches` behind the first `skip_rows`.

        Raises:
            CommandError: it ended early; the text says how many rows are acknowledged.
        """
        self.prefix = self._skipped = skip_rows
        size = os.fstat(stream.fileno()).st_size or None
        with RowProgress(file.rpartition(os.sep)[2], size) as progress:
            async with asyncio.TaskGroup() as tasks:
                try:
                    await self._append_all(stream, batches, skip_rows, tasks, progress)
                except (MalformedInput, CommandError, OSError) as error:
                    self._failure = error  # what is in flight is settled first
        self.seconds = progress.seconds
        if self._failure is not None:
            raise self._ended_early(self._failure)

    async def _append_all(
        self,
        stream: BinaryIO,
        batches: Iterator[Rows],
        skip_rows: int,
        tasks: asyncio.TaskGroup,
        progress: RowProgress,
    ) -> None:
        shards = len(self._info.vchannels)
        turn = 0
        while self._failure is None:
            rows = await asyncio.to_thread(next, batches, None)
            if rows is None:
                return
            skipped = min(skip_rows, rows.batch.num_rows)
            skip_rows -= skipped
            if skipped == rows.batch.num_rows:
                continue
            rest = rows.behind(skipped)
            parts = await asyncio.to_thread(self._pieces, rest, shards, turn)
            turn += 1
            source = _Source(rest.batch.num_rows, len(parts))
            self._sources.append(source)
            for piece in parts:
                await self._budget.acquire(len(piece.payload))
                tasks.create_task(self._append(piece, source))
            progress.update(self.rows, stream.tell())

    async def _append(self, piece: Piece, source: _Source) -> None:
        message = insert(
            self._info.vchannels[piece.shard],
            piece.payload,
            collection_id=self._info.collection_id,
            partition_id=self._info.default_partition_id,
            schema_version=self._info.schema_version,
            rows=piece.rows,
            payload_format=log_pb2.PAYLOAD_FORMAT_ARROW_STREAM,
        )
        try:
            await self._wal.append(message, timeout=self._timeout_s)
        except WalError as error:
            self._failure = self._failure or error
            return
        finally:
            self._budget.release(len(piece.payload))
        self.rows += piece.rows
        self.messages += 1
        self.payload_bytes += len(piece.payload)
        source.pieces -= 1
        while self._sources and not self._sources[0].pieces:
            self.prefix += self._sources.popleft().rows

    def _ended_early(self, why: Exception) -> CommandError:
        if isinstance(why, CommandError) and not self.rows:  # wrong use: nothing was appended
            return why
        beyond = self.rows - (self.prefix - self._skipped)
        also = f" (and {beyond:,} scattered rows behind them)" if beyond else ""
        return CommandError(
            f"{why}; the first {self.prefix:,} rows are acknowledged{also}: mend it, then go on "
            f"with --skip-rows {self.prefix}",
        )


def _summary(done: Ingestion, output: OutputFormat | None) -> None:
    rate = done.rows / done.seconds if done.seconds else 0.0
    if output is None:
        print(
            f"{done.rows:,} rows in {done.messages:,} messages acknowledged in "
            f"{done.seconds:.1f} s: {rate:,.0f} rows/s, "
            f"{done.payload_bytes / max(done.seconds, 1e-9) / 1e6:,.1f} MB/s"
        )
        return
    summary = {
        "rows": done.rows,
        "messages": done.messages,
        "payload_bytes": done.payload_bytes,
        "seconds": round(done.seconds, 3),
        "rows_per_second": round(rate),
    }
    show_object(summary, output)
