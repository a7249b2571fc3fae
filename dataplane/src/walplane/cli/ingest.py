"""`walplane ingest`: a file of rows into a collection. Layer: cli."""

from __future__ import annotations

import asyncio
import enum
from pathlib import Path
from typing import Annotated

import typer

from walplane.cli.errors import WRONG_USE, CommandError
from walplane.cli.files import opened
from walplane.cli.ingestion import Ingestion
from walplane.cli.interrupt import asked_to_end
from walplane.cli.options import (
    AddressOption,
    CollectionOption,
    DebugOption,
    OutputFormat,
    TimeoutOption,
    examples,
    settings_of,
)
from walplane.cli.output import show_object
from walplane.cli.run import needs, run
from walplane.client import StreamingClient

EXAMPLES = examples(
    "walplane ingest flights.csv --collection flights",
    "walplane ingest flights.parquet --collection flights --key tailnum",
    "walplane ingest events.jsonl --collection events --skip-rows 120000",
)


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
    collection: CollectionOption,
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
    batch_rows: Annotated[int, typer.Option(min=1, metavar="N", help="Rows of one batch.")] = 8192,
    skip_rows: Annotated[
        int, typer.Option(min=0, metavar="N", help="Rows to leave out: those of an earlier run.")
    ] = 0,
    timeout: TimeoutOption = 60.0,
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
            with opened(file) as stream, asked_to_end() as asked:
                stream.give_up = asked.is_set
                batches = tables.read_batches(stream.buffer, str(file), kind, batch_rows, key)
                ingestion = Ingestion(wal, info, timeout, asked)
                try:
                    await ingestion.run(stream, str(file), batches, skip_rows)
                except asyncio.CancelledError:
                    raise ingestion.given_up() from None
        _summary(ingestion, output)

    run(settings, command)


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
