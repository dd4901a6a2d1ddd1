"""What COMMAND tells about our commands is what Valkey tells about its own; clients route and complete by it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, cast

import pytest
from conformance.oracle import Wire, parse

import kvserver
from kvserver.commands.registry import COMMANDS, Command, every

_ALL = [entry for each in every() for entry in (each, *every(each.subcommands))]
_OURS_ALONE = {"help", "delex", "digest", "hotkeys", "increx"}
_UNKNOWN_THERE = {
    entry.name.encode() for entry in _ALL if entry.name.startswith("kv.") or entry.name.partition("|")[0] in _OURS_ALONE
}
_DESCRIBED_OTHERWISE = {
    "client|kill",  # "filter value" stands for two dozen filters
    "client|list",
    "debug",  # Valkey describes none of its arguments
    "incrby",  # its argument has the name of INCRBYFLOAT's, and goes by the wider type
    "incrbyfloat",
    "lolwut",
    "set",  # it has Redis' conditions too
    "shutdown",  # there is no failover here
}
each_command = pytest.mark.parametrize(
    "entry", [e for e in _ALL if e.name.encode() not in _UNKNOWN_THERE], ids=lambda e: e.name
)
each_protocol = pytest.mark.parametrize("protocol", [2, 3])


@pytest.fixture(scope="module")
def ours() -> Iterator[Wire]:
    with kvserver.Server(port=0) as server, Wire(server.port) as wire:
        yield wire


@pytest.fixture(scope="module")
def theirs(valkey_port: int) -> Iterator[Wire]:
    with Wire(valkey_port) as wire:
        yield wire


def _info(wire: Wire, protocol: int, name: str) -> bytes:
    """The raw entry, without the notes on keys (prose, of which we have none) and without subcommands."""
    wire.ask("HELLO", protocol)
    raw = re.sub(
        rb"[%*]\d\r\n\$5\r\nnotes\r\n\$\d+\r\n[^\r]*\r\n",
        b"*6\r\n" if protocol == 2 else b"%3\r\n",
        wire.ask("COMMAND", "INFO", name),
    )
    entry = re.fullmatch(rb"(\*1\r\n\*10\r\n.*?)\*\d+\r\n(\*10\r\n.*)?", raw, re.DOTALL)
    assert entry is not None, raw
    return entry[1]


@each_protocol
@each_command
def test_info(ours: Wire, theirs: Wire, entry: Command, protocol: int) -> None:
    assert _info(ours, protocol, entry.name) == _info(theirs, protocol, entry.name)


def _docs(wire: Wire, name: str) -> dict[bytes, Any]:
    wire.ask("HELLO", 3)
    return cast("dict[bytes, Any]", parse(wire.ask("COMMAND", "DOCS", name)))[name.encode("ascii")]


def _shape(arguments: list[dict[bytes, Any]]) -> list[object]:
    """What programs go by: types, literal words, key positions, flags; not the names, which are for people."""
    return [
        (
            argument[b"type"],
            argument.get(b"token"),
            argument.get(b"key_spec_index"),
            sorted(map(str, argument.get(b"flags", []))),
            b"display_text" in argument,
            _shape(argument.get(b"arguments", [])),
        )
        for argument in arguments
    ]


@each_command
def test_docs(ours: Wire, theirs: Wire, entry: Command) -> None:
    our_docs, their_docs = _docs(ours, entry.name), _docs(theirs, entry.name)
    for field in (b"since", b"group"):
        assert our_docs[field] == their_docs[field]
    assert our_docs[b"summary"]
    assert our_docs[b"complexity"].startswith(b"O(")
    assert set(our_docs) <= set(their_docs) | {b"complexity", b"arguments"}
    if entry.name not in _DESCRIBED_OTHERWISE:
        assert _shape(our_docs.get(b"arguments", [])) == _shape(their_docs.get(b"arguments", []))
    else:
        assert _shape(our_docs.get(b"arguments", [])) != _shape(their_docs.get(b"arguments", []))


def test_docs_of_everything_are_those_of_each(ours: Wire) -> None:
    ours.ask("HELLO", 3)
    everything = cast("dict[bytes, Any]", parse(ours.ask("COMMAND", "DOCS")))
    assert set(everything) == {entry.name.encode("ascii") for entry in every()}
    assert everything[b"get"] == _docs(ours, "get")


def test_one_argument_in_resp3_bytes(ours: Wire, theirs: Wire) -> None:
    """Sets, maps and arrays are where Valkey has them; a field's place in a map is not part of its meaning."""
    for wire in (ours, theirs):
        wire.ask("HELLO", 3)
        raw = wire.ask("COMMAND", "DOCS", "getex")
        assert b"$9\r\narguments\r\n*2\r\n%4\r\n" in raw
        assert b"$5\r\nflags\r\n~1\r\n+optional\r\n" in raw


_SAMPLE_ARGUMENTS = ["a", "b", "c", "d", "e"]


@each_command
def test_getkeys(ours: Wire, theirs: Wire, entry: Command) -> None:
    """With too few, enough and too many arguments, and what is done to each key."""
    words = entry.name.split("|")
    for count in range(len(_SAMPLE_ARGUMENTS) + 1):
        for subcommand in ("GETKEYS", "GETKEYSANDFLAGS"):
            asked = ("COMMAND", subcommand, *words, *_SAMPLE_ARGUMENTS[:count])
            for protocol in (2, 3):
                ours.ask("HELLO", protocol)
                theirs.ask("HELLO", protocol)
                assert ours.ask(*asked) == theirs.ask(*asked)


@pytest.mark.parametrize("category", ["string", "keyspace", "connection", "fast", "slow", "read", "write", "dangerous"])
def test_list_by_category(ours: Wire, theirs: Wire, category: str) -> None:
    our_names, their_names = (
        set(cast("list[bytes]", parse(wire.ask("COMMAND", "LIST", "FILTERBY", "ACLCAT", category))))
        for wire in (ours, theirs)
    )
    assert our_names - _UNKNOWN_THERE == their_names & ({entry.name.encode() for entry in _ALL} - _UNKNOWN_THERE)


@pytest.mark.parametrize("pattern", ["*", "get*", "GET*", "object|*", "[a-c]*", "?e*t", "client|?e*"])
def test_list_by_pattern(ours: Wire, theirs: Wire, pattern: str) -> None:
    our_names, their_names = (
        set(cast("list[bytes]", parse(wire.ask("COMMAND", "LIST", "FILTERBY", "PATTERN", pattern))))
        for wire in (ours, theirs)
    )
    assert our_names - _UNKNOWN_THERE == their_names & ({entry.name.encode() for entry in _ALL} - _UNKNOWN_THERE)


def test_count_and_list_and_info_agree(ours: Wire) -> None:
    names = cast("list[bytes]", parse(ours.ask("COMMAND", "LIST")))
    assert len(set(names)) == len(names)
    whole = [name for name in names if b"|" not in name]  # the list alone names subcommands
    assert len(whole) == len({entry.name for entry in COMMANDS.values()})
    assert parse(ours.ask("COMMAND", "COUNT")) == len(whole)
    assert [entry[0] for entry in cast("list[list[bytes]]", parse(ours.ask("COMMAND")))] == whole
    assert ours.ask("COMMAND") == ours.ask("COMMAND", "INFO")
