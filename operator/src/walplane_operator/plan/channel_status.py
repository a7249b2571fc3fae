"""Status of one PChannel. Pure. Layer: plan.

Contract: state changes are told at once; numbers only when their text changes or the time of the
report has grown old, so that an idle cluster writes little. A term never goes back: the Lease
decides, the status mirrors it.
"""

from __future__ import annotations

import enum
from datetime import UTC, datetime, timedelta

from walplane.ticks import TICKS_PER_MS
from walplane_operator.api import names
from walplane_operator.api.conditions import Condition, find, merge
from walplane_operator.api.leases import ChannelReport
from walplane_operator.api.names import Object
from walplane_operator.api.times import parse_time, second_time
from walplane_operator.plan.channels import LEASE_CONFLICT, ChannelMemory, ChannelView, Phase
from walplane_operator.plan.observed import Observed

HISTORY = 10
REFRESH_S = 60.0
"""A report is copied at least this often."""
_MAX_MESSAGE = 2048
_REPEATED = 2
"""Clashes in a row that are no coincidence any more."""
_QUARANTINED = "Quarantined"
_NUMBERS = ("timeTick", "watermark", "checkpoint", "reportedAt")
_TEXTS = ("vchannels", "timeTickLag", "checkpointLag")


class Change(enum.Enum):
    """How much two statuses differ."""

    NONE = "nothing to write"
    NUMBERS = "numbers, when the budget allows"
    STATE = "to be written at once"


def channel_status(observed: Observed, view: ChannelView, memory: ChannelMemory) -> Object:
    """The status that `view` shall have."""
    before: Object = view.pchannel.status if view.pchannel else {}
    if observed.cluster.embedded:
        status = _embedded(observed)
    else:
        status = _state(observed, view, memory)
    same = all(before.get(key) == status.get(key) for key in ("state", "term", "node"))
    status["since"] = before["since"] if same and "since" in before else second_time(observed.now)
    status |= _history(observed, view, memory, before)
    status |= _numbers(view, before)
    if conditions := _conditions(observed, view, status, before):
        status["conditions"] = conditions
    return status


def change(before: Object, after: Object, now: datetime) -> Change:
    """Whether `after` is to be written over `before`."""

    def differ(ignored: tuple[str, ...]) -> bool:
        keys = (before.keys() | after.keys()) - set(ignored)
        return any(before.get(key) != after.get(key) for key in keys)

    if differ(_NUMBERS + _TEXTS):
        return Change.STATE
    if differ(_NUMBERS):
        return Change.NUMBERS
    reported = parse_time(before.get("reportedAt"))
    old = reported is None or now - reported >= timedelta(seconds=REFRESH_S)
    return Change.NUMBERS if old and differ(()) else Change.NONE


def lag_text(milliseconds: int) -> str:
    """A lag as columns show it; coarse, so that it changes seldom."""
    seconds = milliseconds // 1000
    if seconds < 1:
        return "<1s"
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "m")):
        if seconds >= 2 * size:
            return f"{seconds // size}{unit}"
    return f"{seconds}s"


def _state(observed: Observed, view: ChannelView, memory: ChannelMemory) -> Object:
    serving = view.phase in (Phase.SERVED, Phase.RELEASING) and view.lease and view.lease.ready
    if serving:
        state = "Assigned"
    elif view.phase in (Phase.GRANTED, Phase.OPENING, Phase.RELEASING):
        state = "Assigning"
    else:
        state = "Unavailable" if view.known_term else "Uninitialized"
    status: Object = {"state": state}
    if view.known_term:
        status["term"] = view.known_term
    if view.pod and state != "Unavailable":
        status["node"] = view.pod
    reason, message = _why(observed, view, memory)
    attempts = memory.attempts
    if serving and view.report is not None and view.report.last_error:
        # It serves under this grant, and its node opens the log again by itself.
        attempts = view.report.attempts
        reason, message = view.report.reason or "Reopening", view.report.last_error
    status |= {"attempts": attempts} if attempts else {}
    status |= {"reason": reason[:64]} if reason else {}
    status |= {"message": message[:_MAX_MESSAGE]} if message else {}
    return status


