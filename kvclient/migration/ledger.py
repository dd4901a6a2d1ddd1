"""What was copied: a digest and the deadline of each key, in a file of SQLite, so that memory does not grow with keys.

A key is noted before it is stored at the target (begin) and again when it is (finish). So whoever finds the ledger
after a crash knows every key that may be at the target because of us, and of which one it is uncertain.

Not here: what follows from it (plan.py).
"""

from __future__ import annotations

import contextlib
import sqlite3
from typing import TYPE_CHECKING, Final

from kvclient.migration.plan import Row

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS copied (db INTEGER, key BLOB, digest BLOB, deadline INTEGER, PRIMARY KEY (db, key))
WITHOUT ROWID
"""


class LedgerError(Exception):
    """The ledger's file cannot be used."""


class Ledger:
    """The file, which nobody else may have open.

    Args:
        path: where it is kept; None: in a temporary file, which goes with the process.

    Attributes:
        databases: those of which something was copied.

    Raises:
        LedgerError: the file is not one, another process uses it, or, from any method, its disk is full.
    """

    def __init__(self, path: Path | None) -> None:
        try:
            self._sql = sqlite3.connect("" if path is None else path, isolation_level=None, timeout=0)
        except sqlite3.Error as error:
            raise LedgerError(f"cannot open {path}: {error}") from None
        try:
            self._sql.execute("PRAGMA locking_mode = EXCLUSIVE")
            self._sql.execute("PRAGMA journal_mode = WAL")
            # With NORMAL a commit outlives the process; the machine's failing may take the last ones, but no others.
            self._sql.execute(f"PRAGMA synchronous = {'OFF' if path is None else 'NORMAL'}")
            self._sql.execute("BEGIN IMMEDIATE")
            self._sql.execute(_SCHEMA)
            self._sql.execute("COMMIT")
        except sqlite3.Error as error:
            self._sql.close()
            in_use = "another process uses it" if "locked" in str(error) else str(error)
            raise LedgerError(f"cannot use {path}: {in_use}") from None
        # Kept in memory, since to ask for them would be to read all keys.
        self.databases: set[int] = {db for (db,) in self._sql.execute("SELECT DISTINCT db FROM copied")}

    def close(self) -> None:
        """Close the file."""
        self._sql.close()

    def __len__(self) -> int:
        found: tuple[int] = self._sql.execute("SELECT COUNT(*) FROM copied").fetchone()
        return found[0]

    def rows(self, db: int, keys: Sequence[bytes]) -> dict[bytes, Row]:
        """What was copied of these keys, for those of which something was."""
        found: dict[bytes, Row] = {}
        for key in keys:
            row = self._sql.execute(
                "SELECT digest, deadline FROM copied WHERE db = ? AND key = ?", (db, key)
            ).fetchone()
            if row is not None:
                found[key] = Row(*row)
        return found

    def begin(self, db: int, keys: Iterable[bytes]) -> None:
        """These are about to be stored."""
        self.databases.add(db)
        self._write("INSERT OR REPLACE INTO copied VALUES (?, ?, NULL, NULL)", ((db, key) for key in keys))

    def finish(self, db: int, rows: Iterable[tuple[bytes, Row]]) -> None:
        """These are stored."""
        values = ((db, key, row.digest, row.deadline) for key, row in rows)
        self._write("INSERT OR REPLACE INTO copied VALUES (?, ?, ?, ?)", values)

    def forget(self, db: int, keys: Iterable[bytes]) -> None:
        """These are no longer there."""
        self._write("DELETE FROM copied WHERE db = ? AND key = ?", ((db, key) for key in keys))

    def distrust(self) -> None:
        """Whatever was stored is to be stored again."""
        with _told():
            self._sql.execute("UPDATE copied SET digest = NULL, deadline = NULL")

    def page(self, after: tuple[int, bytes] | None, count: int) -> list[tuple[int, bytes]]:
        """The next keys in order, with their databases."""
        if after is None:
            cursor = self._sql.execute("SELECT db, key FROM copied ORDER BY db, key LIMIT ?", (count,))
        else:
            cursor = self._sql.execute(
                "SELECT db, key FROM copied WHERE (db, key) > (?, ?) ORDER BY db, key LIMIT ?", (*after, count)
            )
        return [(db, bytes(key)) for db, key in cursor]

    def _write(self, statement: str, values: Iterable[tuple[object, ...]]) -> None:
        with _told():
            self._sql.execute("BEGIN")
            try:
                self._sql.executemany(statement, values)
                self._sql.execute("COMMIT")
            except BaseException:
                if self._sql.in_transaction:
                    self._sql.execute("ROLLBACK")
                raise


@contextlib.contextmanager
def _told() -> Iterator[None]:
    """For a with block: what SQLite raises is a LedgerError."""
    try:
        yield
    except sqlite3.Error as error:
        raise LedgerError(f"cannot remember what was copied: {error}") from None
