"""Messages, positions and channel names survive every way there and back."""

from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from walplane.channel import (
    InvalidChannelName,
    VChannelName,
    cchannel_name,
    is_pchannel,
    is_vchannel,
    pchannel_name,
    pchannel_of,
)
from walplane.message import codec
from walplane.message.builder import create_collection, insert
from walplane.message.ids import MessageID, ResumeToken
from walplane.message.view import Batch
from walplane.rpc.errors import WalError
from walplane.rpc.v1 import headers_pb2, log_pb2

timeless = settings(deadline=None)  # a busy machine is no failure

u32 = st.integers(0, 2**32 - 1)
u63 = st.integers(0, 2**63 - 1)
records = st.lists(u63, min_size=1, max_size=3).map(tuple)
ids = st.builds(MessageID, st.sampled_from(["memory", "pulsar", "rocksdb"]), records, u32, u32)
tokens = st.builds(ResumeToken, st.none() | ids, u63, u63, u63)
payload_lists = st.lists(st.binary(max_size=400), min_size=1, max_size=40)
prefixes = st.from_regex(r"[A-Za-z0-9]([-_A-Za-z0-9]{0,20}[A-Za-z0-9])?", fullmatch=True)
indexes = st.integers(0, 10**6)
property_texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)


@timeless
@given(
    payload_lists,
    st.dictionaries(property_texts.filter(lambda key: not key.startswith("_")), property_texts),
    st.integers(0, 2**63),
)
@example([b""], {}, 1)
@example([b"", b"x" * 70_000, b""], {"ключ": "値 🦀"}, 1)
def test_what_was_appended_is_what_is_read(
    payloads: list[bytes], properties: dict[str, str], first_tick: int
) -> None:
    entry = insert("c_0_1v0", *payloads, rows=len(payloads), properties=properties).to_entry()
    codec.check_entry(entry)
    entry.envelope.first_tick = first_tick
    content = log_pb2.FrameContent(term=1)
    (stored,) = codec.decode_frame(
        codec.encode_frame(content.SerializeToString(), [entry]), "here"
    ).entries
    read = list(Batch(stored, MessageID("memory", (1,)), 1))
    assert [message.payload for message in read] == payloads
    ticks = [message.time_tick for message in read]
    assert ticks == list(range(first_tick, first_tick + len(payloads)))
    assert [message.message_id.message_index for message in read] == list(range(len(payloads)))
    assert all(message.properties == properties for message in read)
    assert read[0].header == headers_pb2.InsertHeader(rows=len(payloads))


@timeless
@given(payload_lists, st.data())
def test_a_batch_falls_into_two_parts_at_every_tick(
    payloads: list[bytes], data: st.DataObject
) -> None:
    entry = insert("c_0_1v0", *payloads).to_entry()
    entry.envelope.first_tick = 1000
    whole = Batch(entry, MessageID("memory", (1,)), 1)
    taken = data.draw(st.integers(0, len(payloads)))
    rest = whole.after(999 + taken)
    assert whole.payloads[:taken] + rest.payloads == payloads
    assert [m.time_tick for m in rest] == [1000 + n for n in range(taken, len(payloads))]


@timeless
@given(st.lists(st.binary(max_size=300), max_size=30), st.binary(max_size=300))
@example([b""] * 200, b"")
@example([b"x" * 127, b"x" * 128, b"x" * 16_384], b"h" * 128)
def test_a_body_is_what_protobuf_would_make_of_it(payloads: list[bytes], header: bytes) -> None:
    whole = log_pb2.EntryBody(
        header=header, sizes=list(map(len, payloads)), payloads=b"".join(payloads)
    )
    body = codec.encode_body(header, payloads)
    assert body == whole.SerializeToString()
    assert codec.decode_body(body) == (header, payloads)


@timeless
@given(st.binary(max_size=60))
def test_any_bytes_are_a_body_or_an_error(body: bytes) -> None:
    entry = codec.seal_entry(log_pb2.Envelope(vchannel="v", count=1), body)
    try:
        codec.check_entry(entry)
    except WalError:
        return
    assert len(codec.decode_body(body)[1]) == 1


