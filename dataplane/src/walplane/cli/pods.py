"""What `walplane node` and `walplane coord` have in common: options, environment, ends. Layer: cli.

Contract: every option may come from the environment that the operator's manifests set
(docs/kubernetes.md, Pods), so that outside of Kubernetes a process is started by its flags alone.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

import structlog
import typer

from walplane.backends.interface import Backend
from walplane.backends.registry import open_backend
from walplane.cli.errors import CommandError
from walplane.cli.options import parse_address
from walplane.cli.serving import WILDCARDS
from walplane.lease.contract import Identity
from walplane.lease.session import Session
from walplane.lease.store import ApiError
from walplane.rpc.errors import ErrorCode, WalError
from walplane.runtime import Runtime

_log = structlog.get_logger(__name__)

_RETRY_S = (0.5, 5.0)
GRACE_S = 1.0
"""How long calls under way have when the port is closed, in seconds."""

_INCARNATION_BYTES = 4

_Result = TypeVar("_Result")

BackendOption = Annotated[
    str,
    typer.Option(
        envvar="WALPLANE_BACKEND",
        metavar="URL",
        help="What stores the log: pulsar://HOST:PORT?admin=URL&namespace=TENANT/NAMESPACE.",
    ),
]
AdvertiseOption = Annotated[
    str | None,
    typer.Option(
        envvar="WALPLANE_ADVERTISE",
        metavar="HOST:PORT",
        callback=parse_address,
        help="Address that others are told; the pod's IP and the port of --listen if not given.",
    ),
]
ClusterOption = Annotated[
    str, typer.Option(envvar="WALPLANE_CLUSTER", metavar="NAME", help="Name of the WALCluster.")
]
ClusterUidOption = Annotated[
    str,
    typer.Option(
        envvar="WALPLANE_CLUSTER_UID",
        metavar="UID",
        help="Uid of the WALCluster: whose the topics are. Empty: nobody's in particular.",
    ),
]
NamespaceOption = Annotated[
    str, typer.Option(envvar="WALPLANE_NAMESPACE", metavar="NAME", help="Namespace of the Leases.")
]
PodOption = Annotated[
    str,
    typer.Option(
        envvar="WALPLANE_POD_NAME", metavar="NAME", help="Name of this pod, and of its Lease."
    ),
]
PodUidOption = Annotated[
    str, typer.Option(envvar="WALPLANE_POD_UID", metavar="UID", help="Uid of this pod.")
]
LeaseOption = Annotated[
    float,
    typer.Option(
        envvar="WALPLANE_LEASE_SECONDS",
        min=1,
        metavar="SECONDS",
        help="Who has not renewed its session for this long is taken for dead.",
    ),
]
PodDebugOption = Annotated[
    bool,
    typer.Option(
        "--debug", envvar="WALPLANE_DEBUG", help="Print a stack trace when something fails."
    ),
]


@dataclass(frozen=True)
class Pod:
    """One process of a cluster.

    Attributes:
        identity: of the process.
        cluster: name of the WALCluster.
        cluster_uid: its uid; empty when it has none.
        namespace: of the Leases.
        lease_s: duration of the session Lease.
        listen: host:port.
        advertise: host:port that others are told.
    """

    identity: Identity
    cluster: str
    cluster_uid: str
    namespace: str
    lease_s: float
    listen: str
    advertise: str

    @property
    def call_timeout_s(self) -> float:
        """For one call of the API server: a session must survive one that hangs."""
        return min(self.lease_s / 3, 5.0)

    @property
    def owner(self) -> str:
        """The claim on the cluster's topics; empty when they are nobody's in particular."""
        return f"{self.namespace}/{self.cluster}/{self.cluster_uid}" if self.cluster_uid else ""


def new_identity(pod: str, uid: str, runtime: Runtime) -> Identity:
    """Of this very process.

    Raises:
        CommandError: pod or uid are no part of a name.
    """
    for what, text in (("pod", pod), ("pod uid", uid)):
        if not text or "_" in text:
            raise CommandError(f"{text!r} is no {what}: no _ may be in it")
    return Identity(pod, uid, runtime.new_id(_INCARNATION_BYTES).hex())


def advertised(listen: str, advertise: str | None) -> str:
    """What others are told: a wildcard is no address.

    Raises:
        CommandError: nothing says where this process is reached.
    """
    if advertise:
        return advertise
    host, _, port = listen.rpartition(":")
    if host in WILDCARDS:
        host = os.environ.get("WALPLANE_POD_IP", "")
        if not host:
            raise CommandError("say --advertise HOST:PORT, or set WALPLANE_POD_IP")
        host = f"[{host}]" if ":" in host else host
    return f"{host}:{port}"


async def backend_when_there(
    url: str, note: Callable[[WalError], None], *, patient: bool = False
) -> Backend:
    """The backend, however long it takes to be there; `note` is told why it takes long.

    Raises:
        WalError: INVALID_ARGUMENT for a wrong URL, unless `patient`.
    """
    pause, most = _RETRY_S
    while True:
        try:
            return await open_backend(url)
        except WalError as error:
            if error.code is ErrorCode.INVALID_ARGUMENT and not patient:
                raise
            _log.warning("the backend is not there yet", error=str(error))
            note(error)
        await asyncio.sleep(pause)
        pause = min(pause * 2, most)


async def unless(work: Awaitable[_Result], *ends: asyncio.Future[Any]) -> _Result | None:
    """The result of `work`, which is cancelled as soon as one of `ends` is done: None then."""
    doing = asyncio.ensure_future(work)
    try:
        await asyncio.wait({doing, *ends}, return_when=asyncio.FIRST_COMPLETED)
        return doing.result() if doing.done() else None
    finally:
        doing.cancel()
        await asyncio.wait({doing})
        if not doing.cancelled():
            doing.exception()  # it came too late to matter


async def within(seconds: float, work: Awaitable[object], what: str) -> bool:
    """Whether `work` was done in time; if not, that is logged."""
    try:
        async with asyncio.timeout(seconds):
            await work
    except TimeoutError:
        _log.warning("not done in time", what=what, seconds=seconds)
        return False
    return True


async def end_session(session: Session, pod: Pod) -> None:
    """Deletes the session Lease of this process, or leaves it to expire."""
    try:
        await within(pod.lease_s, session.end(), "deleting the session")
    except ApiError as error:
        _log.warning("the session Lease is left to expire", error=str(error))
