r"""The inline form's quoting: one line, as a person types it into telnet, to arguments.

Words are separated by blanks. ``"..."`` knows ``\n \r \t \b \a \\ \"`` and ``\xHH`` and takes any other
escaped byte as itself; ``'...'`` knows ``\'``. A quote may open inside a word; a closing quote must be
followed by a blank or the end of the line. A NUL ends the line. One pass, linear time: ``shlex`` is neither
linear nor binary-safe.
"""

from __future__ import annotations

import re

_UNQUOTED_LINE = re.compile(rb"[^ \t\r\n\v\f][^ \t\r\n]*")
_BLANKS = re.compile(rb"[ \t\r\n\v\f]*")
_PLAIN = re.compile(rb"[^ \t\r\n\"']*")
_IN_DOUBLE = re.compile(rb'((?:[^"\\]|\\.)*)"', re.DOTALL)
_IN_SINGLE = re.compile(rb"((?:[^'\\]|\\'|\\(?!'))*)'", re.DOTALL)
_DOUBLE_ESCAPE = re.compile(rb"\\(?:x([0-9a-fA-F]{2})|(.))", re.DOTALL)
_CONTROL = {b"n": b"\n", b"r": b"\r", b"t": b"\t", b"b": b"\b", b"a": b"\a"}


class UnbalancedQuotesError(ValueError):
    """A quote was opened and not closed, or something touches a closing quote."""


def split_arguments(line: bytes) -> list[bytes]:
    """Split ``line`` (without its line feed) into arguments.

    Raises:
        UnbalancedQuotesError: when the quoting cannot be understood.
    """
    line = line.partition(b"\0")[0]
    if b'"' not in line and b"'" not in line:
        return _UNQUOTED_LINE.findall(line)
    arguments: list[bytes] = []
    position = _skip_blanks(line, 0)
    while position < len(line):
        argument, position = _argument(line, position)
        arguments.append(argument)
        position = _skip_blanks(line, position)
    return arguments


def _skip_blanks(line: bytes, position: int) -> int:
    match = _BLANKS.match(line, position)
    return match.end() if match is not None else position


def _argument(line: bytes, position: int) -> tuple[bytes, int]:
    """The argument that starts at ``position``, and the place after it: an unquoted part, then a quoted one."""
    plain = _PLAIN.match(line, position)
    word = plain.group() if plain is not None else b""
    position += len(word)
    quote = line[position : position + 1]
    if quote not in (b'"', b"'"):
        return word, position
    quoted = (_IN_DOUBLE if quote == b'"' else _IN_SINGLE).match(line, position + 1)
    if quoted is None or not line[quoted.end() : quoted.end() + 1].strip() == b"":
        raise UnbalancedQuotesError
    text = quoted.group(1)
    text = _DOUBLE_ESCAPE.sub(_unescape, text) if quote == b'"' else text.replace(b"\\'", b"'")
    return word + text, quoted.end()


def _unescape(match: re.Match[bytes]) -> bytes:
    digits, other = match.groups()
    if digits is not None:
        return bytes.fromhex(digits.decode("ascii"))
    return _CONTROL.get(other, other)
