"""The files of a data directory: their names, the manifest that says which of them count, and whose they are.

::

    DIR/appendonlydir/appendonly.aof.manifest     file NAME seq N type b|i, a line each, in the order of replay
    DIR/appendonlydir/appendonly.aof.N.base.aof   the keys at one moment
    DIR/appendonlydir/appendonly.aof.N.incr.aof   what has changed since

A file counts from the moment the manifest names it. The manifest is replaced as a whole: written beside, synced,
renamed, and the directory synced, so that a crash leaves the old one or the new one.
"""

from __future__ import annotations

import contextlib
import os
import re
import sys
from dataclasses import dataclass, replace
from pathlib import Path

if sys.platform != "win32":
    import fcntl

_FOLDER = "appendonlydir"
_NAME = "appendonly.aof"
_LINE = re.compile(r"file (\S+) seq ([0-9]{1,18}) type ([bih])(?: startoffset [0-9]+)?(?: endoffset [0-9]+)?")


class DirectoryError(Exception):
    """The directory cannot be used; the text is one line that says why, and what would do."""


@dataclass(frozen=True, slots=True)
class Manifest:
    """Which files count.

    Attributes:
        base: the name of the base file, and its number; None if there is none yet.
        increments: names and numbers, in the order of replay.
    """

    base: tuple[str, int] | None = None
    increments: tuple[tuple[str, int], ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """All files, in the order of replay."""
        return tuple(name for name, _ in ((self.base,) if self.base else ()) + self.increments)

    @property
    def highest(self) -> int:
        """The highest number in use."""
        return max((number for _, number in ((self.base,) if self.base else ()) + self.increments), default=0)

    def text(self) -> str:
        """The manifest as it stands in its file."""
        rows = ([(*self.base, "b")] if self.base else []) + [(*file, "i") for file in self.increments]
        return "".join(f"file {name} seq {number} type {kind}\n" for name, number, kind in rows)


def parse_manifest(text: str) -> Manifest:
    """Read a manifest.

    Raises:
        ValueError: with the line that makes no sense.
    """
    manifest = Manifest()
    for line in text.splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        found = _LINE.fullmatch(line.strip())
        if found is None or "/" in found[1] or found[1].startswith("."):
            raise ValueError(line[:80])
        file = found[1], int(found[2])
        if found[3] == "b":
            if manifest.base is not None:
                raise ValueError("a second base file")
            manifest = replace(manifest, base=file)
        elif found[3] == "i":
            manifest = replace(manifest, increments=(*manifest.increments, file))
    return manifest


def sync(path: Path) -> None:
    """Make sure that names created, renamed or removed in a directory stay so when the machine stops."""
    if sys.platform == "win32":
        return
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class Directory:
    """A data directory, owned by this process from :meth:`open` to :meth:`close`."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.folder = self.path / _FOLDER
        self.manifest = Manifest()
        self._owned: int | None = None

    @property
    def manifest_path(self) -> Path:
        """Where the manifest is, or will be."""
        return self.folder / f"{_NAME}.manifest"

    def open(self, *, create: bool = True) -> None:
        """Take possession of the directory and read its manifest.

        Raises:
            DirectoryError: it does not exist and must not be created, it belongs to another server, or its manifest
                makes no sense.
        """
        try:
            if create:
                self._create()
            self._own()
            self.read()
        except OSError as error:
            self.close()
            raise DirectoryError(f"{error.filename or self.path}: {error.strerror}.") from None
        except BaseException:
            self.close()
            raise

    def _create(self) -> None:
        for path in (self.path, self.folder):
            if not path.is_dir():
                path.mkdir(parents=True)
                sync(path.parent)

    def _own(self) -> None:
        if sys.platform == "win32":
            return
        self._owned = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(self._owned, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise DirectoryError(f"{self.path}: another server uses this directory.") from None

    def read(self) -> None:
        """Read the manifest.

        Raises:
            DirectoryError: it makes no sense, or a file that it names is missing.
            OSError: it cannot be read.
        """
        path = self.manifest_path
        if not path.exists():
            # A first start that was killed leaves an empty increment behind; anything in one means more than that.
            stray = sorted(file for file in self.folder.glob(f"{_NAME}.*.aof") if file.stat().st_size)
            if stray:
                raise DirectoryError(f"{path}: is missing, though there is {stray[0].name}; restore it from a backup.")
            self.manifest = Manifest()
            return
        try:
            self.manifest = parse_manifest(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise DirectoryError(f"{path}: cannot be read: {error}.") from None
        for name in self.manifest.names:
            if not (self.folder / name).exists():
                raise DirectoryError(f"{self.folder / name}: is missing, though the manifest names it.")

    def close(self) -> None:
        """Let another process have it."""
        if self._owned is not None:
            os.close(self._owned)
            self._owned = None

    def write_manifest(self, manifest: Manifest) -> None:
        """Replace the manifest, at once and for good."""
        temporary = self.folder / f"temp_{_NAME}.manifest"
        with temporary.open("w", encoding="utf-8") as file:
            file.write(manifest.text())
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(self.manifest_path)
        sync(self.folder)
        self.manifest = manifest

    def base_name(self, number: int) -> str:
        """What a base file is called."""
        return f"{_NAME}.{number}.base.aof"

    def increment_name(self, number: int) -> str:
        """What an increment is called."""
        return f"{_NAME}.{number}.incr.aof"

    def remove_strays(self) -> None:
        """Remove what an interrupted rewrite has left: our kind of files that the manifest does not name."""
        named = set(self.manifest.names)
        strays = [*self.folder.glob(f"{_NAME}.*.aof"), *self.folder.glob(f"temp_{_NAME}*")]
        for path in strays:
            if path.name not in named:
                with contextlib.suppress(OSError):
                    path.unlink()
        if strays:
            sync(self.folder)

    def last_in_use(self) -> str:
        """The file that was written to last: behind it there are only empty ones. Only it can be cut short."""
        used = [name for name in self.manifest.names if (self.folder / name).stat().st_size]
        return used[-1] if used else ""

    def size(self) -> int:
        """Bytes of all files that count."""
        return sum((self.folder / name).stat().st_size for name in self.manifest.names)
