"""The API server, as JSON over HTTP. Layer: apply.

Contract: every call has a timeout; objects are dicts, so that what is not known here survives a
read and a PUT. 404 of a read is None; every other refusal is an `ApiError`. 429 is tried again as
the server asks, within the deadline. A cancelled call leaves its outcome unknown, as any call does.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import aiohttp
from kubernetes.aio import client, config

from walplane_operator.api import names
from walplane_operator.api.names import Object

CALL_TIMEOUT_S = 10.0
_MAX_WAIT_S = 5.0
_APPLY = "application/apply-patch+yaml"
_MERGE = "application/merge-patch+json"

_PLURALS = {
    names.WALCLUSTER: "walclusters",
    names.PCHANNEL: "pchannels",
    "ConfigMap": "configmaps",
    "Deployment": "deployments",
    "Event": "events",
    "Lease": "leases",
    "PersistentVolumeClaim": "persistentvolumeclaims",
    "Pod": "pods",
    "PodDisruptionBudget": "poddisruptionbudgets",
    "Role": "roles",
    "RoleBinding": "rolebindings",
    "Service": "services",
    "ServiceAccount": "serviceaccounts",
    "StatefulSet": "statefulsets",
}
LEASES = "coordination.k8s.io/v1"


class ApiError(Exception):
    """The API server refused, or did not answer.

    Attributes:
        status: of HTTP; 0 when there was no answer.
        retry_after_s: when it asks to wait.
    """

    def __init__(self, subject: str, status: int, message: str, retry_after_s: float = 0) -> None:
        """Names the call and what came back."""
        what = f"answered {status}" if status else "did not answer"
        super().__init__(f"{subject}: the API server {what}: {message}")
        self.status = status
        self.message = message
        self.retry_after_s = retry_after_s

    @property
    def refused(self) -> bool:
        """Whether the same call will be refused again: something about it is wrong."""
        return self.status in (400, 403, 413, 422)


class WatchEvent(NamedTuple):
    """ADDED, MODIFIED, DELETED or BOOKMARK, and the object."""

    type: str
    object: Object


def path_of(api_version: str, kind: str, namespace: str | None, name: str = "") -> str:
    """The path of an object, or of a collection; namespace None = everywhere."""
    root = f"/api/{api_version}" if "/" not in api_version else f"/apis/{api_version}"
    where = f"/namespaces/{namespace}" if namespace is not None else ""
    return f"{root}{where}/{_PLURALS[kind]}" + (f"/{name}" if name else "")


def object_path(manifest: Object) -> str:
    """The path of an object."""
    metadata = manifest["metadata"]
    return path_of(
        manifest["apiVersion"], manifest["kind"], metadata["namespace"], metadata["name"]
    )


class Kube:
    """A client of one API server; use `connect`."""

    def __init__(self, api: client.ApiClient) -> None:
        """Takes a configured client."""
        self._api = api

    @classmethod
    @asynccontextmanager
    async def connect(
        cls, configuration: client.Configuration | None = None
    ) -> AsyncIterator[Kube]:
        """With `configuration`, or that of the pod, or the user's."""
        if configuration is None:
            configuration = client.Configuration()
            try:
                config.load_incluster_config(client_configuration=configuration)
            except config.ConfigException:
                await config.load_kube_config(client_configuration=configuration)
        async with client.ApiClient(configuration) as api:
            yield cls(api)

    async def get(self, path: str) -> Object | None:
        """The object at `path`, by a quorum read; None when there is none (404)."""
        try:
            return await self._call("GET", path)
        except ApiError as error:
            if error.status == 404:
                return None
            raise

    async def list(self, path: str, selector: str = "") -> tuple[list[Object], str]:
        """A complete list and its resourceVersion."""
        query = {"labelSelector": selector} if selector else {}
        answer = await self._call("GET", path, query)
        # Only custom objects say in a list what they are; a PUT needs it.
        about = {"apiVersion": answer["apiVersion"], "kind": answer["kind"].removesuffix("List")}
        items = [about | item for item in answer.get("items") or []]
        return items, answer["metadata"]["resourceVersion"]

    async def create(self, path: str, body: Object) -> Object:
        """Makes an object in the collection at `path`."""
        return await self._call("POST", path, body=body)

    async def replace(self, body: Object) -> Object:
        """PUTs an object over the one whose resourceVersion it carries."""
        return await self._call("PUT", object_path(body), body=body)

    async def apply(self, body: Object, subresource: str = "") -> Object:
        """Server-side apply with the operator's field manager."""
        path = object_path(body) + (f"/{subresource}" if subresource else "")
        query = {"fieldManager": names.FIELD_MANAGER, "force": "true"}
        return await self._call("PATCH", path, query, body, _APPLY)

    async def patch(self, path: str, body: Object) -> Object:
        """A merge patch; with `metadata.resourceVersion` it is refused when that has changed."""
        query = {"fieldManager": names.FIELD_MANAGER}
        return await self._call("PATCH", path, query, body, _MERGE)

    async def delete(self, path: str, uid: str = "") -> bool:
        """Deletes an object, only the one with `uid` if given; False when it was gone."""
        body: Object = {"propagationPolicy": "Background"}
        if uid:
            body["preconditions"] = {"uid": uid}
        try:
            await self._call("DELETE", path, body=body)
        except ApiError as error:
            if error.status == 404:
                return False
            raise
        return True

    async def watch(
        self,
        path: str,
        selector: str,
        version: str,
        seconds: int,
        on_event: Callable[[WatchEvent], None],
    ) -> None:
        """Tells `on_event` what happens after `version`; returns when the server ends it.

        Raises:
            ApiError: 410 when the list is to be read again; what else the server said.
            TimeoutError: it has not ended `CALL_TIMEOUT_S` after `seconds`: the server hangs.
        """
        subject = f"watch of {path}"
        query = {
            "watch": "true",
            "resourceVersion": version,
            "allowWatchBookmarks": "true",
            "timeoutSeconds": str(seconds),
        } | ({"labelSelector": selector} if selector else {})
        async with self._request("GET", path, query, None, "", seconds + CALL_TIMEOUT_S) as answer:
            await _check(subject, answer)
            async for line in _lines(answer):
                event = json.loads(line)
                if event["type"] == "ERROR":
                    status = event["object"]
                    raise ApiError(subject, status.get("code", 0), status.get("message", ""))
                on_event(WatchEvent(event["type"], event["object"]))

    async def _call(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None = None,
        body: Object | None = None,
        content_type: str = "application/json",
    ) -> Object:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + CALL_TIMEOUT_S
        while True:
            try:
                return await self._once(method, path, query or {}, body, content_type)
            except ApiError as error:
                wait = min(max(error.retry_after_s, 0.5), _MAX_WAIT_S)
                if error.status != 429 or loop.time() + wait > deadline:
                    raise
            await asyncio.sleep(wait)

    async def _once(
        self,
        method: str,
        path: str,
        query: Mapping[str, str],
        body: Object | None,
        content_type: str,
    ) -> Object:
        subject = f"{method} {path}"
        try:
            async with self._request(
                method, path, query, body, content_type, CALL_TIMEOUT_S
            ) as answer:
                await _check(subject, answer)
                parsed: Object = json.loads(await answer.read())
                return parsed
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            raise ApiError(subject, 0, f"{type(error).__name__} {error}".strip()) from error

    @asynccontextmanager
    async def _request(
        self,
        method: str,
        path: str,
        query: Mapping[str, str],
        body: Object | None,
        content_type: str,
        timeout_s: float,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """One exchange; its connection goes back, or is closed, at the end."""
        headers: dict[str, str] = {"Accept": "application/json"}
        if body is not None:
            headers["Content-Type"] = content_type
        async with asyncio.timeout(timeout_s):
            call: Any = await self._api.param_serialize(
                method=method,
                resource_path=path,
                query_params=list(query.items()),
                header_params=headers,
                body=body,
                auth_settings=["BearerToken"],
            )
            answer = (await self._api.call_api(*call, _request_timeout=timeout_s)).response
            async with answer:
                yield answer


async def _check(subject: str, answer: aiohttp.ClientResponse) -> None:
    if answer.status < 300:
        return
    text = await answer.text(errors="replace")
    try:
        message = json.loads(text).get("message") or text
    except (ValueError, AttributeError):
        message = text
    after = answer.headers.get("Retry-After", "")
    raise ApiError(subject, answer.status, message[:500], float(after) if after.isdigit() else 0.0)


async def _lines(answer: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    """Lines of any length: one event is one object."""
    rest = b""
    async for chunk in answer.content.iter_any():
        *whole, rest = (rest + chunk).split(b"\n")
        for line in whole:
            if line.strip():
                yield line
    if rest.strip():
        yield rest
