"""As much of an operator as tests of nodes and coordinators need: grants, releases, takeovers.

Contract: keeps to the Lease contract of docs/kubernetes.md: every write is read, check, PUT; terms
only grow; a session is dead after a full duration of live watching without a change, or when its
Lease is gone or names another process. Nothing is granted before a coordinator leads. Layer:
testkit; for tests only.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from typing import Any

from walplane.channel import pchannel_name
from walplane.lease import contract
from walplane.lease.contract import Body, PChannelLease
from walplane.lease.expiry import Expiry
from walplane.lease.store import ApiError, LeaseStore
from walplane.lease.watch import LeaseWatch
from walplane.runtime import Runtime

_STEP_S = 0.2
_BATCH = 8


class PretendOperator:
    """Assigns the PChannels of one cluster.

    Attributes:
        grants: (PChannel, term, session) in the order in which they were made.
        paused: while True it does nothing.
        pchannels: what it assigns.
    """

    def __init__(self, store: LeaseStore, cluster: str, prefix: str, pchannels: int) -> None:
        """Does nothing before `run`."""
        self.grants: list[tuple[str, int, str]] = []
        self.paused = False
        self._store = store
        self._cluster = cluster
        self.pchannels = [pchannel_name(prefix, number) for number in range(pchannels)]
        self._expiry = Expiry()
        self._dead: set[str] = set()
        self._watch = LeaseWatch(
            *(store, contract.selector(cluster), Runtime.system(), self._observe), self._live
        )
        self._wake = asyncio.Event()

    async def run(self) -> None:
        """Works until it is cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._watch.run())
            await self._watch.synced.wait()
            while True:
                if not self.paused:
                    await self._step()
                self._wake.clear()
                try:
                    async with asyncio.timeout(_STEP_S):
                        await self._wake.wait()
                except TimeoutError:
                    pass

    def lease(self, pchannel: str) -> PChannelLease | None:
        """The Lease of `pchannel` as the watch shows it."""
        body = self._watch.leases.get(contract.pchannel_lease_name(self._cluster, pchannel))
        return PChannelLease.parse(body) if body else None

    def holders(self) -> dict[str, str]:
        """Pods of the PChannels that are confirmed."""
        leases = [self.lease(pchannel) for pchannel in self.pchannels]
        return {
            each.channel: contract.pod_of(each.holder) for each in leases if each and each.served
        }

    @property
    def all_served(self) -> bool:
        """Whether every PChannel is confirmed by a session that lives."""
        living = self._living()
        leases = [self.lease(pchannel) for pchannel in self.pchannels]
        return all(each and each.served and each.holder in living for each in leases)

    async def _step(self) -> None:
        living = self._living()
        usable = sorted(holder for holder, report in living.items() if not report.get("draining"))
        load = Counter(dict.fromkeys(usable, 0))
        orphans: list[str] = []
        draining: list[PChannelLease] = []
        for pchannel in self.pchannels:
            lease = self.lease(pchannel)
            if lease is None or lease.holder not in living:
                orphans.append(pchannel)
            elif lease.holder in load:
                load[lease.holder] += 1
            elif lease.release != lease.term and usable:
                draining.append(lease)
        try:
            for pchannel in orphans if usable and self._led() else []:
                target = min(usable, key=lambda holder: (load[holder], holder))
                load[target] += 1
                await self._grant(pchannel, target, living)
            for lease in draining[:_BATCH]:
                await self._store.replace(
                    _annotated(lease.body, {contract.RELEASE: str(lease.term)})
                )
        except ApiError:
            return  # the watch shows what is so

    async def _grant(self, pchannel: str, target: str, living: dict[str, Any]) -> None:
        lease = self.lease(pchannel)
        floors = [
            r.get("channels", {}).get(pchannel, {}).get("termFloor", 0) for r in living.values()
        ]
        term = max([lease.term if lease else 0, *floors]) + 1
        if lease is None:
            await self._store.create(_new(self._cluster, pchannel, target, term))
        else:
            body = _annotated(
                lease.body,
                {contract.TERM: str(term), contract.READY_TERM: None, contract.RELEASE: None},
            )
            body["spec"] = {**body["spec"], "holderIdentity": target}
            await self._store.replace(body)
        self.grants.append((pchannel, term, target))

    def _sessions(self, component: str) -> dict[str, dict[str, Any]]:
        return {
            contract.holder_of(body): json.loads(contract.annotation(body, contract.REPORT) or "{}")
            for body in self._watch.leases.values()
            if contract.kind_of(body) == contract.SESSION and _component_of(body) == component
        }

    def _living(self) -> dict[str, dict[str, Any]]:
        for name, body in self._watch.leases.items():
            session = contract.kind_of(body) == contract.SESSION
            seconds = contract.duration_of(body, 10)
            if session and self._expiry.expired(name, seconds, time.monotonic()):
                self._dead.add(contract.holder_of(body))
        nodes = self._sessions(contract.NODE)
        return {holder: nodes[holder] for holder in nodes if holder not in self._dead}

    def _led(self) -> bool:
        return any(report.get("leading") for report in self._sessions(contract.COORD).values())

    def _observe(self, name: str, body: Body | None) -> None:
        if body is None:
            self._expiry.gone(name)
        else:
            self._dead.discard(contract.holder_of(body))
            self._expiry.saw(name, contract.renewal_of(body), time.monotonic())
        self._wake.set()

    def _live(self, live: bool) -> None:
        if live:
            self._expiry.live(time.monotonic())
        else:
            self._expiry.lost()


def _component_of(body: Body) -> str:
    """Of a session Lease: whose process it is."""
    return str((body["metadata"].get("labels") or {}).get(contract.COMPONENT_LABEL, ""))


def _annotated(body: Body, changes: dict[str, str | None]) -> Body:
    metadata = dict(body["metadata"])
    annotations = {**(metadata.get("annotations") or {}), **changes}
    metadata["annotations"] = {key: text for key, text in annotations.items() if text is not None}
    return {**body, "metadata": metadata}


def _new(cluster: str, pchannel: str, holder: str, term: int) -> Body:
    return {
        "apiVersion": contract.API_VERSION,
        "kind": "Lease",
        "metadata": {
            "name": contract.pchannel_lease_name(cluster, pchannel),
            "labels": {contract.KIND_LABEL: contract.PCHANNEL, contract.CLUSTER_LABEL: cluster},
            "annotations": {contract.CHANNEL: pchannel, contract.TERM: str(term)},
        },
        "spec": {"holderIdentity": holder},
    }
