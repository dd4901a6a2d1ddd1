"""redis-py and valkey-py, unmodified: what their users call works as it does with the servers they were made for."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import importlib
import threading
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest

import kvserver

# The libraries advise against some of their own methods (setex, getset ...). Programs call them all the same.
pytestmark = pytest.mark.filterwarnings("ignore:Call to:DeprecationWarning")

# What a program gets that says nothing about the protocol, and the other version it may ask for.
_CLIENTS = {
    "redis-py with its defaults": ("redis", "Redis", {}, 3),
    "redis-py speaking RESP2": ("redis", "Redis", {"protocol": 2}, 2),
    "valkey-py with its defaults": ("valkey", "Valkey", {}, 2),
    "valkey-py speaking RESP3": ("valkey", "Valkey", {"protocol": 3}, 3),
}


class Library:
    """One client library, asked to speak one protocol version."""

    def __init__(self, port: int, module: str, name: str, options: dict[str, Any], protocol: int) -> None:
        self.module: Any = importlib.import_module(module)
        self.aio: Any = importlib.import_module(f"{module}.asyncio")
        self._name, self._options, self._port = name, options, port
        self.protocol = protocol

    def connect(self, **options: Any) -> Any:
        return getattr(self.module, self._name)(port=self._port, **self._options, **options)

    def connect_async(self, **options: Any) -> Any:
        return getattr(self.aio, self._name)(port=self._port, **self._options, **options)

    def from_url(self, url: str) -> Any:
        return self.module.from_url(url, **self._options)

    @property
    def error(self) -> type[Exception]:
        found: type[Exception] = self.module.exceptions.ResponseError
        return found


@pytest.fixture(params=_CLIENTS.values(), ids=[name.replace(" ", "-") for name in _CLIENTS])
def library(server: kvserver.Server, request: pytest.FixtureRequest) -> Library:
    return Library(server.port, *request.param)


@pytest.fixture
def client(library: Library) -> Iterator[Any]:
    with library.connect() as connected:
        yield connected


def test_the_connection_introduces_itself(library: Library) -> None:
    with library.connect(client_name="me", db=3) as client:
        assert client.ping() is True
        info = client.client_info()
        assert int(info["resp"]) == library.protocol
        assert (info["name"], int(info["db"])) == ("me", 3)
        assert info["lib-name"].startswith(library.module.__name__)
        assert info["lib-ver"] == library.module.__version__


def test_strings(client: Any) -> None:
    assert client.set("k", "v") is True
    assert client.get("k") == b"v"
    assert client.get("none") is None
    assert client.set("k", "w", nx=True) is None
    assert client.set("k", "w", xx=True, get=True) == b"v"
    assert client.getset("k", "x") == b"w"
    assert client.setnx("k", 1) is False
    assert client.setnx("n", 1) is True
    assert client.append("k", "yz") == 3
    assert client.strlen("k") == 3
    assert client.getrange("k", 0, 1) == b"xy"
    assert client.substr("k", 1, -1) == b"yz"
    assert client.setrange("k", 1, "--") == 3
    assert client.getdel("k") == b"x--"
    assert client.exists("k") == 0
    assert client["n"] == b"1"
    client["m"] = b"\0\r\n\xff"
    assert client["m"] == b"\0\r\n\xff"
    assert "m" in client
    del client["m"]
    with pytest.raises(KeyError):
        client["m"]


def test_several_keys_at_once(client: Any) -> None:
    assert client.mset({"a": 1, "b": 2.5, "c": "three"}) is True
    assert client.mget("a", "b", "none", "c") == [b"1", b"2.5", None, b"three"]
    assert client.msetnx({"c": 1, "d": 1}) is False
    assert client.msetnx({"d": 1, "e": 1}) is True
    assert client.exists("a", "b", "d", "none") == 3
    assert client.delete("a", "b") == 2
    assert client.unlink("c", "d", "none") == 2


def test_numbers(client: Any, library: Library) -> None:
    assert client.incr("i") == 1
    assert client.incrby("i", 41) == 42
    assert client.decr("i") == 41
    assert client.decrby("i", 40) == 1
    assert client.incrbyfloat("f", 0.5) == 0.5
    assert client.incrbyfloat("f", "1e2") == 100.5
    client.set("text", "abc")
    with pytest.raises(library.error, match="value is not an integer or out of range"):
        client.incr("text")
    client.set("largest", 2**63 - 1)
    with pytest.raises(library.error, match="would overflow"):
        client.incr("largest")


def test_longest_common_subsequence(client: Any) -> None:
    client.mset({"a": "ohmytext", "b": "mynewtext"})
    assert client.lcs("a", "b") == b"mytext"
    assert client.lcs("a", "b", len=True) == 6
    answer = client.lcs("a", "b", idx=True, minmatchlen=4, withmatchlen=True)
    if isinstance(answer, list):
        answer = dict(zip(answer[::2], answer[1::2], strict=True))
    assert {bytes(key, "ascii") if isinstance(key, str) else key: value for key, value in answer.items()} == {
        b"matches": [[[4, 7], [5, 8], 4]],
        b"len": 6,
    }


def test_keys(client: Any, library: Library) -> None:
    client.mset({"one": 1, "two": 2, "three": 3})
    assert client.rename("one", "uno") is True
    with pytest.raises(library.error, match="no such key"):
        client.rename("one", "eins")
    assert client.renamenx("two", "uno") is False
    assert client.copy("uno", "one") is True
    assert client.copy("uno", "one") is False
    assert client.copy("uno", "one", replace=True) is True
    assert client.copy("uno", "uno", destination_db=1) is True
    assert client.move("three", 1) is True
    assert client.swapdb(0, 1) is True
    assert sorted(client.keys("*")) == [b"three", b"uno"]
    assert client.swapdb(0, 1) is True
    assert sorted(client.keys("?n?")) == [b"one", b"uno"]
    assert client.type("one") == b"string"
    assert client.type("nothing") == b"none"
    assert client.touch("one", "none") == 1
    assert client.randomkey() in (b"one", b"uno", b"two")
    assert client.dbsize() == 3
    assert client.object("encoding", "one") == b"int"
    assert client.object("refcount", "one") == 1
    assert client.object("idletime", "one") >= 0
    assert client.flushdb() is True
    assert client.dbsize() == 0
    assert client.flushall(asynchronous=True) is True


def test_expiry(client: Any) -> None:
    soon = dt.datetime.now(tz=dt.UTC) + dt.timedelta(hours=1)
    assert client.set("k", "v", ex=100) is True
    assert 98 <= client.ttl("k") <= 100
    assert client.set("k", "w", keepttl=True) is True
    assert client.ttl("k") > 0
    assert client.persist("k") is True
    assert client.ttl("k") == -1
    assert client.ttl("none") == -2
    assert client.expire("k", dt.timedelta(minutes=5)) is True
    assert client.expire("k", 10, nx=True) is False
    assert client.expire("k", 10, gt=True) is False
    assert client.expire("k", 200, lt=True) is True
    assert client.pexpire("k", 5000, xx=True) is True
    assert 0 < client.pttl("k") <= 5000
    assert client.expireat("k", soon) is True
    assert client.expiretime("k") == int(soon.timestamp())
    assert client.pexpireat("k", 1) is True
    assert client.exists("k") == 0
    assert client.setex("k", 100, "v") is True
    assert client.psetex("k", 100_000, "v") is True
    assert client.set("k", "v", px=100_000) is True
    assert client.set("k", "v", exat=soon) is True
    assert client.set("k", "v", pxat=soon) is True
    assert client.pexpiretime("k") // 1000 == int(soon.timestamp())
    assert client.getex("k", ex=10) == b"v"
    assert client.getex("k", persist=True) == b"v"
    assert client.pttl("k") == -1


def test_scanning_meets_every_key(client: Any) -> None:
    wanted = {f"key:{number}".encode() for number in range(2000)}
    client.mset(dict.fromkeys(wanted, 1))
    client.set("other", 1)
    assert sorted(client.scan_iter(match="key:*", count=100)) == sorted(wanted)
    assert set(client.scan_iter(_type="string")) == wanted | {b"other"}
    cursor, some = client.scan(count=5)
    assert cursor != 0
    assert set(some) <= wanted | {b"other"}


def test_a_pipeline_without_transaction(client: Any, library: Library) -> None:
    with client.pipeline(transaction=False) as pipe:
        pipe.set("a", 1).incr("a").get("a").get("none").expire("a", 10).mget("a", "none")
        assert pipe.execute() == [True, 2, b"2", None, True, [b"2", None]]
        for number in range(5000):
            pipe.set(f"k{number}", number)
        assert pipe.execute() == [True] * 5000
        pipe.get("a")
        pipe.incr("a", "x")
        pipe.get("k1")
        value, error, other = pipe.execute(raise_on_error=False)
        assert (value, other) == (b"2", b"1")
        assert isinstance(error, library.error)


def test_text_instead_of_bytes(library: Library) -> None:
    with library.connect(decode_responses=True) as client:
        client.set("schlüssel", "größe")
        assert client.get("schlüssel") == "größe"
        assert list(client.scan_iter()) == ["schlüssel"]
        assert client.config_get("maxclients") == {"maxclients": "10000"}


def test_what_the_server_tells(client: Any) -> None:
    info = client.info()
    assert info["redis_version"] == "7.2.4"
    assert info["role"] == "master"
    assert client.info("server")["server_name"] == "kvserver"
    assert client.info("everything")["maxmemory"] == 0
    assert {"get", "set", "client"} <= {name.lower() for name in client.command()}
    assert client.command_count() == len(client.command())
    assert client.command_getkeys("MSET", "a", "1", "b", "2") in (["a", "b"], [b"a", b"b"])
    seconds, microseconds = client.time()
    assert seconds > 1_600_000_000
    assert 0 <= microseconds < 1_000_000
    assert client.role()[0] in (b"master", "master")
    assert client.echo("hello") == b"hello"
    assert client.lastsave() <= dt.datetime.now().astimezone().replace(tzinfo=None)
    assert client.wait(0, 10) == 0
    assert b"kvserver" in client.lolwut()


def test_settings(client: Any, library: Library) -> None:
    assert client.config_get("save") == {"save": ""}
    assert client.config_get("append*", "maxcl*")["appendonly"] == "no"
    assert client.config_set("maxclients", 5000) is True
    assert client.config_get("maxclients") == {"maxclients": "5000"}
    with pytest.raises(library.error, match="immutable"):
        client.config_set("port", 1)
    assert client.config_resetstat() is True


def test_connections_are_listed_and_closed(library: Library) -> None:
    with library.connect() as client, library.connect(client_name="victim") as victim:
        victim.ping()
        (found,) = [entry for entry in client.client_list() if entry["name"] == "victim"]
        assert client.client_kill_filter(_id=found["id"]) == 1
        assert victim.ping() is True  # on a new connection, which the library opens by itself
        assert client.client_kill(client.client_list()[-1]["addr"]) is True


def test_a_type_this_server_does_not_have(client: Any, library: Library) -> None:
    with pytest.raises(library.error, match="unknown command 'LPUSH'"):
        client.lpush("list", 1)
    assert client.ping() is True


def test_a_wrong_protocol_version_is_refused(server: kvserver.Server, library: Library) -> None:
    with (
        library.connect(decode_responses=True) as client,
        pytest.raises(library.error, match=r"NOPROTO|protocol version"),
    ):
        client.execute_command("HELLO", 4)


def test_the_pool_uses_a_connection_again(library: Library, client: Any) -> None:
    number = client.client_id()
    assert [client.client_id() for _ in range(10)] == [number] * 10
    assert len(client.client_list()) == 1


def test_threads_share_a_client(client: Any) -> None:
    start = threading.Barrier(8)

    def work() -> None:
        start.wait()
        for _ in range(100):
            client.incr("shared")

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert client.get("shared") == b"800"


def test_the_health_check_finds_a_dead_connection(library: Library) -> None:
    with library.connect(health_check_interval=1) as client, library.connect() as other:
        client.set("k", "v")
        connection = client.connection_pool.get_connection("PING")
        connection.next_health_check = 1.0  # long ago
        client.connection_pool.release(connection)
        assert other.client_kill_filter(_type="normal", skipme=True) == 1
        assert client.get("k") == b"v"


def test_a_database_of_ones_own(library: Library) -> None:
    with library.connect(db=5) as five, library.connect() as zero:
        five.set("k", "five")
        assert zero.get("k") is None
        assert zero.info("keyspace") == {"db5": {"keys": 1, "expires": 0, "avg_ttl": 0}}


def test_a_url_is_enough(server: kvserver.Server, library: Library) -> None:
    with library.from_url(f"{server.url}/2") as client:
        client.set("k", "v")
        assert int(client.client_info()["db"]) == 2


# The same libraries in asyncio


def _run(library: Library, body: Callable[[Any], Awaitable[None]], **options: Any) -> None:
    async def main() -> None:
        async with contextlib.aclosing(library.connect_async(**options)) as client:
            await body(client)

    asyncio.run(main())


def test_asyncio_strings_and_keys(library: Library) -> None:
    async def body(client: Any) -> None:
        assert await client.ping() is True
        assert await client.set("k", "v", ex=100, nx=True) is True
        assert await client.set("k", "w", get=True, keepttl=True) == b"v"
        assert await client.get("k") == b"w"
        assert 0 < await client.pttl("k") <= 100_000
        assert await client.getex("k", persist=True) == b"w"
        assert await client.ttl("k") == -1
        assert await client.mset({"a": 1, "b": 2}) is True
        assert await client.mget("a", "none", "b") == [b"1", None, b"2"]
        assert await client.incrby("a", 9) == 10
        assert await client.incrbyfloat("a", 0.25) == 10.25
        assert await client.append("b", "34") == 3
        assert await client.getrange("b", 0, 0) == b"2"
        assert await client.rename("b", "c") is True
        assert await client.copy("c", "b") is True
        assert await client.type("b") == b"string"
        assert await client.exists("a", "b", "c", "none") == 3
        assert await client.expire("c", 10) is True
        assert await client.getdel("c") == b"234"
        assert await client.delete("a", "none") == 1
        assert await client.dbsize() == 2
        with pytest.raises(library.error, match="not an integer"):
            await client.incr("k")
        assert (await client.info())["role"] == "master"
        assert await client.config_get("maxclients") == {"maxclients": "10000"}
        assert await client.flushdb() is True

    _run(library, body)


def test_asyncio_scanning_and_pipelines(library: Library) -> None:
    async def body(client: Any) -> None:
        async with client.pipeline(transaction=False) as pipe:
            for number in range(1000):
                pipe.set(f"k{number}", number)
            assert await pipe.execute() == [True] * 1000
        met = [key async for key in client.scan_iter(match="k*", count=50)]
        assert sorted(met) == sorted(f"k{number}" for number in range(1000))
        assert await client.get("k7") == "7"

    _run(library, body, decode_responses=True)


def test_asyncio_tasks_share_a_pool(library: Library) -> None:
    async def body(client: Any) -> None:
        await asyncio.gather(*(client.incr("shared") for _ in range(100)))
        assert await client.get("shared") == b"100"
        assert await client.client_id() in {int(entry["id"]) for entry in await client.client_list()}

    _run(library, body, max_connections=100, client_name="worker")


def test_asyncio_a_closed_connection_is_opened_again(library: Library) -> None:
    async def body(client: Any) -> None:
        number = await client.client_id()
        with library.connect() as other:
            other.client_kill_filter(_id=str(number))
        with contextlib.suppress(library.module.exceptions.ConnectionError):  # valkey-py does not try again by itself
            await client.ping()
        assert await client.client_id() != number

    _run(library, body)
