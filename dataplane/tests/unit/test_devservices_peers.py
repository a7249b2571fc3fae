"""Servers of other systems: waited for, ended with what they started, named when missing."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest

from devservices.peers import PeerError, nats_server, redis_server
from devservices.peers.milvus import _on_pulsar
from devservices.peers.server import answers, free_port, running
from devservices.pulsar import PrerequisiteMissingError
from walplane.testkit.waiting import until

LISTEN = """
import os, socket, subprocess, sys
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
with open(sys.argv[2] + ".part", "w") as file:
    file.write(str(child.pid))
os.rename(sys.argv[2] + ".part", sys.argv[2])
with socket.create_server(("127.0.0.1", int(sys.argv[1]))) as server:
    while True:
        server.accept()[0].close()
"""


def lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text()
    except (ProcessLookupError, FileNotFoundError):
        return False


async def test_a_server_is_ready_when_it_answers_and_leaves_nothing_behind(
    tmp_path: Path,
) -> None:
    port, child = free_port(), tmp_path / "child"
    command = [sys.executable, "-c", LISTEN, str(port), str(child)]
    assert not answers(port)
    with running(command, tmp_path / "log", lambda: answers(port)):
        assert answers(port)
        pid = int(child.read_text())
        assert lives(pid)
    assert not answers(port)
    await until(lambda: not lives(pid))  # killed, which takes a moment


def test_a_server_that_ends_early_is_an_error_that_names_its_log(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "print('no licence', flush=True); raise SystemExit(3)"]
    with (
        pytest.raises(PeerError, match=r"ended while starting: see .*log"),
        running(command, tmp_path / "log", lambda: False),
    ):
        pass
    assert "no licence" in (tmp_path / "log").read_text()


def test_a_server_that_does_not_get_ready_is_ended(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "import time; time.sleep(600)"]
    with (
        pytest.raises(PeerError, match="not ready in 0 s"),
        running(command, tmp_path / "log", lambda: False, timeout_s=0.2, stop=signal.SIGINT),
    ):
        pass


def test_a_missing_server_is_named_with_the_way_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("WALPLANE_NATS_SERVER", raising=False)
    monkeypatch.delenv("WALPLANE_REDIS_SERVER", raising=False)
    monkeypatch.setattr("devservices.peers.nats.HOME", tmp_path)
    with (
        pytest.raises(PrerequisiteMissingError, match="apt-get install redis-server"),
        redis_server(tmp_path / "redis", tmp_path / "log"),
    ):
        pass
    with (
        pytest.raises(PrerequisiteMissingError, match="apt-get install golang"),
        nats_server(tmp_path / "nats", tmp_path / "log"),
    ):
        pass


def test_a_nats_server_that_cannot_sync_every_write_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = tmp_path / "nats-server"
    old.write_text("#!/bin/sh\necho nats-server: v2.9.10\n")
    old.chmod(0o700)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("WALPLANE_NATS_SERVER", raising=False)
    monkeypatch.setattr("devservices.peers.nats.HOME", tmp_path)
    with (
        pytest.raises(PrerequisiteMissingError, match=r"no nats-server of 2\.10 or newer"),
        nats_server(tmp_path / "nats", tmp_path / "log"),
    ):
        pass


def test_milvus_is_told_its_pulsar() -> None:
    assert _on_pulsar("pulsar://127.0.0.1:7777", "public/some-name") == {
        "mq.type": "pulsar",
        "pulsar.address": "127.0.0.1",
        "pulsar.port": "7777",
        "pulsar.tenant": "public",
        "pulsar.namespace": "some-name",
    }
