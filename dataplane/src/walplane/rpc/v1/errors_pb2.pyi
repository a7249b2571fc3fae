from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ErrorCode(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ERROR_CODE_UNSPECIFIED: _ClassVar[ErrorCode]
    CHANNEL_NOT_EXIST: _ClassVar[ErrorCode]
    CHANNEL_FENCED: _ClassVar[ErrorCode]
    ON_SHUTDOWN: _ClassVar[ErrorCode]
    INVALID_REQUEST_SEQ: _ClassVar[ErrorCode]
    UNMATCHED_CHANNEL_TERM: _ClassVar[ErrorCode]
    IGNORED_OPERATION: _ClassVar[ErrorCode]
    INNER: _ClassVar[ErrorCode]
    INVALID_ARGUMENT: _ClassVar[ErrorCode]
    TRANSACTION_EXPIRED: _ClassVar[ErrorCode]
    INVALID_TRANSACTION_STATE: _ClassVar[ErrorCode]
    OUTCOME_UNKNOWN: _ClassVar[ErrorCode]
    DATA_TRUNCATED: _ClassVar[ErrorCode]
    UNRECOVERABLE: _ClassVar[ErrorCode]
    RESOURCE_ACQUIRED: _ClassVar[ErrorCode]
    REPLICATE_VIOLATION: _ClassVar[ErrorCode]
    SCHEMA_VERSION_MISMATCH: _ClassVar[ErrorCode]
    NOT_PRIMARY: _ClassVar[ErrorCode]
    UNKNOWN: _ClassVar[ErrorCode]
    PRODUCER_FENCED: _ClassVar[ErrorCode]
ERROR_CODE_UNSPECIFIED: ErrorCode
CHANNEL_NOT_EXIST: ErrorCode
CHANNEL_FENCED: ErrorCode
ON_SHUTDOWN: ErrorCode
INVALID_REQUEST_SEQ: ErrorCode
UNMATCHED_CHANNEL_TERM: ErrorCode
IGNORED_OPERATION: ErrorCode
INNER: ErrorCode
INVALID_ARGUMENT: ErrorCode
TRANSACTION_EXPIRED: ErrorCode
INVALID_TRANSACTION_STATE: ErrorCode
OUTCOME_UNKNOWN: ErrorCode
DATA_TRUNCATED: ErrorCode
UNRECOVERABLE: ErrorCode
RESOURCE_ACQUIRED: ErrorCode
REPLICATE_VIOLATION: ErrorCode
SCHEMA_VERSION_MISMATCH: ErrorCode
NOT_PRIMARY: ErrorCode
UNKNOWN: ErrorCode
PRODUCER_FENCED: ErrorCode

class WalplaneError(_message.Message):
    __slots__ = ("code", "message", "retry_after_ms")
    CODE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    RETRY_AFTER_MS_FIELD_NUMBER: _ClassVar[int]
    code: ErrorCode
    message: str
    retry_after_ms: int
    def __init__(self, code: _Optional[_Union[ErrorCode, str]] = ..., message: _Optional[str] = ..., retry_after_ms: _Optional[int] = ...) -> None: ...
