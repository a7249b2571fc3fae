"""Deletes a cluster's topics, for `deletionPolicy: Delete`. Layer: apply.

Contract: only topics of the cluster's own names are touched, and none that carries another
WALCluster's claim. What is gone already counts as deleted. Whatever fails is named.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import quote, urlsplit, urlunsplit

import aiohttp

from walplane.channel import CLAIM_PROPERTY
from walplane_operator.api.spec import PulsarSpec, WALCluster
from walplane_operator.plan.deletion import topics

_TIMEOUT_S = 10.0
_AT_ONCE = 4


@dataclass
class Deleted:
    """What came of it.

    Attributes:
        done: topics that are gone.
        kept: (topic, why) of the others.
    """

    done: list[str]
    kept: list[tuple[str, str]]


async def delete_topics(cluster: WALCluster) -> Deleted:
    """Deletes every topic of `cluster`; failures are in the result, not raised."""
    pulsar = cluster.spec.backend.pulsar
    result = Deleted([], [])
    if pulsar is None:
        return result
    limit = asyncio.Semaphore(_AT_ONCE)
    timeout = aiohttp.ClientTimeout(total=_TIMEOUT_S)
    base = admin_root(pulsar, cluster.namespace)
    async with aiohttp.ClientSession(timeout=timeout) as http, asyncio.TaskGroup() as tasks:
        for topic in topics(cluster):
            tasks.create_task(_delete(http, limit, base, topic, cluster.uid, result))
    return result


def admin_root(pulsar: PulsarSpec, namespace: str) -> str:
    """Where topics are found by REST; a bare host is a Service of the cluster's namespace."""
    url = urlsplit(pulsar.admin_url)
    host = url.hostname or ""
    if "." not in host and host != "localhost":
        host = f"{host}.{namespace}.svc"
    authority = f"{host}:{url.port}" if url.port else host
    path = f"{url.path.rstrip('/')}/admin/v2/persistent/{pulsar.tenant}/{pulsar.namespace}"
    return urlunsplit((url.scheme, authority, path, "", ""))


async def _delete(
    http: aiohttp.ClientSession,
    limit: asyncio.Semaphore,
    base: str,
    topic: str,
    uid: str,
    result: Deleted,
) -> None:
    url = f"{base}/{quote(topic, safe='')}"
    async with limit:
        try:
            owner = await _claimed_by(http, url)
            if owner not in ("", uid):
                result.kept.append((topic, f"it is claimed by the WALCluster with uid {owner}"))
                return
            async with http.delete(url, params={"force": "true"}) as answer:
                if answer.status >= 300 and answer.status != 404:
                    text = (await answer.text())[:200]
                    result.kept.append((topic, f"Pulsar answered {answer.status}: {text}"))
                    return
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            result.kept.append((topic, f"{type(error).__name__} {error}".strip()))
            return
    result.done.append(topic)


async def _claimed_by(http: aiohttp.ClientSession, url: str) -> str:
    """Uid in the claim of a topic; empty when it carries none, or is not there."""
    async with http.get(f"{url}/properties") as answer:
        if answer.status == 404:
            return ""
        answer.raise_for_status()
        properties = await answer.json(content_type=None) or {}
    return str(properties.get(CLAIM_PROPERTY, "")).rpartition("/")[2]


def describe(kept: Sequence[tuple[str, str]]) -> str:
    """What was kept, for an event."""
    topic, why = kept[0]
    more = f" and {len(kept) - 1} more topics" if len(kept) > 1 else ""
    return f"{topic}{more}: {why}"
