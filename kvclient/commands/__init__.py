"""The typed commands, each defined once, by family. Which sort of client runs them is base.py's subject.

Not here: sockets, and anything that runs. COMMAND_NAMES and CONNECTION_COMMANDS together are the server
commands this library handles.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from kvclient.commands.access import AccessCommands
from kvclient.commands.base import command_names
from kvclient.commands.bitmaps import BitmapCommands
from kvclient.commands.cluster import ClusterCommands
from kvclient.commands.conditional import ConditionalCommands
from kvclient.commands.expiry import ExpiryCommands
from kvclient.commands.keys import KeyCommands
from kvclient.commands.observing import ObservingCommands
from kvclient.commands.pubsub import PubSubCommands
from kvclient.commands.scripting import ScriptingCommands
from kvclient.commands.server import CONNECTION_COMMANDS, REFUSED, IntrospectionCommands, ServerCommands
from kvclient.commands.strings import StringCommands
from kvclient.errors import CommandRefusedError
from kvclient.serializers import In, Out

if TYPE_CHECKING:
    from kvclient.protocol import Value

__all__ = ["COMMAND_NAMES", "CONNECTION_COMMANDS", "Commands", "refuse_connection_commands"]


class Commands(
    StringCommands[In, Out],
    ConditionalCommands[In, Out],
    BitmapCommands,
    KeyCommands,
    ExpiryCommands,
    PubSubCommands,
    ScriptingCommands,
    ObservingCommands,
    AccessCommands,
    ClusterCommands,
    ServerCommands,
    IntrospectionCommands,
):
    """Every typed command."""


COMMAND_NAMES: Final = command_names(Commands)
"""The server's names of all commands with a typed method, as in "GET" and "CLIENT|ID"."""

_CONTAINERS: Final = frozenset(name.partition("|")[0] for name in REFUSED if "|" in name)


def refuse_connection_commands(args: tuple[Value, ...]) -> None:
    """Raise CommandRefusedError for a command that must not run on a shared connection.

    Raises:
        CommandRefusedError: its message says what to do instead.
        ValueError: there is no command at all.
    """
    if not args:
        raise ValueError('execute() needs a command, as in execute("GET", "key")')
    name = _word(args[0])
    if name in _CONTAINERS and len(args) > 1:
        name = f"{name}|{_word(args[1])}"
    reason = REFUSED.get(name)
    if reason is None and name in {"XREAD", "XREADGROUP"} and any(_word(arg) == "BLOCK" for arg in args[1:6]):
        reason = REFUSED["BLPOP"]
    if reason is not None:
        raise CommandRefusedError(f"{name.replace('|', ' ')} is not for execute(): {reason}")


def _word(arg: Value) -> str:
    if isinstance(arg, str):
        return arg.upper()
    return str(bytes(arg), "latin-1").upper() if isinstance(arg, bytes | bytearray | memoryview) else ""
