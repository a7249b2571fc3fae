"""Segments as Parquet: the user's own columns as they are, and two of ours beside them.

Payloads that are Arrow streams become their columns. All others, and those that say they are Arrow
streams and are none, become one column `payload`: what clients send is theirs, and no reason to
hold up a log. `_tick` is the tick of a row's message and `_entry` the id of the entry it came in;
a user's column of the same name takes its place. Layer: wal.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import structlog

from walplane.message import codec
from walplane.rpc.errors import ErrorCode, WalError
from walplane.rpc.v1 import log_pb2
from walplane.wal.recovery.segments.ipc import decoded_bytes
from walplane.wal.recovery.segments.store import Encoded
from walplane.wal.recovery.segments.units import Unit

_log = structlog.get_logger(__name__)

TICK, ENTRY, PAYLOAD = "_tick", "_entry", "payload"
_METADATA = b"walplane"
_ARROW_SCHEMA = b"ARROW:schema"
"""Where Arrow keeps the schema of a Parquet file; a client's own would stand in its place."""

_MOST_ROWS = 1 << 24
"""Rows of one append, above which its payloads are kept as they are: columns of nulls, or packed
ones, take no room until they are written."""
_MOST_BYTES = 128 << 20
"""Of columns in memory: what an append may take more than was sent, and what one object does."""
_WIDE_BYTES = 64
"""Of a value in a dictionary that is written as often as it is meant."""


class ParquetFormat:
    """A `SegmentFormat`."""

    suffix = "parquet"

    def encode(self, units: Sequence[Unit], about: dict[str, str]) -> list[Encoded]:
        """As many objects as the schema changes."""
        encoded = []
        for schema, run, tables in _runs(units):
            encoded.append(_encode(schema, run, tables, about))
        return encoded

    def describe(self, data: bytes, about: dict[str, str]) -> Encoded:
        """What an object says of itself."""
        try:
            metadata = pq.read_schema(pa.BufferReader(data)).metadata or {}
            said = json.loads(metadata[_METADATA])
            first, last, rows = (
                int(said.pop(name)) for name in ("first_tick", "last_tick", "rows")
            )
        except (pa.ArrowException, ValueError, KeyError, TypeError) as error:
            raise _foreign(about, repr(error)) from error
        if said != about:
            raise _foreign(about, f"it says it is of {said}")
        return Encoded(first, last, rows, data)


def _foreign(about: dict[str, str], why: str) -> WalError:
    return WalError(
        ErrorCode.UNRECOVERABLE,
        f"an object in the place of one of {about} is none of this log ({why}): give every "
        "cluster a segment store, or a prefix in it, of its own",
    )


def _runs(
    units: Iterable[Unit],
) -> Iterator[tuple[pa.Schema | None, list[Unit], list[pa.Table]]]:
    """Units in a row that are of one schema, and the table of each message; None = opaque."""
    schema: pa.Schema | None = None
    run: list[Unit] = []
    tables: list[pa.Table] = []
    size = 0
    for unit in units:
        found = _tables_of(unit)
        of_unit = found[0].schema if found else None
        more = sum(table.nbytes for table in found)
        if run and (size + more > _MOST_BYTES or not _same(of_unit, schema)):
            yield schema, run, tables
            run, tables, size = [], [], 0
        schema = of_unit
        size += more
        run.append(unit)
        tables += found
    if run:
        yield schema, run, tables


def _same(one: pa.Schema | None, other: pa.Schema | None) -> bool:
    if one is None or other is None:
        return one is other
    return bool(one.equals(other))


def _payloads(units: Iterable[Unit]) -> list[bytes]:
    """Those of every message, in order."""
    payloads: list[bytes] = []
    for unit in units:
        for item in unit.entries:
            body = codec.check_stored_entry(item.entry, item.message_id)
            payloads += codec.decode_body(body)[1]
    return payloads


