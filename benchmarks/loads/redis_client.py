"""The reference on Redis: redis-py adding to one stream, the file synced before each answer.

Several at once are one pipeline: one round trip and one sync, which is faster than connections or
coroutines that each add one.
"""

from __future__ import annotations

import time

import redis

from benchmarks.loads.common import WARM_UP_S, appends, payloads, peer_options, report


def main() -> None:
    """Runs one load."""
    options = peer_options()
    bodies = payloads(options.size)
    with redis.Redis(host="127.0.0.1", port=options.port) as client:
        key = f"benchmark-{time.time_ns()}"
        add(client, key, bodies, options.concurrency, WARM_UP_S)
        taken, elapsed = add(client, key, bodies, options.concurrency, options.seconds)
        client.delete(key)
    report(appends(taken, elapsed, options.size))


def add(
    client: redis.Redis, key: str, bodies: list[bytes], at_once: int, seconds: float
) -> tuple[list[float], float]:
    """Adds `at_once`, awaits all their answers, adds on; the seconds of each, and of all."""
    taken: list[float] = []
    begun = time.perf_counter()
    end = begun + seconds
    while (start := time.perf_counter()) < end:
        if at_once == 1:
            client.xadd(key, {"d": bodies[len(taken) % len(bodies)]})
        else:
            pipeline = client.pipeline(transaction=False)
            for number in range(len(taken), len(taken) + at_once):
                pipeline.xadd(key, {"d": bodies[number % len(bodies)]})
            pipeline.execute()
        taken += [time.perf_counter() - start] * at_once
    return taken, time.perf_counter() - begun


if __name__ == "__main__":
    main()
