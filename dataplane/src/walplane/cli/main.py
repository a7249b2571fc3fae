"""The `walplane` command: its tree of commands, global options, and wrong use. Layer: cli."""

from __future__ import annotations

import sys

import typer

from walplane.cli import (
    append,
    cluster,
    collection,
    coord,
    ingest,
    node,
    standalone,
    tail,
    verify,
)
from walplane.cli.errors import INTERRUPTED, one_line
from walplane.cli.options import (
    DEFAULT_ADDRESS,
    DebugOption,
    GlobalAddressOption,
    Settings,
    examples,
)
from walplane.cli.output import STANDARD_OUTPUT, open_standard_streams
from walplane.cli.run import report
from walplane.runtime import keep_large_buffers

app = typer.Typer(
    name="walplane",
    help="A streaming write-ahead log: one durable, ordered log from client to tailing reader.",
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["--help", "-h"]},
    epilog=examples(
        "walplane standalone --data ./data --pchannels 16",
        "walplane collection create flights --shards 4",
        "walplane ingest flights.csv --collection flights --key tailnum",
        "walplane tail flights --from earliest -o json",
        "walplane --install-completion",
    ),
)


@app.callback(invoke_without_command=True)
def global_options(
    context: typer.Context,
    address: GlobalAddressOption = None,
    debug: DebugOption = False,
) -> None:
    """Takes the options that stand before the command."""
    context.obj = Settings(address or DEFAULT_ADDRESS, debug)
    if context.invoked_subcommand is None:
        print(context.get_help())
        raise typer.Exit(0)


app.command("standalone", epilog=standalone.EXAMPLES)(standalone.standalone)
app.command("node", epilog=node.EXAMPLES)(node.node)
app.command("coord", epilog=coord.EXAMPLES)(coord.coord)
app.add_typer(collection.app, name="collection")
app.command("ingest", epilog=ingest.EXAMPLES)(ingest.ingest)
app.command("append", epilog=append.EXAMPLES)(append.append)
app.command("tail", epilog=tail.EXAMPLES)(tail.tail)
app.command("topology", epilog=cluster.TOPOLOGY_EXAMPLES)(cluster.topology)
app.command("status", epilog=cluster.STATUS_EXAMPLES)(cluster.status)
app.command("verify", epilog=verify.EXAMPLES)(verify.verify)
app.command("version", epilog=cluster.VERSION_EXAMPLES)(cluster.version)


def main(arguments: list[str] | None = None) -> int:
    """Runs the command line and returns the exit code: the entry point of the console script."""
    try:
        open_standard_streams()
        keep_large_buffers()
        code = app(arguments, prog_name="walplane", standalone_mode=False)
    except typer.TyperException as error:
        print(_wrong_use(error), file=sys.stderr)
        return error.exit_code
    except (typer.Abort, KeyboardInterrupt):
        return INTERRUPTED
    except OSError as error:  # of the output: help and version run outside of `run`
        error.filename = error.filename or STANDARD_OUTPUT
        return report(error, debug=False)
    return code if isinstance(code, int) else 0


def _wrong_use(error: typer.TyperException) -> str:
    """One line: the command, what is wrong, and where the right use stands."""
    context = getattr(error, "ctx", None)
    command = context.command_path if context is not None else "walplane"
    text = one_line(error.format_message()).rstrip(".")
    return f"{command}: {text} (see `{command} --help`)"