def _why(observed: Observed, view: ChannelView, memory: ChannelMemory) -> tuple[str, str]:
    """(reason, message) of a PChannel that is not served, or whose Lease cannot be written."""
    if memory.clashes >= _REPEATED:
        return LEASE_CONFLICT, "its Lease changes whenever it is to be written: see who writes it"
    if view.phase in (Phase.SERVED, Phase.RELEASING):
        return "", ""
    if memory.attempts:
        return memory.reason, memory.message
    if view.phase is Phase.DEAD:
        return "NodeLost", f"{view.pod}: its session has ended"
    if view.phase is Phase.FREE and observed.leader is None:
        return "NoCoordinator", "waits for a coordinator that leads: an open needs its fresh tick"
    if view.phase is Phase.FREE and not any(n.usable for n in observed.nodes.values()):
        return "NoNode", "waits for a StreamingNode that is ready"
    return "", ""


def _embedded(observed: Observed) -> Object:
    """There are no Leases: the pod is ready when it serves every PChannel."""
    pod = observed.pods.get(names.node_pod(observed.cluster.name, 0))
    if pod is not None and pod.ready:
        return {"state": "Assigned", "node": pod.name}
    waiting = f" ({pod.waiting})" if pod is not None and pod.waiting else ""
    return {
        "state": "Unavailable",
        "reason": "NoNode",
        "message": f"waits for {names.node_pod(observed.cluster.name, 0)}{waiting}",
    }


def _history(
    observed: Observed, view: ChannelView, memory: ChannelMemory, before: Object
) -> Object:
    history: list[Object] = list(before.get("history") or [])
    known = history[0]["term"] if history else 0
    if view.lease is not None and view.term > known and view.pod:
        entry: Object = {
            "term": view.term,
            "node": view.pod,
            "since": second_time(view.lease.granted or observed.now),
        }
        if reason := memory.granted_for.get(view.term):
            entry["reason"] = reason[:64]
        history.insert(0, entry)
    return {"history": history[:HISTORY]} if history else {}


def _numbers(view: ChannelView, before: Object) -> Object:
    """What the holder reports; lags are blank when it is not there to report."""
    kept = {key: before[key] for key in (*_NUMBERS, "vchannels") if key in before}
    holder = view.holder
    if holder is None or not holder.alive or view.report is None:
        return kept
    renewed = holder.session.renewed
    if renewed is None:
        return kept
    report = view.report
    numbers: Object = {
        "vchannels": report.vchannels,
        "timeTick": report.time_tick,
        "watermark": report.watermark,
        "reportedAt": second_time(renewed),
    }
    if report.time_tick:
        numbers["timeTickLag"] = lag_text(max(0, _milliseconds(renewed) - _physical(report)))
    if report.checkpoint:
        numbers["checkpoint"] = report.checkpoint
        lag = report.watermark // TICKS_PER_MS - report.checkpoint // TICKS_PER_MS
        numbers["checkpointLag"] = lag_text(max(0, lag))
    return numbers


def _physical(report: ChannelReport) -> int:
    return report.time_tick // TICKS_PER_MS


def _milliseconds(moment: datetime) -> int:
    return int(moment.astimezone(UTC).timestamp() * 1000)


def _conditions(
    observed: Observed, view: ChannelView, status: Object, before: Object
) -> list[Object]:
    present = before.get("conditions") or []
    wanted = [_data_loss(status), _quarantined(view, status, find(present, _QUARANTINED))]
    # One that was never true is not spoken of.
    told = [w for w in wanted if w.status == "True" or find(present, w.type) is not None]
    if not told:
        return []
    generation = view.pchannel.generation if view.pchannel else 0
    return merge(present, told, generation, observed.now)


def _data_loss(status: Object) -> Condition:
    if status.get("reason") == "DataLoss":
        return Condition("DataLoss", "True", "LogDamaged", status.get("message", ""))
    return Condition("DataLoss", "False", "Served", "the log was opened without a loss")


def _quarantined(view: ChannelView, status: Object, before: Object | None) -> Condition:
    if status.get("reason") == _QUARANTINED:
        return Condition(_QUARANTINED, "True", "NotTakenIn", status.get("message", ""))
    served = status["state"] == "Assigned" and view.report is not None
    if before is not None and not served:
        # On the move nobody reports: whoever opens the log next says whether it still is.
        return Condition(_QUARANTINED, before["status"], before["reason"], before["message"])
    return Condition(_QUARANTINED, "False", "Served", "everything in the log was taken in")
