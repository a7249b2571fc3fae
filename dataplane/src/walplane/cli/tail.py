"""`walplane tail`: what lies in a channel, one object a message. Layer: cli.

Contract: messages of one channel come in tick order, each once. Those of several channels come as
they are read: ticks can be compared within one PChannel only. The messages of a transaction follow
each other, with its Commit's tick and its number as `txn_id`; what is rolled back or open is not
printed. A resume token or a message id names a place in one channel, so a collection of several
shards takes neither.
"""

from __future__ import annotations

import asyncio
import base64
import sys
from typing import Annotated, Any

import typer

from walplane.channel import is_cchannel, is_vchannel
from walplane.cli.completion import collection_names, message_types
from walplane.cli.errors import WRONG_USE, CommandError
from walplane.cli.options import (
    AddressOption,
    DebugOption,
    OutputFormat,
    OutputOption,
    examples,
    settings_of,
)
from walplane.cli.output import StreamPrinter
from walplane.cli.run import run
from walplane.client import Only, StreamingClient
from walplane.client.reader import start_position
from walplane.message.registry import MessageType
from walplane.message.types import DATA_TYPES
from walplane.message.view import ImmutableMessage
from walplane.rpc.errors import ErrorCode, WalError

EXAMPLES = examples(
    "walplane tail flights -o json",
    "walplane tail flights --from latest --follow",
    "walplane tail wal_3_7v0 --from rocksdb:41:0:0@462371.2.1@wal_3 -o json",
)
_WIDTHS = {
    "time_tick": 18,
    "message_id": 16,
    "type": 17,
    "vchannel": 12,
    "rows": 5,
    "payload": 1,
}
_PRINT_MESSAGES = 512  # at most, before the output is flushed
_TEXT_COLUMNS = 100  # of a payload in a table


def tail(
    context: typer.Context,
    target: Annotated[
        str,
        typer.Argument(
            metavar="COLLECTION|VCHANNEL|PCHANNEL",
            help="What to read.",
            autocompletion=collection_names,
        ),
    ],
    start: Annotated[
        str,
        typer.Option(
            "--from",
            metavar="earliest|latest|TOKEN|ID",
            help="Where to begin. A resume token continues after the message it came with, a "
            "message id begins with that message.",
        ),
    ] = "earliest",
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on with what is appended later.")
    ] = False,
    types: Annotated[
        list[str] | None,
        typer.Option(
            "--type",
            metavar="TYPE",
            autocompletion=message_types,
            help="Only messages of this type, like INSERT or DROP_COLLECTION; may be repeated. "
            "Transactions are printed whole; TXN means all of them.",
        ),
    ] = None,
    output: OutputOption = OutputFormat.TABLE,
    address: AddressOption = None,
    debug: DebugOption = False,
) -> None:
    """Prints the messages of a collection, a VChannel or a PChannel.

    Ends at the present end unless --follow is given. With -o json, a payload is text when it is
    UTF-8, else base64; payload_encoding says which. Messages of a transaction carry its txn_id; to
    go on behind one, use the token of its last message.
    """
    settings = settings_of(context, address, debug)
    _check_start(start)

    async def command() -> None:
        only = Only(types=frozenset(map(_type, types or ())))
        async with StreamingClient.connect(settings.address) as wal:
            channels = await _channels(wal, target)
            if len(channels) > 1 and start not in ("earliest", "latest"):
                raise CommandError(
                    f"--from {start} is a place in one channel, but {target} has "
                    f"{len(channels)}: tail one of {', '.join(channels)}",
                    WRONG_USE,
                )
            printer = StreamPrinter(output, _WIDTHS)
            async with asyncio.TaskGroup() as tasks:
                prints = [
                    tasks.create_task(_print(wal, channel, start, follow, only, printer))
                    for channel in channels
                ]
        if follow and all(each.result() for each in prints):
            print(f"walplane: {target} was dropped: nothing more comes", file=sys.stderr)

    run(settings, command)


def _check_start(start: str) -> None:
    try:
        start_position(start)
    except WalError as error:
        raise typer.BadParameter(f"--from {error.message}") from error


def _type(name: str) -> MessageType:
    try:
        return MessageType[name.upper().replace("-", "_")]
    except KeyError:
        known = ", ".join(each.name for each in MessageType)
        raise CommandError(f"there is no message type {name!r}: {known}", WRONG_USE) from None


async def _channels(wal: StreamingClient, target: str) -> list[str]:
    """The channels that `target` names."""
    if target in wal.topology().assignments or is_vchannel(target):
        return [target]
    try:
        return list((await wal.describe_collection(target)).vchannels)
    except WalError as error:
        if error.code is not ErrorCode.INVALID_ARGUMENT:
            raise
        raise CommandError(
            f"there is no collection, VChannel or PChannel {target!r}: see "
            "`walplane collection list` and `walplane topology`"
        ) from error


async def _print(
    wal: StreamingClient,
    channel: str,
    start: str,
    follow: bool,
    only: Only,
    printer: StreamPrinter,
) -> bool:
    """Prints a channel to its end; gives whether that is the end for ever, since it was dropped."""
    may_end = not is_cchannel(channel) and is_vchannel(channel)
    reader = wal.reader(channel, start=start, follow=follow, only=only)
    async with reader:
        async for batch in reader.batches():
            rows: list[dict[str, Any]] = []
            for message in batch:
                rows.append(as_row(message, printer.output is OutputFormat.TABLE))
                if len(rows) == _PRINT_MESSAGES:
                    await printer.write(rows)
                    rows = []
            if rows:
                await printer.write(rows)
            if may_end and batch.type is MessageType.DROP_COLLECTION:
                return True
    return False


def as_row(message: ImmutableMessage, short: bool = False) -> dict[str, Any]:
    """A message as it is printed; `short` cuts the payload for a table."""
    last_confirmed = message.last_confirmed_message_id
    payload, encoding = _text(message.payload)
    if short and len(payload) > _TEXT_COLUMNS:
        payload = f"{payload[:_TEXT_COLUMNS]}…"
    row = {
        "time_tick": message.time_tick,
        "message_id": str(message.message_id),
        "last_confirmed_message_id": "earliest" if last_confirmed is None else str(last_confirmed),
        "resume_token": str(message.resume_token),
        "type": message.type.name,
        "vchannel": message.vchannel,
        "rows": _rows(message),
        "payload": payload,
        "payload_encoding": encoding,
    }
    if message.txn_id:
        row["txn_id"] = message.txn_id
    return row


def _rows(message: ImmutableMessage) -> int:
    """Rows of one message: those of an entry add up to what the entry says, which is all it says.

    Where its payloads cannot have one row each, the first message stands for all.
    """
    if message.type not in DATA_TYPES:
        return 0
    count = message.batch.envelope.count
    rows: int = getattr(message.batch.header, "rows", 0) or count
    if rows == count:
        return 1
    return rows if message.message_index == 0 else 0


def _text(payload: bytes) -> tuple[str, str]:
    try:
        return payload.decode(), "utf-8"
    except UnicodeDecodeError:
        return base64.b64encode(payload).decode(), "base64"
