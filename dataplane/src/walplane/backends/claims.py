"""Whose topics these are: a claim in each topic's properties, looked at before it is taken.

Contract: a claim is `<namespace>/<name>/<uid>` of the cluster. A topic with another cluster's
claim is not taken: no writer is opened, nobody fenced, unless that cluster's uid may be adopted;
then the claim is replaced once the topic is exclusively ours. A topic without a claim gets ours the
same way. Readers are not asked. Layer: backends.
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from walplane.backends.forwarding import ForwardingBackend, ForwardingSession
from walplane.backends.interface import Backend, BackendSession, TopicWriter
from walplane.rpc.errors import ErrorCode, WalError


class ClaimedByOtherError(WalError):
    """The topic belongs to another cluster.

    Attributes:
        owner: the claim found there.
    """

    def __init__(self, topic: str, owner: str) -> None:
        """Names both, and the way out."""
        super().__init__(
            ErrorCode.INVALID_ARGUMENT,
            f"topic {topic} belongs to {owner}: choose another prefix, or take it over by the "
            f"annotation walplane.dev/adopt: {uid_of(owner)}",
        )
        self.owner = owner


@runtime_checkable
class Claims(Protocol):
    """A backend that keeps a claim with a topic."""

    async def claim_on(self, topic: str) -> str:
        """The claim on `topic`; empty when there is none, or no such topic."""
        ...

    async def set_claim(self, topic: str, claim: str) -> None:
        """Puts `claim` on `topic`, which is there."""
        ...


def uid_of(claim: str) -> str:
    """The uid in a claim."""
    return claim.rpartition("/")[2]


class ClaimedBackend(ForwardingBackend):
    """A backend whose topics are taken for one cluster.

    Attributes:
        adopted: uids of clusters whose claims may be replaced.
    """

    def __init__(self, inner: Backend, claims: Claims, owner: str) -> None:
        """`owner` is the claim to put; `inner` is closed with this."""
        super().__init__(inner)
        self.adopted: set[str] = set()
        self._claims = claims
        self._owner = owner

    async def session(self) -> BackendSession:
        """See `Backend`."""
        return _ClaimedSession(await self.inner.session(), self)

    async def check(self, topic: str) -> bool:
        """Whether `topic` has to get our claim; it has it otherwise.

        Raises:
            ClaimedByOtherError: another cluster's claim is there.
        """
        found = await self._claims.claim_on(topic)
        if found and uid_of(found) not in {uid_of(self._owner), *self.adopted}:
            raise ClaimedByOtherError(topic, found)
        return found != self._owner

    async def put(self, topic: str) -> None:
        """Puts our claim on `topic`."""
        await self._claims.set_claim(topic, self._owner)


class _ClaimedSession(ForwardingSession):
    """A session that takes only what may be taken."""

    def __init__(self, inner: BackendSession, backend: ClaimedBackend) -> None:
        super().__init__(inner)
        self._backend = backend

    async def open_writer(self, topic: str, term: int, open_number: int) -> TopicWriter:
        unclaimed = await self._backend.check(topic)
        writer = await self.inner.open_writer(topic, term, open_number)
        if unclaimed:
            await self._backend.put(topic)
        return writer


def claimed(backend: Backend, owner: str, *adopted: str) -> Backend:
    """`backend` for the cluster `owner`; as it is when nobody owns it, or it keeps no claims."""
    if not owner or not isinstance(backend, Claims):
        return backend
    wrapped = ClaimedBackend(backend, backend, owner)
    wrapped.adopted.update(uid for uid in adopted if uid)
    return wrapped
