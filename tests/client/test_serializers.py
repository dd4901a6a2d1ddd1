"""Values of other types than bytes: packed on their way in, unpacked on their way out, by every face of the client."""

from __future__ import annotations

import asyncio
import dataclasses
import math
from typing import Any

import pydantic
import pytest

import kvclient
import kvclient.aio
from kvclient import serializers
from kvclient.errors import KVError, PipelineError, UnpackError


@dataclasses.dataclass
class User:
    name: str
    age: int = 0


class Order(pydantic.BaseModel):
    number: int
    lines: list[str]


SERIALIZERS: dict[str, tuple[serializers.Serializer[Any, Any], Any]] = {
    "text": (serializers.TEXT, "grüße\r\n"),
    "json": (serializers.JSON, {"a": [1, None, True, 1.5, "ü"]}),
    "msgpack": (serializers.msgpack(), {"a": [1, None, b"\x00\xff"]}),
    "pickle": (serializers.pickle(trusted=True), {1: {2}, (3,): complex(4)}),
    "dataclass": (serializers.model(User), User("ann", 30)),
    "pydantic": (serializers.model(Order), Order(number=1, lines=["a", "b"])),
    "list": (serializers.model(list[int]), [1, 2, 3]),
}


@pytest.mark.parametrize("name", SERIALIZERS)
def test_what_goes_in_comes_out(own_kv: kvclient.Client, name: str) -> None:
    serializer, value = SERIALIZERS[name]
    kv = own_kv.typed(serializer)
    assert kv.set("k", value)
    assert kv.get("k") == kv["k"] == kv.getex("k") == value
    assert kv.get("missing") is None
    assert kv.set_get("k", value, ttl=30) == kv.getset("k", value) == value
    assert kv.mget("k", "missing") == [value, None]
    assert kv.getdel("k") == value
    kv.mset({"a": value})
    assert not kv.msetnx({"a": value, "b": value})
    assert kv.msetex({b"c": value}, ttl=30)
    assert kv.setnx("d", value)
    kv.setex("e", 30, value)
    kv.psetex("f", 30_000, value)
    kv["g"] = value
    assert kv.mget(*"acdefg") == [value] * 6
    assert kv.set("a", value, if_equal=value)
    assert kv.delifeq("a", value)
    assert kv.delex("c", if_equal=value)
    assert type(kv.get("d")) is type(value)


@pytest.mark.parametrize("name", SERIALIZERS)
def test_in_pipelines_transactions_and_tasks(own_kv: kvclient.Client, own_url: str, name: str) -> None:
    serializer, value = SERIALIZERS[name]
    kv = own_kv.typed(serializer)
    with kv.pipeline() as p:
        p.set("k", value)
        got = p.get("k")
        p.mget("k")
    assert got.result() == value
    with kv.transaction() as t:
        got = t.getset("k", value)
    assert got.result() == value

    def copy(t: kvclient.WatchingTransaction[Any, Any]) -> None:
        t.set("copy", t.now.get("k"))

    kv.transaction(copy, watch=["k"])
    assert kv.get("copy") == value

    async def main() -> None:
        async with kvclient.aio.connect(own_url, serializer=serializer) as akv:
            assert await akv.get("copy") == value
            async with akv.pipeline() as p:
                again = p.get("copy")
            assert again.result() == value
            assert await akv.get_or_set("copy", None, ttl=5) == value  # type: ignore[arg-type]

    asyncio.run(main())


def test_what_works_on_part_of_a_value_works_on_bytes(own_kv: kvclient.Client) -> None:
    kv = own_kv.typed(serializers.JSON)
    kv.set("k", "ab")
    assert kv.getrange("k", 0, 1) == b'"a'
    assert kv.append("n", 4) == 1
    assert kv.incr("n") == kv.get("n") == 5


def test_a_value_that_cannot_be_packed_is_not_sent(own_kv: kvclient.Client) -> None:
    kv = own_kv.typed(serializers.JSON)
    for value in (object(), b"bytes", math.nan):
        with pytest.raises((TypeError, ValueError)):
            kv.set("k", value)
    with pytest.raises(TypeError, match="the values here are of type User, not dict"):
        own_kv.typed(serializers.model(User)).set("k", {"name": "ann"})  # type: ignore[arg-type]
    assert not own_kv.exists("k")


def test_what_another_program_has_stored(own_kv: kvclient.Client) -> None:
    own_kv.mset({"bad": b"\xff{", "good": "1"})
    kv = own_kv.typed(serializers.JSON)
    connection = kv.client_id()
    with pytest.raises(UnpackError, match=r"a value of 2 bytes is not what the JSON serializer writes") as raised:
        kv.get("bad")
    assert isinstance(raised.value, KVError)
    assert "xff" not in str(raised.value)  # no value is told
    assert kv.client_id() == connection  # the reply was whole
    with pytest.raises(UnpackError):
        own_kv.typed(serializers.model(User)).get("good")
    pipeline = kv.pipeline()
    bad, good = pipeline.get("bad"), pipeline.get("good")
    with pytest.raises(PipelineError):
        pipeline.run()
    assert isinstance(bad.error(), UnpackError)
    assert good.result() == 1
    assert kv.client_id() == connection


def test_pickle_warns() -> None:
    with pytest.warns(UserWarning, match="runs whatever code is in it"):
        serializers.pickle()


def test_one_of_your_own(own_kv: kvclient.Client) -> None:
    hexadecimal = serializers.Serializer("hex", lambda number: f"{number:x}", lambda data: int(data, 16))
    kv = own_kv.typed(hexadecimal)
    kv.set("k", 255)
    assert own_kv.get("k") == b"ff"
    assert kv.get("k") == 255
    own_kv.set("k", "nothing of the kind")
    connection = kv.client_id()
    with pytest.raises(UnpackError, match=r"not what the hex serializer writes \(ValueError\)"):
        kv.get("k")
    pipeline = kv.pipeline(raise_errors=False)
    bad, good = pipeline.get("k"), pipeline.strlen("k")
    pipeline.run()
    assert isinstance(bad.error(), UnpackError)
    assert good.result() == 19
    assert kv.client_id() == connection
