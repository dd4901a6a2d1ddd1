"""LCS: the longest common subsequence of two values.

The lengths are found a row at a time with one big integer a row (bit-parallel dynamic programming, Crochemore et al.
2001): a clear bit in a row's integer marks a column where the row's length grows by one. Those rows are all that the
way back needs, at one bit a cell where a table of numbers takes four bytes.
"""

from __future__ import annotations

from dataclasses import dataclass

from kvserver import errors
from kvserver.commands.arguments import integer
from kvserver.commands.registry import Flags, Group, Keys, command
from kvserver.protocol.replies import Deferred, Error, Reply
from kvserver.store.memory import Database

_Range = tuple[int, int]


@dataclass(slots=True)
class _Options:
    length: bool = False
    indexes: bool = False
    minimum: int = 0
    with_length: bool = False


@command(
    "LCS",
    "key1 key2 [LEN] [IDX] [MINMATCHLEN min-match-len] [WITHMATCHLEN]",
    group=Group.STRING,
    arity=-3,
    flags=Flags.READONLY,
    keys=Keys(1, 2, 1, "RO access"),
    since="7.0.0",
    complexity="O(N*M), N and M the lengths of the values",
)
def lcs(db: Database, key1: bytes, key2: bytes, *words: bytes) -> Deferred:
    """Finds the longest common subsequence of two values: the text, its length, or where it lies."""
    options = _parse(words)
    first, second = db.get(key1) or b"", db.get(key2) or b""
    # The values cannot change any more, so the long part is done without the lock.
    return lambda: _answer(first, second, options)


def _parse(words: tuple[bytes, ...]) -> _Options:
    options = _Options()
    rest = iter(words)
    for word in rest:
        match word.upper():
            case b"IDX":
                options.indexes = True
            case b"LEN":
                options.length = True
            case b"WITHMATCHLEN":
                options.with_length = True
            case b"MINMATCHLEN" if (number := next(rest, None)) is not None:
                options.minimum = max(0, integer(number))
            case _:
                raise Error(errors.SYNTAX)
    if options.indexes and options.length:
        raise Error(errors.LCS_LEN_AND_IDX)
    return options


def _answer(first: bytes, second: bytes, options: _Options) -> Reply:
    rows = _rows(first, second, keep=not options.length)
    if options.length:
        return _length(rows[-1], len(second))
    positions = _way_back(first, second, rows)
    if not options.indexes:
        return bytes(first[i] for i, _ in positions)
    matches: list[Reply] = []
    for (i, j), size in _runs(positions):
        if size >= options.minimum:
            match: list[Reply] = [[i, i + size - 1], [j, j + size - 1]]
            matches.append([*match, size] if options.with_length else match)
    return {b"matches": matches, b"len": len(positions)}


def _rows(first: bytes, second: bytes, *, keep: bool) -> list[int]:
    """Row i: the columns where the length for ``first[:i]`` does not grow. Only the last row unless ``keep``."""
    width = len(second)
    full = (1 << width) - 1
    where = dict.fromkeys(range(256), 0)
    for column, byte in enumerate(second):
        where[byte] |= 1 << column
    row = full
    rows = [row]
    for byte in first:
        common = row & where[byte]
        row = ((row + common) | (row - common)) & full
        if keep:
            rows.append(row)
    return rows if keep else [row]


def _length(row: int, width: int) -> int:
    return width - row.bit_count()


def _way_back(first: bytes, second: bytes, rows: list[int]) -> list[_Range]:
    """The places of the common bytes, in order, chosen as Redis chooses among equals: up before left."""
    size = len(second) // 8 + 1
    positions: list[_Range] = []
    i, j = len(first), len(second)
    row = rows[i].to_bytes(size, "little")
    while i and j:
        if first[i - 1] == second[j - 1]:
            positions.append((i - 1, j - 1))
            i, j = i - 1, j - 1
        elif row[(j - 1) >> 3] >> ((j - 1) & 7) & 1:  # the length does not grow in this column
            j -= 1
            continue
        else:
            i -= 1
        row = rows[i].to_bytes(size, "little")
    positions.reverse()
    return positions


def _runs(positions: list[_Range]) -> list[tuple[_Range, int]]:
    """Maximal stretches that are contiguous in both values, last first, each with its size."""
    runs: list[tuple[_Range, int]] = []
    for i, j in reversed(positions):
        if runs and runs[-1][0] == (i + 1, j + 1):
            runs[-1] = ((i, j), runs[-1][1] + 1)
        else:
            runs.append(((i, j), 1))
    return runs
