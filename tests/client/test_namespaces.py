"""Namespaces: every key gets the prefix, in every face, and nothing beside keys does."""

from __future__ import annotations

import asyncio
import inspect

import pytest

import kvclient
import kvclient.aio
from kvclient.commands import Commands
from kvclient.commands.base import _commands_of
from kvclient.errors import CommandRefusedError


def test_keys_get_the_prefix(own_kv: kvclient.Client) -> None:
    app = own_kv.ns("app:")
    app.set("a", 1)
    app[b"b"] = 2
    app.mset({"c": 3, b"d": 4})
    own_kv.set("other", 5)
    assert own_kv.mget("app:a", "app:b", "app:c", "app:d") == [b"1", b"2", b"3", b"4"]
    assert app.mget("a", "b", "other") == [b"1", b"2", None]
    assert app.incr("a") == 2
    assert app.rename("a", "e") is None
    assert own_kv.exists("app:e")
    assert app.bitop("or", "f", "b", "c") == 1
    assert own_kv.exists("app:f")
    assert app.delete("b", "c", "other") == 2
    assert set(app) == {b"d", b"e", b"f"}
    assert len(app) == 3
    assert "d" in app
    assert "app:d" not in app
    assert list(app.scan_iter(match="[de]", count=1)) in ([b"d", b"e"], [b"e", b"d"])


def test_within_each_other_and_of_any_text(own_kv: kvclient.Client) -> None:
    inner = own_kv.ns("a*[x]?\\:").ns("ü:")
    inner.set("k", 1)
    own_kv.set("axxx:ü:k", 2)
    assert set(inner) == {b"k"}
    assert own_kv.get("a*[x]?\\:ü:k") == b"1"
    assert repr(inner).endswith("in 'a*[x]?\\\\:ü:'>")


def test_in_pipelines_and_transactions(own_kv: kvclient.Client) -> None:
    app = own_kv.ns("app:")
    with app.pipeline() as p:
        p.set("a", 1)
        with pytest.raises(CommandRefusedError):
            p.execute("SET", "b", 2)
    with app.transaction() as t:
        t.incr("a")
    own_kv.set("a", 100)

    def double(t: kvclient.WatchingTransaction) -> None:
        value = int(t.now.get("a") or 0)
        own_kv.set("a", 1)  # another key than the one that is watched
        t.set("a", value * 2)

    app.transaction(double, watch=["a"])
    assert own_kv.get("app:a") == b"4"


@pytest.mark.parametrize("name", ["flushdb", "flushall", "keys", "randomkey", "dbsize", "scan"])
def test_what_is_about_all_keys_is_refused(own_kv: kvclient.Client, name: str) -> None:
    own_kv.set("k", 1)
    with pytest.raises(CommandRefusedError, match="outside of the namespace"):
        getattr(own_kv.ns("app:"), name)()
    assert own_kv.dbsize() == 1


def test_words_are_refused_since_nobody_knows_which_are_keys(own_kv: kvclient.Client) -> None:
    with pytest.raises(CommandRefusedError, match="outside of the namespace"):
        own_kv.ns("app:").execute("SET", "k", 1)


def test_what_has_no_keys_is_as_it_was(own_kv: kvclient.Client) -> None:
    app = own_kv.ns("app:")
    assert app.ping() == b"PONG"
    assert app.publish("news", "message") == 0
    with own_kv.listen("news") as messages:
        app.publish("news", "message")
        assert messages.next(timeout=5) == kvclient.Message(b"news", b"message")


def test_of_tasks(own_url: str) -> None:
    async def main() -> None:
        async with kvclient.aio.connect(own_url) as kv:
            await kv.flushall()
            app = kv.ns("app:")
            await app.set("a", 1)
            async with app.pipeline() as p:
                p.mset({"b": 2})
            assert [key async for key in app.scan_iter()] in ([b"a", b"b"], [b"b", b"a"])
            assert await kv.exists("app:a", "app:b") == 2
            with pytest.raises(CommandRefusedError):
                await app.flushdb()
            with pytest.raises(CommandRefusedError):
                await app.execute("GET", "a")

    asyncio.run(main())


def test_every_parameter_that_holds_keys_is_known_as_one() -> None:
    """Parameters are recognised by their annotation: what looks like a key by its name must be annotated so."""
    for name, command in _commands_of(Commands):
        parameters = list(inspect.signature(command.build).parameters.values())[1:]
        for place, parameter in enumerate(parameters):
            looks_like_keys = parameter.name in {
                "key", "keys", "key1", "key2", "new_key", "source", "destination", "items",
            }  # fmt: skip
            assert looks_like_keys == (place in command._places.positions), (name, parameter.name)
