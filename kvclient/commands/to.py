"""Converters: from a reply as the protocol gives it to the one type a command's method returns.

Each takes a reply that is not a top-level error, in the shape of RESP2 or RESP3, and raises ProtocolError for
any other type: a server that answers GET with a number has lost its place, and so have we.

Not here: what is sent.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Generic, NamedTuple, TypeVar

from kvclient.errors import ProtocolError

if TYPE_CHECKING:
    from collections.abc import Callable

    from kvclient.protocol import Reply

X = TypeVar("X")


def unexpected(reply: Reply, wanted: str) -> ProtocolError:
    """The error for a reply of the wrong type. It names types and not values, which may be secret."""
    return ProtocolError(
        f"the server answered with {type(reply).__name__} where {wanted} belongs: is it a Redis-like server?"
    )


def anything(reply: Reply) -> Reply:
    """The reply itself."""
    return reply


def blob(reply: Reply) -> bytes:
    """A string that is always there."""
    if isinstance(reply, bytes):
        return reply
    raise unexpected(reply, "a string")


def blob_or_none(reply: Reply) -> bytes | None:
    """A string, or None for null."""
    if reply is None or isinstance(reply, bytes):
        return reply
    raise unexpected(reply, "a string or null")


class One(Generic[X]):
    """A value, unpacked by the serializer, or None for null."""

    plain = staticmethod(blob_or_none)  # the same for bytes as they are

    def __call__(self, reply: Reply, unpack: Callable[[bytes], X]) -> X | None:
        """The result of a reply."""
        return None if reply is None else unpack(blob(reply))


class Many(Generic[X]):
    """An array of values, unpacked by the serializer, and nulls."""

    @staticmethod
    def plain(reply: Reply) -> list[bytes | None]:
        """The same for bytes as they are."""
        return blobs_or_none(reply)

    def __call__(self, reply: Reply, unpack: Callable[[bytes], X]) -> list[X | None]:
        """The result of a reply."""
        return [None if item is None else unpack(blob(item)) for item in array(reply)]


def text(reply: Reply) -> str:
    """Text for people; an array of lines becomes one text."""
    if isinstance(reply, list):
        return "\n".join(map(text, reply))
    return blob(reply).decode("utf-8", "replace")


def integer(reply: Reply) -> int:
    """A whole number."""
    if type(reply) is int:
        return reply
    raise unexpected(reply, "an integer")


def integer_or_none(reply: Reply) -> int | None:
    """A whole number, or None for null."""
    return None if reply is None else integer(reply)


def integers_or_none(reply: Reply) -> list[int | None]:
    """An array of whole numbers and nulls."""
    return [integer_or_none(item) for item in array(reply)]


def pair_of_integers(reply: Reply) -> tuple[int, int]:
    """An array of two whole numbers."""
    numbers = [integer(item) for item in array(reply)]
    if len(numbers) != 2:
        raise unexpected(reply, "two integers")
    return numbers[0], numbers[1]


def real(reply: Reply) -> float:
    """A number: a double in RESP3, digits in RESP2."""
    if isinstance(reply, float):
        return reply
    try:
        return float(blob(reply))
    except ValueError:
        raise unexpected(reply, "a number") from None


def flag(reply: Reply) -> bool:
    """True for 1, False for 0."""
    number = integer(reply)
    if number not in {0, 1}:
        raise unexpected(reply, "0 or 1")
    return number == 1


def flags(reply: Reply) -> list[bool]:
    """An array of 1 and 0."""
    return [flag(item) for item in array(reply)]


class LogEntry(NamedTuple):
    """A command that took long or was large."""

    number: int
    time: int  # Unix seconds
    amount: int  # microseconds, or bytes
    words: list[bytes]  # shortened where they are long
    address: str
    name: str


def log_entries(reply: Reply) -> list[LogEntry]:
    """An array of entries of SLOWLOG or COMMANDLOG."""
    entries = []
    for item in array(reply):
        number, time, amount, command, address, name = array(item)
        entries.append(
            LogEntry(integer(number), integer(time), integer(amount), blobs(command), text(address), text(name))
        )
    return entries


def done(reply: Reply) -> None:
    """Nothing, of a command that answers OK or an error."""
    if reply != b"OK":
        raise unexpected(reply, "OK")


def done_or_not(reply: Reply) -> bool:
    """True for OK, False for null: the command's condition did not hold."""
    if reply is None:
        return False
    done(reply)
    return True


def array(reply: Reply) -> list[Reply]:
    """An array of any replies."""
    if isinstance(reply, list):
        return reply
    raise unexpected(reply, "an array")


def blobs(reply: Reply) -> list[bytes]:
    """An array of strings."""
    if isinstance(reply, set):
        return [blob(item) for item in reply]
    return [blob(item) for item in array(reply)]


def blobs_or_none(reply: Reply) -> list[bytes | None]:
    """An array of strings and nulls."""
    return [blob_or_none(item) for item in array(reply)]


