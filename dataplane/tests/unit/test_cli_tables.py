"""Files to Arrow batches: formats, types that widen, and the exact line of what does not fit."""

from __future__ import annotations

import io
import itertools
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pa_parquet
import pytest

from walplane.cli.arrow import large_rows_apart, pieces
from walplane.cli.records import MAX_RECORD_BYTES, MalformedInput, chunks, records
from walplane.cli.rows import Rows
from walplane.cli.tables import format_of, read_batches

MANY = 200_000  # lines: several chunks


def read(data: bytes, kind: str, batch_rows: int = 1000) -> tuple[pa.Table, MalformedInput | None]:
    """Every row given before the end or the error."""
    batches: list[pa.RecordBatch] = []
    failure = None
    try:
        for rows in read_batches(io.BytesIO(data), "f", kind, batch_rows):
            batches.append(rows.batch)  # noqa: PERF401 - what came before an error counts
    except MalformedInput as error:
        failure = error
    return _table(batches), failure


def _table(batches: list[pa.RecordBatch]) -> pa.Table:
    if not batches:
        return pa.table({})
    return pa.concat_tables(
        (pa.Table.from_batches([batch]) for batch in batches), promote_options="permissive"
    )


def csv_lines(count: int) -> bytes:
    return b"".join(b"%d,xy,\n" % number for number in range(count))


def json_lines(count: int) -> bytes:
    return b"".join(b'{"a":%d,"b":"xx"}\n' % number for number in range(count))


def test_formats_by_name() -> None:
    names = ["a.csv", "a.JSONL", "a.ndjson", "a.parquet", "a.txt"]
    assert [format_of(Path(name)) for name in names] == ["csv", "jsonl", "jsonl", "parquet", None]


def test_csv_rows_come_in_order_and_in_bounded_batches() -> None:
    stream = io.BytesIO(b"a,b,c\n" + csv_lines(MANY))
    batches = [rows.batch for rows in read_batches(stream, "f", "csv", 1000)]
    assert max(batch.num_rows for batch in batches) == 1000
    numbers = itertools.chain.from_iterable(batch["a"].to_pylist() for batch in batches)
    assert list(numbers) == list(range(MANY))


def test_types_widen_in_a_later_chunk() -> None:
    table, error = read(b"a,b,c\n" + csv_lines(MANY) + b"1.5,xy,late\n" + csv_lines(5), "csv")
    assert error is None
    assert table.num_rows == MANY + 6
    assert [str(field.type) for field in table.schema] == ["double", "string", "string"]
    table, error = read(json_lines(MANY) + b'{"a":1.5,"c":true}\n' + json_lines(5), "jsonl")
    assert error is None
    assert table.num_rows == MANY + 6
    assert table.schema.names == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (b"1,xy\n", "expected 3 columns, got 2: 1,xy"),
        (b"1,xy,z,w\n", "expected 3 columns, got 4: 1,xy,z,w"),
        (b"zz,xy,q\n", "column 'a' has type int64: invalid value 'zz'"),
    ],
)
def test_malformed_csv_line_is_named_after_every_row_before_it(bad: bytes, reason: str) -> None:
    table, error = read(b"a,b,c\n" + csv_lines(MANY) + bad + csv_lines(MANY), "csv")
    assert error is not None
    assert (error.line, error.reason) == (MANY + 2, reason)
    assert table["a"].to_pylist() == list(range(MANY))


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (b'{"a":1\n', "not valid JSON, Expecting ',' delimiter at column 7: {\"a\":1"),
        (b"[1]\n", "not a JSON object: [1]"),
        (b'{"a":"1"}\n', "Column(/a) changed from number to string"),
    ],
)
def test_malformed_json_line_is_named_after_every_row_before_it(bad: bytes, reason: str) -> None:
    table, error = read(json_lines(MANY) + bad + json_lines(MANY), "jsonl")
    assert error is not None
    assert (error.line, error.reason) == (MANY + 1, reason)
    assert table["a"].to_pylist() == list(range(MANY))


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (b"null\n", "not a JSON object: null"),
        (b'{"a":1} {"a":2}\n', 'not valid JSON, Extra data at column 9: {"a":1} {"a":2}'),
        (b'{"b":"\xff"}\n', 'not UTF-8: {"b":"\ufffd"}'),
        (b'{"c":' + b"[" * 20_000 + b"]" * 20_000 + b"}\n", "nested deeper than 50 levels"),
        (b'{"c":' + b"[" * 51 + b"]" * 51 + b"}\n", "nested deeper than 50 levels"),
        (b'{"c":\n' + b"[\n" * 20_000, 'not valid JSON, Expecting value at column 6: {"c":'),
        (b'{\n"a":1}\n', "not valid JSON, Expecting property name enclosed in double quotes at "),
    ],
)
@pytest.mark.parametrize("before", [0, 3, MANY])
def test_what_the_parser_would_take_or_die_of_is_malformed(
    bad: bytes, reason: str, before: int
) -> None:
    table, error = read(json_lines(before) + bad + json_lines(5), "jsonl")
    assert error is not None
    assert error.line == before + 1
    assert error.reason.startswith(reason)
    assert table.num_rows == before