def _tables_of(unit: Unit) -> list[pa.Table]:
    """The rows of each message; none when payloads are opaque, or of different schemas.

    Checked in full: what is broken inside would end the process when it is written.
    """
    formats = {item.entry.envelope.payload_format for item in unit.entries}
    if formats != {log_pb2.PAYLOAD_FORMAT_ARROW_STREAM}:
        return []
    payloads, tables = _payloads([unit]), []
    try:
        if sum(map(decoded_bytes, payloads)) > _MOST_BYTES + sum(map(len, payloads)):
            return []
        for data in payloads:
            reader = pa.ipc.open_stream(data)
            if any(map(_grows, reader.schema.types)):
                return []
            table = reader.read_all()
            table.validate(full=True)
            tables.append(table)
    except Exception:  # Arrow's complaints are of no common kind, and all are of the payload
        return []
    one = all(table.schema.equals(tables[0].schema) for table in tables)
    return tables if one and sum(map(len, tables)) <= _MOST_ROWS else []


def _grows(kind: pa.DataType) -> bool:
    """Whether a dictionary's values are written in full for each row, and large.

    Of text and bytes each is written once.
    """
    if pa.types.is_dictionary(kind):
        value = kind.value_type
        return bool(pa.types.is_fixed_size_binary(value)) and value.byte_width > _WIDE_BYTES
    return any(_grows(kind.field(at).type) for at in range(kind.num_fields))


def _with_own_columns(rows: pa.Table, run: list[Unit], counts: list[int]) -> pa.Table:
    """Adds tick and entry id; `counts` are the rows of each message."""
    names = set(rows.column_names)
    if TICK not in names:
        rows = rows.append_column(
            pa.field(TICK, pa.uint64(), nullable=False),
            _repeated(list(_ticks(run)), counts, pa.uint64()),
        )
    if ENTRY not in names:
        rows = rows.append_column(
            pa.field(ENTRY, pa.string(), nullable=False),
            _repeated(list(_ids(run)), counts, pa.string()),
        )
    return rows


def _repeated(values: Sequence[object], counts: list[int], kind: pa.DataType) -> pa.Array:
    """Each value as often as it is counted."""
    kept = [(value, count) for value, count in zip(values, counts, strict=True) if count]
    if not kept:
        return pa.array([], kind)
    ends = pa.array(accumulate(count for _, count in kept), pa.int64())
    runs = pa.RunEndEncodedArray.from_arrays(ends, pa.array([value for value, _ in kept], kind))
    return pc.run_end_decode(runs)


def _ticks(run: list[Unit]) -> Iterator[int]:
    """The tick of each message."""
    for unit in run:
        for item in unit.entries:
            count = item.entry.envelope.count
            if unit.commit:
                yield from [unit.commit] * count
            else:
                yield from range(item.first_tick, item.first_tick + count)


def _ids(run: list[Unit]) -> Iterator[str]:
    """The entry's id of each message."""
    for unit in run:
        for item in unit.entries:
            yield from [str(item.message_id)] * item.entry.envelope.count


def _encode(
    schema: pa.Schema | None, run: list[Unit], tables: list[pa.Table], about: dict[str, str]
) -> Encoded:
    if schema is not None:
        try:
            table = _with_own_columns(pa.concat_tables(tables), run, list(map(len, tables)))
            columns = _write(table, run, about)
            # Some that can be written cannot be read: nested too deep, for one.
            pq.read_schema(pa.BufferReader(columns.data))
        except Exception as error:  # a type or a name that Parquet lacks, told in many ways
            _log.debug("payloads kept as sent", reason=repr(error), **about)
        else:
            return columns
    flat = _payloads(run)
    opaque = pa.table({PAYLOAD: pa.array(flat, pa.large_binary())})
    return _write(_with_own_columns(opaque, run, [1] * len(flat)), run, about)


def _write(table: pa.Table, run: list[Unit], about: dict[str, str]) -> Encoded:
    first, last = run[0].first_tick, run[-1].tick
    said = {**about, "first_tick": str(first), "last_tick": str(last), "rows": str(len(table))}
    metadata = {**(table.schema.metadata or {}), _METADATA: json.dumps(said, sort_keys=True)}
    metadata.pop(_ARROW_SCHEMA, None)
    sink = pa.BufferOutputStream()
    pq.write_table(table.replace_schema_metadata(metadata), sink, compression="zstd")
    return Encoded(first, last, len(table), sink.getvalue().to_pybytes())
