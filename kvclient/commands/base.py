"""How one definition of a command serves every kind of client.

A command is defined once, as a method that builds the command's arguments, under a row that says the rest:

    @command("STRLEN", to.integer, safe=True)
    def strlen(self, key: Key) -> Args:
        return (b"STRLEN", key)

The row's converter fixes the type T of the result; the method's parameters are the parameters P of the call.
What calling it does depends on the face, the base class of the object it is called on: on a Direct one
(Client) it returns T, on an Awaited one (AsyncClient) a coroutine that returns T, on a Queued one (Pipeline) a
Future[T]. A further face is one more overload of Command.__get__ and one more `_bind`.

Not here: any particular command, and how a command is sent.
"""

from __future__ import annotations

import functools
import inspect
from typing import (
    TYPE_CHECKING,
    Concatenate,
    Generic,
    ParamSpec,
    TypeAlias,
    TypeVar,
    overload,
)

from kvclient.errors import KVError, PipelineAbandonedError, ServerError
from kvclient.protocol import Value

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator

    from kvclient.protocol import Reply

P = ParamSpec("P")
T = TypeVar("T")
S = TypeVar("S")

Args: TypeAlias = tuple[Value, ...]


class Future(Generic[T]):
    """The result of a command in a pipeline, there as soon as the pipeline has run."""

    __slots__ = ("_convert", "_error", "_value")

    _value: T

    def __init__(self, convert: Callable[[Reply], T]) -> None:
        self._convert = convert
        self._error: KVError | None = _NOT_RUN

    def result(self) -> T:
        """The command's result.

        Raises:
            ServerError: the server refused the command.
            PipelineAbandonedError: the pipeline has not run, or never will.
            KVError: the pipeline failed before this command's reply came.
        """
        if self._error is not None:
            raise self._error
        return self._value

    def error(self) -> KVError | None:
        """What result() would raise, or None if it would return."""
        return self._error

    @property
    def answered(self) -> bool:
        """True once the server has answered the command, with a result or an error."""
        return self._error is None or isinstance(self._error, ServerError)

    def settle(self, reply: Reply) -> None:
        """Take the command's reply (for the pipeline to call).

        Raises:
            ProtocolError: the reply has a type that the command never answers with.
        """
        if isinstance(reply, ServerError):
            self._error = reply
        else:
            self._value = self._convert(reply)
            self._error = None

    def fail(self, error: KVError) -> None:
        """Have result() raise `error` (for the pipeline to call)."""
        self._error = error


_NOT_RUN = PipelineAbandonedError("this pipeline has not run: results are there after its with block, or run()")


class Face:
    """A kind of object that commands are called on."""

    @classmethod
    def _bind(cls, command: Command[S, P, T]) -> Callable[..., object]:
        """The function that becomes the method for `command` on this class."""
        raise NotImplementedError


class Direct(Face):
    """Commands run at once and return their result."""


class Awaited(Face):
    """Commands return a coroutine, which runs them and returns their result."""


class Queued(Face):
    """Commands are kept for later and return a Future of their result."""


class Command(Generic[S, P, T]):
    """One command, before it is bound to a face.

    Attributes:
        name: the server's name for it, with its subcommand as in "CLIENT|ID".
        build: makes the arguments to send; its first parameter is the object it is called on.
        convert: makes the result of a reply that is not an error; ProtocolError if the reply has a wrong type.
        safe: True if running it twice is as good as once, whoever else is writing: it only reads.
        patience: seconds that the server may take by design, read from the arguments; added to the deadline.
    """

    def __init__(
        self,
        name: str,
        convert: Callable[[Reply], T],
        build: Callable[Concatenate[S, P], Args],
        *,
        safe: bool,
        patience: Callable[[Args], float] | None,
    ) -> None:
        self.name = name
        self.convert = convert
        self.build = build
        self.safe = safe
        self.patience = patience
        self.__doc__ = build.__doc__
        # help() and documentation tools read the builder's signature: let it tell what the method returns.
        build.__annotations__["return"] = convert.__annotations__["return"]

    @overload
    def __get__(self, face: None, owner: type) -> Command[S, P, T]: ...
    @overload
    def __get__(self, face: Direct, owner: type) -> Callable[P, T]: ...
    @overload
    def __get__(self, face: Awaited, owner: type) -> Callable[P, Coroutine[object, object, T]]: ...
    @overload
    def __get__(self, face: Queued, owner: type) -> Callable[P, Future[T]]: ...
    def __get__(self, face: object, owner: type) -> object:
        """Reached on the class that defines commands only: concrete faces have plain functions instead."""
        return self


def command(
    name: str,
    convert: Callable[[Reply], T],
    *,
    safe: bool = False,
    patience: Callable[[Args], float] | None = None,
) -> Callable[[Callable[Concatenate[S, P], Args]], Command[S, P, T]]:
    """The row above a command's builder; see Command for what its parts mean."""

    def decorate(build: Callable[Concatenate[S, P], Args]) -> Command[S, P, T]:
        return Command(name, convert, build, safe=safe, patience=patience)

    return decorate


class CommandSet:
    """Base of classes that define commands; gives each concrete face its methods, once, when it is defined.

    Plain functions, not a descriptor at work in every call: a call then costs what a method call costs.
    """

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if not issubclass(cls, Face):
            return
        for name, found in _commands_of(cls):
            method = functools.wraps(found.build)(cls._bind(found))
            method.__qualname__ = f"{cls.__name__}.{name}"
            setattr(cls, name, method)


def _commands_of(cls: type) -> Iterator[tuple[str, Command[object, ..., object]]]:
    """The commands of a class that are not yet bound to a face."""
    for name in dir(cls):
        found = inspect.getattr_static(cls, name)
        if isinstance(found, Command):
            yield name, found


def command_names(cls: type) -> frozenset[str]:
    """The server's names of the commands that a class defines."""
    return frozenset(found.name for _, found in _commands_of(cls))
