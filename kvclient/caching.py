"""Functions whose results are kept on the server, for threads and for tasks.

Not here: how one caller computes while others wait or take the old value (recipes/caching.py).
"""

from __future__ import annotations

import functools
import hashlib
import inspect
import types
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, TypeVar, overload

from kvclient.serializers import PLAIN, Serializer

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine

    from kvclient.aio.client import AsyncClient
    from kvclient.client import Client

P = ParamSpec("P")
T = TypeVar("T")


class Lifetimes:
    """For how long a result is fresh, and so on: the options of get_or_set()."""

    def __init__(self, ttl: float, stale: float, early: float, lease: float) -> None:
        self.options = {"ttl": ttl, "stale": stale, "early": early, "lease": lease}


class _Keyed(Generic[P]):
    """A function, and the key of a call."""

    def __init__(self, function: Callable[P, object], template: str | None) -> None:
        functools.update_wrapper(self, function)  # type: ignore[arg-type]
        self._signature = inspect.signature(function)
        self._template = template
        self._default = f"{function.__module__}.{function.__qualname__}"

    def key(self, *args: P.args, **kwargs: P.kwargs) -> str:
        """The key that the result of a call with these arguments has, within the client's namespace."""
        bound = self._signature.bind(*args, **kwargs)
        bound.apply_defaults()
        if self._template is not None:
            return self._template.format(**bound.arguments)
        told = repr(sorted(bound.arguments.items())).encode()
        return f"{self._default}:{hashlib.blake2b(told, digest_size=16).hexdigest()}"

    @overload
    def __get__(self, instance: None, owner: type) -> Any: ...
    @overload
    def __get__(self, instance: object, owner: type) -> Any: ...
    def __get__(self, instance: object | None, owner: type) -> Any:
        """A method, where the function stands in a class."""
        return self if instance is None else types.MethodType(self, instance)  # type: ignore[arg-type]


def _plain_needs_bytes(client: Client[Any, Any] | AsyncClient[Any, Any], value: object) -> None:
    if client.serializer is PLAIN and not isinstance(value, bytes):
        raise TypeError(
            f"the function returned {type(value).__name__}, and would return bytes the next time: say how it is to be "
            "kept, as in cached(ttl=60, serializer=serializers.JSON)"
        )


class CachedFunction(_Keyed[P], Generic[P, T]):
    """A function whose results are kept on the server; Client.cached() makes one."""

    def __init__(
        self, client: Client[Any, Any], function: Callable[P, T], template: str | None, lifetimes: Lifetimes
    ) -> None:
        super().__init__(function, template)
        self._client = client
        self._function = function
        self._options = lifetimes.options

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> T:
        """The result that is kept, or else what the function returns now."""

        def compute() -> T:
            value = self._function(*args, **kwargs)
            _plain_needs_bytes(self._client, value)
            return value

        result: T = self._client.get_or_set(self.key(*args, **kwargs), compute, **self._options)
        return result

    def invalidate(self, *args: P.args, **kwargs: P.kwargs) -> bool:
        """Delete the result that is kept for these arguments; whether there was one."""
        return bool(self._client.delete(self.key(*args, **kwargs)))


class AsyncCachedFunction(_Keyed[P], Generic[P, T]):
    """A coroutine function whose results are kept on the server; AsyncClient.cached() makes one."""

    def __init__(
        self,
        client: AsyncClient[Any, Any],
        function: Callable[P, Awaitable[T]],
        template: str | None,
        lifetimes: Lifetimes,
    ) -> None:
        super().__init__(function, template)
        self._client = client
        self._function = function
        self._options = lifetimes.options

    async def __call__(self, *args: P.args, **kwargs: P.kwargs) -> T:
        """The result that is kept, or else what the function returns now."""

        async def compute() -> T:
            value = await self._function(*args, **kwargs)
            _plain_needs_bytes(self._client, value)
            return value

        result: T = await self._client.get_or_set(self.key(*args, **kwargs), compute, **self._options)
        return result

    async def invalidate(self, *args: P.args, **kwargs: P.kwargs) -> bool:
        """Delete the result that is kept for these arguments; whether there was one."""
        return bool(await self._client.delete(self.key(*args, **kwargs)))


def cached(
    client: Client[Any, Any], serializer: Serializer[Any, Any] | None, template: str | None, lifetimes: Lifetimes
) -> Callable[[Callable[P, T]], CachedFunction[P, T]]:
    """The decorator behind Client.cached()."""
    view = client if serializer is None else client.typed(serializer)
    return lambda function: CachedFunction(view, function, template, lifetimes)


def async_cached(
    client: AsyncClient[Any, Any], serializer: Serializer[Any, Any] | None, template: str | None, lifetimes: Lifetimes
) -> Callable[[Callable[P, Coroutine[Any, Any, T]]], AsyncCachedFunction[P, T]]:
    """The decorator behind AsyncClient.cached()."""
    view = client if serializer is None else client.typed(serializer)
    return lambda function: AsyncCachedFunction(view, function, template, lifetimes)
