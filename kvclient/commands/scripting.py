"""The commands of scripts. kvserver knows those of some libraries; Redis and Valkey run any.

Not here: knowing what a script does.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from kvclient.commands import to
from kvclient.commands.base import Args, CommandSet, command

if TYPE_CHECKING:
    from kvclient.protocol import Key, Value


class ScriptingCommands(CommandSet):
    """Commands that run scripts on the server, atomically."""

    @command("EVAL", to.anything)
    def eval(self, script: str | bytes, keys: Sequence[Key] = (), args: Sequence[Value] = ()) -> Args:
        """Run a script; return what it returns.

        Server command: EVAL.
        """
        return (b"EVAL", script, len(keys), *keys, *args)

    @command("EVALSHA", to.anything)
    def evalsha(self, sha1: str | bytes, keys: Sequence[Key] = (), args: Sequence[Value] = ()) -> Args:
        """Run a script that the server has been given before; return what it returns.

        Server command: EVALSHA. Raises ServerError with the code NOSCRIPT if the server does not have it.
        """
        return (b"EVALSHA", sha1, len(keys), *keys, *args)

    @command("SCRIPT|LOAD", to.blob)
    def script_load(self, script: str | bytes) -> Args:
        """Give the server a script; return the SHA1 that evalsha() calls it by.

        Server command: SCRIPT LOAD.
        """
        return (b"SCRIPT", b"LOAD", script)

    @command("SCRIPT|EXISTS", to.flags, safe=True)
    def script_exists(self, *sha1s: str | bytes) -> Args:
        """Return for each SHA1 whether the server has the script.

        Server command: SCRIPT EXISTS.
        """
        return (b"SCRIPT", b"EXISTS", *sha1s)

    @command("SCRIPT|FLUSH", to.done)
    def script_flush(self) -> Args:
        """Make the server forget all scripts.

        Server command: SCRIPT FLUSH.
        """
        return (b"SCRIPT", b"FLUSH")

    @command("SCRIPT|HELP", to.text, safe=True)
    def script_help(self) -> Args:
        """Return an explanation of SCRIPT's subcommands.

        Server command: SCRIPT HELP.
        """
        return (b"SCRIPT", b"HELP")
