"""Keys as lines of JSON, which `kv export` writes and `kv import` reads.

    {"key": "greeting", "value": "hello", "expires": 1795617602000}

A key or value that is not UTF-8 is {"base64": "..."} instead of text. `expires` is the end of life in milliseconds
since 1970, and is left out for a key without one. Not here: files and servers.
"""

from __future__ import annotations

import base64
import binascii
import json
from typing import Any, NamedTuple

from kvclient.cli.display import json_line, text_or_base64


class Record(NamedTuple):
    """A key with its value, and when it ends: milliseconds since 1970, or None."""

    key: bytes
    value: bytes
    expires: int | None


def to_line(record: Record) -> str:
    """A record as one line."""
    fields: dict[str, Any] = {"key": text_or_base64(record.key), "value": text_or_base64(record.value)}
    if record.expires is not None:
        fields["expires"] = record.expires
    return json_line(fields)


def from_line(line: bytes) -> Record:
    """A line as a record.

    Raises:
        ValueError: it is none; the text says why, without what the line holds.
    """
    try:
        fields = json.loads(line)
    except (ValueError, RecursionError):
        raise ValueError("it is not JSON") from None
    if not isinstance(fields, dict) or not {"key", "value"} <= set(fields) <= {"key", "value", "expires"}:
        raise ValueError('it is not an object with "key", "value" and perhaps "expires"')
    expires = fields.get("expires")
    if expires is not None and (type(expires) is not int or not 0 < expires < 2**63):
        raise ValueError('"expires" is not a time in milliseconds')
    return Record(_bytes(fields["key"], "key"), _bytes(fields["value"], "value"), expires)


def _bytes(field: object, name: str) -> bytes:
    if isinstance(field, str):
        return field.encode("utf-8", "surrogatepass")
    if isinstance(field, dict) and set(field) == {"base64"} and isinstance(field["base64"], str):
        try:
            return base64.b64decode(field["base64"], validate=True)
        except binascii.Error:
            pass
    raise ValueError(f'"{name}" is neither text nor {{"base64": ...}}')
