"""The keys with a prefix as a dictionary: all that collections.abc.MutableMapping promises.

Not here: the client's own few mapping methods (client.py), which work on keys as bytes. There is none for asyncio,
since the mapping protocol cannot be awaited.
"""

from __future__ import annotations

from collections.abc import ItemsView, Iterable, Iterator, Mapping, MutableMapping, ValuesView
from typing import TYPE_CHECKING, Any, Final, TypeVar, overload

from kvclient.errors import ServerError

if TYPE_CHECKING:
    from kvclient.client import Client
    from kvclient.commands.options import Ttl

V = TypeVar("V")
T = TypeVar("T")

PAGE: Final = 500  # keys whose values are asked for, or set, at once


class KeyMapping(MutableMapping[str, V]):
    """A live view of the keys with a prefix, by names without it; Client.mapping() makes one. Threads may share it.

    It is as large as what is on the server: iterating goes page by page, and keys that come or go meanwhile may be
    missing or not. len() and == look at every key. Each method that is one command is atomic; update(), clear() and
    popitem() are not.

    Args:
        client: of the namespace.
        ttl: the lifetime of what is stored; None: without end.
    """

    def __init__(self, client: Client[Any, V], ttl: Ttl | None = None) -> None:
        self._client = client
        self._ttl = ttl

    def __repr__(self) -> str:
        return f"<kvclient.KeyMapping of {self._client!r}>"

    def __getitem__(self, key: str) -> V:
        return self._client[_key(key)]

    def __setitem__(self, key: str, value: V) -> None:
        self._client.set(_key(key), value, ttl=self._ttl)

    def __delitem__(self, key: str) -> None:
        if not self._client.delete(_key(key)):
            raise KeyError(key)

    def __contains__(self, key: object) -> bool:
        return isinstance(key, str) and _key(key) in self._client

    def __iter__(self) -> Iterator[str]:
        seen: set[bytes] = set()  # a server may tell a key twice while its table grows
        for key in self._client.scan_iter(count=PAGE):
            if key not in seen:
                seen.add(key)
                yield _name(key)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __bool__(self) -> bool:
        return next(self._client.scan_iter(count=PAGE), None) is not None

    def __eq__(self, other: object) -> bool:
        return dict(self.items()) == dict(other.items()) if isinstance(other, Mapping) else NotImplemented

    __hash__ = None  # type: ignore[assignment]  # as a dict: it can change

    def values(self) -> ValuesView[V]:
        """The values, asked for page by page."""
        return _Values(self)

    def items(self) -> ItemsView[str, V]:
        """The keys with their values, asked for page by page."""
        return _Items(self)

    def pairs(self) -> Iterator[tuple[str, V]]:
        """What items() iterates over."""
        page: list[str] = []
        for key in self:
            page.append(key)
            if len(page) == PAGE:
                yield from self._fetched(page)
                page.clear()
        yield from self._fetched(page)

    def _fetched(self, keys: list[str]) -> Iterator[tuple[str, V]]:
        if keys:
            for key, value in zip(keys, self._client.mget(*map(_key, keys)), strict=True):
                if value is not None:  # it has not gone meanwhile
                    yield key, value

    @overload
    def get(self, key: str, /) -> V | None: ...
    @overload
    def get(self, key: str, /, default: V | T) -> V | T: ...
    def get(self, key: str, /, default: object = None) -> object:
        """The value of a key, or the default."""
        value = self._client.get(_key(key))
        return default if value is None else value

    @overload
    def pop(self, key: str, /) -> V: ...
    @overload
    def pop(self, key: str, /, default: V | T) -> V | T: ...
    def pop(self, key: str, /, default: object = ...) -> object:
        """Delete a key and return its value, in one step; the default, if there is none."""
        value = self._client.getdel(_key(key))
        if value is None:
            if default is ...:
                raise KeyError(key)
            return default
        return value

    def popitem(self) -> tuple[str, V]:
        """Delete some key and return it with its value. Of callers at the same time, each gets another one."""
        for key in self:
            value = self._client.getdel(_key(key))
            if value is not None:
                return key, value
        raise KeyError("this mapping is empty")

    def setdefault(self, key: str, default: V = None) -> V:  # type: ignore[assignment]  # as dict has it
        """The value of a key, after storing the default if there was none: of several callers, one stores."""
        while True:
            try:
                found = self._client.set_get(_key(key), default, ttl=self._ttl, if_absent=True)
            except ServerError:  # before Redis 7, these options exclude each other
                stored = self._client.set(_key(key), default, ttl=self._ttl, if_absent=True)
                found = None if stored else self._client.get(_key(key))
                if not stored and found is None:  # it has gone in between
                    continue
            return default if found is None else found

    def update(self, other: Mapping[str, V] | Iterable[tuple[str, V]] = (), /, **more: V) -> None:  # type: ignore[override]
        """Store many values, some hundred at a time."""
        items: Any = other.items() if isinstance(other, Mapping) else other
        pairs: list[tuple[str, V]] = [*items, *more.items()]
        for start in range(0, len(pairs), PAGE):
            page = {_key(key): value for key, value in pairs[start : start + PAGE]}
            if self._ttl is None:
                self._client.mset(page)
            else:
                with self._client.pipeline() as pipeline:
                    for key, value in page.items():
                        pipeline.set(key, value, ttl=self._ttl)

    def __ior__(self, other: Mapping[str, V]) -> KeyMapping[V]:
        self.update(other)
        return self

    def clear(self) -> None:
        """Delete every key with the prefix, some hundred at a time."""
        page: list[bytes] = []
        for key in self._client.scan_iter(count=PAGE):
            page.append(key)
            if len(page) == PAGE:
                self._client.unlink(*page)
                page.clear()
        if page:
            self._client.unlink(*page)


class _Values(ValuesView[V]):
    _mapping: KeyMapping[V]

    def __iter__(self) -> Iterator[V]:
        return (value for _, value in self._mapping.pairs())

    def __contains__(self, value: object) -> bool:
        return any(value == each for each in self)


class _Items(ItemsView[str, V]):
    _mapping: KeyMapping[V]

    def __iter__(self) -> Iterator[tuple[str, V]]:
        return self._mapping.pairs()


def _key(name: str) -> bytes:
    if not isinstance(name, str):
        raise TypeError(f"the keys of this mapping are str, not {type(name).__name__}")
    return name.encode("utf-8", "surrogateescape")


def _name(key: bytes) -> str:
    """Keys that are not UTF-8 have their other bytes as lone surrogates, and so come back the same."""
    return key.decode("utf-8", "surrogateescape")
