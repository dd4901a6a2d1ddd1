"""valkey-glide (the synchronous one), Valkey's own client with a core in Rust."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from glide_sync import (
    Batch,
    ConditionalChange,
    ExpirySet,
    ExpiryType,
    GlideClient,
    GlideClientConfiguration,
    NodeAddress,
    ProtocolVersion,
)

import kvserver


@pytest.fixture(params=[ProtocolVersion.RESP2, ProtocolVersion.RESP3], ids=["RESP2", "RESP3"])
def settings(server: kvserver.Server, request: pytest.FixtureRequest) -> dict[str, Any]:
    return {"addresses": [NodeAddress("127.0.0.1", server.port)], "protocol": request.param, "request_timeout": 10_000}


@pytest.fixture
def client(settings: dict[str, Any]) -> Iterator[Any]:
    made = GlideClient.create(GlideClientConfiguration(**settings))
    yield made
    made.close()


def test_commands(client: Any) -> None:
    assert client.set("k", "v", expiry=ExpirySet(ExpiryType.SEC, 60)) == "OK"
    assert client.get("k") == b"v"
    assert client.set("k", "w", conditional_set=ConditionalChange.ONLY_IF_DOES_NOT_EXIST) is None
    assert 0 < client.ttl("k") <= 60
    assert client.mset({"a": "1", "b": "2"}) == "OK"
    assert client.mget(["a", "none", "b"]) == [b"1", None, b"2"]
    assert client.incrby("a", 41) == 42
    assert client.incrbyfloat("b", 0.5) == 2.5
    assert client.setbit("bits", 7, 1) == 0
    assert client.bitcount("bits") == 1
    cursor, keys = client.scan("0", match="[ab]", count=100)
    assert (cursor, sorted(keys)) == (b"0", [b"a", b"b"])
    assert client.delete(["a", "none"]) == 1
    assert b"role:master" in client.info()
    assert client.config_get(["maxclients"]) == {b"maxclients": b"10000"}
    assert client.flushall() == "OK"


def test_transactions_and_pipelines(client: Any, settings: dict[str, Any]) -> None:
    atomic = Batch(is_atomic=True).set("a", "1").incr("a").get("a")
    assert client.exec(atomic, raise_on_error=True) == ["OK", 2, b"2"]
    loose = Batch(is_atomic=False).set("b", "1").get("none").incr("b")
    assert client.exec(loose, raise_on_error=True) == ["OK", None, 2]
    other = GlideClient.create(GlideClientConfiguration(**settings))
    client.watch(["a"])
    other.set("a", "9")
    assert client.exec(Batch(is_atomic=True).incr("a"), raise_on_error=True) is None
    other.close()


def test_messages(settings: dict[str, Any]) -> None:
    subscribed = GlideClientConfiguration.PubSubSubscriptions(
        channels_and_patterns={
            GlideClientConfiguration.PubSubChannelModes.Exact: {"news"},
            GlideClientConfiguration.PubSubChannelModes.Pattern: {"sport.*"},
        },
        callback=None,
        context=None,
    )
    settings = settings | {"protocol": ProtocolVersion.RESP3}  # it has no messages in RESP2
    listener = GlideClient.create(GlideClientConfiguration(**settings, pubsub_subscriptions=subscribed))
    publisher = GlideClient.create(GlideClientConfiguration(**settings))
    assert publisher.publish("hello", "news") == 1
    assert publisher.publish("goal", "sport.football") == 1
    first, second = listener.get_pubsub_message(), listener.get_pubsub_message()
    assert (first.message, first.channel, first.pattern) == (b"hello", b"news", None)
    assert (second.message, second.channel, second.pattern) == (b"goal", b"sport.football", b"sport.*")
    listener.close()
    publisher.close()
