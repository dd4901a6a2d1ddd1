"""The commands that set, delete or count on a condition. Valkey and Redis each know some of them, kvserver all.

Not here: set() and its conditions (strings.py).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic

from kvclient.commands import to
from kvclient.commands.base import Args, CommandSet, command
from kvclient.commands.options import comparison, expiry, words
from kvclient.serializers import In, Out

if TYPE_CHECKING:
    from collections.abc import Callable

    from kvclient.commands.base import Items
    from kvclient.commands.options import Ttl, When
    from kvclient.protocol import Key, Value


class ConditionalCommands(CommandSet, Generic[In, Out]):
    """Compare and delete, bounded counters, and several values with one lifetime."""

    _pack: Callable[[In], Value]

    @command("DIGEST", to.blob_or_none, safe=True)
    def digest(self, key: Key) -> Args:
        """Return the XXH3-64 digest of a value as 16 hexadecimal digits, or None if there is no such key.

        Server command: DIGEST (Redis 8.4).
        """
        return (b"DIGEST", key)

    @command("DELEX", to.flag)
    def delex(
        self,
        key: Key,
        *,
        if_equal: In | None = None,
        if_not_equal: In | None = None,
        if_digest: str | bytes | None = None,
        if_not_digest: str | bytes | None = None,
    ) -> Args:
        """Delete a key on a condition about its value; return whether it was deleted.

        Server command: DELEX (Redis 8.4).
        """
        return (b"DELEX", key, *comparison(self._pack, if_equal, if_not_equal, if_digest, if_not_digest))

    @command("DELIFEQ", to.flag)
    def delifeq(self, key: Key, value: In) -> Args:
        """Delete a key if its value is the one given; return whether it was deleted.

        Server command: DELIFEQ (Valkey 9.0).
        """
        return (b"DELIFEQ", key, self._pack(value))

    @command("MSETEX", to.flag)
    def msetex(
        self,
        items: Items[In],
        *,
        ttl: Ttl | None = None,
        expire_at: When | None = None,
        keep_ttl: bool = False,
        if_absent: bool = False,
        if_present: bool = False,
    ) -> Args:
        """Store several values with one lifetime, all or none; return whether they were stored.

        Server command: MSETEX (Valkey 9.1, Redis 8.4). if_absent: only if none of the keys exists; if_present: only if
        all do.
        """
        return (
            b"MSETEX", len(items), *(part for key, value in items.items() for part in (key, self._pack(value))),
            *words(NX=if_absent, XX=if_present),
            *expiry(ttl, expire_at, other=b"KEEPTTL" if keep_ttl else None),
        )  # fmt: skip

    @command("KV.GETL", to.anything)
    def getl(self, key: Key, milliseconds: int, *, stale: int | None = None) -> Args:
        """Return a value, its time to live, and a lease to compute a new one; get_or_set() does the whole.

        Server command: KV.GETL (kvserver). The reply is a list of three: the value or None; milliseconds to live, -1
        for ever, -2 without a value; the lease for setl(), or None. A value with `stale` milliseconds to live or fewer
        is old.
        """
        return (b"KV.GETL", key, milliseconds, *(() if stale is None else (b"STALE", stale)))

    @command("KV.SETL", to.done_or_not)
    def setl(
        self,
        key: Key,
        lease: int,
        value: Value | None = None,
        *,
        ttl: Ttl | None = None,
        expire_at: When | None = None,
    ) -> Args:
        """Store a value if the lease that getl() gave still holds, and end it; return whether it did.

        Server command: KV.SETL (kvserver). Without a value it only ends the lease. ttl and expire_at as for set().
        """
        return (b"KV.SETL", key, lease, *(() if value is None else (value, *expiry(ttl, expire_at))))

    @command("KV.ONCE", to.anything, whole=True)
    def kv_once(self, token: str | bytes, milliseconds: int, *words: Value) -> Args:
        """Run a command, word by word, unless it was run with this token before; return its reply either way.

        Server command: KV.ONCE (kvserver). Client.once does this with tokens of its own, for every typed command.
        """
        return (b"KV.ONCE", token, milliseconds, *words)

    @command("INCREX", to.pair_of_integers)
    def increx(
        self,
        key: Key,
        amount: int = 1,
        *,
        at_least: int | None = None,
        at_most: int | None = None,
        saturate: bool = False,
        ttl: Ttl | None = None,
        expire_at: When | None = None,
        persist: bool = False,
        if_persistent: bool = False,
    ) -> Args:
        """Add to a whole number within bounds; return the new value and what was added, 0 if a bound prevented it.

        Server command: INCREX (Redis 8.8).

        Args:
            key: whose value to count with; a missing one counts as 0.
            amount: what to add.
            at_least: the lowest result there may be.
            at_most: the highest result there may be.
            saturate: stop at a bound instead of storing nothing.
            ttl: lifetime in seconds (int or float) or as a timedelta.
            expire_at: end of life in seconds since 1970 (int or float) or as a datetime with a time zone.
            persist: take the lifetime away.
            if_persistent: give a lifetime only to a key that has none.
        """
        return (
            b"INCREX", key, b"BYINT", amount,
            *(() if at_least is None else (b"LBOUND", at_least)),
            *(() if at_most is None else (b"UBOUND", at_most)),
            *words(SATURATE=saturate),
            *expiry(ttl, expire_at, other=b"PERSIST" if persist else None),
            *words(ENX=if_persistent),
        )  # fmt: skip
