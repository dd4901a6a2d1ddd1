"""Commands written in Python by those who run the server. Trusted code: loaded at the start, never over the wire.

::

    import kvserver

    @kvserver.command("LIMIT.TAKE", keys=(1, 1, 1))
    def take(data: kvserver.Data, key: bytes, limit: int, seconds: int) -> int:
        \"\"\"Counts one use; returns how many are left, or -1.\"\"\"
        count = data.incr(key)
        if count == 1:
            data.expire(key, seconds)
        return limit - count if count <= limit else -1

The function's signature is the command's: ``bytes`` takes an argument as it is, ``str`` as UTF-8, ``int`` and ``float``
as the server reads numbers; a default makes an argument optional, ``*words: bytes`` takes the rest. Its docstring is
what COMMAND DOCS says. It runs under the keyspace lock, so it is as atomic as any command, and everybody waits for it.
If it raises, what it has done is undone, the client gets an error and the log a line.

The commands are there for all servers of the process. Not here: what dispatch does around a command.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import itertools
import re
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, Final, TypeAlias, TypeVar, get_type_hints

from kvserver import errors
from kvserver.commands.arguments import INTEGER_MAX, integer
from kvserver.commands.registry import COMMANDS, DIRECT, Command, Flags, Group, Keys, find, key_places, named
from kvserver.commands.registry import command as register
from kvserver.commands.strings import add
from kvserver.observe.log import get_logger
from kvserver.protocol.replies import Error, Reply
from kvserver.protocol.words import Word, encoded
from kvserver.store.memory import Database

WRITE: Final = Flags.WRITE | Flags.DENYOOM
"""For a command that may change data."""
READONLY: Final = Flags.READONLY
"""For a command that only reads."""
_SLOW_SECONDS: Final = 0.01
_DEEPEST: Final = 32
"""Lists within lists of a reply."""
_NAME: Final = re.compile(r"[A-Za-z0-9_.:-]{1,32}")
_REAL: Final = re.compile(rb"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_READS: Final[dict[Any, tuple[str, Callable[[bytes], object]]]] = {
    bytes: ("bytes", bytes),
    str: ("str", lambda word: _text(word)),
    int: ("int", integer),
    float: ("float", lambda word: _real(word)),
}

Result: TypeAlias = "bytes | str | int | float | bool | list[Result] | tuple[Result, ...] | dict[str, Result] | None"
_Function = TypeVar("_Function", bound=Callable[..., Result])


class Data:
    """The selected database, for as long as one Python command runs. Keys are bytes or str."""

    def __init__(self, database: Database, *, writable: bool = True) -> None:
        self._database: Database | None = database
        self._writable = writable
        self._before: dict[bytes, tuple[bytes | None, int | None]] = {}  # what was there, of each key that is changed

    def get(self, key: bytes | str) -> bytes | None:
        """The value of a key, or None."""
        return self._open.get(_key(key))

    def set(self, key: bytes | str, value: Word, ttl: float | None = None) -> None:
        """Set a value, with a time to live in seconds, or for good."""
        name, data = self._changing(key), encoded(value)
        self._open.put(name, data)
        if ttl is not None:
            self.expire(name, ttl)

    def delete(self, key: bytes | str) -> bool:
        """Delete a key; whether it was there."""
        return self._open.remove(self._changing(key))

    def exists(self, key: bytes | str) -> bool:
        """Whether there is such a key."""
        return self._open.peek(_key(key)) is not None

    def incr(self, key: bytes | str, amount: int = 1) -> int:
        """Add to a number, 0 if there is no such key; the sum.

        Raises:
            CommandError: the value is no number, or the sum too large.
        """
        if type(amount) is not int:  # what is stored would not be what is returned
            raise TypeError(f"incr() adds whole numbers, not {type(amount).__name__}")
        return add(self._open, self._changing(key), amount)

    def ttl(self, key: bytes | str) -> float | None:
        """Seconds that a key has left; None for ever, or if there is none."""
        database = self._open
        deadline = database.deadline(_key(key)) if database.peek(_key(key)) is not None else None
        return None if deadline is None else (deadline - database.keyspace.now) / 1000

    def expire(self, key: bytes | str, seconds: float) -> bool:
        """Give a key a time to live; whether it exists."""
        name, database = self._changing(key), self._open
        if database.peek(name) is None:
            return False
        database.expire_at(name, min(INTEGER_MAX, database.keyspace.now + int(seconds * 1000)))
        return True

    def call(self, name: str, *words: Word) -> Reply:
        """Run one of the server's own commands on keys; its reply.

        Raises:
            CommandError: it fails, or there is no such command.
        """
        command = [name.encode(), *map(encoded, words)]
        entry = find(COMMANDS, command[0])
        if entry is None:
            raise errors.unknown_command(command)
        # What goes to another database could not be undone here.
        elsewhere = entry.name == "move" or (entry.name == "copy" and b"DB" in [word.upper() for word in command[3:]])
        if not entry.on_database or entry.keys is None or entry.name in _ADDED or elsewhere:
            raise Error(f"ERR {name} cannot be run by a Python command")
        if not entry.minimum <= len(command) <= entry.maximum:
            raise errors.wrong_arity(entry.name)
        if Flags.WRITE in entry.flags:
            for place in key_places(entry, command):
                self._changing(command[place])
        reply: Any = entry.handler(self._open, *command[1:])
        result: Reply = reply() if callable(reply) else reply
        return result

    @property
    def _open(self) -> Database:
        if self._database is None:
            raise RuntimeError("this was for one command, which has ended")
        return self._database

    def _changing(self, key: bytes | str) -> bytes:
        """Note what a key is before it is changed.

        Raises:
            CommandError: the command only reads.
        """
        if not self._writable:
            raise Error("ERR this command is READONLY, and tried to change a key")
        name, database = _key(key), self._open
        if name not in self._before:
            self._before[name] = database.peek(name), database.deadline(name)
        return name

    def close(self, *, undo: bool) -> None:
        """The command has ended; what it has changed stays, or is as before."""
        database, self._database = self._open, None
        if not undo:
            return
        for key, (value, deadline) in self._before.items():
            if (database.peek(key), database.deadline(key)) == (value, deadline):
                continue
            if value is None:
                database.remove(key)
            else:
                database.put(key, value)
                if deadline is not None:
                    database.expire_at(key, deadline)


_ADDED: dict[str, Callable[..., Result]] = {}
"""Functions by the name of their command, in lower case."""


def command(
    name: str,
    *,
    arity: int | None = None,
    flags: Flags = WRITE,
    keys: tuple[int, int, int] | None = (1, 1, 1),
) -> Callable[[_Function], _Function]:
    """Make the function below a command.

    Args:
        name: in capitals, best with a dot, as in ``LIMIT.TAKE``.
        arity: as in COMMAND INFO; it follows from the signature, and is checked if given.
        flags: WRITE or READONLY.
        keys: the places of the first and last argument that are keys (negative: from the end), and the step; or None.

    Raises:
        ValueError, TypeError: there is such a command already; or the signature is none for a command.
    """

    def add_command(function: _Function) -> _Function:
        if not _NAME.fullmatch(name):
            raise ValueError(f"{name!r} is no name for a command: up to 32 letters, digits, and . _ : -")
        parameters = _parameters(function)
        required = sum(each.default is each.empty and each.kind is not each.VAR_POSITIONAL for each in parameters)
        is_open = any(each.kind is each.VAR_POSITIONAL for each in parameters) or required < len(parameters)
        found = -(required + 1) if is_open else required + 1
        if arity is not None and arity != found:
            raise TypeError(f"{name}: its signature says arity {found}, not {arity}")
        _check_keys(name, keys, required)
        earlier = _ADDED.get(name.lower())
        if earlier is not None and _place(earlier) == _place(function):
            remove(name)  # its module was loaded again
        if named(name.lower().encode()) is not None:
            raise ValueError(f"there is a command {name} already")
        access = "RW access update" if Flags.WRITE in flags else "RO access"
        register(
            name,
            " ".join(map(_syntax, parameters)),
            group=Group.GENERIC,
            arity=found,
            flags=flags,
            keys=None if keys is None else Keys(*keys, access),
            complexity="that of its function",
        )(_handler(name, function, parameters, writable=Flags.WRITE in flags))
        _limit(COMMANDS[name.lower().encode()], parameters)
        _ADDED[name.lower()] = function
        return function

    return add_command


def _check_keys(name: str, keys: tuple[int, int, int] | None, required: int) -> None:
    """Raise TypeError unless there is an argument in each place of a key, however the command is called."""
    if keys is None:
        return
    first, last, step = keys
    if first < 1 or step < 1 or required < max(first, last) or 0 <= last < first:
        raise TypeError(
            f"{name}: keys={keys} does not go with its arguments, of which {required} are always given: say which are "
            "keys as (first, last, step), or None"
        )


def remove(name: str) -> None:
    """Forget a command that was made of a function."""
    del _ADDED[name.lower()]
    for table in (COMMANDS, DIRECT):
        for spelled in (name.lower().encode(), name.upper().encode()):
            table.pop(spelled, None)


def load(modules: str) -> None:
    """Import modules, by name or by path, whose commands are thereby added.

    Args:
        modules: separated by commas.

    Raises:
        ValueError: one cannot be imported, with one line that says why.
    """
    for name in filter(None, (part.strip() for part in modules.split(","))):
        before = set(_ADDED)
        try:
            _import(name)
        except Exception as error:
            for added in set(_ADDED) - before:  # not half of a module
                remove(added)
            frame = traceback.extract_tb(error.__traceback__)[-1]
            where = f"{Path(frame.filename).name}:{frame.lineno}"
            raise ValueError(f"{name} cannot be loaded: {type(error).__name__}: {error} ({where})") from error


def _import(name: str) -> ModuleType:
    if not name.endswith(".py"):
        if "" not in sys.path:
            sys.path.insert(0, "")  # as with python -m: modules of the working directory are found
        return importlib.import_module(name)
    path = Path(name).resolve()
    called = _free_name(path)
    spec = importlib.util.spec_from_file_location(called, path)
    if spec is None or spec.loader is None or not path.exists():
        raise FileNotFoundError(f"there is no file {name}")
    module = importlib.util.module_from_spec(spec)
    sys.modules[called] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[called]
        raise
    return module


def _free_name(path: Path) -> str:
    """What a file's module is called: as the file, unless a module from elsewhere is; that may be Python's own."""
    for number in itertools.count(1):
        name = path.stem if number == 1 else f"{path.stem}_{number}"
        if _file_of(name) in (None, str(path)):
            return name
    raise AssertionError


def _file_of(module: str) -> str | None:
    """Where a module is from, or would be if it were imported: a path, or a word; None if there is none."""
    if module in sys.modules:
        return getattr(sys.modules[module], "__file__", None) or "built-in"
    try:
        spec = importlib.util.find_spec(module)
    except (ImportError, ValueError):  # a dotted name, of a package that is not there
        return None
    return None if spec is None else spec.origin or "built-in"


def is_added(name: str) -> bool:
    """Whether a command, by its name in lower case, was made of a function."""
    return name in _ADDED


def functions() -> Iterator[tuple[str, Callable[..., Result]]]:
    """The commands that were added: names in capitals, and functions."""
    for name, function in _ADDED.items():
        yield name.upper(), function


# ---- what a function becomes -----------------------------------------------------------------------------------------


def _place(function: Callable[..., object]) -> tuple[str, str, object]:
    """Where a function is from. Two files may have one name."""
    file = getattr(sys.modules.get(function.__module__), "__file__", None)
    return function.__module__, function.__qualname__, file


def _parameters(function: Callable[..., object]) -> list[inspect.Parameter]:
    """Those after the first, with their annotations as types.

    Raises:
        TypeError: a command cannot have such parameters.
    """
    hints = get_type_hints(function)
    if inspect.iscoroutinefunction(function) or inspect.isgeneratorfunction(function):
        raise TypeError(f"{function.__qualname__}: a command is a plain function, neither async nor a generator")
    first, *rest = inspect.signature(function).parameters.values() or (None,)
    if first is None or hints.get(first.name) is not Data:
        raise TypeError(f"{function.__qualname__}: its first parameter is data: kvserver.Data")
    parameters = [each.replace(annotation=hints.get(each.name)) for each in rest]
    for each in parameters:
        if each.annotation not in _READS or each.kind in (each.KEYWORD_ONLY, each.VAR_KEYWORD):
            raise TypeError(f"{function.__qualname__}: {each.name} is to be positional, and bytes, str, int or float")
    return parameters


def _syntax(parameter: inspect.Parameter) -> str:
    name = parameter.name.replace("_", "-")
    if parameter.kind is parameter.VAR_POSITIONAL:
        return f"[{name} ...]"
    return name if parameter.default is parameter.empty else f"[{name}]"


def _limit(entry: Command, parameters: list[inspect.Parameter]) -> None:
    """Not more words than there are parameters, where some are optional."""
    if not any(each.kind is each.VAR_POSITIONAL for each in parameters):
        entry.maximum = len(parameters) + 1


def _handler(
    name: str, function: Callable[..., Result], parameters: list[inspect.Parameter], *, writable: bool
) -> Callable[..., Reply]:
    """What dispatch calls, with the keyspace lock held."""
    readers = [_READS[each.annotation][1] for each in parameters if each.kind is not each.VAR_POSITIONAL]
    rest = next((_READS[each.annotation][1] for each in parameters if each.kind is each.VAR_POSITIONAL), bytes)

    def handler(database: Database, *words: bytes) -> Reply:
        fixed = len(readers)
        arguments = [read(word) for read, word in zip(readers, words, strict=False)] + [rest(w) for w in words[fixed:]]
        data = Data(database, writable=writable)
        began = time.monotonic()
        try:
            reply = _reply(name, function(data, *arguments))
        except Error as error:
            data.close(undo=True)
            raise Error(error.text.encode("utf-8", "replace").decode() or "ERR") from None
        except BaseException as error:
            data.close(undo=True)
            if isinstance(error, KeyboardInterrupt) and threading.current_thread() is threading.main_thread():
                raise  # Ctrl-C, while the program that embeds the server runs it
            _report(name, error)
            raise Error(f"ERR {name} failed with {type(error).__name__}; the server's log says where") from None
        data.close(undo=False)
        if (seconds := time.monotonic() - began) > _SLOW_SECONDS:
            get_logger().warning("extension.slow", command=name, milliseconds=round(seconds * 1000))
        return reply

    handler.__doc__ = inspect.getdoc(function) or f"Runs {function.__qualname__}."
    return handler


def _report(name: str, error: BaseException) -> None:
    """Log where it happened. The exception's text stays out: it may hold a client's data."""
    frames = traceback.extract_tb(error.__traceback__)[-2:]
    at = [f"{Path(frame.filename).name}:{frame.lineno}" for frame in frames]
    get_logger().error("extension.failed", command=name, exception=type(error).__name__, at=at)


def _reply(name: str, result: Any, depth: int = 0) -> Reply:
    """What a function has returned, as a reply.

    Raises:
        TypeError: it is none.
    """
    if depth > _DEEPEST:
        raise TypeError(f"{name} returned more than {_DEEPEST} lists within each other")
    if result is None or isinstance(result, bool):
        return result
    if isinstance(result, bytes):
        return bytes(result)  # of a subclass, too, whose own ideas of how it looks do not count
    if isinstance(result, float):
        return float(result)
    if isinstance(result, int):
        if not -INTEGER_MAX - 1 <= result <= INTEGER_MAX:
            raise OverflowError(f"{name} returned a number of more than 64 bits")
        return int(result)
    if isinstance(result, str):
        return result.encode()
    if isinstance(result, list | tuple):
        return [_reply(name, item, depth + 1) for item in result]
    if isinstance(result, dict):
        return {_key(key): _reply(name, value, depth + 1) for key, value in result.items()}
    raise TypeError(f"{name} returned a {type(result).__name__}")


def _key(key: bytes | str) -> bytes:
    return key if isinstance(key, bytes) else key.encode()


def _text(word: bytes) -> str:
    try:
        return word.decode()
    except UnicodeDecodeError:
        raise Error("ERR an argument is not valid UTF-8") from None


def _real(word: bytes) -> float:
    if not _REAL.fullmatch(word):
        raise Error(errors.NOT_A_FLOAT)
    return float(word)
