"""The term of a PChannel by a quorum read of its Lease: `TermAuthority` in Kubernetes.

Layer: lease.
"""

from __future__ import annotations

from walplane.lease.contract import PChannelLease, pchannel_lease_name
from walplane.lease.store import LeaseStore
from walplane.rpc.errors import ErrorCode, WalError
from walplane.wal.ports import StaleTerm


class LeaseAuthority:
    """Reads Leases for one process, which may open only what is granted to itself."""

    def __init__(self, store: LeaseStore, cluster: str, me: str) -> None:
        """`me` is this process' identity."""
        self._store = store
        self._cluster = cluster
        self._me = me

    async def current_term(self, pchannel: str) -> int:
        """See `TermAuthority`.

        Raises:
            StaleTerm: it is not granted to this process any more.
            WalError: INNER when the API server gives no answer.
        """
        body = await self._store.get(pchannel_lease_name(self._cluster, pchannel))
        try:
            lease = PChannelLease.parse(body)
        except ValueError as error:
            raise WalError(ErrorCode.INNER, str(error)) from error
        if lease.holder != self._me:
            raise StaleTerm(pchannel, lease.term, lease.term)
        return lease.term
