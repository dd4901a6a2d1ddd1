"""Semaphores, cached functions and values as files: on kvserver, Valkey and Redis, by threads and by tasks."""

from __future__ import annotations

import asyncio
import gzip
import io
import json
import shutil
import threading
import tracemalloc
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from client.conftest import FakeServer, Peer

import kvclient
import kvclient.aio
import kvserver
from kvclient import serializers
from kvclient.errors import KVError, LockLostError, LockTimeoutError, ServerError
from kvclient.files import ValueReader
from kvserver.testing import Instruments

PATIENCE = 30


# ---- semaphores ------------------------------------------------------------------------------------------------------


def test_so_many_and_no_more(client: kvclient.Client) -> None:
    guard = threading.Lock()
    inside: set[int] = set()
    most = []

    def use(_: int) -> None:
        with client.semaphore("s", 3, wait=PATIENCE) as semaphore:
            assert semaphore.place in {0, 1, 2}
            with guard:
                assert semaphore.place not in inside
                inside.add(semaphore.place)
                most.append(len(inside))
            client.incr("work")
            with guard:
                inside.discard(semaphore.place)

    with ThreadPoolExecutor(12) as pool:
        list(pool.map(use, range(60)))
    assert max(most) <= 3
    assert client.get("work") == b"60"
    assert set(client) == {b"work"}


def test_when_all_places_are_held(client: kvclient.Client) -> None:
    with client.ns("a:").semaphore("s", 1) as first, client.semaphore("s", 1):
        assert first.place == 0
        with pytest.raises(LockTimeoutError, match=r"others held all 1 places of 'a:s' for all of 0\.02 seconds"):
            client.ns("a:").semaphore("s", 1, wait=0.02).acquire()
    with client.ns("a:").semaphore("s", 1, wait=0):
        pass


def test_a_place_that_ended_is_lost(client: kvclient.Client) -> None:
    semaphore = client.semaphore("s", 2, ttl=60)
    semaphore.acquire()
    client.delete(f"s:{semaphore.place}")
    with pytest.raises(LockLostError, match="a place of 's' ended before its holder was done"):
        semaphore.release()
    with pytest.raises(ValueError, match="limit at least 1"):
        client.semaphore("s", 0)


def test_tasks_share_places(any_url: str) -> None:
    inside, most = 0, 0

    async def main() -> None:
        nonlocal inside, most

        async def use() -> None:
            nonlocal inside, most
            async with kv.semaphore("s", 2, wait=PATIENCE):
                inside += 1
                most = max(most, inside)
                await kv.incr("work")
                inside -= 1

        async with kvclient.aio.connect(any_url, timeout=PATIENCE) as kv:
            await kv.flushall()
            await asyncio.gather(*(use() for _ in range(20)))
            assert await kv.get("work") == b"20"

    asyncio.run(main())
    assert most == 2


# ---- cached functions ------------------------------------------------------------------------------------------------


def test_a_function_is_called_once(client: kvclient.Client) -> None:
    calls = []

    @client.ns("app:").cached(ttl=60, key="user:{number}:{kind}", serializer=serializers.JSON)
    def load(number: int, kind: str = "short") -> dict[str, object]:
        """Load a user."""
        calls.append((number, kind))
        return {"number": number, "kind": kind}

    assert load(7) == load(7, "short") == load(number=7) == {"number": 7, "kind": "short"}
    assert load(8, kind="long") == {"number": 8, "kind": "long"}
    assert calls == [(7, "short"), (8, "long")]
    assert load.key(7) == "user:7:short"
    assert client.exists("app:user:7:short")
    assert load.invalidate(7)
    assert not load.invalidate(7)
    load(7)
    assert len(calls) == 3
    assert load.__name__ == "load"  # type: ignore[attr-defined]
    assert load.__doc__ == "Load a user."


def test_keys_by_arguments(client: kvclient.Client) -> None:
    @client.cached(ttl=60)
    def double(text: bytes, times: int = 2) -> bytes:
        return text * times

    assert double(b"a") == b"aa"
    assert double.key(b"a") == double.key(text=b"a", times=2)
    assert double.key(b"a") != double.key(b"b") != double.key(b"b", 3)
    (key,) = client
    assert key.decode() == double.key(b"a")
    assert "test_keys_by_arguments" in double.key(b"a")


