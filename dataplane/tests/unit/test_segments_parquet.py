"""Parquet of what clients send: their columns, or else what was sent, and never an error."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from walplane.message.ids import MessageID
from walplane.testkit.segments import arrow_payload, insert, table_payload
from walplane.wal.ports import LogEntry
from walplane.wal.recovery.segments import parquet
from walplane.wal.recovery.segments.ipc import decoded_size
from walplane.wal.recovery.segments.parquet import ENTRY, PAYLOAD, TICK, ParquetFormat
from walplane.wal.recovery.segments.units import Unit

ABOUT = {"segment_id": "7"}
MANY = 1_000_000
ZEROS = pa.array(bytes(MANY), pa.uint8())


def unit(tick: int, *payloads: bytes) -> Unit:
    """One append of Arrow streams."""
    entry = insert(7, *payloads, arrow=True)
    entry.envelope.first_tick = tick
    item = LogEntry(entry, MessageID("memory", (tick,)), 1)
    return Unit(item.last_tick, (item,))


def encoded(*units: Unit) -> list[pa.Table]:
    """The tables of the objects that `units` become, each of which says what it is."""
    objects = list(ParquetFormat().encode(units, ABOUT))
    for each in objects:
        assert ParquetFormat().describe(each.data, ABOUT) == each
    return [pq.read_table(io.BytesIO(each.data)) for each in objects]


def nested(depth: int) -> pa.Array:
    """A list of lists of lists, and so on."""
    kind = pa.int32()
    for _ in range(depth):
        kind = pa.list_(kind)
    return pa.array([[]], kind)


@pytest.mark.parametrize(
    "column",
    [
        pytest.param(pa.array([100], pa.decimal128(5, -2)), id="negative scale"),
        pytest.param(pa.array([b""], pa.binary(0)), id="no width"),
        pytest.param(nested(50), id="too deep to be read"),
        pytest.param(nested(55), id="too deep"),
        pytest.param(pa.array([(1, 2, 3)], pa.month_day_nano_interval()), id="interval"),
        pytest.param(pa.array([[], None], pa.list_(pa.int32(), 0)), id="lists of nothing"),
        pytest.param(
            pa.array([{"b": []}, None], pa.struct([("b", pa.list_(pa.int32(), 0))])), id="inside"
        ),
        pytest.param(pa.array([[1]], pa.list_view(pa.int32())), id="views of lists"),
        pytest.param(
            pa.array([86_400_000 << 32], pa.int64()).view(pa.date64()), id="a day that 32 bits lack"
        ),
    ],
)
def test_types_that_parquet_lacks_are_kept_as_sent(column: pa.Array) -> None:
    payload = arrow_payload({"a": column})
    (table,) = encoded(unit(10, payload), unit(20, payload))
    assert table.column(PAYLOAD).to_pylist() == [payload, payload]
    assert set(table.column(TICK).to_pylist()) == {10, 20}


def required(kind: pa.DataType) -> pa.Schema:
    """One column, which is said to have no nulls."""
    return pa.schema([pa.field("a", kind, nullable=False)])


INSIDE = pa.struct([pa.field("b", pa.list_(pa.int8()), nullable=False)])


@pytest.mark.parametrize(
    "column",
    [
        pytest.param(pa.array([{"b": 1}, None], pa.struct([("b", pa.int8())])), id="struct"),
        pytest.param(pa.array([[1], None], pa.list_(pa.int8())), id="list"),
        pytest.param(pa.array([[1, 2], None], pa.list_(pa.int8(), 2)), id="fixed size"),
        pytest.param(pa.array([[("a", 1)], None], pa.map_(pa.string(), pa.int8())), id="map"),
        pytest.param(
            pa.StructArray.from_arrays(
                [pa.array([[1], None], pa.list_(pa.int8()))], fields=[INSIDE.field(0)]
            ),
            id="inside",
        ),
    ],
)
def test_nulls_that_a_schema_denies_are_kept_as_sent(column: pa.Array) -> None:
    """Parquet has no nulls there, and gives back values that nobody sent."""
    payload = table_payload(pa.table([column], schema=required(column.type)))
    (table,) = encoded(unit(10, payload))
    assert table.column(PAYLOAD).to_pylist() == [payload]


def test_days_stay_columns() -> None:
    days = pa.array([0, 86_400_000, None], pa.int64()).cast(pa.date64())
    (table,) = encoded(unit(10, arrow_payload({"a": days, "b": pa.array([float("nan")] * 3)})))
    assert table.column_names == ["a", "b", TICK, ENTRY]
    assert table.column("a").cast(pa.date64()).to_pylist() == days.to_pylist()


@pytest.mark.parametrize("kind", [pa.list_(pa.float32(), 2), pa.list_(pa.float32()), INSIDE])
def test_nested_columns_without_nulls_stay_columns(kind: pa.DataType) -> None:
    values = [{"b": [1, 2]}] if kind == INSIDE else [[1.0, float("nan")]]
    column = pa.array(values, kind)
    (table,) = encoded(unit(10, table_payload(pa.table([column], schema=required(kind)))))
    assert table.column_names == ["a", TICK, ENTRY]
    assert repr(table.column("a").to_pylist()) == repr(values)
    assert table.schema.field("a") == required(kind).field("a")


def extension(storage: pa.Array) -> pa.Array:
    """Values of a type that nobody knows."""
    return pa.ExtensionArray.from_storage(pa.opaque(storage.type, "kind", "vendor"), storage)


def list_of(values: pa.Array) -> pa.Array:
    """All of them in one row."""
    return pa.ListArray.from_arrays(pa.array([0, len(values)], pa.int32()), values)


def texts(length: int, rows: int) -> pa.Array:
    """The same text in each row, and once in memory."""
    views = struct.pack("<i4sii", length, b"xxxx", 0, 0) * rows
    return pa.Array.from_buffers(
        pa.string_view(), rows, [None, pa.py_buffer(views), pa.py_buffer(b"x" * length)]
    )


@pytest.mark.parametrize(
    "column",
    [
        pytest.param(list_of(pa.nulls(MANY)), id="nulls in a list"),
        pytest.param(extension(list_of(pa.nulls(MANY))), id="in one of no known type"),
        pytest.param(
            pa.FixedSizeListArray.from_arrays(pa.nulls(MANY), MANY), id="in one of fixed size"
        ),
        pytest.param(pa.nulls(MANY), id="nulls"),
        pytest.param(texts(MANY // 100, 100), id="views"),
        pytest.param(list_of(texts(MANY // 100, 100)), id="views in a list"),
    ],
)
def test_values_that_take_no_room_until_they_are_written_are_bounded(
    monkeypatch: pytest.MonkeyPatch, column: pa.Array
) -> None:
    monkeypatch.setattr(parquet, "_MOST_BYTES", MANY // 2)
    monkeypatch.setattr(parquet, "_MOST_VALUES", MANY // 2)
    payload = arrow_payload({"a": column})
    (table,) = encoded(unit(10, payload))
    assert table.column(PAYLOAD).to_pylist() == [payload]


def test_an_object_takes_no_more_values_than_it_may(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet, "_MOST_VALUES", 1000)
    payload = arrow_payload({"a": pa.nulls(400)})
    tables = encoded(*(unit(tick, payload) for tick in range(10, 15)))
    assert [set(table.column(TICK).to_pylist()) for table in tables] == [{10, 11}, {12, 13}, {14}]


def test_producers_that_take_turns_do_not_make_an_object_of_each_message() -> None:
    """Rows stay in order: an object is named after its first tick, and holds all up to its last."""
    kinds = arrow_payload({"x": [1]}), arrow_payload({"x": [1.5]})
    sent = {tick: kinds[tick % 2] for tick in range(10, 210)}
    tables = encoded(*(unit(tick, payload) for tick, payload in sent.items()))
    assert len(tables) == 16
    assert [tick for each in tables for tick in each.column(TICK).to_pylist()] == list(sent)
    assert [each.column("x").to_pylist() for each in tables[:2]] == [[1], [1.5]]
    assert tables[-1].column(PAYLOAD).to_pylist() == list(sent.values())[15:]


@pytest.mark.parametrize("number", [15, 16])
def test_as_many_schemas_as_there_may_be_objects(number: int) -> None:
    units = [unit(tick, arrow_payload({f"x{tick}": [1]})) for tick in range(10, 10 + number)]
    names = [each.column_names[0] for each in encoded(*units)]
    columns = [f"x{tick}" for tick in range(10, 25)]
    assert names == [*columns, PAYLOAD][:number]


def test_an_object_is_made_when_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who closes waits for one of them, and one of them is in memory."""
    made: list[str] = []
    write = pq.write_table

    def counted(table: pa.Table, sink: pa.NativeFile, **options: str) -> None:
        made.append(table.column_names[0])
        write(table, sink, **options)

    monkeypatch.setattr(pq, "write_table", counted)
    units = [unit(tick, arrow_payload({f"x{tick}": [1]})) for tick in range(10, 15)]
    objects = ParquetFormat().encode(units, ABOUT)
    assert (next(objects).first_tick, made) == (10, ["x10"])
    assert [each.first_tick for each in objects] == [11, 12, 13, 14]


