"""kvclient for asyncio: the same commands with the same types, awaited.

    import kvclient.aio

    async with kvclient.aio.connect("redis://127.0.0.1:6379/0") as kv:
        await kv.set("greeting", "hello", ttl=30)
        await kv.get("greeting")  # b"hello"

With valkey+cluster://HOST:PORT,HOST:PORT it is the client of a cluster, whose tasks share a connection to each node.
Errors are those of kvclient.errors. Not here: any code; the names below live in the modules of this package.
"""

from kvclient.aio.client import AsyncClient, connect
from kvclient.aio.listening import AsyncSubscription
from kvclient.aio.locking import AsyncLock, AsyncSemaphore
from kvclient.aio.nearcache import AsyncNearCache
from kvclient.aio.pipeline import AsyncPipeline
from kvclient.aio.transaction import AsyncTransaction, AsyncWatchingTransaction

__all__ = [
    "AsyncClient",
    "AsyncLock",
    "AsyncNearCache",
    "AsyncPipeline",
    "AsyncSemaphore",
    "AsyncSubscription",
    "AsyncTransaction",
    "AsyncWatchingTransaction",
    "connect",
]
