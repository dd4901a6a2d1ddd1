"""HELP for commands that only hold subcommands. It is made from the table of commands when it is asked for."""

from __future__ import annotations

from collections.abc import Callable

from kvserver.commands.registry import COMMANDS, Flags, Group, Runs, command, every
from kvserver.protocol.replies import Reply, SimpleString
from kvserver.session import Session


def add_help(
    container: str,
    *,
    group: Group,
    since: str,
    extra: tuple[str, ...] = (),
    check: Callable[[Session], object] = lambda _: None,
) -> None:
    """Give a container command, just registered, its HELP: an array of lines, as redis-cli and people expect it.

    Args:
        container: its name, in upper case.
        group: the family.
        since: the version of Redis that brought it.
        extra: access categories.
        check: called before; what it raises is the reply.
    """

    @command(
        f"{container}|HELP",
        "",
        group=group,
        runs=Runs.ON_SESSION,
        arity=2,
        flags=Flags.LOADING | Flags.STALE,
        since=since,
        categories=extra,
    )
    def help_lines(session: Session) -> Reply:
        """Explains the subcommands."""
        check(session)
        lines = [f"{container} <subcommand> [<arg> [value] [opt] ...]. Subcommands are:"]
        for entry in every(COMMANDS[container.encode("ascii")].subcommands):
            lines += [
                f"{entry.name.partition('|')[2].upper()} {entry.syntax}".rstrip(),
                f"    {entry.summary}",
            ]
        return [SimpleString(line.encode("ascii")) for line in lines]
