"""The commands about connections and about the server itself.

Not here, because a pool's connections are shared: commands that change one connection for good. They are in
CONNECTION_COMMANDS, each with what to do instead.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final, TypeAlias

from kvclient.commands import to
from kvclient.commands.base import Args, CommandSet, command
from kvclient.commands.options import milliseconds, moment, whole_or_milliseconds, words
from kvclient.protocol import Name, Value

if TYPE_CHECKING:
    from kvclient.commands.options import Ttl, When

Settings: TypeAlias = Mapping[bytes, Value] | Mapping[str, Value] | Mapping[Name, Value]

_LISTEN: Final = "use client.listen(), which has a connection of its own"
_MONITOR: Final = "use client.monitor(), which has a connection of its own"
_REPLICATE: Final = "it makes the connection that of a replica"
_BLOCK: Final = "it would block a shared connection; ask again at intervals instead"
_TRANSACT: Final = "it spans several commands on one connection: use client.transaction()"
_CACHE: Final = "it is about one connection's cache, and a client's connections are shared"
_SETTING: Final = "it would change one shared connection and not the others"

CONNECTION_COMMANDS: Final[dict[str, str]] = {
    "AUTH": "write the user and password into the URL, redis://USER:PASSWORD@HOST, or give connect(password=)",
    "HELLO": "the client says HELLO itself; choose with connect(protocol=), (password=) and (name=)",
    "SELECT": "write the database into the URL, redis://HOST/DB, or give connect(db=)",
    "SHUTDOWN": "send the server's process a signal, or use redis-cli; a client that ends its server gets no reply",
    "RESET": "there is nothing to reset; close() the client and connect() again",
    "QUIT": "close() the client, or use it in a with block",
    "CLIENT|SETNAME": "give connect(name=)",
    "CLIENT|SETINFO": "the client tells the server about itself",
    "CLIENT|REPLY": "a pipeline saves the waiting without losing the replies",
    "CLIENT|NO-EVICT": _SETTING,
    "CLIENT|NO-TOUCH": _SETTING,
    **dict.fromkeys(("CLIENT|TRACKING", "CLIENT|CACHING", "CLIENT|TRACKINGINFO", "CLIENT|GETREDIR"), _CACHE),
    **dict.fromkeys(("MULTI", "EXEC", "DISCARD", "WATCH", "UNWATCH"), _TRANSACT),
    **dict.fromkeys(("SUBSCRIBE", "PSUBSCRIBE", "SSUBSCRIBE"), _LISTEN),
    **dict.fromkeys(("UNSUBSCRIBE", "PUNSUBSCRIBE", "SUNSUBSCRIBE"), _LISTEN),
    "MONITOR": _MONITOR,
    **dict.fromkeys(("ASKING", "READONLY", "READWRITE"), _SETTING),
}
"""Commands that exist, and are handled, but never by a method: the reason says what does it instead."""

REFUSED: Final[dict[str, str]] = CONNECTION_COMMANDS | {
    "CLIENT|CAPA": _SETTING,
    "CLIENT|IMPORT-SOURCE": _SETTING,
    **dict.fromkeys(("SYNC", "PSYNC"), _REPLICATE),
    **dict.fromkeys(("BLPOP", "BRPOP", "BLMOVE", "BRPOPLPUSH", "BLMPOP"), _BLOCK),
    **dict.fromkeys(("BZPOPMIN", "BZPOPMAX", "BZMPOP"), _BLOCK),
}
"""What execute() refuses, with the reason."""


def _seconds(ttl: Ttl) -> float:
    return ttl.total_seconds() if isinstance(ttl, dt.timedelta) else float(ttl)


def _wait_patience(args: Args) -> float:
    return float(str(args[2])) / 1000


def _waitaof_patience(args: Args) -> float:
    return float(str(args[3])) / 1000


def _save_patience(_args: Args) -> float:
    return 3600.0  # however much there is


def _sleep_patience(args: Args) -> float:
    return max(0.0, float(str(args[2])))


class ServerCommands(CommandSet):
    """Commands about connections, configuration and the server's state."""

    @command("PING", to.blob, safe=True)
    def ping(self, message: Value | None = None) -> Args:
        """Return b"PONG", or the message.

        Server command: PING.
        """
        return (b"PING",) if message is None else (b"PING", message)

    @command("ECHO", to.blob, safe=True)
    def echo(self, message: Value) -> Args:
        """Return the message.

        Server command: ECHO.
        """
        return (b"ECHO", message)

    @command("TIME", to.clock, safe=True)
    def time(self) -> Args:
        """Return the server's clock: seconds since 1970, and microseconds.

        Server command: TIME.
        """
        return (b"TIME",)

    @command("INFO", to.info, safe=True)
    def info(self, *sections: Name) -> Args:
        """Return what the server reports about itself, as field names and values.

        Server command: INFO.
        """
        return (b"INFO", *sections)

    @command("SAVE", to.done, patience=_save_patience)
    def save(self) -> Args:
        """Save the data; return when that is done.

        Server command: SAVE.
        """
        return (b"SAVE",)

    @command("BGSAVE", to.text)
    def bgsave(self, *, schedule: bool = False) -> Args:
        """Have the data saved in the background; return what the server says to that.

        Server command: BGSAVE.
        """
        return (b"BGSAVE", b"SCHEDULE") if schedule else (b"BGSAVE",)

    @command("BGREWRITEAOF", to.text)
    def bgrewriteaof(self) -> Args:
        """Have the journal rewritten in the background; return what the server says to that.

        Server command: BGREWRITEAOF.
        """
        return (b"BGREWRITEAOF",)

    @command("LASTSAVE", to.integer, safe=True)
    def lastsave(self) -> Args:
        """Return when the data was last saved, in seconds since 1970.

        Server command: LASTSAVE.
        """
        return (b"LASTSAVE",)

    @command("ROLE", to.array, safe=True)
    def role(self) -> Args:
        """Return the server's part in replication: its name first, then what belongs to it.

        Server command: ROLE.
        """
        return (b"ROLE",)

    @command("WAIT", to.integer, safe=True, patience=_wait_patience)
    def wait(self, replicas: int, timeout: Ttl) -> Args:
        """Wait for replicas to have the writes sent before on the same connection; return how many have them.

        Server command: WAIT. Only in a pipeline is it certain that those writes took the same connection.

        Args:
            replicas: how many to wait for.
            timeout: how long, in seconds or as a timedelta, more than 0; the call's deadline is that much later.
        """
        milliseconds = round(_seconds(timeout) * 1000)
        if milliseconds <= 0:
            raise ValueError("timeout has to be at least a millisecond: WAIT takes 0 for ever")
        return (b"WAIT", replicas, milliseconds)

    @command("WAITAOF", to.pair_of_integers, safe=True, patience=_waitaof_patience)
    def waitaof(self, local: int, replicas: int, timeout: Ttl) -> Args:
        """Wait for writes sent before on the same connection to be synced; return by how many they are, here and there.

        Server command: WAITAOF. Only in a pipeline is it certain that those writes took the same connection.

        Args:
            local: 1 to wait for the server itself.
            replicas: how many of them to wait for.
            timeout: how long, in seconds or as a timedelta, more than 0; the call's deadline is that much later.
        """
        milliseconds = round(_seconds(timeout) * 1000)
        if milliseconds <= 0:
            raise ValueError("timeout has to be at least a millisecond: WAITAOF takes 0 for ever")
        return (b"WAITAOF", local, replicas, milliseconds)

    @command("LOLWUT", to.text, safe=True)
    def lolwut(self, *parameters: Value) -> Args:
        """Return a drawing.

        Server command: LOLWUT.
        """
        return (b"LOLWUT", *parameters)

    @command("HELP", to.text, safe=True)
    def help(self, name: Name | None = None) -> Args:
        """Return kvserver's help, on one command if a name is given. Other servers have none.

        Server command: HELP.
        """
        return (b"HELP",) if name is None else (b"HELP", name)

    @command("FUNCTION|FLUSH", to.done)
    def function_flush(self) -> Args:
        """Delete all of the server's functions.

        Server command: FUNCTION FLUSH.
        """
        return (b"FUNCTION", b"FLUSH")

    @command("FUNCTION|HELP", to.text, safe=True)
    def function_help(self) -> Args:
        """Return the server's help on FUNCTION.

        Server command: FUNCTION HELP.
        """
        return (b"FUNCTION", b"HELP")

    @command("KV.CLOCK", to.integer)
    def clock(
        self, *, freeze: bool = False, resume: bool = False, advance: Ttl | None = None, set_to: When | None = None
    ) -> Args:
        """Stop, move or ask the clock that times to live go by; return its time in milliseconds since 1970.

        Server command: KV.CLOCK (kvserver), which a server for tests allows.

        Args:
            freeze: stop it.
            resume: make it the system's time again.
            advance: seconds (int or float) or a timedelta to step forwards; backwards if negative.
            set_to: seconds since 1970 (int or float), or a datetime with a time zone.
        """
        given = [
            *words(FREEZE=freeze, RESUME=resume),
            *(() if advance is None else (b"ADVANCE", milliseconds(whole_or_milliseconds(advance)))),
            *(() if set_to is None else (b"SET", milliseconds(moment(set_to)))),
        ]
        return (b"KV.CLOCK", *given)

    @command("DEBUG|SLEEP", to.done, patience=_sleep_patience)
    def debug_sleep(self, seconds: float) -> Args:
        """Have the server do nothing for a while; the call's deadline is that much later.

        Server command: DEBUG SLEEP.
        """
        return (b"DEBUG", b"SLEEP", seconds)

    @command("DEBUG|SET-ACTIVE-EXPIRE", to.done)
    def debug_set_active_expire(self, on: bool) -> Args:
        """Say whether the server deletes expired keys by itself, or only when they are asked for.

        Server command: DEBUG SET-ACTIVE-EXPIRE.
        """
        return (b"DEBUG", b"SET-ACTIVE-EXPIRE", int(on))

    # ---- CLIENT --------------------------------------------------------------------------------------------

    @command("CLIENT|ID", to.integer, safe=True)
    def client_id(self) -> Args:
        """Return the server's number for the connection that this call happens to use.

        Server command: CLIENT ID.
        """
        return (b"CLIENT", b"ID")

    @command("CLIENT|GETNAME", to.blob_or_none, safe=True)
    def client_getname(self) -> Args:
        """Return the connections' name, which connect(name=) gives, or None.

        Server command: CLIENT GETNAME.
        """
        return (b"CLIENT", b"GETNAME")

    @command("CLIENT|INFO", to.client_line, safe=True)
    def client_info(self) -> Args:
        """Return what the server knows about the connection that this call happens to use.

        Server command: CLIENT INFO.
        """
        return (b"CLIENT", b"INFO")

    @command("CLIENT|LIST", to.client_lines, safe=True)
    def client_list(self, *, type: Name | None = None, ids: tuple[int, ...] = ()) -> Args:  # noqa: A002
        """Return what the server knows about each connection, or those of a type or with certain ids.

        Server command: CLIENT LIST.
        """
        of_type: Args = () if type is None else (b"TYPE", type)
        with_ids: Args = (b"ID", *ids) if ids else ()
        return (b"CLIENT", b"LIST", *of_type, *with_ids)

    @command("CLIENT|KILL", to.integer)
    def client_kill(
        self,
        *,
        id: int | None = None,  # noqa: A002 - the server's words for them
        addr: Name | None = None,
        laddr: Name | None = None,
        type: Name | None = None,  # noqa: A002
        user: Name | None = None,
        maxage: int | None = None,
        skip_me: bool = True,
    ) -> Args:
        """Close the connections that meet all conditions; return how many. This call's own stays, by default.

        Server command: CLIENT KILL.

        Args:
            id: the connection's number.
            addr: its remote end, HOST:PORT.
            laddr: its end at the server, HOST:PORT.
            type: "normal", "pubsub", "replica" or "primary".
            user: the user it is authenticated as.
            maxage: at least this old, in seconds.
            skip_me: leave this call's own connection open.
        """
        filters: tuple[tuple[bytes, Value | None], ...] = (
            (b"ID", id), (b"ADDR", addr), (b"LADDR", laddr), (b"TYPE", type), (b"USER", user),
            (b"MAXAGE", maxage), (b"SKIPME", b"yes" if skip_me else b"no"),
        )  # fmt: skip
        given = (part for name, value in filters if value is not None for part in (name, value))
        return (b"CLIENT", b"KILL", *given)

    @command("CLIENT|PAUSE", to.done)
    def client_pause(self, seconds: float, *, only_writes: bool = False) -> Args:
        """Hold up the commands of all clients for a time in seconds, or only those that write.

        Server command: CLIENT PAUSE.
        """
        return (b"CLIENT", b"PAUSE", round(seconds * 1000), b"WRITE" if only_writes else b"ALL")

    @command("CLIENT|UNPAUSE", to.done)
    def client_unpause(self) -> Args:
        """End what client_pause() began.

        Server command: CLIENT UNPAUSE.
        """
        return (b"CLIENT", b"UNPAUSE")

    @command("CLIENT|HELP", to.text, safe=True)
    def client_help(self) -> Args:
        """Return the server's help on CLIENT.

        Server command: CLIENT HELP.
        """
        return (b"CLIENT", b"HELP")

    # ---- CONFIG --------------------------------------------------------------------------------------------

    @command("CONFIG|GET", to.settings, safe=True)
    def config_get(self, *patterns: Name) -> Args:
        """Return the settings whose names match a pattern, and their values.

        Server command: CONFIG GET.
        """
        return (b"CONFIG", b"GET", *patterns)

    @command("CONFIG|SET", to.done)
    def config_set(self, settings: Settings) -> Args:
        """Change settings of the running server: all of them, or none if one is refused.

        Server command: CONFIG SET.
        """
        return (b"CONFIG", b"SET", *(part for item in settings.items() for part in item))

    @command("CONFIG|RESETSTAT", to.done)
    def config_resetstat(self) -> Args:
        """Set the counters of INFO back to zero.

        Server command: CONFIG RESETSTAT.
        """
        return (b"CONFIG", b"RESETSTAT")

    @command("CONFIG|HELP", to.text, safe=True)
    def config_help(self) -> Args:
        """Return the server's help on CONFIG.

        Server command: CONFIG HELP.
        """
        return (b"CONFIG", b"HELP")

    # ---- COMMAND -------------------------------------------------------------------------------------------

    @command("COMMAND", to.array, safe=True)
    def command(self) -> Args:
        """Return what the server knows about each of its commands: name, arity, flags and keys.

        Server command: COMMAND.
        """
        return (b"COMMAND",)


