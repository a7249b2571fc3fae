"""The Pulsar of one process: admin connections shared, a client per session. Layer: backends."""

from __future__ import annotations

import asyncio
from urllib.parse import quote

from walplane.backends.interface import BackendSession
from walplane.backends.pulsar.admin import Admin
from walplane.backends.pulsar.client import PulsarClient
from walplane.backends.pulsar.config import PulsarConfig
from walplane.backends.pulsar.namespace import ensure_namespace
from walplane.backends.pulsar.session import PulsarSession
from walplane.backends.pulsar.topics import Topics
from walplane.backends.pulsar.writer import MAX_RECORD_BYTES
from walplane.channel import CLAIM_PROPERTY
from walplane.rpc.errors import ErrorCode, WalError


class PulsarBackend:
    """One namespace of one Pulsar."""

    name = "pulsar"
    max_record_bytes = MAX_RECORD_BYTES
    ack_timeout_s = 1.0

    def __init__(self, config: PulsarConfig) -> None:
        """Use `open`."""
        self._config = config
        self._admin = Admin(config)
        self._topics = Topics(self._admin, config)
        self._sessions: set[PulsarSession] = set()
        self._closed = False

    @classmethod
    async def open(cls, config: PulsarConfig) -> PulsarBackend:
        """Makes sure that broker, admin service and namespace are there.

        Raises:
            WalError: see `open_backend`.
        """
        backend = cls(config)
        try:
            await ensure_namespace(backend._admin, config)
            await (await backend.session()).close()
        except BaseException:
            await backend.close()
            raise
        return backend

    async def session(self) -> BackendSession:
        """See `Backend.session`."""
        self._check_open()
        client = PulsarClient(self._config)
        try:
            await client.check()
            self._check_open()  # again: `close` knows nothing of this client yet
        except BaseException:
            await client.close()
            raise
        session = PulsarSession(client, self._topics)
        self._sessions = {one for one in self._sessions if not one.closed} | {session}
        return session

    def _check_open(self) -> None:
        if self._closed:
            raise WalError(ErrorCode.ON_SHUTDOWN, "the Pulsar backend is closed")

    async def claim_on(self, topic: str) -> str:
        """See `Claims.claim_on`."""
        properties = await self._admin.get(self._properties(topic))
        return str((properties or {}).get(CLAIM_PROPERTY) or "")

    async def set_claim(self, topic: str, claim: str) -> None:
        """See `Claims.set_claim`."""
        await self._admin.put(self._properties(topic), {CLAIM_PROPERTY: claim})

    def _properties(self, topic: str) -> str:
        return f"/persistent/{self._config.namespace}/{quote(topic, safe='')}/properties"

    async def close(self) -> None:
        """See `Backend.close`."""
        self._closed = True
        await asyncio.gather(*(session.close() for session in self._sessions))
        self._sessions.clear()
        await self._admin.close()
