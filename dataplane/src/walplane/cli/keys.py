"""From a value of a key column to the bytes that choose its shard. Layer: cli.

Contract: the same value goes to the same shard from `append` and from `ingest`, for ever: text as
UTF-8, whole numbers in decimal, true and false in lower case, other numbers as Python prints them,
nothing as no bytes, anything else as its text.
"""

from __future__ import annotations


def key_bytes(value: object) -> bytes:
    """The bytes of one key."""
    if isinstance(value, bytes):
        return value
    if value is None:
        return b""
    if isinstance(value, bool):
        return b"true" if value else b"false"
    return str(value).encode()
