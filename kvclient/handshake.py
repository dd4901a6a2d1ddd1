"""How a conversation with a server begins: which protocol, which user, which database. Without input or output.

Not here: connecting, sending and receiving (connection.py, aio/connection.py).
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

from kvclient.errors import ServerError, UnknownCommandError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kvclient.protocol import Reply, Value
    from kvclient.url import Options


@functools.cache
def _library_version() -> str:
    """What CLIENT SETINFO reports; the two packages are one distribution."""
    from importlib import metadata

    try:
        return metadata.version("kvserver")
    except metadata.PackageNotFoundError:
        return "0"


def greeting(options: Options, protocol: int) -> list[tuple[Value, ...]]:
    """The commands to send first, all in one write; `protocol` is the version of RESP to ask for."""
    commands: list[tuple[Value, ...]] = []
    user, password = options.username, options.password
    if protocol == 3:
        login = () if password is None else ("AUTH", user or "default", password)
        commands.append(("HELLO", 3, *login))
    elif password is not None:
        commands.append(("AUTH", password) if user is None else ("AUTH", user, password))
    if options.name is not None:
        commands.append(("CLIENT", "SETNAME", options.name))
    if options.db:
        commands.append(("SELECT", options.db))
    commands.append(("CLIENT", "SETINFO", "LIB-NAME", "kvclient"))
    commands.append(("CLIENT", "SETINFO", "LIB-VER", _library_version()))
    return commands


def refuses_hello(reply: Reply) -> bool:
    """Whether the server is too old for RESP3, so that it is to be greeted in RESP2."""
    return isinstance(reply, UnknownCommandError) or (isinstance(reply, ServerError) and reply.code == "NOPROTO")


def check_greeting(replies: Sequence[Reply]) -> None:
    """Raise what the server refused of a greeting.

    Raises:
        ServerError: the user, the name or the database.
    """
    for reply in replies[:-2]:  # the last two, CLIENT SETINFO, are a courtesy that old servers do not know
        if isinstance(reply, ServerError):
            raise reply


def why_not(error: Exception) -> str:
    """Why there is no connection, and what to look at. By name, since ssl is slow to import."""
    kinds = {kind.__name__ for kind in type(error).__mro__}
    if "SSLCertVerificationError" in kinds:
        why = getattr(error, "verify_message", "")
        return f"its certificate is not accepted: {why}; name the file of the CA that issued it with tls_ca="
    silent = "timed out" if isinstance(error, TimeoutError) else type(error).__name__
    reason = getattr(error, "strerror", None) or str(error) or silent
    if "SSLError" in kinds:
        return f"{reason}; does the server speak TLS on that port?"
    return f"{reason}; is the server running there?"
