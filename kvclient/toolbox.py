"""What programs build on a store, as methods of the client: locks, limits, caches, mappings, files.

Not here: how each works (recipes/ and the modules it is imported from), and running commands (client.py).
"""

from __future__ import annotations

import io
import time
from typing import TYPE_CHECKING, Any, Literal, ParamSpec, TypeVar, cast, overload

from kvclient.caching import CachedFunction, Lifetimes, cached
from kvclient.commands import Commands
from kvclient.commands.base import Direct, prefixed
from kvclient.files import CHUNK, ValueReader, ValueWriter, check_mode
from kvclient.locking import Lock, Semaphore
from kvclient.mapping import KeyMapping
from kvclient.nearcache import NearCache
from kvclient.protocol import to_bytes
from kvclient.recipes.limits import use
from kvclient.recipes.locks import LockRecipes
from kvclient.recipes.semaphores import SemaphoreRecipes
from kvclient.recipes.steps import Ask, Call, Pause, Together, run
from kvclient.serializers import In, Out

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from kvclient.client import Client
    from kvclient.commands.options import Ttl
    from kvclient.connection import Connection
    from kvclient.pipeline import Source
    from kvclient.protocol import Key, Reply, Value
    from kvclient.recipes.caching import Cache
    from kvclient.recipes.limits import RateLimit
    from kvclient.recipes.steps import Recipe, Step
    from kvclient.serializers import Serializer

P = ParamSpec("P")
T = TypeVar("T")
_monotonic = time.monotonic


