"""Grants and releases on PChannel Leases. Layer: apply.

Contract: read → check → PUT with the resourceVersion that the decision was made on; a conflict
changes nothing, and the next reconcile decides anew. Never an apply, a force or a blind patch.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from walplane_operator.api.leases import PChannelLease
from walplane_operator.api.names import Object
from walplane_operator.api.spec import WALCluster
from walplane_operator.apply.kube import LEASES, ApiError, Kube, path_of
from walplane_operator.manifests.desired import pchannel_lease
from walplane_operator.plan.assignment import Grant, Release

_AT_ONCE = 8


@dataclass
class Written:
    """What came of a step.

    Attributes:
        leases: (index, Lease as it is now) of every write that succeeded.
        grants: those that were made.
        releases: those that were asked for.
        conflicts: writes that somebody else was ahead of.
    """

    leases: list[tuple[int, PChannelLease]]
    grants: list[Grant]
    releases: list[Release]
    conflicts: int = 0


async def write(
    kube: Kube,
    cluster: WALCluster,
    grants: Sequence[Grant],
    releases: Sequence[Release],
    now: datetime,
) -> Written:
    """Makes the step, several Leases at a time.

    Raises:
        ExceptionGroup: of `ApiError`, when a write failed otherwise than by a conflict.
    """
    written = Written([], [], [])
    limit = asyncio.Semaphore(_AT_ONCE)

    async def grant(one: Grant) -> None:
        async with limit:
            lease = one.lease or PChannelLease.read(pchannel_lease(cluster, one.index))
            body = lease.granted_to(one.session, one.term, cluster.adopts, now)
            if await _put(kube, written, one.index, body):
                written.grants.append(one)

    async def release(one: Release) -> None:
        async with limit:
            if await _put(kube, written, one.index, one.lease.to_release()):
                written.releases.append(one)

    async with asyncio.TaskGroup() as tasks:
        for each in grants:
            tasks.create_task(grant(each))
        for other in releases:
            tasks.create_task(release(other))
    return written


async def _put(kube: Kube, written: Written, index: int, body: Object) -> bool:
    try:
        if "resourceVersion" in body["metadata"]:
            after = await kube.replace(body)
        else:
            after = await kube.create(path_of(LEASES, "Lease", body["metadata"]["namespace"]), body)
    except ApiError as error:
        if error.status not in (404, 409):
            raise
        written.conflicts += 1
        return False
    written.leases.append((index, PChannelLease.read(after)))
    return True
