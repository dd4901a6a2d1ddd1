"""A disk that forgets what was not synced: made from what a program really asked of the system.

strace tells the calls; :class:`Disk` replays them up to any one, and then loses power. Of a file, what was written
since its last sync may be there or not, each sector by itself (a lost one reads as zeros), and the file may end
anywhere behind what was synced. Of a directory, the names that were created, changed or removed since its last sync
may be so or not, in the order in which they were: a later one is not kept if an earlier one was lost.
"""

from __future__ import annotations

import random
import re
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

from support import need

SECTOR = 512
_CALLS = "openat,write,fdatasync,fsync,rename,renameat,renameat2,unlink,unlinkat,ftruncate"
_LINE = re.compile(r"(\d+) +(\w+)\((.*)\) += (-?\d+)(<.*>)?.*")
_TEXT = re.compile(r'"((?:\\x[0-9a-f]{2})*)"(\.\.\.)?|<((?:\\x[0-9a-f]{2})*)>')


@dataclass(frozen=True)
class Call:
    """A system call about the data directory, or a line that the program printed."""

    name: str
    path: str = ""
    other: str = ""  # for rename, the new name
    text: bytes = b""
    size: int = 0
    creates: bool = False


def _plain(text: str) -> bytes:
    return bytes.fromhex(text.replace("\\x", ""))


def trace(program: str, data: Path, scratch: Path) -> tuple[list[Call], int]:
    """What a Python program, given the data directory, asks of the system; and its exit status."""
    log = scratch / "strace"
    command = [need("strace"), "-f", "-qq", "-y", "-xx", "-s", "10000000", "-e", f"trace={_CALLS}", "-o", str(log)]
    ran = subprocess.run(
        [*command, sys.executable, "-c", program, str(data)], capture_output=True, check=False, timeout=100
    )
    begun: dict[str, str] = {}
    calls: list[Call] = []
    for line in log.read_text(encoding="ascii").splitlines():
        thread, _, rest = line.partition(" ")
        if rest.endswith("<unfinished ...>"):
            begun[thread] = rest.removesuffix("<unfinished ...>").strip()
            continue
        resumed = re.match(r" *<\.\.\. \w+ resumed>(.*)", rest)
        found = _LINE.fullmatch(f"{thread} {begun.pop(thread) + resumed[1] if resumed else rest.strip()}")
        if found is not None and not found[4].startswith("-"):
            call = _call(found[2], found[3], int(found[4]), str(data))
            if call is not None:
                calls.append(call)
    return calls, ran.returncode


def _call(name: str, arguments: str, result: int, data: str) -> Call | None:
    texts = [_plain(quoted or angled or "") for quoted, _, angled in _TEXT.findall(arguments)]
    if name == "write" and arguments.startswith("1<"):
        return Call("print", text=texts[1])
    paths = [text.decode("utf-8", "replace") for text in texts]
    inside = [path for path in paths if path.startswith(data)]
    if not inside:
        return None
    if name.startswith("rename"):
        return Call("rename", inside[-2], inside[-1])
    if name.startswith("unlink"):
        return Call("unlink", inside[-1])
    if name == "openat":
        return Call("open", inside[-1], creates="O_CREAT" in arguments)
    if name == "write":
        return Call("write", inside[0], text=texts[1][:result])
    if name == "ftruncate":
        return Call("truncate", inside[0], size=int(arguments.rsplit(",", 1)[1]))
    return Call("sync", inside[0])


@dataclass
class _File:
    data: bytearray = field(default_factory=bytearray)
    safe: bytes = b""


class Disk:
    """The state of a disk. ``crash`` makes a directory of what may be left of it."""

    def __init__(self) -> None:
        self._names: dict[str, _File] = {}
        self._safe: dict[str, _File] = {}
        self._changes: list[dict[str, _File]] = []  # the names after each change since the directory's last sync
        self._open: dict[str, _File] = {}  # by the name under which a file was opened, and strace shows it
        self.printed = b""

    def do(self, call: Call) -> None:
        """Run a call."""
        if call.name == "print":
            self.printed += call.text
        elif call.name == "open":
            if call.creates and call.path not in self._names:
                self._names[call.path] = _File()
                self._note()
            if call.path in self._names:
                self._open[call.path] = self._names[call.path]
        elif call.name == "write":
            self._open[call.path].data += call.text
        elif call.name == "truncate":
            del self._open[call.path].data[call.size :]
        elif call.name == "rename":
            self._open[call.other] = self._names[call.other] = self._names.pop(call.path)
            self._note()
        elif call.name == "unlink":
            self._names.pop(call.path, None)
            self._note()
        elif call.path in self._open:
            file = self._open[call.path]
            file.safe = bytes(file.data)
        elif call.path.endswith("appendonlydir"):
            self._safe = dict(self._names)
            self._changes.clear()

    def _note(self) -> None:
        self._changes.append(dict(self._names))

    def crash(self, folder: Path, draw: random.Random) -> None:
        """Make ``folder`` what may be left of the data directory."""
        kept = draw.randrange(len(self._changes) + 1)
        names = self._changes[kept - 1] if kept else self._safe
        for path, file in names.items():
            target = folder / "appendonlydir" / Path(path).name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(_what_is_left(file, draw))


def _what_is_left(file: _File, draw: random.Random) -> bytes:
    if bytes(file.data[: len(file.safe)]) != file.safe:  # truncated since; either may be there
        return draw.choice([file.safe, bytes(file.data)])
    size = draw.randint(len(file.safe), len(file.data))
    left = bytearray(file.data[:size])
    for start in range(len(file.safe) // SECTOR * SECTOR, size, SECTOR):
        if draw.random() < 0.4:
            first = max(start, len(file.safe))
            left[first : start + SECTOR] = bytes(len(left[first : start + SECTOR]))
    return bytes(left)