def test_views_stay_columns() -> None:
    column = pa.array(["a", None, "b" * 30], pa.string_view())
    (table,) = encoded(unit(10, arrow_payload({"a": column})))
    assert table.column("a").to_pylist() == column.to_pylist()


def test_a_column_whose_name_is_no_text_is_kept_as_sent() -> None:
    payload = arrow_payload({"name": [1]}).replace(b"name", b"\xff\xfe\xff\xfe")
    (table,) = encoded(unit(10, payload))
    assert table.column(PAYLOAD).to_pylist() == [payload]


def test_metadata_of_the_client_cannot_make_an_object_unreadable() -> None:
    metadata = {b"ARROW:schema": b"xx", b"theirs": b"kept"}
    rows = pa.table({"a": [1]}).replace_schema_metadata(metadata)
    (table,) = encoded(unit(10, table_payload(rows)))
    assert table.column_names == ["a", TICK, ENTRY]
    assert table.schema.metadata[b"theirs"] == b"kept"


def in_dictionary(values: pa.Array, rows: int = 1) -> pa.Array:
    """`rows` times the first of `values`."""
    return pa.DictionaryArray.from_arrays(pa.array(bytes(rows), pa.int8()), values)


@pytest.mark.parametrize("codec", ["zstd", "lz4"])
@pytest.mark.parametrize("column", [ZEROS, in_dictionary(ZEROS)], ids=["rows", "dictionary"])
def test_what_would_take_too_much_memory_is_not_even_read(
    monkeypatch: pytest.MonkeyPatch, column: pa.Array, codec: str
) -> None:
    payload = table_payload(pa.table({"a": column}), codec)
    assert MANY <= decoded_size(payload).bytes < 1.1 * MANY
    monkeypatch.setattr(parquet, "_MOST_BYTES", MANY // 2)
    opened: list[bytes] = []
    monkeypatch.setattr(pa.ipc, "open_stream", opened.append)
    (table,) = encoded(unit(10, payload))
    assert table.column(PAYLOAD).to_pylist() == [payload]
    assert not opened


def test_what_was_not_compressed_is_never_too_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet, "_MOST_BYTES", 0)
    payload = arrow_payload({"a": ZEROS, "b": ZEROS})
    (table,) = encoded(unit(10, payload))
    assert table.column_names == ["a", "b", TICK, ENTRY]