def test_a_method(client: kvclient.Client) -> None:
    class Shop:
        def __init__(self, name: str) -> None:
            self.name = name

        @client.cached(ttl=60, key="shop:{self.name}:{item}", serializer=serializers.TEXT)
        def price(self, item: str) -> str:
            return f"{item} at {self.name}"

    assert Shop("a").price("tea") == Shop("a").price("tea") == "tea at a"
    assert Shop("b").price("tea") == "tea at b"
    assert set(client) == {b"shop:a:tea", b"shop:b:tea"}


def test_a_result_that_would_come_back_as_another_type(client: kvclient.Client) -> None:
    @client.cached(ttl=60)
    def text() -> str:
        return "text"

    with pytest.raises(TypeError, match=r"returned str, and would return bytes the next time: .*serializers\.JSON"):
        text()
    assert not client.dbsize()


def test_a_coroutine_function(any_url: str) -> None:
    calls = []

    async def main() -> None:
        async with kvclient.aio.connect(any_url) as kv:
            await kv.flushall()

            @kv.cached(ttl=60, key="n:{number}", serializer=serializers.JSON)
            async def load(number: int) -> list[int]:
                calls.append(number)
                return [number]

            assert await asyncio.gather(*(load(3) for _ in range(10))) == [[3]] * 10
            assert await load.invalidate(3)
            assert await load(3) == [3]

    asyncio.run(main())
    assert calls == [3, 3]


# ---- values as files -------------------------------------------------------------------------------------------------


def test_written_and_read_by_pieces(client: kvclient.Client) -> None:
    data = bytes(range(256)) * 5000
    with client.open("k", "wb", chunk=100_000, ttl=60) as file:
        shutil.copyfileobj(io.BytesIO(data), file, 33_333)
        assert file.tell() == len(data)
        assert not client.exists("k")  # not yet
    assert client.get("k") == data
    assert 0 < client.ttl("k") <= 60
    with client.open("k", chunk=50_000) as file:
        assert file.read(10) == data[:10]
        assert file.seek(-10, io.SEEK_END) == len(data) - 10
        assert file.read() == data[-10:]
        file.seek(1000)
        assert file.read() == data[1000:]
        assert file.read() == b""
    assert client.keys() == [b"k"]


def test_what_reads_and_writes_files(client: kvclient.Client) -> None:
    with client.open("k.gz", "wb") as file, gzip.open(file, "wt") as text:
        json.dump({"a": list(range(10_000))}, text)
    with client.open("k.gz") as file, gzip.open(file, "rt") as text:
        assert json.load(text)["a"][-1] == 9999


def test_a_reader_sees_the_value_as_it_was(client: kvclient.Client) -> None:
    client.set("k", b"a" * 1000)
    with client.open("k", chunk=100) as file:
        first = file.read(100)
        client.set("k", b"b" * 1000)
        assert first + file.read() == b"a" * 1000
    assert client.keys() == [b"k"]


