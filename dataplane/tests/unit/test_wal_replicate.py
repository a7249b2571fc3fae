"""The role check of the append chain: a primary and a secondary take different entries."""

from __future__ import annotations

from dataclasses import replace

import pytest

from walplane.backends.memory import MemoryBackend
from walplane.message.registry import MessageType
from walplane.rpc.errors import ErrorCode, WalError
from walplane.rpc.v1 import log_pb2
from walplane.testkit.faulty import FaultyBackend
from walplane.testkit.wal_world import V, World, create, entry, payloads_of, read_all
from walplane.wal.interceptors.base import AppendOp, append_op
from walplane.wal.interceptors.replicate import ReplicateInterceptor, ReplicationRole
from walplane.wal.ports import AppendResult


def copied(item: log_pb2.Entry) -> log_pb2.Entry:
    """`item` as a replicator sends it."""
    item.envelope.replicate.cluster_id = "elsewhere"
    return item


def typed(kind: MessageType) -> log_pb2.Entry:
    return log_pb2.Entry(envelope=log_pb2.Envelope(type=kind, count=1))


async def forwarded(role: ReplicationRole, op: AppendOp) -> bool:
    """Whether `op` passes the link; its refusal is REPLICATE_VIOLATION, whatever the role."""
    passed: list[AppendOp] = []

    async def forward(op: AppendOp) -> AppendResult:
        passed.append(op)
        raise AssertionError

    link = ReplicateInterceptor("p_0", lambda: role)
    with pytest.raises((AssertionError, WalError)) as raised:
        await link.append(op, forward)
    if isinstance(raised.value, WalError):
        assert raised.value.code is ErrorCode.REPLICATE_VIOLATION
        assert "PChannel p_0" in raised.value.message
    return bool(passed)


@pytest.mark.parametrize(
    ("op", "primary", "secondary"),
    [
        (append_op(entry(b"own")), True, False),
        (append_op(copied(entry(b"copied"))), False, True),
        (append_op(typed(MessageType.DROP_RESOURCE_GROUP)), True, True),
        (append_op(typed(MessageType.CREATE_SEGMENT)), True, True),
        (replace(append_op(typed(MessageType.ROLLBACK_TXN)), own=True), True, True),
    ],
)
async def test_what_each_role_takes(op: AppendOp, primary: bool, secondary: bool) -> None:
    assert await forwarded(ReplicationRole.PRIMARY, op) is primary
    assert await forwarded(ReplicationRole.SECONDARY, op) is secondary


async def test_what_the_role_refuses_is_not_written_and_holds_nothing_up() -> None:
    world = World(FaultyBackend(MemoryBackend()))
    wal = await world.open(1)
    await create(wal, V)
    for role in ReplicationRole:
        wal.role = role
        refused = entry(b"refused")
        if role is ReplicationRole.PRIMARY:
            refused = copied(refused)
        with pytest.raises(WalError, match="REPLICATE_VIOLATION"):
            await wal.append(refused)
    await wal.append(copied(entry(b"copied")))
    wal.role = ReplicationRole.PRIMARY
    await wal.append(entry(b"own"))
    written = [
        item for item in await read_all(wal) if item.entry.envelope.type == MessageType.INSERT
    ]
    assert payloads_of(written) == [b"copied", b"own"]
    await world.close()
