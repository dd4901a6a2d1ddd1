"""Serializers: how Python values become a key's bytes, and bytes values again.

    users = kvclient.connect(url, serializer=serializers.JSON)
    users.set("ann", {"age": 30})
    users.get("ann")  # {'age': 30}

A serializer fixes two types: `In`, what commands such as set() take, and `Out`, what commands such as get()
return. Without one, values go in as bytes, text or numbers and come out as bytes.

Only whole values go through it. Commands that change part of a value, or count with it, work on its bytes: append(),
getrange(), incr(), setbit() and their like.

Not here: which commands there are (commands/).
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Generic

from kvclient.errors import UnpackError
from kvclient.protocol import Value

if TYPE_CHECKING:
    from typing_extensions import TypeVar
else:
    from typing import TypeVar as _TypeVar

    def TypeVar(name: str, **options: Any) -> _TypeVar:  # noqa: N802 - it stands for the class
        """Defaults (PEP 696) are for type checkers; Python has them from 3.13 on."""
        options.pop("default")
        return _TypeVar(name, **options)


In = TypeVar("In", contravariant=True, default=Value)
Out = TypeVar("Out", covariant=True, default=bytes)
T = TypeVar("T", default=Any)


@dataclass(frozen=True)
class Serializer(Generic[In, Out]):
    """Two functions that belong together. Make one of any pair that you have.

    Attributes:
        name: for error texts.
        pack: a value to bytes (or to what needs no more than encoding: text, a number).
        unpack: bytes to a value. Whatever it raises, the caller of a command sees UnpackError.
    """

    name: str
    pack: Callable[[In], Value]
    unpack: Callable[[bytes], Out]

    def read(self, data: bytes) -> Out:
        """What the bytes stand for.

        Raises:
            UnpackError: unpack() can make nothing of them.
        """
        try:
            return self.unpack(data)
        except Exception as error:
            raise UnpackError(
                f"a value of {len(data)} bytes is not what the {self.name} serializer writes ({type(error).__name__}): "
                "was it stored by a program that uses another one?"
            ) from error


def _same(value: Value) -> Value:
    return value


def _bytes(data: bytes) -> bytes:
    return data


PLAIN: Final[Serializer[Value, bytes]] = Serializer("plain", _same, _bytes)
"""Bytes, text or numbers in, bytes out. What is used if no other is given."""

TEXT: Final[Serializer[Value, str]] = Serializer("text", _same, lambda data: data.decode())
"""The same in, str out: UTF-8."""


def _to_json(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()


JSON: Final[Serializer[Any, Any]] = Serializer("JSON", _to_json, json.loads)
"""What JSON knows: dicts with text keys, lists, str, int, float, bool, None."""


def msgpack() -> Serializer[Any, Any]:
    """MessagePack: as JSON, and bytes; smaller. Needs the extra `msgpack`: pip install kvserver[msgpack]."""
    import msgpack

    library: Any = msgpack  # it has no types
    return Serializer("msgpack", library.packb, library.unpackb)


def model(kind: type[T]) -> Serializer[T, T]:
    """JSON for a dataclass, a TypedDict, a pydantic model or any other type that pydantic knows, checked both ways.

    Needs the extra `pydantic`: pip install kvserver[pydantic].

    Args:
        kind: the type. A value of another type is refused with TypeError.
    """
    from pydantic import TypeAdapter

    adapter: TypeAdapter[T] = TypeAdapter(kind)
    plain = getattr(kind, "__origin__", kind)

    def pack(value: T) -> bytes:
        if isinstance(plain, type) and not hasattr(plain, "__total__") and not isinstance(value, plain):
            raise TypeError(f"the values here are of type {kind.__name__}, not {type(value).__name__}")
        return adapter.dump_json(value)

    return Serializer(getattr(kind, "__name__", str(kind)), pack, adapter.validate_json)


def pickle(*, trusted: bool = False) -> Serializer[Any, Any]:
    """Python's pickle: nearly any object. Whoever can write to the server can run code in the programs that read.

    Args:
        trusted: say True if nobody else can write there; otherwise there is a warning.
    """
    import pickle

    if not trusted:
        warnings.warn(
            "unpickling a value runs whatever code is in it: use it only on a server that nobody else can write to, "
            "and say so by pickle(trusted=True); serializers.JSON and model() are safe",
            stacklevel=2,
        )
    return Serializer("pickle", lambda value: pickle.dumps(value, pickle.HIGHEST_PROTOCOL), pickle.loads)
