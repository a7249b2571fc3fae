"""An open that does not come about leaves nothing behind on the node."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from walplane.rpc.errors import WalError
from walplane.runtime import Runtime
from walplane.testkit.outside import TestAuthority, TestNode
from walplane.testkit.wal_world import CH, World, create_entry
from walplane.wal.config import WALConfig
from walplane.wal.ownership import WALDeps
from walplane.wal.scan.buffer import WriteAheadBuffer, WriteAheadMemory
from walplane.wal.wal import WAL


class CountedMemory(WriteAheadMemory):
    """Knows who joined and did not leave."""

    def __init__(self) -> None:
        super().__init__(1 << 20)
        self.members: set[WriteAheadBuffer] = set()

    def join(self, buffer: WriteAheadBuffer) -> None:
        super().join(buffer)
        self.members.add(buffer)

    def leave(self, buffer: WriteAheadBuffer) -> None:
        super().leave(buffer)
        self.members.discard(buffer)


class SilentAuthority(TestAuthority):
    """Never answers."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = asyncio.Event()

    async def current_term(self, pchannel: str) -> int:
        self.asked.set()
        await asyncio.Event().wait()
        raise AssertionError(pchannel)


@pytest.fixture
def memory() -> CountedMemory:
    return CountedMemory()


@pytest.fixture
def deps(world: World, memory: CountedMemory) -> WALDeps:
    node = TestNode(world.backend, world.oracle, world.authority, Runtime.system())
    world.authority.terms[CH] = 1
    return replace(node.deps, write_ahead=memory)


async def test_a_failed_open_leaves_no_buffer(
    world: World, deps: WALDeps, memory: CountedMemory
) -> None:
    world.backend.refused = True
    with pytest.raises(WalError, match="cannot be reached"):
        await WAL.open(CH, 1, deps, WALConfig())
    assert not memory.members


async def test_a_cancelled_open_leaves_no_buffer(deps: WALDeps, memory: CountedMemory) -> None:
    authority = SilentAuthority()
    opening = asyncio.create_task(WAL.open(CH, 1, replace(deps, authority=authority), WALConfig()))
    async with asyncio.timeout(5):
        await authority.asked.wait()
        assert memory.members, "it is being opened"
        opening.cancel()
        with pytest.raises(asyncio.CancelledError):
            await opening
    assert not memory.members


async def test_a_buffer_counts_from_open_to_close(deps: WALDeps, memory: CountedMemory) -> None:
    wal = await WAL.open(CH, 1, deps, WALConfig())
    await wal.append(create_entry("test_0_1v0"))
    assert memory.members == {wal.buffer}
    await wal.close()
    await deps.reserve.close()
    assert not memory.members
