"""Reading one topic, on the database's own threads. Layer: backends."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor

from walplane.backends.interface import Record
from walplane.backends.rocksdb.commands import Topic
from walplane.backends.rocksdb.database import Database
from walplane.backends.sequenced import closed, truncated
from walplane.rpc.errors import WalError

READ_BYTES = 4 << 20
"""Bytes of records after which one `read` ends."""

READ_RECORDS = 4096
"""Records after which it does."""


class RocksScanner:
    """A `RecordScanner`; sees durable records only."""

    def __init__(
        self,
        database: Database,
        threads: Executor,
        topic: Topic,
        position: int,
        failure: Callable[[], WalError | None],
        forget: Callable[[RocksScanner], None],
    ) -> None:
        """A scanner of `topic` from `position`, a sequence number.

        Args:
            database: where the records are.
            threads: where reading blocks.
            topic: what is read.
            position: sequence number of the first record.
            failure: the error after which nothing new will come; None while all is well.
            forget: told of this scanner when it closes.
        """
        self._database = database
        self._threads = threads
        self._topic = topic
        self._position = position
        self._failure = failure
        self._forget = forget
        self._fetch: asyncio.Future[list[Record]] | None = None
        self._closed = False

    async def read(self) -> list[Record]:
        """The next records, up to 4 MiB or 4,096."""
        if self._fetch is None:
            await self._wait_for_more()
            self._fetch = self._start_fetch()
        try:
            # A cancelled read leaves the fetch to the next one.
            records = await asyncio.shield(self._fetch)
        except WalError:
            self._fetch = None
            self._check()
            raise
        self._fetch = None
        self._check_open()
        self._position += len(records)
        return records

    async def close(self) -> None:
        """Ends a waiting `read` with ON_SHUTDOWN; what was read for nobody goes as well."""
        self._closed = True
        self._fetch = None
        self._forget(self)
        self._topic.bell.ring()

    def _start_fetch(self) -> asyncio.Future[list[Record]]:
        end = min(self._topic.end, self._position + READ_RECORDS)
        fetch = asyncio.get_running_loop().run_in_executor(
            self._threads,
            self._database.read,
            self._topic.entry.number,
            self._position,
            end,
            READ_BYTES,
        )
        # Looked at, so that a failure nobody waits for any more is no complaint of the loop.
        fetch.add_done_callback(lambda done: done.cancelled() or done.exception())
        return fetch

    async def _wait_for_more(self) -> None:
        self._check()
        while self._position >= self._topic.end:
            failure = self._failure()
            if failure is not None:
                raise WalError(failure.code, failure.message)
            await self._topic.bell.wait()
            self._check()

    def _check(self) -> None:
        self._check_open()
        if self._position < self._topic.entry.earliest:
            raise truncated(self._topic.name, self._position, self._topic.entry.earliest)

    def _check_open(self) -> None:
        if self._closed:
            raise closed(self._topic.name)