def test_large_rows_go_alone_and_in_order() -> None:
    numbers = pa.array(range(20))
    text = pa.array(["x" * (1_500_000 if n in (0, 7, 8, 19) else 10) for n in range(20)])
    rows = Rows(pa.record_batch({"n": numbers, "t": text}), numbers)
    parts = list(large_rows_apart(rows))
    assert [(part.batch["n"].to_pylist(), part.large) for part in parts] == [
        ([0], True),
        ([1, 2, 3, 4, 5, 6], False),
        ([7], True),
        ([8], True),
        ([9, 10, 11, 12, 13, 14, 15, 16, 17, 18], False),
        ([19], True),
    ]
    assert all(part.keys == part.batch["n"] for part in parts)


def test_brackets_in_strings_and_blank_lines_are_no_harm() -> None:
    rows = [{"a": "[" * 60, "b": [{"c": ["{"]}] * 60}, {"a": '\\"[', "b": []}]
    text = b"\r\n \n".join(json.dumps(row).encode() for row in rows)
    table, error = read(text, "jsonl")
    assert error is None
    assert table.to_pylist() == rows


def test_json_as_deep_as_it_may_be_is_written_as_arrow() -> None:
    text = b'{"a":' + b'[{"a":' * 24 + b"[1]" + b"}]" * 24 + b"}\n"
    [rows] = read_batches(io.BytesIO(text), "f", "jsonl", 10)
    [piece] = pieces(rows, 1, 0)
    assert pa.ipc.open_stream(piece.payload).read_all().to_pylist() == [json.loads(text)]


def test_a_malformed_line_in_the_first_chunk() -> None:
    table, error = read(b"a,b\n1,2\n3\n4,5\n", "csv")
    assert str(error) == "f:3: expected 2 columns, got 1: 3"
    assert table.to_pylist() == [{"a": 1, "b": 2}]


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
@pytest.mark.parametrize(
    ("numbers", "line"),
    [
        (["9007199254740993", "1.5"], 2),
        (["1.5", "9007199254740993"], 2),
        (["1", "18446744073709551615", "2"], 2),
        (["-9223372036854775809"], 1),
        (["1" * 5000], 1),
    ],
)
@pytest.mark.parametrize("form", ["%s", "[%s]", '{"b": %s}'])
def test_a_whole_number_that_would_be_rounded_is_malformed(
    kind: str, numbers: list[str], line: int, form: str
) -> None:
    if kind == "csv":
        data = "\n".join(["a", *numbers, ""])
    else:
        data = "".join(f'{{"a": {form % number}}}\n' for number in numbers)
    table, error = read(data.encode(), kind)
    assert error is not None
    assert error.line == line + (kind == "csv")
    assert "cannot be kept exactly" in error.reason or "too big" in error.reason
    assert table.num_rows == line - 1


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_a_whole_number_in_a_later_chunk_is_malformed_beside_fractions(kind: str) -> None:
    lines = [f"{number}.5" for number in range(MANY)]
    lines[-2] = "9007199254740993"
    if kind == "jsonl":
        lines = [f'{{"a": {line}, "b": 9007199254740993}}' for line in lines]
    table, error = read("\n".join(["a"] * (kind == "csv") + lines).encode(), kind)
    assert error is not None
    assert error.line == MANY - 1 + (kind == "csv")
    assert table.num_rows == MANY - 2


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_numbers_that_are_kept(kind: str) -> None:
    for numbers in (
        ["9007199254740993", "-1"],
        ["9007199254740992", "1e300", "9007199254740993.0"],
    ):
        record = "%s" if kind == "csv" else '{"a": %s}'
        header = ["a"] * (kind == "csv")
        table, error = read("\n".join(header + [record % each for each in numbers]).encode(), kind)
        assert error is None
        assert table["a"].to_pylist() == [json.loads(each) for each in numbers]


