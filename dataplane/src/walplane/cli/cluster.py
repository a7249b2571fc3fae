"""`walplane topology`, `status` and `version`. Layer: cli."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from typing import Any

import typer

import walplane
from walplane.cli.errors import CommandError, one_line
from walplane.cli.options import (
    AddressOption,
    DebugOption,
    OutputFormat,
    OutputOption,
    examples,
    settings_of,
)
from walplane.cli.output import show_object, show_rows
from walplane.cli.run import run
from walplane.client import StreamingClient, Topology
from walplane.rpc.errors import WalError
from walplane.rpc.v1 import streaming_pb2
from walplane.wal.status import QUARANTINED

TOPOLOGY_EXAMPLES = examples("walplane topology", "walplane topology -o json")
STATUS_EXAMPLES = examples("walplane status", "walplane --address 10.0.0.7:7650 status -o yaml")
VERSION_EXAMPLES = examples("walplane version", "walplane version -o json")
_TOPOLOGY_COLUMNS = ("pchannel", "state", "term", "node", "address", "vchannels", "reason")
_STATUS_COLUMNS = (
    *("node", "pchannel", "state", "term", "open_number", "watermark", "checkpoint_tick"),
    *("vchannels", "in_flight_bytes", "last_error"),
)


def topology(
    context: typer.Context,
    output: OutputOption = OutputFormat.TABLE,
    address: AddressOption = None,
    debug: DebugOption = False,
) -> None:
    """Shows who serves which PChannel, as the coordinator says."""
    settings = settings_of(context, address, debug)

    async def command() -> None:
        async with StreamingClient.connect(settings.address) as wal:
            known = wal.topology()
            rows = _topology_rows(known)
            if output is OutputFormat.TABLE:
                show_rows(rows, _TOPOLOGY_COLUMNS, output)
            else:
                version = ".".join(map(str, known.version))
                value = {"version": version, "cchannel": known.cchannel, "pchannels": rows}
                show_object(value, output)

    run(settings, command)


def status(
    context: typer.Context,
    output: OutputOption = OutputFormat.TABLE,
    address: AddressOption = None,
    debug: DebugOption = False,
) -> None:
    """Shows what every node says of its PChannels; exit code 1 unless every one takes appends."""
    settings = settings_of(context, address, debug)

    async def command() -> None:
        async with StreamingClient.connect(settings.address) as wal:
            answers = await wal.node_status()
            unserved = [each for each in wal.topology().assignments.values() if not each.served]
        rows = [row for address, answer in answers.items() for row in _status_rows(address, answer)]
        show_rows(rows, _STATUS_COLUMNS, output)
        silent = [answer for answer in answers.values() if isinstance(answer, WalError)]
        if unserved:
            first = unserved[0]
            raise CommandError(
                f"{len(unserved)} PChannels are not served, {first.pchannel} among them: "
                f"{first.reason or first.state}"
            )
        if silent:
            raise silent[0]
        _refuse_quarantined(rows)

    run(settings, command)


def _refuse_quarantined(rows: list[Mapping[str, Any]]) -> None:
    found = [row for row in rows if row.get("state") == QUARANTINED.lower()]
    if found:
        first = found[0]
        raise CommandError(
            f"{len(found)} PChannels are quarantined, {first['pchannel']} among them: "
            f"{one_line(first['last_error'])}"
        )


def version(
    context: typer.Context,
    output: OutputOption = OutputFormat.TABLE,
    debug: DebugOption = False,
) -> None:
    """Shows the version of this command; needs no cluster."""
    del context, debug
    show_object({"walplane": walplane.__version__, "python": platform.python_version()}, output)


def _by_number(pchannel: str) -> tuple[int, str]:
    """Puts `wal_2` before `wal_10`."""
    return len(pchannel), pchannel


def _topology_rows(known: Topology) -> list[dict[str, Any]]:
    by_number = sorted(known.assignments.values(), key=lambda a: _by_number(a.pchannel))
    return [
        {
            "pchannel": each.pchannel,
            "state": each.state,
            "term": each.term,
            "node": each.node_id,
            "address": each.address,
            "vchannels": each.vchannels,
            "reason": each.reason,
        }
        for each in by_number
    ]


def _status_rows(
    address: str, answer: streaming_pb2.NodeStatusResponse | WalError
) -> list[Mapping[str, Any]]:
    if isinstance(answer, WalError):
        return [{"node": "", "address": address, "last_error": one_line(str(answer))}]
    channels = sorted(answer.channels, key=lambda c: _by_number(c.pchannel))
    return [
        {
            "node": answer.node_id,
            "address": address,
            "version": answer.version,
            "pchannel": each.pchannel,
            "state": each.state,
            "term": each.term,
            "open_number": each.open_number,
            "watermark": each.watermark,
            "checkpoint_tick": each.checkpoint_tick,
            "vchannels": each.vchannels,
            "in_flight_bytes": each.in_flight_bytes,
            "last_error": each.last_error,
            "last_error_attempts": each.last_error_attempts,
            "term_floor": each.term_floor,
        }
        for each in channels
    ]
