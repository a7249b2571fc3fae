"""Group commit: what writes to the database, and makes it durable. Layer: backends.

Contract: commands are staged in the order of `submit`, made durable together with all that waits
(up to 8 MiB a group), then answered by one call into the event loop, in that order. The first
error of the storage is the last: it and everything after it end as UNRECOVERABLE, nothing is tried
again.

One thread writes. It fsyncs a small group itself: whatever arrives meanwhile is the next one. A
large group is fsynced by a second thread while the next one is written, since for large groups the
writing takes as long as the fsync (measured: 1.2 to 1.5 times the throughput; for small groups it
would cost a fifth). Where large records are in a group, the first thread writes those (`values`),
and the second one, once they are fsynced, what the database keeps of the group.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections import deque
from collections.abc import Callable, Sequence
from queue import Empty, Queue, SimpleQueue
from typing import Any

from walplane.backends.rocksdb import layout
from walplane.backends.rocksdb.batch import Batch
from walplane.backends.rocksdb.commands import Barrier, Command
from walplane.backends.rocksdb.database import Database
from walplane.backends.rocksdb.floor import Floor
from walplane.backends.rocksdb.values import Changes, ValueFile, remove
from walplane.rpc.errors import ErrorCode, WalError

AnyCommand = Command[Any]

GROUP_BYTES = 8 << 20
"""Bytes of records after which a group is fsynced, whatever waits."""

GROUP_COMMANDS = 1024
"""Commands after which it is, so that the event loop answers them in one short turn."""

SLICE_BYTES = 1 << 20
"""Bytes after which a write ends: RocksDB's binding holds the interpreter's lock meanwhile."""

OVERLAP_BYTES = 512 << 10
"""Bytes from which on a group is fsynced while the next one is written."""


REMOVED_AT_ONCE = 4
"""Files of large records that are removed after a group; the system takes milliseconds for each."""


class Stop(Barrier):
    """The last command."""

    __slots__ = ()


class Group:
    """Commands on their way, once staged: those that are `done` when it is durable, the others.

    Attributes:
        done: what was staged.
        refused: what was not, and why.
        size: bytes of records.
        batches: what is to be written.
        files: what happens to files of large records; the batches are written after it is synced.
        last_batch: number of the last batch that was written for it; 0 when none was.
    """

    def __init__(self) -> None:
        """Nothing yet."""
        self.done: list[AnyCommand] = []
        self.refused: list[tuple[AnyCommand, WalError]] = []
        self.size = 0
        self.batches: list[Batch] = []
        self.files = Changes()
        self.last_batch = 0


class Committer:
    """The threads, and the queue in front of them."""

    def __init__(self, database: Database, on_failure: Callable[[], None]) -> None:
        """Starts on `database`; `on_failure` is called on the running loop after an error."""
        self._database = database
        self._on_failure = on_failure
        self._loop = asyncio.get_running_loop()
        self._queue: SimpleQueue[AnyCommand] = SimpleQueue()
        self._written: Queue[Group | None] = Queue(maxsize=1)
        self._next_batch = database.next_batch
        self._floor = Floor(database)
        self._freed: deque[ValueFile] = deque()
        self._stopped: asyncio.Future[None] = self._loop.create_future()
        self.failure: WalError | None = None
        self._syncer = threading.Thread(target=self._run_sync, name="walplane-sync", daemon=True)
        self._syncer.start()
        threading.Thread(target=self._run, name="walplane-commit", daemon=True).start()

    def submit(self, command: AnyCommand) -> None:
        """Hands over `command`; its future ends in every case."""
        self._queue.put(command)

    async def close(self) -> None:
        """Ends the threads after everything submitted before; idempotent."""
        self._queue.put(Stop(self._loop.create_future()))
        await asyncio.shield(self._stopped)

    def _run(self) -> None:
        """The thread that stages."""
        stopping = False
        values_before = False
        while not stopping:
            commands = self._take()
            stopping = any(isinstance(command, Stop) for command in commands)
            group = self._stage(commands)
            if not group.files.dirty:
                if values_before:
                    self._written.join()  # their batches come first
                self._write(group)
            values_before = bool(group.files.dirty)
            if group.size >= OVERLAP_BYTES:
                self._written.put(group)
            else:
                self._written.join()
                self._settle(group)
        self._written.put(None)
        self._syncer.join()
        self._on_loop(self._stop)

    def _run_sync(self) -> None:
        """The thread that fsyncs large groups."""
        while (group := self._written.get()) is not None:
            self._settle(group)
            self._written.task_done()

    def _take(self) -> list[AnyCommand]:
        """Waits for a command; it and those that wait behind it."""
        commands = [self._queue.get()]
        size = commands[0].size
        while size < GROUP_BYTES and len(commands) < GROUP_COMMANDS:
            try:
                commands.append(self._queue.get_nowait())
            except Empty:
                break
            size += commands[-1].size
        return commands

    def _stage(self, commands: Sequence[AnyCommand]) -> Group:
        """Stages `commands`; after a failure they are all done, and then refused."""
        group = Group()
        if self.failure is None:
            self._attempt(lambda: self._stage_group(commands, group))
        if self.failure is not None:
            refused = {id(command) for command, _ in group.refused}
            group.done = [command for command in commands if id(command) not in refused]
        return group

    def _stage_group(self, commands: Sequence[AnyCommand], group: Group) -> None:
        """Makes batches of `commands`, in slices, and writes the large records among them."""
        batch = Batch()
        for command in commands:
            try:
                command.stage(batch)
            except WalError as error:
                group.refused.append((command, error))
                continue
            group.done.append(command)
            group.size += command.size
            if batch.size >= SLICE_BYTES:
                self._place(batch, group)
                batch = Batch()
        self._place(batch, group)

    def _place(self, batch: Batch, group: Group) -> None:
        self._database.place(batch, group.files)
        if batch.puts:
            group.batches.append(batch)

    def _write(self, group: Group) -> None:
        """Writes the batches of `group`, each under the next number."""
        if self.failure is None:
            self._attempt(lambda: self._write_batches(group))

    def _write_batches(self, group: Group) -> None:
        for batch in group.batches:
            self._floor.before(self._next_batch, batch)
            batch.put(layout.batch_key(self._next_batch), b"")
            self._database.write(batch)
            group.last_batch = self._next_batch
            self._next_batch += 1

    def _settle(self, group: Group) -> None:
        """Makes `group` durable and has it answered, after every group before it."""
        if group.files.dirty and self.failure is None:
            self._attempt(lambda: self._database.sync_values(group.files))
            self._write(group)
        if self.failure is None and group.last_batch:
            self._attempt(lambda: self._sync(group))
        if self.failure is not None:
            code, message = self.failure.code, self.failure.message
            group.refused += [(command, WalError(code, message)) for command in group.done]
            group.done = []
        self._on_loop(self._answer, group)
        if self.failure is None and (group.files.freed or self._freed):
            self._remove(group.files.freed)

    def _sync(self, group: Group) -> None:
        self._database.sync()
        self._database.note(group.last_batch)

    def _remove(self, freed: Sequence[ValueFile]) -> None:
        """Removes files, a few at a time: the next group waits meanwhile."""
        self._freed.extend(freed)
        remove(self._freed.popleft() for _ in range(min(len(self._freed), REMOVED_AT_ONCE)))

    def _attempt(self, step: Callable[[], None]) -> None:
        """Does `step`; whatever goes wrong with it is the committer's failure."""
        try:
            step()
        except WalError as error:
            self._fail(error)
        except Exception as error:
            path = self._database.path
            self._fail(
                WalError(
                    ErrorCode.UNRECOVERABLE,
                    f"the committer of {path} failed: {error!r}; start again",
                )
            )

    def _fail(self, error: WalError) -> None:
        self.failure = self.failure or error
        self._on_loop(self._on_failure)

    def _on_loop(self, call: Callable[..., None], *args: object) -> None:
        # The loop may be gone already in a process that ends; then nobody waits for an answer.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(call, *args)

    def _answer(self, group: Group) -> None:
        """Publishes and answers one group, on the event loop."""
        for command in group.done:
            result = command.publish()
            if not command.future.done():
                command.future.set_result(result)
        for command, error in group.refused:
            if not command.future.done():
                command.future.set_exception(error)
        for topic in {command.topic for command in group.done if command.topic is not None}:
            topic.bell.ring()

    def _stop(self) -> None:
        if not self._stopped.done():
            self._stopped.set_result(None)
