"""Arrow record batches to payloads, spread over shards. Layer: cli.

Contract: a payload is one Arrow IPC stream that holds one record batch and tells its own types.
Rows with equal keys go to the same shard, in their order; batches without keys go to the shards in
turn.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from walplane.channel import shard_of
from walplane.cli.errors import CommandError
from walplane.cli.keys import key_bytes
from walplane.cli.rows import Rows

MAX_PAYLOAD_BYTES = 1 << 20
"""Batches of more are halved, so that every backend takes them; a single row is left as it is."""


class Piece(NamedTuple):
    """Rows for one shard."""

    shard: int
    rows: int
    payload: bytes


def pieces(rows: Rows, shards: int, turn: int) -> list[Piece]:
    """The payloads of some rows; those without keys all go to shard `turn` modulo `shards`.

    Raises:
        CommandError: they cannot be written as Arrow.
    """
    batch, keys = rows.batch, rows.keys
    parts = [(turn % shards, batch)] if keys is None else _by_key(batch, keys, shards)
    return [
        Piece(shard, whole.num_rows, _serialise(whole))
        for shard, part in parts
        for whole in _bounded(part)
    ]


def _by_key(batch: pa.RecordBatch, keys: pa.Array, shards: int) -> list[tuple[int, pa.RecordBatch]]:
    encoded = keys.dictionary_encode(null_encoding="encode")
    found = [shard_of(key_bytes(value), shards) for value in encoded.dictionary.to_pylist()]
    of_row = pa.array(found, pa.int32()).take(encoded.indices)
    return [(shard, batch.filter(pc.equal(of_row, shard))) for shard in of_row.unique().to_pylist()]


def large_rows_apart(rows: Rows) -> Iterator[Rows]:
    """`rows` in order, each row of more than a payload's bytes alone and marked as large."""
    start = 0
    for place in _large_rows(rows.batch, 0):
        if place > start:
            yield rows.cut(start, place)
        yield rows.cut(place, place + 1)._replace(large=True)
        start = place + 1
    if start < rows.batch.num_rows:
        yield rows.cut(start, rows.batch.num_rows)


def _large_rows(batch: pa.RecordBatch, first: int) -> Iterator[int]:
    """The places of rows that are large; `first` is that of the batch's first row."""
    if batch.nbytes <= MAX_PAYLOAD_BYTES:
        return
    if batch.num_rows == 1:
        yield first
        return
    half = batch.num_rows // 2
    yield from _large_rows(batch.slice(0, half), first)
    yield from _large_rows(batch.slice(half), first + half)


def _bounded(batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
    if batch.nbytes <= MAX_PAYLOAD_BYTES or batch.num_rows == 1:
        yield batch
        return
    half = batch.num_rows // 2
    yield from _bounded(batch.slice(0, half))
    yield from _bounded(batch.slice(half))


def _serialise(batch: pa.RecordBatch) -> bytes:
    sink = pa.BufferOutputStream()
    try:
        with pa.ipc.new_stream(sink, batch.schema) as writer:
            writer.write_batch(batch)
    except pa.ArrowException as error:
        raise CommandError(f"rows cannot be written as Arrow: {error}") from error
    return bytes(sink.getvalue())
