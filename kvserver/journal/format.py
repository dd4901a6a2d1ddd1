r"""The bytes of a journal file. Pure functions of bytes: no files.

A file is a sequence of batches. A batch is what was written at once: the effects of one command or of many, as commands
in RESP, behind one annotation line, which Redis and Valkey pass over. Effects that became visible at once, those of a
transaction for one, are never in two batches, and stand between MULTI and EXEC::

    #CRC:9ae0daaf 31\r\n             CRC-32 of the bytes of the batch, in hexadecimal, and their number
    *3\r\n$3\r\nSET\r\n$1\r\nk\r\n$1\r\nv\r\n

Redis and Valkey write commands without such lines; those are read too, and have no checksum. A file that a crash has
cut short ends in the middle of a batch: :class:`Truncated` tells where. Anything else that cannot be read is
:class:`Damaged`.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from kvserver.protocol.decoder import Command, Decoder, Limits, ProtocolError

if TYPE_CHECKING:
    from mmap import mmap

Data: TypeAlias = "bytes | mmap"

_MARK = b"#CRC:"
_TIME = b"#TS:"  # what Redis notes of the time, if it is told to; nothing else is taken for an annotation
_HEADER = re.compile(rb"#CRC:([0-9a-f]{8}) ([1-9][0-9]{0,17})\r\n")
_LONGEST_LINE = 1024
_MARKS_OF_TRANSACTIONS = (b"MULTI", b"EXEC")  # for Redis and Valkey; what has its checksum is whole anyway
_SECTOR = 512
"""What a disk writes or does not write as a whole, at least."""
_NO_LIMITS = Limits(bulk=1 << 62, command=1 << 62, arguments=1 << 62)
_COUNT = re.compile(rb"\*(0|[1-9][0-9]{0,17})\r\n")
_CUT_NUMBER = re.compile(rb"([*$]([0-9]+\r?)?)?")
_LENGTH = re.compile(rb"\$(0|[1-9][0-9]{0,17})\r\n")


@dataclass
class Unreadable(Exception):  # noqa: N818 - the two kinds of it are what is raised
    """A file cannot be read from a place on.

    Attributes:
        offset: where what is good ends, in bytes from the file's beginning.
        reason: what is wrong, for people.
    """

    offset: int
    reason: str


class Truncated(Unreadable):
    """The file ends in the middle of a batch, as it does after a crash: what came before is whole."""


class Damaged(Unreadable):
    """There is something that no crash leaves behind."""


class Batch(NamedTuple):
    """Commands that come back together or not at all.

    Attributes:
        commands: the commands, without MULTI and EXEC.
        end: where the batch ends in the file.
    """

    commands: list[Command]
    end: int


_LENGTHS = [b"$%d\r\n" % length for length in range(1024)]  # of most words, made once


def encode_command(words: Sequence[bytes]) -> bytes:
    """A command as an array of bulk strings."""
    parts = [b"*%d\r\n" % len(words)]
    for word in words:
        length = len(word)
        parts += (_LENGTHS[length] if length < 1024 else b"$%d\r\n" % length, word, b"\r\n")
    return b"".join(parts)


def encode_batch(commands: Iterable[Sequence[bytes]]) -> bytes:
    """A batch, with its annotation line."""
    return annotated(b"".join(map(encode_command, commands)))


def annotated(body: bytes) -> bytes:
    """Encoded commands, with the annotation line of a batch."""
    return b"%b%08x %d\r\n%b" % (_MARK, zlib.crc32(body), len(body), body)


def read_batches(data: Data) -> Iterator[Batch]:
    """The batches of a file, in order.

    Raises:
        Truncated, Damaged: after the last batch before that place.
    """
    size, position = len(data), 0
    while position < size:
        kind = data[position : position + 1]
        if kind == b"*":
            batch = _read_plain(data, position)
        elif _begins_with(data, position, _MARK):
            batch = _read_checked(data, position)
        elif _begins_with(data, position, _TIME):
            position = _end_of_line(data, position)
            continue
        else:
            raise _bad(data, position, "no command begins here")
        yield batch
        position = batch.end


def _begins_with(data: Data, position: int, word: bytes) -> bool:
    """Whether a word stands at a place, or as much of it as the file has."""
    return data[position : position + len(word)] == word[: len(data) - position]


def _read_checked(data: Data, position: int) -> Batch:
    """A batch with its annotation line."""
    header = _HEADER.match(data[position : position + 64])
    if header is None:
        if len(data) - position < 64 and b"\n" not in data[position:]:
            raise Truncated(position, "the last annotation is cut off")
        raise _bad(data, position, "an annotation cannot be read")
    start = position + header.end()
    end = start + int(header[2])
    body = data[start:end]
    matches = zlib.crc32(body) == int(header[1], 16)
    if end > len(data):
        if matches or _is_followed(data, position):
            raise _bad(data, position, "the length of a batch is wrong")
        raise Truncated(position, "the last batch is cut off")
    if not matches:
        raise _bad(data, position, "a batch does not have its checksum")
    decoder = Decoder(_NO_LIMITS)
    try:
        commands = list(decoder.feed(body))
    except ProtocolError as error:
        raise Damaged(position, f"a batch with the right checksum cannot be read: {error}") from None
    if decoder.pending:
        raise Damaged(position, "a batch with the right checksum ends within a command")
    return Batch([words for words in commands if words[0] not in _MARKS_OF_TRANSACTIONS], end)


def _name(words: Command) -> bytes:
    return words[0].upper()


def _read_plain(data: Data, start: int) -> Batch:
    """A command without checksum; with MULTI, up to its EXEC."""
    words, position = _read_command(data, start, start)
    if _name(words) != b"MULTI":
        return Batch([words], position)
    commands: list[Command] = []
    while True:
        if position >= len(data):
            raise Truncated(start, "the last transaction is cut off")
        if _begins_with(data, position, _TIME):
            position = _end_of_line(data, position)
            continue
        words, position = _read_command(data, position, start)
        if _name(words) == b"EXEC":
            return Batch(commands, position)
        commands.append(words)


def _read_command(data: Data, position: int, start: int) -> tuple[Command, int]:
    """One array of bulk strings, and where it ends. ``start`` is where the batch begins that it belongs to."""
    count, position = _read_number(_COUNT, data, position, start)
    if not count:
        raise _bad(data, start, "a command is empty")
    words = []
    for _ in range(count):
        length, position = _read_number(_LENGTH, data, position, start)
        end = position + length
        if end + 2 > len(data):
            raise Truncated(start, "the last command is cut off")
        if data[end : end + 2] != b"\r\n":
            raise _bad(data, start, "a command is not as long as it says")
        words.append(data[position:end])
        position = end + 2
    return words, position


def _read_number(pattern: re.Pattern[bytes], data: Data, position: int, start: int) -> tuple[int, int]:
    line = data[position : position + 24]
    found = pattern.match(line)
    if found is not None:
        return int(found[1]), position + found.end()
    if len(line) < 24 and _CUT_NUMBER.fullmatch(line):
        raise Truncated(start, "the last command is cut off")
    raise _bad(data, start, "a command cannot be read")


def _end_of_line(data: Data, position: int) -> int:
    """Behind an annotation of another kind, such as a time stamp of Redis."""
    end = data.find(b"\n", position, position + _LONGEST_LINE)
    if end >= 0:
        return end + 1
    if len(data) - position < _LONGEST_LINE:
        raise Truncated(position, "the last annotation is cut off")
    raise _bad(data, position, "an annotation does not end")


def _bad(data: Data, position: int, what: str) -> Unreadable:
    """What to call bytes that make no sense.

    A crash of the machine can leave a tail whose length is there and whose sectors are not: they read as zeros. Only
    the last batch can be so, for what came before it was synced; and what is followed by a whole batch was not the
    last.
    """
    if _has_lost_sector(data, position) and not _is_followed(data, position):
        return Truncated(position, f"the tail was never written: {what}")
    return Damaged(position, what)


def _has_lost_sector(data: Data, position: int) -> bool:
    """Whether there is a sector of zeros behind a place; or a part of one, at the place itself or at the file's end."""
    size = len(data)
    second = min(size, (position // _SECTOR + 1) * _SECTOR)
    last = max(position, (size - 1) // _SECTOR * _SECTOR)
    if not any(data[position:second]) or not any(data[last:size]):
        return True
    zeros = bytes(_SECTOR)
    place = data.find(zeros, second)
    while place >= 0 and place % _SECTOR:
        place = data.find(zeros, (place // _SECTOR + 1) * _SECTOR)
    return place >= 0


def _is_followed(data: Data, position: int) -> bool:
    """Whether a whole batch with its checksum stands somewhere behind a place."""
    place = data.find(_MARK, position + 1)
    while place >= 0:
        header = _HEADER.match(data[place : place + 64])
        if header is not None:
            start = place + header.end()
            end = start + int(header[2])
            if end <= len(data) and zlib.crc32(data[start:end]) == int(header[1], 16):
                return True
        place = data.find(_MARK, place + 1)
    return False
