"""Segments as Parquet: the user's own columns as they are, and two of ours beside them.

Payloads that are Arrow streams become their columns. All others, and those that say they are Arrow
streams and are none, become one column `payload`: what clients send is theirs, and no reason to
hold up a log. `_tick` is the tick of a row's message and `_entry` the id of the entry it came in;
a user's column of the same name takes its place. Layer: wal.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import structlog

from walplane.message import codec
from walplane.rpc.errors import ErrorCode, WalError
from walplane.rpc.v1 import log_pb2
from walplane.wal.recovery.segments.columns import grows, is_sure, viewed_bytes
from walplane.wal.recovery.segments.ipc import Size, decoded_size
from walplane.wal.recovery.segments.store import Encoded
from walplane.wal.recovery.segments.units import Unit

_log = structlog.get_logger(__name__)

TICK, ENTRY, PAYLOAD = "_tick", "_entry", "payload"
_METADATA = b"walplane"
_ARROW_SCHEMA = b"ARROW:schema"
"""Where Arrow keeps the schema of a Parquet file; a client's own would stand in its place."""

_MOST_BYTES = 128 << 20
"""Of columns in memory: what an append may take more than was sent, and what one object does."""
_MOST_VALUES = 1 << 24
"""Of columns and of what they consist of, likewise; a byte that was sent makes up for one. Nulls,
or packed ones, take no room until they are written, and then some bytes each."""
_MOST_OBJECTS = 16
"""Of what is encoded at once, usually a part: producers of two schemas take turns, at worst for
each message."""


class ParquetFormat:
    """A `SegmentFormat`."""

    suffix = "parquet"

    def encode(self, units: Sequence[Unit], about: dict[str, str]) -> Iterator[Encoded]:
        """As many objects as the schema changes, within bounds."""
        return (_encode(run, about) for run in _runs(units))

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


@dataclass
class _Rows:
    """The table of each message, none when they are opaque; `size` is what they take."""

    tables: list[pa.Table] = field(default_factory=list)
    size: Size = field(default_factory=Size)

    @property
    def schema(self) -> pa.Schema | None:
        return self.tables[0].schema if self.tables else None


@dataclass
class _Run(_Rows):
    """Units in a row that are of one schema."""

    units: list[Unit] = field(default_factory=list)

    def takes(self, rows: _Rows) -> bool:
        """Whether they fit, by schema and size."""
        size = self.size.plus(rows.size)
        fits = size.bytes <= _MOST_BYTES and size.values <= _MOST_VALUES
        return not self.units or (fits and _same(self.schema, rows.schema))

    def add(self, unit: Unit, rows: _Rows) -> None:
        self.units.append(unit)
        self.tables += rows.tables
        self.size = self.size.plus(rows.size)


def _runs(units: Iterable[Unit]) -> Iterator[_Run]:
    """What each object holds; the last one that there may be takes all the rest, as it was sent."""
    units = iter(units)
    run, made = _Run(), 0
    for unit in units:
        rows = _rows_of(unit)
        if not run.takes(rows):
            yield run
            run, made = _Run(), made + 1
            if made == _MOST_OBJECTS - 1:
                yield _Run(units=[unit, *units])
                return
        run.add(unit, rows)
    if run.units:
        yield run


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


def _rows_of(unit: Unit) -> _Rows:
    """The rows of each message; none when payloads are opaque, or of different schemas.

    Checked in full: what is broken inside would end the process when it is written.
    """
    formats = {item.entry.envelope.payload_format for item in unit.entries}
    if formats != {log_pb2.PAYLOAD_FORMAT_ARROW_STREAM}:
        return _Rows()
    payloads = _payloads([unit])
    sent, tables = sum(map(len, payloads)), []
    try:
        size = Size()
        for data in payloads:
            size = size.plus(decoded_size(data))
        if size.bytes > _MOST_BYTES + sent or size.values > _MOST_VALUES + sent:
            return _Rows()
        for data in payloads:
            reader = pa.ipc.open_stream(data)
            if any(map(grows, reader.schema.types)):
                return _Rows()
            table = reader.read_all()
            table.validate(full=True)
            tables.append(table)
        shown = sum(map(viewed_bytes, tables))
    except Exception:  # Arrow's complaints are of no common kind, and all are of the payload
        return _Rows()
    one = all(table.schema.equals(tables[0].schema) for table in tables)
    if not one or shown > _MOST_BYTES + sent:
        return _Rows()
    taken = sum(table.nbytes for table in tables)
    return _Rows(tables, Size(max(taken, shown), size.values))


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


def _encode(run: _Run, about: dict[str, str]) -> Encoded:
    tables, run.tables = run.tables, []  # not kept while the object is on its way to the store
    if tables:
        try:
            rows, counts = pa.concat_tables(tables), list(map(len, tables))
            columns = _write(_with_own_columns(rows, run.units, counts), run.units, about)
            _check(rows, columns.data)
        except Exception as error:  # a type or a name that Parquet lacks, told in many ways
            _log.debug("payloads kept as sent", reason=repr(error), **about)
        else:
            return columns
    flat = _payloads(run.units)
    opaque = pa.table({PAYLOAD: pa.array(flat, pa.large_binary())})
    return _write(_with_own_columns(opaque, run.units, [1] * len(flat)), run.units, about)


def _check(rows: pa.Table, data: bytes) -> None:
    """Raises when an object does not give back the rows that were written.

    Some columns that can be written cannot be read, nested too deep for one, or are read as
    something else. To read all would double the time that encoding takes: what is known is trusted.
    """
    source = pa.BufferReader(data)
    unsure = [at for at, each in enumerate(_as_they_are(rows)) if not is_sure(each)]
    if not unsure:
        pq.read_schema(source)
        return
    found, written = pq.read_table(source).select(unsure), rows.select(unsure)
    if not found.cast(written.schema).equals(written):
        raise ValueError("other values are read than were written")


def _as_they_are(rows: pa.Table) -> Iterator[pa.Field]:
    """The columns' fields; one without nulls counts as if it might have some."""
    for each, column in zip(rows.schema, rows.columns, strict=True):
        yield each if column.null_count else each.with_nullable(True)


def _write(table: pa.Table, run: list[Unit], about: dict[str, str]) -> Encoded:
    first, last = run[0].first_tick, run[-1].tick
    said = {**about, "first_tick": str(first), "last_tick": str(last), "rows": str(len(table))}
    metadata = {**(table.schema.metadata or {}), _METADATA: json.dumps(said, sort_keys=True)}
    metadata.pop(_ARROW_SCHEMA, None)
    sink = pa.BufferOutputStream()
    pq.write_table(table.replace_schema_metadata(metadata), sink, compression="zstd")
    return Encoded(first, last, len(table), sink.getvalue().to_pybytes())
