"""Keys that hold a token of one owner: changed or deleted only while they still do, in one step of the server's.

kvserver and Valkey 9 have commands for that, Redis has IFEQ from 8.4 on; the others run a script. Not here: what such
keys are for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from kvclient.errors import ServerError
from kvclient.recipes.steps import Ask

if TYPE_CHECKING:
    from kvclient.protocol import Key
    from kvclient.recipes.steps import Recipe

_DELETE: Final = b"if redis.call('get',KEYS[1])==ARGV[1] then return redis.call('del',KEYS[1]) end return 0"
_EXTEND: Final = b"if redis.call('get',KEYS[1])==ARGV[1] then return redis.call('pexpire',KEYS[1],ARGV[2]) end return 0"


def delete_if_owned(key: Key, token: bytes) -> Recipe[bool]:
    """Delete a key that still holds the token; whether it did."""
    try:
        reply = yield Ask((b"DELIFEQ", key, token))
    except ServerError:  # it does not know that command
        reply = yield Ask((b"EVAL", _DELETE, 1, key, token))
    return bool(reply)


def extend_if_owned(key: Key, token: bytes, milliseconds: int) -> Recipe[bool]:
    """Have a key that still holds the token end so much later from now; whether it did."""
    try:
        reply = yield Ask((b"SET", key, token, b"IFEQ", token, b"PX", milliseconds))
    except ServerError:
        reply = yield Ask((b"EVAL", _EXTEND, 1, key, token, milliseconds))
    return bool(reply)
