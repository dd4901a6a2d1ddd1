"""Which words of a command are keys, and what may be done with it if they are on several nodes.

The servers say so themselves, in COMMAND INFO: a client that asks them knows every command there is, those of modules
and of Python too, and no table has to be kept. Without input or output: who asks is nodes.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from kvclient.protocol import to_bytes

if TYPE_CHECKING:
    from kvclient.commands.base import Args
    from kvclient.protocol import Reply

Finder: TypeAlias = "Callable[[Sequence[bytes]], Iterable[int]]"
"""Gives the places of keys among the words of a command."""

_NEVER_SPLIT: Final = frozenset({"MSETNX"})
"""Whatever the server says: all or nothing is what it is for."""


@dataclass(frozen=True, slots=True)
class CommandInfo:
    """What a server says of one of its commands.

    Attributes:
        name: in capitals, with its subcommand as in "OBJECT|ENCODING".
        finders: each finds some of its keys.
        simple: its only key is the word after its name.
        request: the tip request_policy: multi_shard, all_shards, all_nodes, special, or empty.
        response: the tip response_policy, such as agg_sum, or empty.
        group: how many words belong to each key, if all words but the name are keys and what belongs to them; or 0.
        subcommands: by their own names, in capitals.
    """

    name: str
    finders: tuple[Finder, ...] = ()
    simple: bool = False
    request: str = ""
    response: str = ""
    group: int = 0
    subcommands: dict[str, CommandInfo] = field(default_factory=dict)

    def of(self, words: Args) -> CommandInfo:
        """The subcommand that the words name, or this."""
        if not self.subcommands or len(words) < 2:
            return self
        return self.subcommands.get(to_bytes(words[1]).upper().decode("utf-8", "replace"), self)

    def keys(self, words: Args) -> list[bytes]:
        """The keys among the words of a command."""
        if self.simple:
            return [to_bytes(words[1])] if len(words) > 1 else []
        if not self.finders:
            return []
        found = [to_bytes(word) for word in words]
        return [found[place] for finder in self.finders for place in finder(found) if place < len(found)]

    @property
    def may_be_split(self) -> bool:
        """Whether parts of it, each with some of the keys, are together as good as the whole."""
        return self.request == "multi_shard" and self.group > 0 and self.name not in _NEVER_SPLIT


def parse_info(row: Reply) -> CommandInfo | None:
    """What an entry of COMMAND INFO says; None if the server does not know the command."""
    match row:
        case [bytes(name), int(), _, int(first), int(last), int(step), _, tips, specs, subcommands, *_]:
            finders = tuple(finder for spec in _items(specs) if (finder := _finder(spec)) is not None)
        case [bytes(name), int(), _, int(first), int(last), int(step), *_]:  # a server of before Redis 7
            tips, specs, subcommands = [], [], []
            finders = (_range(1, last - first if last > 0 else last, step),) if first == 1 else ()
        case _:
            return None
    parsed = [info for each in _items(subcommands) if (info := parse_info(each)) is not None]
    return CommandInfo(
        name.decode("ascii", "replace").upper(),
        finders,
        simple=(first, last) == (1, 1) and len(finders) == 1,
        request=_tip(tips, b"request_policy:"),
        response=_tip(tips, b"response_policy:"),
        group=step if (first == 1 and last < 0 and len(finders) == 1) else 0,
        subcommands={info.name.partition("|")[2]: info for info in parsed},
    )


def _items(reply: object) -> Iterable[Any]:
    return reply if isinstance(reply, list | set | frozenset | tuple) else ()


def _tip(tips: Reply, name: bytes) -> str:
    found = (tip.removeprefix(name) for tip in _items(tips) if isinstance(tip, bytes) and tip.startswith(name))
    return next(found, b"").decode("ascii", "replace")


# ---- key specifications, as COMMAND INFO has them --------------------------------------------------------------------


def _table(reply: object) -> dict[bytes, Any]:
    """A map. In RESP2 it is a list of names and values in turn; within a set, our decoder makes it a tuple of pairs."""
    if isinstance(reply, dict):
        return reply
    parts = list(_items(reply))
    if isinstance(reply, tuple) and all(isinstance(part, tuple) and len(part) == 2 for part in parts):
        return dict(parts)
    return dict(zip(parts[::2], parts[1::2], strict=False))


def _number(table: dict[bytes, Any], name: bytes) -> int:
    value = table.get(name)
    return value if isinstance(value, int) else 0


def _finder(spec: Reply) -> Finder | None:
    """What finds the keys of one specification; None if it does not say where they are."""
    table = _table(spec)
    begin, find = _table(table.get(b"begin_search")), _table(table.get(b"find_keys"))
    where, how = _table(begin.get(b"spec")), _table(find.get(b"spec"))
    start: Callable[[Sequence[bytes]], int]
    match begin.get(b"type"):
        case b"index":
            start = _at(_number(where, b"index"))
        case b"keyword":
            word = where.get(b"keyword")
            start = _after(word if isinstance(word, bytes) else b"", _number(where, b"startfrom"))
        case _:
            return None
    match find.get(b"type"):
        case b"range":
            return _from(start, _number(how, b"lastkey"), _number(how, b"keystep"), _number(how, b"limit"))
        case b"keynum":
            return _counted(
                start, _number(how, b"keynumidx"), _number(how, b"firstkey"), max(1, _number(how, b"keystep"))
            )
    return None


def _at(index: int) -> Callable[[Sequence[bytes]], int]:
    return lambda words: index if index >= 0 else len(words) + index


def _after(keyword: bytes, start: int) -> Callable[[Sequence[bytes]], int]:
    def find(words: Sequence[bytes]) -> int:
        places = range(start, len(words)) if start >= 0 else range(len(words) + start, -1, -1)
        return next((place + 1 for place in places if words[place].upper() == keyword.upper()), len(words))

    return find


def _range(first: int, last: int, step: int) -> Finder:
    return _from(_at(first), last, step, 0)


def _from(start: Callable[[Sequence[bytes]], int], last: int, step: int, limit: int) -> Finder:
    """Keys from a place to another: so far on, or so far from the end, where `limit` may cut the rest into parts."""

    def find(words: Sequence[bytes]) -> Iterator[int]:
        first = start(words)
        if last >= 0:
            end = first + last
        elif limit <= 1:
            end = len(words) + last
        else:
            end = first + (len(words) - first) // limit + last
        yield from range(first, end + 1, max(1, step))

    return find


def _counted(start: Callable[[Sequence[bytes]], int], number: int, first: int, step: int) -> Finder:
    """As many keys as one of the words says."""

    def find(words: Sequence[bytes]) -> Iterator[int]:
        begin = start(words)
        place = begin + number
        count = int(words[place]) if place < len(words) and words[place].isdigit() and len(words[place]) < 8 else 0
        yield from range(begin + first, min(begin + first + count * step, len(words)), step)

    return find
