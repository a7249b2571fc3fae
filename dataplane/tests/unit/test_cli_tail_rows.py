"""What `tail` prints of messages: the rows of an entry add up to what its header says."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from walplane.cli.tail import as_row
from walplane.message.builder import MutableMessage, delete, insert
from walplane.message.ids import MessageID
from walplane.message.view import Batch

V0 = "test_0_1v0"


def rows_of(message: MutableMessage) -> list[int]:
    entry = message.to_entry()
    entry.envelope.first_tick = 100
    return [as_row(each)["rows"] for each in Batch(entry, MessageID("memory", (1,)), 1)]


@pytest.mark.parametrize("build", [insert, delete])
def test_rows_add_up(build: Callable[..., MutableMessage]) -> None:
    assert rows_of(build(V0, b"a", b"b", b"c")) == [1, 1, 1]
    assert rows_of(build(V0, b"batch", rows=500)) == [500]
    assert rows_of(build(V0, b"a", b"b", b"c", rows=3)) == [1, 1, 1]
    assert rows_of(build(V0, b"a", b"b", b"c", rows=500)) == [500, 0, 0]
    assert rows_of(build(V0, b"a", b"b", b"c", rows=2)) == [2, 0, 0]
