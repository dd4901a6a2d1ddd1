"""kvserver: a threaded key-value server that speaks the Redis protocol.

For embedding::

    import kvserver

    with kvserver.Server(port=0) as server:
        ...  # any Redis client, at server.url
        server.direct("SET", "k", "v")  # or without one
"""

from typing import TYPE_CHECKING

from kvserver.build import choose as _choose
from kvserver.version import __version__

if TYPE_CHECKING:
    from kvserver.config import Config, ConfigError
    from kvserver.extensions import READONLY, WRITE, Data, command
    from kvserver.protocol.replies import Error as CommandError
    from kvserver.server import Server

__all__ = [
    "READONLY",
    "WRITE",
    "CommandError",
    "Config",
    "ConfigError",
    "Data",
    "Server",
    "__version__",
    "command",
]


_choose()


def __getattr__(name: str) -> object:
    """The rest of the server, on first use: pytest imports this package in every project that has it installed."""
    if name == "Server":
        from kvserver.server import Server

        return Server
    if name in {"Config", "ConfigError"}:
        from kvserver import config

        return getattr(config, name)
    if name in {"READONLY", "WRITE", "Data", "command"}:
        from kvserver import extensions

        return getattr(extensions, name)
    if name == "CommandError":
        from kvserver.protocol.replies import Error

        return Error
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
