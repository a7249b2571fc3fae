"""What several rows have in common: our side under an append load, new names and directories."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from contextlib import AbstractContextManager

from benchmarks.model import Measure, Pair, Sample, Setting
from benchmarks.system import Node, fresh_directory, load

Start = Callable[[Setting], AbstractContextManager[Pair]]


def walplane(node: Node, mode: str, size: int, appenders: int = 1, shards: int = 1) -> Measure:
    """Appends messages of `size` bytes to `node`, to a new collection in each round.

    Args:
        node: the process that is measured.
        mode: how messages are handed over, one of `benchmarks.loads.walplane_client`.
        size: of a message, bytes.
        appenders: how many append at once in mode `concurrent`.
        shards: VChannels of the collection, in turn appended to.
    """

    def measure(seconds: float) -> Sample:
        arguments = [mode, "--address", node.address, "--collection", unused("benchmark_")]
        arguments += ["--size", str(size), "--concurrency", str(appenders)]
        arguments += ["--shards", str(shards), "--node", str(node.pid)]
        return load("walplane_client", *arguments, seconds=seconds, node=node)

    return measure


def walplane_in_process(setting: Setting, mode: str, size: int, appenders: int = 1) -> Measure:
    """As `walplane`; coordinator, node and log are in the appending process, new in each round."""
    sized = ("--size", str(size), "--concurrency", str(appenders))
    own = (*sized, "--collection", "benchmark", "--embedded")
    return on_disk("walplane_client", mode, setting, *own)


def on_disk(program: str, mode: str, setting: Setting, *arguments: str) -> Measure:
    """A load in one process; `arguments` end with the option that takes its new directory."""

    def measure(seconds: float) -> Sample:
        data = fresh_directory(setting.data / unused(f"{mode}-"))
        try:
            return load(program, mode, *arguments, str(data), seconds=seconds)
        finally:
            fresh_directory(data)

    return measure


def unused(prefix: str) -> str:
    """A name that begins with `prefix` and was never used."""
    return prefix + uuid.uuid4().hex[:12]
