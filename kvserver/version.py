"""Version numbers: ours, and the one clients are told so that they use what is there."""

__version__ = "0.1.0"

REDIS_VERSION = "7.2.4"
"""Reported as ``redis_version``. Clients switch features on it; Valkey reports the same for the same reason."""
