"""What `open_embedded` is told comes to where it belongs, or is refused before anything is made."""

from __future__ import annotations

import os
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from walplane.embedded import open_embedded
from walplane.embedded.cluster import Cluster, ClusterOptions, start_cluster
from walplane.message.builder import insert
from walplane.node.config import NodeConfig
from walplane.rpc.errors import ErrorCode, WalError
from walplane.tracing import Tracing
from walplane.wal.config import RETENTION_S


@pytest.mark.parametrize(
    ("asked", "seconds"), [({}, RETENTION_S), ({"retention_s": 7}, 7), ({"retention_s": 0.0}, 0)]
)
async def test_logs_keep_what_is_stored_for_the_retention(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: dict[str, float], seconds: float
) -> None:
    made: list[Cluster] = []

    async def noted(options: ClusterOptions, taken: AsyncExitStack) -> Cluster:
        made.append(await start_cluster(options, taken))
        return made[-1]

    monkeypatch.setattr("walplane.embedded.program.start_cluster", noted)
    async with open_embedded(tmp_path, pchannels=1, backend="memory:", **asked):  # type: ignore[arg-type]
        assert [each.node.config.wal.retention_s for each in made] == [seconds]


async def test_budgets_fit_the_memory_of_the_container(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("walplane.embedded.cluster.memory_limit", lambda: 512 << 20)
    options = ClusterOptions("127.0.0.1:0", "127.0.0.1:0", 1, "test", "memory:")
    async with AsyncExitStack() as taken:
        cluster = await start_cluster(options, taken)
        assert cluster.node.config.write_ahead_bytes < NodeConfig().write_ahead_bytes


async def test_spans_of_the_client_go_where_it_is_told(tmp_path: Path) -> None:
    exporter = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    tracing = Tracing(provider)
    async with open_embedded(tmp_path, pchannels=1, backend="memory:", tracing=tracing) as wal:
        await wal.append(insert((await wal.create_collection("c")).vchannels[0], b"x"))
    assert [each.name for each in exporter.get_finished_spans()] == ["wal.autocommit"]


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"prefix": "a b"}, "'a b' is no channel prefix: letters, digits, - and _ only"),
        ({"prefix": ""}, "'' is no channel prefix"),
        ({"pchannels": "4"}, "'4' PChannels: give a whole number"),
        ({"pchannels": 1.5}, "1.5 PChannels: give a whole number"),
        ({"pchannels": True}, "True PChannels: give a whole number"),
        ({"retention_s": -1}, "a retention of -1 s: give 0 or more"),
        ({"retention_s": float("nan")}, "a retention of nan s: give 0 or more"),
    ],
)
async def test_what_cannot_be_is_refused_before_anything_is_made(
    tmp_path: Path, wrong: dict[str, float], sentence: str
) -> None:
    with pytest.raises(WalError, match=sentence) as caught:
        async with open_embedded(tmp_path / "data", **wrong):  # type: ignore[arg-type]
            pass
    assert caught.value.code is ErrorCode.INVALID_ARGUMENT
    assert os.listdir(tmp_path) == []
