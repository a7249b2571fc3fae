"""What becomes of Arrow columns in Parquet: those that grow, and those sure to come back.

Layer: wal.
"""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

_WIDE_BYTES = 64
"""Of a value in a dictionary that is written as often as it is meant."""
_VIEW_WORDS = 4


def storage_of(kind: pa.DataType) -> pa.DataType:
    """What holds the values of a type: another one, of an extension."""
    return storage_of(kind.storage_type) if isinstance(kind, pa.BaseExtensionType) else kind


def grows(kind: pa.DataType, inside: bool = False) -> bool:
    """Whether what is in memory once, and large, may be written for each value that means it.

    Values of a dictionary are, but of text and bytes each is written once. So is what many views
    show; those of text that are no part of another column can be measured, by `viewed_bytes`.
    """
    kind = storage_of(kind)
    if pa.types.is_dictionary(kind):
        value = kind.value_type
        if pa.types.is_fixed_size_binary(value):
            return bool(value.byte_width > _WIDE_BYTES)
        return value.num_fields > 0 or isinstance(value, pa.BaseExtensionType) or _is_view(value)
    if pa.types.is_list_view(kind) or pa.types.is_large_list_view(kind):
        return True
    if _is_view(kind):
        return inside
    return any(grows(kind.field(at).type, inside=True) for at in range(kind.num_fields))


def viewed_bytes(table: pa.Table) -> int:
    """Bytes of all texts that the columns of views show, each as often as it is shown."""
    size = 0
    for column in table.columns:
        if _is_view(storage_of(column.type)):
            size += sum(map(_viewed_bytes, column.chunks))
    return size


def is_sure(field: pa.Field) -> bool:
    """Whether a column comes back from Parquet as it was written, by all that is known.

    What is nested and said to be never null comes back with a value in the place of each null.
    """
    return _is_sure(field.type) and (field.nullable or not pa.types.is_nested(field.type))


def _is_sure(kind: pa.DataType) -> bool:
    kind, types = storage_of(kind), pa.types
    if types.is_dictionary(kind):
        return _is_sure(kind.value_type)
    if types.is_map(kind):
        return is_sure(kind.key_field) and is_sure(kind.item_field)
    if types.is_struct(kind) or types.is_list(kind) or types.is_large_list(kind):
        return all(is_sure(kind.field(at)) for at in range(kind.num_fields))
    if types.is_fixed_size_list(kind):
        return kind.list_size > 0 and is_sure(kind.value_field)
    text = types.is_string(kind) or types.is_large_string(kind) or _is_view(kind)
    binary = types.is_binary(kind) or types.is_large_binary(kind)
    # days are written as 32 bits, of which date64 may have more
    number = types.is_primitive(kind) and not types.is_date64(kind)
    number = number or types.is_decimal(kind) or types.is_null(kind)
    return bool(text or binary or number or types.is_fixed_size_binary(kind))


def _is_view(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string_view(kind) or pa.types.is_binary_view(kind))


def _viewed_bytes(array: pa.Array) -> int:
    """The first of a view's four words is the length of what it shows."""
    array = array.storage if isinstance(array, pa.ExtensionArray) else array
    views = array.buffers()[1]
    if not len(array) or views is None:
        return 0
    words = pa.Array.from_buffers(
        pa.int32(), _VIEW_WORDS * len(array), [None, views], offset=_VIEW_WORDS * array.offset
    )
    lengths = pc.list_element(pa.FixedSizeListArray.from_arrays(words, _VIEW_WORDS), 0)
    return int(pc.sum(pc.max_element_wise(lengths, 0)).as_py())
