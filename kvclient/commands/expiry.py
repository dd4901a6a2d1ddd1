"""The commands of lifetimes.

Not here: storing a value together with a lifetime, which is set() in strings.py.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kvclient.commands import to
from kvclient.commands.base import Args, CommandSet, command
from kvclient.commands.options import moment, whole_or_milliseconds, words

if TYPE_CHECKING:
    from kvclient.commands.options import Ttl, When
    from kvclient.protocol import Key


class ExpiryCommands(CommandSet):
    """Commands that give, read and take away a key's lifetime.

    The four that give one share their conditions: if_persistent (only a key without a lifetime), if_expiring
    (only a key with one), if_later and if_sooner (only if the new end of life is later or sooner than the old
    one; a key without a lifetime ends infinitely late). They return whether the lifetime was set.
    """

    @command("EXPIRE", to.flag)
    def expire(
        self,
        key: Key,
        ttl: Ttl,
        *,
        if_persistent: bool = False,
        if_expiring: bool = False,
        if_later: bool = False,
        if_sooner: bool = False,
    ) -> Args:
        """Give a key a lifetime in seconds (int or float) or as a timedelta; return whether that was done.

        Server command: EXPIRE, or PEXPIRE unless ttl is an int. A ttl of 0 or less deletes the key.
        """
        whole, number = whole_or_milliseconds(ttl)
        conditions = words(NX=if_persistent, XX=if_expiring, GT=if_later, LT=if_sooner)
        return (b"EXPIRE" if whole else b"PEXPIRE", key, number, *conditions)

    @command("PEXPIRE", to.flag)
    def pexpire(
        self,
        key: Key,
        milliseconds: int,
        *,
        if_persistent: bool = False,
        if_expiring: bool = False,
        if_later: bool = False,
        if_sooner: bool = False,
    ) -> Args:
        """Give a key a lifetime in milliseconds; return whether that was done.

        Server command: PEXPIRE.
        """
        conditions = words(NX=if_persistent, XX=if_expiring, GT=if_later, LT=if_sooner)
        return (b"PEXPIRE", key, milliseconds, *conditions)

    @command("EXPIREAT", to.flag)
    def expireat(
        self,
        key: Key,
        when: When,
        *,
        if_persistent: bool = False,
        if_expiring: bool = False,
        if_later: bool = False,
        if_sooner: bool = False,
    ) -> Args:
        """Let a key end at a time in seconds since 1970 (int or float) or a datetime with a time zone.

        Server command: EXPIREAT, or PEXPIREAT unless when is an int. Returns whether that was done.
        """
        whole, number = moment(when)
        conditions = words(NX=if_persistent, XX=if_expiring, GT=if_later, LT=if_sooner)
        return (b"EXPIREAT" if whole else b"PEXPIREAT", key, number, *conditions)

    @command("PEXPIREAT", to.flag)
    def pexpireat(
        self,
        key: Key,
        unix_milliseconds: int,
        *,
        if_persistent: bool = False,
        if_expiring: bool = False,
        if_later: bool = False,
        if_sooner: bool = False,
    ) -> Args:
        """Let a key end at a time in milliseconds since 1970; return whether that was done.

        Server command: PEXPIREAT.
        """
        conditions = words(NX=if_persistent, XX=if_expiring, GT=if_later, LT=if_sooner)
        return (b"PEXPIREAT", key, unix_milliseconds, *conditions)

    @command("TTL", to.integer, safe=True)
    def ttl(self, key: Key) -> Args:
        """Return the seconds a key has left; -1 if it lives for ever, -2 if there is no such key.

        Server command: TTL.
        """
        return (b"TTL", key)

    @command("PTTL", to.integer, safe=True)
    def pttl(self, key: Key) -> Args:
        """Return the milliseconds a key has left; -1 if it lives for ever, -2 if there is no such key.

        Server command: PTTL.
        """
        return (b"PTTL", key)

    @command("EXPIRETIME", to.integer, safe=True)
    def expiretime(self, key: Key) -> Args:
        """Return when a key ends, in seconds since 1970; -1 and -2 as for ttl().

        Server command: EXPIRETIME.
        """
        return (b"EXPIRETIME", key)

    @command("PEXPIRETIME", to.integer, safe=True)
    def pexpiretime(self, key: Key) -> Args:
        """Return when a key ends, in milliseconds since 1970; -1 and -2 as for ttl().

        Server command: PEXPIRETIME.
        """
        return (b"PEXPIRETIME", key)

    @command("PERSIST", to.flag)
    def persist(self, key: Key) -> Args:
        """Take a key's lifetime away; return whether it had one.

        Server command: PERSIST.
        """
        return (b"PERSIST", key)
