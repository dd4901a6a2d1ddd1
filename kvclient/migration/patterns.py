r"""Glob patterns as the server understands them: * ? [abc] [a-z] [^a] and \ before what is to be taken as it is.

The server picks the keys of a walk by itself; here they are matched that it tells to have changed.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


def literal_prefix(pattern: bytes | None) -> bytes:
    """What every key begins with that matches; b"" if nothing can be said."""
    found = re.match(rb"[^*?\[\\]*", pattern or b"")
    return found.group() if found else b""


def matcher(pattern: bytes | None) -> Callable[[bytes], bool]:
    """A function that tells whether a key matches; None matches all."""
    if pattern is None:
        return lambda _: True
    expression = re.compile(b"".join(_parts(pattern)), re.DOTALL)
    return lambda key: expression.fullmatch(key) is not None


def _parts(pattern: bytes) -> list[bytes]:
    parts: list[bytes] = []
    pos = 0
    while pos < len(pattern):
        sign = pattern[pos : pos + 1]
        pos += 1
        if sign == b"*":
            if parts[-1:] != [b".*"]:
                parts.append(b".*")
        elif sign == b"?":
            parts.append(b".")
        elif sign == b"[":
            part, pos = _class(pattern, pos)
            parts.append(part)
        else:
            if sign == b"\\" and pos < len(pattern):
                sign = pattern[pos : pos + 1]
                pos += 1
            parts.append(re.escape(sign))
    return parts


def _class(pattern: bytes, pos: int) -> tuple[bytes, int]:
    """A class of bytes, from behind its bracket, as an expression; and where it ends; it need not be closed."""
    is_not = pattern[pos : pos + 1] == b"^"
    pos += is_not
    chosen: set[int] = set()
    while pos < len(pattern) and pattern[pos : pos + 1] != b"]":
        if pattern[pos : pos + 1] == b"\\" and pos + 1 < len(pattern):
            chosen.add(pattern[pos + 1])
            pos += 2
        elif pattern[pos + 1 : pos + 2] == b"-" and pos + 2 < len(pattern):
            low, high = sorted((pattern[pos], pattern[pos + 2]))
            chosen.update(range(low, high + 1))
            pos += 3
        else:
            chosen.add(pattern[pos])
            pos += 1
    if is_not:
        chosen = set(range(256)) - chosen
    body = b"".join(b"\\x%02x" % byte for byte in sorted(chosen))
    return (b"[" + body + b"]" if body else b"(?!)"), pos + 1
