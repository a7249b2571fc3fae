"""The rows about opening a log again after its owner was killed."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.model import VALUE, Measure, Pair, Row, Sample, Setting, Target
from benchmarks.sides import unused
from benchmarks.system import Broker, broker, fresh_directory, reopened, run_program

_BYTES = 128
_MUST_RATE, _GOAL_RATE = 300_000.0, 1_000_000.0
_OPEN_S = 1.0
_FILL_TIMEOUT_S = 1800.0
_FIXED = (".sst", ".blob")  # RocksDB writes such a file once


@dataclass(frozen=True)
class History:
    """What lies in a log when it is opened.

    Attributes:
        before: messages that the last checkpoint covers.
        after: messages behind it.
        entry: messages an entry.
        vchannels: over which they are spread.
    """

    before: int
    after: int
    entry: int = 1000
    vchannels: int = 1


@dataclass(frozen=True)
class FilledLog:
    """A log that was filled once: `data` on the disk, or on a broker where `url` says so."""

    history: History
    prefix: str
    data: Path
    url: str | None

    def measure(self, setting: Setting, row: str) -> Mapping[str, float]:
        """Opens it as it was left by the kill; embedded, a copy of it."""
        data = fresh_directory(setting.data / f"{row}-opened")
        try:
            copy_of_killed(self.data, data)
            figures = reopened(setting, row, data, self.url, self.prefix)
        finally:
            shutil.rmtree(data, ignore_errors=True)
        return {**figures, "messages": self.history.after}


@contextmanager
def filled(
    setting: Setting, row: str, history: History, pulsar: Broker | None
) -> Iterator[FilledLog]:
    """A log with `history`, written by a process that was not asked to stop."""
    prefix = unused("recovery-")
    data = fresh_directory(setting.data / f"{row}-{prefix}")
    data.mkdir()
    try:
        arguments = ["--backend", pulsar.backend if pulsar else f"rocksdb:{data / 'log'}"]
        arguments += ["--prefix", prefix, "--vchannels", str(history.vchannels)]
        arguments += ["--size", str(_BYTES), "--entry-messages", str(history.entry)]
        arguments += ["--history", str(history.before), "--tail", str(history.after)]
        run_program("walplane_recovery", *arguments, timeout_s=_FILL_TIMEOUT_S)
        yield FilledLog(history, prefix, data, pulsar.backend if pulsar else None)
    finally:
        shutil.rmtree(data, ignore_errors=True)


def copy_of_killed(source: Path, target: Path) -> None:
    """Copies a data directory that nobody has open; files that never change are linked."""

    def copy(original: str, made: str) -> None:
        if original.endswith(_FIXED):
            os.link(original, made)
        else:
            shutil.copyfile(original, made)

    shutil.copytree(source, target, copy_function=copy)


def _replay(text: str, entry: int, target: Target, on_pulsar: bool = False) -> Row:
    backend = "pulsar" if on_pulsar else "embedded"
    name = f"recovery-replay-{backend}-{entry}"

    @contextmanager
    def start(setting: Setting) -> Iterator[Pair]:
        with ExitStack() as up:
            pulsar = up.enter_context(broker()) if on_pulsar else None
            versions = {"pulsar broker": pulsar.version()} if pulsar else {}
            history = History(10_000, 1_000_000, entry)
            log = up.enter_context(filled(setting, name, history, pulsar))

            def ours(_seconds: float) -> Sample:
                figures = log.measure(setting, name)
                rate = history.after / figures["replay_s"]
                return Sample({**figures, VALUE: rate})

            yield Pair(ours, None, versions)

    where = "real Pulsar" if on_pulsar else "embedded backend"
    return Row(
        name=name,
        what="a process is killed with 1,000,000 messages of 128 B behind its last checkpoint, "
        f"{text}, {where}; what the next one replays of them a second, from the first read to "
        "its own barrier.",
        reference="300,000 messages a second.",
        unit="msg/s",
        higher_is_better=True,
        targets={VALUE: target},
        start=start,
        constant=_MUST_RATE,
    )


_HISTORIES = {
    "100k": History(100_000, 10_000),
    "1M": History(1_000_000, 10_000),
    "10M": History(10_000_000, 10_000),
    "10M, 10k VChannels": History(10_000_000, 10_000, 100, 10_000),
}


def _open(name: str, histories: Mapping[str, History], on_pulsar: bool) -> Row:
    @contextmanager
    def start(setting: Setting) -> Iterator[Pair]:
        with ExitStack() as up:
            pulsar = up.enter_context(broker()) if on_pulsar else None
            versions = {"pulsar broker": pulsar.version()} if pulsar else {}
            logs = {
                figure: up.enter_context(filled(setting, name, history, pulsar))
                for figure, history in histories.items()
            }
            yield Pair(_opens(setting, name, logs), None, versions)

    where = "real Pulsar" if on_pulsar else "embedded backend"
    return Row(
        name=name,
        what=f"a process is killed 10,000 messages of 128 B behind its last checkpoint, {where}, "
        "nothing ever cut off; seconds that the next one takes to open the database, if it is "
        "embedded, and the log, by messages before the checkpoint.",
        reference="1 s.",
        unit="s",
        higher_is_better=False,
        targets={figure: Target(None, 1, 1) for figure in histories},
        start=start,
        constant=_OPEN_S,
    )


def _opens(setting: Setting, name: str, logs: Mapping[str, FilledLog]) -> Measure:
    """Opens each of them once; how long that may take nobody says."""

    def measure(_seconds: float) -> Sample:
        figures: dict[str, float] = {}
        for figure, log in logs.items():
            found = log.measure(setting, name)
            figures[figure] = found["database_s"] + found["open_s"]
            figures |= {f"{figure} {name}": value for name, value in found.items()}
        return Sample({VALUE: max(figures[figure] for figure in logs), **figures})

    return measure


ROWS = (
    _replay("1000 payloads to an entry", 1000, Target(None, 1, _GOAL_RATE / _MUST_RATE)),
    _replay("10 payloads to an entry", 10, Target(None, 1, _GOAL_RATE / _MUST_RATE)),
    _replay("each an entry of its own", 1, Target(None, None, 1)),
    _replay("1000 payloads to an entry", 1000, Target(None, 1, _GOAL_RATE / _MUST_RATE), True),
    _open("recovery-open-embedded", _HISTORIES, on_pulsar=False),
    _open("recovery-open-pulsar", _HISTORIES, on_pulsar=True),
)
"""In the order of the table."""
