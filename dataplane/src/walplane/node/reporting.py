"""What a node reports of its PChannels in its session Lease. Layer: node.

Contract: an entry for every PChannel that is held or being opened, and for every one whose last
grant failed here, until it is granted again. Idle logs move their watermark for it, so that its age
tells how far readers can be behind, not when somebody last appended.
"""

from __future__ import annotations

from dataclasses import replace

from walplane.lease.decide import Mode
from walplane.lease.follower import ChannelFollower, Follower
from walplane.lease.report import BACKEND_UNREACHABLE, ChannelReport, NodeReport
from walplane.node.streaming_node import StreamingNode
from walplane.rpc.errors import WalError
from walplane.wal.wal import WAL


def node_report(node: StreamingNode, follower: Follower, address: str) -> NodeReport:
    """The report of `node`, which serves at `address`."""
    channels: dict[str, ChannelReport] = {}
    for each in follower.followers:
        if each.local.active:
            channels[each.pchannel] = _held(node, each)
        elif each.last_error and (each.lease is None or each.lease.term <= each.local.over):
            channels[each.pchannel] = _said(each, each.local.over)
    return NodeReport(follower.mode is not Mode.STAYING, address, channels)


def _held(node: StreamingNode, each: ChannelFollower) -> ChannelReport:
    said = _said(each, each.local.term)
    try:
        wal = node.wal(each.pchannel, each.local.term)
    except WalError:
        return said
    return _measured(wal, said)


def _said(each: ChannelFollower, term: int) -> ChannelReport:
    return ChannelReport(
        term=term,
        term_floor=each.term_floor if each.term_floor > term else 0,
        reason=each.reason,
        last_error=each.last_error,
        attempts=each.attempts,
    )


def _measured(wal: WAL, said: ChannelReport) -> ChannelReport:
    wal.move_idle()
    status = wal.status()
    report = replace(
        said,
        time_tick=status.watermark,
        watermark=wal.settled_tick(),
        checkpoint=status.checkpoint_tick,
        vchannels=status.vchannels,
    )
    if status.condition:
        return replace(report, reason=status.condition, last_error=status.last_error)
    if status.state != "reopening":
        return report
    return replace(
        report,
        reason=BACKEND_UNREACHABLE,
        last_error=status.last_error,
        attempts=said.attempts + status.attempts,
    )
