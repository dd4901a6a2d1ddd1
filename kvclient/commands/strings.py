"""The commands of string values.

Not here: keys as such (keys.py), lifetimes as such (expiry.py).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic

from kvclient.commands import to
from kvclient.commands.base import Args, CommandSet, command, value_command, words_of
from kvclient.commands.options import comparison, expiry, words
from kvclient.serializers import In, Out

if TYPE_CHECKING:
    from collections.abc import Callable

    from kvclient.commands.base import Items
    from kvclient.commands.options import Ttl, When
    from kvclient.protocol import Key, Value


class StringCommands(CommandSet, Generic[In, Out]):
    """Commands that read and write string values."""

    _pack: Callable[[In], Value]

    def _flat(self, items: Items[In]) -> Args:
        return tuple(part for key, value in items.items() for part in (key, self._pack(value)))

    @value_command("GET", to.One[Out](), safe=True)
    def get(self, key: Key) -> Args:
        """Return a key's value, or None if there is no such key.

        Server command: GET. Raises WrongTypeError if the value is not a string.
        """
        return (b"GET", key)

    @command("SET", to.done_or_not)
    def set(
        self,
        key: Key,
        value: In,
        *,
        ttl: Ttl | None = None,
        expire_at: When | None = None,
        keep_ttl: bool = False,
        if_absent: bool = False,
        if_present: bool = False,
        if_equal: In | None = None,
        if_not_equal: In | None = None,
        if_digest: str | bytes | None = None,
        if_not_digest: str | bytes | None = None,
    ) -> Args:
        """Store a value; return whether it was stored, which only a condition can prevent.

        Server command: SET. Without ttl, expire_at or keep_ttl the key loses the lifetime it had.

        Args:
            key: where to store it.
            value: what to store.
            ttl: lifetime in seconds (int or float) or as a timedelta.
            expire_at: end of life in seconds since 1970 (int or float) or as a datetime with a time zone.
            keep_ttl: leave the key's lifetime as it is.
            if_absent: store only if there is no such key.
            if_present: store only if there is such a key.
            if_equal: store only if the present value equals this one. Redis before 8.4 does not know it, nor these:
            if_not_equal: store only if the present value is another one, or there is none.
            if_digest: store only if the present value has this digest, as digest() gives it.
            if_not_digest: store only if the present value has another digest, or there is none.
        """
        if (
            ttl is expire_at is if_equal is if_not_equal is if_digest is if_not_digest is None
            and not (keep_ttl or if_absent or if_present)
        ):  # fmt: skip
            return (b"SET", key, self._pack(value))
        return (
            b"SET", key, self._pack(value),
            *words(NX=if_absent, XX=if_present),
            *comparison(self._pack, if_equal, if_not_equal, if_digest, if_not_digest),
            *expiry(ttl, expire_at, other=b"KEEPTTL" if keep_ttl else None),
        )  # fmt: skip

    @value_command("SET", to.One[Out]())
    def set_get(
        self,
        key: Key,
        value: In,
        *,
        ttl: Ttl | None = None,
        expire_at: When | None = None,
        keep_ttl: bool = False,
        if_absent: bool = False,
        if_present: bool = False,
        if_equal: In | None = None,
        if_not_equal: In | None = None,
        if_digest: str | bytes | None = None,
        if_not_digest: str | bytes | None = None,
    ) -> Args:
        """Store a value and return the one it replaced, or None if there was none.

        Server command: SET, with its option GET. The options are those of set().
        """
        return (
            b"SET", key, self._pack(value),
            *words(NX=if_absent, XX=if_present),
            *comparison(self._pack, if_equal, if_not_equal, if_digest, if_not_digest),
            b"GET",
            *expiry(ttl, expire_at, other=b"KEEPTTL" if keep_ttl else None),
        )  # fmt: skip

    @value_command("GETSET", to.One[Out]())
    def getset(self, key: Key, value: In) -> Args:
        """Store a value and return the one it replaced; set_get() does the same and more.

        Server command: GETSET.
        """
        return (b"GETSET", key, self._pack(value))

    @value_command("GETDEL", to.One[Out]())
    def getdel(self, key: Key) -> Args:
        """Delete a key and return the value it had, or None.

        Server command: GETDEL.
        """
        return (b"GETDEL", key)

    @value_command("GETEX", to.One[Out]())
    def getex(self, key: Key, *, ttl: Ttl | None = None, expire_at: When | None = None, persist: bool = False) -> Args:
        """Return a key's value, or None, and change its lifetime.

        Server command: GETEX. ttl and expire_at as for set(); persist takes the lifetime away.
        """
        return (b"GETEX", key, *expiry(ttl, expire_at, other=b"PERSIST" if persist else None))

    @value_command("MGET", to.Many[Out](), safe=True)
    def mget(self, *keys: Key, atomic: bool = False) -> Args:
        """Return the values of several keys in order, None for each that is missing.

        Server command: MGET.
        """
        return words_of((b"MGET", *keys), atomic=atomic)

    @command("MSET", to.done)
    def mset(self, items: Items[In], *, atomic: bool = False) -> Args:
        """Store several values at once: nobody sees only some of them.

        Server command: MSET. On a cluster it is a command for each slot, and somebody may see only some of them; with
        atomic=True it raises CrossSlotError if there are several slots.
        """
        return words_of((b"MSET", *self._flat(items)), atomic=atomic)

    @command("MSETNX", to.flag)
    def msetnx(self, items: Items[In]) -> Args:
        """Store several values if none of the keys exists; return whether they were stored.

        Server command: MSETNX.
        """
        return (b"MSETNX", *self._flat(items))

    @command("SETNX", to.flag)
    def setnx(self, key: Key, value: In) -> Args:
        """Store a value if there is no such key; return whether it was stored.

        Server command: SETNX.
        """
        return (b"SETNX", key, self._pack(value))

    @command("SETEX", to.done)
    def setex(self, key: Key, seconds: int, value: In) -> Args:
        """Store a value with a lifetime in whole seconds.

        Server command: SETEX.
        """
        return (b"SETEX", key, seconds, self._pack(value))

    @command("PSETEX", to.done)
    def psetex(self, key: Key, milliseconds: int, value: In) -> Args:
        """Store a value with a lifetime in milliseconds.

        Server command: PSETEX.
        """
        return (b"PSETEX", key, milliseconds, self._pack(value))

    @command("APPEND", to.integer)
    def append(self, key: Key, value: Value) -> Args:
        """Add to the end of a value; return its new length in bytes.

        Server command: APPEND.
        """
        return (b"APPEND", key, value)

    @command("STRLEN", to.integer, safe=True)
    def strlen(self, key: Key) -> Args:
        """Return a value's length in bytes, 0 if there is no such key.

        Server command: STRLEN.
        """
        return (b"STRLEN", key)

    @command("GETRANGE", to.blob, safe=True)
    def getrange(self, key: Key, start: int, end: int) -> Args:
        """Return a value's bytes from index start to index end, both included; negative ones count from the end.

        Server command: GETRANGE.
        """
        return (b"GETRANGE", key, start, end)

    @command("SUBSTR", to.blob, safe=True)
    def substr(self, key: Key, start: int, end: int) -> Args:
        """Return part of a value; the old name of getrange().

        Server command: SUBSTR.
        """
        return (b"SUBSTR", key, start, end)

    @command("SETRANGE", to.integer)
    def setrange(self, key: Key, offset: int, value: Value) -> Args:
        """Overwrite a value from byte offset on, filling a gap with zero bytes; return its new length.

        Server command: SETRANGE.
        """
        return (b"SETRANGE", key, offset, value)

    @command("INCR", to.integer)
    def incr(self, key: Key) -> Args:
        """Add one to a number; return the sum. A missing key counts as 0.

        Server command: INCR.
        """
        return (b"INCR", key)

    @command("DECR", to.integer)
    def decr(self, key: Key) -> Args:
        """Subtract one from a number; return the difference.

        Server command: DECR.
        """
        return (b"DECR", key)

    @command("INCRBY", to.integer)
    def incrby(self, key: Key, amount: int) -> Args:
        """Add to a number; return the sum.

        Server command: INCRBY.
        """
        return (b"INCRBY", key, amount)

    @command("DECRBY", to.integer)
    def decrby(self, key: Key, amount: int) -> Args:
        """Subtract from a number; return the difference.

        Server command: DECRBY.
        """
        return (b"DECRBY", key, amount)

    @command("INCRBYFLOAT", to.real)
    def incrbyfloat(self, key: Key, amount: float) -> Args:
        """Add to a number that may have a fraction; return the sum.

        Server command: INCRBYFLOAT.
        """
        return (b"INCRBYFLOAT", key, amount)

    @command("LCS", to.blob, safe=True)
    def lcs(self, key1: Key, key2: Key) -> Args:
        """Return the longest common subsequence of two values.

        Server command: LCS.
        """
        return (b"LCS", key1, key2)

    @command("LCS", to.integer, safe=True)
    def lcs_len(self, key1: Key, key2: Key) -> Args:
        """Return the length of the longest common subsequence of two values.

        Server command: LCS, with its option LEN.
        """
        return (b"LCS", key1, key2, b"LEN")

    @command("LCS", to.lcs_matches, safe=True)
    def lcs_idx(self, key1: Key, key2: Key, *, min_match_len: int = 0, with_match_len: bool = False) -> Args:
        """Return where two values agree, leaving out matches shorter than min_match_len.

        Server command: LCS, with its option IDX.
        """
        return (
            b"LCS", key1, key2, b"IDX", b"MINMATCHLEN", min_match_len, *words(WITHMATCHLEN=with_match_len)
        )  # fmt: skip
