"""The examples of docs/python-commands.md, loaded into a server from files as the page says."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import kvclient
import kvserver
from kvserver import extensions

PAGE = (Path(__file__).parents[2] / "docs" / "python-commands.md").read_text("utf-8")


@pytest.fixture
def kv(tmp_path: Path) -> Iterator[kvclient.Client]:
    paths = []
    for number, block in enumerate(re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)):
        paths.append(tmp_path / f"example_{number}.py")
        paths[-1].write_text(block)
    try:
        with (
            kvserver.Server(port=0, load=",".join(map(str, paths))) as server,
            kvclient.connect(server.url) as client,
        ):
            yield client
    finally:
        for name, _ in list(extensions.functions()):
            extensions.remove(name)


def test_the_rate_limiter(kv: kvclient.Client) -> None:
    assert [kv.execute("LIMIT.TAKE", "ann", 2, 60) for _ in range(4)] == [1, 0, -1, -1]
    assert 0 < kv.ttl("ann") <= 60


def test_the_leaderboard(kv: kvclient.Client) -> None:
    for player, points in (("ann", 3), ("bob", 5), ("ann", 4), ("eve", 1)):
        kv.execute("BOARD.ADD", "board", player, points)
    assert kv.execute("BOARD.TOP", "board", 2) == [[b"ann", 7], [b"bob", 5]]
    assert kv.execute("BOARD.TOP", "missing") == []


def test_the_patch(kv: kvclient.Client) -> None:
    kv.set("k", '{"a": {"b": 1, "c": 2}, "d": 3}')
    assert kv.execute("JSON.MERGE", "k", '{"a": {"b": null, "e": 4}, "d": [1]}') == b'{"a": {"c": 2, "e": 4}, "d": [1]}'
    assert kv.execute("JSON.MERGE", "new", '{"a": 1}') == b'{"a": 1}'
