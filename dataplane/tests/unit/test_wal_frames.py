"""The frame filter's void, repeat and gap rules, and the sender's order of acknowledgement."""

from __future__ import annotations

import asyncio

import pytest

from walplane.message.ids import RecordID
from walplane.prompt import PromptFuture
from walplane.rpc.errors import ErrorCode, WalError
from walplane.rpc.v1 import log_pb2
from walplane.wal.frames import FrameFilter, FrameSender, OpenKey


def frame(term: int, open_number: int, number: int, acked: int = 0) -> log_pb2.FrameContent:
    return log_pb2.FrameContent(term=term, open_number=open_number, number=number, acked=acked)


def admitted(frames: FrameFilter, *contents: log_pb2.FrameContent) -> list[bool]:
    return [frames.admit(content) for content in contents]


def test_a_repeated_frame_number_counts_once() -> None:
    frames = FrameFilter("t")
    assert admitted(frames, frame(1, 0, 0), frame(1, 0, 1), frame(1, 0, 1), frame(1, 0, 2)) == [
        True,
        True,
        False,
        True,
    ]
    assert frames.repeated == 1


@pytest.mark.parametrize(("term", "open_number"), [(2, 0), (1, 1)])
def test_a_fenced_writers_late_frame_is_void(term: int, open_number: int) -> None:
    frames = FrameFilter("t")
    assert admitted(frames, frame(1, 0, 0), frame(term, open_number, 0), frame(1, 0, 1)) == [
        True,
        True,
        False,
    ]
    assert frames.void == 1


def test_nothing_counts_after_a_frame_that_was_never_written() -> None:
    frames = FrameFilter("t")
    first = admitted(frames, frame(1, 0, 0), frame(1, 0, 2), frame(1, 0, 3))
    assert first == [True, False, False]
    assert frames.orphaned == 2
    assert frames.admit(frame(1, 1, 0))


def test_an_open_whose_first_frame_is_missing_does_not_count() -> None:
    frames = FrameFilter("t")
    assert admitted(frames, frame(1, 0, 0), frame(2, 0, 1)) == [True, False]


def test_a_reader_may_begin_in_the_middle_of_an_open() -> None:
    frames = FrameFilter("t")
    assert admitted(frames, frame(1, 3, 17), frame(1, 3, 18)) == [True, True]


def test_a_missing_acknowledged_frame_is_loud() -> None:
    frames = FrameFilter("t")
    frames.admit(frame(1, 0, 0))
    with pytest.raises(WalError) as error:
        frames.admit(frame(1, 0, 2, acked=2))
    assert error.value.code is ErrorCode.UNRECOVERABLE


class ManualWriter:
    """A writer whose acknowledgements the test gives."""

    def __init__(self, *, prompt: bool) -> None:
        self._prompt = prompt
        self.acks: list[asyncio.Future[RecordID | None]] = []

    def append(self, data: bytes) -> asyncio.Future[RecordID | None]:
        self.acks.append(PromptFuture() if self._prompt else asyncio.Future())
        return self.acks[-1]

    async def close(self) -> None:
        pass


@pytest.fixture(params=[False, True], ids=["plain", "prompt"])
def writer(request: pytest.FixtureRequest) -> ManualWriter:
    return ManualWriter(prompt=request.param)


async def test_a_frame_is_acknowledged_after_all_before_it(writer: ManualWriter) -> None:
    sender = FrameSender("t", writer, OpenKey(1, 0))
    first, second = sender.send(), sender.send()
    writer.acks[1].set_result((2,))
    await asyncio.sleep(0)
    assert not second.done.done()
    writer.acks[0].set_result((1,))
    assert [await first.done, await second.done] == [(1,), (2,)]


async def test_after_a_failure_nothing_more_is_acknowledged(writer: ManualWriter) -> None:
    sender = FrameSender("t", writer, OpenKey(1, 0))
    frames = [sender.send() for _ in range(3)]
    writer.acks[0].set_result((1,))
    writer.acks[1].set_exception(WalError(ErrorCode.CHANNEL_FENCED, "fenced"))
    if not writer.acks[2].cancelled():  # nobody waits for it then
        writer.acks[2].set_result((3,))
    assert await frames[0].done == (1,)
    for sent in [*frames[1:], sender.send()]:
        with pytest.raises(WalError) as error:
            await sent.done
        assert error.value.code is ErrorCode.CHANNEL_FENCED


async def test_who_gives_up_gives_up_what_is_written_behind_it_too(writer: ManualWriter) -> None:
    """Cancelling the first must not let the second pass."""
    sender = FrameSender("t", writer, OpenKey(1, 0))
    frames = [sender.send() for _ in range(2)]
    writer.acks[1].set_result((2,))
    await asyncio.sleep(0)
    sender.abandon(WalError(ErrorCode.OUTCOME_UNKNOWN, "given up"))
    for sent in frames:
        with pytest.raises(WalError) as error:
            await sent.done
        assert error.value.code is ErrorCode.OUTCOME_UNKNOWN


async def test_what_is_told_at_once_keeps_the_order(writer: ManualWriter) -> None:
    sender = FrameSender("t", writer, OpenKey(1, 0))
    told: list[tuple[str, RecordID | None, WalError | None]] = []
    for name in ("first", "second"):
        sender.hand_over(lambda *what, name=name: told.append((name, *what)))
    writer.acks[1].set_result((2,))
    writer.acks[0].set_result((1,))
    await asyncio.sleep(0)
    assert told == [("first", (1,), None), ("second", (2,), None)]
    failure = WalError(ErrorCode.OUTCOME_UNKNOWN, "given up")
    sender.abandon(failure)
    sender.hand_over(lambda *what: told.append(("late", *what)))
    assert len(told) == 2
    await asyncio.sleep(0)
    assert told[2:] == [("late", None, failure)]
