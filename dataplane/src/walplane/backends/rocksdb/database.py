"""RocksDB itself: options, opening with its checks, writing, syncing, reading. Layer: backends.

Contract: every call blocks. `place` belongs to one thread; `write` and what follows it to one at
a time, which may be another; `read` to any. Whatever RocksDB or the system says against is raised
as a `WalError` that names the directory.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

from rocksdict import Rdict

from walplane.backends.interface import Record
from walplane.backends.rocksdb import layout
from walplane.backends.rocksdb.batch import Batch
from walplane.backends.rocksdb.errors import damaged, failed, unread
from walplane.backends.rocksdb.mark import AcknowledgedMark
from walplane.backends.rocksdb.options import database_options, read_options, write_options
from walplane.backends.rocksdb.values import Changes, Place, ValueFiles
from walplane.backends.sequenced import FIRST
from walplane.disk import sync_directory
from walplane.rpc.errors import ErrorCode, WalError

MARK_FILE = "walplane.acknowledged"
_STALL_SECONDS = 120.0
"""How long flushing may fall behind writing before the disk counts as broken."""


class Database:
    """One open database; the kernel's lock on its LOCK file keeps other processes out.

    Attributes:
        path: its directory, absolute: the program may go to another one meanwhile.
        next_batch: the number of the first batch to write.
        topics: what was found: name, entry, and the sequence number above the last record.
    """

    def __init__(self, path: str) -> None:
        """Opens the database in the directory `path`, made if it is not there, and checks it.

        Raises:
            WalError: RESOURCE_ACQUIRED while it is open elsewhere; UNRECOVERABLE when it is
                damaged or lacks acknowledged records; INVALID_ARGUMENT when `path` is no
                directory of ours.
        """
        self.path = path = str(Path(path).absolute())
        self._make_directory()
        try:
            self._rocks = Rdict(path, database_options())
        except Exception as error:
            raise failed(self.path, "open", error) from error
        try:
            self._mark = AcknowledgedMark(Path(path, MARK_FILE))
            self.next_batch = self._check() + 1
            self.topics = list(self._topics())
            self._values = self._value_files()
        except WalError:
            self._abandon()
            raise
        except Exception as error:
            self._abandon()
            raise failed(self.path, "open", error) from error

    def _topics(self) -> Iterator[tuple[str, layout.TopicEntry, int]]:
        for key, value in self._scan(layout.TOPICS_FROM, layout.TOPICS_TO):
            entry = layout.TopicEntry.decode(value)
            yield layout.topic_name(key), entry, self._end_of(entry)

    def place(self, batch: Batch, changes: Changes) -> None:
        """Writes the large records of `batch` into files, and into it where they are.

        Raises:
            WalError: UNRECOVERABLE; nobody knows how much was written.
        """
        freed = self._values.free(batch.kept) if batch.kept else []
        changes.freed += freed
        for file in freed:
            batch.cut(layout.file_key(file.number), layout.file_key(file.number + 1))
        if not batch.values:
            return
        try:
            places, file = self._values.write(batch.values, changes)
        except OSError as error:
            raise failed(self.path, "write to", error) from error
        for (number, sequence, _), place in zip(batch.values, places, strict=True):
            batch.put(layout.place_key(number, sequence), place.encode())
        batch.put(layout.file_key(file.number), file.encode())

    def sync_values(self, changes: Changes) -> None:
        """Makes large records durable, which must be before the `write` of their batches.

        Raises:
            WalError: UNRECOVERABLE; what was not durable before may never be.
        """
        try:
            changes.sync()
        except OSError as error:
            raise failed(self.path, "fsync", error) from error

    def write(self, batch: Batch) -> None:
        """Hands `batch` to the operating system: it survives this process, not yet the machine.

        Raises:
            WalError: UNRECOVERABLE; nobody knows how much of it was written.
        """
        deadline = time.monotonic() + _STALL_SECONDS
        while True:
            try:
                self._rocks.write(batch.for_rocks(), write_options())
            except Exception as error:
                if "Result incomplete" not in str(error) or time.monotonic() > deadline:
                    raise failed(self.path, "write to", error) from error
                time.sleep(0.002)
            else:
                return

    def sync(self) -> None:
        """Makes durable what was written: fsyncs the logs, and the directory after a new one.

        Raises:
            WalError: UNRECOVERABLE; what was not durable before may never be.
        """
        try:
            self._rocks.flush_wal(True)
        except Exception as error:
            raise failed(self.path, "fsync", error) from error

    def note(self, batch: int) -> None:
        """Notes that everything up to `batch` is durable and acknowledged.

        Raises:
            WalError: UNRECOVERABLE.
        """
        try:
            self._mark.note(batch)
        except OSError as error:
            raise failed(self.path, "write to", error) from error

    def read(self, number: int, first: int, end: int, max_bytes: int) -> list[Record]:
        """The records from `first` to below `end`, or as many as fill `max_bytes`; at least one.

        Raises:
            WalError: UNRECOVERABLE when one is damaged or not there; INNER while no file can be
                opened, after which it is there as before.
        """
        records: list[Record] = []
        rows = self._rocks.iter(read_options())
        try:
            rows.seek(layout.record_key(number, first))
            while max_bytes > 0 and first + len(records) < end and rows.valid():
                sequence = first + len(records)
                key, record = rows.key(), layout.record_key(number, sequence)
                if key not in (record, layout.place_key(number, sequence)):
                    break
                data: bytes = rows.value() if key == record else self._large(rows.value())
                records.append(Record((sequence,), data))
                max_bytes -= len(data)
                rows.next()
            rows.status()
        except WalError:
            raise
        except Exception as error:
            raise unread(self.path, error) from error
        finally:
            # A traceback would keep the iterator, and the iterator the database's lock.
            del rows
        if not records or (max_bytes > 0 and first + len(records) < end):
            raise damaged(
                self.path, f"record {first + len(records)} of topic number {number} is gone"
            )
        return records

    def oldest_and_newest_log(self) -> tuple[int, int]:
        """Numbers of RocksDB's logs: the oldest that is still needed, and the present one."""
        names = (name for name in os.listdir(self.path) if name.endswith(".log"))
        numbers = [int(name[: -len(".log")]) for name in names]
        return min(numbers), max(numbers)

    def batches(self) -> list[int]:
        """Numbers of the batches that may still lie in RocksDB's logs.

        Raises:
            WalError: UNRECOVERABLE when they cannot be read.
        """
        keys = self._scan(layout.BATCHES_FROM, layout.BATCHES_TO)
        return [layout.batch_number(key) for key, _ in keys]

    def flush(self) -> None:
        """Writes what is in memory to table files, and waits for it.

        Raises:
            WalError: UNRECOVERABLE.
        """
        try:
            self._rocks.flush(True)
        except Exception as error:
            raise failed(self.path, "flush", error) from error

    def close(self) -> None:
        """Closes the database; the lock is free when this returns.

        Raises:
            WalError: UNRECOVERABLE when the last flush failed; what was acknowledged stays in the
                log, and the lock is free all the same.
        """
        self._mark.close()
        self._values.close()
        try:
            self._rocks.close()
        except Exception as error:
            raise failed(self.path, "close", error) from error

    def _abandon(self) -> None:
        """Lets go of a database that cannot be used; that it complains is no news."""
        with contextlib.suppress(Exception):
            self._rocks.close()
        with contextlib.suppress(AttributeError):  # it was not even opened
            self._mark.close()

    def _make_directory(self) -> None:
        path = Path(self.path)
        try:
            if not path.is_dir():
                path.mkdir(parents=True)
                sync_directory(path.parent)
        except OSError as error:
            raise WalError(
                ErrorCode.INVALID_ARGUMENT,
                f"{self.path} cannot be the data directory: {error.strerror}",
            ) from error

    def _check(self) -> int:
        """The number of the last batch, after making sure that none is missing."""
        acknowledged = self._mark.read()
        self._check_format(acknowledged)
        floor = self._rocks.get(layout.FLOOR_KEY)
        expected = int.from_bytes(floor, "big") if floor else 1
        for batch in self.batches():
            if batch != expected:
                raise damaged(self.path, f"batch {expected} of its log is gone")
            expected += 1
        if expected <= acknowledged:
            raise damaged(
                self.path,
                f"acknowledged records are missing (the log ends at batch {expected - 1}, "
                f"{acknowledged} was acknowledged)",
            )
        return expected - 1

    def _check_format(self, acknowledged: int) -> None:
        """Refuses what walplane did not write, or not in a way that this version reads."""
        known = self._rocks.get(layout.FORMAT_KEY)
        if known in layout.READABLE:
            return
        if known is not None:
            raise WalError(
                ErrorCode.INVALID_ARGUMENT,
                f"{self.path} was written as {known!r}, this version knows {layout.FORMAT!r}: "
                "use the version that wrote it",
            )
        if acknowledged:
            raise damaged(self.path, "the first of its acknowledged records are missing")
        if any(True for _ in self._scan(b"", b"\xff" * 16)):
            raise WalError(
                ErrorCode.INVALID_ARGUMENT,
                f"{self.path} holds another program's RocksDB: use another directory",
            )

    def _value_files(self) -> ValueFiles:
        """The files of large records, rid of what a kill left behind."""
        keys = self._scan(layout.FILES_FROM, layout.FILES_TO)
        known = {layout.file_number(key): kept for key, kept in keys}
        topics = {entry.number: range(entry.earliest, end) for _, entry, end in self.topics}
        files = ValueFiles(self.path, known, topics)
        for number in files.remove_unused():
            self._rocks.delete(layout.file_key(number))
        return files

    def _large(self, place: bytes) -> bytes:
        return self._values.read(Place.decode(place))

    def _end_of(self, entry: layout.TopicEntry) -> int:
        """The sequence number above the last record of a topic."""
        rows = self._rocks.iter(read_options())
        try:
            rows.seek_for_prev(layout.record_key(entry.number, layout.LAST))
            key: bytes = rows.key() if rows.valid() else b""
            rows.status()
        except Exception as error:
            raise unread(self.path, error) from error
        finally:
            del rows
        if key < layout.record_key(entry.number, FIRST):
            if entry.earliest > FIRST:
                raise damaged(self.path, f"every record of topic number {entry.number} is gone")
            return FIRST
        return layout.record_sequence(key) + 1

    def _scan(self, begin: bytes, end: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Keys and values from `begin` to below `end`."""
        rows = self._rocks.iter(read_options())
        try:
            rows.seek(begin)
            while rows.valid() and rows.key() < end:
                yield rows.key(), rows.value()
                rows.next()
            rows.status()
        except Exception as error:
            if isinstance(error, WalError):
                raise
            raise unread(self.path, error) from error
        finally:
            del rows
