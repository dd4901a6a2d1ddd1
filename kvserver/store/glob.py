"""Redis' glob patterns: ``*``, ``?``, ``[abc]``, ``[^a-z]``, and a backslash before a literal byte.

The matcher is iterative. On a mismatch it goes back to the last ``*`` only: whatever an earlier star could still
absorb, the later one can too. So the time is bounded by pattern length times text length however many stars there
are, where a recursive matcher, or ``fnmatch`` through ``re``, is exponential (CVE-2022-36021, CVE-2024-31228).
"""

from __future__ import annotations

from collections.abc import Callable

_Token = int
"""A set of bytes, as a mask of 256 bits; or ``_STAR``. A set of Python's would take a hundred times the memory of the
pattern it was made from."""
_STAR = -1
_ANY = (1 << 256) - 1
_ONLY = [1 << byte for byte in range(256)]
_BYTE = {mask: byte for byte, mask in enumerate(_ONLY)}


def compile_glob(pattern: bytes) -> Callable[[bytes], bool]:
    """A function that says whether a key matches ``pattern``, for a pattern that is asked about many keys."""
    if pattern == b"*":
        return _matches_all
    tokens = _parse(pattern)
    if all(token in _BYTE for token in tokens):
        return bytes(_BYTE[token] for token in tokens).__eq__
    shortest = sum(token != _STAR for token in tokens)
    return lambda key: len(key) >= shortest and _match(tokens, key)


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


def _match(tokens: list[_Token], text: bytes) -> bool:
    if not text:
        return not tokens  # no star matches an empty key, but for a lone one (see above); so it is in Redis
    token = position = 0
    star = resume = -1
    while position < len(text):
        wanted = tokens[token] if token < len(tokens) else 0
        if wanted == _STAR:
            star, resume = token, position
            token += 1
        elif wanted >> text[position] & 1:
            token += 1
            position += 1
        elif star >= 0:
            resume += 1
            token, position = star + 1, resume
        else:
            return False
    return all(rest == _STAR for rest in tokens[token:])
