"""What the client puts on the wire by hand is what protobuf would have put there."""

from __future__ import annotations

import pytest

from walplane.client.batcher import SendBatch
from walplane.client.grpc_transport import append_request
from walplane.client.outgoing import pack
from walplane.message.builder import insert
from walplane.rpc.v1 import streaming_pb2


@pytest.mark.parametrize("request_id", [1, 127, 128, 1 << 40])
@pytest.mark.parametrize("sizes", [[0], [1, 127, 128], [20_000, 3_000_000]])
async def test_an_append_request_is_a_serialised_message(request_id: int, sizes: list[int]) -> None:
    message = insert("wal_0_1v0", *(b"x" * size for size in sizes), properties={"a": "b"})
    [(_, parcel)] = pack([message], 100, 1 << 30).parcels
    batch = SendBatch([parcel])
    batch.producer_id, batch.number = b"producer", 300
    expected = streaming_pb2.ProduceRequest()
    expected.append.request_id = request_id
    batch.fill(expected.append.entry)
    assert (
        streaming_pb2.ProduceRequest.FromString(append_request(request_id, batch, 0.0)) == expected
    )


async def test_an_append_request_says_how_long_it_may_wait_unless_it_was_sent_before() -> None:
    [(_, parcel)] = pack([insert("wal_0_1v0", b"x")], 100, 1 << 30).parcels
    parcel.until = 100.5
    batch = SendBatch([parcel])

    def wait_ms(now: float) -> int:
        request = streaming_pb2.ProduceRequest.FromString(append_request(1, batch, now))
        return request.append.wait_ms

    batch.sent = 1
    assert [wait_ms(now) for now in (100.0, 40.5, 100.5, 200.0)] == [500, 60_000, 1, 1]
    assert wait_ms(-1e30) == (1 << 31) - 1, "longer than the wire can say"
    batch.sent = 2
    assert wait_ms(100.0) == 0
