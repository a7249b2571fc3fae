"""When an observer may call a Lease expired: by its own clock, while its watch is live. Pure.

Contract (rules §12): a Lease is expired when a full duration has passed since the last change
that was seen, all of it watched. After a start or a loss of the watch every Lease gets one full
duration again. Layer: lease.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class _Seen:
    renewal: object
    since: float


class Expiry:
    """The clocks of one observer."""

    def __init__(self) -> None:
        """Watches nothing yet."""
        self._seen: dict[str, _Seen] = {}
        self._live = False

    def live(self, now: float) -> None:
        """The watch is complete again: every clock starts anew."""
        self._live = True
        for seen in self._seen.values():
            seen.since = now

    def lost(self) -> None:
        """The watch is lost: nothing expires until it is live again."""
        self._live = False

    def saw(self, name: str, renewal: object, now: float) -> None:
        """The Lease `name` was seen; `renewal` differs when it was renewed in between."""
        seen = self._seen.get(name)
        if seen is None or seen.renewal != renewal:
            self._seen[name] = _Seen(renewal, now)

    def gone(self, name: str) -> None:
        """There is no Lease `name`."""
        self._seen.pop(name, None)

    def left(self, name: str, duration_s: float, now: float) -> float | None:
        """Seconds until it is expired, 0 when it is; None when that cannot be told."""
        seen = self._seen.get(name)
        if seen is None or not self._live:
            return None
        return max(seen.since + duration_s - now, 0.0)

    def expired(self, name: str, duration_s: float, now: float) -> bool:
        """Whether a full duration passed without a change."""
        return self.left(name, duration_s, now) == 0.0
