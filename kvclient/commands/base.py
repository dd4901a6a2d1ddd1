"""How one definition of a command serves every kind of client.

A command is defined once, as a method that builds the command's arguments, under a row that says the rest:

    @command("STRLEN", to.integer, safe=True)
    def strlen(self, key: Key) -> Args:
        return (b"STRLEN", key)

The row's converter fixes the type T of the result; the method's parameters are the parameters P of the call.
What calling it does depends on the face, the base class of the object it is called on: on a Direct one
(Client) it returns T, on an Awaited one (AsyncClient) a coroutine that returns T, on a Queued one (Pipeline) a
Future[T]. A further face is one more overload of Command.__get__ and one more `_submit`.

A command that takes or returns whole values takes `In` and returns `Out`, the types of the face's serializer:

    @value_command("GET", to.One[Out](), safe=True)
    def get(self, key: Key) -> Args:
        return (b"GET", key)

    @command("SET", to.done_or_not)
    def set(self, key: Key, value: In, ...) -> Args:
        return (b"SET", key, self._pack(value))

Parameters annotated as Key, Sequence[Key] or Items are keys: within a namespace they get its prefix. A command
marked `whole` is about all keys, and so has no meaning within one.

Not here: any particular command, and how a command is sent.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Mapping
from typing import (
    TYPE_CHECKING,
    Any,
    Concatenate,
    Generic,
    NamedTuple,
    ParamSpec,
    TypeAlias,
    TypeVar,
    overload,
)

from kvclient.errors import CommandRefusedError, KVError, PipelineAbandonedError, ServerError, UnpackError
from kvclient.protocol import Key, Value
from kvclient.serializers import PLAIN, In, Out, Serializer

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator

    from kvclient.protocol import Reply

P = ParamSpec("P")
T = TypeVar("T")
S = TypeVar("S")
X = TypeVar("X")

Args: TypeAlias = tuple[Value, ...]
# Mapping does not let dict[str, int] pass for Mapping[Key, Value], hence one alternative for each type of key.
Items: TypeAlias = Mapping[bytes, In] | Mapping[str, In] | Mapping[Key, In]


class Whole(tuple[Value, ...]):
    """The words of a command that must not be split among the nodes of a cluster, which would make it several."""

    __slots__ = ()


def words_of(words: Args, *, atomic: bool) -> Args:
    """A command that may be split among the nodes of a cluster, unless `atomic`."""
    return Whole(words) if atomic else words


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
            UnpackError: the serializer can make nothing of the value.
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
        return self._error is None or isinstance(self._error, ServerError | UnpackError)

    def settle(self, reply: Reply) -> None:
        """Take the command's reply (for the pipeline to call).

        Raises:
            ProtocolError: the reply has a type that the command never answers with.
        """
        if isinstance(reply, ServerError):
            self._error = reply
        else:
            try:
                self._value = self._convert(reply)
                self._error = None
            except UnpackError as error:  # one value, not the conversation
                self._error = error

    def fail(self, error: KVError) -> None:
        """Have result() raise `error` (for the pipeline to call)."""
        self._error = error


_NOT_RUN = PipelineAbandonedError("this pipeline has not run: results are there after its with block, or run()")


class Face(Generic[In, Out]):
    """A kind of object that commands are called on."""

    def __init__(self, serializer: Serializer[In, Out], prefix: bytes = b"") -> None:
        self.show(serializer, prefix)

    def show(self, serializer: Serializer[In, Out], prefix: bytes) -> None:
        """Take values of the serializer's types, and keys within a namespace. For copies of a face, its views."""
        self.serializer = serializer
        self._pack = serializer.pack
        self._unpack = serializer.read
        self._prefix = prefix  # of the namespace; b"" outside of one

    def _submit(self, words: Args, convert: Callable[[Reply], T], safe: bool, patience: float | None) -> object:
        """Do with a command what this face does with commands.

        Args:
            words: the command.
            convert: makes the result of a reply that is not an error.
            safe: whether running it twice is as good as once.
            patience: seconds that the server may take by design, on top of the timeout; None: no longer than usual.
        """
        raise NotImplementedError

    @classmethod
    def _bind(cls, command: Command[S, P, T]) -> Callable[..., object]:
        """The function that becomes the method for `command` on this class."""
        build, convert, safe, patience = command.build, command.convert, command.safe, command.patience
        unpacks, under, plain = command.unpacks, command.under, getattr(convert, "plain", None)

        def method(self: Face[Any, Any], *args: object, **kwargs: object) -> object:
            if self._prefix:
                args, kwargs = under(self._prefix, args, kwargs)
            words: Args = build(self, *args, **kwargs)  # type: ignore[arg-type]
            return self._submit(words, convert, safe, None if patience is None else patience(words))

        def method_of_values(self: Face[Any, Any], *args: object, **kwargs: object) -> object:
            if self._prefix:
                args, kwargs = under(self._prefix, args, kwargs)
            words: Args = build(self, *args, **kwargs)  # type: ignore[arg-type]
            if self.serializer is PLAIN and plain is not None:
                return self._submit(words, plain, safe, None)
            unpack = self._unpack
            return self._submit(words, lambda reply: convert(reply, unpack), safe, None)

        return method_of_values if unpacks else method


