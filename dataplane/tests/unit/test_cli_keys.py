"""Keys of rows: equal ones go to one shard, from `append` and `ingest` alike."""

from __future__ import annotations

import asyncio
import datetime
import io
import json
import tempfile
from decimal import Decimal

import pyarrow as pa
import pyarrow.parquet as pa_parquet
import pytest

from walplane.channel import shard_of
from walplane.cli.append import LineAppender
from walplane.cli.arrow import pieces
from walplane.cli.errors import WRONG_USE, CommandError
from walplane.cli.keys import json_object, key_bytes
from walplane.cli.records import MalformedInput
from walplane.cli.rows import Rows
from walplane.cli.tables import read_batches
from walplane.client import CollectionInfo, StreamingClient

SHARDS = 4
MANY = 60_000  # lines: several chunks


def read(data: bytes, kind: str, key: str = "id") -> list[Rows]:
    return list(read_batches(io.BytesIO(data), "f", kind, 8192, key))


def keys(data: bytes, kind: str) -> list[bytes]:
    """What chooses the shard of each row."""
    arrays = [rows.keys for rows in read(data, kind)]
    return [key_bytes(value) for array in arrays if array for value in array.to_pylist()]


def shards_of(data: bytes, kind: str) -> dict[str, set[int]]:
    """The shards in which the rows of each key are stored, by the number it stands for."""
    found: dict[str, set[int]] = {}
    for rows in read(data, kind):
        for piece in pieces(rows, SHARDS, 0):
            for value in pa.ipc.open_stream(piece.payload).read_all()["id"].to_pylist():
                found.setdefault(f"{float(value):g}", set()).add(piece.shard)
    return found


def parquet(array: pa.Array) -> bytes:
    sink = io.BytesIO()
    pa_parquet.write_table(pa.table({"id": array}), sink)
    return sink.getvalue()


