"""Whose topics these are: refused before anything is fenced, replaced when that is allowed."""

from __future__ import annotations

import pytest

from walplane.backends.claims import ClaimedByOtherError, Claims, claimed
from walplane.backends.interface import Backend
from walplane.backends.memory import MemoryBackend
from walplane.coord.coord import Coord
from walplane.rpc.errors import WalError
from walplane.runtime import Runtime
from walplane.wal.ports import StaleTerm

OURS, THEIRS = "ns/demo/uid-1", "other/demo/uid-2"


class Claiming(MemoryBackend):
    """A backend in memory that keeps claims."""

    def __init__(self) -> None:
        super().__init__()
        self.claims: dict[str, str] = {}

    async def claim_on(self, topic: str) -> str:
        return self.claims.get(topic, "")

    async def set_claim(self, topic: str, claim: str) -> None:
        self.claims[topic] = claim


async def opened(backend: Backend, term: int, topic: str = "t") -> None:
    session = await backend.session()
    await session.ensure_topic(topic)
    await session.open_writer(topic, term, 0)


async def test_a_topic_gets_the_claim_of_who_takes_it_first() -> None:
    backend = Claiming()
    await opened(claimed(backend, OURS), 1)
    assert backend.claims == {"t": OURS}
    await opened(claimed(backend, OURS), 2)


async def test_another_clusters_topic_is_refused_and_its_writer_not_fenced() -> None:
    backend = Claiming()
    session = await claimed(backend, OURS).session()
    await session.ensure_topic("t")
    writer = await session.open_writer("t", 1, 0)
    with pytest.raises(ClaimedByOtherError, match=r"walplane.dev/adopt: uid-1") as refused:
        await opened(claimed(backend, THEIRS), 2)
    assert refused.value.owner == OURS
    assert await writer.append(b"still ours") is not None
    assert backend.claims == {"t": OURS}


async def test_a_claim_that_may_be_adopted_is_replaced() -> None:
    backend = Claiming()
    await opened(claimed(backend, OURS), 1)
    await opened(claimed(backend, THEIRS, "uid-1"), 2)
    assert backend.claims == {"t": THEIRS}
    with pytest.raises(ClaimedByOtherError):
        await opened(claimed(backend, OURS), 3)


async def test_a_cluster_that_was_renamed_keeps_its_topics_by_its_uid() -> None:
    backend = Claiming()
    await opened(claimed(backend, OURS), 1)
    await opened(claimed(backend, "ns/renamed/uid-1"), 2)
    assert backend.claims == {"t": "ns/renamed/uid-1"}


async def test_without_an_owner_or_without_claims_nothing_is_asked() -> None:
    backend = Claiming()
    assert claimed(backend, "") is backend
    memory = MemoryBackend()
    assert claimed(memory, OURS) is memory
    assert isinstance(backend, Claims)


async def test_a_second_clusters_coordinator_does_not_open_and_disturbs_nobody() -> None:
    backend = Claiming()
    async with Coord.open(
        claimed(backend, OURS), "demo", Runtime.system(), pchannel_count=1
    ) as coord:
        first = await coord.oracle.fresh("demo_0", 1)
        with pytest.raises(ClaimedByOtherError):
            async with Coord.open(claimed(backend, THEIRS), "demo", Runtime.system()):
                pass
        assert await coord.oracle.fresh("demo_0", 1) > first
        async with Coord.open(claimed(backend, THEIRS, "uid-1"), "demo", Runtime.system()) as new:
            assert await new.oracle.fresh("demo_0", 2) > first
            with pytest.raises(WalError):
                await coord.oracle.fresh("demo_0", 2)
            assert isinstance(coord.stopped.result(), StaleTerm)