def counts(reply: Reply) -> dict[bytes, int]:
    """An array of names and whole numbers in turn, in both protocols."""
    flat = array(reply)
    return {blob(name): integer(count) for name, count in zip(flat[::2], flat[1::2], strict=True)}


def table(reply: Reply) -> dict[bytes, Reply]:
    """A map: itself in RESP3, an array of keys and values in turn in RESP2."""
    if isinstance(reply, dict):
        return {blob(key): value for key, value in reply.items()}
    flat = array(reply)
    if len(flat) % 2:
        raise unexpected(reply, "an array of pairs")
    return {blob(key): value for key, value in zip(flat[::2], flat[1::2], strict=True)}


def table_or_none(reply: Reply) -> dict[bytes, Reply] | None:
    """A map, or None for null."""
    return None if reply is None else table(reply)


def tables(reply: Reply) -> list[dict[bytes, Reply]]:
    """An array of maps."""
    return [table(item) for item in array(reply)]


def settings(reply: Reply) -> dict[str, str]:
    """A map from names to values, both text."""
    return {text(key): text(value) for key, value in table(reply).items()}


def info(reply: Reply) -> dict[str, str]:
    """The fields of INFO; its section headings are dropped."""
    lines = (line for line in text(reply).splitlines() if line and not line.startswith("#"))
    return {name: value for name, _, value in (line.partition(":") for line in lines)}


def client_line(reply: Reply) -> dict[str, str]:
    """One client's fields, of CLIENT INFO."""
    return {name: value for name, _, value in (field.partition("=") for field in text(reply).split())}


def client_lines(reply: Reply) -> list[dict[str, str]]:
    """Each client's fields, of CLIENT LIST."""
    return [client_line(line) for line in blob(reply).splitlines()]


def clock(reply: Reply) -> tuple[int, int]:
    """Seconds since 1970 and microseconds, of TIME."""
    parts = [int(blob(part)) for part in array(reply) if blob(part).isdigit()]
    if len(parts) != 2:
        raise unexpected(reply, "two numbers")
    return (parts[0], parts[1])


class ScanPage(NamedTuple):
    """One page of a SCAN.

    Attributes:
        cursor: what to pass for the next page; 0 says that this was the last.
        keys: the page's keys; a page may be empty and not the last.
    """

    cursor: int
    keys: list[bytes]


def scan_page(reply: Reply) -> ScanPage:
    """A page of SCAN."""
    parts = array(reply)
    if len(parts) != 2 or not blob(parts[0]).isdigit():
        raise unexpected(reply, "a cursor and keys")
    return ScanPage(int(blob(parts[0])), blobs(parts[1]))


@dataclasses.dataclass(frozen=True, slots=True)
class LcsMatch:
    """A stretch that two values have in common.

    Attributes:
        first: its first and last byte's index in the first value.
        second: the same in the second value.
        length: its length, if that was asked for.
    """

    first: tuple[int, int]
    second: tuple[int, int]
    length: int | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class LcsMatches:
    """Where two values agree.

    Attributes:
        matches: the stretches in common, the last first.
        length: of the longest common subsequence.
    """

    matches: list[LcsMatch]
    length: int


def _span(reply: Reply) -> tuple[int, int]:
    ends = [integer(end) for end in array(reply)]
    if len(ends) != 2:
        raise unexpected(reply, "two indices")
    return (ends[0], ends[1])


def lcs_matches(reply: Reply) -> LcsMatches:
    """The matches of LCS with IDX."""
    fields = table(reply)
    matches = []
    for item in array(fields.get(b"matches")):
        parts = array(item)
        if len(parts) not in {2, 3}:
            raise unexpected(item, "a match")
        length = integer(parts[2]) if len(parts) == 3 else None
        matches.append(LcsMatch(_span(parts[0]), _span(parts[1]), length))
    return LcsMatches(matches, integer(fields.get(b"len")))


class ClusterTrouble(NamedTuple):
    """Calls of one command that would break in a cluster, all for the same reason."""

    reason: str
    command: str  # in lower case
    calls: int
    example: list[bytes]  # the command with its keys, without its values


class ClusterReport(NamedTuple):
    """What would break in a cluster.

    Attributes:
        mode: what the server does with such calls: "report" or "emulated".
        calls: how many there were.
        left_out: how many of them are of kinds that found no room in the report.
        troubles: the kinds, that with the most calls first.
    """

    mode: str
    calls: int
    left_out: int
    troubles: list[ClusterTrouble]


def cluster_report(reply: Reply) -> ClusterReport:
    """The report of KV.CLUSTER REPORT."""
    fields = table(reply)
    troubles = [
        ClusterTrouble(
            text(kind.get(b"reason")), text(kind.get(b"command")), integer(kind.get(b"calls")),
            blobs(kind.get(b"example")),
        )
        for kind in tables(fields.get(b"troubles"))
    ]  # fmt: skip
    return ClusterReport(
        text(fields.get(b"mode")), integer(fields.get(b"calls")), integer(fields.get(b"left-out")), troubles
    )
