"""LOLWUT's drawing: two waves that meet, in characters. Different every time."""

from __future__ import annotations

import math
import random

from kvserver import errors
from kvserver.commands.arguments import as_integer
from kvserver.protocol.replies import Error

_SHADES = " .:-=+*#%@"
_USAGE = "ERR Syntax error. Use: LOLWUT [VERSION version] [columns rows]"


def drawing(words: tuple[bytes, ...], version: str) -> bytes:
    """The picture and a line with the version; with ``VERSION n`` for another n, the line alone.

    Raises:
        Error: for arguments it does not know.
    """
    signature = f"kvserver ver. {version}\n"
    if words and words[0].upper() == b"VERSION":
        if len(words) < 2 or as_integer(words[1]) is None:
            raise Error(errors.NOT_AN_INTEGER if len(words) > 1 else _USAGE)
        words = words[2:]
        if not words:
            return signature.encode("ascii")
    sizes = [as_integer(word) for word in words]
    if len(sizes) not in (0, 2) or None in sizes:
        raise Error(_USAGE)
    columns, rows = (max(1, min(size or 1, limit)) for size, limit in zip(sizes or (66, 17), (200, 100), strict=True))
    return (_waves(columns, rows) + "\n" + signature).encode("ascii")


def _waves(columns: int, rows: int) -> str:
    """Rings around two points; where they meet they add up, and a shade says how far."""
    centres = [(random.uniform(0, columns), random.uniform(0, rows)) for _ in range(2)]  # noqa: S311 - a picture
    length = random.uniform(1.2, 2.6)  # noqa: S311
    lines = []
    for row in range(rows):
        heights = (
            # A character is about twice as high as wide.
            sum(math.sin(math.hypot((column - x) / 2, row - y) / length * 2) for x, y in centres) / 2
            for column in range(columns)
        )
        lines.append("".join(_SHADES[round((height + 1) / 2 * (len(_SHADES) - 1))] for height in heights).rstrip())
    return "\n".join(lines)
