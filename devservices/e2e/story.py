"""What a failed test is told with: why PChannels moved, and what the processes complained of.

Short enough to be read where only the beginning of a long output is shown.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator

from devservices.kind.kubectl import Object

_TERMS = 3
_LINE = 400
_CALM = frozenset({"debug", "info"})


def moves(pchannels: Iterable[Object]) -> str:
    """The last terms of every PChannel, from the history in its status: a line each."""
    return "\n".join(
        f"{each['metadata']['name']}: " + "; ".join(_terms(each)) for each in pchannels
    )


def complaints(log: str) -> str:
    """What `kubectl logs --prefix` says above the level info: each sort once, with its times.

    What is no JSON comes whole: it is what Python or a library says before it ends.
    """
    counts: dict[tuple[str, str], list[str]] = {}
    for line in log.splitlines():
        prefix, _, rest = line.partition("] ")
        event = _event(rest)
        if event is None:
            counts.setdefault((prefix, rest), []).append("")
        elif event.get("level") not in _CALM:
            kind = (prefix, str(event.get("event")))
            counts.setdefault(kind, []).append(rest)
    told = (
        f"{prefix}] {len(found)}x {kind}" + _first_and_last(found)
        for (prefix, kind), found in counts.items()
    )
    return "\n".join(each[:_LINE] for each in told)


def _terms(pchannel: Object) -> Iterator[str]:
    for term in (pchannel.get("status", {}).get("history") or [])[:_TERMS]:
        since = str(term.get("since")).partition("T")[2]
        yield f"{term['term']} {term.get('reason', '')} {term['node']} {since}"


def _event(text: str) -> Object | None:
    try:
        event = json.loads(text)
    except ValueError:
        return None
    return event if isinstance(event, dict) else None


def _first_and_last(found: list[str]) -> str:
    if not found[0]:
        return ""
    times = [str(json.loads(each).get("timestamp")).partition("T")[2] for each in found]
    return f" {times[0]} to {times[-1]}: {found[-1]}"