def test_csv_numbers_are_no_booleans() -> None:
    table, error = read(b"a,b,c\ntrue,TRUE,1\nfalse,False,true\n1,true,0\n", "csv")
    assert error is None
    assert table.to_pydict() == {
        "a": ["true", "false", "1"],
        "b": [True, False, True],
        "c": ["1", "true", "0"],
    }


def test_a_newline_between_quotes_belongs_to_the_record() -> None:
    text = b'a,b\n1,"x\ny ""z"""\n2,w\n'
    table, error = read(text, "csv")
    assert error is None
    assert table.to_pylist() == [{"a": 1, "b": 'x\ny "z"'}, {"a": 2, "b": "w"}]
    pieces = list(chunks(io.BytesIO(text), "f", quoted=True, chunk_bytes=6))
    assert b"".join(piece.data for piece in pieces) == text
    assert [(piece.data, piece.first_line) for piece in pieces][1] == (b'1,"x\ny ""z"""\n', 2)
    assert records(text, quoted=True) == [b"a,b\n", b'1,"x\ny ""z"""\n', b"2,w\n"]


@pytest.mark.parametrize("fields", [b'"x\n', b'"x""\n,y\n', b'x,"\n'])
def test_a_quote_left_open_at_the_end_is_malformed(fields: bytes) -> None:
    table, error = read(b'a,b\n1,"2"\n3,' + fields, "csv")
    assert str(error) == "f:3: a double quote is left open"
    assert table.to_pylist() == [{"a": 1, "b": 2}]


def test_a_quote_in_the_middle_of_a_field_opens_nothing() -> None:
    table, error = read(b'a,b\n1,5" pipe\n2,"6"" pipe"\n3,7" pipe\n4,8"', "csv")
    assert error is None
    assert table["b"].to_pylist() == ['5" pipe', '6" pipe', '7" pipe', '8"']


def test_column_names_that_are_not_utf_8() -> None:
    _, error = read("a,b\n1,2\n".encode("utf-16"), "csv")
    assert str(error) == "f:1: the names of the columns are not UTF-8"


def test_a_carriage_return_alone_ends_no_record() -> None:
    assert records(b"a\rb\r\nc", quoted=False) == [b"a\rb\r\n", b"c"]


def test_a_quote_left_open_does_not_take_the_whole_file_into_memory() -> None:
    lines = io.BytesIO(b'a\n"open\n' + b"x\n" * MAX_RECORD_BYTES)
    with pytest.raises(MalformedInput, match="f:2: a record longer than 16 MiB; is a double quote"):
        list(chunks(lines, "f", quoted=True))
    assert lines.tell() < MAX_RECORD_BYTES * 1.5


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_an_empty_file_is_an_error(kind: str) -> None:
    with pytest.raises(MalformedInput, match="f: there is nothing in it"):
        list(read_batches(io.BytesIO(b"\n \n"), "f", kind, 10))


def test_parquet(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    pa_parquet.write_table(pa.table({"a": range(1000)}), path, row_group_size=300)
    with path.open("rb") as stream:
        table = _table([rows.batch for rows in read_batches(stream, "t", "parquet", 100)])
    assert table["a"].to_pylist() == list(range(1000))
    with pytest.raises(MalformedInput, match="t: not a whole Parquet file"):
        list(read_batches(io.BytesIO(path.read_bytes()[:-9]), "t", "parquet", 100))


def test_json_round_trip_of_text() -> None:
    rows = [{"a": 'ü\n,"'}, {"a": None}]
    table, error = read(b"".join(json.dumps(row).encode() + b"\n" for row in rows), "jsonl")
    assert error is None
    assert table.to_pylist() == rows
