"""Which sessions live, by the observer's own clock (docs/kubernetes.md, Expiry). Pure.

Contract: a session is dead when its Lease did not change for one duration of *live* time. Live time
is what the watch has proved: everything written before the latest event of an unbroken watch was
seen. An interruption, or a silence longer than a third of a session's duration, gives it one full
duration more: we renew our own Lease twice as often, so whoever does not hear that is served as
slowly as we are. When more than half of a cluster's sessions expire together, the observer may be
the one that is cut off: they get one duration more. Layer: plan.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from walplane_operator.api.leases import Session

Key = tuple[str, str, str]
"""(namespace, cluster, pod)."""


@dataclass
class _Watched:
    identity: str
    version: str
    duration_s: float
    changed: float
    dead: bool = False


class SessionMonitor:
    """The sessions of every cluster; times are monotonic seconds."""

    def __init__(self) -> None:
        """Knows nobody."""
        self._watched: dict[Key, _Watched] = {}
        self._proved: float | None = None

    def listed(self, sessions: Iterable[tuple[str, str, Session]], now: float) -> None:
        """A watch begins with this complete list: everyone gets one full duration.

        Args:
            sessions: (namespace, cluster, session) each.
            now: when the list came.
        """
        before = self._watched
        self._watched = {}
        for namespace, cluster, session in sessions:
            self._put((namespace, cluster, session.pod), session, now)
        for key, watched in self._watched.items():
            same = before.get(key)
            if same is not None and (same.identity, same.version) == _mark(watched):
                watched.dead = same.dead  # what was dead and did not move is still dead
        self._proved = now

    def changed(self, namespace: str, cluster: str, session: Session, now: float) -> None:
        """The watch shows a session Lease."""
        self.proved(now)
        key = (namespace, cluster, session.pod)
        known = self._watched.get(key)
        if known is None or _mark(known) != (session.identity, session.version):
            self._put(key, session, now)

    def deleted(self, namespace: str, cluster: str, pod: str, now: float) -> None:
        """The watch shows that a session Lease is gone."""
        self.proved(now)
        self._watched.pop((namespace, cluster, pod), None)

    def proved(self, now: float) -> None:
        """The watch told something, whatever it was: it is live up to now."""
        for watched in self._watched.values():
            if self._proved is None or now - self._proved > watched.duration_s / 3:
                watched.changed = now
        self._proved = now

    def interrupted(self) -> None:
        """The watch ended; nothing is proved until the next list."""
        self._proved = None

    def expire(self) -> set[Key]:
        """Sessions that are dead since the last call."""
        if self._proved is None:
            return set()
        newly = {key for key, due in self._due(self._proved) if self._proved >= due}
        for key in newly:
            self._watched[key].dead = True
        return newly

    def alive(self, namespace: str, cluster: str, session: Session) -> bool:
        """Whether `session`, as read now, lives: it is not the one that was found dead."""
        known = self._watched.get((namespace, cluster, session.pod))
        return (
            known is None or not known.dead or _mark(known) != (session.identity, session.version)
        )

    def next_expiry(self) -> float | None:
        """When a session may be found dead at the earliest; None when none can be."""
        if self._proved is None:
            return None
        return min((due for _, due in self._due(self._proved)), default=None)

    def heartbeat(self, most: float) -> float:
        """How often, in seconds, the watch is to be seen to move; at most `most`.

        Half of the silence that proves nothing: one that is a little late costs nobody a duration.
        """
        durations = (watched.duration_s for watched in self._watched.values())
        return min(most, min(durations, default=most * 6) / 6)

    def _due(self, proved: float) -> Iterator[tuple[Key, float]]:
        """When each session that lives is dead unless it changes, as far as is known by now."""
        living: defaultdict[tuple[str, str], list[Key]] = defaultdict(list)
        for key, watched in self._watched.items():
            if not watched.dead:
                living[key[:2]].append(key)
        for keys in living.values():
            due = {k: self._watched[k].changed + self._watched[k].duration_s for k in keys}
            silent = {key for key in keys if proved >= due[key]}
            for key in keys:
                doubt = key in silent and 2 * len(silent) > len(keys)
                yield key, due[key] + (self._watched[key].duration_s if doubt else 0.0)

    def _put(self, key: Key, session: Session, now: float) -> None:
        self._watched[key] = _Watched(session.identity, session.version, session.duration_s, now)


def _mark(watched: _Watched) -> tuple[str, str]:
    return watched.identity, watched.version
