"""Options that commands share, and the settings they make. Layer: cli.

`--address` and `--debug` may stand before the command or after it; the later one wins.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Annotated

import typer

from walplane.cli.completion import collection_names
from walplane.cli.logs import LogFormat, LogLevel
from walplane.client.config import DEFAULT_ADDRESS as DEFAULT_ADDRESS


class OutputFormat(enum.StrEnum):
    """How results are printed."""

    JSON = "json"
    YAML = "yaml"
    TABLE = "table"


@dataclass(frozen=True)
class Settings:
    """What every command knows.

    Attributes:
        address: host:port of any node or coordinator of the cluster.
        debug: print stack traces.
    """

    address: str = DEFAULT_ADDRESS
    debug: bool = False


def parse_address(text: str | None) -> str | None:
    """`text` when it has the form host:port; None stays None.

    Raises:
        typer.BadParameter: it has another form.
    """
    if text is None:
        return None
    host, colon, port = text.rpartition(":")
    if not (host and colon and port.isascii() and port.isdigit() and int(port) < 65536):
        raise typer.BadParameter(f"{text!r} is not of the form host:port")
    return text


AddressOption = Annotated[
    str | None,
    typer.Option(
        "--address",
        "-a",
        metavar="HOST:PORT",
        callback=parse_address,
        help="The cluster: any node or coordinator of it.",
    ),
]
GlobalAddressOption = Annotated[
    str | None,
    typer.Option(
        "--address",
        "-a",
        metavar="HOST:PORT",
        envvar="WALPLANE_ADDRESS",
        callback=parse_address,
        help=f"The cluster: any node or coordinator of it; {DEFAULT_ADDRESS} if not given.",
    ),
]
DebugOption = Annotated[
    bool, typer.Option("--debug", help="Print a stack trace when something fails.")
]
CollectionOption = Annotated[
    str,
    typer.Option(metavar="NAME", help="Name of the collection.", autocompletion=collection_names),
]
TimeoutOption = Annotated[
    float,
    typer.Option(min=0.1, metavar="SECONDS", help="Seconds to wait for an acknowledgement."),
]
SegmentStoreOption = Annotated[
    str,
    typer.Option(
        envvar="WALPLANE_SEGMENT_STORE",
        metavar="URL",
        help="Where sealed segments go: s3://BUCKET/PREFIX, gs://, az://, or a directory that all "
        "nodes share. Without one, data stays in the log, which then only grows.",
    ),
]
RetentionOption = Annotated[
    float,
    typer.Option(
        "--retention-seconds",
        envvar="WALPLANE_RETENTION_SECONDS",
        min=0,
        metavar="SECONDS",
        help="How long what is stored as segments stays in the log as well, for readers; inf: for "
        "ever.",
    ),
]
OutputOption = Annotated[OutputFormat, typer.Option("--output", "-o", help="How to print it.")]


LogLevelOption = Annotated[LogLevel, typer.Option(envvar="WALPLANE_LOG_LEVEL", help="What to log.")]
LogFormatOption = Annotated[
    LogFormat, typer.Option(envvar="WALPLANE_LOG_FORMAT", help="How to log it.")
]
MetricsOption = Annotated[
    str | None,
    typer.Option(
        "--metrics",
        envvar="WALPLANE_METRICS",
        metavar="HOST:PORT",
        callback=parse_address,
        help="Where to serve metrics for Prometheus, as /metrics; nowhere if not given.",
    ),
]


def settings_of(context: typer.Context, address: str | None, debug: bool) -> Settings:
    """The settings of one command: its own options over the global ones."""
    outer = context.obj if isinstance(context.obj, Settings) else Settings()
    return Settings(address or outer.address, debug or outer.debug)


def examples(*commands: str) -> str:
    """The end of a help page: `commands`, one a line, as they are."""
    return "\b\nExamples:\n" + "\n".join(f"  {command}" for command in commands)
