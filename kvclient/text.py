r"""Commands and replies as people write and read them: Redis' quoting, and redis-cli's way to show a reply.

Not here: reading lines, and sockets.
"""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Final

from kvclient.errors import ServerError
from kvclient.protocol import SimpleString, Verbatim

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kvclient.protocol import Reply

_SPACE: Final = re.compile(rb"[ \t\r\n\v\f]*")
_PLAIN: Final = re.compile(rb"""[^ \t\r\n\v\f"']+""")
_DOUBLE: Final = re.compile(rb'"((?:[^"\\]|\\.)*+)"', re.DOTALL)
_SINGLE: Final = re.compile(rb"'((?:[^'\\]|\\'?)*+)'", re.DOTALL)
_ESCAPE: Final = re.compile(rb"\\(?:x([0-9a-fA-F]{2})|(.))", re.DOTALL)
_LETTERS: Final = {b"n": b"\n", b"r": b"\r", b"t": b"\t", b"b": b"\b", b"a": b"\a"}


def split_line(line: bytes) -> list[bytes]:
    r"""Split a line into words. "..." knows \n \r \t \b \a \xHH \" and \\; '...' knows \'.

    Takes time linear in the line's length.

    Raises:
        ValueError: a quote is not closed, or something other than a space follows a closing one.
    """
    words: list[bytes] = []
    pos = _skip(line, 0)
    while pos < len(line):
        word, pos = _word(line, pos)
        words.append(word)
        pos = _skip(line, pos)
    return words


def _skip(line: bytes, pos: int) -> int:
    found = _SPACE.match(line, pos)
    return found.end() if found else pos


def _word(line: bytes, pos: int) -> tuple[bytes, int]:
    """The word at `pos` and where it ends. A word is plain text, and may end with one quoted part."""
    plain = _PLAIN.match(line, pos)
    start = plain.end() if plain else pos
    word = plain.group() if plain else b""
    quote = line[start : start + 1]
    if quote not in {b'"', b"'"}:
        return word, start
    found = (_DOUBLE if quote == b'"' else _SINGLE).match(line, start)
    if not found or (found.end() < len(line) and line[found.end()] not in b" \t\r\n\v\f"):
        raise ValueError("unbalanced quotes: close each one, and put a space after it")
    text = found[1]
    unquoted = _ESCAPE.sub(_unescape, text) if quote == b'"' else text.replace(b"\\'", b"'")
    return word + unquoted, found.end()


def _unescape(found: re.Match[bytes]) -> bytes:
    if found[1] is not None:
        return bytes((int(found[1], 16),))
    return _LETTERS.get(found[2], found[2])


def quoted(data: bytes) -> str:
    r"""A string in double quotes, with escapes for what is not printable ASCII; split_line() reads it back."""
    names = {7: "\\a", 8: "\\b", 9: "\\t", 10: "\\n", 13: "\\r", 34: '\\"', 92: "\\\\"}
    shown = (names.get(c) or (chr(c) if 32 <= c < 127 else f"\\x{c:02x}") for c in data)
    return f'"{"".join(shown)}"'


def escape_glob(text: bytes) -> bytes:
    """A glob pattern that matches just this text."""
    return re.sub(rb"[*?\[\]\\^-]", rb"\\\g<0>", text)


def harmless(text: str) -> str:
    """Text of whatever origin, without the control characters by which a server could drive the terminal."""
    return "".join(c if c.isprintable() or c in "\n\t" else "" if c == "\r" else f"\\x{ord(c):02x}" for c in text)


def show(reply: Reply) -> str:
    """A reply for people: its type can be told, strings are quoted, elements are numbered."""
    return "\n".join(_lines(reply))


def show_raw(reply: Reply) -> bytes:
    """A reply for programs: strings as they are, elements one a line."""
    if isinstance(reply, bytes):
        return bytes(reply)
    if isinstance(reply, ServerError):
        return _error_text(reply).encode()
    if isinstance(reply, dict):
        return b"\n".join(show_raw(part) for item in reply.items() for part in item)
    if isinstance(reply, list | set | tuple):
        return b"\n".join(map(show_raw, reply))
    return b"" if reply is None else _number(reply).encode()


def _error_text(error: ServerError) -> str:
    return f"{error.code} {error.message}".strip()


def _number(number: float) -> str:
    """A number or boolean as text, a whole double without its fraction."""
    if isinstance(number, bool):
        return "true" if number else "false"
    if isinstance(number, float) and math.isfinite(number) and number == int(number) and abs(number) < 1e17:
        return str(int(number))
    return str(number)


def _lines(reply: Reply) -> Iterator[str]:
    if isinstance(reply, dict):
        return _numbered(((key, value) for key, value in reply.items()), len(reply), "#", "(empty hash)")
    if isinstance(reply, list | tuple):
        return _numbered(((None, value) for value in reply), len(reply), ")", "(empty array)", keyed=False)
    if isinstance(reply, set | frozenset):
        return _numbered(((None, value) for value in reply), len(reply), "~", "(empty set)", keyed=False)
    return iter((_scalar(reply),))


def _scalar(reply: Reply) -> str:
    if reply is None:
        return "(nil)"
    if isinstance(reply, SimpleString | Verbatim):
        return harmless(reply.decode("utf-8", "backslashreplace"))
    if isinstance(reply, bytes):
        return quoted(reply)
    if isinstance(reply, ServerError):
        return harmless(f"(error) {_error_text(reply)}")
    if isinstance(reply, bool):
        return f"({_number(reply)})"
    if isinstance(reply, float):
        return f"(double) {_number(reply)}"
    return f"(integer) {reply}" if isinstance(reply, int) else str(reply)


def _numbered(
    items: Iterator[tuple[Reply, Reply]], count: int, mark: str, empty: str, *, keyed: bool = True
) -> Iterator[str]:
    """Lines of an aggregate: a number, the key if there is one, and the value, nested ones indented."""
    if not count:
        yield empty
        return
    width = len(str(count))
    for place, (key, value) in enumerate(items, 1):
        head = f"{place:>{width}}{mark} "
        first = f"{head}{_scalar_key(key)} => " if keyed else head
        for line in _lines(value):
            yield first + line
            first = " " * len(first)


def _scalar_key(key: Reply) -> str:
    return ", ".join(_lines(key))
