"""The reference of catching up: pulsar-client's reader, receiver queue 10,000, from earliest."""

from __future__ import annotations

import argparse
import time

import pulsar

from benchmarks.loads.common import WARM_UP_S, payloads, rate, report
from benchmarks.loads.pulsar_client import Acknowledged, batching_producer, connected

_QUEUE = 10_000
_TIMEOUT_MS = 60_000


def main() -> None:
    """Runs one load."""
    parser = argparse.ArgumentParser()
    parser.add_argument("mode", choices=("fill", "catch-up"))
    parser.add_argument("--url", required=True)
    parser.add_argument("--topic", required=True)
    parser.add_argument("--size", type=int, required=True)
    parser.add_argument("--messages", type=int, required=True)
    parser.add_argument("--seconds", type=float, default=0.0)
    options = parser.parse_args()
    client = connected(options.url)
    if options.mode == "fill":
        elapsed = fill(client, options.topic, payloads(options.size), options.messages)
        report(rate(options.messages, elapsed, options.size))
    else:
        catch_up(client, options.topic, options.messages, WARM_UP_S)
        count, elapsed = catch_up(client, options.topic, options.messages, options.seconds)
        report(rate(count, elapsed, options.size))
    client.close()


def fill(client: pulsar.Client, topic: str, bodies: list[bytes], messages: int) -> float:
    """Sends so many messages in large batches; the seconds taken.

    A durable subscription keeps them: the broker deletes what no subscription asks for.
    """
    client.subscribe(topic, "keeps", initial_position=pulsar.InitialPosition.Earliest).close()
    producer = batching_producer(client, topic)
    acknowledged = Acknowledged()
    start = time.perf_counter()
    for number in range(messages):
        producer.send_async(bodies[number % len(bodies)], acknowledged)
    producer.flush()
    elapsed = time.perf_counter() - start
    acknowledged.check(messages)
    producer.close()
    return elapsed


def catch_up(client: pulsar.Client, topic: str, messages: int, seconds: float) -> tuple[int, float]:
    """Reads all of it again and again, every payload as bytes; messages and seconds.

    Each pass opens a reader of its own. It is told the number of messages, which is cheaper than
    asking after each whether there is another.
    """
    count = 0
    start = time.perf_counter()
    end = start + seconds
    while time.perf_counter() < end:
        reader = client.create_reader(topic, pulsar.MessageId.earliest, receiver_queue_size=_QUEUE)
        read_next = reader.read_next
        for _ in range(messages):
            read_next(_TIMEOUT_MS).data()
        reader.close()
        count += messages
    return count, time.perf_counter() - start


if __name__ == "__main__":
    main()