class Direct(Face[In, Out]):
    """Commands run at once and return their result."""


class Awaited(Face[In, Out]):
    """Commands return a coroutine, which runs them and returns their result."""

    def _submit(
        self, words: Args, convert: Callable[[Reply], T], safe: bool, patience: float | None
    ) -> Coroutine[object, object, T]:
        raise NotImplementedError

    @classmethod
    def _bind(cls, command: Command[S, P, T]) -> Callable[..., object]:
        """A coroutine function, so that whoever asks whether it is one gets the right answer."""
        arrange = super()._bind(command)

        async def method(self: Awaited[Any, Any], *args: object, **kwargs: object) -> object:
            return await arrange(self, *args, **kwargs)  # type: ignore[misc]

        return method


class Queued(Face[In, Out]):
    """Commands are kept for later and return a Future of their result."""


class Command(Generic[S, P, T]):
    """One command, before it is bound to a face.

    Attributes:
        name: the server's name for it, with its subcommand as in "CLIENT|ID".
        build: makes the arguments to send; its first parameter is the object it is called on.
        convert: makes the result of a reply that is not an error; ProtocolError if the reply has a wrong type.
        unpacks: whether `convert` also takes what makes a value of bytes.
        safe: True if running it twice is as good as once, whoever else is writing: it only reads.
        patience: seconds that the server may take by design, read from the arguments; added to the deadline.
        whole: True if it is about all keys of a database, or nobody knows which.
    """

    def __init__(
        self,
        name: str,
        convert: Callable[..., T],
        build: Callable[Concatenate[S, P], Args],
        *,
        unpacks: bool,
        safe: bool,
        patience: Callable[[Args], float] | None = None,
        whole: bool = False,
    ) -> None:
        self.name = name
        self.convert = convert
        self.build = build
        self.unpacks = unpacks
        self.safe = safe
        self.patience = patience
        self.whole = whole
        self.__doc__ = build.__doc__
        self._places = _places_of_keys(build)
        # help() and documentation tools read the builder's signature: let it tell what the method returns.
        source = type(convert).__call__ if unpacks else convert
        build.__annotations__["return"] = (
            source.__annotations__["return"].replace("X", "Out") if unpacks else (source.__annotations__["return"])
        )

    def under(
        self, prefix: bytes, args: tuple[object, ...], kwargs: dict[str, object]
    ) -> tuple[tuple[object, ...], dict[str, object]]:
        """The arguments of a call with a prefix to all keys.

        Raises:
            CommandRefusedError: the command is marked `whole`.
        """
        if self.whole:
            name = self.name.replace("|", " ")
            raise CommandRefusedError(f"{name} knows nothing of namespaces: call it outside of the namespace")
        places = self._places
        args = tuple(
            [_prefixed(prefix, arg) if min(at, places.rest) in places.positions else arg for at, arg in enumerate(args)]
        )
        return args, {name: _prefixed(prefix, arg) if name in places.names else arg for name, arg in kwargs.items()}

    @overload
    def __get__(self, face: None, owner: type) -> Command[S, P, T]: ...
    @overload
    def __get__(self, face: Direct[Any, Any], owner: type) -> Callable[P, T]: ...
    @overload
    def __get__(self, face: Awaited[Any, Any], owner: type) -> Callable[P, Coroutine[object, object, T]]: ...
    @overload
    def __get__(self, face: Queued[Any, Any], owner: type) -> Callable[P, Future[T]]: ...
    def __get__(self, face: object, owner: type) -> object:
        """Reached on the class that defines commands only: concrete faces have plain functions instead."""
        return self


