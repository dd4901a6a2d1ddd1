"""Rules: what they mean, against a naive model and against Valkey; and that what is shown makes the same user again."""

from __future__ import annotations

from collections.abc import Sequence

from conformance.oracle import Wire
from hypothesis import given, settings
from hypothesis import strategies as st

import kvserver
from kvserver.access.rules import Needs, Permissions, RuleError, whole_rules
from kvserver.commands.known_scripts import KNOWN, RUNS
from kvserver.commands.needs import CATALOGUE, CATEGORIES, categories
from kvserver.commands.registry import COMMANDS, Command, every

_ENTRIES = {
    each.name: each
    for entry in every()
    for each in (entry, *every(entry.subcommands))
    if not each.subcommands
}  # fmt: skip

_NAMES = [
    "get",
    "set",
    "del",
    "mget",
    "mset",
    "copy",
    "config",
    "config|get",
    "config|set",
    "client|id",
    "ping",
    "publish",
]
_command_rules = st.builds(
    lambda sign, name: (sign + name).encode(),
    st.sampled_from("+-"),
    st.sampled_from([*_NAMES, "@all", "@read", "@write", "@string", "@fast", "@dangerous", "@keyspace", "@hash"]),
)
_key_rules = st.builds(
    lambda flags, pattern: (flags + "~" + pattern).encode(),
    st.sampled_from(["", "%R", "%W", "%RW"]),
    st.sampled_from(["a*", "b*", "ab?", "*c", "x"]),
)
_other_rules = st.sampled_from(
    [
        b"allkeys",
        b"resetkeys",
        b"allchannels",
        b"resetchannels",
        b"&a*",
        b"&b",
        b"db=0,1",
        b"alldbs",
        b"+get|a",
        b"+mget|b",
    ]
)
_selector_rules = st.one_of(_command_rules, _key_rules, _other_rules)
_rules = st.lists(
    st.one_of(
        _selector_rules,
        st.lists(_selector_rules, max_size=4).map(lambda rules: b"(" + b" ".join(rules) + b")"),
        st.sampled_from([b"on", b"off", b"nopass", b">secret", b">other", b"resetpass", b"clearselectors"]),
    ),
    max_size=8,
)


def applied(rules: Sequence[bytes], permissions: Permissions | None = None) -> Permissions:
    """What the rules make, without those that cannot be applied after those before them."""
    permissions = permissions or Permissions()
    for rule in rules:
        try:
            permissions = permissions.changed(rule, CATALOGUE)
        except RuleError:
            continue
    return permissions


@given(_rules)
def test_what_is_shown_makes_the_same_user(rules: list[bytes]) -> None:
    user = applied(rules)
    line = bytes(user)
    again = Permissions()
    for rule in whole_rules(line.split()):
        again = again.changed(rule, CATALOGUE)
    assert again == user
    assert bytes(again) == line


@given(st.lists(_command_rules, max_size=12))
def test_the_last_rule_counts(rules: list[bytes]) -> None:
    """The model keeps a set of commands, and each rule adds to it or takes from it."""
    allowed: set[str] = set()
    for rule in rules:
        name = rule[1:].decode()
        those = {each for each, entry in _ENTRIES.items() if _is_meant(name, entry)}
        allowed = allowed | those if rule[:1] == b"+" else allowed - those
    user = applied(rules)
    assert allowed == {name for name, entry in _ENTRIES.items() if user.root.allows_command(_bare(entry))}


def _is_meant(name: str, entry: Command) -> bool:
    if name.startswith("@"):
        return name == "@all" or name[1:] in categories(entry)
    return name in (entry.name, entry.name.partition("|")[0])


def _bare(entry: Command) -> Needs:
    return Needs(entry.name.encode(), frozenset(name.encode() for name in categories(entry)))


_WORDS = [
    "get a", "get b", "get c", "set a 1", "set ab1 1 get", "set b 1", "del a b", "mget a b", "mget b a", "mset a 1 b 2",
    "copy a b", "copy b a replace db 1", "copy a ab1 db 3", "config get x", "config set x y", "client id", "ping",
    "publish a x", "publish b x", "subscribe a b", "psubscribe a*", "psubscribe a", "ssubscribe c", "select 3",
    "select 1",     "swapdb 0 1", "move a 3", "flushall", "keys *", "exists a x", "strlen b", "append a 1",
    "rename a b", "rename xc x",
    "bitfield a get u8 0", "bitfield a set u8 0 1", "bitop and a b ac", "object encoding a", "expire a 1", "ttl a",
    "getex a", "getex a persist", "getdel ac", "watch a b", "incr a", "setrange a 0 x", "msetex 1 a 1", "delifeq a 1",
    "eval x 1 a", "lcs a b", "memory usage a", "auth a b", "acl whoami", "acl list", "spublish a x", "unsubscribe q",
    "dbsize",
]  # fmt: skip


def test_valkey_allows_the_same(server: kvserver.Server, valkey_port: int) -> None:
    """ACL DRYRUN of the same rules and the same commands, word for word."""
    with Wire(server.port) as ours, Wire(valkey_port) as theirs:

        @settings(max_examples=150)
        @given(_rules, st.lists(st.sampled_from(_WORDS), min_size=1, max_size=12))
        def compare(rules: list[bytes], lines: list[str]) -> None:
            for wire in (ours, theirs):
                wire.ask("ACL", "SETUSER", "someone", "reset")
            for rule in rules:  # one by one, as those that fail change nothing
                assert ours.ask("ACL", "SETUSER", "someone", rule) == theirs.ask("ACL", "SETUSER", "someone", rule)
            assert ours.ask("ACL", "GETUSER", "someone") == theirs.ask("ACL", "GETUSER", "someone")
            for line in lines:
                words = ("ACL", "DRYRUN", "someone", *line.split())
                assert ours.ask(*words) == theirs.ask(*words), line

        compare()
        theirs.ask("ACL", "DELUSER", "someone")


def test_every_script_says_what_it_runs() -> None:
    assert set(KNOWN.values()) == set(RUNS)
    assert all(name.encode() in COMMANDS for names in RUNS.values() for name in names.split())


def test_categories_without_a_command_can_be_named() -> None:
    for name in CATEGORIES:
        applied_rule = Permissions().changed(b"+@" + name.encode(), CATALOGUE)
        assert bytes(applied_rule.root).endswith(name.encode())
