"""Who serves which PChannel, kept up to date from the coordinator's discovery stream.

Contract: holds the newest full snapshot; one of a lower version is dropped, and an assignment of a
lower term than already seen never replaces the known one. The stream is reopened with backoff for
as long as the client lives. Errors that clients meet are reported on it. Layer: client.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace

import grpc
import structlog

from walplane.client.config import ClientConfig
from walplane.rpc.channel import check_cancelled, ended_from_afar
from walplane.rpc.errors import ErrorCode, WalError
from walplane.rpc.v1 import coord_pb2, coord_pb2_grpc

_log = structlog.get_logger(__name__)

_REPORTER_ENDS_S = 1.0
_MAX_REPORTS = 1024
ASSIGNED = "ASSIGNED"


@dataclass(frozen=True)
class Assignment:
    """One PChannel's place.

    Attributes:
        pchannel: its name.
        term: under which it is, or is to be, served.
        node_id: the owner's identity; empty while there is none.
        address: the owner's host:port; empty while there is none.
        state: UNINITIALIZED, ASSIGNING, ASSIGNED or UNAVAILABLE.
        vchannels: how many it carries.
        reason: why it is not served, when it is not.
    """

    pchannel: str
    term: int
    node_id: str = ""
    address: str = ""
    state: str = ""
    vchannels: int = 0
    reason: str = ""

    @property
    def served(self) -> bool:
        """Whether an owner takes appends and reads."""
        return self.state == ASSIGNED and bool(self.node_id)

    @classmethod
    def from_proto(cls, proto: coord_pb2.ChannelAssignment) -> Assignment:
        """The assignment from the wire."""
        state = coord_pb2.ChannelState.Name(proto.state).removeprefix("CHANNEL_STATE_")
        return cls(
            proto.pchannel,
            proto.term,
            proto.node_id,
            proto.address,
            state,
            proto.vchannels,
            proto.reason,
        )


@dataclass(frozen=True)
class Topology:
    """One snapshot of the cluster.

    Attributes:
        version: (coordinator's term, change under that term); grows.
        assignments: by PChannel.
        cchannel: name of the control channel.
    """

    version: tuple[int, int] = (0, 0)
    assignments: Mapping[str, Assignment] = field(default_factory=dict)
    cchannel: str = ""

    def merged(self, response: coord_pb2.DiscoverResponse) -> Topology:
        """This snapshot brought up to date; itself when `response` is older."""
        version = (response.version_global, response.version_local)
        if version < self.version:
            return self
        assignments: dict[str, Assignment] = {}
        for proto in response.assignments:
            new = Assignment.from_proto(proto)
            known = self.assignments.get(new.pchannel)
            stale = known is not None and known.term > new.term
            assignments[new.pchannel] = known if known is not None and stale else new
        return replace(self, version=version, assignments=assignments, cchannel=response.cchannel)


class Discovery:
    """Follows one cluster's topology.

    Args:
        channel: to the coordinator; stays the caller's.
        address: its host:port, for error messages.
        config: backoff.
        on_change: told of each new topology.
    """

    def __init__(
        self,
        channel: grpc.aio.Channel,
        address: str,
        config: ClientConfig,
        on_change: Callable[[Topology], None] = lambda _: None,
    ) -> None:
        """Follows nothing yet; `start` begins."""
        self._on_change = on_change
        self._stub = coord_pb2_grpc.StreamingCoordStub(channel)
        self._address = address
        self._config = config
        self._topology = Topology()
        self._changed = asyncio.Event()
        self._reports: asyncio.Queue[coord_pb2.AssignmentError] = asyncio.Queue(_MAX_REPORTS)
        self._reported: dict[tuple[str, ErrorCode], int] = {}  # under which term, latest
        self._task: asyncio.Task[None] | None = None
        self._last_error = "no answer"

    async def start(self, timeout: float) -> None:  # noqa: ASYNC109 - part of the public surface
        """Begins to follow; returns with the first snapshot.

        Raises:
            WalError: ON_SHUTDOWN, one clear line, when there is none within `timeout` seconds.
        """
        self._task = asyncio.create_task(self._follow(), name="discovery")
        try:
            async with asyncio.timeout(timeout):
                await self._first_snapshot(self._task)
        except TimeoutError:
            await self.close()
            raise WalError(
                ErrorCode.ON_SHUTDOWN,
                f"no walplane at {self._address}: {self._last_error}; start one with `walplane "
                "standalone`, or give the address of one that runs (--address)",
            ) from None
        except BaseException:
            await self.close()
            raise

    async def _first_snapshot(self, following: asyncio.Task[None]) -> None:
        arrived = asyncio.create_task(self._change())
        try:
            await asyncio.wait({following, arrived}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            arrived.cancel()
        if following.done():
            following.result()

    async def close(self) -> None:
        """Ends the stream; idempotent."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait([task])

    @property
    def topology(self) -> Topology:
        """The newest snapshot."""
        return self._topology

    def known(self, pchannel: str) -> Assignment:
        """What is known of `pchannel`, served or not.

        Raises:
            WalError: CHANNEL_NOT_EXIST when the cluster has no such PChannel.
        """
        assignment = self._topology.assignments.get(pchannel)
        if assignment is None:
            raise WalError(
                ErrorCode.CHANNEL_NOT_EXIST,
                f"there is no PChannel {pchannel} in the cluster at {self._address}: "
                "see `walplane topology`",
            )
        return assignment

    async def served(
        self, pchannel: str, *, unlike: Assignment | None = None, patience_s: float = 0.0
    ) -> Assignment:
        """Waits until `pchannel` is served and returns by whom.

        Args:
            pchannel: its name.
            unlike: an owner that just failed; it is returned again only after `patience_s`.
            patience_s: seconds to wait for another owner than `unlike`.

        Raises:
            WalError: CHANNEL_NOT_EXIST when the cluster has no such PChannel.
        """
        try:
            async with asyncio.timeout(patience_s if unlike is not None else None):
                while True:
                    assignment = self.known(pchannel)
                    if assignment.served and not _same_owner(assignment, unlike):
                        return assignment
                    await self._change()
        except TimeoutError:
            return await self.served(pchannel)

    async def wait_for_assignment(
        self,
        pchannel: str,
        timeout: float,  # noqa: ASYNC109 - part of the public surface
    ) -> Assignment:
        """As `served`, for at most `timeout` seconds.

        Raises:
            WalError: CHANNEL_NOT_EXIST when there is no such PChannel; INNER, with the
                coordinator's reason, when nobody serves it in time.
        """
        try:
            async with asyncio.timeout(timeout):
                return await self.served(pchannel)
        except TimeoutError:
            raise WalError(ErrorCode.INNER, self.why_unserved(pchannel)) from None

    def why_unserved(self, pchannel: str) -> str:
        """One sentence about a PChannel that nobody serves."""
        assignment = self.known(pchannel)
        reason = f": {assignment.reason}" if assignment.reason else ""
        return f"nobody serves {pchannel} (it is {assignment.state}{reason})"

    async def moved(self, assignment: Assignment) -> None:
        """Waits until the PChannel is given out under a higher term than `assignment`."""
        while True:
            known = self._topology.assignments.get(assignment.pchannel)
            if known is not None and known.served and known.term > assignment.term:
                return
            await self._change()

    def report(self, assignment: Assignment, error: WalError) -> None:
        """Tells the coordinator, once per term and code, that the owner does not serve.

        It does not take every code, so one must not stand for all that follow.
        """
        told = (assignment.pchannel, error.code)
        if self._reported.get(told, 0) >= assignment.term:
            return
        with suppress(asyncio.QueueFull):
            self._reports.put_nowait(
                coord_pb2.AssignmentError(
                    pchannel=assignment.pchannel, term=assignment.term, error=error.to_proto()
                )
            )
            self._reported[told] = assignment.term

    async def _change(self) -> None:
        await self._changed.wait()

    async def _follow(self) -> None:
        delay = self._config.backoff_min_s
        while True:
            before, longest = self._topology, self._config.backoff_max_s
            try:
                await self._follow_once()
                self._last_error = "the discovery stream ended"
            except grpc.aio.AioRpcError as error:
                # One that stands by says when to connect again: another may answer then.
                longest = self._note(error) or longest
            except asyncio.CancelledError:
                if not ended_from_afar():
                    raise
                self._last_error = "the discovery stream was cancelled"
            except WalError:
                raise  # nobody to follow: told to whoever starts this client
            except Exception as error:  # a client without discovery would be lost, and not know why
                self._last_error = repr(error)
                _log.exception("discovery failed", address=self._address)
            check_cancelled()
            if self._topology is not before:
                delay = self._config.backoff_min_s
            await asyncio.sleep(min(delay, longest))
            delay = min(delay * 2, self._config.backoff_max_s)

    async def _follow_once(self) -> None:
        call = self._stub.Discover()
        self._reported.clear()
        reporter = asyncio.create_task(self._send_reports(call), name="discovery-reports")
        try:
            async for response in call:
                self._take(response)
        finally:
            reporter.cancel()
            call.cancel()
            await asyncio.wait([reporter], timeout=_REPORTER_ENDS_S)

    async def _send_reports(
        self,
        call: grpc.aio.StreamStreamCall[coord_pb2.DiscoverRequest, coord_pb2.DiscoverResponse],
    ) -> None:
        with suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
            await call.write(coord_pb2.DiscoverRequest())
            while True:
                error = await self._reports.get()
                await call.write(coord_pb2.DiscoverRequest(errors=[error]))

    def _take(self, response: coord_pb2.DiscoverResponse) -> None:
        topology = self._topology.merged(response)
        if topology is self._topology:
            return
        self._topology = topology
        self._on_change(topology)
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    def _note(self, error: grpc.aio.AioRpcError) -> float:
        """Keeps why the stream ended; returns after how many seconds to try again, 0 unsaid."""
        if error.code() == grpc.StatusCode.UNIMPLEMENTED:
            self._last_error = "a gRPC server is there, but it is no walplane coordinator"
            if not self._topology.assignments:
                raise WalError(
                    ErrorCode.ON_SHUTDOWN, f"no walplane at {self._address}: {self._last_error}"
                )
        self._last_error = _readable(error)
        _log.debug("discovery stream ended", address=self._address, error=self._last_error)
        return WalError.from_rpc(error, self._address).retry_after_ms / 1000


def _readable(error: grpc.aio.AioRpcError) -> str:
    """The last link of grpc's chain of reasons, which is the one that says what happened."""
    details = error.details() or error.code().name
    reason = details.rpartition("connect: ")[2] if "connect: " in details else details
    return reason.splitlines()[0] if reason else error.code().name


def _same_owner(assignment: Assignment, other: Assignment | None) -> bool:
    return other is not None and (assignment.term, assignment.node_id, assignment.address) == (
        other.term,
        other.node_id,
        other.address,
    )
