"""Leases through the official Kubernetes client. The only module that knows it.

Contract: as `LeaseStore`. The client is imported at the first use, so that whoever needs no
Kubernetes needs no client. Objects stay the dictionaries they are on the wire: what this version
does not know is kept when an object is written back. Every call has a deadline; a watch ends with
its context, whatever happens. Layer: lease.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from importlib import import_module
from typing import TYPE_CHECKING, Any

from walplane.lease.contract import Body, name_of
from walplane.lease.store import ApiError, Event, Listed
from walplane.rpc.errors import ErrorCode, WalError

if TYPE_CHECKING:
    from kubernetes.aio import client

CALL_TIMEOUT_S = 5.0
_CONNECT_S = 2.5  # TLS included; a lost SYN is sent again after a second, the next after three
_WATCH_SLACK_S = 5.0
_PAGE = 500
_LEASES = "/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases"
_LEASE = _LEASES + "/{name}"
_KUBECONFIG = "~/.kube/config"

_Query = Sequence[tuple[str, str]]


class KubeLeases:
    """The Leases of one namespace of a real API server."""

    def __init__(self, api: client.ApiClient, namespace: str, call_timeout_s: float) -> None:
        """Use `connect`."""
        self._api = api
        self._namespace = namespace
        self._call_timeout_s = call_timeout_s

    @classmethod
    @asynccontextmanager
    async def connect(
        cls, namespace: str, call_timeout_s: float = CALL_TIMEOUT_S
    ) -> AsyncIterator[KubeLeases]:
        """Inside a pod by its ServiceAccount, outside by the kubeconfig file; calls nobody yet.

        Raises:
            WalError: INVALID_ARGUMENT when neither says where the API server is; INNER when the
                client is not installed.
        """
        configuration = await _configuration()
        async with _client().ApiClient(configuration) as api:
            yield cls(api, namespace, call_timeout_s)

    async def get(self, name: str) -> Body:
        """See `LeaseStore`."""
        return await self._call("GET", _LEASE, name)

    async def create(self, body: Body) -> Body:
        """See `LeaseStore`."""
        return await self._call("POST", _LEASES, name_of(body), body=body)

    async def replace(self, body: Body) -> Body:
        """See `LeaseStore`.

        The uid goes with it: a Lease that was deleted is not made again by a PUT.
        """
        _read_version(body)
        return await self._call("PUT", _LEASE, name_of(body), body=body)

    async def delete(self, body: Body) -> None:
        """See `LeaseStore`."""
        uid, version = _read_version(body)
        preconditions = {"uid": uid, "resourceVersion": version}
        options = {"apiVersion": "v1", "kind": "DeleteOptions", "preconditions": preconditions}
        await self._call("DELETE", _LEASE, name_of(body), body=options)

    async def list(self, selector: str) -> Listed:
        """See `LeaseStore`."""
        items: list[Body] = []
        query = [("labelSelector", selector), ("limit", str(_PAGE))]
        page = await self._call("GET", _LEASES, "", query)
        while True:
            items += page.get("items") or []
            metadata = page["metadata"]
            if not metadata.get("continue"):
                return Listed(items, str(metadata["resourceVersion"]))
            following = [*query, ("continue", str(metadata["continue"]))]
            page = await self._call("GET", _LEASES, "", following)

    @asynccontextmanager
    async def watch(
        self, selector: str, resource_version: str, window_s: float
    ) -> AsyncIterator[AsyncIterator[Event]]:
        """See `LeaseStore`."""
        query = [
            ("watch", "true"),
            ("labelSelector", selector),
            ("resourceVersion", resource_version),
            ("allowWatchBookmarks", "true"),
            ("timeoutSeconds", str(max(round(window_s), 1))),
        ]
        subject = f"watch of Leases {selector}"
        lasts_s = window_s + _WATCH_SLACK_S
        deadline = asyncio.get_running_loop().time() + lasts_s
        async with _as_api_errors(subject), asyncio.timeout(self._call_timeout_s):
            response = await self._send("GET", _LEASES, "", query, None, lasts_s)
        try:
            if response.status >= 400:
                async with _as_api_errors(subject), asyncio.timeout(self._call_timeout_s):
                    raise _refused(response, await response.read(), subject)
            yield self._events(response, subject, deadline)
        finally:
            response.close()

    async def _events(
        self,
        response: Any,  # noqa: ANN401 - aiohttp's
        subject: str,
        deadline: float,
    ) -> AsyncIterator[Event]:
        while True:
            async with _as_api_errors(subject), asyncio.timeout_at(deadline):
                if not (line := await response.content.readline()):
                    return
                event = json.loads(line)
                kind, body = str(event["type"]), event["object"]
            if kind == "ERROR":
                raise ApiError(int(body.get("code") or 0), f"{subject}: {body.get('message')}")
            yield Event(kind, body)

    async def _call(
        self, method: str, path: str, name: str, query: _Query = (), body: Body | None = None
    ) -> Body:
        subject = f"{method} of Lease {name}" if name else f"{method} of Leases"
        async with _as_api_errors(subject), asyncio.timeout(self._call_timeout_s):
            response = await self._send(method, path, name, query, body, self._call_timeout_s)
            data = await response.read()
            if response.status >= 400:
                raise _refused(response, data, subject)
            content: Body = json.loads(data)
            return content

    async def _send(
        self,
        method: str,
        path: str,
        name: str,
        query: _Query,
        body: Body | None,
        seconds: float,
    ) -> Any:  # noqa: ANN401 - aiohttp's response
        import aiohttp

        request = await self._api.param_serialize(
            method,
            path,
            path_params={"namespace": self._namespace, "name": name},
            query_params=list(query),
            header_params={"Accept": "application/json", "Content-Type": "application/json"},
            body=body,
            auth_settings=["BearerToken"],
        )
        limit: Any = aiohttp.ClientTimeout(total=seconds, sock_connect=_CONNECT_S)
        return (await self._api.call_api(*request, _request_timeout=limit)).response


@asynccontextmanager
async def _as_api_errors(subject: str) -> AsyncIterator[None]:
    """Every way in which a call can fail, as one error."""
    import aiohttp

    try:
        yield
    except TimeoutError as error:
        raise ApiError(0, f"{subject}: the API server did not answer in time") from error
    except (aiohttp.ClientError, OSError) as error:
        raise ApiError(0, f"{subject}: no answer from the API server: {error}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise ApiError(0, f"{subject}: an answer that makes no sense: {error!r}") from error


def _read_version(body: Body) -> tuple[str, str]:
    """(uid, resourceVersion) of a Lease that was read."""
    metadata = body["metadata"]
    if not (metadata.get("resourceVersion") and metadata.get("uid")):
        raise ValueError(f"Lease {name_of(body)} is to be written but was never read")
    return str(metadata["uid"]), str(metadata["resourceVersion"])


def _refused(response: Any, data: bytes, subject: str) -> ApiError:  # noqa: ANN401 - aiohttp's
    try:
        message = str(json.loads(data)["message"])
    except (ValueError, KeyError, TypeError):
        message = str(response.reason)
    try:
        retry_after_s = float(response.headers.get("Retry-After", 0))
    except ValueError:
        retry_after_s = 0.0
    return ApiError(response.status, f"{subject}: {response.status} {message}", retry_after_s)


def _client() -> Any:  # noqa: ANN401 - a module
    try:
        from kubernetes.aio import client
    except ModuleNotFoundError as error:
        raise WalError(
            ErrorCode.INNER, f"Kubernetes needs {error.name}: pip install 'walplane[node]'"
        ) from error
    return client


async def _configuration() -> Any:  # noqa: ANN401 - the client's Configuration
    configuration = _client().Configuration()
    config: Any = import_module("kubernetes.aio.config")
    try:
        if os.environ.get("KUBERNETES_SERVICE_HOST"):
            config.load_incluster_config(client_configuration=configuration)
        else:
            path = os.environ.get("KUBECONFIG") or _KUBECONFIG
            await config.load_kube_config(path, client_configuration=configuration)
    except (config.ConfigException, OSError) as error:
        raise WalError(
            ErrorCode.INVALID_ARGUMENT,
            f"no way to a Kubernetes API server ({error}): run in a pod with a ServiceAccount, or "
            "set KUBECONFIG",
        ) from error
    return configuration
