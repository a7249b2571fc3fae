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
    assert streaming_pb2.ProduceRequest.FromString(append_request(request_id, batch)) == expected
