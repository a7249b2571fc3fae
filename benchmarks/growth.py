"""The rows about size: memory of many PChannels, and what a message costs as the cluster grows."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from benchmarks.model import VALUE, Measure, Pair, Row, Sample, Setting, Target
from benchmarks.sides import unused, walplane
from benchmarks.system import Node, run_program, standalone

_MEMORY_MB = 300.0
_IDLE_PCHANNELS = 100
_PCHANNELS = (4, 16, 64)
_FLOOD, _CONCURRENT = "flood", "concurrent"
_BYTES = 128
_IN_FLIGHT = 64
_BACKLOGS = (1_000_000, 1_000)
_FILL_TIMEOUT_S = 600.0


@contextmanager
def _memory(setting: Setting) -> Iterator[Pair]:
    """One process for all rounds; each looks at it after it was idle for so many seconds."""
    with standalone(setting, "memory-100-pchannels", None, _IDLE_PCHANNELS) as node:

        def ours(seconds: float) -> Sample:
            before = node.cpu_s
            time.sleep(seconds)
            return Sample({VALUE: node.resident_mb, "node_cpu_s": node.cpu_s - before})

        yield Pair(ours)


@contextmanager
def _pchannels(setting: Setting) -> Iterator[Pair]:
    """A process for each number of PChannels; those that are not under load are idle."""
    with ExitStack() as up:
        nodes = {
            number: up.enter_context(standalone(setting, f"cost-{number}", None, number))
            for number in (1, *_PCHANNELS)
        }

        def ours(seconds: float) -> Sample:
            costs = {number: _cost(nodes[number], number)(seconds) for number in _PCHANNELS}
            figures = {f"{number} PChannels": cost.value for number, cost in costs.items()}
            rates = {f"{number} PChannels msg/s": c.figures["rate"] for number, c in costs.items()}
            return Sample({VALUE: costs[_PCHANNELS[-1]].value, **figures, **rates})

        def reference(seconds: float) -> Sample:
            cost = _cost(nodes[1], 1)(seconds)
            figures = {f"{number} PChannels": cost.value for number in _PCHANNELS}
            return Sample({VALUE: cost.value, **figures, "1 PChannel msg/s": cost.figures["rate"]})

        yield Pair(ours, reference)


def _cost(node: Node, pchannels: int) -> Measure:
    """Processor time of the node a message, microseconds; a VChannel on each PChannel."""
    append = walplane(node, _FLOOD, _BYTES, shards=pchannels)

    def measure(seconds: float) -> Sample:
        figures = append(seconds).figures
        return Sample({VALUE: figures["node_us_per_message"], "rate": figures[VALUE]})

    return measure


@contextmanager
def _backlog(setting: Setting) -> Iterator[Pair]:
    """Each side of each round is a new process, so that a log is as long as it is said to be."""

    def after(messages: int) -> Measure:
        def measure(seconds: float) -> Sample:
            with standalone(setting, f"backlog-{messages}", None) as node:
                arguments = ["fill", "--address", node.address, "--collection", unused("backlog_")]
                arguments += ["--size", str(_BYTES), "--messages", str(messages)]
                run_program("walplane_reader", *arguments, timeout_s=_FILL_TIMEOUT_S)
                return walplane(node, _CONCURRENT, _BYTES, _IN_FLIGHT)(seconds)

        return measure

    large, small = _BACKLOGS
    yield Pair(after(large), after(small))


ROWS = (
    Row(
        name="memory-100-pchannels",
        what=f"resident memory of a standalone process with {_IDLE_PCHANNELS} idle PChannels on "
        "the embedded backend, coordinator included.",
        reference="300 MB.",
        unit="MB",
        higher_is_better=False,
        targets={VALUE: Target(None, 1, 150 / _MEMORY_MB)},
        start=_memory,
        constant=_MEMORY_MB,
    ),
    Row(
        name="cost-growth-pchannels",
        what="processor time of the node a message, 128 B, embedded backend, `append_many`, a "
        "VChannel on each of 4, 16 and 64 PChannels, in turn.",
        reference="the same with one PChannel.",
        unit="µs",
        higher_is_better=False,
        targets={f"{number} PChannels": Target(None, 1.5, 1.1) for number in _PCHANNELS},
        start=_pchannels,
    ),
    Row(
        name="cost-growth-backlog",
        what=f"appends of single 128 B messages, {_IN_FLIGHT} in flight, embedded backend, to a "
        "log that holds 1,000,000 messages already.",
        reference="the same to a log that holds 1,000.",
        unit="msg/s",
        higher_is_better=True,
        targets={VALUE: Target(None, 0.67, 0.9)},
        start=_backlog,
    ),
)
"""In the order of the table."""
