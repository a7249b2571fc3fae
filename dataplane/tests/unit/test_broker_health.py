"""A broker that died or stands still is found, its threads are kept, and it lives again."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from devservices.pulsar import PulsarProcess, waiting_threads
from devservices.pulsar.health import revive

_DUMP = """2026 INFO something
Full thread dump OpenJDK 64-Bit Server VM:

"pulsar-io-1" #1 prio=5 waiting on condition
\tat java.util.concurrent.CompletableFuture.join(CompletableFuture.java:2117)
\tat broker.TopicPolicies.load(TopicPolicies.java:1)

"pulsar-io-2" #2 prio=5 runnable
\tat io.netty.channel.epoll.Native.epollWait(Native.java:1)

JNI global refs: 1
"""


def test_the_threads_that_wait_are_shown(tmp_path: Path) -> None:
    log = tmp_path / "1.log"
    log.write_text(_DUMP)
    assert "TopicPolicies" in waiting_threads(log)
    assert "epollWait" not in waiting_threads(log)
    log.write_text("ended\n")
    assert "no thread waits" in waiting_threads(log)


@pytest.mark.slow
@pytest.mark.pulsar
def test_a_broker_is_left_alone_or_lives_again(pulsar_url: str, tmp_path: Path) -> None:
    del pulsar_url  # a Pulsar can run here
    broker, kept = PulsarProcess(tmp_path / "broker"), tmp_path / "kept"
    broker.start()
    try:
        first = broker.handle
        assert not revive(broker, first, kept)
        os.kill(int(first), signal.SIGSTOP)  # stands still, as to its clients
        assert revive(broker, first, kept)
        second = broker.handle
        assert second != first
        assert revive(broker, first, kept)  # told to the one who asks later, too
        broker.kill()
        assert revive(broker, second, kept)
        assert not revive(broker, broker.handle, kept)
    finally:
        broker.wipe()
    assert [log.name for log in sorted(kept.iterdir())] == ["1.log", "2.log"]
    assert "Pulsar" in (kept / "1.log").read_text()
