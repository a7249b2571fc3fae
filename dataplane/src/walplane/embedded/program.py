"""The log inside a program that wants no server beside it. Layer: embedded."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial, wraps
from pathlib import Path
from typing import ParamSpec

from walplane.channel import InvalidChannelName, pchannel_name
from walplane.client import StreamingClient, SyncStreamingClient
from walplane.client.config import ClientConfig
from walplane.embedded.cluster import ClusterOptions, drained, start_cluster
from walplane.embedded.directory import backend_url, only_process
from walplane.embedded.until import Until
from walplane.rpc.errors import ErrorCode, WalError
from walplane.tracing import Tracing
from walplane.wal.config import RETENTION_S

_Options = ParamSpec("_Options")


@asynccontextmanager
async def open_embedded(
    data: Path | str,
    *,
    pchannels: int | None = None,
    listen: str = "127.0.0.1:0",
    backend: str = "rocksdb",
    segment_store: str = "",
    retention_s: float = RETENTION_S,
    prefix: str = "wal",
    config: ClientConfig | None = None,
    tracing: Tracing | None = None,
) -> AsyncIterator[StreamingClient]:
    """A cluster on the running event loop, for as long as the block lasts, and its client.

    What the client appends and reads goes to the log without gRPC between. Others may come too,
    the `walplane` command for one: at the client's `address`. The same directory can be served by
    `walplane standalone` at another time. When the block ends, what is in flight is answered and
    the logs are closed with a checkpoint; a program that is killed loses nothing that was
    acknowledged. Cancelling the block closes everything as well. What ends the coordinator, such as
    another one on the same backend, cancels the block, which raises why.

    Args:
        data: directory of the cluster; made if missing.
        pchannels: how many; may only grow. 16 for a new cluster if not given.
        listen: host:port; port 0 takes a free one.
        backend: `rocksdb`, below `data`, or the URL of another one.
        segment_store: URL or directory where segments go; empty = nowhere.
        retention_s: seconds that what is stored there stays in the log as well;
            infinity is for ever.
        prefix: of the PChannels' names; a log is found by it again.
        config: limits of the client.
        tracing: makes the client's spans; those of coordinator and node go where the process' own
            go, as these do by default.

    Raises:
        WalError: RESOURCE_ACQUIRED while another process has the directory; INVALID_ARGUMENT for
            what cannot be; UNRECOVERABLE for damage; what ended the coordinator.
    """
    _check(data, pchannels, prefix, retention_s)
    path = Path(data).absolute()  # noqa: ASYNC240 - asks for no disk
    options = ClusterOptions(
        listen=listen,
        advertise=listen,
        pchannels=pchannels,
        prefix=prefix,
        backend=backend_url(path, backend),
        segment_store=segment_store,
        retention_s=retention_s,
    )
    with only_process(path):
        async with drained() as taken:
            cluster = await start_cluster(options, taken)
            await cluster.served()
            await cluster.say_serving()
            local = {cluster.node.node_id: cluster.node}
            async with (
                Until(cluster.coord.stopped),
                StreamingClient.connect(
                    cluster.address, config=config, local_nodes=local, tracing=tracing
                ) as client,
            ):
                yield client


def _check(data: Path | str, pchannels: int | None, prefix: str, retention_s: float) -> None:
    """Refuses what cannot be, before anything is made.

    Raises:
        WalError: INVALID_ARGUMENT.
    """
    wrong = ""
    if not str(data):
        wrong = "no data directory: for the present one, give '.'"
    elif pchannels is not None and type(pchannels) is not int:  # a bool is none either
        wrong = f"{pchannels!r} PChannels: give a whole number"
    elif not retention_s >= 0:  # also of what is no number
        wrong = f"a retention of {retention_s:g} s: give 0 or more"
    try:
        pchannel_name(prefix, 0)
    except InvalidChannelName as error:
        wrong = wrong or str(error)
    if wrong:
        raise WalError(ErrorCode.INVALID_ARGUMENT, wrong)


def _blocking(
    opening: Callable[_Options, AbstractAsyncContextManager[StreamingClient]],
) -> Callable[_Options, SyncStreamingClient]:
    @wraps(opening)
    def opened(*args: _Options.args, **kwargs: _Options.kwargs) -> SyncStreamingClient:
        return SyncStreamingClient(partial(opening, *args, **kwargs))

    return opened


open_embedded_sync = _blocking(open_embedded)
"""As `open_embedded`, for a program without an event loop: `with open_embedded_sync(data) as wal`.

The cluster runs on a thread of its own, so a program that blocks delays no tick.
"""
