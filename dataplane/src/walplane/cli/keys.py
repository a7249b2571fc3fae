"""From the value of a key to the bytes that choose its shard. Layer: cli.

Contract: a key is a text, compared byte for byte: equal ones go to one shard, in order, for ever,
from `append` and from `ingest` alike. What is read from text is its own key as it is written: the
field of a CSV, the string or the fraction of a JSON object. Whole numbers are in decimal, true and
false in lower case; nothing is no bytes. Values of a typed file are as Python prints them.
"""

from __future__ import annotations

import datetime
import json
from decimal import Decimal
from typing import Any

from walplane.message.registry import MAX_KEY


def _whole(text: str) -> str:
    return "0" if text == "-0" else text


_JSON = json.JSONDecoder(parse_int=_whole, parse_float=str, parse_constant=str)


def json_object(record: bytes) -> dict[str, Any]:
    """The fields of a JSON object; numbers are the text that stands there.

    Raises:
        ValueError: it is none, with the reason.
    """
    try:
        value = _JSON.decode(record.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise ValueError("it is not UTF-8") from error
    except json.JSONDecodeError as error:
        raise ValueError(f"it is not valid JSON, {error.msg} at column {error.colno}") from error
    except RecursionError as error:
        raise ValueError("its JSON is nested too deep") from error
    if not isinstance(value, dict):
        raise ValueError("it is no JSON object")  # noqa: TRY004 - of input, not of an argument
    return value


def key_bytes(value: object) -> bytes:
    """The bytes of one key.

    Raises:
        ValueError: it is no key, with the reason.
    """
    if isinstance(value, bytes):
        return value
    if value is None:
        return b""
    if isinstance(value, bool):
        return b"true" if value else b"false"
    if isinstance(value, str):
        try:
            return value.encode()
        except UnicodeEncodeError as error:
            raise ValueError("half of a surrogate pair is no text") from error
    if isinstance(value, float):
        return repr(value + 0.0).encode()  # + 0.0: the two zeros are equal
    if isinstance(value, int | Decimal | datetime.date):
        return str(value).encode()
    kind = "an object" if isinstance(value, dict) else f"a {type(value).__name__}"
    raise ValueError(f"{kind} is no key: take text, a number, true, false or null")


def idempotency_key(value: object) -> str:
    """One key as an idempotency key.

    Raises:
        ValueError: it is none, with the reason.
    """
    key = key_bytes(value).decode()
    if not 0 < len(key) <= MAX_KEY:
        raise ValueError(f"{len(key)} characters: an idempotency key has 1 to {MAX_KEY}")
    return key
