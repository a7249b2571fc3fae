"""What a caller asks for, checked before anything is sent. Layer: client."""

from __future__ import annotations

from collections.abc import Set

from walplane.message.registry import MessageType
from walplane.rpc.errors import ErrorCode, WalError
from walplane.wal.scan.request import Only

_MOST = (1 << 64) - 1
"""Highest tick there can be."""


def check_seconds(seconds: float, what: str = "timeout") -> float:
    """`seconds`, which may be without end.

    Raises:
        WalError: INVALID_ARGUMENT when they are no number above 0.
    """
    try:
        if seconds > 0:  # not so of what is no number
            return seconds
    except TypeError:
        pass
    raise WalError(ErrorCode.INVALID_ARGUMENT, f"a {what} of {seconds!r} s: give a number above 0")


def check_only(only: Only) -> None:
    """Checks that something can be read at all; see `Only.check`.

    Raises:
        WalError: INVALID_ARGUMENT when it is no `Only`, or restricts a read to what cannot be.
    """
    if not isinstance(only, Only):
        raise _wrong(f"only={only!r}", "give an `Only`")
    _check_types(only.types)
    for name, tick in (("from_tick", only.from_tick), ("until_tick", only.until_tick)):
        if not isinstance(tick, int) or not 0 <= tick <= _MOST:
            raise _wrong(f"{name}={tick!r}", "give a tick, a whole number; 0 for none")
    if 0 < only.until_tick < only.from_tick:
        ticks = f"from_tick={only.from_tick} with until_tick={only.until_tick}"
        raise _wrong(ticks, "the first one must not be above the other")
    only.check()


def _check_types(types: Set[MessageType]) -> None:
    known = set(MessageType)
    if not isinstance(types, Set) or not types <= known:
        way_out = "give a set of `MessageType`, such as {MessageType.INSERT}"
        raise _wrong(f"types={types!r}", way_out)


def _wrong(what: str, way_out: str) -> WalError:
    return WalError(ErrorCode.INVALID_ARGUMENT, f"a read with {what} reads nothing: {way_out}")
