"""`walplane status` ends with 1 when a log takes no appends, also one that is held and read."""

from __future__ import annotations

from walplane.backends.registry import open_backend
from walplane.rpc.errors import ErrorCode, WalError
from walplane.testkit.cluster import MiniCluster
from walplane.testkit.command import walplane


async def test_a_quarantined_log_is_shown_and_ends_status_with_1() -> None:
    backend = await open_backend("memory:")
    async with MiniCluster(backend, pchannels=2) as cluster:
        healthy = await walplane("-a", cluster.address, "status", "-o", "json")
        assert (healthy.code, healthy.err) == (0, "")
        broken = WalError(ErrorCode.UNRECOVERABLE, "the entry at 7 cannot be taken in")
        cluster.owner("test_1").wal("test_1").recovery.poison = broken
        ran = await walplane("-a", cluster.address, "status", "-o", "json")
        states = {each["pchannel"]: each["state"] for each in ran.value}
    await backend.close()
    assert ran.code == 1
    assert states == {"test_0": "serving", "test_1": "quarantined"}
    assert ran.err.count("\n") == 1
    assert "1 PChannels are quarantined, test_1 among them: the entry at 7" in ran.err
