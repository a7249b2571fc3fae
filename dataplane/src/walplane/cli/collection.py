"""`walplane collection`: create, list, describe, flush, drop. Layer: cli."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Any

import typer

from walplane.cli.completion import collection_names
from walplane.cli.options import (
    AddressOption,
    DebugOption,
    OutputFormat,
    OutputOption,
    examples,
    settings_of,
)
from walplane.cli.output import show_object, show_rows
from walplane.cli.run import run
from walplane.client import CollectionInfo, StreamingClient
from walplane.coord.catalog import MAX_SHARDS, Catalog
from walplane.rpc.errors import WalError

app = typer.Typer(
    help="Collections: named streams of rows, spread over shards.",
    invoke_without_command=True,
    rich_markup_mode=None,
    epilog=examples(
        "walplane collection create flights --shards 4",
        "walplane collection list -o json",
        "walplane collection describe flights",
        "walplane collection flush flights",
        "walplane collection drop flights",
    ),
)
_NO_PREFIX = "*"  # no channel's name begins with it: those of this cluster are not known here
NameArgument = Annotated[
    str,
    typer.Argument(metavar="NAME", help="Name of the collection.", autocompletion=collection_names),
]
_COLUMNS = ("name", "collection_id", "shards", "created_tick")


@app.callback()
def no_command(context: typer.Context) -> None:
    """Shows the help when no command is named."""
    if context.invoked_subcommand is None:
        print(context.get_help())


@app.command("create", epilog=examples("walplane collection create flights --shards 4"))
def create(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the collection.")],
    shards: Annotated[
        int, typer.Option(min=1, max=MAX_SHARDS, metavar="N", help="VChannels it is spread over.")
    ] = 1,
    output: OutputOption = OutputFormat.TABLE,
    address: AddressOption = None,
    debug: DebugOption = False,
) -> None:
    """Creates a collection; returns once it can be used."""
    settings = settings_of(context, address, debug)
    _check_new(name, shards)

    async def command() -> None:
        async with StreamingClient.connect(settings.address) as wal:
            show_object(as_row(await wal.create_collection(name, shards)), output)

    run(settings, command)


def _check_new(name: str, shards: int) -> None:
    """Tells wrong use before the cluster is asked, by the coordinator's own rules."""
    try:
        Catalog(_NO_PREFIX).check_new(name, shards)
    except WalError as error:
        raise typer.BadParameter(error.message) from error


@app.command("list", epilog=examples("walplane collection list -o json"))
def list_all(
    context: typer.Context,
    output: OutputOption = OutputFormat.TABLE,
    address: AddressOption = None,
    debug: DebugOption = False,
) -> None:
    """Lists all collections."""
    settings = settings_of(context, address, debug)

    async def command() -> None:
        async with StreamingClient.connect(settings.address) as wal:
            show_rows([as_row(each) for each in await wal.list_collections()], _COLUMNS, output)

    run(settings, command)


@app.command("describe", epilog=examples("walplane collection describe flights -o yaml"))
def describe(
    context: typer.Context,
    name: NameArgument,
    output: OutputOption = OutputFormat.TABLE,
    address: AddressOption = None,
    debug: DebugOption = False,
) -> None:
    """Shows one collection with its VChannels."""
    settings = settings_of(context, address, debug)

    async def command() -> None:
        async with StreamingClient.connect(settings.address) as wal:
            show_object(as_row(await wal.describe_collection(name)), output)

    run(settings, command)


@app.command("flush", epilog=examples("walplane collection flush flights"))
def flush(
    context: typer.Context,
    name: NameArgument,
    output: OutputOption = OutputFormat.TABLE,
    address: AddressOption = None,
    debug: DebugOption = False,
) -> None:
    """Seals what grows of a collection: its rows come to the segment store now.

    Nodes without a segment store (--segment-store) seal it, too, and store nothing.
    """
    settings = settings_of(context, address, debug)

    async def command() -> None:
        async with StreamingClient.connect(settings.address) as wal:
            flushed = await wal.flush_collection(name)
            rows = [
                {"vchannel": each, "message_id": str(at.message_id), "time_tick": at.time_tick}
                for each, at in flushed.items()
            ]
            show_rows(rows, ("vchannel", "message_id", "time_tick"), output)

    run(settings, command)


@app.command("drop", epilog=examples("walplane collection drop flights"))
def drop(
    context: typer.Context,
    name: NameArgument,
    output: OutputOption = OutputFormat.TABLE,
    address: AddressOption = None,
    debug: DebugOption = False,
) -> None:
    """Drops a collection and everything in it."""
    settings = settings_of(context, address, debug)

    async def command() -> None:
        async with StreamingClient.connect(settings.address) as wal:
            dropped = await wal.drop_collection(name)
            show_object({"name": name, "collection_id": dropped, "dropped": True}, output)

    run(settings, command)


def as_row(info: CollectionInfo) -> dict[str, Any]:
    """A collection as it is printed."""
    row = dataclasses.asdict(info)
    return {**row, "shards": len(info.vchannels), "vchannels": list(info.vchannels)}