def test_a_type_that_widens_in_the_middle_of_a_csv_moves_no_key() -> None:
    rows = [f"{number % 50},{'x' * 40}" for number in range(MANY)]
    rows[MANY * 2 // 3] = "2.5,x"
    found = shards_of("\n".join(["id,t", *rows, ""]).encode(), "csv")
    assert len(found) == 51
    assert all(len(shards) == 1 for shards in found.values())


def test_a_type_that_widens_in_the_middle_of_json_lines_moves_no_key() -> None:
    rows = [f'{{"id":{number % 50},"t":"{"x" * 40}"}}' for number in range(MANY)]
    rows[MANY * 2 // 3] = '{"id":2.5}'
    found = shards_of("\n".join([*rows, ""]).encode(), "jsonl")
    assert len(found) == 51
    assert all(len(shards) == 1 for shards in found.values())


def test_a_key_of_a_csv_is_its_text() -> None:
    data = b'id,n\n00123,1\n123,2\n123.0,3\n"a, ""b""",4\n,5\n2013-01-01,6\ntrue,7\n'
    assert keys(data, "csv") == [
        *(b"00123", b"123", b"123.0", b'a, "b"', b"", b"2013-01-01", b"true"),
    ]
    [rows] = read(data, "csv")
    assert rows.batch["id"].to_pylist()[0] == "00123", "stored as it is written, too"
    assert rows.batch["n"].type == pa.int64()


def test_one_key_of_one_json_value_from_append_and_ingest() -> None:
    values = ["17", "-0", "9223372036854775807", "17.0", "2.50", "1e3", "true", "null"]
    values += ['"17"', '"a\\u00fc"', '"2013-01-01T00:00:00"', '""', "NaN"]
    expected = [b"17", b"0", b"9223372036854775807", b"17.0", b"2.50", b"1e3", b"true", b""]
    expected += [b"17", "aü".encode(), b"2013-01-01T00:00:00", b"", b"NaN"]
    for value, key in zip(values, expected, strict=True):
        line = f'{{"id":{value}}}\n'.encode()
        assert key_bytes(json_object(line)["id"]) == key
        assert keys(line, "jsonl") == [key]
    assert keys(b'{"id":17}\n\n{"id":2.50}\n{"n":1}\n', "jsonl") == [b"17", b"2.50", b""]


@pytest.mark.parametrize("value", ['{"a":1}', "[1]", '{"a":{"b":[]}}'])
def test_what_is_no_key_ends_json_lines_with_its_line(value: str) -> None:
    lines = [b'{"id":1}\n', b"\n", f'{{"id":{value}}}\n'.encode(), b'{"id":3}\n']
    given: list[Rows] = []
    with pytest.raises(MalformedInput, match="f:") as caught:
        for rows in read_batches(io.BytesIO(b"".join(lines)), "f", "jsonl", 8192, "id"):
            given.append(rows)  # noqa: PERF402 - what came before an error counts
    assert caught.value.line == 3
    assert [row for rows in given for row in rows.batch.to_pylist()] == [{"id": 1}]
    with pytest.raises(MalformedInput) as caught:
        read(b"".join(lines[2:]), "jsonl")
    assert (caught.value.line, "no key" in caught.value.reason) == (1, True)


@pytest.mark.parametrize(
    ("line", "why"),
    [
        (b'{"id":"\\ud800"}', "no text"),
        (b"[" * 100_000, "deep"),
        (b'{"id":"\xff"}', "UTF-8"),
        (b"null", "no JSON object"),
        (b'{"id":1} {"id":2}', "Extra data"),
    ],
)
def test_a_line_without_a_usable_key_says_why(line: bytes, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        key_bytes(json_object(line)["id"])


def test_keys_of_parquet() -> None:
    moment = datetime.datetime(2013, 1, 1, 5, tzinfo=datetime.UTC)
    expected: list[tuple[pa.Array, list[bytes]]] = [
        (pa.array([17, None]), [b"17", b""]),
        (pa.array([17.0, 0.0, -0.0, 0.1]), [b"17.0", b"0.0", b"0.0", b"0.1"]),
        (pa.array(["ü", ""]), ["ü".encode(), b""]),
        (pa.array(["ü", "a", "ü"]).dictionary_encode(), ["ü".encode(), b"a", "ü".encode()]),
        (pa.array([b"\xff"]), [b"\xff"]),
        (pa.array([True, False]), [b"true", b"false"]),
        (pa.array([Decimal("1.50")]), [b"1.50"]),
        (pa.array([datetime.date(2013, 1, 1)]), [b"2013-01-01"]),
        (pa.array([1], pa.timestamp("ns")), [b"1970-01-01 00:00:00.000000001"]),
        (pa.array([moment], pa.timestamp("s", "Asia/Tokyo")), [b"2013-01-01 05:00:00"]),
        (pa.array([90_500], pa.time32("ms")), [b"00:01:30.5"]),
    ]
    for array, key in expected:
        assert keys(parquet(array), "parquet") == key, array.type


@pytest.mark.parametrize(
    ("data", "kind", "why"),
    [
        (parquet(pa.array([[1]])), "parquet", "list<.*no key"),
        (parquet(pa.array([1], pa.duration("s"))), "parquet", "duration.*no key"),
        (parquet(pa.array([1])), "parquet", "no column 'k': the file has id"),
        (b"a,b\n1,2\n", "csv", "no column 'k': the file has a, b"),
        (b"k,b,k\n1,2,3\n", "csv", "2 columns 'k'"),
        (b'{"a":1}\n', "jsonl", "no column 'k': the file has a"),
    ],
)
def test_a_column_that_is_no_key_is_wrong_use(data: bytes, kind: str, why: str) -> None:
    key = "id" if "no key" in why else "k"
    with pytest.raises(CommandError, match=why) as caught:
        read(data, kind, key)
    assert caught.value.exit_code == WRONG_USE


def test_rows_go_where_their_keys_say_and_keep_their_order() -> None:
    lines = [json.dumps({"id": number % 7, "n": number}) for number in range(100)]
    [rows] = read("\n".join([*lines, ""]).encode(), "jsonl")
    for piece in pieces(rows.behind(10), SHARDS, 0):
        stored = pa.ipc.open_stream(piece.payload).read_all().to_pylist()
        assert [row["n"] for row in stored] == [
            n for n in range(10, 100) if shard_of(b"%d" % (n % 7), SHARDS) == piece.shard
        ]


@pytest.mark.parametrize(("key", "once_by"), [("", None), (None, ""), ("", "k")])
async def test_an_empty_name_of_a_field_is_a_name(
    wal: StreamingClient, vchannel: str, key: str | None, once_by: str | None
) -> None:
    info = CollectionInfo("c", 1, (vchannel,), 0, 1, 0)
    with tempfile.TemporaryFile() as file:
        file.write(b'{"k": "1"}\nno json\n')
        file.seek(0)
        appender = LineAppender(wal, info, key, 20, None, once_by)
        async with asyncio.timeout(30):
            await appender.run(file.fileno(), asyncio.Event())
    assert (appender.acknowledged, appender.failed) == (0, 2)
