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
from walplane.cli.errors import WRONG_USE, CommandError
from walplane.cli.keys import key_bytes

MAX_PAYLOAD_BYTES = 1 << 20
"""Batches of more are halved, so that every backend takes them; a single row is left as it is."""


class Piece(NamedTuple):
    """Rows for one shard."""

    shard: int
    rows: int
    payload: bytes


def pieces(batch: pa.RecordBatch, key: str | None, shards: int, turn: int) -> list[Piece]:
    """The payloads of one batch; without a key, all go to shard `turn` modulo `shards`.

    Raises:
        CommandError: the batch has no column `key`.
    """
    parts = [(turn % shards, batch)] if key is None else _by_key(batch, key, shards)
    return [
        Piece(shard, whole.num_rows, _serialise(whole))
        for shard, part in parts
        for whole in _bounded(part)
    ]


def _by_key(batch: pa.RecordBatch, key: str, shards: int) -> list[tuple[int, pa.RecordBatch]]:
    if key not in batch.schema.names:
        names = ", ".join(batch.schema.names)
        raise CommandError(f"there is no column {key!r}: the file has {names}", WRONG_USE)
    column = batch.column(key)
    encoded = column.dictionary_encode(null_encoding="encode")
    found = [shard_of(key_bytes(value), shards) for value in encoded.dictionary.to_pylist()]
    of_row = pa.array(found, pa.int32()).take(encoded.indices)
    parts = ((shard, batch.filter(pc.equal(of_row, shard))) for shard in sorted(set(found)))
    return [(shard, part) for shard, part in parts if part.num_rows]


def _bounded(batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
    if batch.nbytes <= MAX_PAYLOAD_BYTES or batch.num_rows == 1:
        yield batch
        return
    half = batch.num_rows // 2
    yield from _bounded(batch.slice(0, half))
    yield from _bounded(batch.slice(half))


def _serialise(batch: pa.RecordBatch) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    return bytes(sink.getvalue())
