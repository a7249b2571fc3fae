"""The one error of walplane: a code that says what to do next, and a sentence for people.

Contract: every failure that crosses a module boundary of the data plane is a `WalError`. Its code
decides whether the caller retries, asks discovery again, or gives up; its message names the object
and the way out. It travels as `google.rpc.Status` details on unary calls and as `WalplaneError`
inside streams. Layer: rpc.
"""

from __future__ import annotations

import enum
from typing import Any

import grpc
from google.protobuf import any_pb2
from google.rpc import code_pb2, status_pb2
from grpc_status import rpc_status

from walplane.rpc.v1 import errors_pb2


class ErrorCode(enum.IntEnum):
    """What happened (rules §15); numbers of `errors.proto`. PRODUCER_FENCED is final."""

    CHANNEL_NOT_EXIST = 1
    CHANNEL_FENCED = 2
    ON_SHUTDOWN = 3
    INVALID_REQUEST_SEQ = 4
    UNMATCHED_CHANNEL_TERM = 5
    IGNORED_OPERATION = 6
    INNER = 7
    INVALID_ARGUMENT = 8
    TRANSACTION_EXPIRED = 9
    INVALID_TRANSACTION_STATE = 10
    OUTCOME_UNKNOWN = 11
    DATA_TRUNCATED = 12
    UNRECOVERABLE = 13
    RESOURCE_ACQUIRED = 14
    REPLICATE_VIOLATION = 15
    SCHEMA_VERSION_MISMATCH = 16
    NOT_PRIMARY = 17
    UNKNOWN = 18
    PRODUCER_FENCED = 19


class Action(enum.Enum):
    """What a caller does about an error."""

    RETRY = "retry"
    REDISCOVER = "rediscover"
    GIVE_UP = "give up"


_REDISCOVER = {
    ErrorCode.CHANNEL_NOT_EXIST,
    ErrorCode.CHANNEL_FENCED,
    ErrorCode.ON_SHUTDOWN,
    ErrorCode.UNMATCHED_CHANNEL_TERM,
    ErrorCode.NOT_PRIMARY,
}
DAMAGE = frozenset({ErrorCode.UNRECOVERABLE, ErrorCode.DATA_TRUNCATED})
"""What of a log cannot be read, or is gone: no new try helps, somebody has to look at it."""

_RETRY = {ErrorCode.INNER, ErrorCode.RESOURCE_ACQUIRED, ErrorCode.UNKNOWN}

_GRPC_CODE = {
    ErrorCode.CHANNEL_NOT_EXIST: code_pb2.NOT_FOUND,
    ErrorCode.CHANNEL_FENCED: code_pb2.FAILED_PRECONDITION,
    ErrorCode.ON_SHUTDOWN: code_pb2.UNAVAILABLE,
    ErrorCode.INVALID_ARGUMENT: code_pb2.INVALID_ARGUMENT,
    ErrorCode.INVALID_REQUEST_SEQ: code_pb2.FAILED_PRECONDITION,
    ErrorCode.UNMATCHED_CHANNEL_TERM: code_pb2.FAILED_PRECONDITION,
    ErrorCode.OUTCOME_UNKNOWN: code_pb2.UNKNOWN,
    ErrorCode.PRODUCER_FENCED: code_pb2.FAILED_PRECONDITION,
    ErrorCode.DATA_TRUNCATED: code_pb2.OUT_OF_RANGE,
    ErrorCode.UNRECOVERABLE: code_pb2.DATA_LOSS,
    ErrorCode.RESOURCE_ACQUIRED: code_pb2.RESOURCE_EXHAUSTED,
    ErrorCode.INNER: code_pb2.INTERNAL,
}


MAX_TEXT_BYTES = 1000
"""Of a message on the wire. As a status it is sent three times, once with each byte as three: more
than 8 KiB of metadata gRPC drops, code and all."""


class WalError(Exception):
    """A failure with its code.

    Attributes:
        code: what happened (rules §15).
        message: one sentence that names the object and the way out.
        retry_after_ms: hint of the server, milliseconds; 0 = none.
    """

    def __init__(self, code: ErrorCode, message: str, *, retry_after_ms: int = 0) -> None:
        """Builds the error; `message` becomes `str(error)`, after the code's name."""
        super().__init__(f"{code.name}: {message}")
        self.code = code
        self.message = message
        self.retry_after_ms = retry_after_ms

    @property
    def action(self) -> Action:
        """Whether to retry as it is, to ask discovery first, or to give up."""
        if self.code in _REDISCOVER:
            return Action.REDISCOVER
        return Action.RETRY if self.code in _RETRY else Action.GIVE_UP

    def to_proto(self) -> errors_pb2.WalplaneError:
        """The error as it travels inside a stream; a long message lacks its middle."""
        return errors_pb2.WalplaneError(
            code=errors_pb2.ErrorCode.Name(self.code),
            message=_bounded(self.message),
            retry_after_ms=self.retry_after_ms,
        )

    @classmethod
    def from_proto(cls, error: errors_pb2.WalplaneError) -> WalError:
        """The error that `to_proto` made; a code we do not know is UNKNOWN."""
        try:
            code = ErrorCode(error.code)
        except ValueError:
            code = ErrorCode.UNKNOWN
        return cls(code, error.message, retry_after_ms=error.retry_after_ms)

    def to_status(self) -> Any:  # noqa: ANN401 - grpcio gives its status tuple no public type
        """The error as a gRPC status with typed details, for `context.abort_with_status`."""
        detail, error = any_pb2.Any(), self.to_proto()
        detail.Pack(error)
        status = status_pb2.Status(
            code=_GRPC_CODE.get(self.code, code_pb2.UNKNOWN),
            message=f"{self.code.name}: {error.message}",
            details=[detail],
        )
        return rpc_status.to_status(status)

    @classmethod
    def told(cls, error: grpc.RpcError) -> WalError | None:
        """The typed error that the other side ended a call with; None when it sent none."""
        for key, value in getattr(error, "trailing_metadata", lambda: None)() or ():
            if key == "grpc-status-details-bin":
                status = status_pb2.Status.FromString(value)
                detail = errors_pb2.WalplaneError()
                for packed in status.details:
                    if packed.Unpack(detail):
                        return cls.from_proto(detail)
        return None

    @classmethod
    def from_rpc(cls, error: grpc.RpcError, subject: str) -> WalError:
        """The typed error behind a failed call; transport failures name `subject`."""
        told = cls.told(error)
        if told is not None:
            return told
        code = getattr(error, "code", lambda: None)()
        text = getattr(error, "details", lambda: None)() or str(error)
        if code == grpc.StatusCode.UNAVAILABLE:
            return cls(ErrorCode.ON_SHUTDOWN, f"{subject} cannot be reached: {text}")
        name = code.name if code is not None else "UNKNOWN"
        return cls(ErrorCode.UNKNOWN, f"{subject} failed with {name}: {text}")


def _bounded(text: str) -> str:
    """`text` within `MAX_TEXT_BYTES`: its middle goes, the way out stands at the end."""
    data, gap = text.encode(), " … "
    if len(data) <= MAX_TEXT_BYTES:
        return text
    half = (MAX_TEXT_BYTES - len(gap.encode())) // 2
    return gap.join(part.decode(errors="ignore") for part in (data[:half], data[-half:]))
