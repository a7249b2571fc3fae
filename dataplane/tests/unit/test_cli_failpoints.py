"""Each named point is reached where it says, and what nobody asked for is not wrapped."""

from __future__ import annotations

import os
import signal

import pytest

from walplane.backends.memory import MemoryBackend
from walplane.channel import coord_topic, meta_topic
from walplane.cli.errors import CommandError
from walplane.cli.failpoints import POINTS, with_failpoint

P0 = "wal_0"


@pytest.fixture
def killed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was done by the time of each kill."""
    done: list[str] = []

    def kill(pid: int, number: int) -> None:
        assert (pid, number) == (os.getpid(), signal.SIGKILL)
        done.append("killed")

    monkeypatch.setattr(os, "kill", kill)
    return done


async def live(point: str, done: list[str], topics: tuple[str, str]) -> None:
    """What a WAL does with its meta topic and its data topic."""
    backend = with_failpoint(MemoryBackend(), point)
    session = await backend.session()
    meta, data = topics
    for topic in topics:
        await session.ensure_topic(topic)
    meta_writer = await session.open_writer(meta, 1, 0)
    await meta_writer.append(b"barrier")
    done.append("meta barrier")
    data_writer = await session.open_writer(data, 1, 0)
    done.append("data topic")
    written = data_writer.append(b"entry")
    done.append("handed over")
    record = await written
    done.append("acknowledged")
    await meta_writer.append(b"snapshot")
    done.append("snapshot")
    if record is not None:
        await session.truncate(meta, record)
    done.append("truncated")
    await backend.close()


@pytest.mark.parametrize(
    ("point", "before"),
    [
        ("mid-open", "meta barrier"),
        ("mid-append", "data topic"),
        ("written-not-acked", "handed over"),
        ("mid-checkpoint", "acknowledged"),
        ("mid-truncate", "snapshot"),
    ],
)
async def test_it_dies_where_it_was_told_to(point: str, before: str, killed: list[str]) -> None:
    assert point in POINTS
    await live(f"{point}:1", killed, (meta_topic(P0), P0))
    assert killed[killed.index("killed") - 1] == before


async def test_it_dies_at_the_count_it_was_told(killed: list[str]) -> None:
    await live("mid-append:2", killed, (meta_topic(P0), P0))
    assert "killed" not in killed


async def test_the_coordinators_topic_has_no_points(killed: list[str]) -> None:
    for point in ("mid-checkpoint", "mid-truncate"):
        await live(point, killed, (coord_topic("wal"), "wal_1"))
    assert "killed" not in killed


def test_nothing_is_wrapped_unless_asked_and_no_unknown_point_is_taken() -> None:
    backend = MemoryBackend()
    assert with_failpoint(backend, None) is backend
    assert with_failpoint(backend, "") is backend
    for wrong in ("mid-life:1", "mid-append:x"):
        with pytest.raises(CommandError, match="WALPLANE_FAILPOINT"):
            with_failpoint(backend, wrong)
