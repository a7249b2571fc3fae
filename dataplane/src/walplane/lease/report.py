"""What a process says of itself in its session Lease: JSON in one annotation. Pure.

Contract: the annotation has at most `MAX_BYTES`, whatever the errors say: entries of what is
served without an error are left out first, then texts are cut, then entries left out whatever they
tell; how many are missing stands there. A reader takes what it knows and ignores the rest.
Layer: lease.
"""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from itertools import islice
from typing import Any, Protocol

from walplane.backends.claims import ClaimedByOtherError
from walplane.lease.store import ApiError
from walplane.rpc.errors import DAMAGE, ErrorCode, WalError
from walplane.wal.ports import StaleTerm

MAX_BYTES = 200_000
MAX_ERROR_CHARS = 300
MAX_CLIENT_ERRORS = 64

STALE_TERM = "StaleTerm"
DATA_LOSS = "DataLoss"
CLAIMED = "ClaimedByOther"
BACKEND_UNREACHABLE = "BackendUnreachable"
COORDINATOR_UNREACHABLE = "CoordinatorUnreachable"
OPEN_FAILED = "OpenFailed"
STOPPED = "Stopped"
"""Reasons of a node's errors."""


class CoordinatorAwayError(WalError):
    """The coordinator cannot be reached, or does not coordinate."""

    def __init__(self, message: str) -> None:
        """`message` names the coordinator."""
        super().__init__(ErrorCode.INNER, message)


def reason_of(error: BaseException, otherwise: str) -> str:
    """One word for why a PChannel is not served."""
    if isinstance(error, StaleTerm):
        return STALE_TERM
    if isinstance(error, ClaimedByOtherError):
        return CLAIMED
    if isinstance(error, CoordinatorAwayError):
        return COORDINATOR_UNREACHABLE
    if not isinstance(error, WalError) or isinstance(error, ApiError):
        return otherwise
    if error.code in DAMAGE:
        return DATA_LOSS
    return BACKEND_UNREACHABLE if error.code is ErrorCode.INNER else otherwise


@dataclass(frozen=True)
class ChannelReport:
    """One PChannel, by a node.

    Attributes:
        term: of the grant this speaks of.
        term_floor: highest term seen in its log.
        time_tick: up to here readers were told, idle ticks included.
        watermark: up to here everything written is settled.
        checkpoint: tick of the checkpoint; 0 = none.
        vchannels: how many it carries.
        reason: one word for `last_error`.
        last_error: one sentence; empty when all is well.
        attempts: failed attempts in a row.
    """

    term: int = 0
    term_floor: int = 0
    time_tick: int = 0
    watermark: int = 0
    checkpoint: int = 0
    vchannels: int = 0
    reason: str = ""
    last_error: str = ""
    attempts: int = 0


_Shown = dict[str, dict[str, Any]]
"""Entries as they are written, by PChannel."""


@dataclass(frozen=True)
class NodeReport:
    """What a node says.

    Attributes:
        draining: it takes nothing new and wants to be rid of what it has.
        address: host:port where it serves.
        channels: by PChannel.
    """

    draining: bool = False
    address: str = ""
    channels: Mapping[str, ChannelReport] = field(default_factory=dict)

    def to_json(self) -> str:
        """The annotation's text; equal reports give equal texts."""
        shown = {name: _shown(self.channels[name]) for name in sorted(self.channels)}
        if _size(text := self._dump(shown)) <= MAX_BYTES:
            return text
        shown = {n: each for n, each in shown.items() if each["lastError"] or not each["timeTick"]}
        chars = MAX_ERROR_CHARS
        while _size(text := self._dump(_cut(shown, chars))) > MAX_BYTES and chars > 1:
            chars //= 2
        return text if _size(text) <= MAX_BYTES else self._dump(self._as_many_as_fit(shown))

    def _as_many_as_fit(self, shown: _Shown) -> _Shown:
        """Those that the next grant must lie above, opens under way, then by name.

        Of each text a letter stays: an entry without one would say that its open is under way.
        """

        def rank(name: str) -> tuple[bool, bool, str]:
            return not shown[name]["termFloor"], bool(shown[name]["lastError"]), name

        names = sorted(shown, key=rank)
        bare = _cut({name: shown[name] for name in names}, 1)

        def size(count: int) -> int:
            return _size(self._dump(dict(islice(bare.items(), count))))

        most = bisect_right(range(1, len(names) + 1), MAX_BYTES, key=size)
        return {name: bare[name] for name in sorted(names[:most])}

    def _dump(self, shown: _Shown) -> str:
        content = {"draining": self.draining, "address": self.address, "channels": shown}
        left_out = len(self.channels) - len(shown)
        return _json({**content, "leftOut": left_out} if left_out else content)


@dataclass(frozen=True)
class ClientError:
    """What clients told a coordinator about the present grant of one PChannel."""

    term: int
    code: str
    message: str


@dataclass(frozen=True)
class CoordReport:
    """What a coordinator says.

    Attributes:
        draining: it is about to end.
        address: host:port where it serves.
        leading: it coordinates: its meta topic is open under this cluster's claim.
        backend_reason: why its meta topic is not open; empty while it does not want it.
        backend_message: the same as a sentence.
        errors: what clients told, by PChannel.
    """

    draining: bool = False
    address: str = ""
    leading: bool = False
    backend_reason: str = ""
    backend_message: str = ""
    errors: Mapping[str, ClientError] = field(default_factory=dict)

    def to_json(self) -> str:
        """The annotation's text."""
        kept = sorted(self.errors)[:MAX_CLIENT_ERRORS]
        return _json(
            {
                "draining": self.draining,
                "address": self.address,
                "leading": self.leading,
                "backend": {
                    "reachable": not self.backend_reason,
                    "reason": self.backend_reason,
                    "message": self.backend_message[:MAX_ERROR_CHARS],
                },
                "errors": {
                    name: {
                        "term": error.term,
                        "code": error.code,
                        "message": error.message[:MAX_ERROR_CHARS],
                    }
                    for name, error in ((name, self.errors[name]) for name in kept)
                },
            }
        )


class Report(Protocol):
    """Either of them."""

    def to_json(self) -> str:
        """The annotation's text."""
        ...


def address_in(text: str) -> str:
    """Where the process of a report serves; empty when it does not say."""
    try:
        content = json.loads(text) if text else {}
    except ValueError:
        return ""
    return str(content.get("address") or "") if isinstance(content, dict) else ""


def _shown(channel: ChannelReport) -> dict[str, Any]:
    values = asdict(channel)
    values["last_error"] = channel.last_error[:MAX_ERROR_CHARS]
    return {_camel(key): value for key, value in values.items()}


def _cut(shown: _Shown, chars: int) -> _Shown:
    return {name: {**each, "lastError": each["lastError"][:chars]} for name, each in shown.items()}


def _size(text: str) -> int:
    return len(text.encode())


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(part.capitalize() for part in rest)


def _json(content: Mapping[str, Any]) -> str:
    return json.dumps(content, separators=(",", ":"), ensure_ascii=False)
