"""A command is in four places: its handler, its entry in protocol.md, its method in the client, and its tests.

The first three name the same commands, with the same syntax and complexity. (Tests of each are what coverage shows.)
"""

from __future__ import annotations

import re
from pathlib import Path

from kvclient.commands import COMMAND_NAMES, CONNECTION_COMMANDS
from kvserver.commands import COMMANDS
from kvserver.commands.registry import Command, every

_PAGE = (Path(__file__).parents[2] / "protocol.md").read_text(encoding="utf-8")
_REGISTERED = {entry.name.upper(): entry for each in every(COMMANDS) for entry in (each, *every(each.subcommands))}


def _spoken(entry: Command) -> str:
    return entry.name.replace("|", " ").upper()


def _cannot_run(entry: Command) -> bool:
    """Whether it only holds subcommands, and is no command without one."""
    return bool(entry.subcommands) and entry.minimum > 1


def test_protocol_md_has_every_command_with_its_syntax_and_complexity() -> None:
    told = {
        name: (syntax, complexity)
        for name, syntax, complexity in re.findall(
            r"^### (.+)\n\n`(.*)`\n(?:.*\n)*?- Complexity: (.*)\n", _PAGE, re.MULTILINE
        )
        if name == name.upper()
    }
    assert told == {
        _spoken(entry): (f"{_spoken(entry)} {entry.syntax}".strip(), entry.complexity) for entry in _REGISTERED.values()
    }


def test_the_client_handles_every_command() -> None:
    # DEBUG has no subcommands in the server's table, which takes them as arguments, as Redis' does.
    handled = {"DEBUG" if name.startswith("DEBUG|") else name for name in COMMAND_NAMES | set(CONNECTION_COMMANDS)}
    assert handled == {name for name, entry in _REGISTERED.items() if not _cannot_run(entry)}


def test_a_command_has_a_method_or_a_reason_for_none() -> None:
    assert not COMMAND_NAMES & set(CONNECTION_COMMANDS)
    assert all(CONNECTION_COMMANDS.values())
