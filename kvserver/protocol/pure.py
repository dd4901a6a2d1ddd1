"""The inner steps of decoding and encoding, in Python. speedups.c has the same ones, compiled.

What lives here: what is done for nearly every command, and has no state. What must not: anything only one of the two
has. tests/protocol runs both.
"""

from __future__ import annotations

_CRLF = b"\r\n"

# Headers that nearly every command uses, by what they mean. Comparing whole headers is both the fastest parser and a
# strict one: what is not spelled exactly so is not equal, and goes the careful way.
SHORT_COUNT, SHORT_LENGTH = 64, 16 * 1024
_SHORT_COUNTS = {b"*%d" % n: n for n in range(1, SHORT_COUNT + 1)}
_FREQUENT_LENGTHS = [b"$%d" % n for n in range(4096 + 1)]


def split_commands(data: bytes, /) -> tuple[list[list[bytes]], int]:
    """The whole commands in short form that data begins with, and how many bytes they take.

    In short form are arrays of 1 to 64 bulk strings of up to 16 KiB. Where anything else begins, something wrong
    or only the first half of a command, the caller has to look for itself.

    This does one split for the whole read. If each bulk's text up to the next CRLF has the announced length, the frame
    is exact. A bulk that holds a CRLF itself comes out shorter, and is left to the caller; speedups.c need not.
    """
    parts = data.split(_CRLF)
    last = len(parts) - 1  # what follows the last CRLF is not a whole line
    index = 0
    header = _FREQUENT_LENGTHS
    commands: list[list[bytes]] = []
    while index < last:
        count = _SHORT_COUNTS.get(parts[index])
        if count is None:
            break
        end = index + 1 + 2 * count
        if end > last:
            break
        try:
            # GET and SET are most of all commands, and unrolled for that.
            if count == 2:
                _, head0, word0, head1, word1 = parts[index:end]
                if header[len(word0)] != head0 or header[len(word1)] != head1:
                    break
                commands.append([word0, word1])
            elif count == 3:
                _, head0, word0, head1, word1, head2, word2 = parts[index:end]
                if header[len(word0)] != head0 or header[len(word1)] != head1 or header[len(word2)] != head2:
                    break
                commands.append([word0, word1, word2])
            else:
                command = parts[index + 2 : end : 2]
                if [header[len(word)] for word in command] != parts[index + 1 : end : 2]:
                    break
                commands.append(command)
        except IndexError:  # a word for which no header is kept
            command = parts[index + 2 : end : 2]
            if not _are_headers(parts[index + 1 : end : 2], command):
                break
            commands.append(command)
        index = end
    if index == last:
        return commands, len(data) - len(parts[last])
    rest = parts[index:]
    return commands, len(data) - sum(map(len, rest)) - 2 * (len(rest) - 1)


def _are_headers(headers: list[bytes], words: list[bytes]) -> bool:
    return all(
        len(word) <= SHORT_LENGTH and head == b"$%d" % len(word) for head, word in zip(headers, words, strict=True)
    )


def bulk(value: bytes, /) -> bytes:
    """A bulk string."""
    return b"$%d\r\n%b\r\n" % (len(value), value)


def simple(value: bytes, /) -> bytes:
    """A simple string."""
    return b"+%b\r\n" % value


def integer(value: int, /) -> bytes:
    """An integer."""
    return b":%d\r\n" % value
