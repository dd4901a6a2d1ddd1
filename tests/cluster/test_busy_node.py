"""A node that is busy with a script while the client looks whether it still has its slots."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
from cluster.harness import Node, one_node, until

import kvclient
import kvclient.aio
from kvclient.errors import CallTimeoutError

SLOW = """
local now = function() local t = redis.call('time') return t[1] * 1000 + t[2] / 1000 end
local begin = now()
while now() < begin + 1500 do end
return 'of the script'
"""


@pytest.fixture
def node() -> Iterator[Node]:
    """The only one, so nobody else says who has what; soon it answers BUSY to whoever asks."""
    with one_node() as found:
        found.ask("CONFIG", "SET", "busy-reply-threshold", 50)
        yield found


def test_a_late_reply_is_nobody_elses(node: Node) -> None:
    with kvclient.connect(f"valkey+cluster://127.0.0.1:{node.port}", timeout=10, retries=0) as kv:
        kv.set("k", "of k")
        assert kv.get("k") == b"of k"
        assert kv.execute("EVAL", "return 1", 1, "k") == 1
        with pytest.raises(CallTimeoutError) as caught:
            kv.execute("EVAL", SLOW, 1, "k", timeout=1)
        assert caught.value.applied == "unknown"
        until(lambda: node.answers())
        assert kv.get("k") == b"of k"
        assert kv.execute("EVAL", SLOW, 1, "k", timeout=2.5) == b"of the script"  # half of it has passed before
        with kv.pipeline(timeout=2.5) as pipeline:
            found = pipeline.execute("EVAL", SLOW, 1, "k")
        assert found.result() == b"of the script"


def test_the_same_with_asyncio(node: Node) -> None:
    async def main() -> None:
        async with kvclient.aio.connect(f"valkey+cluster://127.0.0.1:{node.port}", timeout=10, retries=0) as kv:
            await kv.set("k", "of k")
            assert await kv.execute("EVAL", "return 1", 1, "k") == 1
            with pytest.raises(CallTimeoutError) as caught:
                await kv.execute("EVAL", SLOW, 1, "k", timeout=1)
            assert caught.value.applied == "unknown"
            await asyncio.sleep(1)
            assert await kv.get("k") == b"of k"
            assert await kv.execute("EVAL", SLOW, 1, "k", timeout=2.5) == b"of the script"

    asyncio.run(main())