def test_an_object_takes_no_more_memory_than_it_may(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet, "_MOST_BYTES", 5 * MANY // 2)
    payload = table_payload(pa.table({"a": ZEROS}), "zstd")
    tables = encoded(*(unit(tick, payload) for tick in range(10, 15)))
    assert [set(table.column(TICK).to_pylist()) for table in tables] == [{10, 11}, {12, 13}, {14}]


@pytest.mark.parametrize(
    "around",
    [lambda each: each, lambda each: pa.StructArray.from_arrays([each], ["in"]), extension],
    ids=["alone", "nested", "extension"],
)
def test_a_large_value_that_many_rows_mean_is_kept_as_sent(
    around: Callable[[pa.Array], pa.Array],
) -> None:
    column = around(in_dictionary(pa.array([bytes(MANY)], pa.binary(MANY)), 100))
    payload = arrow_payload({"a": column})
    (table,) = encoded(unit(10, payload))
    assert table.column(PAYLOAD).to_pylist() == [payload]


def test_dictionaries_of_text_stay_columns() -> None:
    payload = table_payload(pa.table({"a": in_dictionary(pa.array(["x"]), 3)}), "zstd")
    (table,) = encoded(unit(10, payload))
    assert table.column("a").to_pylist() == ["x"] * 3
