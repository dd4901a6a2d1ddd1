"""The key browser: what it asks for is commands, run as its user. Keys and values are bytes: in base64, both ways."""

from __future__ import annotations

import base64
import binascii
import json
from http import HTTPStatus
from typing import Any, cast

from kvserver.config import Config
from kvserver.protocol.replies import Error, Reply
from kvserver.web.exchange import RefusalError, Request, Response, bad_request
from kvserver.web.visitor import Visitor

_WALKS = 10
_WALK = b"1000"
_PAGE = 100
"""Keys after which a walk pauses. So many steps of so many keys are looked at for one request, at most."""
_SHOWN = 64 * 1024
"""Bytes of a value that are shown."""
_LONGEST_NAME = 1024
"""Bytes of a key's name that are listed. Of a longer one only its beginning is, and it cannot be opened: names may be
as long as values, and a page of them is sent at once."""


def keys(request: Request, visitor: Visitor) -> Response:
    """Some keys that match a pattern, each with its TTL and size; and the cursor to go on with.

    Raises:
        Error: the user may not.
    """
    _select(request.query.get("db", "0"), visitor)
    cursor: bytes | str = request.query.get("cursor", "0")
    pattern = request.query.get("match") or "*"
    found: list[bytes] = []
    for _ in range(_WALKS):
        cursor, some = _walked(visitor.run("SCAN", cursor, "MATCH", pattern, "COUNT", _WALK))
        found += some
        if cursor == b"0" or len(found) >= _PAGE:
            break
    return _json(
        {"cursor": cursor.decode() if isinstance(cursor, bytes) else cursor, "keys": _described(found, visitor)}
    )


def _walked(reply: Reply) -> tuple[bytes, list[bytes]]:
    following, found = cast("tuple[bytes, list[bytes]]", reply)
    return following, found


def _described(found: list[bytes], visitor: Visitor) -> list[dict[str, Any]]:
    return [
        {
            "key": _encode(key[:_LONGEST_NAME]),
            "length": len(key),
            "ttl": _or_none(visitor, "PTTL", key),
            "size": _or_none(visitor, "STRLEN", key),
        }
        for key in found
    ]


def _or_none(visitor: Visitor, *words: bytes | str) -> Reply:
    """An answer, or None where the user may not know it: found out beforehand, since a refusal is logged as one."""
    if not visitor.may(*words):
        return None
    try:
        return visitor.run(*words)
    except Error:
        return None


def key(request: Request, visitor: Visitor) -> Response:
    """One key's value, as far as it is shown, its length, TTL and memory.

    Raises:
        Error: the user may not.
    """
    _select(request.query.get("db", "0"), visitor)
    name = _decode(request.query.get("key", ""))
    value = visitor.run("GETRANGE", name, "0", str(_SHOWN - 1))
    there = bool(visitor.run("EXISTS", name))
    return _json(
        {
            "exists": there,
            "value": _encode(value) if isinstance(value, bytes) else "",
            "size": _or_none(visitor, "STRLEN", name),
            "ttl": _or_none(visitor, "PTTL", name),
            "memory": _or_none(visitor, "MEMORY", "USAGE", name),
        }
    )


def change(request: Request, visitor: Visitor) -> Response:
    """Set, delete or time a key, if the settings let the page do that.

    Raises:
        Error: the user may not, or it cannot be done.
        RefusalError: the page may not, or what is asked makes no sense.
    """
    _check_writes(visitor.state.config)
    try:
        wanted = json.loads(request.body)
        db, action, name = str(int(wanted["db"])), str(wanted["action"]), _decode(str(wanted["key"]))
        ttl = int(wanted.get("ttl") or 0)
        value = _decode(str(wanted.get("value", "")))
        was = _decode(str(wanted["was"])) if "was" in wanted else None
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError):
        raise bad_request("This says nothing that can be done.") from None
    if ttl < 0:
        raise bad_request("A time to live is a number of milliseconds, and not negative.")
    _select(db, visitor)
    time_to_live = ("PX", str(ttl)) if ttl else ()
    match action:
        case "new":
            _set(visitor, "There is such a key already.", name, value, "NX", *time_to_live)
        case "set":
            condition = () if was is None else ("IFEQ", was)
            _set(
                visitor,
                "It has changed meanwhile: look again.",
                name,
                value,
                *condition,
                *(time_to_live or ("KEEPTTL",)),
            )
        case "delete":
            visitor.run("DEL", name)
        case "expire":
            visitor.run("PEXPIRE", name, str(ttl))
        case "persist":
            visitor.run("PERSIST", name)
        case _:
            raise bad_request("This says nothing that can be done.")
    return _json({"done": action})


def _set(visitor: Visitor, otherwise: str, *words: bytes | str) -> None:
    """Run SET.

    Raises:
        RefusalError: its condition does not hold.
    """
    if visitor.run("SET", *words) is None:
        raise RefusalError(HTTPStatus.CONFLICT, "conflict", otherwise)


def count_hot_keys(_request: Request, visitor: Visitor) -> Response:
    """Begin to count which keys cost most, for a minute.

    Raises:
        Error: the user may not, or somebody counts already.
        RefusalError: the page may not.
    """
    _check_writes(visitor.state.config)
    visitor.run("HOTKEYS", "START", "METRICS", "2", "CPU", "NET", "DURATION", "60")
    return _json({"done": "count"})


def _check_writes(config: Config) -> None:
    if config.web_writes != "yes":
        raise RefusalError(
            HTTPStatus.FORBIDDEN,
            "read_only",
            "This page only reads; start the server with --web-writes yes to change that.",
        )


def _select(db: str, visitor: Visitor) -> None:
    if db != "0":
        visitor.run("SELECT", db)


def _json(content: object) -> Response:
    return Response(body=json.dumps(content).encode(), content_type="application/json")


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode("ascii")


def _decode(text: str) -> bytes:
    try:
        return base64.b64decode(text, altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raise bad_request("A key or value is not base64.") from None
