"""Whole numbers of text files that a column of fractions would round. Layer: cli.

Contract: a number that is written without fraction and exponent is kept exactly or refused; any
other is the double next to it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from decimal import Decimal

import pyarrow as pa
import pyarrow.compute as pc

_EXACT = 2.0**53  # below it every whole number is a double
_WHOLE = r"^\s*[+-]?[0-9]+\s*$"
_SHOWN = 40
_JSON = json.JSONDecoder(parse_int=Decimal)


def check_csv(table: pa.Table, as_text: Callable[[list[str]], pa.Table]) -> None:
    """Raises when a field of `table` is not the whole number that is written.

    Args:
        table: rows of a CSV.
        as_text: gives the same rows, with columns of these names as they are written.

    Raises:
        pyarrow.ArrowInvalid: there is such a field.
    """
    suspects = _suspects(table)
    if not suspects:
        return
    written = as_text([table.schema.names[number] for number in suspects])
    for number in suspects:
        column = written.column(number)
        for text in column.filter(pc.match_substring_regex(column, _WHOLE)).to_pylist():
            _check(table.schema.names[number], Decimal(text.strip()))


def check_json(table: pa.Table, data: bytes) -> None:
    """Raises when a number of `table` is not the whole number that is written.

    Args:
        table: rows of JSON lines.
        data: the lines.

    Raises:
        pyarrow.ArrowInvalid: there is such a number.
    """
    fields = [table.schema.field(number) for number in _suspects(table)]
    for line in data.decode().split("\n") if fields else ():
        if line.strip():
            record = _record(line.strip())
            for field in fields:
                _check_value(field.name, record.get(field.name), field.type)


def _record(line: str) -> dict[str, object]:
    try:
        record: dict[str, object] = _JSON.decode(line.removeprefix("\ufeff"))
    except ValueError as error:  # Arrow's parser takes more
        raise pa.ArrowInvalid(f"not valid JSON: {error}") from error
    return record


def _suspects(table: pa.Table) -> list[int]:
    """The columns in which a double may be a whole number that was rounded."""
    return [
        number
        for number, column in enumerate(table.columns)
        if any(_is_large(part) for chunk in column.chunks for part in _doubles(chunk))
    ]


def _is_large(doubles: pa.Array) -> bool:
    found: bool | None = pc.any(pc.greater_equal(pc.abs(doubles), _EXACT)).as_py()
    return bool(found)


def _doubles(array: pa.Array) -> Iterator[pa.Array]:
    """All doubles of a column, those in lists and objects too."""
    if pa.types.is_float64(array.type):
        yield array
    elif pa.types.is_list(array.type):
        yield from _doubles(array.flatten())
    elif pa.types.is_struct(array.type):
        for part in array.flatten():
            yield from _doubles(part)


def _check_value(name: str, value: object, kind: pa.DataType) -> None:
    if isinstance(value, Decimal) and pa.types.is_float64(kind):
        _check(name, value)
    elif isinstance(value, list) and pa.types.is_list(kind):
        for each in value:
            _check_value(name, each, kind.value_type)
    elif isinstance(value, dict) and pa.types.is_struct(kind):
        for field in kind:
            _check_value(name, value.get(field.name), field.type)


def _check(name: str, number: Decimal) -> None:
    if Decimal(float(number)) != number:
        text = str(number)
        shown = text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
        raise pa.ArrowInvalid(
            f"column {name!r}: {shown} cannot be kept exactly: write it as a fraction ({shown}.0), "
            "or in JSON as text"
        )
