"""Group commit: the one thread that writes to the database. Layer: backends.

Contract: commands are staged in the order of `submit`, made durable together with all that waits
(up to 8 MiB a group), then answered by one call into the event loop. The first error of the
storage is the last: it and everything after it end as UNRECOVERABLE, nothing is tried again.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections import deque
from collections.abc import Callable, Sequence
from queue import Empty, SimpleQueue
from typing import Any

from walplane.backends.rocksdb import layout
from walplane.backends.rocksdb.commands import Barrier, Command
from walplane.backends.rocksdb.database import Batch, Database
from walplane.rpc.errors import ErrorCode, WalError

AnyCommand = Command[Any]

GROUP_BYTES = 8 << 20
"""Bytes of records after which a group is fsynced, whatever waits."""

GROUP_COMMANDS = 1024
"""Commands after which it is, so that the event loop answers them in one short turn."""

SLICE_BYTES = 1 << 20
"""Bytes after which a write ends: RocksDB's binding holds the interpreter's lock meanwhile."""

FLOOR_EVERY = 1024
"""Batches after which the floor may move."""


class Committer:
    """The thread, and the queue in front of it."""

    def __init__(self, database: Database, on_failure: Callable[[], None]) -> None:
        """Starts on `database`; `on_failure` is called on the running loop after an error."""
        self._database = database
        self._on_failure = on_failure
        self._loop = asyncio.get_running_loop()
        self._queue: SimpleQueue[AnyCommand] = SimpleQueue()
        self._next_batch = database.next_batch
        self._floor = Floor(database)
        self._stopped: asyncio.Future[None] = self._loop.create_future()
        self.failure: WalError | None = None
        self._thread = threading.Thread(target=self._run, name="walplane-commit", daemon=True)
        self._thread.start()

    def submit(self, command: AnyCommand) -> None:
        """Hands over `command`; its future ends in every case."""
        self._queue.put(command)

    async def close(self) -> None:
        """Ends the thread after everything submitted before; idempotent."""
        self._queue.put(Stop(self._loop.create_future()))
        await asyncio.shield(self._stopped)

    def _run(self) -> None:
        """The thread."""
        stopping = False
        while not stopping:
            group = self._take()
            stopping = any(isinstance(command, Stop) for command in group)
            self._commit(group)
        self._on_loop(self._stop)

    def _take(self) -> list[AnyCommand]:
        """Waits for a command; it and those that wait behind it."""
        group = [self._queue.get()]
        size = group[0].size
        while size < GROUP_BYTES and len(group) < GROUP_COMMANDS:
            try:
                group.append(self._queue.get_nowait())
            except Empty:
                break
            size += group[-1].size
        return group

    def _commit(self, group: Sequence[AnyCommand]) -> None:
        """Writes `group`, makes it durable, and has it answered."""
        done: list[AnyCommand] = []
        refused: list[tuple[AnyCommand, WalError]] = []
        if self.failure is None:
            try:
                self._write(group, done, refused)
            except WalError as error:
                self.failure = error
            except Exception as error:
                self.failure = WalError(
                    ErrorCode.UNRECOVERABLE,
                    f"the committer of {self._database.path} failed: {error!r}; start again",
                )
            if self.failure is not None:
                self._on_loop(self._on_failure)
        if self.failure is not None:
            code, message = self.failure.code, self.failure.message
            answered = {id(command) for command, _ in refused}
            done = []
            refused += [(c, WalError(code, message)) for c in group if id(c) not in answered]
        self._on_loop(self._answer, done, refused)

    def _write(
        self,
        group: Sequence[AnyCommand],
        done: list[AnyCommand],
        refused: list[tuple[AnyCommand, WalError]],
    ) -> None:
        """Makes `group` durable; sorts it into what is `done` and what was `refused`."""
        batch = Batch()
        wrote = False
        for command in group:
            try:
                command.stage(batch)
            except WalError as error:
                refused.append((command, error))
                continue
            done.append(command)
            if batch.size >= SLICE_BYTES:
                self._write_batch(batch)
                batch, wrote = Batch(), True
        if batch.puts:
            self._write_batch(batch)
            wrote = True
        if wrote:
            self._database.sync()
            self._database.note(self._next_batch - 1)

    def _write_batch(self, batch: Batch) -> None:
        """Writes one batch under the next number."""
        self._floor.before(self._next_batch, batch)
        batch.put(layout.batch_key(self._next_batch), b"")
        self._database.write(batch)
        self._next_batch += 1

    def _on_loop(self, call: Callable[..., None], *args: object) -> None:
        # The loop may be gone already in a process that ends; then nobody waits for an answer.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(call, *args)

    def _answer(
        self, done: Sequence[AnyCommand], refused: Sequence[tuple[AnyCommand, WalError]]
    ) -> None:
        """Publishes and answers one group, on the event loop."""
        for command in done:
            result = command.publish()
            if not command.future.done():
                command.future.set_result(result)
        for command, error in refused:
            if not command.future.done():
                command.future.set_exception(error)
        for topic in {command.topic for command in done if command.topic is not None}:
            topic.bell.ring()

    def _stop(self) -> None:
        if not self._stopped.done():
            self._stopped.set_result(None)


class Stop(Barrier):
    """The last command."""

    __slots__ = ()


class Floor:
    """Lets go of batch numbers whose batches RocksDB has moved to table files.

    What was written while log N was the newest lies in log N or an older one; once the oldest log
    that is left is above N, it lies in table files, which RocksDB guards by itself.
    """

    def __init__(self, database: Database) -> None:
        """The floor of a database whose recovery has just emptied its logs."""
        self._database = database
        self._at = 0
        self._next_look = 0
        self._seen: deque[tuple[int, int]] = deque()

    def before(self, number: int, batch: Batch) -> None:
        """Adds to the batch `number` what moves the floor, if it can move."""
        if not self._next_look:
            batch.put(layout.FORMAT_KEY, layout.FORMAT)
            self._move(number, batch)
        elif number >= self._next_look:
            oldest, newest = self._database.oldest_and_newest_log()
            gone = [below for below, log in self._seen if log < oldest]
            self._seen = deque(pair for pair in self._seen if pair[1] >= oldest)
            self._seen.append((number, newest))
            if gone:
                self._move(gone[-1], batch)
        else:
            return
        self._next_look = number + FLOOR_EVERY

    def _move(self, floor: int, batch: Batch) -> None:
        """Makes `floor` the lowest batch number that is kept."""
        batch.cut(layout.batch_key(self._at), layout.batch_key(floor))
        batch.put(layout.FLOOR_KEY, floor.to_bytes(8, "big"))
        self._at = floor