class Toolbox(Commands[In, Out], Direct[In, Out], is_part=True):
    """The part of Client that is built on the rest of it."""

    _pool: Source
    _cache: Cache

    def _listening(self) -> Connection:
        """A connection of its own, not yet open, for what the server sends unasked."""
        raise NotImplementedError

    @property
    def _everything(self) -> Client:
        """The client outside of all namespaces, with values as bytes."""
        raise NotImplementedError

    def lock(self, name: str, *, ttl: float = 30, wait: float = 10, extend: bool = True) -> Lock:
        """A lock that all programs share which use the same name; for a with block.

            with client.lock("report") as lock:
                store.write(report, fence=lock.fence)

        It works with kvserver, Valkey and Redis. What it protects is safe from a holder that was suspended for longer
        than the ttl only if it refuses a `fence` lower than one it has seen.

        Args:
            name: the key; a counter is beside it, at a key that begins with name + ":fence".
            ttl: seconds after which it ends by itself, if this program dies.
            wait: seconds to wait for somebody else who holds it.
            extend: keep it for as long as the block takes, by a thread; no longer than the thread lives that entered.

        Raises (on entering):
            LockTimeoutError: somebody else held it all the time.
        """
        return Lock(self._follow, LockRecipes(self._name(name), ttl, _monotonic), wait, extend=extend)

    def semaphore(self, name: str, limit: int, *, ttl: float = 30, wait: float = 10, extend: bool = True) -> Semaphore:
        """One of `limit` places that all programs share which use the same name; for a with block.

            with client.semaphore("printers", 3) as semaphore:
                print_on(semaphore.place)

        It works with kvserver, Valkey and Redis. There is no queue: who has waited longest is not served first.

        Args:
            name: what the keys begin with; a colon and the place's number follow.
            limit: how many may hold it at once; the same for everybody.
            ttl: seconds after which a place is free again by itself, if this program dies.
            wait: seconds to wait for a place.
            extend: keep the place for as long as the block takes, by a thread.

        Raises (on entering):
            LockTimeoutError: others held all places all the time.
        """
        recipes = SemaphoreRecipes(self._name(name), limit, ttl, _monotonic)
        return Semaphore(self._follow, recipes, wait, extend=extend)

    def cached(
        self,
        *,
        ttl: float,
        key: str | None = None,
        stale: float = 0,
        early: float = 0,
        lease: float = 10,
        serializer: Serializer[Any, Any] | None = None,
    ) -> Callable[[Callable[P, T]], CachedFunction[P, T]]:
        """Keep a function's results on the server: a decorator. One caller computes, as for get_or_set().

            @client.cached(ttl=60, key="user:{number}", serializer=serializers.JSON)
            def load_user(number: int) -> dict[str, str]: ...

            load_user(7)             # kept at user:7 for a minute
            load_user.invalidate(7)  # forgotten

        Args:
            ttl: seconds for which a result is fresh; this and the next three as for get_or_set().
            stale: seconds for which an old one will do, while one caller computes.
            early: seconds before its end from which one caller computes ahead.
            lease: seconds that computing may take.
            key: the key of a result, with the names of arguments in braces. Without it, the function's module and name
                and a digest of the arguments' repr(), which must tell different arguments apart.
            serializer: how results become bytes; default: the client's, and then they must be bytes if it has none.
        """
        view = cast("Client[Any, Any]", self)
        return cached(view, serializer, key, Lifetimes(ttl, stale, early, lease))

    @overload
    def mapping(self: Toolbox[Value, bytes], prefix: str, *, ttl: Ttl | None = None) -> KeyMapping[bytes]: ...
    @overload
    def mapping(self: Toolbox[T, T], prefix: str, *, ttl: Ttl | None = None) -> KeyMapping[T]: ...
    def mapping(self, prefix: str, *, ttl: Ttl | None = None) -> KeyMapping[Any]:
        """The keys with a prefix as a dictionary, from names without the prefix (str) to values.

            sessions = client.typed(serializers.JSON).mapping("session:", ttl=3600)
            sessions["x"] = {"user": 7}
            dict(sessions)

        Args:
            prefix: what the keys begin with.
            ttl: the lifetime of what is stored, in seconds or as a timedelta.
        """
        return KeyMapping(cast("Client[Any, Any]", self).ns(prefix), ttl)

    def near_cache(self, *, prefixes: Iterable[Key] = (), max_keys: int = 10_000) -> NearCache[Out]:
        """A cache in this process for reads, which the server keeps right by telling of every change; for a with block.

            with client.near_cache(prefixes=["user:"]) as near:
                near.get("user:7")  # asked for once, then from this process until it changes

        A change is seen as soon as its invalidation has arrived, also one by this client. Server command: CLIENT
        TRACKING, with BCAST; over RESP3.

        Args:
            prefixes: of the keys to keep; none: all keys. Others are asked for each time.
            max_keys: how many keys to keep; those kept for longest go first.

        Raises (on entering):
            CannotConnectError: there is no connection, or the server does not speak RESP3.
        """
        return NearCache(self._everything, self._listening, self._unpack, self._prefix, prefixes, max_keys)

    @overload
    def open(self, key: Key, mode: Literal["rb"] = "rb", *, chunk: int = CHUNK) -> io.BufferedReader: ...
    @overload
    def open(self, key: Key, mode: Literal["wb"], *, ttl: Ttl | None = None, chunk: int = CHUNK) -> ValueWriter: ...
    def open(
        self, key: Key, mode: Literal["rb", "wb"] = "rb", *, ttl: Ttl | None = None, chunk: int = CHUNK
    ) -> io.BufferedReader | ValueWriter:
        """A value as a file, of which one piece at a time is in memory.

            with client.open("backup", "wb") as file:
                shutil.copyfileobj(source, file)

        What is written takes the key's place when the file is closed, and not at all if the with block raises. What is
        read is the value as it was when it was opened. Server commands: COPY, GETRANGE; APPEND, RENAME. Meanwhile a
        key beside it, which ends by itself, holds the copy or the part.

        Args:
            key: the key.
            mode: "rb" to read, "wb" to write.
            ttl: the lifetime of what is written, as for set().
            chunk: bytes to ask for or to send at once.

        Raises:
            FileNotFoundError: there is no such key to read.
        """
        check_mode(mode)
        name = prefixed(self._prefix, key)
        if mode == "rb":
            return io.BufferedReader(ValueReader(self._everything, name), chunk)
        return ValueWriter(self._everything, name, ttl, chunk)

    def rate_limit(self, key: Key, limit: int, *, per: float) -> RateLimit:
        """Count one use of a key, of which `limit` are allowed within `per` seconds; whether this one was.

            if not client.rate_limit(f"login:{user}", 5, per=60):
                raise TooManyTries

        The count begins with the first use. One round trip, to any server.
        """
        return self._follow(use(self._prefix + to_bytes(key), limit, per))

    def get_or_set(
        self,
        key: str,
        compute: Callable[[], In],
        *,
        ttl: float,
        stale: float = 0,
        early: float = 0,
        lease: float = 10,
    ) -> Out:
        """The value of a key; if there is none, compute() it and store it, one caller at a time.

        Args:
            key: the key. With other servers than kvserver, who computes holds another, at key + ":lease" and more.
            compute: gives the value.
            ttl: seconds after which the value is computed anew.
            stale: seconds for which the old one will do for everybody else, while one caller computes.
            early: seconds before the ttl's end from which one caller computes ahead, so that nobody has to wait. If
                that fails, it gets the value there is.
            lease: seconds that computing may take; after them another caller begins.

        Raises:
            CallTimeoutError: others were computing all the time, twice the lease, and no value came.
        """
        recipe = self._cache.get_or_set(self._name(key), ttl=ttl, stale=stale, early=early, lease=lease)
        return self._unpack(self._follow(recipe, lambda: to_bytes(self._pack(compute()))))

    def _name(self, key: str) -> str:
        """A key within the namespace, for a recipe, whose keys are the server's."""
        return self._prefix.decode() + key

    def _follow(self, recipe: Recipe[T], compute: Callable[[], bytes] | None = None) -> T:
        everything = self._everything

        def take(step: Step) -> Reply:
            match step:
                case Ask(args):
                    return everything.execute(*args)
                case Together(commands):
                    with everything.transaction() as transaction:
                        futures = [transaction.execute(*args) for args in commands]
                    return [future.result() for future in futures]
                case Pause(seconds):
                    self._pool.pause(seconds)
                    return None
                case Call():
                    assert compute is not None
                    return compute()

        return run(recipe, take)
