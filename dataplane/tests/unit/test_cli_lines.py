"""Lines of standard input: numbers, promptness, bounded memory."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from walplane.cli.lines import MAX_LINE_BYTES, Line, LineSplitter, line_groups


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    ends = os.pipe()
    yield ends
    for end in ends:
        try:
            os.close(end)
        except OSError:
            continue


@given(st.lists(st.binary(max_size=8)), st.integers(1, 5))
def test_lines_do_not_depend_on_how_the_input_comes(parts: list[bytes], size: int) -> None:
    text = b"\n".join(parts)
    splitter = LineSplitter()
    lines = [
        line
        for start in range(0, len(text), size)
        for line in splitter.feed(text[start : start + size])
    ]
    lines += splitter.finish()
    expected = text.split(b"\n")
    if not expected[-1]:
        expected.pop()
    assert lines == [Line(number, data) for number, data in enumerate(expected, start=1)]


def test_a_line_that_is_too_long_is_given_without_content_and_not_kept() -> None:
    splitter = LineSplitter()
    assert splitter.feed(b"a\nb") == [Line(1, b"a")]
    block = b"x" * (MAX_LINE_BYTES // 2 + 1)
    assert [splitter.feed(block) for _ in range(8)] == [[]] * 8
    assert splitter.feed(b"y\nz") == [Line(2, None)]
    assert splitter.finish() == [Line(3, b"z")]


async def test_a_line_is_given_before_the_next_one_comes(pipe: tuple[int, int]) -> None:
    reading, writing = pipe
    groups = line_groups(reading)
    for number in range(1, 4):
        os.write(writing, b"line\nbegun")
        async with asyncio.timeout(5):
            (line,) = await anext(groups)
        assert line.number == number
        assert line.data is not None
        assert line.data.endswith(b"line")
    os.close(writing)
    async with asyncio.timeout(5):
        assert [group async for group in groups] == [[Line(4, b"begun")]]


async def test_many_lines_come_together(pipe: tuple[int, int]) -> None:
    reading, writing = pipe
    text = b"".join(b"%d\n" % number for number in range(10_000))
    async with asyncio.timeout(5), asyncio.TaskGroup() as tasks:
        writer = tasks.create_task(asyncio.to_thread(os.write, writing, text))
        groups = line_groups(reading)
        lines: list[Line] = []
        while len(lines) < 10_000:
            lines += await anext(groups)
        await writer
    assert lines == [Line(number + 1, b"%d" % number) for number in range(10_000)]


async def test_what_cannot_be_read_is_an_error() -> None:
    closed, other = os.pipe()
    os.close(closed)
    os.close(other)
    with pytest.raises(OSError, match="Bad file descriptor"):
        await anext(line_groups(closed))