class _Places(NamedTuple):
    """Which of a builder's parameters are keys."""

    positions: frozenset[int]  # after self
    names: frozenset[str]
    rest: int  # the position of the one that takes all further arguments, as *keys does


def _places_of_keys(build: Callable[..., Args]) -> _Places:
    parameters = list(inspect.signature(build).parameters.values())[1:]
    is_key = {
        place: str(parameter.annotation) in {"Key", "Sequence[Key]", "Items[In]"}
        for place, parameter in enumerate(parameters)
    }
    rest = next((place for place, each in enumerate(parameters) if each.kind is each.VAR_POSITIONAL), len(parameters))
    return _Places(
        frozenset(place for place, wanted in is_key.items() if wanted),
        frozenset(parameter.name for place, parameter in enumerate(parameters) if is_key[place]),
        rest,
    )


def prefixed(prefix: bytes, key: Key) -> bytes:
    """A key within a namespace, as the server knows it."""
    return prefix + (key.encode() if isinstance(key, str) else key)


def _prefixed(prefix: bytes, keys: object) -> object:
    """A key, several, or a mapping from keys, with a prefix to each."""
    if isinstance(keys, bytes | str):
        return prefixed(prefix, keys)
    if isinstance(keys, Mapping):
        return {_prefixed(prefix, key): value for key, value in keys.items()}
    if isinstance(keys, list | tuple):
        return [_prefixed(prefix, key) for key in keys]
    raise TypeError(f"a key is bytes or str, not {type(keys).__name__}")


def command(
    name: str,
    convert: Callable[[Reply], T],
    *,
    safe: bool = False,
    patience: Callable[[Args], float] | None = None,
    whole: bool = False,
) -> Callable[[Callable[Concatenate[S, P], Args]], Command[S, P, T]]:
    """The row above a command's builder; see Command for what its parts mean."""

    def decorate(build: Callable[Concatenate[S, P], Args]) -> Command[S, P, T]:
        return Command(name, convert, build, unpacks=False, safe=safe, patience=patience, whole=whole)

    return decorate


def value_command(
    name: str, convert: Callable[[Reply, Callable[[bytes], X]], T], *, safe: bool = False
) -> Callable[[Callable[Concatenate[S, P], Args]], Command[S, P, T]]:
    """As command(), for one that returns whole values, which the serializer unpacks."""

    def decorate(build: Callable[Concatenate[S, P], Args]) -> Command[S, P, T]:
        return Command(name, convert, build, unpacks=True, safe=safe)

    return decorate


class CommandSet:
    """Base of classes that define commands; gives each concrete face its methods, once, when it is defined.

    A class that is only part of a face says so (`is_part`), and leaves that to the whole.

    Plain functions, not a descriptor at work in every call: a call then costs what a method call costs.
    """

    def __init_subclass__(cls, *, is_part: bool = False) -> None:
        super().__init_subclass__()
        if is_part or not issubclass(cls, Face):
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
