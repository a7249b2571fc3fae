"""`walplane node`: one StreamingNode of a cluster in Kubernetes. Layer: cli."""

from __future__ import annotations

from typing import Annotated

import typer

from walplane.cli.logs import LogFormat, LogLevel, configure_logging
from walplane.cli.options import (
    LogFormatOption,
    LogLevelOption,
    MetricsOption,
    RetentionOption,
    SegmentStoreOption,
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
from walplane.cli.run import check_segment_store, needs, run
from walplane.cli.serving import stop_on_signals
from walplane.runtime import Runtime
from walplane.wal.config import RETENTION_S

EXAMPLES = examples(
    "walplane node --backend pulsar://pulsar:6650 --coord demo-coord:7650 --listen 0.0.0.0:7651"
)


def node(
    context: typer.Context,
    backend: BackendOption,
    coord: Annotated[
        str,
        typer.Option(
            envvar="WALPLANE_COORD",
            metavar="HOST:PORT",
            callback=parse_address,
            help="The coordinator.",
        ),
    ],
    cluster: ClusterOption,
    pod: PodOption,
    pod_uid: PodUidOption,
    namespace: NamespaceOption = "default",
    cluster_uid: ClusterUidOption = "",
    listen: Annotated[
        str,
        typer.Option(
            envvar="WALPLANE_LISTEN",
            metavar="HOST:PORT",
            callback=parse_address,
            help="Where to listen.",
        ),
    ] = "0.0.0.0:7651",
    advertise: AdvertiseOption = None,
    lease_seconds: LeaseOption = 10.0,
    segment_store: SegmentStoreOption = "",
    retention_seconds: RetentionOption = RETENTION_S,
    grace_seconds: Annotated[
        float,
        typer.Option(
            envvar="WALPLANE_GRACE_SECONDS",
            min=0,
            metavar="SECONDS",
            help="Between SIGTERM and SIGKILL: how long to wait for others to take over.",
        ),
    ] = 120.0,
    metrics: MetricsOption = None,
    log_level: LogLevelOption = LogLevel.INFO,
    log_format: LogFormatOption = LogFormat.TEXT,
    debug: PodDebugOption = False,
) -> None:
    """Runs one StreamingNode: opens what the PChannel Leases grant to this pod.

    The operator starts it; every option may come from the environment. SIGTERM drains: the node
    serves on until its PChannels are elsewhere, then the process ends.
    """
    settings = settings_of(context, None, debug)
    configure_logging(log_level, log_format)

    async def main() -> None:
        wiring = needs("node", "walplane.cli.node_wiring")
        check_segment_store(segment_store)
        who = Pod(
            identity=new_identity(pod, pod_uid, Runtime.system()),
            cluster=cluster,
            cluster_uid=cluster_uid,
            namespace=namespace,
            lease_s=lease_seconds,
            listen=listen,
            advertise=advertised(listen, advertise),
        )
        options = wiring.NodeOptions(
            who, backend, coord, grace_seconds, segment_store, retention_seconds, metrics
        )
        await wiring.run_node(options, stop_on_signals())

    run(settings, main, logs=False)
