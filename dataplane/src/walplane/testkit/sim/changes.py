"""Changes of the catalog: collections made, written to and dropped meanwhile. Layer: testkit.

Contract: each comes from a program of its own, which may never hear what became of it. Programs
name the same few collections, so some are refused; that is part of it.
"""

from __future__ import annotations

from walplane.client import StreamingClient
from walplane.message.builder import insert
from walplane.rpc.errors import ErrorCode, WalError
from walplane.testkit.broadcast_checks import ToldChanges
from walplane.testkit.sim.errands import Errands
from walplane.testkit.sim.process import Process
from walplane.testkit.sim.scenario import Step
from walplane.testkit.sim.workload import Work

_NAMES = 3
_DROPS = 0.4


class Changes(Errands):
    """Starts them.

    Attributes:
        told: what their programs heard.
    """

    def __init__(self, work: Work) -> None:
        """None yet."""
        super().__init__(work, "d")
        self.told = ToldChanges()

    def start(self, step: Step) -> None:
        """Begins what `step` says."""
        process = self._process()
        name = f"d{step.which % _NAMES}"
        self._begin(process, self._run(process, name, step.force < _DROPS))

    def over(self) -> bool:
        """Whether nothing is asked for, and no coordinator knows of anything left to complete.

        One that was fenced by another that died is not told before it writes again.
        """
        coords = [each.coord for each in self._work.cluster.coordinators]
        busy = any(coord is not None and coord.catalog.tasks for coord in coords)
        return not self._under_way and not busy

    async def _run(self, process: Process, name: str, drops: bool) -> None:
        count = self._work.cluster.trace.count
        try:
            async with self._work.cluster.client(process) as client:
                if drops:
                    self.told.dropped.append(await client.drop_collection(name))
                else:
                    await self._make(client, process, name)
            count("dropped" if drops else "made")
        except WalError as error:
            count(f"change ends with {error.code.name}")

    async def _make(self, client: StreamingClient, process: Process, name: str) -> None:
        made = await client.create_collection(name, shards=2)
        self.told.made.append(made)
        for number, vchannel in enumerate(made.vchannels):
            payload = f"{process.name}/{number}".encode()
            attempt = self._work.history.begin(process.name, vchannel, payload)
            try:
                result = await client.append(insert(vchannel, payload), timeout=5.0)
            except WalError as error:
                self._work.settle(attempt, error)
                if error.code is ErrorCode.CHANNEL_NOT_EXIST:
                    self.told.gone.append(made.collection_id)
            else:
                self._work.settle(attempt, result)
