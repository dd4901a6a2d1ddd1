"""Runs an async function with a client of a cluster, and makes sure that nothing of it is left behind."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from cluster.harness import Cluster

import kvclient.aio
from kvclient.aio import AsyncClient

Work = Callable[[AsyncClient], Awaitable[None]]

KEYS = [f"key:{number}" for number in range(300)]  # of all nodes


def with_client(cluster: Cluster, work: Work, *, timeout: float = 20, **options: Any) -> None:
    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: unheard.append(context))
        async with kvclient.aio.connect(cluster.url, timeout=timeout, **options) as kv:
            await work(kv)
            assert asyncio.all_tasks() == {asyncio.current_task()}
        await nothing_is_open()

    unheard: list[dict[str, Any]] = []  # of errors, such as those of futures that nobody awaits
    asyncio.run(main())
    gc.collect()
    assert unheard == []


async def nothing_is_open() -> None:
    """Sockets are closed when the event loop comes round next."""
    loop: Any = asyncio.get_running_loop()
    for _ in range(3):
        await asyncio.sleep(0)
    own = loop._ssock.fileno()  # by which threads wake the loop
    assert [descriptor for descriptor in loop._selector.get_map() if descriptor != own] == []


async def together(*calls: Coroutine[Any, Any, Any]) -> list[Any]:
    """Whatever comes of each, in order."""
    return await asyncio.gather(*calls, return_exceptions=True)
