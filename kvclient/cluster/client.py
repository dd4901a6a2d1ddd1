"""The client of a cluster: the same commands as of one server, each sent to the node that has its keys.

Not here: which node that is (slots.py, keys.py, split.py), and how a command gets there (router.py).
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, TypeVar

from kvclient.client import Client
from kvclient.cluster.nearcache import ClusterNearCache
from kvclient.cluster.pipeline import ClusterPipeline, ClusterTransaction, outcomes
from kvclient.cluster.plan import Sent, replies_among
from kvclient.cluster.redirects import Route
from kvclient.cluster.router import Router
from kvclient.cluster.slots import slot_of
from kvclient.cluster.split import Part, listening_slot, merged, one_slot, parts_of
from kvclient.cluster.walk import Walk
from kvclient.commands import to
from kvclient.commands.base import prefixed
from kvclient.errors import KVError
from kvclient.listening import Subscription
from kvclient.observer import name_of
from kvclient.protocol import to_bytes
from kvclient.serializers import In, Out
from kvclient.transaction import Watch, watching

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Iterable

    from kvclient.cluster.slots import SlotMap
    from kvclient.commands.base import Args
    from kvclient.connection import Connection
    from kvclient.pool import Pool
    from kvclient.protocol import Key, Reply
    from kvclient.transaction import Transaction, WatchingTransaction

T = TypeVar("T")
_monotonic = time.monotonic


class ClusterClient(Client[In, Out]):
    """A cluster, as an object whose methods are its commands. Made by connect() with a URL valkey+cluster://...

    A command goes to the node that has its keys. A node that fails, and slots that move, are found out by asking the
    others, within the call's time: what can be tried again safely is, and what may have been applied raises.
    """

    _pool: Router

    def _make_pool(self, tls: ssl.SSLContext | None) -> Router:
        return Router(self.options, tls, self._observer)

    def check(self) -> None:
        """Make sure that the cluster can be reached. As Client.check()."""
        self._pool.refresh(self._pool.slots, _monotonic() + self._timeout)

    # ---- one command -------------------------------------------------------------------------------------------

    def _submit(self, words: Args, convert: Callable[[Reply], T], safe: bool, patience: float | None) -> T:
        timeout = self._timeout if patience is None else self._timeout + patience
        router = self._pool
        if self._observer is None and words[0] in router.simple:  # most calls
            part = Part(slot_of(to_bytes(words[1])), words)
            return router.routed(part, convert, _monotonic() + timeout, safe=safe, again=self.options.retries > 0)
        return self.run(words, convert, safe, timeout, self.options.retries)

    def run(self, words: Args, convert: Callable[[Reply], T], safe: bool, timeout: float, retries: int) -> T:
        """Run one command. For the modules that are part of a client."""
        deadline = _monotonic() + timeout
        with self._told(name_of(words)):
            info = self._pool.info(words, deadline)
            if info is not None and info.name == "SCAN":
                walk = Walk(words, self._pool.slots)
                part = walk.part
                page = None if part is None else self._pool.routed(part, to.anything, deadline, safe=True)
                return convert(walk.page(page))
            parts = parts_of(info, words, self._pool.slots)
            if len(parts) == 1:
                return self._pool.routed(parts[0], convert, deadline, safe=safe, again=retries > 0)
            sent = [Sent(part, safe) for part in parts]
            return convert(merged(info, parts, replies_among(outcomes(self._pool, sent, deadline, again=retries > 0))))

    # ---- several commands --------------------------------------------------------------------------------------

    def pipeline(self, *, raise_errors: bool = True, timeout: float | None = None) -> ClusterPipeline[In, Out]:
        """Collect commands in a with block and send them together at its end, to each node its own.

        See Client.pipeline(). Commands with the same key are run in their order.
        """
        return ClusterPipeline(self._pool, self._manner(timeout, raise_errors=raise_errors))

    def _transaction(self, timeout: float | None) -> Transaction[In, Out]:
        return ClusterTransaction(self._pool, self._manner(timeout))

    def _watching(
        self, work: Callable[[WatchingTransaction[In, Out]], T], watch: Iterable[Key], timeout: float | None
    ) -> T:
        """As Client.transaction() with keys to watch, which have to be in one slot, and all others with them."""
        manner, keys = self._manner(timeout), [*watch]
        return self._at_owner(keys, manner.timeout, lambda pool: watching(pool, work, keys, manner))

    def watch(self, *keys: Key) -> Watch[In, Out]:
        """Watch keys of one slot, step by step; see Client.watch()."""
        manner = self._manner(None)
        return self._at_owner(keys, manner.timeout, lambda pool: Watch(pool, manner, keys))

    def _at_owner(self, keys: Iterable[Key], timeout: float, action: Callable[[Pool], T]) -> T:
        """What `action` returns at the node that has these keys; done again where they have moved, within the time."""
        slot = one_slot((prefixed(self._prefix, key) for key in keys), "WATCH") or 0
        nodes, deadline = self._pool, _monotonic() + timeout
        route = Route(slot, safe=False, again=True)
        while True:
            address, seen = nodes.owner(slot, deadline), nodes.slots
            try:
                return action(nodes.pool(address))
            except KVError as error:
                step = route.after_together(error, address, deadline - _monotonic())
            nodes.pause(step.pause)
            nodes.look_again(seen, deadline, first=step.address, last=route.failed)

    # ---- listening ---------------------------------------------------------------------------------------------

    def listen(
        self, *channels: Key, patterns: Iterable[Key] = (), shards: Iterable[Key] = (), reconnect: bool = True
    ) -> Subscription:
        """Listen to channels, to patterns of channels, to shard channels; see Client.listen().

        Every node tells of channels, wherever a message was published; shard channels are told of by the node that has
        their slot, so those of one subscription have to be in one.
        """
        wanted = [*shards]
        slot = listening_slot(channels, wanted)
        subscription = Subscription(lambda: self._listening_to(slot), self._timeout, reconnect=reconnect)
        try:
            subscription.subscribe(*channels, patterns=patterns, shards=wanted)
        except BaseException:
            subscription.__exit__()
            raise
        return subscription

    def _listening(self) -> Connection:
        return self._listening_to(None)

    def _listening_to(self, slot: int | None) -> Connection:
        """A connection to whoever has a slot now, or to some node; not open yet."""
        deadline = _monotonic() + self._timeout
        self._pool.look_again(self._pool.slots, deadline)
        return self._pool.listening() if slot is None else self._pool.listening_to(self._pool.owner(slot, deadline))

    def near_cache(self, *, prefixes: Iterable[Key] = (), max_keys: int = 10_000) -> ClusterNearCache[Out]:
        """A cache in this process for reads, which all primaries keep right. See Client.near_cache()."""
        return ClusterNearCache(self._everything, self._pool, self._unpack, self._prefix, prefixes, max_keys)

    def _whereabouts(self) -> SlotMap:
        self._pool.look_again(self._pool.slots, _monotonic() + self._timeout)
        return self._pool.slots
