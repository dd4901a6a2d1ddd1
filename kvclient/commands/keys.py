"""The commands of keys, whatever their values are.

Not here: lifetimes (expiry.py).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kvclient.commands import to
from kvclient.commands.base import Args, CommandSet, command, words_of
from kvclient.commands.options import words

if TYPE_CHECKING:
    from kvclient.protocol import Key, Name


def _flush_mode(asynchronous: bool | None) -> Args:
    return () if asynchronous is None else (b"ASYNC" if asynchronous else b"SYNC",)


class KeyCommands(CommandSet):
    """Commands that find, count, move and delete keys."""

    @command("DEL", to.integer)
    def delete(self, *keys: Key, atomic: bool = False) -> Args:
        """Delete keys; return how many there were.

        Server command: DEL. On a cluster, keys of several slots are several commands, unless atomic is True, which then
        raises CrossSlotError. So it is for the other commands of several keys that have `atomic`.
        """
        return words_of((b"DEL", *keys), atomic=atomic)

    @command("UNLINK", to.integer)
    def unlink(self, *keys: Key, atomic: bool = False) -> Args:
        """Delete keys and free their memory later; return how many there were.

        Server command: UNLINK.
        """
        return words_of((b"UNLINK", *keys), atomic=atomic)

    @command("EXISTS", to.integer, safe=True)
    def exists(self, *keys: Key, atomic: bool = False) -> Args:
        """Return how many of the keys exist; a key given twice counts twice.

        Server command: EXISTS.
        """
        return words_of((b"EXISTS", *keys), atomic=atomic)

    @command("TOUCH", to.integer, safe=True)
    def touch(self, *keys: Key, atomic: bool = False) -> Args:
        """Mark keys as just used; return how many of them exist.

        Server command: TOUCH.
        """
        return words_of((b"TOUCH", *keys), atomic=atomic)

    @command("TYPE", to.blob, safe=True)
    def type(self, key: Key) -> Args:
        """Return the name of the type of a key's value, b"none" if there is no such key.

        Server command: TYPE.
        """
        return (b"TYPE", key)

    @command("RENAME", to.done)
    def rename(self, key: Key, new_key: Key) -> Args:
        """Give a key another name, replacing what had that name. ServerError if there is no such key.

        Server command: RENAME.
        """
        return (b"RENAME", key, new_key)

    @command("RENAMENX", to.flag)
    def renamenx(self, key: Key, new_key: Key) -> Args:
        """Give a key another name if that is free; return whether it was.

        Server command: RENAMENX.
        """
        return (b"RENAMENX", key, new_key)

    @command("COPY", to.flag)
    def copy(self, source: Key, destination: Key, *, db: int | None = None, replace: bool = False) -> Args:
        """Copy a key with its lifetime, into another database if db is given; return whether it was copied.

        Server command: COPY. Nothing is copied if the destination exists, unless replace is True.
        """
        to_db: Args = () if db is None else (b"DB", db)
        return (b"COPY", source, destination, *to_db, *words(REPLACE=replace))

    @command("MOVE", to.flag)
    def move(self, key: Key, db: int) -> Args:
        """Move a key to another database; return whether it was moved.

        Server command: MOVE.
        """
        return (b"MOVE", key, db)

    @command("SWAPDB", to.done, whole=True)
    def swapdb(self, first: int, second: int) -> Args:
        """Exchange the contents of two databases.

        Server command: SWAPDB.
        """
        return (b"SWAPDB", first, second)

    @command("RANDOMKEY", to.blob_or_none, safe=True, whole=True)
    def randomkey(self) -> Args:
        """Return some key, or None if the database is empty.

        Server command: RANDOMKEY.
        """
        return (b"RANDOMKEY",)

    @command("KEYS", to.blobs, safe=True, whole=True)
    def keys(self, pattern: Name = b"*") -> Args:
        """Return all keys that match a pattern. With many keys, iterate over the client or scan_iter() instead.

        Server command: KEYS.
        """
        return (b"KEYS", pattern)

    @command("SCAN", to.scan_page, safe=True, whole=True)
    def scan(
        self,
        cursor: int = 0,
        *,
        match: Name | None = None,
        count: int | None = None,
        type: Name | None = None,  # noqa: A002 - the server's word for it
    ) -> Args:
        """Return one page of the keys and the cursor of the next; scan_iter() does the turning of pages.

        Server command: SCAN.

        Args:
            cursor: 0 to begin, then the cursor of the page before.
            match: a pattern that keys have to match.
            count: about how many keys the server looks at for one page.
            type: a type that values have to have, such as "string".
        """
        options = ((b"MATCH", match), (b"COUNT", count), (b"TYPE", type))
        return (b"SCAN", cursor, *(part for name, value in options if value is not None for part in (name, value)))

    @command("DBSIZE", to.integer, safe=True, whole=True)
    def dbsize(self) -> Args:
        """Return the number of keys.

        Server command: DBSIZE.
        """
        return (b"DBSIZE",)

    @command("FLUSHDB", to.done, whole=True)
    def flushdb(self, *, asynchronous: bool | None = None) -> Args:
        """Delete all keys of this database; asynchronous says whether to free memory later (None: as configured).

        Server command: FLUSHDB.
        """
        return (b"FLUSHDB", *_flush_mode(asynchronous))

    @command("FLUSHALL", to.done, whole=True)
    def flushall(self, *, asynchronous: bool | None = None) -> Args:
        """Delete all keys of all databases; asynchronous as for flushdb().

        Server command: FLUSHALL.
        """
        return (b"FLUSHALL", *_flush_mode(asynchronous))

    @command("OBJECT|ENCODING", to.blob_or_none, safe=True)
    def object_encoding(self, key: Key) -> Args:
        """Return how the server stores a value, for example b"int", or None if there is no such key.

        Server command: OBJECT ENCODING.
        """
        return (b"OBJECT", b"ENCODING", key)

    @command("OBJECT|FREQ", to.integer_or_none, safe=True)
    def object_freq(self, key: Key) -> Args:
        """Return how often a key is used, on a logarithmic scale. ServerError unless the server evicts by LFU.

        Server command: OBJECT FREQ.
        """
        return (b"OBJECT", b"FREQ", key)

    @command("OBJECT|IDLETIME", to.integer_or_none, safe=True)
    def object_idletime(self, key: Key) -> Args:
        """Return the seconds since a key was last used, or None if there is no such key.

        Server command: OBJECT IDLETIME.
        """
        return (b"OBJECT", b"IDLETIME", key)

    @command("OBJECT|REFCOUNT", to.integer_or_none, safe=True)
    def object_refcount(self, key: Key) -> Args:
        """Return the number of references to a value, or None if there is no such key.

        Server command: OBJECT REFCOUNT.
        """
        return (b"OBJECT", b"REFCOUNT", key)

    @command("OBJECT|HELP", to.text, safe=True)
    def object_help(self) -> Args:
        """Return the server's help on OBJECT.

        Server command: OBJECT HELP.
        """
        return (b"OBJECT", b"HELP")
