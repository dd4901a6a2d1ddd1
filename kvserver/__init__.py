"""kvserver: a threaded key-value server that speaks the Redis protocol.

For embedding::

    import kvserver

    with kvserver.Server(port=0) as server:
        ...  # any Redis client, at server.url
"""

from kvserver.config import Config, ConfigError
from kvserver.server import Server
from kvserver.version import __version__

__all__ = ["Config", "ConfigError", "Server", "__version__"]
