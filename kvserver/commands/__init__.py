"""What each command does. A handler takes values and returns a value: never a socket, never RESP bytes.

Importing this package fills the registry.
"""

from kvserver.commands import (
    acl,
    admin,
    bitfield,
    bitmaps,
    client,
    conditional,
    configuration,
    connection,
    expiry,
    hotkeys,
    increx,
    introspection,
    keys,
    lcs,
    memory,
    observing,
    persistence,
    pubsub,
    scripting,
    strings,
    tracking,
    transactions,
)
from kvserver.commands.registry import COMMANDS

__all__ = [
    "COMMANDS",
    "acl",
    "admin",
    "bitfield",
    "bitmaps",
    "client",
    "conditional",
    "configuration",
    "connection",
    "expiry",
    "hotkeys",
    "increx",
    "introspection",
    "keys",
    "lcs",
    "memory",
    "observing",
    "persistence",
    "pubsub",
    "scripting",
    "strings",
    "tracking",
    "transactions",
]