# Defined after `command` is a method's name in the class above, hence a class of its own.
class IntrospectionCommands(CommandSet):
    """Subcommands of COMMAND."""

    @command("COMMAND|COUNT", to.integer, safe=True)
    def command_count(self) -> Args:
        """Return the number of commands.

        Server command: COMMAND COUNT.
        """
        return (b"COMMAND", b"COUNT")

    @command("COMMAND|LIST", to.blobs, safe=True)
    def command_list(
        self, *, module: Name | None = None, category: Name | None = None, pattern: Name | None = None
    ) -> Args:
        """Return the commands' names: all, or those of a module, of a category, or matching a pattern.

        Server command: COMMAND LIST.
        """
        filters = ((b"MODULE", module), (b"ACLCAT", category), (b"PATTERN", pattern))
        chosen = tuple(part for name, value in filters if value is not None for part in (name, value))
        return (b"COMMAND", b"LIST", *((b"FILTERBY", *chosen) if chosen else ()))

    @command("COMMAND|INFO", to.array, safe=True)
    def command_info(self, *names: Name) -> Args:
        """Return what command() does, for some commands; None for an unknown one.

        Server command: COMMAND INFO.
        """
        return (b"COMMAND", b"INFO", *names)

    @command("COMMAND|DOCS", to.table, safe=True)
    def command_docs(self, *names: Name) -> Args:
        """Return the documentation of commands, by name.

        Server command: COMMAND DOCS.
        """
        return (b"COMMAND", b"DOCS", *names)

    @command("COMMAND|GETKEYS", to.blobs, safe=True)
    def command_getkeys(self, name: Name, *args: Value) -> Args:
        """Return those arguments of a command that are keys.

        Server command: COMMAND GETKEYS.
        """
        return (b"COMMAND", b"GETKEYS", name, *args)

    @command("COMMAND|GETKEYSANDFLAGS", to.array, safe=True)
    def command_getkeysandflags(self, name: Name, *args: Value) -> Args:
        """Return those arguments of a command that are keys, each with what the command does to it.

        Server command: COMMAND GETKEYSANDFLAGS.
        """
        return (b"COMMAND", b"GETKEYSANDFLAGS", name, *args)

    @command("COMMAND|HELP", to.text, safe=True)
    def command_help(self) -> Args:
        """Return the server's help on COMMAND.

        Server command: COMMAND HELP.
        """
        return (b"COMMAND", b"HELP")
