"""Grants and releases on PChannel Leases. Layer: apply.

Contract: read → check → PUT with the resourceVersion that the decision was made on; a conflict
grants nothing, and the next reconcile decides anew. Never an apply, a force or a blind patch.
Every write gives the Lease back what it lost of labels, channel and owner.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from walplane_operator.api.leases import PChannelLease
from walplane_operator.api.names import Object
from walplane_operator.api.spec import WALCluster
from walplane_operator.apply.kube import LEASES, ApiError, Kube, object_path, path_of
from walplane_operator.manifests.desired import dressed_lease, pchannel_lease
from walplane_operator.plan.assignment import Grant, Mend, Release

_AT_ONCE = 8


@dataclass
class Written:
    """What came of a step.

    Attributes:
        leases: (index, Lease as it is now) of every one that was written, or found.
        grants: those that were made.
        releases: those that were asked for.
        conflicts: indexes of Leases that somebody else was ahead of.
    """

    leases: list[tuple[int, PChannelLease]]
    grants: list[Grant]
    releases: list[Release]
    conflicts: list[int]


async def write(
    kube: Kube,
    cluster: WALCluster,
    grants: Sequence[Grant],
    releases: Sequence[Release],
    now: datetime,
    mends: Sequence[Mend] = (),
) -> Written:
    """Makes the step, several Leases at a time.

    Raises:
        ExceptionGroup: of `ApiError`, when a write failed otherwise than by a conflict.
    """
    written = Written([], [], [], [])
    limit = asyncio.Semaphore(_AT_ONCE)

    async def grant(one: Grant) -> None:
        async with limit:
            lease = one.lease or PChannelLease.read(pchannel_lease(cluster, one.index))
            body = lease.granted_to(one.session, one.term, cluster.adopts, now)
            if await _put(kube, cluster, written, one.index, body):
                written.grants.append(one)

    async def release(one: Release) -> None:
        async with limit:
            if await _put(kube, cluster, written, one.index, one.lease.to_release()):
                written.releases.append(one)

    async def mend(one: Mend) -> None:
        async with limit:
            await _put(kube, cluster, written, one.index, one.lease.raw)

    async with asyncio.TaskGroup() as tasks:
        for each in grants:
            tasks.create_task(grant(each))
        for other in releases:
            tasks.create_task(release(other))
        for lost in mends:
            tasks.create_task(mend(lost))
    return written


async def _put(kube: Kube, cluster: WALCluster, written: Written, index: int, body: Object) -> bool:
    body = dressed_lease(cluster, index, body)
    try:
        if "resourceVersion" in body["metadata"]:
            after = await kube.replace(body)
        else:
            after = await kube.create(path_of(LEASES, "Lease", cluster.namespace), body)
    except ApiError as error:
        if error.status not in (404, 409):
            raise
        written.conflicts.append(index)
        if "resourceVersion" not in body["metadata"]:
            found = await _found(kube, cluster, index, object_path(body))
            written.leases += [(index, found)] if found is not None else []
        return False
    written.leases.append((index, PChannelLease.read(after)))
    return True


async def _found(kube: Kube, cluster: WALCluster, index: int, path: str) -> PChannelLease | None:
    """A Lease that the lists lack, brought back into them; holder and term stay as they are."""
    lease = await kube.get(path)
    if lease is None:
        return None
    dressed = dressed_lease(cluster, index, lease)
    if dressed != lease:  # else it was made in this moment
        try:
            lease = await kube.replace(dressed)
        except ApiError as error:
            if error.status not in (404, 409):
                raise
            return None
    return PChannelLease.read(lease)
