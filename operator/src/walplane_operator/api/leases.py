"""Session Leases and PChannel Leases, read and rewritten as docs/kubernetes.md says. Pure.

Contract: reading never fails: what is malformed counts as absent. Writing gives a whole object
with the resourceVersion that was read, for a PUT. Layer: api.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from datetime import datetime

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

from walplane_operator.api import names
from walplane_operator.api.names import Object
from walplane_operator.api.times import micro_time, parse_time

_DEFAULT_DURATION_S = 10


class _Model(BaseModel):
    model_config = ConfigDict(
        alias_generator=to_camel, populate_by_name=True, frozen=True, extra="ignore"
    )


class ChannelReport(_Model):
    """What a node says of one PChannel; ticks as in the log."""

    term: int = 0
    term_floor: int = 0
    time_tick: int = 0
    watermark: int = 0
    checkpoint: int = 0
    vchannels: int = 0
    reason: str = ""
    last_error: str = ""
    attempts: int = 0

    @property
    def opening(self) -> bool:
        """Whether an open under `term` is under way: there is no tick, and no error, before."""
        return not self.time_tick and not self.last_error


class BackendReport(_Model):
    """What a coordinator says of the backend."""

    reachable: bool = False
    reason: str = ""
    message: str = ""


class ClientError(_Model):
    """What clients told a coordinator of one PChannel."""

    term: int = 0
    code: str = ""
    message: str = ""


class Report(_Model):
    """The report of a node or of a coordinator."""

    draining: bool = False
    address: str = ""
    channels: dict[str, ChannelReport] = Field(default_factory=dict)
    leading: bool = False
    backend: BackendReport | None = None
    errors: dict[str, ClientError] = Field(default_factory=dict)


@dataclass(frozen=True)
class Session:
    """One process, by its session Lease.

    Attributes:
        identity: `<pod>_<uid>_<incarnation>`.
        pod: name of its pod, and of the Lease.
        component: node or coord.
        version: resourceVersion of the Lease.
        duration_s: after which it is dead when nothing changed.
        renewed: by its own clock; None when it did not say.
        report: what it says.
    """

    identity: str
    pod: str
    component: str
    version: str
    duration_s: float = _DEFAULT_DURATION_S
    renewed: datetime | None = None
    report: Report = field(default_factory=Report)

    @classmethod
    def read(cls, lease: Object) -> Session:
        """The session that a Lease with `walplane.dev/lease=session` speaks of."""
        metadata, spec = lease["metadata"], lease.get("spec") or {}
        labels = metadata.get("labels") or {}
        return cls(
            identity=spec.get("holderIdentity") or "",
            pod=metadata["name"],
            component=labels.get(names.LABEL_COMPONENT, names.NODE),
            version=metadata.get("resourceVersion", ""),
            duration_s=spec.get("leaseDurationSeconds") or _DEFAULT_DURATION_S,
            renewed=parse_time(spec.get("renewTime")),
            report=_report(metadata),
        )


def _report(metadata: Object) -> Report:
    text = (metadata.get("annotations") or {}).get(names.ANNOTATION_REPORT, "")
    try:
        return Report.model_validate_json(text) if text else Report()
    except ValidationError:
        return Report()


@dataclass(frozen=True)
class PChannelLease:
    """Who holds a PChannel, and under which term.

    Attributes:
        holder: session; empty = nobody.
        term: highest ever granted; 0 = none.
        ready_term: the term its holder confirmed; 0 = none.
        release: the term its holder shall give back; 0 = none.
        granted: when the present grant was made.
        raw: the Lease as it was read.
    """

    channel: str
    holder: str
    term: int
    ready_term: int
    release: int
    granted: datetime | None
    raw: Object

    @classmethod
    def read(cls, lease: Object) -> PChannelLease:
        """The assignment that a Lease with `walplane.dev/lease=pchannel` speaks of."""
        annotations = lease["metadata"].get("annotations") or {}
        spec = lease.get("spec") or {}
        return cls(
            channel=annotations.get(names.ANNOTATION_CHANNEL, ""),
            holder=spec.get("holderIdentity") or "",
            term=_number(annotations, names.ANNOTATION_TERM),
            ready_term=_number(annotations, names.ANNOTATION_READY_TERM),
            release=_number(annotations, names.ANNOTATION_RELEASE),
            granted=parse_time(spec.get("acquireTime")),
            raw=lease,
        )

    @property
    def ready(self) -> bool:
        """Whether its holder confirmed that it serves."""
        return bool(self.holder) and self.ready_term == self.term

    def granted_to(self, session: str, term: int, adopt: str, now: datetime) -> Object:
        """The Lease after a grant, to be PUT.

        Raises:
            ValueError: `term` is not above the present one.
        """
        if term <= self.term:
            raise ValueError(f"{self.channel}: term {term} is not above {self.term}")
        lease = copy.deepcopy(self.raw)
        annotations = lease["metadata"].setdefault("annotations", {})
        for gone in (names.ANNOTATION_READY_TERM, names.ANNOTATION_RELEASE, names.ANNOTATION_ADOPT):
            annotations.pop(gone, None)
        annotations[names.ANNOTATION_TERM] = str(term)
        if adopt:
            annotations[names.ANNOTATION_ADOPT] = adopt
        spec = lease.setdefault("spec", {})
        spec.update(holderIdentity=session, acquireTime=micro_time(now))
        return lease

    def to_release(self) -> Object:
        """The Lease that asks its holder to give the present term back, to be PUT."""
        lease = copy.deepcopy(self.raw)
        lease["metadata"].setdefault("annotations", {})[names.ANNOTATION_RELEASE] = str(self.term)
        return lease


def _number(annotations: dict[str, str], key: str) -> int:
    text = annotations.get(key, "")
    return int(text) if text.isascii() and text.isdigit() else 0
