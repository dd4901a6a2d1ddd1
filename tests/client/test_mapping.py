"""Client.mapping(): the standard library's own tests of mappings, and a dictionary that does the same beside it."""

from __future__ import annotations

import threading
from collections.abc import Iterator, MutableMapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from test import mapping_tests

import kvclient
import kvserver
from kvclient import serializers

_SERVER = kvserver.Server(port=0)


@pytest.fixture(scope="module", autouse=True)
def _server() -> Iterator[None]:
    with _SERVER:
        yield


class TestAsTheStandardLibrary(mapping_tests.BasicTestMappingProtocol):
    """Each mapping that it makes is in a namespace of its own."""

    type2test = dict  # type: ignore[assignment]
    made = 0

    def setUp(self) -> None:
        self.client = kvclient.connect(_SERVER.url, serializer=serializers.JSON)

    def tearDown(self) -> None:
        self.client.flushall()
        self.client.close()

    def _reference(self) -> dict[Any, Any]:
        return {"1": "2", "key1": "value1", "key2": [1, 2, 3]}

    def _empty_mapping(self) -> kvclient.KeyMapping[Any]:
        TestAsTheStandardLibrary.made += 1
        return self.client.mapping(f"{self.made}:")

    def _full_mapping(self, data: dict[Any, Any]) -> kvclient.KeyMapping[Any]:
        mapping = self._empty_mapping()
        mapping.update(data)
        return mapping

    def test_constructor(self) -> None:
        assert dict(self._empty_mapping()) == {}

    def test_update(self) -> None:
        mapping = self._full_mapping({"a": 1})
        mapping.update([("b", 2)], c=3)
        mapping.update({"a": 4})
        mapping |= {"d": 5}
        assert dict(mapping) == {"a": 4, "b": 2, "c": 3, "d": 5}
        with pytest.raises(TypeError):
            mapping.update(5)  # type: ignore[call-overload]

    def test_write(self) -> None:
        self._reads_and_writes(self._empty_mapping())

    @staticmethod
    def _reads_and_writes(mapping: MutableMapping[str, Any]) -> None:
        mapping["a"] = 1
        assert mapping["a"] == 1
        del mapping["a"]
        with pytest.raises(KeyError):
            mapping["a"]
        with pytest.raises(KeyError):
            del mapping["a"]
        with pytest.raises(TypeError, match="are str, not int"):
            mapping[1] = 2  # type: ignore[index]
        assert 1 not in mapping


class Beside(RuleBasedStateMachine):
    """Whatever is done to a dictionary and to a mapping, they are equal."""

    keys = st.text(max_size=3)
    values = st.one_of(st.integers(), st.text(max_size=5))

    def __init__(self) -> None:
        super().__init__()
        self.client = kvclient.connect(_SERVER.url, serializer=serializers.JSON)
        self.client.flushall()
        self.ours = self.client.mapping("a*:")
        self.theirs: dict[str, Any] = {}

    def teardown(self) -> None:
        self.client.close()

    @rule(key=keys, value=values)
    def set(self, key: str, value: object) -> None:
        self.ours[key] = self.theirs[key] = value

    @rule(key=keys, value=values)
    def setdefault(self, key: str, value: object) -> None:
        assert self.ours.setdefault(key, value) == self.theirs.setdefault(key, value)

    @rule(key=keys, value=values)
    def pop(self, key: str, value: object) -> None:
        assert self.ours.pop(key, value) == self.theirs.pop(key, value)

    @rule(items=st.dictionaries(keys, values, max_size=4))
    def update(self, items: dict[str, object]) -> None:
        self.ours.update(items)
        self.theirs.update(items)

    @rule()
    def popitem(self) -> None:
        if self.theirs:
            key, value = self.ours.popitem()
            assert self.theirs.pop(key) == value
        else:
            with pytest.raises(KeyError):
                self.ours.popitem()

    @rule()
    def clear(self) -> None:
        self.ours.clear()
        self.theirs.clear()

    @invariant()
    def equal(self) -> None:
        assert self.ours == self.theirs
        assert len(self.ours) == len(self.theirs)
        assert bool(self.ours) == bool(self.theirs)
        assert set(self.ours.keys()) == self.theirs.keys()
        assert sorted(map(repr, self.ours.values())) == sorted(map(repr, self.theirs.values()))


TestBeside = Beside.TestCase
TestBeside.settings = settings(max_examples=25, stateful_step_count=30)


def test_lifetimes_pages_and_keys_of_any_bytes() -> None:
    with kvclient.connect(_SERVER.url) as kv:
        kv.flushall()
        mapping = kv.mapping("m:", ttl=100)
        mapping["one"] = b"1"
        mapping.update({f"{number}": b"%d" % number for number in range(1234)})
        assert mapping.setdefault("two", b"2") == b"2"
        assert all(0 < kv.ttl(f"m:{key}") <= 100 for key in ("one", "two", "7", "1233"))
        assert len(dict(mapping)) == len(mapping) == 1236
        mapping.clear()
        assert kv.dbsize() == 0
        kv.set(b"m:\xff\x00", "x")
        (key,) = mapping
        assert mapping[key] == b"x"
        del mapping[key]
        assert kv.dbsize() == 0


def test_each_gets_another_item_and_one_stores_the_default() -> None:
    start = threading.Barrier(8)
    with kvclient.connect(_SERVER.url) as kv:
        kv.flushall()
        mapping = kv.mapping("m:")
        mapping.update({f"{number}": b"x" for number in range(80)})

        def take(name: int) -> tuple[list[str], bytes]:
            start.wait(10)
            taken = [mapping.popitem()[0] for _ in range(10)]
            start.wait(10)
            return taken, mapping.setdefault("first", b"%d" % name)

        with ThreadPoolExecutor(8) as pool:
            results = list(pool.map(take, range(8)))
        assert {key for keys, _ in results for key in keys} == {f"{number}" for number in range(80)}
        assert len({winner for _, winner in results}) == 1
