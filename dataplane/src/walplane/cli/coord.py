"""`walplane coord`: a coordinator of a cluster in Kubernetes. Layer: cli."""

from __future__ import annotations

from typing import Annotated

import typer

from walplane.channel import MAX_PCHANNELS
from walplane.cli.logs import LogFormat, LogLevel, configure_logging
from walplane.cli.options import (
    LogFormatOption,
    LogLevelOption,
    MetricsOption,
    examples,
    parse_address,
    settings_of,
)
from walplane.cli.pods import (
    AdvertiseOption,
    BackendOption,
    ClusterOption,
    ClusterUidOption,
    LeaseOption,
    NamespaceOption,
    Pod,
    PodDebugOption,
    PodOption,
    PodUidOption,
    advertised,
    new_identity,
)
from walplane.cli.run import needs, run
from walplane.cli.serving import stop_on_signals
from walplane.runtime import Runtime

EXAMPLES = examples(
    "walplane coord --backend pulsar://pulsar:6650 --prefix demo --pchannels 16 "
    "--listen 0.0.0.0:7650"
)


def coord(
    context: typer.Context,
    backend: BackendOption,
    prefix: Annotated[
        str, typer.Option(envvar="WALPLANE_PREFIX", metavar="NAME", help="Of the PChannels' names.")
    ],
    cluster: ClusterOption,
    pod: PodOption,
    pod_uid: PodUidOption,
    namespace: NamespaceOption = "default",
    cluster_uid: ClusterUidOption = "",
    pchannels: Annotated[
        int | None,
        typer.Option(
            envvar="WALPLANE_PCHANNELS",
            min=1,
            max=MAX_PCHANNELS,
            metavar="N",
            help="PChannels; may only grow. As many as there are, or 16, if not given.",
        ),
    ] = None,
    listen: Annotated[
        str,
        typer.Option(
            envvar="WALPLANE_LISTEN",
            metavar="HOST:PORT",
            callback=parse_address,
            help="Where to listen.",
        ),
    ] = "0.0.0.0:7650",
    advertise: AdvertiseOption = None,
    adopt: Annotated[
        str,
        typer.Option(
            envvar="WALPLANE_ADOPT",
            metavar="UID",
            help="Uid of the WALCluster whose topics are taken over; empty: none.",
        ),
    ] = "",
    lease_seconds: LeaseOption = 10.0,
    metrics: MetricsOption = None,
    log_level: LogLevelOption = LogLevel.INFO,
    log_format: LogFormatOption = LogFormat.TEXT,
    debug: PodDebugOption = False,
) -> None:
    """Runs a coordinator: of those that run, the holder of the Lease leads.

    The operator starts it; every option may come from the environment.
    """
    settings = settings_of(context, None, debug)
    configure_logging(log_level, log_format)

    async def main() -> None:
        wiring = needs("node", "walplane.cli.coord_wiring")
        who = Pod(
            identity=new_identity(pod, pod_uid, Runtime.system()),
            cluster=cluster,
            cluster_uid=cluster_uid,
            namespace=namespace,
            lease_s=lease_seconds,
            listen=listen,
            advertise=advertised(listen, advertise),
        )
        options = wiring.CoordOptions(who, backend, prefix, pchannels, adopt, metrics)
        await wiring.run_coord(options, stop_on_signals())

    run(settings, main, logs=False)
