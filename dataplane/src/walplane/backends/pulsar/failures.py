"""What pulsar-client's results mean in the vocabulary of walplane. Layer: backends."""

from __future__ import annotations

from walplane.rpc.errors import ErrorCode, WalError

_FENCED = "ProducerFenced"
_TOO_BIG = "MessageTooBig"
_ENDED = "TopicTerminated"
_MISSING = ("TopicNotFound", "NotFound")
_UNREACHABLE = ("Timeout", "ConnectError", "NotConnected", "LookupError", "Disconnected")


def append_failure(topic: str, result: str) -> WalError:
    """The error of one append that pulsar-client answered with `result` (a Result's name)."""
    if result == _FENCED:
        return WalError(
            ErrorCode.CHANNEL_FENCED,
            f"topic {topic} was taken by a later opener: open it again to find out what is in it",
        )
    if result == _TOO_BIG:
        return WalError(
            ErrorCode.INVALID_ARGUMENT,
            f"the record is above the maxMessageSize of the broker of topic {topic}: set "
            "maxMessageSize to 5 MiB, its default",
        )
    if result == _ENDED:
        return WalError(
            ErrorCode.UNRECOVERABLE,
            f"topic {topic} was terminated by an administrator and takes no more records",
        )
    return WalError(
        ErrorCode.OUTCOME_UNKNOWN,
        f"no acknowledgement from topic {topic} ({result}): open it again to find out",
    )


def call_failure(what: str, result: str) -> WalError:
    """The error of a call other than an append; `what` says what was tried, on which object."""
    if result == _FENCED:
        return WalError(ErrorCode.CHANNEL_FENCED, f"{what}: a later opener took the topic")
    if result in _MISSING:
        return WalError(ErrorCode.CHANNEL_NOT_EXIST, f"{what}: there is no such topic")
    if result == "AlreadyClosed":
        return WalError(ErrorCode.ON_SHUTDOWN, f"{what}: the session is closed")
    if result in _UNREACHABLE:
        return WalError(
            ErrorCode.INNER,
            f"{what}: no answer from the broker ({result}); is Pulsar running there?",
        )
    return WalError(ErrorCode.INNER, f"{what}: Pulsar refused with {result}")
