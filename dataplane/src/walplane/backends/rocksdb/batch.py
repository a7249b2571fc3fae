"""What one write to the database carries. Layer: backends."""

from __future__ import annotations

from rocksdict import WriteBatch

from walplane.backends.rocksdb import layout, values
from walplane.backends.rocksdb.values import Value


class Batch:
    """What one write carries: all of it or nothing.

    Attributes:
        puts: keys and their values.
        cuts: from and to of what is deleted.
        values: records that go into a file before; `Database.place` puts where they are.
        kept: of the topics that it truncates, the first sequence number that is kept.
        size: bytes of `puts`.
    """

    def __init__(self) -> None:
        """An empty one."""
        self.puts: list[tuple[bytes, bytes]] = []
        self.cuts: list[tuple[bytes, bytes]] = []
        self.values: list[Value] = []
        self.kept: dict[int, int] = {}
        self.size = 0

    def put(self, key: bytes, value: bytes) -> None:
        """Sets `key` to `value`."""
        self.puts.append((key, value))
        self.size += len(key) + len(value)

    def put_record(self, number: int, sequence: int, data: bytes) -> None:
        """Appends a record to a topic."""
        if len(data) >= values.VALUE_BYTES:
            self.values.append(Value(number, sequence, data))
        else:
            self.put(layout.record_key(number, sequence), data)

    def truncate(self, number: int, earliest: int, below: int) -> None:
        """Lets go of the records of a topic from `earliest` to below `below`."""
        self.cut(layout.record_key(number, earliest), layout.record_key(number, below))
        self.kept[number] = below

    def cut(self, begin: bytes, end: bytes) -> None:
        """Deletes the keys from `begin` to below `end`."""
        self.cuts.append((begin, end))

    def for_rocks(self) -> WriteBatch:
        """A new one for each try: RocksDB's binding consumes it, also when a write is refused."""
        rocks_batch = WriteBatch(raw_mode=True)
        for begin, end in self.cuts:
            rocks_batch.delete_range(begin, end)
        for key, value in self.puts:
            rocks_batch.put(key, value)
        return rocks_batch
