"""Entries and frames on the wire."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from walplane.message import codec
from walplane.rpc.errors import ErrorCode, WalError
from walplane.rpc.v1 import log_pb2


def entry(size: int) -> log_pb2.Entry:
    body = codec.encode_body(b"header", [b"x" * size, b""])
    return codec.seal_entry(log_pb2.Envelope(type=2, vchannel="c_0_1v0", count=2), body)


@pytest.mark.parametrize("sizes", [[], [0], [1, 127, 128, 129], [20_000, 3_000_000]])
def test_a_frame_is_what_protobuf_would_make_of_it(sizes: list[int]) -> None:
    entries = [entry(size) for size in sizes]
    head = log_pb2.FrameContent(term=3, open_number=1, number=7, acked=5)
    record = codec.encode_frame(head.SerializeToString(), entries)
    whole = log_pb2.FrameContent(term=3, open_number=1, number=7, acked=5, entries=entries)
    content = whole.SerializeToString()
    assert (
        record == log_pb2.Frame(crc32c=codec.crc32c(content), content=content).SerializeToString()
    )
    assert codec.decode_frame(record, "record") == whole


@given(st.lists(st.binary(max_size=300), min_size=1, max_size=20), st.binary(max_size=20))
def test_a_body_gives_back_header_and_payloads(payloads: list[bytes], header: bytes) -> None:
    assert codec.decode_body(codec.encode_body(header, payloads)) == (header, payloads)


@given(st.data())
def test_no_flipped_bit_of_a_frame_goes_unnoticed(data: st.DataObject) -> None:
    record = bytearray(codec.encode_frame(codec.frame_head(1, 0, 2, 0), [entry(50)]))
    bit = data.draw(st.integers(0, len(record) * 8 - 1))
    record[bit // 8] ^= 1 << bit % 8
    try:
        content = codec.decode_frame(bytes(record), "record")
    except WalError as error:
        assert error.code is ErrorCode.UNRECOVERABLE
    else:
        assert content == codec.decode_frame(
            codec.encode_frame(codec.frame_head(1, 0, 2, 0), [entry(50)]), "record"
        )


def test_a_damaged_entry_is_told_by_who_sent_it_and_by_where_it_lies() -> None:
    damaged = entry(10)
    damaged.body_crc32c ^= 1
    with pytest.raises(WalError) as sent:
        codec.check_entry(damaged)
    with pytest.raises(WalError) as stored:
        codec.check_stored_entry(damaged, "memory:1:0:0")
    assert sent.value.code is ErrorCode.INVALID_ARGUMENT
    assert stored.value.code is ErrorCode.UNRECOVERABLE


@pytest.mark.parametrize("header", [b"", b"h", b"h" * 200])
@pytest.mark.parametrize("size", [0, 1, 127, 128, 20_000, 3_000_000])
def test_a_body_of_one_payload_is_what_protobuf_would_make_of_it(header: bytes, size: int) -> None:
    payload = b"x" * size
    whole = log_pb2.EntryBody(header=header, sizes=[size], payloads=payload)
    assert codec.encode_body(header, [payload]) == whole.SerializeToString()
    assert codec.decode_body(whole.SerializeToString()) == (header, [payload])


@given(st.binary(max_size=12), st.booleans())
def test_what_is_read_of_a_body_is_what_protobuf_reads(rest: bytes, lone: bool) -> None:
    body = b"\x12" + rest if lone else rest
    try:
        header, payloads = codec.decode_body(body)
    except WalError as error:
        assert error.code is ErrorCode.UNRECOVERABLE
        return
    parsed = log_pb2.EntryBody.FromString(body)
    assert parsed.header == header
    assert list(parsed.sizes) == [len(payload) for payload in payloads]
    assert parsed.payloads == b"".join(payloads)
