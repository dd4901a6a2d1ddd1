"""What a Python program gives as a word of a command, as the bytes that a client would send. Not here: framing."""

from __future__ import annotations

from typing import TypeAlias

Word: TypeAlias = bytes | bytearray | str | int | float


def encoded(word: Word) -> bytes:
    """A word as bytes: text as UTF-8, numbers as Python writes them.

    Raises:
        TypeError: it is neither bytes, text nor a number.
    """
    if isinstance(word, bytes | bytearray):
        return bytes(word)
    if isinstance(word, str):
        return word.encode()
    if isinstance(word, float):
        return repr(float(word)).encode("ascii")
    if isinstance(word, int) and not isinstance(word, bool):
        return b"%d" % word
    raise TypeError(f"a word is bytes, text or a number, not {type(word).__name__}")
