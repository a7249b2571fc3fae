"""An API server in memory, for tests of what the operator writes; the operator never imports it."""

from __future__ import annotations

import copy
from typing import cast

from kubernetes.aio import client

from walplane.testkit.kube_objects import Object
from walplane_operator.apply.kube import ApiError, Kube, object_path


class MemoryKube(Kube):
    """Objects by path, with resourceVersions; refuses what it is told to refuse."""

    def __init__(self) -> None:
        """Empty."""
        super().__init__(cast(client.ApiClient, None))
        self.objects: dict[str, Object] = {}
        self.writes: list[str] = []
        self.refusals: dict[str, ApiError] = {}
        self._version = 10_000

    def put(self, raw: Object) -> None:
        """Puts an object there as somebody else would."""
        self.objects[object_path(raw)] = raw

    def written(self) -> list[str]:
        """What was written since the last call, events aside."""
        found = [write for write in self.writes if "/events/" not in write]
        self.writes.clear()
        return found

    async def get(self, path: str) -> Object | None:
        """See `Kube`."""
        return copy.deepcopy(self.objects.get(path))

    async def list(self, path: str, selector: str = "") -> tuple[list[Object], str]:
        """See `Kube`."""
        wanted = dict(term.split("=") for term in selector.split(",") if term)
        found = [
            copy.deepcopy(raw)
            for key, raw in self.objects.items()
            if key.rpartition("/")[0] == path
            and wanted.items() <= (raw["metadata"].get("labels") or {}).items()
        ]
        return found, str(self._version)

    async def create(self, path: str, body: Object) -> Object:
        """See `Kube`."""
        key = f"{path}/{body['metadata']['name']}"
        if key in self.objects:
            raise ApiError(key, 409, "exists")
        return self._store("create", key, body)

    async def replace(self, body: Object) -> Object:
        """See `Kube`."""
        key = object_path(body)
        present = self.objects.get(key)
        if present is None:
            raise ApiError(key, 404, "gone")
        if present["metadata"]["resourceVersion"] != body["metadata"]["resourceVersion"]:
            raise ApiError(key, 409, "modified")
        return self._store("replace", key, body)

    async def apply(self, body: Object, subresource: str = "") -> Object:
        """See `Kube`."""
        key = object_path(body)
        present = copy.deepcopy(self.objects.get(key))
        if subresource:
            if present is None:
                raise ApiError(key, 404, "gone")
            present["status"] = body["status"]
            return self._store("status", key, present)
        merged = (present or {}) | body
        if present:
            merged["metadata"] = present["metadata"] | body["metadata"]
            merged["spec"] = present.get("spec", {}) | body.get("spec", {})
        merged["metadata"].setdefault("uid", f"uid-of-{body['metadata']['name']}")
        return self._store("apply", key, merged)

    async def patch(self, path: str, body: Object) -> Object:
        """See `Kube`."""
        present = copy.deepcopy(self.objects[path])
        present["metadata"] |= body.get("metadata", {})
        return self._store("patch", path, present)

    async def delete(self, path: str, uid: str = "") -> bool:
        """See `Kube`."""
        present = self.objects.get(path)
        if present is None or (uid and present["metadata"]["uid"] != uid):
            return False
        self.writes.append(f"delete {path}")
        del self.objects[path]
        return True

    def _store(self, verb: str, key: str, body: Object) -> Object:
        if key in self.refusals:
            raise self.refusals[key]
        self._version += 1
        body = copy.deepcopy(body)
        body["metadata"]["resourceVersion"] = str(self._version)
        self.objects[key] = body
        self.writes.append(f"{verb} {key}")
        return copy.deepcopy(body)
