"""How RocksDB is set up, and why. Layer: backends."""

from __future__ import annotations

from rocksdict import (
    BlockBasedOptions,
    ChecksumType,
    DBCompressionType,
    DBRecoveryMode,
    Options,
    ReadOptions,
    WriteOptions,
)

WRITE_BUFFER_BYTES = 64 << 20
"""Bytes of records that gather in memory before a flush; a restart replays up to four times it."""

_BLOB_BYTES = 1 << 10
"""Records of this size and more are written once more by a flush and never by a compaction; those
from `values.VALUE_BYTES` on are not in RocksDB at all."""

_READAHEAD_BYTES = 1 << 20


def database_options() -> Options:
    """Options of the database itself."""
    options = Options(raw_mode=True)
    options.create_if_missing(True)
    options.set_paranoid_checks(True)
    # The default opens with fewer records after one flipped bit; this one takes a torn tail only.
    options.set_wal_recovery_mode(DBRecoveryMode.tolerate_corrupted_tail_records())
    options.set_write_buffer_size(WRITE_BUFFER_BYTES)
    options.set_max_write_buffer_number(4)
    options.set_compression_type(DBCompressionType.none())
    options.set_enable_blob_files(True)
    options.set_min_blob_size(_BLOB_BYTES)
    options.set_blob_compression_type(DBCompressionType.none())
    options.set_enable_blob_gc(True)
    # Truncation frees whole files; this is for the few records that hold an old one. With the
    # default of 0.25 every compaction moved half of the log (measured: 2.5 bytes written per byte
    # appended instead of 2.0).
    options.set_blob_gc_age_cutoff(0.05)
    options.set_avoid_unnecessary_blocking_io(True)
    options.set_max_open_files(512)
    options.set_keep_log_file_num(2)
    options.set_max_log_file_size(4 << 20)
    options.set_stats_dump_period_sec(0)
    options.set_stats_persist_period_sec(0)
    tables = BlockBasedOptions()
    # RocksDB's wheel computes crc32c without the processor's instruction.
    tables.set_checksum_type(ChecksumType.xxh3())
    options.set_block_based_table_factory(tables)
    return options


def read_options() -> ReadOptions:
    """Options of an iterator.

    Without an upper bound: RocksDB's binding keeps a pointer to the bound, not the bound itself.
    """
    options = ReadOptions()
    options.set_verify_checksums(True)
    options.set_readahead_size(_READAHEAD_BYTES)
    return options


def write_options() -> WriteOptions:
    """Options of a write that is made durable by a later fsync."""
    options = WriteOptions()
    options.sync = False
    # A stalled write would wait inside RocksDB with the interpreter's lock held.
    options.no_slowdown = True
    return options
