"""Every error this library raises, as one tree under KVError.

Here: the classes, and the table from a server's error code to its class. Not here: when they are raised.

Each error says whether the command took effect (`applied`), because that is what a caller who wants to try
again has to know.
"""

from __future__ import annotations

import re
from typing import Literal, TypeAlias

Applied: TypeAlias = Literal["yes", "no", "unknown"]


class KVError(Exception):
    """The root of the tree: `except KVError` catches all this library raises about servers and networks.

    Attributes:
        applied: "no" if the command certainly had no effect, "yes" if it certainly had, else "unknown".
    """

    applied: Applied = "no"

    def __init__(self, message: str, *, applied: Applied | None = None) -> None:
        super().__init__(message)
        if applied is not None:
            self.applied = applied


class BadURLError(KVError, ValueError):
    """The URL or an option given to connect() makes no sense."""


class CommandRefusedError(KVError, ValueError):
    """The command would change a connection that other threads share; the message names the way to do it."""


class ClientClosedError(KVError):
    """The client was used after close()."""


class KVConnectionError(KVError, ConnectionError):
    """There is no connection, or no longer one."""


class CannotConnectError(KVConnectionError):
    """No connection could be made: nobody listens, the name is unknown, or the handshake failed."""


class ConnectionLostError(KVConnectionError):
    """The connection ended before the whole reply had come."""

    applied: Applied = "unknown"


class CallTimeoutError(KVError, TimeoutError):
    """The call's deadline passed before the whole reply had come."""

    applied: Applied = "unknown"


class PoolTimeoutError(CallTimeoutError):
    """All of the pool's connections stayed busy until the call's deadline; nothing was sent."""

    applied: Applied = "no"


class ProtocolError(KVError):
    """The server sent what no server should: bytes that are not RESP, or a reply of the wrong type."""

    applied: Applied = "unknown"


class UnpackError(KVError, ValueError):
    """A value was read, but the client's serializer cannot make anything of it. It may be another program's."""

    applied: Applied = "yes"


class TransactionConflictError(KVError):
    """A watched key was changed before the transaction could run, so nothing of it ran."""


class LockTimeoutError(KVError, TimeoutError):
    """Somebody else held the lock for as long as one was willing to wait."""


class LockLostError(KVError):
    """The lock had ended before its holder was done; perhaps somebody else has held it since."""

    applied: Applied = "unknown"


class PipelineAbandonedError(KVError):
    """A pipeline's result was asked for, but the pipeline was never sent."""


class PipelineError(KVError):
    """Some commands of a pipeline failed; the others ran, and their futures hold their results.

    Attributes:
        results: one entry per command, in order: its result, or the KVError it failed with.
    """

    applied: Applied = "unknown"

    def __init__(self, message: str, results: tuple[object, ...] = ()) -> None:
        super().__init__(message)
        self.results = results


class ServerError(KVError):
    """The server refused a command. The connection is fine and goes on being used.

    Attributes:
        code: the reply's first word, for example "WRONGTYPE"; "" if the reply has none.
        message: the rest of the reply.
    """

    hint = ""

    def __init__(self, code: str, message: str) -> None:
        text = f"{code} {message}" if code else message
        super().__init__(f"{text} ({self.hint})" if self.hint else text)
        self.code = code
        self.message = message

    def __reduce__(self) -> tuple[type[ServerError], tuple[str, str]]:
        return (type(self), (self.code, self.message))


class WrongTypeError(ServerError):
    """The key holds a value of another type."""

    hint = "use the commands of the type that type(key) names, or delete the key first"


class AuthError(ServerError):
    """The server wants a password, knows another one, or does not permit this user the command."""

    hint = "check the user and password in the URL, redis://USER:PASSWORD@HOST, and the user's permissions"


class BusyError(ServerError):
    """The server is busy with a script or a function."""

    hint = "try again later, or end the script with SCRIPT KILL"


class LoadingError(ServerError):
    """The server is still loading its data."""

    hint = "try again in a moment"


class OutOfMemoryError(ServerError):
    """The server has reached its memory limit and refuses to store more."""

    hint = "delete keys, give them a ttl, or raise the server's maxmemory"


class ReadOnlyError(ServerError):
    """This server is a replica that takes no writes."""

    hint = "connect to the primary server"


class PersistenceError(ServerError):
    """The server cannot save its data and therefore refuses writes."""

    hint = "see the server's log; its disk may be full"


class TransactionAbortedError(ServerError):
    """EXEC ran nothing, since a queued command was wrong."""

    hint = "correct the command that was refused before EXEC"


class ClusterError(ServerError):
    """The key belongs to another node of a cluster, or the cluster cannot serve it now."""

    hint = "this is a node of a cluster: connect with valkey+cluster://HOST:PORT, which finds the right one"


class CrossSlotError(ClusterError):
    """The keys of one command, or of one transaction, are in several slots of a cluster, perhaps on several nodes."""

    hint = "keys with the same part in braces are in one slot, as {user:7}:name and {user:7}:cart"


class UnknownCommandError(ServerError):
    """The server does not know the command."""

    hint = "see COMMAND LIST for what this server knows"


_BY_CODE: dict[str, type[ServerError]] = {
    "WRONGTYPE": WrongTypeError,
    "NOAUTH": AuthError,
    "WRONGPASS": AuthError,
    "NOPERM": AuthError,
    "BUSY": BusyError,
    "LOADING": LoadingError,
    "OOM": OutOfMemoryError,
    "READONLY": ReadOnlyError,
    "MISCONF": PersistenceError,
    "EXECABORT": TransactionAbortedError,
    "MOVED": ClusterError,
    "ASK": ClusterError,
    "CROSSSLOT": CrossSlotError,
    "CLUSTERDOWN": ClusterError,
    "TRYAGAIN": ClusterError,
}

_CODE = re.compile(r"[A-Z][A-Z0-9_]*(?= |$)")


def server_error(line: bytes) -> ServerError:
    """The error object for an error reply's text (without its type byte and line end)."""
    text = line.decode("utf-8", "backslashreplace")
    found = _CODE.match(text)
    code = found.group() if found else ""
    message = text[len(code) :].removeprefix(" ")
    if code == "ERR" and message.startswith("unknown command"):
        return UnknownCommandError(code, message)
    return _BY_CODE.get(code, ServerError)(code, message)
