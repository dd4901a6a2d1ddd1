"""What sockets are asked for beyond the usual: how much to receive, large replies sent in place, waits that end."""

from __future__ import annotations

import socket
import struct
import sys
from collections import deque
from collections.abc import Sequence

RECV_MIN = 4 * 1024
"""Bytes to receive at a time, at least."""
RECV_IDLE = 16 * 1024
"""At most, as long as the last read was not filled: what an idle connection waits with is held, and counted nowhere."""
RECV_MAX = 64 * 1024
"""At most. Twice as many are no quicker, and leave larger holes between values of 100 KB: 13 % of them, not 6 %."""
LARGE = 16 * 1024
"""Bytes of a value from which on it is sent from where it is. A smaller one is quicker copied behind the others."""
_MOST_PARTS = 512
"""How many parts are given to the system in one call; it takes 1024 (IOV_MAX)."""


def next_size(size: int, received: int, before: int) -> tuple[int, int]:
    """How many bytes to ask for next: more if the client has filled the buffer, fewer if it has hardly used it.

    Args:
        size: bytes that were asked for.
        received: bytes that came.
        before: bytes that came before them, since a buffer was last not filled.

    Returns:
        The size, and ``before`` for the next time.
    """
    if received == size:
        return min(RECV_MAX, size * 2), before + received
    is_hardly_used = before + received < size // 4
    return min(RECV_IDLE, max(RECV_MIN, size // 2) if is_hardly_used else size), 0


def add_large(replies: list[bytes], value: bytes) -> int:
    """Add a bulk string in parts, so that its text is not copied; how many bytes it has."""
    header = b"$%d\r\n" % len(value)
    replies += (header, value, b"\r\n")
    return len(header) + len(value) + 2


def gather(replies: Sequence[bytes]) -> list[bytes]:
    """The same bytes in fewer parts: small ones are joined, large ones stay what they are."""
    parts: list[bytes] = []
    small: list[bytes] = []
    for reply in replies:
        if len(reply) < LARGE:
            small.append(reply)
        else:
            parts += [b"".join(small), reply]
            small.clear()
    return [part for part in [*parts, b"".join(small)] if part]


def send_parts(sock: socket.socket, parts: Sequence[bytes]) -> None:
    """Send several parts without putting them together, and so without copying a large value."""
    if not hasattr(sock, "sendmsg"):  # Windows
        for part in parts:
            sock.sendall(part)
        return
    left = deque(memoryview(part) for part in parts)
    while left:
        sent = sock.sendmsg([left[place] for place in range(min(len(left), _MOST_PARTS))])
        while left and sent >= len(left[0]):
            sent -= len(left.popleft())
        if sent:
            left[0] = left[0][sent:]


def set_timeout(sock: socket.socket, option: int, seconds: float) -> None:
    """Set ``SO_RCVTIMEO`` or ``SO_SNDTIMEO`` of a blocking socket; 0 waits for ever.

    When it passes without a byte, ``recv`` or ``send`` raises BlockingIOError.
    """
    if sys.platform == "win32":
        sock.setsockopt(socket.SOL_SOCKET, option, int(seconds * 1000))
    else:
        whole = int(seconds)
        sock.setsockopt(socket.SOL_SOCKET, option, struct.pack("@ll", whole, int((seconds - whole) * 1_000_000)))