@timeless
@given(st.lists(indexes, min_size=1, max_size=8, unique=True), st.text(max_size=20), u63)
def test_every_part_of_a_broadcast_knows_all_of_it(
    pchannels: list[int], name: str, broadcast_id: int
) -> None:
    vchannels = [f"c_{number}_7v{shard}" for shard, number in enumerate(pchannels)]
    header = headers_pb2.CreateCollectionHeader(
        collection_id=7, collection_name=name, vchannels=vchannels
    )
    parts = create_collection(header, "c_0_vcchan").split(broadcast_id, 2)
    assert [part.vchannel for part in parts] == [*vchannels, "c_0_vcchan"]
    entries = [part.to_entry() for part in parts]
    for entry in entries:
        assert entry.envelope.broadcast.broadcast_id == broadcast_id
        assert list(entry.envelope.broadcast.vchannels) == [*vchannels, "c_0_vcchan"]
        (message,) = Batch(entry, MessageID("memory", (1,)), 1)
        assert message.header == header
    assert len({entry.body for entry in entries}) == 1


@timeless
@given(ids)
def test_a_message_id_reads_back(message_id: MessageID) -> None:
    assert MessageID.parse(str(message_id)) == message_id
    assert MessageID.from_proto(message_id.to_proto()) == message_id


@timeless
@given(tokens)
def test_a_resume_token_reads_back(token: ResumeToken) -> None:
    assert ResumeToken.parse(str(token)) == token
    assert ResumeToken.from_proto(token.to_proto()) == token


@timeless
@given(st.lists(st.tuples(u63, u63, u32, u32), min_size=2, max_size=20))
def test_ids_of_one_topic_order_like_their_numbers(positions: list[tuple[int, ...]]) -> None:
    made = [MessageID("pulsar", (a, b), c, d) for a, b, c, d in positions]
    flat = [(*message_id.record, *message_id[2:]) for message_id in sorted(made)]
    assert flat == sorted(positions)


@timeless
@given(st.text(max_size=30))
@example("pulsar:1:2")
@example(":1:2:3")
@example("pulsar:1:-2:3")
@example("pulsar:1:²:3")
@example("earliest@1.2")
@example("earliest@1.2.3.4")
@example("pulsar:1:2@1.2.3")
def test_a_text_is_a_position_or_an_error(text: str) -> None:
    for kind in (MessageID, ResumeToken):
        try:
            kind.parse(text)
        except ValueError as error:
            assert repr(text) in str(error) or repr(text.partition("@")[0]) in str(error)


@timeless
@given(prefixes, indexes, st.integers(0, 2**63), indexes)
def test_a_vchannel_reads_back_and_names_its_pchannel(
    prefix: str, number: int, collection_id: int, shard: int
) -> None:
    pchannel = pchannel_name(prefix, number)
    name = VChannelName(pchannel, collection_id, shard)
    assert VChannelName.parse(str(name)) == name
    assert is_vchannel(str(name))
    assert not is_pchannel(str(name))
    assert pchannel_of(str(name)) == pchannel


@timeless
@given(prefixes, indexes)
def test_a_cchannel_names_its_pchannel_and_is_no_shard(prefix: str, number: int) -> None:
    pchannel = pchannel_name(prefix, number)
    assert pchannel_of(cchannel_name(pchannel)) == pchannel
    assert is_vchannel(cchannel_name(pchannel))
    with pytest.raises(InvalidChannelName):
        VChannelName.parse(cchannel_name(pchannel))


@timeless
@given(st.text(max_size=30))
@example("by-dev_0_1v")
@example("by-dev_0_v0")
@example("by-dev_0_1v0\n")
@example("_0_1v0")
@example("by-dev_0_\u0661v0")  # a digit, but not one of ours
@example("by-dev_0_01v0")
@example("by-dev_0_1v00")
@example("by-dev_00_1v0")
def test_a_text_is_a_vchannel_or_an_error(text: str) -> None:
    try:
        assert str(VChannelName.parse(text)) == text
    except InvalidChannelName as error:
        assert repr(text) in str(error)
