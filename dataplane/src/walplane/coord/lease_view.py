"""Who serves which PChannel, read from Leases: assignments in Kubernetes (docs/kubernetes.md).

Contract: a PChannel is ASSIGNED when its Lease's holder confirmed its term; its address stands in
the report of the session Lease with that very holder. A term lower than seen, and a Lease that is
missing, change nothing: what was known stays published. Errors that clients report about the
present grant are kept for the operator, who decides. Layer: coord.
"""

from __future__ import annotations

from collections.abc import Callable

import structlog

from walplane.assignment.states import Channel, ChannelState
from walplane.channel import pchannel_name
from walplane.coord.ports import TAKEN_REPORTS
from walplane.lease import contract
from walplane.lease.contract import Body, PChannelLease
from walplane.lease.report import ClientError, address_in
from walplane.rpc.errors import WalError

_log = structlog.get_logger(__name__)


class LeaseView:
    """The Leases of one cluster as assignments.

    Args:
        prefix: of the PChannels' names.
        on_change: told when an assignment may be different.
        on_error: told when clients reported something new.

    Attributes:
        errors: what clients told of present grants, by PChannel.
    """

    def __init__(
        self, prefix: str, on_change: Callable[[], None], on_error: Callable[[], None]
    ) -> None:
        """Knows no Lease yet."""
        self.errors: dict[str, ClientError] = {}
        self._prefix = prefix
        self._on_change = on_change
        self._on_error = on_error
        self._granted: dict[str, PChannelLease] = {}
        self._sessions: dict[str, tuple[str, str]] = {}  # Lease's name: holder, address

    def observe(self, name: str, body: Body | None) -> None:
        """The Lease `name` is new or different, or gone."""
        if body is None:
            changed = self._sessions.pop(name, None) is not None
        elif contract.kind_of(body) == contract.SESSION:
            session = (
                contract.holder_of(body),
                address_in(contract.annotation(body, contract.REPORT)),
            )
            changed = self._sessions.get(name) != session
            self._sessions[name] = session
        elif contract.kind_of(body) == contract.PCHANNEL:
            changed = self._take(body)
        else:
            changed = False
        if changed:
            self._on_change()

    def ended(self, holder: str) -> bool:
        """Whether the session `holder` is over: its Lease is gone, or names another process."""
        session = self._sessions.get(contract.pod_of(holder))
        return session is None or session[0] != holder

    def count(self) -> int:
        """How many PChannels have Leases, counted from the first without a gap."""
        number = 0
        while pchannel_name(self._prefix, number) in self._granted:
            number += 1
        return number

    def place(self, pchannel: str) -> tuple[Channel, str]:
        """See `AssignmentSource`."""
        lease = self._granted.get(pchannel)
        if lease is None or lease.term == 0:
            return Channel(pchannel), ""
        pod = contract.pod_of(lease.holder)
        if not lease.holder:
            return self._unserved(lease, "nobody holds it: it waits for the operator"), ""
        if self.ended(lease.holder):
            return self._unserved(lease, f"its node {pod} is gone: it waits for the operator"), ""
        if not lease.served:
            state, reason = ChannelState.ASSIGNING, f"{pod} is opening it"
            return Channel(pchannel, lease.term, state, pod, reason=reason), ""
        return Channel(pchannel, lease.term, ChannelState.ASSIGNED, pod), self._sessions[pod][1]

    def report_error(self, pchannel: str, term: int, error: WalError) -> bool:
        """See `AssignmentSource`."""
        lease = self._granted.get(pchannel)
        present = lease is not None and lease.served and lease.term == term
        if not present or error.code not in TAKEN_REPORTS:
            return False
        told = ClientError(term, error.code.name, error.message)
        if self.errors.get(pchannel) != told:
            self.errors[pchannel] = told
            _log.warning("a client reports", pchannel=pchannel, term=term, error=str(error))
            self._on_error()
        return True

    def _take(self, body: Body) -> bool:
        try:
            lease = PChannelLease.parse(body)
        except ValueError as error:
            _log.warning("a Lease that says nothing", error=str(error))
            return False
        known = self._granted.get(lease.channel)
        if known == lease or (known is not None and lease.term < known.term):
            return False
        self._granted[lease.channel] = lease
        if (told := self.errors.get(lease.channel)) is not None and told.term != lease.term:
            del self.errors[lease.channel]
            self._on_error()
        return True

    def _unserved(self, lease: PChannelLease, reason: str) -> Channel:
        return Channel(lease.channel, lease.term, ChannelState.UNAVAILABLE, reason=reason)
