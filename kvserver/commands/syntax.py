"""A command's syntax line to the ``arguments`` of COMMAND DOCS, from which redis-cli completes and hints.

The notation is that of the command documentation: ``name`` a value, ``NAME`` a literal word, ``[...]`` optional,
``<a | b>`` and ``[a | b]`` alternatives, ``x [x ...]`` one or more, ``[x ...]`` any number. So a line like
``key seconds [NX | XX]`` is written once and read by people and programs.
"""

from __future__ import annotations

import re

from kvserver.protocol.replies import Reply, Set, SimpleString

_TOKEN = re.compile(r"\.\.\.|[\[\]<>|]|[^\s\[\]<>|]+")
_TYPES = {
    "key": "key", "newkey": "key", "key1": "key", "key2": "key", "source": "key", "destination": "key",
    "pattern": "pattern", "seconds": "integer", "milliseconds": "integer", "unix-time-seconds": "unix-time",
    "unix-time-milliseconds": "unix-time", "count": "integer", "cursor": "integer", "start": "integer",
    "end": "integer", "offset": "integer", "decrement": "integer", "index": "integer", "index1": "integer",
    "index2": "integer", "db": "integer", "destination-db": "integer", "numreplicas": "integer", "timeout": "integer",
    "min-match-len": "integer", "client-id": "integer", "protover": "integer", "bit": "integer", "number": "integer",
    "destkey": "key", "srckey": "key", "numkeys": "integer", "bits": "integer", "numlocal": "integer",
    "slot": "integer",
}  # fmt: skip
_SECOND_KEYS = ("newkey", "destination", "srckey")  # those that the command's second key specification is about

_Argument = dict[bytes, Reply]


def parse_syntax(text: str) -> Reply:
    """The ``arguments`` of COMMAND DOCS for a syntax line."""
    parsed: list[Reply] = []
    parsed += _Parser(_TOKEN.findall(text)).sequence(end=None)
    return parsed


class _Parser:
    """Recursive descent over the few tokens of a line that is our own."""

    def __init__(self, tokens: list[str]) -> None:
        self._tokens = tokens
        self._position = 0

    def _peek(self) -> str | None:
        return self._tokens[self._position] if self._position < len(self._tokens) else None

    def _next(self) -> str:
        self._position += 1
        return self._tokens[self._position - 1]

    def sequence(self, end: str | None) -> list[_Argument]:
        """Arguments up to ``end`` or an alternative's bar; ``a b [a b ...]`` makes one repeatable block of a and b."""
        arguments: list[_Argument] = []
        while (token := self._peek()) is not None and token not in (end, "|"):
            self._next()
            if token == "...":
                _flag(arguments[-1], "multiple")
            elif token == "[" and (repeats := self._repetition(arguments)) is not None:
                size, with_token = repeats
                arguments[-size:] = [_repeated(arguments[-size:], with_token=with_token)]
            elif token in ("[", "<"):
                argument = self._choice("]" if token == "[" else ">")
                if token == "[":
                    _flag(argument, "optional")
                arguments.append(argument)
            else:
                arguments.append(self._word(token))
        return arguments

    def _repetition(self, before: list[_Argument]) -> tuple[int, bool] | None:
        """How many of the arguments ``before`` the bracket just opened repeats, and whether their literal with them.

        Passes over the bracket then; None if it repeats nothing.
        """
        names = self._tokens[self._position : self._tokens.index("]", self._position)]
        plain = [name for name in names[:-1] if not name.isupper()]
        size = len(plain)
        if names[-1] != "..." or [argument[b"name"] for argument in before[-size:]] != _encoded(plain):
            return None
        self._position += len(names) + 1
        return size, names[0].isupper()

    def _word(self, token: str) -> _Argument:
        """A value, or a literal with the value that follows it."""
        if not token.isupper():
            return _value(token)
        following = self._peek()
        if following == "<":
            self._next()
            return {**self._choice(">"), b"token": token.encode("ascii")}
        if following is None or following in ("]", ">", "|", "[") or following.isupper():
            return _argument(token.lower(), "pure-token", token)
        return _value(self._next(), token)

    def _choice(self, end: str) -> _Argument:
        """What stands between brackets: one argument, a block of several, or alternatives."""
        alternatives = [self.sequence(end)]
        while self._peek() == "|":
            self._next()
            alternatives.append(self.sequence(end))
        self._next()
        if len(alternatives) == 1:
            return alternatives[0][0] if len(alternatives[0]) == 1 else _group("block", alternatives[0])
        return _group("oneof", [one[0] if len(one) == 1 else _group("block", one) for one in alternatives])


def _encoded(words: list[str]) -> list[bytes]:
    return [word.encode("ascii") for word in words]


def _argument(name: str, kind: str, token: str | None = None) -> _Argument:
    argument: _Argument = {b"name": name.encode("ascii"), b"type": kind.encode("ascii")}
    argument[b"display_text"] = argument[b"name"]
    if kind == "key":
        argument[b"key_spec_index"] = int(name in _SECOND_KEYS)
    if token is not None:
        argument[b"token"] = token.encode("ascii")
    return argument


def _value(name: str, token: str | None = None) -> _Argument:
    return _argument(name, _TYPES.get(name, "string"), token)


def _group(kind: str, members: list[_Argument]) -> _Argument:
    nested: list[Reply] = []
    nested += members
    name = b"-".join(bytes(member[b"name"]) for member in members if isinstance(member[b"name"], bytes))
    group: _Argument = {b"name": name, b"type": kind.encode("ascii"), b"arguments": nested}
    if kind == "block" and b"token" in members[0] and members[0][b"type"] not in (b"pure-token", b"oneof"):
        group[b"token"] = members[0].pop(b"token")  # the literal that a block begins with is the block's
    return group


def _repeated(members: list[_Argument], *, with_token: bool) -> _Argument:
    """What may come several times: one argument, or a block; with the literal before it each time, or only once."""
    repeated = members[0] if len(members) == 1 else _group("block", members)
    _flag(repeated, "multiple")
    if with_token:
        _flag(repeated, "multiple_token")
    return repeated


def _flag(argument: _Argument, flag: str) -> None:
    flags = argument.setdefault(b"flags", Set())
    assert isinstance(flags, Set)
    flags.append(SimpleString(flag.encode("ascii")))
