"""Version numbers: ours, and the one clients are told so that they use what is there."""

__version__ = "0.1.0"

REDIS_VERSION = "7.2.4"
"""Reported as ``redis_version``. Clients switch features on it; Valkey reports the same for the same reason."""

HELLO_SERVER, HELLO_VERSION = "redis", "7.4.0"
"""What HELLO answers for ``server`` and ``version``. redis-py keeps a client-side cache only with a server that gives
this name and at least this version. INFO says whose server it is."""
