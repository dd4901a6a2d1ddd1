"""Commands to bytes. Pure functions of the arguments. Not here: what a command's arguments are (commands/)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kvclient.protocol.types import Value

_COUNT_HEADS: Final = [b"*%d" % n for n in range(64)]
_BULK_HEADS: Final = [b"$%d" % n for n in range(1024)]


class _Heads(dict[bytes, bytes]):
    """How a command of so many words begins, by its name: made once, as there are not many names."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self._count = count

    def __missing__(self, name: bytes) -> bytes:
        head = b"*%d\r\n$%d\r\n%b" % (self._count, len(name), name)
        if len(self) < 1024:
            self[name] = head
        return head


_HEADS_OF_TWO: Final = _Heads(2)
_HEADS_OF_THREE: Final = _Heads(3)


def encode_command(args: Sequence[Value]) -> bytes:
    """The bytes of one command: an array of bulk strings.

    Raises:
        TypeError: for an argument that is not bytes, str, int or float.
    """
    # Most commands have a name, a key, and perhaps a value, all short: they take half the time of the general way.
    count = len(args)
    name = args[0] if count else b""
    if count == 2 and type(name) is bytes:
        key = args[1]
        if type(key) is not bytes:
            key = key.encode() if isinstance(key, str) else _encode_value(key)
        if len(key) < 1024:
            return b"\r\n".join((_HEADS_OF_TWO[name], _BULK_HEADS[len(key)], key, b""))
    elif count == 3 and type(name) is bytes:
        _, key, value = args
        if type(key) is not bytes:
            key = key.encode() if isinstance(key, str) else _encode_value(key)
        if type(value) is not bytes:
            value = value.encode() if isinstance(value, str) else _encode_value(value)
        if len(key) < 1024 and len(value) < 1024:
            return b"\r\n".join(
                (_HEADS_OF_THREE[name], _BULK_HEADS[len(key)], key, _BULK_HEADS[len(value)], value, b"")
            )
    lines = [_COUNT_HEADS[count] if count < 64 else b"*%d" % count]
    for arg in args:
        data = arg if type(arg) is bytes else arg.encode() if isinstance(arg, str) else _encode_value(arg)
        size = len(data)
        lines += (_BULK_HEADS[size] if size < 1024 else b"$%d" % size, data)
    lines.append(b"")
    return b"\r\n".join(lines)


def to_bytes(value: Value) -> bytes:
    """What is sent for a value: text as UTF-8, a number as its digits.

    Raises:
        TypeError: for anything but bytes, text and numbers.
    """
    return value if type(value) is bytes else value.encode() if isinstance(value, str) else _encode_value(value)


def _encode_value(value: Value) -> bytes:
    """The bytes that stand for a value other than text: decimal digits for numbers."""
    if isinstance(value, bool):
        raise TypeError(f"a bool is ambiguous as a key or value: write int({value}) or b'{value}', as you mean")
    if isinstance(value, int):
        return b"%d" % value
    if isinstance(value, float):
        return repr(float(value)).encode()
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value)
    raise TypeError(f"cannot send a {type(value).__name__}: encode it to bytes or str first")