def test_a_block_that_raises_writes_nothing(client: kvclient.Client) -> None:
    client.set("k", "old")
    with pytest.raises(ZeroDivisionError), client.open("k", "wb", chunk=10) as file:
        file.write(b"new" * (100 + file.write(b"new" * 100) // 0))
    assert client.get("k") == b"old"
    assert client.keys() == [b"k"]


def test_a_part_that_ended_is_found_out(client: kvclient.Client) -> None:
    file = client.open("k", "wb", chunk=10)
    file.write(b"new" * 100)
    (part,) = client
    client.delete(part)
    file.write(b"the rest")
    with pytest.raises(KVError, match="what was written has ended"):
        file.close()
    assert not client.dbsize()
    client.set("k", b"a" * 1000)
    reader = ValueReader(client, b"k")
    client.delete(*(key for key in client if key != b"k"))
    with pytest.raises(KVError, match="what was being read has ended"):
        reader.read(10)
    reader.close()


def test_a_part_is_never_kept_for_ever(client: kvclient.Client, any_url: str) -> None:
    """Whoever is killed at whatever moment: adding to a part, and having it end, are one step."""

    def until_exec() -> list[str]:
        names: list[str] = []
        while "EXEC" not in names:
            names.append((monitor.next(PATIENCE) or "").split('"')[1].upper())
        return names

    async def by_tasks() -> None:
        async with kvclient.aio.connect(any_url) as kv, kv.open("k", "wb") as file:
            await file.write(b"a part")

    with client.monitor() as monitor, client.open("k", "wb") as file:
        file.write(b"a part")
        file.flush()
        assert sorted(until_exec()) == ["APPEND", "EXEC", "EXPIRE", "MULTI"]
    with client.monitor() as monitor:
        asyncio.run(by_tasks())
        names = until_exec()
        assert {"APPEND", "EXPIRE", "MULTI"} <= set(names)
        assert "WATCH" not in names  # that is another transaction, which gives it its name


def test_a_piece_that_was_refused_is_sent_again() -> None:
    """Whoever goes on after an error leaves no hole in the value."""
    instruments = Instruments()

    async def by_tasks(url: str) -> None:
        async with kvclient.aio.connect(url) as kv, kv.open("k", "wb", chunk=5) as file:
            with pytest.raises(ServerError):
                await file.write(b"first")
            await file.write(b"then!")

    with kvserver.Server(port=0, instruments=instruments) as server, kvclient.connect(server.url) as kv:
        instruments.faults.refuse("APPEND")
        with kv.open("k", "wb", chunk=5) as file:
            with pytest.raises(ServerError):
                file.write(b"first")
            file.write(b"then!")
        assert kv.getdel("k") == b"firstthen!"
        instruments.faults.refuse("APPEND")
        asyncio.run(by_tasks(server.url))
        assert kv.get("k") == b"firstthen!"
        instruments.faults.check()


def test_other_ways_to_open_are_refused(client: kvclient.Client, any_url: str) -> None:
    client.set("k", "v")
    for mode in ("r", "w", "ab", "r+b"):
        with pytest.raises(ValueError, match=r"a value is opened 'rb', to read it, or 'wb', to write it anew"):
            client.open("k", mode)  # type: ignore[call-overload]
        with pytest.raises(ValueError, match=r"a value is opened 'rb'"):
            kvclient.aio.connect(any_url).open("k", mode)  # type: ignore[call-overload]
    assert client.get("k") == b"v"


def test_what_cannot_be_cleaned_up_hides_no_error(fake: Callable[..., FakeServer]) -> None:
    def losing(peer: Peer) -> None:
        peer.greet()

    url = fake(losing).url
    with kvclient.connect(url, retries=0) as kv, pytest.raises(ZeroDivisionError), kv.open("k", "wb") as file:
        file.write(b"new" * (1 // 0))

    async def main() -> None:
        async with kvclient.aio.connect(url, retries=0) as kv, kv.open("k", "wb") as file:
            await file.write(b"new" * (1 // 0))

    with pytest.raises(ZeroDivisionError):
        asyncio.run(main())


def test_empty_and_missing(client: kvclient.Client) -> None:
    app = client.ns("app:")
    with app.open("k", "wb"):
        pass
    assert client.get("app:k") == b""
    with app.open("k") as file:
        assert file.read() == b""
    with pytest.raises(FileNotFoundError, match="there is no key 'app:missing'"):
        app.open("missing")


def test_a_large_value_in_little_memory(own_kv: kvclient.Client) -> None:
    piece = b"x" * 1024 * 1024
    tracemalloc.start()
    try:
        with own_kv.open("k", "wb") as file:
            for _ in range(16):
                file.write(piece)
        with own_kv.open("k") as source, own_kv.open("copy", "wb") as target:
            shutil.copyfileobj(source, target, 1024 * 1024)
        client_and_server = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert own_kv.strlen("copy") == 16 * 1024 * 1024
    # The server is in this process: it holds up to three values of 16 MiB, and one more while it appends.
    assert client_and_server < 16 * 1024 * 1024 * 5
    own_kv.flushall()


def test_files_of_tasks(any_url: str) -> None:
    data = bytes(range(256)) * 1000

    async def main() -> None:
        async with kvclient.aio.connect(any_url) as kv:
            await kv.flushall()
            async with kv.open("k", "wb", chunk=10_000, ttl=60) as file:
                await file.write(data[:100_000])
                await file.write(data[100_000:])
            async with kv.open("k", chunk=9_999) as source:
                assert b"".join([piece async for piece in source]) == data
                source.seek(5)
                assert await source.read(7) == data[5:12]
                assert await source.read() == data[12:]
            with pytest.raises(FileNotFoundError):
                async with kv.open("missing"):
                    pass
            with pytest.raises(ZeroDivisionError):
                async with kv.open("k", "wb", chunk=10) as file:
                    await file.write(b"new" * (await file.write(b"new" * 100) // 0))
            assert await kv.get("k") == data
            assert await kv.ttl("k") > 0
            async with kv.open("empty", "wb"):
                pass
            assert await kv.mget("empty", "k") == [b"", data]
            assert await kv.dbsize() == 2

    asyncio.run(main())
