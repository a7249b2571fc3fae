"""`walplane standalone`: a whole cluster in one process. Layer: cli."""

from __future__ import annotations

import functools
import time
from pathlib import Path
from typing import Annotated

import typer

from walplane.backends.registry import scheme_of
from walplane.channel import MAX_PCHANNELS, InvalidChannelName, pchannel_name
from walplane.cli.logs import LogFormat, LogLevel, configure_logging
from walplane.cli.options import (
    DEFAULT_ADDRESS,
    DebugOption,
    LogFormatOption,
    LogLevelOption,
    MetricsOption,
    RetentionOption,
    SegmentStoreOption,
    examples,
    parse_address,
    settings_of,
)
from walplane.cli.run import check_segment_store, needs, run
from walplane.cli.serving import WILDCARDS, stop_on_signals
from walplane.rpc.errors import WalError
from walplane.wal.config import RETENTION_S

EXAMPLES = examples(
    "walplane standalone --data ./data",
    "walplane standalone --data ./data --listen 127.0.0.1:7650 --pchannels 16",
    "walplane standalone --data ./data --backend pulsar://127.0.0.1:6650",
    "walplane standalone --data ./data --segment-store s3://bucket/segments",
)


def _directory(text: str) -> Path:
    if not text:
        raise typer.BadParameter("no directory: give '.' for the present one")
    return Path(text)


def standalone(
    context: typer.Context,
    data: Annotated[
        Path,
        typer.Option(
            metavar="PATH", parser=_directory, help="Directory of the cluster; made if missing."
        ),
    ],
    listen: Annotated[
        str, typer.Option(metavar="HOST:PORT", callback=parse_address, help="Where to listen.")
    ] = DEFAULT_ADDRESS,
    pchannels: Annotated[
        int | None,
        typer.Option(min=1, max=MAX_PCHANNELS, metavar="N", help="May only grow; 16 if new."),
    ] = None,
    backend: Annotated[
        str,
        typer.Option(
            metavar="rocksdb|URL",
            help="What stores the log: rocksdb (embedded, below --data) or pulsar://HOST:PORT.",
        ),
    ] = "rocksdb",
    segment_store: SegmentStoreOption = "",
    retention_seconds: RetentionOption = RETENTION_S,
    prefix: Annotated[
        str,
        typer.Option(metavar="NAME", help="Of the PChannels' names; a log is found by it again."),
    ] = "wal",
    advertise: Annotated[
        str | None,
        typer.Option(
            metavar="HOST:PORT",
            callback=parse_address,
            help="Address that clients are told, if it is not the one of --listen.",
        ),
    ] = None,
    metrics: MetricsOption = None,
    log_level: LogLevelOption = LogLevel.INFO,
    log_format: LogFormatOption = LogFormat.TEXT,
    debug: DebugOption = False,
) -> None:
    """Runs a whole cluster in this process: no Kubernetes, no broker.

    Prints one line that starts with `ready` once every PChannel is served. SIGTERM and SIGINT
    drain: what is in flight is answered, then the process ends.
    """
    settings = settings_of(context, None, debug)
    _check(backend, prefix)
    configure_logging(log_level, log_format)

    async def main() -> None:
        began = time.monotonic()
        wiring = needs("standalone", "walplane.cli.wiring")
        embedded = needs("standalone", "walplane.embedded")
        directory = needs("standalone", "walplane.embedded.directory")
        check_segment_store(segment_store)
        cluster = embedded.ClusterOptions(
            listen=listen,
            advertise=advertise or _reachable(listen),
            pchannels=pchannels,
            prefix=prefix,
            backend=directory.backend_url(data, backend),
            segment_store=segment_store,
            retention_s=retention_seconds,
        )
        options = wiring.StandaloneOptions(data, cluster, metrics)
        ready = functools.partial(_ready, began)
        await wiring.run_standalone(options, stop_on_signals(), ready)

    run(settings, main, logs=False)


def _check(backend: str, prefix: str) -> None:
    """Tells wrong use before anything is made."""
    try:
        scheme_of(backend)
        pchannel_name(prefix, 0)
    except WalError as error:
        raise typer.BadParameter(error.message) from error
    except InvalidChannelName as error:
        raise typer.BadParameter(str(error)) from error


def _ready(began: float, address: str, pchannels: int) -> None:
    seconds = time.monotonic() - began
    print(f"ready at {address}: {pchannels} PChannels served after {seconds:.1f} s", flush=True)


def _reachable(listen: str) -> str:
    """What to tell clients: a wildcard is no address."""
    host, _, port = listen.rpartition(":")
    return f"127.0.0.1:{port}" if host in WILDCARDS else listen
