"""The file by which a migration goes on where another was ended: JSON, replaced as a whole. Never with a password.

Which keys were copied is in another file beside it, FILE.keys (ledger.py). Not here: what follows from either.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Final

_VERSION: Final = 1


class StateError(Exception):
    """The state file cannot be used; one line says why."""


@dataclass
class State:
    """How far a migration has come.

    Attributes:
        source, target: their addresses.
        databases: from numbers at the source to those at the target, as text; empty for all.
        match: the pattern that keys have to match, or None.
        target_run: what tells one run of the target from another, or None.
        phase: "copying", "following" after all was copied once, or "done".
    """

    source: str
    target: str
    databases: dict[str, int]
    match: str | None
    target_run: str | None = None
    phase: str = "copying"

    def check(self, other: State) -> None:
        """Raise StateError unless the other is of the same migration."""
        for name, word in (("source", "from"), ("target", "to"), ("databases", "database"), ("match", "pattern")):
            ours, theirs = getattr(self, name), getattr(other, name)
            if ours != theirs:
                raise StateError(
                    f"this state file is of another migration ({word}: {_shown(theirs)}, and not {_shown(ours)}): "
                    "name another file, or give the same arguments"
                )


def _shown(value: object) -> str:
    return "all" if not value else str(value)


def load(path: Path) -> State | None:
    """What the file says; None if there is no such file.

    Raises:
        StateError: it is no state file, or cannot be read.
    """
    try:
        found: Any = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StateError(f"cannot read {path}: {error.strerror}") from None
    except (ValueError, RecursionError):
        raise StateError(f"{path} is no state file of kv migrate: name another") from None
    if not isinstance(found, dict) or found.pop("version", None) != _VERSION or not _is_whole(found):
        raise StateError(f"{path} is no state file of this kv migrate: name another")
    return State(**found)


def _is_whole(found: dict[str, Any]) -> bool:
    if set(found) != {field.name for field in fields(State)} or not isinstance(found["databases"], dict):
        return False
    texts = [found["source"], found["target"], found["phase"], *found["databases"]]
    perhaps = [found["match"], found["target_run"]]
    return (
        all(isinstance(text, str) for text in texts)
        and all(text is None or isinstance(text, str) for text in perhaps)
        and all(type(db) is int for db in found["databases"].values())
    )


def save(path: Path, state: State) -> None:
    """Replace the file: whoever reads it finds the old one or the new one, whole.

    Raises:
        StateError: it cannot be written.
    """
    beside = path.with_name(f"{path.name}.new")
    try:
        with beside.open("w", encoding="utf-8") as file:
            json.dump({"version": _VERSION, **asdict(state)}, file, indent=1)
            file.write("\n")
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
        _sync_directory(path.parent)
    except OSError as error:
        raise StateError(f"cannot write {path}: {error.strerror}") from None


def _sync_directory(path: Path) -> None:
    """Have the new name outlive a crash of the machine, where directories can be synced."""
    if os.name != "posix":
        return
    directory = os.open(path, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
