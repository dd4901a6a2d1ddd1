"""Looking at a data directory, mending it, copying it: ``kvserver check``, ``repair`` and ``backup``."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from kvserver.journal.directory import Directory, DirectoryError, Manifest, sync
from kvserver.journal.format import Truncated, Unreadable, read_batches
from kvserver.journal.recovery import RecoveryError, cut_off, opened, refuse_rdb

Say = Callable[[str], object]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What was found out about one file.

    Attributes:
        batches: that are whole, from the beginning.
        good: bytes up to the first that is not.
        size: of the file, in bytes.
        fault: what is wrong from there on; None for a whole file.
        harmless: whether that is what a crash leaves behind, in the last file.
    """

    path: Path
    batches: int
    good: int
    size: int
    fault: str | None
    harmless: bool

    @property
    def line(self) -> str:
        """The verdict for people."""
        if self.fault is None:
            return f"{self.path.name}: good; {self.batches} batches, {self.size} bytes"
        kind = "cut short" if self.harmless else "DAMAGED"
        return (
            f"{self.path.name}: {kind} at byte {self.good} of {self.size}, after {self.batches} batches: {self.fault}"
        )


def _examine(path: Path, *, is_last: bool) -> Verdict:
    batches = good = 0
    fault, harmless = None, False
    with opened(path) as data:
        size = len(data)
        try:
            refuse_rdb(path, data)
            for batch in read_batches(data):
                batches, good = batches + 1, batch.end
        except Unreadable as error:
            good, fault, harmless = error.offset, error.reason, isinstance(error, Truncated) and is_last
        except RecoveryError as error:
            fault = str(error)
    return Verdict(path, batches, good, size, fault, harmless)


def examine(directory: Directory) -> Iterator[Verdict]:
    """A verdict on each file, in the order of replay."""
    last = directory.last_in_use()
    for name in directory.manifest.names:
        yield _examine(directory.folder / name, is_last=name == last)


def check(path: str, say: Say) -> int:
    """Read all files and say what they are like; 0 if a server would load them, 1 if not. Changes nothing."""
    directory = Directory(path)
    try:
        directory.read()
    except (DirectoryError, OSError) as error:
        say(str(error))
        return 1
    if not directory.manifest.names:
        say(f"{path}: there is no journal here")
        return 1
    verdicts = list(examine(directory))
    for verdict in verdicts:
        say(verdict.line)
    bad = [verdict for verdict in verdicts if verdict.fault is not None]
    if not bad:
        say("All files are good.")
    elif all(verdict.harmless for verdict in bad):
        say("A server will cut off what is not whole, and start.")
    else:
        say("A server will not start on this. kvserver repair cuts off what is not whole, and keeps a copy.")
        return 1
    return 0


def repair(path: str, say: Say) -> int:
    """Cut the first file that is not whole where it stops being so, and forget the files after it.

    What is lost is said before, and a copy of each file that is changed or forgotten is kept beside it. 0 if a server
    will load what is left, 1 if nothing could be done.
    """
    directory = Directory(path)
    try:
        directory.open(create=False)
    except (DirectoryError, OSError) as error:
        say(str(error))
        return 1
    try:
        return _repair(directory, say)
    finally:
        directory.close()


def _repair(directory: Directory, say: Say) -> int:
    verdicts = list(examine(directory))
    broken = next((verdict for verdict in verdicts if verdict.fault is not None), None)
    if broken is None:
        say("All files are good; nothing was changed.")
        return 0
    place = verdicts.index(broken)
    later = verdicts[place + 1 :]
    lost = broken.size - broken.good + sum(verdict.size for verdict in later)
    say(broken.line)
    if not broken.good and directory.manifest.base is not None and broken.path.name == directory.manifest.base[0]:
        say("Nothing of the base file can be read; restore the directory from a backup.")
        return 1
    say(f"{lost} bytes from there on will be lost, in {1 + len(later)} file(s). Copies end in .before-repair.")
    for verdict in (broken, *later):
        shutil.copy2(verdict.path, verdict.path.with_name(verdict.path.name + ".before-repair"))
    sync(directory.folder)
    kept = {verdict.path.name for verdict in verdicts[: place + 1]}
    manifest = directory.manifest
    directory.write_manifest(Manifest(manifest.base, tuple(file for file in manifest.increments if file[0] in kept)))
    cut_off(broken.path, broken.good)
    for verdict in later:
        verdict.path.unlink()
    say("Repaired.")
    return 0


def backup(path: str, target: str, say: Say) -> int:
    """Copy the files that count to another directory, from a running server or a stopped one; 0 if that succeeded.

    Only the last increment grows, and those before it are complete once it has begun to. So the last is copied first:
    then the copy is the data at one moment, but for a tail that is not whole, which is cut off. A rewrite in between is
    noticed, and the copy begun anew.
    """
    if Path(target).exists() and any(Path(target).iterdir()):
        say(f"{target}: is not empty; choose a directory that does not exist")
        return 1
    for _ in range(10):
        source = Directory(path)
        try:
            source.read()
            if not source.manifest.names:
                say(f"{path}: there is no journal here")
                return 1
            _copy(source, Directory(target))
        except (DirectoryError, FileNotFoundError):  # rewritten meanwhile
            if not source.manifest_path.exists():
                say(f"{path}: there is no journal here")
                return 1
            shutil.rmtree(target, ignore_errors=True)
            continue
        except OSError as error:
            say(f"{error.filename or target}: {error.strerror}")
            return 1
        say(f"{len(source.manifest.names)} files copied to {target}.")
        return check(target, say)
    say(f"{path}: is rewritten again and again; try once more")
    return 1


def _copy(source: Directory, target: Directory) -> None:
    target.folder.mkdir(parents=True, exist_ok=True)
    manifest = source.manifest
    for name in reversed(manifest.names):
        with (source.folder / name).open("rb") as old, (target.folder / name).open("wb") as new:
            shutil.copyfileobj(old, new, 1024 * 1024)
            new.flush()
            os.fsync(new.fileno())
    source.read()
    if source.manifest != manifest:
        raise FileNotFoundError(source.manifest_path)
    target.write_manifest(manifest)
    for verdict in examine(target):
        if verdict.harmless:
            cut_off(verdict.path, verdict.good)
