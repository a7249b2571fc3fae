"""`--metrics`: a standalone cluster shows node, coordinator and process to Prometheus."""

from __future__ import annotations

import asyncio
import errno
import socket
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.request import urlopen

import pytest
from prometheus_client.parser import text_string_to_metric_families

from walplane.cli import metrics
from walplane.cli.metrics import serving_metrics
from walplane.coord.metrics import CoordCollector
from walplane.rpc.errors import ErrorCode, WalError
from walplane.testkit.command import walplane
from walplane.testkit.standalone import StandaloneProcess, free_port, loopbacks


async def scrape(address: str) -> dict[str, float]:
    """Each sample by its name, those of several labels added up."""

    def get() -> str:
        with urlopen(f"http://{address}/metrics", timeout=10) as answer:
            text: str = answer.read().decode()
            return text

    found: dict[str, float] = {}
    for family in text_string_to_metric_families(await asyncio.to_thread(get)):
        for sample in family.samples:
            found[sample.name] = found.get(sample.name, 0) + sample.value
    return found


async def test_a_standalone_cluster_is_scraped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = f"127.0.0.1:{free_port()}"
    monkeypatch.setenv("WALPLANE_METRICS", address)
    server = StandaloneProcess(tmp_path / "data", pchannels=3)
    await server.start()
    try:
        ran = await walplane("-a", server.address, "collection", "create", "c", "--shards", "2")
        assert ran.code == 0, ran.err
        lines = b"".join(b"%d\n" % line for line in range(500))
        ran = await walplane("-a", server.address, "append", "--collection", "c", stdin=lines)
        assert ran.code == 0, ran.err
        await walplane("-a", server.address, "tail", "c")
        shown = await scrape(address)
    finally:
        assert await server.stop() == 0
    assert shown["walplane_serving"] == 3
    assert shown["walplane_coord_pchannels"] == 3
    assert shown["walplane_coord_leading"] == shown["walplane_coord_collections"] == 1
    assert shown["walplane_coord_broadcasts_pending"] == 0
    assert shown["walplane_coord_oracle_lead"] > 0
    assert shown["walplane_tick_reserve"] > 0
    assert shown["walplane_appended_messages_total"] >= 500
    assert shown["walplane_delivered_bytes_total"] > 0
    assert shown["walplane_append_seconds_count"] > 0
    assert shown["walplane_reorder_violations_total"] == 0
    assert shown["process_resident_memory_bytes"] > 0


async def test_a_loop_that_is_busy_shows_the_process_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "_TIMEOUT_S", 0.05)
    async with serving_metrics("127.0.0.1:0", [CoordCollector(lambda: None)]) as port:
        with ThreadPoolExecutor(1) as beside:
            scraping = beside.submit(asyncio.run, scrape(f"127.0.0.1:{port}"))
            shown = scraping.result(30)  # the loop does nothing else meanwhile
    assert "walplane_coord_leading" not in shown
    assert shown["process_resident_memory_bytes"] > 0


async def test_a_port_that_is_taken_is_named() -> None:
    collectors = [CoordCollector(lambda: None)]
    async with serving_metrics("127.0.0.1:0", collectors) as port:
        shown = await scrape(f"127.0.0.1:{port}")
        assert shown["walplane_coord_leading"] == 0
        with pytest.raises(WalError, match=f"cannot serve metrics on 127.0.0.1:{port}") as caught:
            async with serving_metrics(f"127.0.0.1:{port}", collectors):
                pass
    assert caught.value.code is ErrorCode.INVALID_ARGUMENT


async def test_the_wildcard_is_every_address() -> None:
    """As it is to gRPC: a pod with an IPv6 address alone is scraped there."""
    async with serving_metrics("0.0.0.0:0", [CoordCollector(lambda: None)]) as port:
        for host in loopbacks():
            assert (await scrape(f"{host}:{port}"))["walplane_coord_leading"] == 0


class NoIpv6(socket.socket):
    def __init__(self, *_: object) -> None:
        raise OSError(errno.EAFNOSUPPORT, "Address family not supported by protocol")


async def test_a_kernel_without_ipv6_shows_metrics_too(monkeypatch: pytest.MonkeyPatch) -> None:
    every = "0.0.0.0"  # noqa: S104 - nobody listens
    with monkeypatch.context() as patched:
        patched.setattr(socket, "socket", NoIpv6)
        address = metrics._addresses(every)
    assert address == every
