"""How far back batch numbers are kept. Layer: backends."""

from __future__ import annotations

from collections import deque

from walplane.backends.rocksdb import layout
from walplane.backends.rocksdb.batch import Batch
from walplane.backends.rocksdb.database import Database

LOOK_EVERY = 1024
"""Batches after which the floor may move."""


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
        self._next_look = number + LOOK_EVERY

    def _move(self, floor: int, batch: Batch) -> None:
        """Makes `floor` the lowest batch number that is kept."""
        batch.cut(layout.batch_key(self._at), layout.batch_key(floor))
        batch.put(layout.FLOOR_KEY, floor.to_bytes(8, "big"))
        self._at = floor
