"""A small real API server for Leases, over HTTP on loopback, with the behaviour that matters here.

Contract: resourceVersion conflicts, uid preconditions, label selectors, list and watch with
bookmarks and 410, as a Kubernetes API server has them; and whatever failure a test asks for. A
kubeconfig file leads the official client to it. Layer: testkit; for tests only.
"""

from __future__ import annotations

import asyncio
import copy
import json
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from aiohttp import web

Body = dict[str, Any]
_PATH = "/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases"

Fault = Callable[[web.Request], web.StreamResponse | float | None]
"""Asked before a request is served: an answer instead, seconds to hang, or None to go on."""


class KubeApi:
    """Use `serving`.

    Attributes:
        leases: what is stored, by name.
        requests: (method, name or empty) of every request, in order.
        faults: asked in turn; the first that says something wins.
        watches: streams open now.
        silent: while True, watches stay open and tell nothing.
    """

    def __init__(self) -> None:
        """Holds nothing."""
        self.leases: dict[str, Body] = {}
        self.requests: list[tuple[str, str]] = []
        self.faults: list[Fault] = []
        self.watches = 0
        self.silent = False
        self._version = 100
        self._oldest = 0
        self._events: list[tuple[int, str, Body]] = []
        self._changed = asyncio.Event()
        self._stopping = asyncio.Event()
        self._runner: web.AppRunner | None = None
        self._port = 0

    @classmethod
    @asynccontextmanager
    async def serving(cls) -> AsyncIterator[KubeApi]:
        """A server on a free port of loopback."""
        api = cls()
        await api.start()
        try:
            yield api
        finally:
            await api.stop()

    async def start(self) -> None:
        """Listens, again on the same port after a `stop`."""
        self._stopping.clear()
        self._changed = asyncio.Event()
        app = web.Application()
        app.router.add_route("*", _PATH, self._collection)
        app.router.add_route("*", _PATH + "/{name}", self._object)
        self._runner = web.AppRunner(app, shutdown_timeout=0)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self._port)
        await site.start()
        self._port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        """Ends every connection and refuses new ones."""
        self._stopping.set()
        self._changed.set()
        runner, self._runner = self._runner, None
        if runner is not None:
            await runner.cleanup()

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self._port}"

    def kubeconfig(self, path: Path) -> Path:
        """Writes a kubeconfig file that leads here."""
        return write_kubeconfig(path, self.url)

    def put(self, body: Body) -> Body:
        """Stores a Lease as if somebody had written it, whatever was there."""
        name = body["metadata"]["name"]
        known = self.leases.get(name)
        stored = self._stored(body, known)
        return self._save("MODIFIED" if known else "ADDED", stored)

    def remove(self, name: str) -> None:
        """Deletes a Lease as if somebody had."""
        self._save("DELETED", copy.deepcopy(self.leases[name]))

    def compact(self) -> None:
        """Forgets the past: a watch from before now is 410 Gone."""
        self._oldest = self._version
        self._events.clear()

    def answer(
        self,
        status: int,
        times: int = 1,
        *,
        method: str = "",
        name: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        """Lets the next `times` requests (of this method, of this Lease) fail with `status`."""
        left = [times]

        def fault(request: web.Request) -> web.StreamResponse | None:
            wrong_name = name is not None and request.match_info.get("name", "") != name
            if not left[0] or (method and request.method != method) or wrong_name:
                return None
            left[0] -= 1
            return _status(status, "as the test wants", headers)

        self.faults.append(fault)

    # --- requests --------------------------------------------------------------------------------

    async def _collection(self, request: web.Request) -> web.StreamResponse:
        if (wrong := await self._faulty(request)) is not None:
            return wrong
        if request.method == "POST":
            body = await request.json()
            if body["metadata"]["name"] in self.leases:
                return _status(409, "already exists")
            body["metadata"]["namespace"] = request.match_info["namespace"]
            return web.json_response(self._save("ADDED", self._stored(body, None)), status=201)
        if request.query.get("watch") == "true":
            return await self._watch(request)
        matches = _selecting(request.query.get("labelSelector", ""))
        items = [body for _, body in sorted(self.leases.items()) if matches(body)]
        metadata = {"resourceVersion": str(self._version)}
        return web.json_response({"kind": "LeaseList", "metadata": metadata, "items": items})

    async def _object(self, request: web.Request) -> web.StreamResponse:
        if (wrong := await self._faulty(request)) is not None:
            return wrong
        known = self.leases.get(request.match_info["name"])
        body = await request.json() if request.can_read_body else {}
        if known is None:
            return self._missing(request, body)
        if request.method == "GET":
            return web.json_response(known)
        asked = body.get("preconditions" if request.method == "DELETE" else "metadata") or {}
        for key in ("uid", "resourceVersion"):
            if asked.get(key, known["metadata"][key]) != known["metadata"][key]:
                return _status(409, "the object has been modified")
        if request.method == "DELETE":
            return web.json_response(self._save("DELETED", copy.deepcopy(known)))
        _check(body)
        return web.json_response(self._save("MODIFIED", self._stored(body, known)))

    def _missing(self, request: web.Request, body: Body) -> web.StreamResponse:
        """As the real one: a PUT that names no uid makes the Lease anew."""
        if request.method != "PUT":
            return _status(404, "not found")
        if body["metadata"].get("uid"):
            return _status(409, "precondition failed: uid")
        return web.json_response(self._save("ADDED", self._stored(body, None)), status=201)

    async def _faulty(self, request: web.Request) -> web.StreamResponse | None:
        self.requests.append((request.method, request.match_info.get("name", "")))
        for fault in self.faults:
            answer = fault(request)
            if isinstance(answer, float | int):
                await asyncio.wait({asyncio.ensure_future(self._stopping.wait())}, timeout=answer)
                return _status(504, "hung")
            if answer is not None:
                return answer
        return None

    async def _watch(self, request: web.Request) -> web.StreamResponse:
        matches = _selecting(request.query.get("labelSelector", ""))
        version = int(request.query["resourceVersion"])
        loop = asyncio.get_running_loop()
        deadline = loop.time() + float(request.query.get("timeoutSeconds", 60))
        response = web.StreamResponse()
        await response.prepare(request)
        self.watches += 1
        try:
            while loop.time() < deadline and not self._stopping.is_set():
                changed = self._changed
                if not self.silent:
                    version = await self._send_since(version, matches, response)
                try:
                    async with asyncio.timeout_at(deadline):
                        await changed.wait()
                except TimeoutError:
                    break
            bookmark = {"kind": "Lease", "metadata": {"resourceVersion": str(version)}}
            if not self.silent:
                await _send(response, "BOOKMARK", bookmark)
        except (_GoneError, ConnectionError):
            pass
        finally:
            self.watches -= 1
        return response

    async def _send_since(
        self, version: int, matches: Callable[[Body], bool], response: web.StreamResponse
    ) -> int:
        if version < self._oldest:
            gone = {"kind": "Status", "code": 410, "reason": "Expired", "message": "too old"}
            await _send(response, "ERROR", gone)
            raise _GoneError
        for _, kind, body in [event for event in self._events if event[0] > version]:
            if matches(body):
                await _send(response, kind, body)
        return self._version

    # --- the store -------------------------------------------------------------------------------

    def _stored(self, body: Body, known: Body | None) -> Body:
        stored = copy.deepcopy(body)
        uid = known["metadata"]["uid"] if known else str(uuid.uuid4())
        stored["metadata"]["uid"] = uid
        return stored

    def _save(self, kind: str, body: Body) -> Body:
        self._version += 1
        body["metadata"]["resourceVersion"] = str(self._version)
        name = body["metadata"]["name"]
        if kind == "DELETED":
            del self.leases[name]
        else:
            self.leases[name] = body
        self._events.append((self._version, kind, copy.deepcopy(body)))
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()
        return body


class _GoneError(Exception):
    """The watch asked for what is forgotten."""


def _check(body: Body) -> None:
    renewed = (body.get("spec") or {}).get("renewTime")
    if renewed is not None and len(str(renewed).partition(".")[2]) != len("123456Z"):
        raise web.HTTPBadRequest(text=f"renewTime {renewed} is no MicroTime")


def _selecting(text: str) -> Callable[[Body], bool]:
    wanted = dict(pair.split("=", 1) for pair in text.split(",") if pair)

    def matches(body: Body) -> bool:
        labels = body["metadata"].get("labels") or {}
        return all(labels.get(key) == value for key, value in wanted.items())

    return matches


async def _send(response: web.StreamResponse, kind: str, body: Body) -> None:
    await response.write(json.dumps({"type": kind, "object": body}).encode() + b"\n")


def _status(code: int, message: str, headers: dict[str, str] | None = None) -> web.StreamResponse:
    content = {"kind": "Status", "status": "Failure", "code": code, "message": message}
    return web.json_response(content, status=code, headers=headers)


def write_kubeconfig(path: Path, url: str) -> Path:
    """Writes a kubeconfig file that leads to `url`."""
    content = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "test", "cluster": {"server": url}}],
        "users": [{"name": "test", "user": {}}],
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
        "current-context": "test",
    }
    path.write_text(json.dumps(content))
    return path
