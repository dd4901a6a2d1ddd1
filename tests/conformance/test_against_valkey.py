"""The same random commands to kvserver and to Valkey, in RESP2 and RESP3: the same bytes come back.

What cannot be the same is listed here (order, clocks, who is asked) or in ``differences.py`` (on purpose). For more
examples than CI runs: ``pytest --hypothesis-profile=explore``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import cast

from conformance.differences import covers
from conformance.generators import batches
from conformance.oracle import Pair, parse
from hypothesis import given, settings
from hypothesis import strategies as st

Reply = bytes
_TOLERANCE_SECONDS = 2


@settings(max_examples=15 * settings.default.max_examples)
@given(commands=batches, protocol=st.sampled_from([2, 3]))
def test_the_same_commands_get_the_same_replies(pair: Pair, commands: list[list[bytes]], protocol: int) -> None:
    compare_replies(pair, commands, protocol)


def compare_replies(pair: Pair, commands: list[list[bytes]], protocol: int) -> None:
    """Run the commands on two empty servers; fails where they answer differently and no reason is listed."""
    start = [[b"RESET"], [b"FLUSHALL"], [b"HELLO", b"%d" % protocol]]
    ours, theirs = (replies[len(start) :] for replies in pair.run(*start, *commands))
    for words, our_reply, their_reply in zip(commands, ours, theirs, strict=True):
        compare = _COMPARED.get(_name(words), _exactly_but_for_differences)
        assert our_reply == their_reply or compare(words, our_reply, their_reply), (words, our_reply, their_reply)


def _name(words: Sequence[bytes]) -> bytes:
    name = words[0].upper()
    return b" ".join((name, words[1].upper())) if name in (b"CLIENT", b"OBJECT", b"COMMAND") and words[1:] else name


Compare = Callable[[Sequence[bytes], Reply, Reply], bool]


def _exactly_but_for_differences(words: Sequence[bytes], _ours: Reply, _theirs: Reply) -> bool:
    return covers(words) is not None


def _sorted(_words: Sequence[bytes], ours: Reply, theirs: Reply) -> bool:
    return _members(ours) == _members(theirs)


def _members(reply: Reply) -> list[bytes] | Reply:
    return reply if reply[:1] == b"-" else sorted(cast("list[bytes]", parse(reply)))


def _walked(words: Sequence[bytes], ours: Reply, theirs: Reply) -> bool:
    """From the start to the end, the same keys; otherwise the two may stop, or go on, at different places."""
    if ours[:1] == b"-" or theirs[:1] == b"-":
        return ours == theirs or covers(words) is not None
    (our_cursor, our_keys), (their_cursor, their_keys) = (
        cast("tuple[bytes, list[bytes]]", parse(r)) for r in (ours, theirs)
    )
    if our_cursor == their_cursor == b"0" and not words[1].strip(b"0"):
        return sorted(our_keys) == sorted(their_keys)
    return len(set(our_keys)) == len(our_keys)


def _some_key(_words: Sequence[bytes], ours: Reply, theirs: Reply) -> bool:
    return isinstance(parse(ours), bytes) and isinstance(parse(theirs), bytes)


def _within(tolerance: int) -> Compare:
    def compare(_words: Sequence[bytes], ours: Reply, theirs: Reply) -> bool:
        mine, real = parse(ours), parse(theirs)
        if not isinstance(mine, int) or not isinstance(real, int) or min(mine, real) < 0:
            return False
        return abs(mine - real) <= tolerance

    return compare


def _whole_number(_words: Sequence[bytes], ours: Reply, theirs: Reply) -> bool:
    return ours[:1] == theirs[:1] == b":"


def _about_the_same_encoding(_words: Sequence[bytes], ours: Reply, theirs: Reply) -> bool:
    """Near the limit the two may differ on purpose; test_strings has the cases that are exact."""
    return {ours, theirs} == {b"$6\r\nembstr\r\n", b"$3\r\nraw\r\n"}


def _clock(_words: Sequence[bytes], ours: Reply, theirs: Reply) -> bool:
    return all(re.fullmatch(rb"\*2\r\n\$10\r\n\d+\r\n\$\d\r\n\d+\r\n", reply) for reply in (ours, theirs))


# multi= is -1 in Valkey only until a connection's first transaction.
_OF_ONE_CLIENT = re.compile(
    rb"\b(id|l?addr|fd|multi|age|idle|qbuf|qbuf-free|argv-mem|rbs|rbp|obl|oll|omem|tot-mem|tot-net-in|tot-net-out|tot-cmds)=\S+"
)


def _client_lines(words: Sequence[bytes], ours: Reply, theirs: Reply) -> bool:
    """The same fields in the same order; those that say who is asked have other values."""
    if b"-" in (ours[:1], theirs[:1]):
        return covers(words) is not None
    if not parse(ours) or not parse(theirs):
        return _asks_by_number(words)
    masked_ours, masked_theirs = (_OF_ONE_CLIENT.sub(rb"\1=", reply.partition(b"\r\n")[2]) for reply in (ours, theirs))
    return ours[:1] == theirs[:1] and (masked_ours == masked_theirs or _asks_by_number(words))


def _asks_by_number(words: Sequence[bytes]) -> bool:
    return any(word.upper() in (b"ID", b"NOT-ID") for word in words)


def _greeting(_words: Sequence[bytes], ours: Reply, theirs: Reply) -> bool:
    """Who answers, and with which modules, is another matter; the rest of HELLO is the same."""
    if b"-" in (ours[:1], theirs[:1]):
        return ours == theirs
    mark = b"$5\r\nproto\r\n"
    own = rb"\$2\r\nid\r\n:\d+\r\n|\$7\r\nmodules\r\n.*"
    ours_rest, theirs_rest = (re.sub(own, b"", reply.partition(mark)[2], flags=re.DOTALL) for reply in (ours, theirs))
    return ours.partition(b"\r\n")[0] == theirs.partition(b"\r\n")[0] and ours_rest == theirs_rest


_COMPARED: dict[bytes, Compare] = {
    b"KEYS": _sorted,
    b"SCAN": _walked,
    b"RANDOMKEY": _some_key,
    b"TTL": _within(_TOLERANCE_SECONDS),
    b"PTTL": _within(_TOLERANCE_SECONDS * 1000),
    b"EXPIRETIME": _within(_TOLERANCE_SECONDS),
    b"PEXPIRETIME": _within(_TOLERANCE_SECONDS * 1000),
    b"OBJECT ENCODING": _about_the_same_encoding,
    b"OBJECT IDLETIME": _whole_number,
    b"TIME": _clock,
    b"LASTSAVE": _whole_number,
    b"CLIENT ID": _whole_number,
    b"CLIENT INFO": _client_lines,
    b"CLIENT LIST": _client_lines,
    b"HELLO": _greeting,
}
