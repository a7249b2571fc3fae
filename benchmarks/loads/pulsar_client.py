"""The reference on Pulsar: pulsar-client as its users tune it, one producer on one topic."""

from __future__ import annotations

import argparse
import threading
import time
from collections.abc import Callable

import pulsar

from benchmarks.loads.common import WARM_UP_S, latency, payloads, rate, report

_TUNED = {
    "batching_enabled": True,
    "batching_max_messages": 1000,
    "batching_max_allowed_size_in_bytes": 1 << 20,
    "batching_max_publish_delay_ms": 1,
}
_MAX_PENDING = 20_000
_TIMEOUT_MS = 60_000
_CLOCK_EVERY = 64

Load = Callable[[pulsar.Producer, list[bytes], float], tuple[int, float]]


def main() -> None:
    """Runs one load."""
    parser = argparse.ArgumentParser()
    parser.add_argument("mode", choices=("flood", "concurrent", "sync"))
    parser.add_argument("--url", required=True)
    parser.add_argument("--topic", required=True)
    parser.add_argument("--size", type=int, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--concurrency", type=int, default=1)
    options = parser.parse_args()
    client = connected(options.url)
    bodies = payloads(options.size)
    if options.mode == "sync":
        producer = client.create_producer(options.topic, batching_enabled=False)
        sync(producer, bodies, WARM_UP_S)
        report(latency(sync(producer, bodies, options.seconds)))
    else:
        producer = batching_producer(client, options.topic)
        load = flood if options.mode == "flood" else concurrent(options.concurrency)
        load(producer, bodies, WARM_UP_S)
        count, elapsed = load(producer, bodies, options.seconds)
        report(rate(count, elapsed, options.size))
    client.close()


def connected(url: str) -> pulsar.Client:
    """A client as every load has it."""
    return pulsar.Client(
        url,
        io_threads=1,
        operation_timeout_seconds=60,
        logger=pulsar.ConsoleLogger(pulsar.LoggerLevel.Error),
    )


def batching_producer(client: pulsar.Client, topic: str) -> pulsar.Producer:
    """One that is tuned for throughput, and waits where its queue is full."""
    return client.create_producer(
        topic,
        block_if_queue_full=True,
        max_pending_messages=_MAX_PENDING,
        send_timeout_millis=_TIMEOUT_MS,
        **_TUNED,
    )


class Acknowledged:
    """Counts acknowledgements; they come on a thread of the client."""

    def __init__(self) -> None:
        """Nothing acknowledged yet."""
        self.count = 0
        self.failed = 0

    def __call__(self, result: pulsar.Result, _message_id: object) -> None:
        """Takes one acknowledgement."""
        if result == pulsar.Result.Ok:
            self.count += 1
        else:
            self.failed += 1

    def check(self, sent: int) -> None:
        """Raises RuntimeError unless all that was sent is acknowledged."""
        if self.failed or self.count != sent:
            raise RuntimeError(f"{self.count} of {sent} acknowledged, {self.failed} failed")


def flood(producer: pulsar.Producer, bodies: list[bytes], seconds: float) -> tuple[int, float]:
    """As many as the client takes; the clock stops at the last acknowledgement."""
    acknowledged = Acknowledged()
    sent, send, kinds = 0, producer.send_async, len(bodies)
    start = time.perf_counter()
    end = start + seconds
    while time.perf_counter() < end:
        for _ in range(_CLOCK_EVERY):
            send(bodies[sent % kinds], acknowledged)
            sent += 1
    producer.flush()
    elapsed = time.perf_counter() - start
    acknowledged.check(sent)
    return sent, elapsed


def concurrent(senders: int) -> Load:
    """`senders` at once: each sends on when its last message is acknowledged.

    The acknowledgement itself sends the next: faster than threads or coroutines that wait for it.
    """

    def load(producer: pulsar.Producer, bodies: list[bytes], seconds: float) -> tuple[int, float]:
        acknowledged, done = Acknowledged(), threading.Event()
        start = time.perf_counter()
        end = start + seconds
        ended = 0

        def on_sent(result: pulsar.Result, message_id: object) -> None:
            nonlocal ended
            acknowledged(result, message_id)
            if time.perf_counter() < end:
                producer.send_async(bodies[acknowledged.count % len(bodies)], on_sent)
                return
            ended += 1
            if ended == senders:
                done.set()

        for number in range(senders):
            producer.send_async(bodies[number], on_sent)
        if not done.wait(seconds + _TIMEOUT_MS / 1000):
            raise RuntimeError(f"{senders - ended} senders got no acknowledgement")
        elapsed = time.perf_counter() - start
        acknowledged.check(acknowledged.count)
        return acknowledged.count, elapsed

    return load


def sync(producer: pulsar.Producer, bodies: list[bytes], seconds: float) -> list[float]:
    """One after the other; the seconds that each took."""
    taken: list[float] = []
    end = time.perf_counter() + seconds
    while (start := time.perf_counter()) < end:
        producer.send(bodies[len(taken) % len(bodies)])
        taken.append(time.perf_counter() - start)
    return taken


if __name__ == "__main__":
    main()
