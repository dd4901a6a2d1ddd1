"""A cache in this process, kept right by the server, which tells of every change (CLIENT TRACKING, with BCAST).

A connection of its own gets the invalidations, and a thread reads them. A value that was read is kept only if no
invalidation of its key came while the read was on its way: the reply and the invalidation come over different
connections, in any order, so without that rule an old value could be kept after the news of its change. When the
tracking connection is lost, everything is forgotten and nothing is kept until there is another. A connection that has
fallen silent is found out by PING, so that a value is never older than twice PULSE.

Not here: the same for tasks (aio/nearcache.py).
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Final, Generic, NamedTuple, Self

from kvclient.commands.base import prefixed
from kvclient.errors import (
    CallTimeoutError,
    CannotConnectError,
    ConnectionLostError,
    KVError,
    ProtocolError,
    ServerError,
)
from kvclient.protocol import Push, encode_command
from kvclient.retry import pause_of
from kvclient.serializers import Out

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from kvclient.client import Client
    from kvclient.connection import Connection
    from kvclient.protocol import Key, Reply

PULSE: Final = 5.0  # seconds of silence after which the tracking connection is asked whether it lives
PING: Final = encode_command((b"PING",))
_monotonic = time.monotonic


class Statistics(NamedTuple):
    """What a near cache has done so far.

    Attributes:
        hits: reads answered from this process.
        misses: reads that the server was asked for.
        invalidations: keys that the server has told to be changed, each flush counted as one.
        keys: how many keys are kept now.
    """

    hits: int
    misses: int
    invalidations: int
    keys: int


class Kept:
    """What is kept, and what is being asked for. Whoever shares it between threads locks around each call.

    Args:
        most: how many keys to keep. Those kept for longest go first.
    """

    def __init__(self, most: int) -> None:
        if most < 1:
            raise ValueError("a near cache keeps at least one key")
        self._most = most
        self._values: dict[bytes, bytes | None] = {}
        self._asked: dict[bytes, object] = {}  # a marker for each key whose value is on its way
        self.is_told = False  # whether the server tells of changes now
        self.hits = self.misses = self.invalidations = 0

    def look(self, keys: Mapping[bytes, None]) -> dict[bytes, bytes | None]:
        """Those of the keys (an ordered set) that are kept, with their values; None for a key that does not exist."""
        found = {key: self._values[key] for key in keys if key in self._values}
        self.hits += len(found)
        self.misses += len(keys) - len(found)
        return found

    def ask(self, keys: Iterable[bytes]) -> dict[bytes, object]:
        """The values of these are about to be asked for; a marker for each that may be kept."""
        if not self.is_told:
            return {}
        return {key: self._asked.setdefault(key, object()) for key in keys}

    def answer(self, markers: dict[bytes, object], values: dict[bytes, bytes | None]) -> None:
        """The values have come. Those are kept that have not been changed since they were asked for.

        Of two reads of a key that overlap, nobody knows which is the newer, so neither is kept: who has seen one value
        shall not be answered with an older one.
        """
        for key, marker in markers.items():
            is_alone = self._asked.pop(key, None) is marker
            if not is_alone:
                self._values.pop(key, None)
            elif key in values:
                self._values[key] = values[key]
                if len(self._values) > self._most:
                    del self._values[next(iter(self._values))]

    def tell(self, reply: Reply) -> None:
        """What the server says on the tracking connection.

        Raises:
            ServerError, ProtocolError: that it will not, or nonsense.
        """
        if isinstance(reply, ServerError):
            raise reply
        if not isinstance(reply, Push):
            return  # PONG
        match list(reply):
            case [b"invalidate", None]:
                self.invalidations += 1
                self._values.clear()
                self._asked.clear()
            case [b"invalidate", list(keys)] if all(isinstance(key, bytes) for key in keys):
                for key in keys:
                    self.invalidations += 1
                    self._values.pop(key, None)  # type: ignore[arg-type]
                    self._asked.pop(key, None)  # type: ignore[arg-type]
            case _:
                raise ProtocolError("the server sent a tracking connection what is no invalidation")

    def drop(self, keys: Iterable[bytes] | None) -> None:
        """Keys, or all for None, are being changed. What of them is on its way is not kept either."""
        if keys is None:
            self._values.clear()
            self._asked.clear()
            return
        for key in keys:
            self._values.pop(key, None)
            self._asked.pop(key, None)

    def forget(self) -> None:
        """Nobody tells of changes any more."""
        self.is_told = False
        self._values.clear()
        self._asked.clear()

    def statistics(self) -> Statistics:
        """The counters now."""
        return Statistics(self.hits, self.misses, self.invalidations, len(self._values))


def tracking(prefixes: Iterable[bytes]) -> bytes:
    """The command that begins tracking, encoded."""
    words = [b"CLIENT", b"TRACKING", b"ON", b"BCAST"]
    for prefix in prefixes:
        words += (b"PREFIX", prefix)
    return encode_command(words)


def check_protocol(version: int) -> None:
    """Raise CannotConnectError unless the server can tell of changes: over RESP3."""
    if version != 3:
        raise CannotConnectError("a near cache needs RESP3, which this server does not speak, or protocol=2 forbids")


class NearCache(Generic[Out]):
    """Reads that are answered from this process while the server tells of no change; Client.near_cache() makes one.

        with client.near_cache(prefixes=["user:"]) as near:
            near.get("user:7")

    Threads may share it. What it answers is as old as an invalidation takes to arrive: also a client's own change is
    seen only then.
    """

    def __init__(
        self,
        client: Client,
        make: Callable[[], Connection],
        unpack: Callable[[bytes], Out],
        within: bytes,
        prefixes: Iterable[Key],
        max_keys: int,
    ) -> None:
        self._client = client  # outside of all namespaces
        self._make = make
        self._unpack = unpack
        self._within = within
        self._prefixes = tuple(prefixed(within, prefix) for prefix in prefixes) or ((within,) if within else ())
        self._lock = threading.Lock()  # guards what is kept; held for no input or output
        self._kept = Kept(max_keys)
        self._ended = threading.Event()
        self._connection = make()
        self._thread = threading.Thread(target=self._listen, name="kvclient-nearcache")

    def start(self) -> None:
        """Begin as a with block does, without waiting for a connection. Until there is one, nothing is kept."""
        self._thread.start()

    def drop(self, keys: Iterable[bytes] | None) -> None:
        """Forget keys, as the server knows them; all of them for None.

        Who calls it before a change and after sees that change at once, and not only when the server has told.
        """
        with self._lock:
            self._kept.drop(keys)

    def __enter__(self) -> Self:
        self._connect()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Forget everything, and end the thread."""
        self._ended.set()
        self._interrupt()
        if self._thread.ident is not None:
            self._thread.join()
        self._disconnect()
        with self._lock:
            self._kept.forget()

    # ---- reading -------------------------------------------------------------------------------------------

    def get(self, key: Key) -> Out | None:
        """Return a key's value, or None if there is no such key. As Client.get(), and its errors."""
        return self.mget(key)[0]

    def mget(self, *keys: Key) -> list[Out | None]:
        """Return the values of several keys in order. What is not kept here, the server is asked for at once."""
        names = [prefixed(self._within, key) for key in keys]
        with self._lock:
            found = self._kept.look(dict.fromkeys(names))
            wanted = [name for name in dict.fromkeys(names) if name not in found]
            markers = self._kept.ask(filter(self._is_tracked, wanted)) if self._is_current() else {}
        if wanted:
            fresh: dict[bytes, bytes | None] = {}
            try:
                fresh = dict(zip(wanted, self._client.mget(*wanted), strict=True))
            finally:
                with self._lock:
                    self._kept.answer(markers, fresh if self._is_current() else {})
            found |= fresh
        return [None if (value := found[name]) is None else self._unpack(value) for name in names]

    def __getitem__(self, key: Key) -> Out:
        value = self.get(key)
        if value is None:
            raise KeyError(key)
        return value

    def _is_tracked(self, name: bytes) -> bool:
        return not self._prefixes or name.startswith(self._prefixes)

    @property
    def statistics(self) -> Statistics:
        """What it has done so far."""
        with self._lock:
            return self._kept.statistics()

    # ---- the thread that listens ---------------------------------------------------------------------------

    def _is_current(self) -> bool:
        """Whether those who tell of changes are all that have keys."""
        return True

    @property
    def _is_connected(self) -> bool:
        return not self._connection.closed

    def _interrupt(self) -> None:
        """Have the thread find its connection lost."""
        self._connection.shutdown()

    def _disconnect(self) -> None:
        self._connection.close()

    def _connect(self) -> None:
        """Connect, and have the server tell of changes."""
        self._connection = self._make()
        replies = self._begin(self._connection)
        with self._lock:
            self._kept.is_told = True
            for reply in replies:
                self._kept.tell(reply)

    def _begin(self, connection: Connection) -> list[Reply]:
        """Open a connection, and have the server at its other end tell of changes; what it has told already.

        Raises:
            KVError: it does not. The connection is closed.
        """
        deadline = _monotonic() + self._client.options.timeout
        try:
            connection.open(deadline)
            check_protocol(connection.protocol)
            connection.send(tracking(self._prefixes), deadline)
            first, *others = connection.receive(deadline)
            if isinstance(first, ServerError):
                raise first
        except BaseException:
            connection.close()
            raise
        return others

    def _listen(self) -> None:
        """Take in what the server tells, over one connection after another."""
        attempt = 0
        while not self._ended.is_set():
            try:
                if not self._is_connected:
                    self._connect()
                    if self._ended.is_set():  # and whoever ended it may have found nothing to shut down yet
                        return
                attempt = 0
                self._take_in()
            except KVError:
                with self._lock:
                    self._kept.forget()
                self._disconnect()
                attempt += 1
                self._ended.wait(pause_of(attempt))

    def _take_in(self) -> None:
        """Until the connection is lost.

        Raises:
            KVError: it is.
        """
        is_asked = False  # whether it lives
        while True:
            try:
                replies = self._connection.receive(_monotonic() + PULSE)
            except CallTimeoutError:
                if is_asked:
                    raise ConnectionLostError("the tracking connection has fallen silent") from None
                self._connection.send(PING, _monotonic() + PULSE)
                is_asked = True
                continue
            is_asked = False
            with self._lock:
                for reply in replies:
                    self._kept.tell(reply)
