"""A command's syntax line as COMMAND DOCS tells it to programs: written back as a line, it is the same line."""

from __future__ import annotations

import re
from typing import Any, cast

import pytest

from kvserver.commands import COMMANDS
from kvserver.commands.registry import Command, every
from kvserver.commands.syntax import parse_syntax

_COMMANDS = [entry for each in every(COMMANDS) for entry in (each, *every(each.subcommands))]


def _written(argument: dict[bytes, Any]) -> str:
    """One argument in the notation of the syntax line."""
    kind, flags = argument[b"type"], argument.get(b"flags", [])
    if kind in (b"oneof", b"block"):
        text = (" | " if kind == b"oneof" else " ").join(map(_written, argument[b"arguments"]))
    else:
        text = "" if kind == b"pure-token" else argument[b"name"].decode()
    token = argument.get(b"token", b"").decode()
    if b"multiple_token" in flags:
        text, token = f"{token} {text} [{token} {text} ...]", ""
    elif b"multiple" in flags:
        text = f"{text} [{text} ...]"
    if kind == b"oneof" and (token or b"optional" not in flags):
        text = f"<{text}>"
    text = f"{token} {text}".strip()
    return f"[{text}]" if b"optional" in flags else text


@pytest.mark.parametrize("entry", _COMMANDS, ids=lambda entry: entry.name)
def test_every_syntax_line_survives_the_way_there_and_back(entry: Command) -> None:
    # "[x ...]" and "[x] ..." are shorter ways to write "[x [x ...]]".
    line = entry.syntax.replace("[argument ...]", "[argument [argument ...]]")
    line = re.sub(r"\[([^]].*)\] \.\.\.$", r"[\1 [\1 ...]]", line)
    assert " ".join(map(_written, _parsed(entry.syntax))) == line


def test_words_that_repeat_together_are_one_block() -> None:
    (pairs,) = _parsed("key value [key value ...]")
    assert pairs[b"type"] == b"block"
    assert pairs[b"flags"] == [b"multiple"]
    assert [part[b"name"] for part in pairs[b"arguments"]] == [b"key", b"value"]


def test_a_repeated_word_keeps_its_token() -> None:
    (ids,) = _parsed("[ID client-id [client-id ...]]")
    assert (ids[b"token"], ids[b"name"], ids[b"type"]) == (b"ID", b"client-id", b"integer")
    assert set(ids[b"flags"]) == {b"optional", b"multiple"}


def test_alternatives_may_hold_several_words() -> None:
    (choice,) = _parsed("<ip:port | filter value [filter value ...]>")
    assert choice[b"type"] == b"oneof"
    address, filters = choice[b"arguments"]
    assert address[b"name"] == b"ip:port"
    assert filters[b"flags"] == [b"multiple"]


def _parsed(line: str) -> list[dict[bytes, Any]]:
    return cast("list[dict[bytes, Any]]", parse_syntax(line))
