"""Redis' glob patterns: ``*``, ``?``, ``[abc]``, ``[^a-z]``, and a backslash before a literal byte.

A pattern is cut at its stars, and each part is searched for where the part before it ended. The first place will do:
whatever an earlier star could still absorb, the later one can too. So nothing is ever tried again, however many stars
there are, where a recursive matcher, or ``fnmatch`` through ``re``, is exponential (CVE-2022-36021, CVE-2024-31228).
Nor is the time pattern length times text length, of which a client may make both a million: a subscriber's pattern is
matched under locks.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

_Token = int
"""A set of bytes, as a mask of 256 bits; or ``_STAR``. A set of Python's would take a hundred times the memory of the
pattern it was made from."""
_STAR = -1
_ANY = (1 << 256) - 1
_ONLY = [1 << byte for byte in range(256)]
_BYTE = {mask: byte for byte, mask in enumerate(_ONLY)}


_Part = bytes | list[_Token]
"""What stands between two stars; bytes if each byte of it is given."""


def compile_glob(pattern: bytes) -> Callable[[bytes], bool]:
    """A function that says whether a key matches ``pattern``, for a pattern that is asked about many keys."""
    if pattern == b"*":
        return _matches_all
    first, *others = _parts(_parse(pattern))
    if not others:
        return first.__eq__ if isinstance(first, bytes) else partial(_matches_whole, first)
    return partial(_matches, first, [part for part in others[:-1] if part], others[-1])


def _matches_all(_key: bytes) -> bool:
    return True


def _parse(pattern: bytes) -> list[_Token]:
    tokens: list[_Token] = []
    position = 0
    while position < len(pattern):
        byte = pattern[position : position + 1]
        if byte == b"*":
            if not tokens or tokens[-1] != _STAR:
                tokens.append(_STAR)
        elif byte == b"?":
            tokens.append(_ANY)
        elif byte == b"[":
            members, position = _parse_class(pattern, position + 1)
            tokens.append(members)
            continue
        else:
            if byte == b"\\" and position + 1 < len(pattern):
                position += 1
            tokens.append(_ONLY[pattern[position]])
        position += 1
    return tokens


def _parse_class(pattern: bytes, position: int) -> tuple[_Token, int]:
    """The members of a class whose ``[`` has been read, and the place after it. A missing ``]`` ends with the text."""
    members = 0
    negated = pattern[position : position + 1] == b"^"
    position += negated
    while position < len(pattern) and pattern[position] != 0x5D:
        if pattern[position] == 0x5C and position + 1 < len(pattern):
            position += 1
            members |= _ONLY[pattern[position]]
        elif pattern[position + 1 : position + 2] == b"-" and position + 2 < len(pattern):
            members |= _range(pattern[position], pattern[position + 2])
            position += 2
        else:
            members |= _ONLY[pattern[position]]
        position += 1
    return (members ^ _ANY if negated else members), position + 1


def _range(first: int, last: int) -> _Token:
    """Bytes are signed here, as in Redis: a range from "a" to 255 goes down to -1, not up."""
    low, high = sorted((_signed(first), _signed(last)))
    if low >= 0 or high < 0:
        return (2 << (high & 0xFF)) - (1 << (low & 0xFF))
    return (_ANY + 1) - (1 << (low & 0xFF)) | (2 << high) - 1


def _signed(byte: int) -> int:
    return byte - 256 if byte > 127 else byte


def _parts(tokens: list[_Token]) -> list[_Part]:
    """Cut at the stars: one part more than there are stars, some perhaps empty."""
    parts: list[_Part] = []
    start = 0
    for end in [*(place for place, token in enumerate(tokens) if token == _STAR), len(tokens)]:
        part = tokens[start:end]
        parts.append(bytes(_BYTE[token] for token in part) if all(token in _BYTE for token in part) else part)
        start = end + 1
    return parts


def _matches_whole(part: _Part, text: bytes) -> bool:
    return len(text) == len(part) and _is_at(part, text, 0)


def _matches(first: _Part, between: list[_Part], last: _Part, text: bytes) -> bool:
    place, end = len(first), len(text) - len(last)
    # No star matches an empty key, but for a lone one (see above); so it is in Redis.
    if not text or place + len(between) > end or not (_is_at(first, text, 0) and _is_at(last, text, end)):
        return False
    for part in between:
        place = _search(part, text, place, end)
        if place < 0:
            return False
    return True


def _is_at(part: _Part, text: bytes, place: int) -> bool:
    if isinstance(part, bytes):
        return text.startswith(part, place)
    return all(token >> byte & 1 for token, byte in zip(part, text[place : place + len(part)], strict=True))


def _search(part: _Part, text: bytes, start: int, end: int) -> int:
    """Where the first match of ``part`` within ``text[start:end]`` ends; -1 if there is none."""
    if isinstance(part, bytes):
        place = text.find(part, start, end)
        return place + len(part) if place >= 0 else -1
    # Shift-and: bit n of ``reached`` says that the first n + 1 tokens match what ends here. One step for all of them.
    whole = 1 << len(part) - 1
    accepting: dict[int, int] = {}
    reached = 0
    for place in range(start, end):
        byte = text[place]
        if byte not in accepting:
            accepting[byte] = int("".join("01"[token >> byte & 1] for token in reversed(part)), 2)
        reached = (reached << 1 | 1) & accepting[byte]
        if reached >= whole:
            return place + 1
    return -1
