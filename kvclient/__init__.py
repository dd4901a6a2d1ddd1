"""kvclient: a typed client for kvserver, Redis and Valkey.

    import kvclient

    with kvclient.connect("redis://127.0.0.1:6379/0") as kv:
        kv.set("greeting", "hello", ttl=30)
        kv["greeting"]  # b"hello"

Every error is a kvclient.errors.KVError. Not here: any code; the names below live in the modules of the same
names.
"""

from kvclient import errors, serializers
from kvclient.client import Client, connect
from kvclient.commands.base import Future
from kvclient.commands.bitmaps import BitGet, BitIncrement, BitSet
from kvclient.errors import KVError
from kvclient.listening import Message, Monitor, Subscription
from kvclient.locking import Lock, Semaphore
from kvclient.mapping import KeyMapping
from kvclient.nearcache import NearCache
from kvclient.pipeline import Pipeline
from kvclient.recipes.limits import RateLimit
from kvclient.transaction import Transaction, WatchingTransaction

__all__ = [
    "BitGet",
    "BitIncrement",
    "BitSet",
    "Client",
    "Future",
    "KVError",
    "KeyMapping",
    "Lock",
    "Message",
    "Monitor",
    "NearCache",
    "Pipeline",
    "RateLimit",
    "Semaphore",
    "Subscription",
    "Transaction",
    "WatchingTransaction",
    "connect",
    "errors",
    "serializers",
]
